/** The Redis store when Redis fails: killed, frozen, full, or answering into the void. */

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { StoreError } from "../../src/store/store.ts";
import { assertRejects, message, NOW, numbers, seqs, subscription, texts, will } from "../contracts/store/fixture.ts";
import { LossyProxy } from "./redis_proxy.ts";
import { RedisBench, type Replica, until } from "./redis_support.ts";

let bench: RedisBench;
let proxy: LossyProxy;
const open: Replica[] = [];

before(async () => {
	bench = await RedisBench.start();
	proxy = await LossyProxy.start(bench.server.port);
});

afterEach(async () => {
	for (const replica of open.splice(0)) await replica.dispose();
});

after(async () => {
	await proxy.stop();
	await bench.stop();
});

/** A replica that ends with the test. */
async function start(prefix = bench.freshPrefix(), options: Parameters<RedisBench["startReplica"]>[1] = {}): Promise<Replica> {
	const replica = await bench.startReplica(prefix, options);
	open.push(replica);
	return replica;
}

/** A replica whose answers can be lost. */
function startLossy(prefix = bench.freshPrefix()): Promise<Replica> {
	return start(prefix, { redis: proxy.url, leaseMs: 2000, clock: { nowMs: () => NOW } });
}

/** Makes a call whose answer is lost, though it was done: `done` tells when. */
async function loseAnswer(call: () => Promise<unknown>, done: () => Promise<boolean>): Promise<void> {
	proxy.loseAnswers();
	const rejected = assertRejects(call(), "away");
	await until(done);
	proxy.cut();
	await rejected;
}

/** Waits until calls succeed again. */
async function recovered({ store }: Replica): Promise<void> {
	await until(() =>
		store.stats().then(
			() => true,
			() => false,
		),
	);
}

test("Redis store: what was acknowledged is there after the server was killed, and calls succeed again when it is back", async () => {
	const a = await start();
	const client = await a.connect("c");
	await a.subscribe(client, "t");
	const acknowledged: number[] = [];
	let refused = 0;
	let killed = false;
	const publishing = (async () => {
		for (let n = 1; !killed || n % 50 !== 0; n++) {
			const published = a.publish("t", ["t"], { message: message("t", { payload: String(n) }) });
			published.then(
				({ appended }) => acknowledged.push(...appended.map(({ seq }) => seq)),
				(error) => {
					assert.ok(error instanceof StoreError && error.code === "away");
					refused++;
				},
			);
			if (n % 50 === 0) await sleep(1);
		}
	})();
	await until(async () => acknowledged.length > 500);
	await bench.server.kill();
	killed = true;
	await publishing;
	await assertRejects(a.publish("t", ["t"]), "away");
	const away = a.redis.awayMs;
	assert.ok(away > 0);
	await sleep(1);
	assert.ok(a.redis.awayMs > away);
	await bench.server.restart();
	await recovered(a);
	await until(async () => a.redis.awayMs === 0);
	const stored = new Set(seqs(await a.read("t", 0, 1_000_000)));
	assert.deepEqual(
		acknowledged.filter((seq) => !stored.has(seq)),
		[],
	);
	assert.ok(refused > 0);
	await a.checkpoint(client, { lastPacketId: 1 });
	await a.subscribe(client, "u");
	assert.ok(a.knows("u"));
});

test("Redis store: a server that stops answering is given up after a while, and used again when it goes on", async () => {
	const a = await start();
	const client = await a.connect("c");
	await a.subscribe(client, "t");
	bench.server.signal("SIGSTOP");
	try {
		await assertRejects(a.publish("t", ["t"]), "away");
	} finally {
		bench.server.signal("SIGCONT");
	}
	await recovered(a);
	await a.checkpoint(client, {});
	await until(async () => (await a.subscribe(client, "u")).existed);
});

test("Redis store: a full server refuses messages as full, and takes what makes room", async () => {
	const a = await start();
	const client = await a.connect("c", { will: will("w") });
	await a.store.subscribe(client.ref, [subscription("t"), subscription("$share/g/t")]);
	await a.fill("t", 10);
	await a.fill("$share/g/t", 2);
	await bench.client.config("SET", "maxmemory", "1");
	try {
		await assertRejects(a.publish("t", ["t"]), "full");
		await assertRejects(a.retain("r"), "full");
		await assertRejects(a.publish("t", [], { reserve: { session: client.ref, packetId: 1 } }), "full");
		await a.checkpoint(client, { cursors: [{ log: "t", cursor: 10, floor: 10 }] });
		await a.store.unsubscribe(client.ref, ["t"]);
		await a.close(client, { sessionExpirySeconds: 0 });
		assert.deepEqual(await a.dueWills(NOW), ["c"]);
	} finally {
		await bench.client.config("SET", "maxmemory", "0");
	}
	assert.deepEqual(
		{ ...(await a.store.stats()), subscriptions: 0 },
		{ sessions: 0, subscriptions: 0, retained: 0, logs: 0, logEntries: 0 },
	);
	await a.subscribe(await a.connect("d"), "t");
	assert.equal((await a.publish("t", ["t"])).appended.length, 1);
});

