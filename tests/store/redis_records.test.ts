/** The records that operators manage, in Redis: the contract, several replicas that tell one another, and what failures leave. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Clock } from "../../src/clock.ts";
import type { RedisStore } from "../../src/store/redis_store.ts";
import { StoreError } from "../../src/store/store.ts";
import { type RecordHarness, recordContract } from "../contracts/record_contract.ts";
import { RecordReplica } from "./record_replica.ts";
import { RedisBench, until } from "./redis_support.ts";

let bench: RedisBench;
let cluster: RedisBench;

before(async () => {
	bench = await RedisBench.start();
	cluster = await RedisBench.startCluster();
});

after(async () => {
	await bench.stop();
	await cluster.stop();
});

function open(on: RedisBench, clock: Clock): RecordHarness {
	let prefix = on.freshPrefix();
	const stores: RedisStore[] = [];
	const make = (): RedisStore => {
		const store = on.make(prefix, { clock });
		stores.push(store);
		return store;
	};
	return {
		store: make(),
		reopen: async () => {
			prefix = await on.copyAsKilled(prefix);
			return make();
		},
		dispose: async () => {
			for (const store of stores) await store.close();
		},
	};
}

recordContract("records in Redis", async (clock) => open(bench, clock), true);
recordContract("records in a Redis Cluster", async (clock) => ({ ...open(cluster, clock), reopen: undefined }), false);

const start = (prefix: string, replicaId: string): Promise<RecordReplica> => RecordReplica.start(bench, prefix, replicaId);

test("records in Redis: a change calls the listeners of another replica with the key, in order, and what was changed is found there", async () => {
	const prefix = bench.freshPrefix();
	const a = await start(prefix, "a");
	const b = await start(prefix, "b");
	await until(async () => a.told.length > 0 && b.told.length > 0);
	a.told.length = 0;
	b.told.length = 0;
	await a.records.put("user", "bob ü", { n: 1 });
	await a.records.put("rule", "r", 1);
	await a.records.delete("user", "bob ü");
	await a.records.put("user", "carol", 2);
	await until(async () => b.told.length >= 3);
	assert.deepEqual(b.told, ["bob ü", "bob ü", "carol"]);
	assert.equal((await b.records.get("user", "carol"))?.value, 2);
	assert.deepEqual(a.told, ["bob ü", "bob ü", "carol"], "the one that changes is told by itself, once");
	await a.stop();
	await b.stop();
});

test("records in Redis: who may have missed a change is told to look at everything: after Redis was emptied, and when a replica ends", async () => {
	const prefix = bench.freshPrefix();
	const a = await start(prefix, "a");
	const b = await start(prefix, "b");
	await until(async () => b.told.length > 0);
	await a.records.put("user", "bob", 1);
	await until(async () => b.told.includes("bob"));
	b.told.length = 0;
	await bench.client.flushall();
	await until(async () => b.told.includes(undefined));
	assert.equal(await b.records.get("user", "bob"), undefined);
	// What is told at the end of a replica is that its routes are gone: they have to be there again.
	await until(async () => (await bench.client.hlen(`${prefix}{live}`)) === 2);
	b.told.length = 0;
	await a.stop();
	await until(async () => b.told.includes(undefined));
	await b.stop();
});

test("records in Redis: a change that could not be announced rejects with away, and is stored", async () => {
	const store = bench.make(bench.freshPrefix(), { announce: () => Promise.reject(new StoreError("away", "it is away")) });
	await store.start(Date.now(), () => {});
	await assert.rejects(store.records.put("user", "bob", 1), (error) => error instanceof StoreError && error.code === "away");
	assert.equal((await store.records.get("user", "bob"))?.value, 1);
	await store.close();
});

test("records in Redis: due removes what has expired a minute ago by the server's clock", async () => {
	const prefix = bench.freshPrefix();
	const store = bench.make(prefix);
	await store.start(Date.now(), () => {});
	await store.records.put("ban", "long expired", 1, Date.now() - 61_000);
	await store.records.put("ban", "just expired", 1, Date.now() - 1000);
	await store.records.put("ban", "never", 1);
	await store.due(Date.now(), 10);
	assert.deepEqual((await bench.client.hkeys(`${prefix}{adm:ban}`)).sort(), ["just expired", "never"]);
	assert.equal(await bench.client.zcard(`${prefix}{adm:ban}:index`), 2);
	assert.equal(await bench.client.zcard(`${prefix}{adm:ban}:expiry`), 1);
	await store.close();
});
