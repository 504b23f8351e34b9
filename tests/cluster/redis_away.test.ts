/**
 * P11: Redis is away for a while, killed or frozen, or has no memory left, or has forgotten its scripts. Connections stay,
 * nothing is acknowledged that is not stored, and everything goes on when it is back. `AWAY` says for how many seconds each
 * time, `3,11` unless given, such as `AWAY=3,15,60`.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { Collector } from "../support/collector.ts";
import { until } from "../support/load_run.ts";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import type { RedisServer } from "../support/redis_server.ts";
import { MIXED, type Replica, suiteReplicas } from "../support/replicas.ts";
import { durable, freshTopic, numbers } from "../support/traffic.ts";

const AWAY = (process.env.AWAY ?? "3,11").split(",").map(Number);
const RUN_MS = 5 * 60_000;
/** After so long without Redis a replica is not ready. */
const NOT_READY_SECONDS = 10;
const SERVER_UNAVAILABLE = 0x88;
const QUOTA_EXCEEDED = 0x97;
const BATCH = 10;
const IDLE = 10;
/** For publications that wait in one replica. */
const MAX_WAITING_BYTES = 32 * 1024 * 1024;
const FLOODERS = 20;
const FLOOD_PAYLOAD = Buffer.alloc(10_000);
/** Of each flooder: 800 MB in all. */
const FLOOD_MESSAGES = 4000;
/** Much more than may wait, since a runtime keeps what it has freed for a while, and much less than is sent. */
const MEMORY_BYTES = 256 * 1024 * 1024;

const FAULTS: readonly { readonly fault: string; strike(redis: RedisServer): Promise<void>; repair(redis: RedisServer): Promise<void> }[] =
	[
		{ fault: "frozen", strike: async (redis) => redis.signal("SIGSTOP"), repair: async (redis) => redis.signal("SIGCONT") },
		{ fault: "killed", strike: (redis) => redis.kill(), repair: (redis) => redis.restart() },
	];

/** Publishes these numbers, each with QoS 1 and with QoS 2, and waits for nothing. */
function publish(client: RawClient, topic: string, payloads: readonly string[]): void {
	for (const payload of payloads) {
		client.publish(`${topic}/1`, payload, { qos: 1, messageId: 2 * Number(payload) + 1 });
		client.publish(`${topic}/2`, payload, { qos: 2, messageId: 2 * Number(payload) + 2 });
	}
}

/** Takes the acknowledgements of `publish`, and completes the flows of QoS 2. */
async function complete(client: RawClient, count: number): Promise<void> {
	for (let open = 2 * count; open > 0; ) {
		const { cmd, messageId, reasonCode = 0 } = (await client.receive()) as AnyPacket;
		assert.ok(reasonCode < 0x80, `${cmd} with reason code ${reasonCode}`);
		if (cmd === "pubrec") client.send({ cmd: "pubrel", messageId });
		else open--;
	}
}

/** QoS 2 each once, QoS 1 each at least once, in order. */
function assertAll(collector: Collector, topic: string, count: number): void {
	assert.deepEqual(collector.texts(`${topic}/2`), numbers(count));
	assert.deepEqual([...new Set(collector.texts(`${topic}/1`))], numbers(count));
}

/** Sends far more than may wait, and stops when it is cut off. */
async function flood(client: RawClient, topic: string): Promise<void> {
	for (let sent = 0; sent < FLOOD_MESSAGES && !client.closed; sent++) {
		client.publish(topic, FLOOD_PAYLOAD, { qos: 1, messageId: sent + 1 });
		// For what comes back.
		if (sent % 20 === 0) await sleep(1);
	}
}

