/**
 * A Redis that answers with errors while messages pass (it loads its data, is read-only for a while, forgets its scripts, has
 * no memory left), and replicas whose clocks are ten minutes apart.
 */

import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { Collector } from "../support/collector.ts";
import { type HistoryEvent, judge } from "../support/history.ts";
import { LoadPublisher, LoadSubscriber, type SubscriberOptions } from "../support/load_client.ts";
import { acknowledged, drained, roaming, until } from "../support/load_run.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { startRedis } from "../support/redis_server.ts";
import { MIXED, type Replica, startReplicas } from "../support/replicas.ts";
import type { Cleanup } from "../support/test_broker.ts";
import { durable, freshTopic, numbers } from "../support/traffic.ts";

const RUN_MS = 60_000;
const QUOTA_EXCEEDED = 0x97;
const PUBLISH_EVERY_MS = 10;
/** For which each key holds up the loading: long enough in all. */
const KEY_DELAY_US = 3000;
const KEYS = 150;
const SKEW_SECONDS = 300;

const PUBLISHERS = [{ pattern: [1] }, { pattern: [2] }, { pattern: [1, 2] }] as const;
const SUBSCRIBERS: readonly SubscriberOptions[] = [
	{ filter: "load/#", qos: 2, ackDelayMs: 0 },
	{ filter: "load/#", qos: 1, ackDelayMs: 5 },
	{ filter: "load/publisher-2/0", qos: 2, ackDelayMs: 20 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 10 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 5 },
];

function connectTo(t: Cleanup, url: string): Redis {
	const client = new Redis(url, { maxRetriesPerRequest: null });
	client.on("error", () => {});
	t.after(() => client.disconnect());
	return client;
}

it("while Redis loads its data, is read-only and forgets its scripts under load: nothing acknowledged is lost, and QoS 2 comes once", {
	timeout: RUN_MS,
}, async (t) => {
	const redis = await startRedis(["--key-load-delay", `${KEY_DELAY_US}`, "--loading-process-events-interval-bytes", "1024"]);
	t.after(() => redis.stop());
	const admin = connectTo(t, redis.url);
	const { all } = await startReplicas(t, { runtimes: MIXED, redis, env: { LOG_MAX_MESSAGES: "1000000", REPLICA_LEASE_SECONDS: "15" } });
	const events: HistoryEvent[] = [];
	const options = (clientId: string, each: number) =>
		roaming(() => all[each % 3] as Replica, {
			clientId,
			events,
			version: each % 2 === 0 ? 5 : 4,
			transport: each % 3 === 0 ? "tcp" : "ws",
		});
	const publishers = PUBLISHERS.map((each, index) => new LoadPublisher(options(`publisher-${index}`, index), { ...each, window: 50 }));
	const subscribers = SUBSCRIBERS.map((each, index) => new LoadSubscriber(options(freshId(), index + 1), each));
	const clients = [...publishers, ...subscribers];
	t.after(() => Promise.all(clients.map((client) => client.stop())).then(() => {}));
	for (const client of clients) client.start();
	await until("all have subscribed", () => subscribers.every((subscriber) => subscriber.subscribed));
	const load = setInterval(() => {
		for (const publisher of publishers) publisher.publish(2);
	}, PUBLISH_EVERY_MS);
	t.after(() => clearInterval(load));
	const goesOn = async (): Promise<void> => {
		const count = () => events.reduce((sum, { kind }) => sum + (kind === "acknowledged" ? 1 : 0), 0);
		const before = count();
		await until("publications are acknowledged", () => count() > before + 100);
	};
	await goesOn();

	for (let n = 0; n < 5; n++) {
		await admin.script("FLUSH");
		await sleep(50);
	}
	await goesOn();

	// The replica of a server that is not there: it keeps what it has and takes no writes.
	await admin.replicaof("127.0.0.1", "1");
	await sleep(1000);
	await admin.call("REPLICAOF", "NO", "ONE");
	await goesOn();

	// As one dump in front of what came later, so that each key takes its time.
	await admin.mset(Object.fromEntries(numbers(KEYS).map((key) => [`ballast:${key}`, "x"])));
	await admin.bgrewriteaof();
	while (/aof_rewrite_in_progress:1|aof_rewrite_scheduled:1/.test(await admin.info("persistence"))) await sleep(20);
	await redis.kill();
	const restarted = redis.restart();
	let answers = "";
	while (!answers.startsWith("PONG")) {
		const probe = new Redis(redis.url, { enableReadyCheck: false, retryStrategy: () => null, lazyConnect: true });
		probe.on("error", () => {});
		const answer = await probe.connect().then(
			() => probe.ping().catch((error: Error) => error.message),
			() => "",
		);
		probe.disconnect();
		answers = answer === "PONG" ? `PONG after ${answers}` : answer || answers;
		await sleep(50);
	}
	assert.match(answers, /LOADING/);
	await restarted;
	await goesOn();

	clearInterval(load);
	await acknowledged(publishers);
	await drained(events);
	// Where an answer is lost the broker stores again what may be stored already.
	const { violations, ...figures } = judge(
		events.flatMap((event): HistoryEvent[] => (event.kind === "published" ? [event, { ...event, dup: true }] : [event])),
	);
	console.log(JSON.stringify(figures));
	assert.deepEqual(violations, []);
	assert.equal(figures.lost, 0);
	assert.deepEqual(
		events.filter(({ kind }) => kind === "closed"),
		[],
		"connections stay",
	);
});

