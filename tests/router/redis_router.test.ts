/** The Redis router while Redis is well: the prose of `src/router/router.ts`, with several routers on one server. */

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { Topic } from "../../src/mqtt/topic.ts";
import { alone } from "../../src/router/alone.ts";
import { createRedisRouter } from "../../src/router/redis_router.ts";
import { StoreError } from "../../src/store/store.ts";
import { routerContract } from "../contracts/router_contract.ts";
import { LossyProxy } from "../store/redis_proxy.ts";
import { forwarded, message, RouterBench, until } from "./router_support.ts";

let bench: RouterBench;
/** Brings late what waits in Redis. */
let proxy: LossyProxy;

before(async () => {
	bench = await RouterBench.start();
	proxy = await LossyProxy.start(bench.server.port);
	proxy.slowDown("BLOCK", 10);
});

afterEach(() => bench.closeRouters());

after(async () => {
	await proxy.stop();
	await bench.stop();
});

routerContract("router alone", () => alone);
routerContract("Redis router", () => bench.make(bench.freshPrefix(), "a").router);

test("Redis router: a catchUp that begins after advertise has resolved sees the filter, 10,000 times, though changes come late (P3)", async () => {
	const prefix = bench.freshPrefix();
	const a = await bench.router(prefix, "a");
	const b = await bench.router(prefix, "b", { redis: proxy.url });
	const kinds = [(n: number) => `exact/${n}`, (n: number) => `wild/${n}/+`, (n: number) => `$share/g/${n}`];
	let late = 0;
	for (let n = 0; n < 10_000; n += 100) {
		await Promise.all(
			Array.from({ length: 100 }, async (_, index) => {
				const filter = (kinds[(n + index) % 3] as (n: number) => string)(n + index);
				const known = (): boolean => (filter.startsWith("exact") ? b.wants(filter).includes("a") : b.routes.get(`a ${filter}`) === 1);
				await a.router.advertise(filter);
				if (!known()) late++;
				await b.router.catchUp();
				assert.ok(known(), filter);
			}),
		);
	}
	assert.ok(late > 9000, `only ${late} came late`);
	assert.deepEqual(a.events, []);
});

test("Redis router: who starts later loads all routes that are there, and is told no own ones", async () => {
	const { a, b, prefix } = await bench.pair();
	await Promise.all(["t/+", "$share/g/t", "$share/g/t", "x", "y"].map((filter) => a.router.advertise(filter)));
	await b.router.advertise("b/#");
	const c = await bench.router(prefix, "c");
	assert.deepEqual([...c.routes].sort(), [
		["a $share/g/t", 2],
		["a t/+", 1],
		["b b/#", 1],
	]);
	assert.deepEqual(c.wants("x"), ["a"]);
	assert.deepEqual(c.wants("z"), []);
	assert.deepEqual(a.wants("x"), []);
});

test("Redis router: a wildcard filter has 1 member however many subscribe, a share group has as many as it has, and 0 when the last goes", async () => {
	const { a, b } = await bench.pair();
	const filters = ["t/#", "$share/g/t"];
	for (let n = 1; n <= 3; n++) {
		for (const filter of filters) void a.router.advertise(filter);
		await b.told(`route a $share/g/t ${n}`);
	}
	for (let n = 2; n >= 0; n--) {
		for (const filter of filters) a.router.withdraw(filter);
		await b.told(`route a $share/g/t ${n}`, n === 0 ? 1 : 2);
	}
	assert.deepEqual(
		b.events.filter((event) => event.includes("t/#")),
		["route a t/# 1", "route a t/# 0"],
	);
	assert.deepEqual(
		b.events.filter((event) => event.includes("$share")),
		[1, 2, 3, 2, 1, 0].map((members) => `route a $share/g/t ${members}`),
	);
});

