/** The Redis store on a real Redis Cluster: the contract, the order of commands while slots move, and masters that fail. */

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Connection, type RedisTarget } from "../../src/store/redis/connection.ts";
import type { RedisStoreOptions } from "../../src/store/redis/options.ts";
import { slotOf, slotOfCommand } from "../../src/store/redis/slots.ts";
import { createRedisStore, type RedisStore } from "../../src/store/redis_store.ts";
import { StoreError, type StoreLimits } from "../../src/store/store.ts";
import { numbers } from "../contracts/store/fixture.ts";
import { type StoreHarness, storeContract } from "../contracts/store_contract.ts";
import { type RedisCluster, startRedisCluster } from "../support/redis_cluster.ts";
import type { RedisServer } from "../support/redis_server.ts";
import { describeLoad, killAhead, publishThrough } from "./redis_load.ts";
import { Replica, until } from "./redis_support.ts";

/** What one master has of a prefix, under another one: a prefix is no part of the slot. */
const SNAPSHOT = `
for _, key in ipairs(redis.call("KEYS", ARGV[1] .. "*")) do
	redis.call("RESTORE", ARGV[2] .. string.sub(key, #ARGV[1] + 1), 0, redis.call("DUMP", key))
end
return 1`;

let cluster: RedisCluster;
/** Another one, with replicas. */
let failing: RedisCluster;
let prefixes = 0;
const open: Connection[] = [];

before(async () => {
	[cluster, failing] = await Promise.all([startRedisCluster({ spare: true }), startRedisCluster({ replicas: true })]);
});

afterEach(() => {
	for (const connection of open.splice(0)) connection.close();
});

after(async () => {
	await Promise.all([cluster.stop(), failing.stop()]);
});

const freshPrefix = (): string => `test${++prefixes}:`;

function make(prefix: string, options: Partial<RedisStoreOptions> = {}): RedisStore {
	const limits: StoreLimits = { logMaxMessages: 1_000_000, maxRetained: 100_000 };
	return createRedisStore({ redis: cluster.url, prefix, replicaId: "r1", durability: "aof", limits, trustNow: true, ...options });
}

async function copyAsKilled(prefix: string): Promise<string> {
	const copy = freshPrefix();
	await Promise.all(cluster.nodes.map((node) => cluster.call(node, "EVAL", SNAPSHOT, 0, prefix, copy)));
	const leases = `${copy}{reps}`;
	const node = await cluster.masterOf(leases);
	for (const replica of (await cluster.call(node, "ZRANGE", leases, 0, -1)) as string[])
		await cluster.call(node, "ZADD", leases, 0, replica);
	return copy;
}

async function openHarness(limits: StoreLimits): Promise<StoreHarness> {
	let prefix = freshPrefix();
	const stores: RedisStore[] = [];
	const next = (): RedisStore => {
		const store = make(prefix, { limits });
		stores.push(store);
		return store;
	};
	return {
		store: next(),
		reopen: async () => {
			prefix = await copyAsKilled(prefix);
			return next();
		},
		dispose: async () => {
			for (const store of stores) await store.close();
		},
	};
}

storeContract("Redis store on a cluster", openHarness, true);

/** A connection that ends with the test. */
async function connect(target: RedisTarget = cluster.url, onError = () => {}): Promise<Connection> {
	const connection = new Connection({ target, scripts: [], stallMs: 5000, onReady: () => {}, onError });
	open.push(connection);
	await until(async () => connection.ready);
	return connection;
}

const list = async (connection: Connection, key: string): Promise<number[]> =>
	((await connection.send("LRANGE", [key, 0, -1])) as Buffer[]).map(Number);

/** Sends RPUSH to some keys of one slot, a few at a time, until `over`; answers what was acknowledged and what was rejected. */
async function pushThrough(connection: Connection, keys: readonly string[], trouble: () => Promise<void>) {
	const [done, rejected]: [number[], number[]] = [[], []];
	let over = false;
	let n = 0;
	const pushing = (async () => {
		while (!over) {
			for (let times = 0; times < 20; times++) {
				const value = ++n;
				connection.send("RPUSH", [keys[value % keys.length] as string, value]).then(
					() => done.push(value),
					(error) => {
						assert.ok(error instanceof StoreError && error.code === "away", String(error));
						rejected.push(value);
					},
				);
			}
			await sleep(1);
		}
	})();
	await until(async () => done.length > 200);
	await trouble();
	const before = done.length;
	await until(async () => done.length > before + 200);
	over = true;
	await pushing;
	await until(async () => done.length + rejected.length === n);
	return { done, rejected };
}

