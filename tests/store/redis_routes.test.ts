/** How the replicas on one Redis know which logs there are: what comes and goes, what was missed, and what was lost. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { bucketOf, counterOf } from "../../src/store/redis/exact_routes.ts";
import { scripts } from "../../src/store/redis/scripts.ts";
import { assertRejects, numbers, subscription } from "../contracts/store/fixture.ts";
import { LossyProxy } from "./redis_proxy.ts";
import { RedisBench, replicaTests, until } from "./redis_support.ts";

let bench: RedisBench;

before(async () => {
	bench = await RedisBench.start();
});

after(() => bench.stop());

const withReplicas = replicaTests(() => bench);

test("Redis store: a log that one replica has made is known at the other when that has caught up, however slowly it follows", async () => {
	const proxy = await LossyProxy.start(bench.server.port);
	proxy.slowDown("BLOCK", 20);
	const prefix = bench.freshPrefix();
	const a = await bench.startReplica(prefix, { replicaId: "a" });
	const b = await bench.startReplica(prefix, { replicaId: "b", redis: proxy.url });
	const client = await a.connect("c");
	let late = 0;
	for (const n of numbers(1, 50)) {
		await a.subscribe(client, `t/${n}`);
		if (!b.knows(`t/${n}`)) late++;
		await b.redis.catchUp();
		assert.ok(b.knows(`t/${n}`));
	}
	assert.equal(late, 50, "it followed too fast for this test to say anything");
	for (const replica of [a, b]) await replica.dispose();
	await proxy.stop();
});

withReplicas("a log that goes is unknown everywhere, and one that comes again begins anew", 2, async ([a, b]) => {
	assert.ok(a && b);
	const client = await a.connect("c");
	await a.subscribe(client, "t/#");
	await a.fill("t/#", 3);
	await b.redis.catchUp();
	await a.store.unsubscribe(client.ref, ["t/#"]);
	await b.redis.catchUp();
	assert.deepEqual(b.takeLogEvents(), ["+t/#", "-t/#"]);
	assert.deepEqual((await b.publish("t", ["t/#"])).appended, []);
	await b.subscribe(await b.connect("d"), "t/#");
	assert.deepEqual((await a.publish("t", ["t/#"])).appended, [{ log: "t/#", seq: 1 }]);
});

withReplicas("the late removal of an old log does not hide the new one of that name", 2, async ([a, b], prefix) => {
	assert.ok(a && b);
	const client = await a.connect("c");
	await a.subscribe(client, "t/#");
	const generation = await bench.client.hget(`${prefix}{route}`, "t/#");
	await a.store.unsubscribe(client.ref, ["t/#"]);
	await b.subscribe(await b.connect("d"), "t/#");
	const connection = await bench.connect();
	const keys = ["", ":version", ":changes"].map((suffix) => `${prefix}{route}${suffix}`);
	for (const change of ["remove", "put"]) await connection.run(scripts.routeChange, keys, ["t/#", generation ?? "", change, 100]);
	connection.close();
	await a.redis.catchUp();
	assert.ok(a.knows("t/#"));
	assert.notEqual(await bench.client.hget(`${prefix}{route}`, "t/#"), generation);
});

for (const [log, routes] of [
	["t", "{route}:exact"],
	["t/#", "{route}"],
] as const) {
	withReplicas(`a route without a log is put right by the first publication that finds none: ${log}`, 2, async ([a, b], prefix) => {
		assert.ok(a && b);
		const client = await a.connect("c");
		await a.subscribe(client, log);
		await b.redis.catchUp();
		assert.ok(b.knows(log));
		await bench.client.del(`${prefix}{l:${log}}`, `${prefix}{l:${log}}:m`);
		assert.deepEqual((await b.publish("t", [log])).appended, []);
		await until(async () => (await bench.client.hget(`${prefix}${routes}`, log)) === null);
		await b.redis.catchUp();
		assert.equal(b.knows(log), false);
	});
}

withReplicas("a resumed session joins again the log that the server has lost", 1, async ([a], prefix) => {
	assert.ok(a);
	const client = await a.connect("c");
	await a.subscribe(client, "t");
	await a.fill("t", 3);
	await a.checkpoint(client, { cursors: [{ log: "t", cursor: 3, floor: 3 }] });
	await bench.client.del(`${prefix}{l:t}`, `${prefix}{l:t}:m`);
	await a.publish("t", ["t"]);
	await until(async () => !a.knows("t"));
	assert.equal((await a.connect("c")).subscriptions[0]?.cursor, 0);
	assert.deepEqual((await a.publish("t", ["t"])).appended, [{ log: "t", seq: 1 }]);
});

withReplicas("a follower that has missed changes loads all routes again", 2, async ([a, b], prefix) => {
	assert.ok(a && b);
	const client = await a.connect("c");
	for (const log of ["t/#", "gone/#", "t", "gone"]) await a.subscribe(client, log);
	await b.redis.catchUp();
	const { page, place } = counterOf(bucketOf("gone"));
	await bench.client.eval(
		`for n = 1, 5 do
			local version = redis.call("INCR", KEYS[2])
			redis.call("XADD", KEYS[3], "MAXLEN", "=", 1, version .. "-0", "log", "new" .. n .. "/#", "generation", n)
			redis.call("HSET", KEYS[1], "new" .. n .. "/#", n)
		end
		redis.call("HDEL", KEYS[1], "gone/#")
		redis.call("SETRANGE", KEYS[4], ARGV[1], "\\0")`,
		4,
		...["", ":version", ":changes", `:exact:${page}`].map((suffix) => `${prefix}{route}${suffix}`),
		place,
	);
	await b.redis.catchUp();
	assert.deepEqual([...b.known].sort(), ["new1/#", "new2/#", "new3/#", "new4/#", "new5/#", "t/#"]);
	assert.deepEqual([b.knows("t"), b.knows("gone")], [true, false]);
});

withReplicas("an exact filter is known elsewhere until the last one of its bucket is gone", 2, async ([a, b], prefix) => {
	assert.ok(a && b);
	const topics = sameBucket();
	const client = await a.connect("c");
	const version = () => bench.client.get(`${prefix}{route}:version`);
	for (const topic of topics) await a.subscribe(client, topic);
	await b.redis.catchUp();
	assert.equal(await version(), "1", "only the first was news");
	for (const topic of topics) assert.ok(b.knows(topic));
	await a.store.unsubscribe(client.ref, [topics[0]]);
	await b.redis.catchUp();
	assert.ok(b.knows(topics[1]));
	assert.deepEqual((await b.publish("x", topics)).appended, [{ log: topics[1], seq: 1 }], "a wrong guess is skipped");
	await a.store.unsubscribe(client.ref, [topics[1]]);
	await b.redis.catchUp();
	assert.equal(b.knows(topics[1]), false);
	await a.subscribe(client, topics[0]);
	await b.redis.catchUp();
	assert.ok(b.knows(topics[1]));
	assert.deepEqual((await b.publish("x", topics)).appended, [{ log: topics[0], seq: 1 }]);
});

/** Two topics that a replica cannot tell apart. */
function sameBucket(): [string, string] {
	const seen = new Map<number, string>();
	for (let n = 0; ; n++) {
		const other = seen.get(bucketOf(`t/${n}`));
		if (other !== undefined) return [other, `t/${n}`];
		seen.set(bucketOf(`t/${n}`), `t/${n}`);
	}
}

