/**
 * A session that is away while very many messages pass, and comes back on another replica: it gets all of them in order, or,
 * where the limit of a log is smaller, the newest of them, and what was dropped is counted. `OFFLINE` says how many, 100,000
 * unless given.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Collector } from "../support/collector.ts";
import type { HistoryEvent } from "../support/history.ts";
import { LoadPublisher, LoadSubscriber } from "../support/load_client.ts";
import { acknowledged, drained, roaming, until } from "../support/load_run.ts";
import { RawClient } from "../support/raw_client.ts";
import { MIXED, type Replica, suiteReplicas, THREE } from "../support/replicas.ts";
import { durable, freshTopic, numbers } from "../support/traffic.ts";

const OFFLINE = Number(process.env.OFFLINE ?? 100_000);
const RUN_MS = 20 * 60_000;
const PUBLISHERS = 4;
/** Unacknowledged publications of each publisher. */
const WINDOW = 1000;
const LOG_MAX_MESSAGES = 1000;
/** Messages of each publisher where all send at the same moment. */
const ROUNDS = 1500;

describe("a session that is away from three replicas", () => {
	const replicas = suiteReplicas({ runtimes: THREE, env: { LOG_MAX_MESSAGES: "1000000", RECEIVE_MAXIMUM: `${WINDOW}` } });

	it("gets every message that passed meanwhile, in order, on another replica", { timeout: RUN_MS }, async (t) => {
		const { a, b, c, all } = replicas();
		const events: HistoryEvent[] = [];
		let place = a;
		const subscribers = [1, 2].map((qos) => {
			const options = roaming(() => place, { clientId: `away-${qos}`, version: 5, transport: "tcp", events });
			return new LoadSubscriber(options, { filter: qos === 1 ? "load/#" : "load/publisher-0/+", qos: qos as 1 | 2, ackDelayMs: 0 });
		});
		const publishers = numbers(PUBLISHERS).map((number, index) => {
			const publishAt = all[(index + 1) % all.length] as Replica;
			const options = roaming(() => publishAt, { clientId: `publisher-${number}`, version: 5, transport: "tcp", events });
			return new LoadPublisher(options, { pattern: index === 0 ? [1, 2] : [1], window: WINDOW });
		});
		const clients = [...subscribers, ...publishers];
		t.after(() => Promise.all(clients.map((client) => client.stop())).then(() => {}));
		for (const client of clients) client.start();
		await until("all have subscribed", () => subscribers.every((subscriber) => subscriber.subscribed));
		await Promise.all(subscribers.map((subscriber) => subscriber.stop()));

		const count = Math.ceil(OFFLINE / PUBLISHERS);
		await Promise.all(publishers.map((publisher) => publishAll(publisher, count)));
		await acknowledged(publishers);
		await Promise.all(publishers.map((publisher) => publisher.stop()));
		place = b;
		subscribers[0]?.start();
		await until("messages come", () => events.at(-1)?.kind === "delivered");
		place = c;
		subscribers[1]?.start();
		// Once more on the way.
		subscribers[0]?.cut();
		const { violations, ...figures } = await drained(events, 2000);
		console.log(JSON.stringify(figures));
		assert.deepEqual(violations, []);
		assert.equal(figures.lost, 0);
		assert.ok(figures.acknowledged >= OFFLINE);
	});
});

describe("a session that is away while replicas on both runtimes take messages at the same moment", () => {
	const replicas = suiteReplicas({ runtimes: MIXED });

	it("gets all of them, those of each publisher in order", { timeout: RUN_MS }, async () => {
		const { a, all } = replicas();
		const topic = freshTopic();
		const session = durable();
		const subscriber = await RawClient.connect(a, session);
		await subscriber.subscribe(`${topic}/#`, { qos: 2 });
		await subscriber.disconnect();
		const publishers = await Promise.all(all.map((replica) => RawClient.connect(replica)));
		for (let round = 0; round < ROUNDS; round++) {
			for (const [index, publisher] of publishers.entries()) {
				publisher.publish(`${topic}/${index}`, `${round}`, { qos: 1, messageId: round + 1 });
			}
			await Promise.all(publishers.map((publisher) => publisher.expect("puback", { messageId: round + 1 })));
		}
		const back = await Collector.connect(a, session);
		await back.wait("the last messages", () => back.messages.length >= ROUNDS * publishers.length);
		for (const index of publishers.keys()) assert.deepEqual(back.texts(`${topic}/${index}`), numbers(ROUNDS));
		await Promise.all([back, ...publishers].map((client) => client.destroy()));
	});
});

describe("a session that is away from replicas with a small limit", () => {
	const replicas = suiteReplicas({ runtimes: MIXED, env: { LOG_MAX_MESSAGES: `${LOG_MAX_MESSAGES}`, SYS_INTERVAL_SECONDS: "1" } });

	it("gets the newest messages in order, and the dropped ones are counted", { timeout: RUN_MS }, async () => {
		const { a, b, c } = replicas();
		const topic = freshTopic();
		const session = durable();
		const subscriber = await RawClient.connect(a, session);
		await subscriber.subscribe(`${topic}/#`, { qos: 1 });
		await subscriber.disconnect();
		const publisher = await RawClient.connect(b);
		const count = LOG_MAX_MESSAGES * 5;
		for (let first = 0; first < count; first += LOG_MAX_MESSAGES) {
			for (let index = first; index < first + LOG_MAX_MESSAGES; index++) {
				publisher.publish(`${topic}/x`, `${index}`, { qos: 1, messageId: index + 1 });
			}
			for (let index = first; index < first + LOG_MAX_MESSAGES; index++) await publisher.expect("puback", { messageId: index + 1 });
		}
		const back = await Collector.connect(c, session);
		assert.equal(back.client.connack.sessionPresent, true);
		await back.wait("the newest message", () => back.texts().at(-1) === `${count - 1}`);
		const got = back.messages.length;
		assert.deepEqual(back.texts(), numbers(got, count - got));
		// A log is cut in pieces, so a few more than the limit may be left.
		assert.ok(got >= LOG_MAX_MESSAGES && got < LOG_MAX_MESSAGES * 2, `${got} messages are left of a limit of ${LOG_MAX_MESSAGES}`);

		const watcher = await Collector.connect(c);
		await watcher.subscribe("$SYS/broker/publish/messages/dropped/logTrimmed");
		await watcher.wait("the count of dropped messages", () => Number(watcher.texts().at(-1)) === count - got);
		await Promise.all([back.destroy(), watcher.destroy(), publisher.destroy()]);
	});
});

/** Publishes so many messages, as fast as they are acknowledged. */
async function publishAll(publisher: LoadPublisher, count: number): Promise<void> {
	await until("the publisher is connected", () => publisher.connected);
	for (let published = 0; published < count; ) {
		const before = publisher.open;
		publisher.publish(count - published);
		published += publisher.open - before;
		await sleep(1);
	}
}