test("Redis store: scripts that the server has forgotten are loaded again, and no call is done out of its order", async () => {
	const a = await start();
	const client = await a.connect("c");
	await a.subscribe(client, "t");
	await bench.client.script("FLUSH");
	const results = await Promise.allSettled([
		a.publish("1", ["t"], { reserve: { session: client.ref, packetId: 1 } }),
		a.publish("2", ["t"], { reserve: { session: client.ref, packetId: 2 } }),
	]);
	assert.deepEqual(
		results.map(({ status }) => status),
		["rejected", "rejected"],
	);
	await recovered(a);
	assert.deepEqual(await a.read("t"), []);
	assert.equal((await a.publish("3", ["t"], { reserve: { session: client.ref, packetId: 1 } })).duplicate, false);
});

test("Redis store: servers that may lose what they are given are refused, with the remedy", async () => {
	const refusal = async (setting: string, value: string, expected: RegExp): Promise<void> => {
		const [, before] = (await bench.client.config("GET", setting)) as [string, string];
		await bench.client.config("SET", setting, value);
		try {
			await assert.rejects(
				start(),
				(error: Error) => error instanceof StoreError && error.code === "unavailable" && expected.test(error.message),
			);
		} finally {
			await bench.client.config("SET", setting, before);
		}
	};
	await refusal("maxmemory-policy", "allkeys-lru", /allkeys-lru.*Set maxmemory-policy noeviction/);
	await refusal("appendfsync", "everysec", /appendfsync everysec.*appendfsync always.*durability memory/);
	await bench.client.config("SET", "appendfsync", "everysec");
	await start(undefined, { durability: "memory" });
	await bench.client.config("SET", "appendfsync", "always");
});

test("Redis store: replicated, a call is refused while no replica of the server has it", async () => {
	const a = await start(undefined, { durability: "replicated" });
	await assertRejects(a.connect("c"), "away");
	await assertRejects(a.retain("t"), "away");
});

test("Redis store: a server that is there and takes no writes is away, and no longer when it does", async () => {
	const a = await start(undefined, { leaseMs: 400 });
	const client = await a.connect("c");
	assert.equal(a.redis.awayMs, 0);
	await bench.client.config("SET", "min-replicas-to-write", "1");
	try {
		await assertRejects(a.publish("t", ["t"], { retain: true, message: message("t", { payload: "x" }) }), "away");
		await until(async () => a.redis.awayMs > 0);
		await assertRejects(start(undefined, { replicaId: "r2" }), "unavailable");
	} finally {
		await bench.client.config("SET", "min-replicas-to-write", "0");
	}
	await until(async () => a.redis.awayMs === 0);
	await a.checkpoint(client, {});
});

test("Redis store: replicated, calls resolve when another server has them", async () => {
	await bench.client.config("SET", "repl-diskless-sync-delay", "0");
	const second = await RedisBench.start(["--appendonly", "no", "--replicaof", "127.0.0.1", String(bench.server.port)]);
	try {
		await until(async () => {
			await bench.client.incr("written");
			return (await bench.client.wait(1, 1000)) === 1;
		});
		const prefix = bench.freshPrefix();
		const a = await start(prefix, { durability: "replicated" });
		await a.subscribe(await a.connect("c"), "t");
		await Promise.all(numbers(1, 100).map((n) => a.publish("t", ["t"], { message: message("t", { payload: String(n) }) })));
		assert.equal(await second.client.xlen(`${prefix}{l:t}`), 100);
	} finally {
		await second.stop();
	}
});

test("Redis store: a server that comes back with less is noticed: who has lost something is told, and whole again when opened anew", async () => {
	const prefix = bench.freshPrefix();
	const lost: string[] = [];
	const a = await start(prefix, { onLost: ({ clientId }) => lost.push(clientId) });
	const b = await start(prefix, { replicaId: "r2" });
	await a.connect("whole");
	const logless = await a.connect("logless");
	const keys = await bench.client.keys(`${prefix}*`);
	const saved = await Promise.all(keys.map((key) => bench.client.dumpBuffer(key)));
	await a.subscribe(logless, "t");
	await a.fill("t", 5);
	await a.connect("gone");
	await b.redis.catchUp();
	// As a server does that takes over from one whose last writes never reached it.
	await bench.client
		.multi([
			...(await bench.client.keys(`${prefix}*`)).map((key) => ["del", key]),
			...keys.map((key, n) => ["restore", key, 0, saved[n] as Buffer]),
		])
		.exec();
	await bench.client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
	await until(async () => lost.length === 2 && !b.knows("t"));
	assert.deepEqual(lost.sort(), ["gone", "logless"]);
	for (const replica of [a, b]) await recovered(replica);
	const again = await a.connect("logless");
	await a.subscribe(again, "t");
	assert.deepEqual((await b.publish("t", ["t"])).appended, [{ log: "t", seq: 1 }]);
});

