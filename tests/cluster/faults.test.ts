/**
 * Replicas whose way to Redis is broken while others' is whole, and a Redis that has lost what it was given: nothing is
 * acknowledged that is not stored, what was lost is said, and everything works afterwards.
 */

import assert from "node:assert/strict";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { LossyProxy } from "../store/redis_proxy.ts";
import { Collector } from "../support/collector.ts";
import { eventually } from "../support/eventually.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { type RedisServer, startRedis } from "../support/redis_server.ts";
import { MIXED, type Replica, startReplicas } from "../support/replicas.ts";
import type { Cleanup } from "../support/test_broker.ts";
import { durable, freshTopic, numbers } from "../support/traffic.ts";

const RUN_MS = 60_000;
const LEASE_SECONDS = 2;
const LOSS = /may have been lost|has lost some/;
const env = { REPLICA_LEASE_SECONDS: `${LEASE_SECONDS}` };

/** Keeps asking a replica whether it is ready. */
async function ready(replica: Replica): Promise<void> {
	while ((await replica.status("/readyz")) !== 200) await sleep(50);
}

/** Everybody can subscribe and publish to everybody, and sees what is retained. */
async function worksEverywhere(all: readonly Replica[]): Promise<void> {
	const topic = freshTopic();
	const readers = await Promise.all(all.map((replica, each) => Collector.connect(replica, each === 0 ? {} : durable())));
	for (const [each, reader] of readers.entries()) await reader.subscribe(each === 1 ? `${topic}/#` : `${topic}/x`, { qos: 2 });
	const publishers = await Promise.all(all.map((replica) => RawClient.connect(replica)));
	for (const [each, publisher] of publishers.entries()) {
		for (const qos of [1, 2]) await publisher.publishAcked(`${topic}/x`, `${each} ${qos}`, { qos, retain: true });
	}
	const expected = all.flatMap((_, each) => [1, 2].map((qos) => `${each} ${qos}`));
	for (const reader of readers) {
		await reader.until(expected.length);
		assert.deepEqual(reader.texts(), expected);
	}
	for (const replica of all) {
		const late = await RawClient.connect(replica);
		await late.subscribe(`${topic}/+`);
		await late.expect("publish", { payload: expected.at(-1), retain: true });
		await late.destroy();
	}
	await Promise.all([...readers, ...publishers].map((client) => client.destroy()));
}

/** The same after data were lost: a session that keeps nothing is cut when that is noticed, once, and subscribes again. */
async function worksEverywhereAgain(all: readonly Replica[]): Promise<void> {
	try {
		await worksEverywhere(all);
	} catch (error) {
		if (!(error instanceof Error && error.message.startsWith("the connection was closed before"))) throw error;
		await worksEverywhere(all);
	}
}

/** Waits until none of them has anything to complain about any more. */
async function quiet(all: readonly Replica[]): Promise<void> {
	await sleep(500);
	const complaints = () => all.flatMap(({ log }) => log.filter(({ level }) => level === "warn" || level === "error"));
	const before = complaints().length;
	await sleep(1000);
	assert.deepEqual(complaints().slice(before), [], "no errors without end");
}

function connectTo(t: Cleanup, redis: RedisServer): Redis {
	const client = new Redis(redis.url);
	client.on("error", () => {});
	t.after(() => client.disconnect());
	return client;
}

