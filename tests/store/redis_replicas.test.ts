/** The Redis store with several replicas on one server: who owns a session, what all know, and what becomes of the dead. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Message } from "../../src/mqtt/message.ts";
import type { RedisStoreOptions } from "../../src/store/redis/options.ts";
import { scripts } from "../../src/store/redis/scripts.ts";
import type { SessionRef } from "../../src/store/store.ts";
import { assertRejects, inflight, message, NOW, numbers, seqs, subscription, text, texts, will } from "../contracts/store/fixture.ts";
import { RedisBench, replicaTests, until } from "./redis_support.ts";

/** A lease that a test can wait for, for those who outlive the first replica. */
const LEASE_MS = 300;
const SHORT_LEASE: Partial<RedisStoreOptions> = { leaseMs: LEASE_MS, clock: { nowMs: () => NOW } };

let bench: RedisBench;

before(async () => {
	bench = await RedisBench.start();
});

after(() => bench.stop());

const withReplicas = replicaTests(() => bench);

/** What the server knows of a dead replica: nobody renews its lease. */
async function lapse(prefix: string, replicaId: string): Promise<void> {
	await bench.client.zadd(`${prefix}{reps}`, 0, replicaId);
}

withReplicas(
	"a session that moves to another replica is resumed there, and every later write of the first is refused",
	2,
	async ([a, b]) => {
		assert.ok(a && b);
		const old = await a.connect("c");
		await a.subscribe(old, "t");
		await a.fill("t", 3);
		await a.checkpoint(old, { cursors: [{ log: "t", cursor: 2, floor: 2 }], lastPacketId: 7 });
		const present = await b.connect("c");
		assert.deepEqual([present.sessionPresent, present.lastPacketId, present.subscriptions[0]?.cursor], [true, 7, 2]);
		assert.deepEqual(texts(await b.read("t", 2)), ["3"]);
		await assertRejects(a.checkpoint(old, { lastPacketId: 9 }), "fenced");
		await assertRejects(a.store.subscribe(old.ref, [subscription("u")]), "fenced");
		await assertRejects(a.store.unsubscribe(old.ref, ["t"]), "fenced");
		await assertRejects(a.publish("t", ["t"], { reserve: { session: old.ref, packetId: 1 } }), "fenced");
		await assertRejects(a.store.release(old.ref, 1), "fenced");
		await assertRejects(a.close(old), "fenced");
		assert.deepEqual(seqs(await b.read("t", 2)), [3], "nothing was appended, and the log is there");
		assert.equal((await b.connect("c")).lastPacketId, 7);
		assert.deepEqual((await b.store.due(NOW + 1e9, 10)).expiredSessions, []);
	},
);

withReplicas("the refused close of the first owner announces neither will nor expiry", 2, async ([a, b]) => {
	assert.ok(a && b);
	const old = await a.connect("c", { will: will("old", 5) });
	await b.connect("c", { will: will("new") });
	await assertRejects(a.close(old), "fenced");
	assert.deepEqual(await b.dueWills(NOW + 1e9), []);
	assert.deepEqual((await b.store.due(NOW + 1e9, 10)).expiredSessions, []);
	assert.equal((await b.store.stats()).sessions, 1);
});

test("Redis store: a replica is told of a session that it took from another, and not of its own", async () => {
	const prefix = bench.freshPrefix();
	const told: [string, SessionRef][] = [];
	const a = await bench.startReplica(prefix, { replicaId: "a" });
	const b = await bench.startReplica(prefix, { replicaId: "b", onTakeover: (replica, session) => told.push([replica, session]) });
	const first = await a.connect("c", { sessionExpirySeconds: 0 });
	await b.connect("c", { sessionExpirySeconds: 0 });
	await b.connect("c");
	assert.deepEqual(told, [["a", first.ref]]);
	await a.dispose();
	await b.dispose();
});