withReplicas("many exact filters are known elsewhere, those that were there before and those that came since", 1, async ([a], prefix) => {
	assert.ok(a);
	const client = await a.connect("c");
	const topics = numbers(1, 6000).map((n) => `t/${n}`);
	const subscribe = (some: string[]) =>
		a.store.subscribe(
			client.ref,
			some.map((topic) => subscription(topic)),
		);
	await subscribe(topics.slice(0, 3000));
	const early = await bench.startReplica(prefix, { replicaId: "early" });
	await subscribe(topics.slice(3000));
	const late = await bench.startReplica(prefix, { replicaId: "late" });
	await early.redis.catchUp();
	for (const replica of [a, early, late]) {
		assert.deepEqual(
			topics.filter((topic) => !replica.redis.hasLog(topic)),
			[],
		);
		assert.ok(numbers(1, 6000).filter((n) => replica.redis.hasLog(`u/${n}`)).length < 60, "more than 1 % of wrong guesses");
	}
	await a.store.unsubscribe(client.ref, topics.slice(1));
	for (const replica of [early, late]) {
		await replica.redis.catchUp();
		assert.deepEqual(
			topics.filter((topic) => replica.redis.hasLog(topic)),
			["t/1"],
		);
		await replica.dispose();
	}
});

test("Redis store: a publication waits no longer than a few seconds for a follower that hears nothing", async () => {
	const prefix = bench.freshPrefix();
	const proxy = await LossyProxy.start(bench.server.port);
	const a = await bench.startReplica(prefix, { replicaId: "a" });
	const b = await bench.startReplica(prefix, { replicaId: "b", redis: proxy.url });
	const client = await a.connect("c");
	await b.redis.catchUp();
	proxy.deafen("BLOCK");
	await a.subscribe(client, "t/#");
	await assertRejects(b.redis.catchUp(), "away");
	await b.redis.catchUp();
	assert.ok(b.known.has("t/#"));
	for (const replica of [a, b]) await replica.dispose();
	await proxy.stop();
});