test("Redis router: an exact filter is wanted until its last subscriber has gone", async () => {
	const { a, b } = await bench.pair();
	await a.router.advertise("t");
	assert.equal(a.router.advertise("t"), undefined);
	a.router.withdraw("t");
	await a.router.advertise("other");
	await b.router.catchUp();
	assert.deepEqual(b.wants("t"), ["a"]);
	a.router.withdraw("t");
	await until("it is not wanted", () => b.wants("t").length === 0);
	assert.deepEqual(b.wants("other"), ["a"]);
});

test("Redis router: advertise of a filter that is still being stored returns that promise", async () => {
	const { a, b } = await bench.pair();
	for (const filter of ["t/+", "$share/g/t", "t"]) {
		const first = a.router.advertise(filter);
		assert.ok(first);
		const second = a.router.advertise(filter);
		assert.equal(second, first, filter);
		await second;
		await b.router.catchUp();
		assert.ok(filter === "t" ? b.wants("t").length === 1 : b.routes.has(`a ${filter}`));
	}
});

test("Redis router: all changes of one event-loop turn are one change", async () => {
	const { a, prefix } = await bench.pair();
	const version = Number(await bench.client.get(`${prefix}{live}:version`));
	await Promise.all(Array.from({ length: 500 }, (_, n) => a.router.advertise(n % 2 === 0 ? `e/${n}` : `w/${n}/#`)));
	assert.equal(Number(await bench.client.get(`${prefix}{live}:version`)), version + 1);
});

test("Redis router: catchUp asks one question for all calls of a turn", async () => {
	const { a } = await bench.pair();
	const asked = async (): Promise<number> => Number(/cmdstat_get:calls=(\d+)/.exec(await bench.client.info("commandstats"))?.[1] ?? 0);
	const earlier = await asked();
	await Promise.all(Array.from({ length: 1000 }, () => a.router.catchUp()));
	assert.ok((await asked()) - earlier <= 8, "1,000 calls in one turn");
});

test("Redis router: forward brings the whole message, with its logs and groups, in the order of the calls", async () => {
	const { a, b } = await bench.pair();
	const payload = Buffer.from([0, 255, 128]);
	const sent = message("", {
		topic: Topic.of("ü/日本"),
		payload,
		qos: 2,
		retain: true,
		forwarded: Buffer.from([1, 1]),
		publisher: "clïent",
	});
	const appended = [
		{ log: "ü/#", seq: 7 },
		{ log: "$share/g/ü/+", seq: 2 ** 40 },
	];
	await a.router.forward(["b"], { message: sent, appended, groups: ["$share/h/日本/#"] }, "token");
	await b.told("message \0��");
	const [got] = b.messages;
	assert.ok(got);
	assert.deepEqual(got.appended, appended);
	assert.deepEqual(got.groups, ["$share/h/日本/#"]);
	assert.equal(got.message.topic.name, "ü/日本");
	assert.deepEqual(Buffer.from(got.message.payload), payload);
	assert.deepEqual([got.message.qos, got.message.retain, got.message.publisher], [2, true, "clïent"]);
	assert.deepEqual(Buffer.from(got.message.forwarded), Buffer.from([1, 1]));
	assert.equal(got.message.expiresAtMs, Number.POSITIVE_INFINITY);
	const numbers = Array.from({ length: 5000 }, (_, n) => String(n));
	await Promise.all(numbers.map((number) => a.router.forward(["b"], forwarded(number), undefined)));
	await until("all have come", () => b.messages.length === 5001);
	assert.deepEqual(b.payloads.slice(1), numbers);
});