withReplicas(
	"a share group's entries go to one replica each, and those of a dead one to another",
	3,
	async ([a, b, c], prefix) => {
		assert.ok(a && b && c);
		const log = "$share/g/t";
		await a.subscribe(await a.connect("m1"), log);
		await b.subscribe(await b.connect("m2"), log);
		await a.fill(log, 10);
		const taken = await Promise.all([a, b, a, b].map(({ store }) => store.takeShared(log, 2)));
		assert.deepEqual(
			taken
				.flatMap((entries) => texts(entries))
				.map(Number)
				.sort((x, y) => x - y),
			numbers(1, 8),
		);
		await a.store.settleShared(log, seqs(taken[0] ?? []));
		await b.store.settleShared(log, [...seqs(taken[1] ?? []), ...seqs(taken[3] ?? [])]);
		await sleep(LEASE_MS);
		await lapse(prefix, "r1");
		await c.redis.reapDead();
		assert.deepEqual(texts(await b.store.takeShared(log, 10)), [...texts(taken[2] ?? []), "9", "10"]);
	},
	SHORT_LEASE,
);

withReplicas(
	"the sessions of a dead replica are ended by the others, each will once",
	3,
	async ([a, b, c], prefix) => {
		assert.ok(a && b && c);
		const clients = numbers(1, 30).map((n) => `c${n}`);
		await a.subscribe(await a.connect("volatile", { sessionExpirySeconds: 0, will: will("w") }), "$share/g/t");
		for (const id of clients) await a.connect(id, { will: will("w"), sessionExpirySeconds: 60 });
		await a.connect("moved", { will: will("w", 5) });
		await b.connect("moved");
		await sleep(LEASE_MS);
		await lapse(prefix, "r1");
		await Promise.all([b.redis.reapDead(), c.redis.reapDead()]);
		const due = [...(await b.store.due(NOW, 20)).wills, ...(await c.store.due(NOW, 20)).wills];
		assert.deepEqual(due.map(({ clientId }) => clientId).sort(), [...clients, "volatile"].sort());
		await Promise.all(due.map(({ id }) => b.publish("w", [], { willId: id })));
		assert.deepEqual([...(await b.dueWills(NOW + 1e9)), ...(await c.dueWills(NOW + 1e9))], []);
		assert.equal(await bench.client.zscore(`${prefix}{reps}`, "r1"), null);
		assert.equal(await bench.client.exists(`${prefix}{own:r1}`), 0);
		assert.equal((await b.store.stats()).logs, 0);
		await assertRejects(a.store.release({ clientId: "c1", epoch: "" }, 1), "fenced");
		await assertRejects(
			a.connect("c1").then((again) => a.close(again).then(() => a.checkpoint(again, {}))),
			"fenced",
		);
	},
	SHORT_LEASE,
);

withReplicas("a replica that has not been connected for a whole lease ends nobody's sessions", 2, async ([a, b], prefix) => {
	assert.ok(a && b);
	const client = await a.connect("c", { will: will("w") });
	await lapse(prefix, "r1");
	await b.redis.reapDead();
	await a.checkpoint(client, {});
});

withReplicas(
	"what a replica had not finished when it died is finished by another",
	2,
	async ([a, b], prefix) => {
		assert.ok(a && b);
		const client = await a.connect("c", { will: will("w"), sessionExpirySeconds: 0 });
		await a.subscribe(client, "$share/g/t");
		const connection = await bench.connect();
		const keys = ["", ":s", ":r", ":w", ":b", ":g", ":k"].map((suffix) => `${prefix}{c:c}${suffix}`);
		await connection.run(scripts.sessionEnd, keys, [client.ref.epoch, NOW, "keep", "connected"]);
		connection.close();
		await b.redis.catchUp();
		assert.ok(b.knows("$share/g/t"));
		await sleep(LEASE_MS);
		await lapse(prefix, "r1");
		await b.redis.reapDead();
		assert.equal(b.knows("$share/g/t"), false);
		assert.deepEqual(await b.dueWills(NOW), ["c"]);
	},
	SHORT_LEASE,
);