test("slotOf: every key has the slot that the cluster computes", async () => {
	const [node] = cluster.nodes;
	assert.ok(node);
	for (const key of ["", "a", "{a}b", "x{a}y{b}", "{}a", "{", "a}{b}", "{{a}}", "ü{ö😀}", "p:{l:$share/g/a/+}", "123456789"]) {
		assert.equal(slotOf(key), Number(await cluster.call(node, "CLUSTER", "KEYSLOT", key)), key);
		assert.equal(slotOf(Buffer.from(key)), slotOf(key));
	}
});

test("slotOfCommand: finds the first key wherever the command has it", () => {
	const slot = slotOf("k");
	assert.equal(slotOfCommand("GET", ["k"]), slot);
	assert.equal(slotOfCommand("PUBLISH", ["k", "m"]), slot);
	assert.equal(slotOfCommand("EVALSHA", ["digest", 2, "k", "l", "m"]), slot);
	assert.equal(slotOfCommand("XREAD", ["COUNT", 1, "BLOCK", 5, "STREAMS", "k", "0-0"]), slot);
	assert.equal(slotOfCommand("XGROUP", ["CREATE", "k", "g", "$"]), slot);
	assert.equal(slotOfCommand("TIME", []), slotOf("{reps}"));
	assert.equal(slotOfCommand("EVALSHA", ["digest", 0]), slotOf("{reps}"));
});

test("Connection: a slot that moves keeps the order of its commands, and none is done twice or lost", async () => {
	const connection = await connect();
	const { done, rejected } = await pushThrough(connection, ["{order}"], () => cluster.moveSlot("{order}", () => sleep(100)));
	assert.deepEqual(rejected, []);
	assert.deepEqual(await list(connection, "{order}"), numbers(1, done.length));
	assert.deepEqual(done, numbers(1, done.length), "they are told in order");
});

test("Connection: keys of a slot on its way keep their order each, and what was rejected was not done", async () => {
	const connection = await connect();
	const keys = numbers(1, 5).map((n) => `{several}${n}`);
	const { done, rejected } = await pushThrough(connection, keys, () => cluster.moveSlot("{several}", () => sleep(100)));
	const stored: number[] = [];
	for (const key of keys) {
		const values = await list(connection, key);
		assert.deepEqual(
			values,
			[...values].sort((a, b) => a - b),
		);
		stored.push(...values);
	}
	const sorted = (values: readonly number[]) => [...values].sort((a, b) => a - b);
	assert.deepEqual(sorted(stored), sorted(done));
	assert.ok(rejected.every((value) => !stored.includes(value)));
});

test("Connection: a command with keys on both sides of a move waits until they are together", async () => {
	const connection = await connect();
	await connection.send("MSET", ["{both}a", 1, "{both}b", 2]);
	const from = await cluster.masterOf("{both}");
	let answer: Promise<unknown> | undefined;
	await cluster.moveSlot("{both}", async () => {
		if (answer !== undefined) return;
		// To the node that takes it; the other one refuses.
		for (const to of cluster.nodes) {
			if (to !== from) await cluster.call(from, "MIGRATE", "127.0.0.1", to.port, "{both}a", 0, 1000).catch(() => {});
		}
		answer = connection.send("MGET", ["{both}a", "{both}b"]);
	});
	assert.deepEqual(((await answer) as Buffer[]).map(String), ["1", "2"]);
});

test("Connection: a key that has gone to the new node already is asked for there while its slot is on its way", async () => {
	const connection = await connect();
	await connection.send("SET", ["{ask}", 1]);
	const answers: string[] = [];
	await cluster.moveSlot("{ask}", async () => {
		answers.push(String(await connection.send("GET", ["{ask}"])));
	});
	assert.deepEqual(answers, ["1", "1"]);
});

test("Connection: a slot that goes to a node without slots takes its commands along while it is on its way", async () => {
	const connection = await connect();
	const spare = cluster.nodes[3];
	assert.ok(spare);
	await connection.send("SET", ["{spare}", 1]);
	const answers: string[] = [];
	const ask = async (): Promise<void> => {
		answers.push(String(await connection.send("GET", ["{spare}"])));
	};
	await cluster.moveSlot("{spare}", ask, spare);
	await ask();
	assert.deepEqual(answers, ["1", "1", "1"]);
	assert.equal((await connection.sendToAll("PING", [])).length, 4);
	await cluster.moveSlot("{spare}", ask);
});