it("a replica cut off from Redis past its lease acknowledges nothing, its sessions move, its wills fire once, and it takes part again", {
	timeout: RUN_MS,
}, async (t) => {
	const redis = await startRedis();
	t.after(() => redis.stop());
	const proxies = await Promise.all([LossyProxy.start(redis.port), LossyProxy.start(redis.port)]);
	for (const proxy of proxies) t.after(() => proxy.stop());
	const envOf = (index: number) => ({ REDIS_URL: proxies[index]?.url ?? redis.url });
	const { all, a, b, c } = await startReplicas(t, { runtimes: MIXED, redis, env, envOf });
	const base = freshTopic();
	const watcher = await Collector.connect(c);
	await watcher.subscribe(`${base}/wills/+`, { qos: 1 });
	// The first loses what it sends and what it is sent, the second only what it is sent.
	const places = await Promise.all(
		[a, b].map(async (replica, each) => {
			const topic = `${base}/${each}`;
			const will = (name: string) => ({ topic: `${base}/wills/${name}`, payload: `${name} ${each}`, qos: 1, retain: false });
			const session = durable();
			const moved = await Collector.connect(replica, { ...session, will: will("moved") });
			await moved.subscribe(`${topic}/#`, { qos: 2 });
			const mortal = await RawClient.connect(replica, { clientId: freshId(), will: will("mortal") });
			const publisher = await RawClient.connect(replica);
			for (const payload of numbers(5)) await publisher.publishAcked(`${topic}/x`, payload, { qos: 2 });
			await moved.until(5);
			return { topic, session, moved, mortal, publisher, replica };
		}),
	);
	// What was acknowledged last is stored soon.
	await sleep(300);
	proxies[0]?.loseAll();
	proxies[1]?.loseAnswers();
	for (const { publisher, topic } of places) {
		publisher.publish(`${topic}/x`, "in doubt", { qos: 1, messageId: 60_001 });
		publisher.publish(`${topic}/x`, "in doubt twice", { qos: 2, messageId: 60_002 });
	}
	await watcher.until(4);
	// A PINGRESP, and no acknowledgement.
	for (const { publisher } of places) await publisher.expectNothing();
	const elsewhere = await Promise.all(
		places.map(async ({ session, topic }) => {
			const client = await Collector.connect(c, session);
			assert.equal(client.client.connack.sessionPresent, true);
			const other = await RawClient.connect(c);
			for (const payload of numbers(5, 5)) await other.publishAcked(`${topic}/x`, payload, { qos: 2 });
			await client.wait("what was published meanwhile", () => client.texts().includes("9"));
			await other.destroy();
			return client;
		}),
	);
	for (const proxy of proxies) proxy.cut();
	await Promise.all([a, b].map(ready));
	await Promise.all(places.flatMap(({ moved, mortal }) => [moved.client.receiveUntilClosed(), mortal.receiveUntilClosed()]));
	// Their sessions ended with the lease: what they had in doubt is not acknowledged any more.
	for (const { publisher } of places) {
		const said = (await publisher.receiveUntilClosed()).map(({ cmd }) => cmd);
		assert.deepEqual(
			said.filter((cmd) => cmd === "puback" || cmd === "pubrec"),
			[],
		);
	}
	// Their inboxes went with them, and whoever has no log is told so once.
	await eventually("both have noticed", () => [a, b].every(({ log }) => log.some(({ message }) => LOSS.test(message))));
	await worksEverywhere(all);
	await quiet(all);
	assert.deepEqual(watcher.texts().toSorted(), ["moved 0", "moved 1", "mortal 0", "mortal 1"].toSorted());
	for (const [each, client] of elsewhere.entries()) {
		const texts = client.texts();
		assert.deepEqual(
			texts.filter((text) => !text.startsWith("in doubt")),
			numbers(5, 5),
		);
		assert.ok(texts.filter((text) => text === "in doubt twice").length <= 1, `QoS 2 once: ${texts}`);
		assert.equal(client.client.closed, false, `the session of ${each} stays where it is`);
	}
	await Promise.all([...elsewhere, watcher].map((client) => client.destroy()));
});