describe("Redis away from replicas on both runtimes", () => {
	const replicas = suiteReplicas({
		runtimes: MIXED,
		env: { REPLICA_LEASE_SECONDS: "4", MAX_WAITING_BYTES: `${MAX_WAITING_BYTES}` },
	});

	for (const [index, seconds] of AWAY.entries()) {
		const { fault, strike, repair } = FAULTS[index % FAULTS.length] as (typeof FAULTS)[number];

		it(`${fault} for ${seconds} s: no false acknowledgement, connections stay, and everything resumes`, { timeout: RUN_MS }, async () => {
			const { a, b, c, all, redis } = replicas();
			const topic = freshTopic();
			const session = durable();
			const reader = await Collector.connect(b, session);
			await reader.subscribe(`${topic}/#`, { qos: 2 });
			const live = await Collector.connect(c);
			await live.subscribe(`${topic}/+`, { qos: 2 });
			const publisher = await RawClient.connect(a);
			const [speaker, listener] = await Promise.all([RawClient.connect(a), RawClient.connect(a)]);
			await listener.subscribe(`local/${topic}`);
			const idle = await Promise.all(numbers(IDLE).map((_, each) => RawClient.connect(all[each % all.length] as Replica, durable())));
			const flooders = await Promise.all(numbers(FLOODERS).map(() => RawClient.connect(b, { version: 4 })));
			publish(publisher, topic, numbers(BATCH));
			await complete(publisher, BATCH);

			const memory = b.memory;
			await strike(redis);
			const back = Date.now() + seconds * 1000;
			publish(publisher, topic, numbers(BATCH, BATCH));
			const floods = flooders.map((client) => flood(client, `flood/${topic}`));
			const late = await RawClient.open(c);
			late.sendConnect(durable());
			try {
				for (let count = 0; Date.now() < back; count++) {
					speaker.publish(`local/${topic}`, `${count}`);
					await listener.expect("publish", { payload: `${count}` });
					// A PINGRESP, and no acknowledgement.
					await publisher.expectNothing();
					assert.equal(await a.status("/healthz"), 200);
					await sleep(200);
				}
				for (const client of idle) await client.expectNothing();
				for (const replica of all) assert.equal(await replica.status("/readyz"), seconds > NOT_READY_SECONDS ? 503 : 200);
				const grown = b.memory - memory;
				assert.ok(grown < MEMORY_BYTES, `${Math.round(grown / 1e6)} MB more memory in use`);
			} finally {
				await repair(redis);
			}
			await complete(publisher, BATCH);
			await Promise.all(floods);
			await Promise.all(flooders.map((client) => client.destroy()));
			const connack = await late.receive();
			assert.equal(connack.cmd, "connack");
			assert.ok([0, SERVER_UNAVAILABLE].includes(connack.reasonCode), `refused with ${connack.reasonCode}`);
			publish(publisher, topic, numbers(BATCH, 2 * BATCH));
			await complete(publisher, BATCH);
			for (const collector of [reader, live]) {
				await collector.wait("all messages", () => collector.texts(`${topic}/2`).at(-1) === `${3 * BATCH - 1}`);
				await collector.wait("all messages", () => collector.texts(`${topic}/1`).at(-1) === `${3 * BATCH - 1}`);
				assertAll(collector, topic, 3 * BATCH);
			}
			for (const replica of all) {
				let status = 0;
				await until("it is ready", () => {
					void replica.status("/readyz").then((now) => {
						status = now;
					});
					return status === 200;
				});
			}
			// Longer than a lease, so that whoever took others for dead would have ended them.
			await sleep(4500);
			for (const client of [...idle, publisher, speaker, listener]) await client.expectNothing();
			assert.deepEqual([reader.client.closed, live.client.closed], [false, false]);
			// Sessions are where they were.
			await reader.leave();
			const elsewhere = await RawClient.connect(a, session);
			assert.equal(elsewhere.connack.sessionPresent, true);
			await elsewhere.expectNothing();
			await Promise.all([...idle, publisher, speaker, listener, elsewhere, late].map((client) => client.destroy()));
			await live.destroy();
		});
	}

	it("that has forgotten its scripts: nobody notices", async (t) => {
		const { a, b, redis } = replicas();
		const admin = new Redis(redis.url);
		t.after(() => admin.disconnect());
		const topic = freshTopic();
		const reader = await Collector.connect(b, durable());
		await reader.subscribe(`${topic}/#`, { qos: 2 });
		const publisher = await RawClient.connect(a, durable());
		for (const round of numbers(10)) {
			publish(publisher, topic, numbers(BATCH, BATCH * Number(round)));
			await admin.script("FLUSH");
			await complete(publisher, BATCH);
		}
		await reader.wait("all messages", () => reader.messages.length >= 20 * BATCH);
		assertAll(reader, topic, 10 * BATCH);
		await Promise.all([reader.leave(), publisher.destroy()]);
	});

	it("that has no memory left: publications are refused with 0x97, and none is acknowledged that does not arrive", async (t) => {
		const { a, b, redis } = replicas();
		const admin = new Redis(redis.url);
		t.after(() => admin.disconnect());
		const topic = freshTopic();
		const reader = await Collector.connect(b, durable());
		await reader.subscribe(topic, { qos: 1 });
		const publisher = await RawClient.connect(a);
		const codes: number[] = [];
		const publishAll = async (payloads: readonly string[]) => {
			for (const payload of payloads) {
				publisher.publish(topic, payload, { qos: 1, messageId: Number(payload) + 1 });
				codes[Number(payload)] = (await publisher.expect("puback", { messageId: Number(payload) + 1 })).reasonCode;
			}
		};
		await publishAll(numbers(BATCH));
		await admin.config("SET", "maxmemory", "1");
		try {
			await publishAll(numbers(BATCH, BATCH));
		} finally {
			await admin.config("SET", "maxmemory", "0");
		}
		assert.deepEqual(
			codes.slice(BATCH),
			numbers(BATCH).map(() => QUOTA_EXCEEDED),
		);
		await publishAll(numbers(BATCH, 2 * BATCH));
		const accepted = codes.flatMap((code, number) => (code < 0x80 ? [`${number}`] : []));
		assert.equal(accepted.length, 2 * BATCH);
		await reader.wait("the accepted messages", () => reader.texts().at(-1) === accepted.at(-1));
		assert.deepEqual(
			accepted.filter((text) => !reader.texts().includes(text)),
			[],
		);
		await Promise.all([reader.leave(), publisher.destroy()]);
	});
});