it("while Redis has no memory left under load, what is refused gets 0x97, what is acknowledged arrives, and QoS 2 comes once", {
	timeout: RUN_MS,
}, async (t) => {
	const { all, redis } = await startReplicas(t, { runtimes: MIXED });
	const admin = connectTo(t, redis.url);
	const topic = freshTopic();
	const reader = await Collector.connect(all[2] as Replica, durable());
	await reader.subscribe(`${topic}/#`, { qos: 2 });
	const codes: number[] = [];
	const accepted: string[] = [];
	let running = true;
	const publishing = [0, 1, 2, 3].map(async (each) => {
		const qos = 1 + (each % 2);
		const client = await RawClient.connect(all[each % 3] as Replica);
		for (let number = 0; running; number++) {
			const payload = `${each}:${number}`;
			client.publish(`${topic}/${each}`, payload, { qos, messageId: (number % 60_000) + 1 });
			const { reasonCode = 0 } = await client.expect(qos === 1 ? "puback" : "pubrec", { messageId: (number % 60_000) + 1 });
			codes.push(reasonCode);
			if (reasonCode >= 0x80) continue;
			accepted.push(payload);
			if (qos === 1) continue;
			client.send({ cmd: "pubrel", messageId: (number % 60_000) + 1 });
			await client.expect("pubcomp");
		}
		await client.disconnect();
	});
	for (let round = 0; round < 3; round++) {
		await sleep(400);
		await admin.config("SET", "maxmemory", "1");
		await sleep(300);
		await admin.config("SET", "maxmemory", "0");
	}
	await sleep(400);
	running = false;
	await Promise.all(publishing);
	await reader.wait("what was accepted", () => {
		const texts = new Set(reader.texts());
		return accepted.every((payload) => texts.has(payload));
	});
	const refused = codes.filter((code) => code >= 0x80);
	assert.ok(refused.length > 0 && accepted.length > 100, `${refused.length} refused, ${accepted.length} accepted`);
	assert.ok(
		refused.every((code) => code === QUOTA_EXCEEDED),
		`${[...new Set(refused)]}`,
	);
	const twice = [1, 3].flatMap((each) => reader.texts(`${topic}/${each}`)).filter((text, at, texts) => texts.indexOf(text) !== at);
	assert.deepEqual(twice, []);
	await reader.destroy();
});

describe("replicas whose clocks are ten minutes apart", () => {
	it("agree when messages, sessions and wills are due: by the clock of Redis", { timeout: RUN_MS }, async (t) => {
		const [library] = globSync("/usr/lib/*/faketime/libfaketimeMT.so.1");
		assert.ok(library !== undefined, "libfaketime is installed");
		const envOf = (index: number) => ({
			LD_PRELOAD: library,
			FAKETIME: `${["+", "-", "+"][index]}${index === 2 ? 0 : SKEW_SECONDS}s`,
			FAKETIME_DONT_FAKE_MONOTONIC: "1",
		});
		const { all, a, b } = await startReplicas(t, { runtimes: MIXED, envOf });
		const clocks = [a, b].map(({ log }) => Date.parse(String(log[0]?.time)));
		assert.ok((clocks[0] as number) - (clocks[1] as number) > 1.9 * SKEW_SECONDS * 1000, "the clocks are apart");
		for (const [from, to] of [
			[a, b],
			[b, a],
		] as const) {
			const topic = freshTopic();
			const [session, mortal] = [durable(), durable(freshId(), { sessionExpiryInterval: 2 })];
			for (const options of [session, mortal]) {
				const client = await Collector.connect(from, options);
				await client.subscribe(`${topic}/+`, { qos: 1 });
				await client.leave();
			}
			const live = await Collector.connect(to);
			await live.subscribe(`${topic}/+`, { qos: 1 });
			const publisher = await RawClient.connect(from);
			const publish = (name: string, messageExpiryInterval: number) =>
				publisher.publishAcked(`${topic}/${name}`, name, { retain: true, properties: { messageExpiryInterval } });
			await publish("short", 2);
			await publish("long", 60);
			await live.until(2);
			const will = { topic: `${topic}/will`, payload: "will", qos: 1, retain: false, properties: { willDelayInterval: 1 } };
			const dying = await RawClient.connect(from, { ...durable(), will });
			await dying.destroy();
			const early = await Collector.connect(to, { clientId: freshId() });
			await early.subscribe(`${topic}/+`, { qos: 1 });
			await early.until(2);
			assert.deepEqual(early.texts().toSorted(), ["long", "short"], "nothing has expired yet");
			await live.until(3);
			assert.equal(live.texts().at(-1), "will");
			await sleep(1500);
			const late = await Collector.connect(to, { clientId: freshId() });
			await late.subscribe(`${topic}/+`, { qos: 1 });
			const back = await Collector.connect(to, session);
			await back.wait("what has not expired", () => back.texts().includes("will"));
			await late.until(1);
			assert.deepEqual(back.texts(), ["long", "will"]);
			assert.deepEqual(late.texts(), ["long"]);
			const gone = await RawClient.connect(to, mortal);
			assert.equal(gone.connack.sessionPresent, false);
			await Promise.all([live, early, late, back, gone, publisher].map((client) => client.destroy()));
		}
		assert.equal(await (all[2] as Replica).status("/readyz"), 200);
	});
});