test("Redis router: what one turn forwards to a replica is one entry, unless it is much", async () => {
	const { a, b, prefix } = await bench.pair();
	const added = async (): Promise<number> =>
		Number(/"?entries-added"?,(\d+)/.exec(String((await bench.client.xinfo("STREAM", `${prefix}{in:b}`)) as unknown[]))?.[1]);
	const earlier = await added();
	const all = Array.from({ length: 200 }, (_, n) => a.router.forward(["b"], forwarded(String(n)), undefined));
	a.router.ring(["b"], "$share/g/t");
	a.router.ring(["b"], "$share/g/t");
	a.router.notifyTakeover("b", { clientId: "c", epoch: "e" });
	await Promise.all(all);
	assert.equal((await added()) - earlier, 1);
	await b.told("takeover c e");
	assert.equal(b.count("group $share/g/t"), 1);
	assert.deepEqual(b.events.slice(-2), ["group $share/g/t", "takeover c e"]);
	const large = "x".repeat(40_000);
	await Promise.all(Array.from({ length: 10 }, () => a.router.forward(["b"], forwarded(large), undefined)));
	assert.equal((await added()) - earlier, 6);
	await until("the large ones have come", () => b.messages.length === 210);
});

test("Redis router: one message goes to several replicas, and a replica that has gone is skipped", async () => {
	const { a, b, prefix } = await bench.pair();
	const c = await bench.router(prefix, "c");
	await a.router.forward(["b", "c", "gone"], forwarded("x"), undefined);
	await Promise.all([b.told("message x"), c.told("message x")]);
	assert.equal(await bench.client.exists(`${prefix}{in:gone}`), 0);
	await c.router.close();
	await a.router.forward(["b", "c"], forwarded("y"), undefined);
	await b.told("message y");
	assert.equal(await bench.client.exists(`${prefix}{in:c}`), 0);
});

test("Redis router: a repetition with the same token is handed out once, one without a token as often as it comes", async () => {
	const { a, b } = await bench.pair();
	for (let n = 0; n < 3; n++) await a.router.forward(["b"], forwarded("once"), "token");
	for (let n = 0; n < 2; n++) await a.router.forward(["b"], forwarded("often"), undefined);
	await b.told("message often", 2);
	assert.equal(b.count("message once"), 1);
});

test("Redis router: publish brings a message at most once and keeps nothing of it", async () => {
	const { a, b, prefix } = await bench.pair();
	const before = await bench.client.xlen(`${prefix}{in:b}`);
	for (let n = 0; n < 1000; n++) a.router.publish("b", message(String(n), { qos: 0 }), n === 0 ? ["$share/g/t"] : []);
	await until("all have come", () => b.messages.length === 1000);
	assert.deepEqual(
		b.payloads,
		Array.from({ length: 1000 }, (_, n) => String(n)),
	);
	assert.deepEqual([b.messages[0]?.groups, b.messages[1]?.groups, b.messages[0]?.appended], [["$share/g/t"], [], []]);
	assert.equal(await bench.client.xlen(`${prefix}{in:b}`), before);
	assert.equal(a.dropped, 0);
});

test("Redis router: publish drops what Redis does not take fast enough, and says how many", async () => {
	const { a } = await bench.pair();
	const large = message("x".repeat(1_000_000), { qos: 0 });
	for (let n = 0; n < 20; n++) a.router.publish("b", large, []);
	assert.ok(a.dropped >= 10 && a.dropped < 20, `${a.dropped} of 20 dropped`);
});

test("Redis router: an expiry travels as what remains of it, whatever the clocks of the replicas say", async () => {
	const prefix = bench.freshPrefix();
	const a = await bench.router(prefix, "a", { clock: { nowMs: () => 1_000_000 } });
	const b = await bench.router(prefix, "b", { clock: { nowMs: () => 9_000_000 } });
	await a.router.forward(["b"], forwarded("x", { expiresAtMs: 1_005_000 }), undefined);
	a.router.publish("b", message("y", { qos: 0, expiresAtMs: 1_002_000 }), []);
	await until("both have come", () => b.messages.length === 2);
	const expiries = new Map(b.messages.map((each) => [Buffer.from(each.message.payload).toString(), each.message.expiresAtMs]));
	assert.deepEqual([expiries.get("x"), expiries.get("y")], [9_005_000, 9_002_000]);
});