test("Connection: a blocking read goes on at the new master of its stream", async () => {
	const [reader, writer] = [await connect(), await connect()];
	await writer.send("XADD", ["{stream}", "1-0", "f", "v"]);
	const reading = reader.send("XREAD", ["BLOCK", 10_000, "STREAMS", "{stream}", "1-0"]);
	await cluster.moveSlot("{stream}");
	await writer.send("XADD", ["{stream}", "2-0", "f", "v"]);
	const [[, [[id]]]] = (await reading) as [[Buffer, [[Buffer]]]];
	assert.equal(id.toString(), "2-0");
});

test("Connection: commands that a lost link had under way are rejected as away, and no command is sent twice", async () => {
	const connection = await connect();
	const master = await cluster.masterOf("{cut}");
	const { done, rejected } = await pushThrough(connection, ["{cut}"], async () => {
		for (let times = 0; times < 5; times++) {
			await cluster.call(master, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
			await until(async () => connection.ready);
		}
	});
	const stored = await list(connection, "{cut}");
	assert.ok(rejected.length > 0);
	assert.deepEqual(
		stored,
		[...new Set(stored)].sort((a, b) => a - b),
		"once each, and in order",
	);
	assert.deepEqual(
		done.filter((value) => !stored.includes(value)),
		[],
	);
});

test("Connection: the cluster is found through any node of the address that answers", async () => {
	const [, second] = cluster.nodes;
	const connection = await connect(`redis+cluster://127.0.0.1:1,localhost:${second?.port}`);
	assert.equal((await connection.sendToAll("PING", [])).length, 3);
});

test("Redis store on a cluster: every master is asked whether it may lose what it is given", async () => {
	for (const node of cluster.nodes.slice(0, 3)) {
		await cluster.call(node, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru");
		await assert.rejects(
			make(freshPrefix()).start(0, () => {}),
			(error: Error) => error instanceof StoreError && error.code === "unavailable" && /allkeys-lru/.test(error.message),
		);
		await cluster.call(node, "CONFIG", "SET", "maxmemory-policy", "noeviction");
	}
});

test("Connection: confirm asks each master that was written to for a replica that has it", async () => {
	const { nodes, url } = failing;
	const [first, second] = ["{a}", "{b}"];
	assert.notEqual(await failing.masterOf(first), await failing.masterOf(second));
	const connection = await connect(url);
	await connection.send("SET", [first, 1]);
	await connection.confirm();
	const replica = nodes[3 + nodes.indexOf(await failing.masterOf(first))];
	assert.ok(replica);
	replica.signal("SIGSTOP");
	try {
		await connection.send("SET", [second, 1]);
		await connection.confirm();
		await connection.send("GET", [first]);
		await connection.confirm();
		await connection.send("SET", [first, 1]);
		await assert.rejects(connection.confirm(), (error: Error) => error instanceof StoreError && error.code === "away");
		await assert.rejects(connection.confirm(), /no replica of Redis has it yet/);
	} finally {
		replica.signal("SIGCONT");
	}
	await until(() =>
		connection.confirm().then(
			() => true,
			() => false,
		),
	);
});

test("Connection: what was written on a link that is lost is not confirmed by the others", async () => {
	const answers: string[] = [];
	const onError = (): void => {
		connection.confirm().then(
			() => answers.push("confirmed"),
			(error: Error) => answers.push(error.message),
		);
	};
	const connection: Connection = await connect(failing.url, onError);
	await connection.send("SET", ["{a}", 1]);
	await failing.call(await failing.masterOf("{a}"), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
	await until(async () => answers.length > 0);
	assert.match(String(answers[0]), /the connection to Redis was lost meanwhile/);
});

test("Redis store on a cluster: nothing acknowledged as replicated is lost when a master is killed under load", {
	timeout: 30_000,
}, async (t) => {
	const replicas: Replica[] = [];
	const openReplica = async (): Promise<Replica> => {
		const replica = new Replica(make("fail:", { redis: failing.url, durability: "replicated", replicaId: `r${replicas.length + 1}` }));
		replicas.push(replica);
		await replica.start();
		return replica;
	};
	try {
		const master = await failing.masterOf("{l:log1}");
		const killed = async (): Promise<void> => {
			await killAhead(master, [failing.nodes[3 + failing.nodes.indexOf(master)] as RedisServer]);
			await until(async () => (await failing.masterOf("{l:log1}")) !== master);
			// As a replica of the new master: without one nothing can be confirmed there.
			await master.restart();
		};
		const load = await publishThrough(await openReplica(), killed, openReplica);
		t.diagnostic(describeLoad(load));
		assert.deepEqual(load.lost, []);
		assert.ok(load.refused > 0);
	} finally {
		for (const replica of replicas) await replica.dispose();
	}
});
