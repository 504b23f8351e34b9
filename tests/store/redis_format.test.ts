/** Formats of replicas of several versions, as far as this one is concerned: what it says of itself, and what it refuses. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { READS } from "../../src/store/redis/format.ts";
import { type SessionRef, StoreError } from "../../src/store/store.ts";
import { RedisBench, until } from "./redis_support.ts";

let bench: RedisBench;
before(async () => {
	bench = await RedisBench.start();
});
after(() => bench.stop());

function isTooNew(error: unknown): boolean {
	return error instanceof StoreError && error.code === "newerVersion" && /format 99.*another REDIS_PREFIX/.test(error.message);
}

test("Redis store: a replica says what it reads for as long as it has its lease", async () => {
	const prefix = bench.freshPrefix();
	const a = await bench.startReplica(prefix, { replicaId: "a" });
	assert.deepEqual(await bench.client.hgetall(`${prefix}{reps}:reads`), { a: `${READS}` });
	await a.dispose();
	assert.deepEqual(await bench.client.hgetall(`${prefix}{reps}:reads`), {});
});

test("Redis store: it does not start where there is data of a format that it cannot read, and leaves no trace", async () => {
	const prefix = bench.freshPrefix();
	await bench.client.set(`${prefix}{reps}:format`, 99);
	await assert.rejects(bench.startReplica(prefix), isTooNew);
	assert.deepEqual(await bench.client.keys(`${prefix}*`), [`${prefix}{reps}:format`]);
});

test("Redis store: when the others write what it cannot read, its sessions are let go and nothing is done any more", async () => {
	const prefix = bench.freshPrefix();
	const lost: SessionRef[] = [];
	const a = await bench.startReplica(prefix, { leaseMs: 200, onLost: (session) => lost.push(session), onError: () => {} });
	const { ref } = await a.connect("c");
	await bench.client.set(`${prefix}{reps}:format`, 99);
	await until(async () => lost.length === 1);
	assert.equal(lost[0]?.clientId, ref.clientId);
	await assert.rejects(a.connect("d"), isTooNew);
	assert.ok(a.redis.awayMs > 10_000, "it is not ready");
	await a.dispose();
});