test("Redis router: a replica trims what it has read from its inbox", async () => {
	const { a, b, prefix } = await bench.pair();
	for (let n = 0; n < 600; n++) await a.router.forward(["b"], forwarded(String(n)), undefined);
	await until("all have come", () => b.messages.length === 600);
	await until("the inbox is short", async () => (await bench.client.xlen(`${prefix}{in:b}`)) === 1);
	await a.router.forward(["b"], forwarded("after"), undefined);
	await b.told("message after");
	assert.equal(b.count("gap"), 0);
});

test("Redis router: close takes the routes and the inbox back", async () => {
	const { a, b, prefix } = await bench.pair();
	await Promise.all(["t/#", "$share/g/t", "x"].map((filter) => a.router.advertise(filter)));
	await b.router.catchUp();
	await a.router.close();
	await b.router.catchUp();
	assert.deepEqual([[...b.routes], b.wants("x")], [[], []]);
	const left = (await bench.client.keys(`${prefix}*`)).filter((key) => /[:{]a\b/.test(key.slice(prefix.length)));
	assert.deepEqual(left, []);
	await assert.rejects(async () => a.router.advertise("y"), StoreError);
	await assert.rejects(a.router.catchUp(), StoreError);
	await assert.rejects(a.router.forward(["b"], forwarded("x"), undefined), StoreError);
});

test("Redis router: forget removes all that a dead replica has left", async () => {
	const { a, b, prefix } = await bench.pair();
	await bench.client.hset(`${prefix}{live}`, "dead", "somebody 1");
	await bench.client.hset(`${prefix}{live}:named:dead`, "t/#", 1);
	await bench.client.setbit(`${prefix}{live}:exact:dead`, 5, 1);
	await bench.client.xadd(`${prefix}{in:dead}`, "0-1", "b", "x");
	const c = await bench.router(prefix, "c");
	assert.equal(c.routes.get("dead t/#"), 1);
	await a.router.forget("dead");
	await c.router.catchUp();
	assert.equal(c.routes.has("dead t/#"), false);
	assert.deepEqual(await bench.client.keys(`${prefix}*dead*`), []);
	await a.router.forget("dead");
	assert.deepEqual(b.errors, []);
});

test("Redis router: a replica that starts under the name of an earlier process clears what that left", async () => {
	const { a, b, prefix } = await bench.pair();
	await bench.client.hset(`${prefix}{live}`, "c", "somebody 9");
	await bench.client.hset(`${prefix}{live}:named:c`, "old/#", 1);
	await bench.client.setbit(`${prefix}{live}:exact:c`, 5, 1);
	await bench.client.xadd(`${prefix}{in:c}`, "0-77", "b", "old");
	const c = await bench.router(prefix, "c");
	await b.router.catchUp();
	assert.deepEqual([...b.routes.keys()], []);
	await a.router.forward(["c"], forwarded("new"), undefined);
	await c.told("message new");
	assert.deepEqual([c.payloads, c.count("gap"), c.errors], [["new"], 0, []]);
	assert.equal(await bench.client.exists(`${prefix}{live}:exact:c`), 0);
});

test("Redis router: with the durability replicated nothing counts as stored while no replica of Redis has it", async () => {
	const prefix = bench.freshPrefix();
	const router = createRedisRouter({ redis: bench.server.url, prefix, replicaId: "a", durability: "replicated" });
	const nothing = () => {};
	const handlers = { onRoute: nothing, onMessage: nothing, onGroup: nothing, onTakeover: nothing, onRoutesStored: nothing, onGap: nothing };
	await assert.rejects(router.start(handlers), StoreError);
});

test("Redis router: a name with a brace and a second start are refused", async () => {
	const prefix = bench.freshPrefix();
	assert.throws(() => bench.make("a{", "a"), RangeError);
	assert.throws(() => bench.make(prefix, "a}"), RangeError);
	const a = await bench.router(prefix, "a");
	await assert.rejects(a.start(), TypeError);
});