test("Redis store: shared entries whose taking was not answered come again", async () => {
	const prefix = bench.freshPrefix();
	const a = await startLossy(prefix);
	const log = "$share/g/t";
	await a.subscribe(await a.connect("m"), log);
	await a.fill(log, 4);
	assert.deepEqual(texts(await a.store.takeShared(log, 1)), ["1"]);
	const pending = async () => ((await bench.client.xpending(`${prefix}{l:${log}}`, "g")) as [number])[0];
	await loseAnswer(
		() => a.store.takeShared(log, 2),
		async () => (await pending()) === 3,
	);
	await recovered(a);
	assert.deepEqual(texts(await a.store.takeShared(log, 9)), ["2", "3", "4"]);
});

test("Redis store: shared entries that were settled without an answer are lost to nobody", async () => {
	const prefix = bench.freshPrefix();
	const a = await startLossy(prefix);
	const log = "$share/g/t";
	await a.subscribe(await a.connect("m"), log);
	await a.fill(log, 3);
	await a.store.takeShared(log, 2);
	await loseAnswer(
		() => a.store.settleShared(log, [1]),
		async () => (await bench.client.xlen(`${prefix}{l:${log}}`)) === 2,
	);
	await recovered(a);
	assert.deepEqual(texts(await a.store.takeShared(log, 9)), ["3"], "2 is still this replica's");
});

for (const [title, after, left] of [
	["is the session's when that is repeated", "bind", []],
	["is everybody's again when it is returned", "return", ["1"]],
] as const) {
	test(`Redis store: a shared entry that was bound without an answer is nobody's twice, and ${title}`, async () => {
		const prefix = bench.freshPrefix();
		const a = await startLossy(prefix);
		const log = "$share/g/t";
		const member = await a.connect("m");
		await a.subscribe(member, log);
		await a.fill(log, 1);
		await a.store.takeShared(log, 1);
		const bound = async () =>
			((await bench.client.xpending(`${prefix}{l:${log}}`, "g")) as [number, string, string, [string, string][]])[3];
		await loseAnswer(
			() => a.store.bindShared(log, 1, member.ref),
			async () => (await bench.client.exists(`${prefix}{c:m}:b`)) === 1,
		);
		await recovered(a);
		assert.deepEqual(texts(await a.store.takeShared(log, 9)), []);
		if (after === "return") await a.store.returnShared(log, [1]);
		else {
			await a.store.bindShared(log, 1, member.ref);
			assert.match(String(await bound()), /^session:/);
		}
		assert.deepEqual(texts(await a.store.takeShared(log, 9)), left);
	});
}

test("Redis store: a session whose closing was not answered is closed when the server is back", async () => {
	const prefix = bench.freshPrefix();
	const a = await startLossy(prefix);
	const client = await a.connect("c", { will: will("w"), sessionExpirySeconds: 0 });
	await a.subscribe(client, "$share/g/t");
	await loseAnswer(
		() => a.close(client),
		async () => (await bench.client.exists(`${prefix}{c:c}`)) === 0,
	);
	await until(async () => !a.knows("$share/g/t"));
	await until(async () => (await bench.client.exists(`${prefix}{own:r1}`)) === 0);
	assert.deepEqual(await a.dueWills(NOW), ["c"]);
});

test("Redis store: a session whose opening was not answered does not stay connected", async () => {
	const prefix = bench.freshPrefix();
	const a = await startLossy(prefix);
	await a.close(await a.connect("c", { sessionExpirySeconds: 60 }));
	await loseAnswer(
		() => a.connect("c", { will: will("w"), sessionExpirySeconds: 60 }),
		async () => (await bench.client.hexists(`${prefix}{c:c}`, "token")) === 1,
	);
	await until(async () => (await bench.client.hexists(`${prefix}{c:c}`, "token")) === 0);
	assert.deepEqual((await a.store.due(NOW + 60_000, 10)).expiredSessions, ["c"]);
	assert.deepEqual(await a.dueWills(NOW + 1e9), [], "the will of a connection that never was");
});

test("Redis store: a publication of QoS 2 that was not answered is stored once [MQTT-4.3.3-10]", async () => {
	const prefix = bench.freshPrefix();
	const a = await startLossy(prefix);
	const client = await a.connect("c");
	await a.subscribe(client, "t");
	const publish = (ref = client.ref) => a.publish("t", ["t"], { reserve: { session: ref, packetId: 1 } });
	await loseAnswer(publish, async () => (await bench.client.hexists(`${prefix}{c:c}:r`, "1")) === 1);
	await recovered(a);
	const again = await a.connect("c");
	assert.deepEqual((await publish(again.ref)).appended, [{ log: "t", seq: 1 }]);
	assert.equal((await a.read("t")).length, 1);
});