test("Redis store: what a dead replica has left elsewhere is removed after its sessions were ended and before its lease", async () => {
	const prefix = bench.freshPrefix();
	const told: unknown[] = [];
	let failures = 1;
	const a = await bench.startReplica(prefix, { replicaId: "a" });
	const b = await bench.startReplica(prefix, {
		...SHORT_LEASE,
		replicaId: "b",
		async onDead(replicaId) {
			const token = await bench.client.hget(`${prefix}{c:c}`, "token");
			told.push([replicaId, token, (await bench.client.zscore(`${prefix}{reps}`, replicaId)) !== null]);
			if (failures-- > 0) throw new Error("not removed");
		},
	});
	await a.connect("c");
	await sleep(LEASE_MS);
	await b.redis.reapDead();
	assert.deepEqual(told, [], "all live");
	await lapse(prefix, "a");
	await assert.rejects(b.redis.reapDead(), /not removed/);
	assert.deepEqual(told, [["a", null, true]]);
	await b.redis.reapDead();
	await b.redis.reapDead();
	assert.deepEqual(told, [
		["a", null, true],
		["a", null, true],
	]);
	assert.equal(await bench.client.zscore(`${prefix}{reps}`, "a"), null);
	await a.dispose();
	await b.dispose();
});

test("Redis store: a replica that was taken for dead is told which sessions it has lost", async () => {
	const prefix = bench.freshPrefix();
	const lost: string[] = [];
	const errors: string[] = [];
	const a = await bench.startReplica(prefix, {
		replicaId: "a",
		leaseMs: LEASE_MS,
		onLost: ({ clientId }) => lost.push(clientId),
		onError: ({ message }) => errors.push(message),
	});
	const b = await bench.startReplica(prefix, { replicaId: "b", leaseMs: 60_000 });
	await a.connect("c");
	await a.connect("d");
	await bench.client.zrem(`${prefix}{reps}`, "a");
	await b.connect("c");
	await until(async () => lost.length > 0);
	assert.deepEqual(lost, ["c"]);
	assert.ok(
		errors.some((text) => text.includes("taken") || text.includes("took")),
		errors.join(),
	);
	await a.dispose();
	await b.dispose();
});

test("Redis store: a replica that finds out that it was taken for dead while it looks for others is told the same", async () => {
	const prefix = bench.freshPrefix();
	const lost: string[] = [];
	const a = await bench.startReplica(prefix, { replicaId: "a", leaseMs: 1000, onLost: ({ clientId }) => lost.push(clientId) });
	const b = await bench.startReplica(prefix, { replicaId: "b", leaseMs: 60_000 });
	await a.connect("c");
	await sleep(1000);
	await b.connect("c");
	await bench.client.zrem(`${prefix}{reps}`, "a");
	await a.redis.reapDead();
	await until(async () => lost.length > 0);
	assert.deepEqual(lost, ["c"]);
	await a.dispose();
	await b.dispose();
});

test("Redis store: a second replica of the same name is refused while the first lives", async () => {
	const prefix = bench.freshPrefix();
	const first = await bench.startReplica(prefix, {});
	await assert.rejects(bench.startReplica(prefix, {}), /replica "r1".*REPLICA_ID/);
	await first.dispose();
	await (await bench.startReplica(prefix, {})).dispose();
});

test("Redis store: deadlines run by the server's clock, whatever the replica's says", async () => {
	const prefix = bench.freshPrefix();
	const hour = 3_600_000;
	let ahead = 0;
	const a = await bench.startReplica(prefix, { trustNow: false, clock: { nowMs: () => NOW + ahead } });
	await a.close(await a.connect("c", { sessionExpirySeconds: 60, nowMs: NOW, will: will("w", 30) }), { nowMs: NOW });
	ahead = hour;
	assert.deepEqual(await a.store.due(NOW + hour, 10), { wills: [], expiredSessions: [] });
	assert.deepEqual((await a.store.due(NOW + hour + 61_000, 10)).expiredSessions, ["c"], "a difference to the caller's own clock counts");
	await a.dispose();
});