it("a replica whose subscription is killed or whose inbox is trimmed before it was read completes its persistent sessions", {
	timeout: RUN_MS,
}, async (t) => {
	const { all, a, b, redis } = await startReplicas(t, { runtimes: MIXED, env: { REPLICA_LEASE_SECONDS: "5" } });
	const admin = connectTo(t, redis);
	const topic = freshTopic();
	const reader = await Collector.connect(b, durable());
	await reader.subscribe(`${topic}/#`, { qos: 2 });
	const passing = await Collector.connect(b, { clientId: freshId() });
	await passing.subscribe(`${topic}/+`, { qos: 1 });
	const publisher = await RawClient.connect(a);
	for (const payload of numbers(100)) {
		if (Number(payload) % 20 === 10) await admin.call("CLIENT", "KILL", "TYPE", "pubsub");
		await publisher.publishAcked(`${topic}/x`, payload, { qos: 1 + (Number(payload) % 2) });
	}
	await reader.until(100);
	assert.deepEqual(reader.texts(), numbers(100));
	// QoS 0 comes again soon.
	const timer = setInterval(() => publisher.publish(`${topic}/0`, "fleeting"), 50);
	await reader.wait("QoS 0", () => reader.texts().includes("fleeting"));
	clearInterval(timer);

	b.freeze();
	for (const payload of numbers(100, 100)) await publisher.publishAcked(`${topic}/x`, payload, { qos: 1 + (Number(payload) % 2) });
	for (const inbox of await admin.keys("shoal:{in:*")) await admin.xtrim(inbox, "MAXLEN", 0);
	b.thaw();
	await publisher.publishAcked(`${topic}/x`, "200", { qos: 1 });
	await reader.wait("all messages", () => reader.texts(`${topic}/x`).length >= 201);
	assert.deepEqual(reader.texts(`${topic}/x`), numbers(201));
	// What cannot be made good is not hidden: who has no log is sent away.
	await passing.client.receiveUntilClosed();
	const lost = passing.texts(`${topic}/x`).length < 201;
	assert.ok(lost || passing.disconnected !== undefined, "the other one is told");
	assert.ok(
		b.log.some(({ message }) => LOSS.test(message)),
		"the gap is logged",
	);
	await worksEverywhere(all);
	await Promise.all([reader.destroy(), publisher.destroy()]);
});

it("a Redis that has lost everything, or is an older backup of itself, is noticed, sessions that are gone are not present, and all works", {
	timeout: RUN_MS,
}, async (t) => {
	const { all, a, b, c, redis } = await startReplicas(t, { runtimes: MIXED, env });
	const admin = connectTo(t, redis);
	const early = durable();
	const late = durable();
	const topic = freshTopic();
	const onA = await Collector.connect(a, early);
	await onA.subscribe(`${topic}/#`, { qos: 1 });
	const publisher = await RawClient.connect(c);
	for (const payload of numbers(5)) await publisher.publishAcked(`${topic}/x`, payload);
	await onA.until(5);
	const [, folder] = (await admin.config("GET", "dir")) as [string, string];
	const [data, backup] = ["appendonlydir", "backup"].map((name) => join(folder, name)) as [string, string];
	cpSync(data, backup, { recursive: true });

	const onB = await Collector.connect(b, late);
	await onB.subscribe(`${topic}/late`, { qos: 1 });
	for (const payload of numbers(200, 5)) await publisher.publishAcked(`${topic}/late`, payload);
	await onB.until(200);
	await redis.kill();
	rmSync(data, { recursive: true });
	cpSync(backup, data, { recursive: true });
	await redis.restart();
	// A session that Redis does not know is not served any more.
	await onB.client.receiveUntilClosed();
	await Promise.all(all.map(ready));
	const again = await RawClient.connect(c, late);
	assert.equal(again.connack.sessionPresent, false, "it was begun after the backup");
	await onA.client.destroy();
	const back = await Collector.connect(b, early);
	assert.equal(back.client.connack.sessionPresent, true, "it is in the backup");
	await sleep(LEASE_SECONDS * 500);
	await worksEverywhere(all);
	for (const { log } of all)
		assert.ok(
			log.some(({ message, error }) => LOSS.test(`${message} ${error}`)),
			"what Redis has lost is logged",
		);
	await quiet(all);

	await admin.flushall();
	await back.client.receiveUntilClosed();
	// Who does nothing notices it with the next sign of life that it gives.
	await sleep(LEASE_SECONDS * 500);
	for (const replica of all) {
		const gone = await RawClient.connect(replica, early);
		assert.equal(gone.connack.sessionPresent, false);
		await gone.disconnect({ properties: { sessionExpiryInterval: 0 } });
	}
	await worksEverywhereAgain(all);
	await quiet(all);
	await Promise.all([again.destroy(), publisher.destroy()]);
});
