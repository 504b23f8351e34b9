/** The Redis store while nothing happens: how little it asks, and that it misses nothing for it. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { RedisStoreOptions } from "../../src/store/redis/options.ts";
import { NOW, numbers, will } from "../contracts/store/fixture.ts";
import { LossyProxy } from "./redis_proxy.ts";
import { RedisBench, until } from "./redis_support.ts";

/** As configured when nothing is: no look at each call. */
const PATIENT: Partial<RedisStoreOptions> = { lookMs: 1e9 };

let bench: RedisBench;

before(async () => {
	bench = await RedisBench.start();
});

after(() => bench.stop());

/** Commands that the server has done since the last RESETSTAT, without those of the test itself. */
async function commands(): Promise<string[]> {
	const stats = await bench.client.info("commandstats");
	const names = [...stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)].map(([, name, calls]) => `${name} ${calls}`);
	return names.filter((name) => !/^(info|config)/.test(name));
}

test("Redis store: while nothing is due, due and reapDead ask nothing", async () => {
	const a = await bench.startReplica(bench.freshPrefix(), { ...PATIENT, leaseMs: 1e9 });
	await a.subscribe(await a.connect("c"), "t");
	await a.close(await a.connect("d", { sessionExpirySeconds: 60 }));
	await a.retain("r", "x", { expiresAtMs: NOW + 50_000 });
	await a.store.due(NOW, 10);
	await bench.client.config("RESETSTAT");
	for (const n of numbers(1, 100)) {
		assert.deepEqual(await a.store.due(NOW + n, 10), { wills: [], expiredSessions: [] });
		await a.redis.reapDead();
	}
	assert.deepEqual(await commands(), []);
	await a.store.due(NOW + 50_000, 10);
	assert.equal((await a.store.stats()).retained, 0);
	assert.deepEqual((await a.store.due(NOW + 60_000, 10)).expiredSessions, ["d"]);
	await a.dispose();
});

test("Redis store: a will that becomes due here is found at once, and again until it is settled", async () => {
	const a = await bench.startReplica(bench.freshPrefix(), { ...PATIENT, leaseMs: 1e9 });
	assert.deepEqual(await a.dueWills(NOW), []);
	await a.close(await a.connect("c", { will: will("w", 5) }));
	assert.deepEqual(await a.dueWills(NOW + 4999), []);
	for (let n = 0; n < 2; n++) assert.deepEqual(await a.dueWills(NOW + 5000), ["c"]);
	await a.connect("c", { will: will("w") });
	await a.connect("c", { cleanStart: true });
	assert.deepEqual(await a.dueWills(NOW), ["c"], "of the connection that was replaced; the first was cancelled");
	for (const { id } of (await a.store.due(NOW + 5000, 10)).wills) await a.publish("w", [], { willId: id });
	await a.store.due(NOW + 5000, 10);
	await bench.client.config("RESETSTAT");
	assert.deepEqual(await a.dueWills(NOW + 6000), []);
	assert.deepEqual(await commands(), []);
	await a.dispose();
});

test("Redis store: deadlines that another replica has set are found after a while, and with each sign of life", async () => {
	const prefix = bench.freshPrefix();
	const looks = await bench.startReplica(prefix, { replicaId: "looks", lookMs: 200, leaseMs: 1e9 });
	const lives = await bench.startReplica(prefix, { replicaId: "lives", ...PATIENT, leaseMs: 1000 });
	const other = await bench.startReplica(prefix, { replicaId: "other" });
	for (const replica of [looks, lives]) {
		await replica.store.due(NOW, 10);
		await other.close(await other.connect("c", { sessionExpirySeconds: 60 }));
		await until(async () => (await replica.store.due(NOW + 60_000, 10)).expiredSessions.length === 1);
	}
	for (const replica of [looks, lives, other]) await replica.dispose();
});

test("Redis store: a replica that dies is noticed when its lease lapses, and its wills are due at once", async () => {
	const prefix = bench.freshPrefix();
	const proxy = await LossyProxy.start(bench.server.port);
	const clock = { nowMs: () => NOW };
	const a = await bench.startReplica(prefix, { replicaId: "a", redis: proxy.url, leaseMs: 1000, clock });
	const b = await bench.startReplica(prefix, { replicaId: "b", ...PATIENT, leaseMs: 1000, clock });
	await a.connect("c", { will: will("w") });
	assert.deepEqual(await b.dueWills(NOW), []);
	await proxy.stop();
	await until(async () => {
		await b.redis.reapDead();
		return (await b.dueWills(NOW)).length > 0;
	});
	assert.equal(await bench.client.zscore(`${prefix}{reps}`, "a"), null);
	await b.dispose();
	await a.dispose();
});