test("Redis store: a message expires at one moment, however much the clocks of replicas differ", async () => {
	const prefix = bench.freshPrefix();
	const minutes = 300_000;
	const make = async (replicaId: string, aheadMs: number) => {
		const clock = { nowMs: () => Date.now() + aheadMs };
		return { clock, replica: await bench.startReplica(prefix, { replicaId, trustNow: false, clock }) };
	};
	const a = await make("a", minutes);
	const b = await make("b", -minutes);
	const leftMs = (found: Message | undefined, { clock }: typeof a) => (found?.expiresAtMs ?? 0) - clock.nowMs();
	const assertLeft = (found: Message | undefined, at: typeof a) => {
		const left = leftMs(found, at);
		assert.ok(left > 50_000 && left <= 60_500, `${left} ms are left of 60,000`);
	};
	const content = message("t", { payload: "x", retain: true, expiresAtMs: a.clock.nowMs() + 60_000 });
	const client = await a.replica.connect("c");
	await a.replica.store.subscribe(client.ref, [subscription("t"), subscription("$share/g/t")]);
	await a.replica.publish("t", ["t", "$share/g/t"], { message: content, retain: true });
	await a.replica.checkpoint(client, { inflight: [inflight(1, { message: content }), inflight(2, { log: "t", seq: 1 })] });
	await a.replica.store.unsubscribe(client.ref, ["t"]);
	await a.replica.subscribe(client, "t");
	await a.replica.publish("t", ["t"], { message: content });
	for (const each of [a, b]) {
		const { store } = each.replica;
		assertLeft((await each.replica.read("t"))[0]?.message, each);
		const { messages } = await store.retained("#", undefined, 10, each.clock.nowMs());
		assertLeft(messages[0], each);
		const [taken] = await store.takeShared("$share/g/t", 1);
		assertLeft(taken?.message, each);
		await store.returnShared("$share/g/t", [1]);
		const records = (await each.replica.connect("c")).inflight;
		assert.equal(records.length, 2);
		for (const record of records) assertLeft(record.message, each);
	}
	assert.deepEqual((await b.replica.store.retained("#", undefined, 10, b.clock.nowMs() + 61_000)).messages, []);
	await b.replica.store.due(b.clock.nowMs() + 59_000, 10);
	assert.equal((await b.replica.store.stats()).retained, 1);
	await b.replica.store.due(b.clock.nowMs() + 61_000, 10);
	assert.equal((await b.replica.store.stats()).retained, 0);
	for (const { replica } of [a, b]) await replica.dispose();
});

test("Redis store: a will that another replica has taken up comes to it only, until its claim lapses", async () => {
	const prefix = bench.freshPrefix();
	const a = await bench.startReplica(prefix, { replicaId: "a" });
	const b = await bench.startReplica(prefix, { replicaId: "b" });
	await a.close(await a.connect("c", { will: will("w") }));
	assert.deepEqual(await a.dueWills(NOW), ["c"]);
	assert.deepEqual(await b.dueWills(NOW + 9_999), []);
	assert.deepEqual(await a.dueWills(NOW), ["c"]);
	assert.deepEqual(await b.dueWills(NOW + 10_000), ["c"]);
	await a.dispose();
	await b.dispose();
});

test("Redis store: a QoS 2 publication that a crash interrupted is repeated without a second entry [MQTT-4.3.3-10]", async () => {
	const prefix = bench.freshPrefix();
	const a = await bench.startReplica(prefix, {});
	const reader = await a.connect("reader");
	for (const log of ["t", "u"]) await a.subscribe(reader, log);
	const client = await a.connect("c");
	const content = message("t", { payload: "x", qos: 2, retain: true });
	await a.publish("t", ["t", "u"], { message: content, retain: true, reserve: { session: client.ref, packetId: 5 } });
	// As if it had been killed before the second log and the last step.
	const copy = await bench.copyAsKilled(prefix);
	await bench.client.hset(`${copy}{c:c}:r`, "5", "1");
	await bench.client.xtrim(`${copy}{l:u}`, "MAXLEN", 0);
	for (const key of await bench.client.keys(`${copy}{l:u}:t:*`)) await bench.client.del(key);
	await a.dispose();
	const b = await bench.startReplica(copy, {});
	const again = await b.connect("c");
	assert.deepEqual(again.reservedIds, [], "the client has no PUBREC and sends it again");
	const repeated = await b.publish("t", ["t", "u"], { message: content, retain: true, reserve: { session: again.ref, packetId: 5 } });
	assert.deepEqual(repeated, {
		appended: [
			{ log: "t", seq: 1 },
			{ log: "u", seq: 2 },
		],
		duplicate: false,
		revision: 1,
	});
	assert.deepEqual(
		(await b.read("t")).map((entry) => text(entry.message)),
		["x"],
	);
	assert.equal((await b.publish("t", ["t"], { reserve: { session: again.ref, packetId: 5 } })).duplicate, true);
	await b.dispose();
});
