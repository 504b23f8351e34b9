/**
 * P3: SUBACK means subscribed everywhere. A client subscribes on one replica, and the moment its SUBACK is there another one
 * publishes on another replica. `RACES` says how many times, 10,000 unless given.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { Collector } from "../support/collector.ts";
import { type ConnectOptions, freshId, RawClient, type Target } from "../support/raw_client.ts";
import { MIXED, suiteReplicas, THREE } from "../support/replicas.ts";
import { durable, freshTopic, text } from "../support/traffic.ts";

const RACES = Number(process.env.RACES ?? 10_000);
/** Pairs of clients at a time. */
const PAIRS = 24;
/** SUBSCRIBE packets of one client that are under way. */
const DEPTH = 4;
const RUN_MS = 120_000;

interface Race {
	readonly subscribeAt: Target;
	readonly publishAt: Target;
	readonly session: ConnectOptions;
	readonly qos: 1 | 2;
	readonly rounds: number;
	/** Filter and topic of a round: fresh ones each time. */
	names(round: number): readonly [filter: string, topic: string];
}

/** Runs so many rounds, and answers the topics of those whose message did not come. */
async function race({ subscribeAt, publishAt, session, qos, rounds, names }: Race): Promise<string[]> {
	const [subscriber, publisher] = await Promise.all([RawClient.connect(subscribeAt, session), RawClient.connect(publishAt)]);
	const missing = new Set<string>();
	const subscribe = (round: number) => {
		const [filter, topic] = names(round);
		missing.add(topic);
		subscriber.send({ cmd: "subscribe", messageId: round, subscriptions: [{ topic: filter, qos, nl: false, rap: false, rh: 0 }] });
	};
	const acknowledgements = takeAcknowledgements(publisher, rounds, qos);
	for (let round = 1; round <= Math.min(DEPTH, rounds); round++) subscribe(round);
	let open = rounds;
	while (open > 0 || missing.size > 0) {
		// What has not come when nothing has come for ten seconds is missed.
		const packet = await subscriber.receive().catch(() => undefined);
		if (packet === undefined) break;
		if (packet.cmd === "suback") {
			publisher.publish(names(packet.messageId)[1], "", { qos, messageId: packet.messageId });
			assert.equal(packet.granted[0], qos);
			if (packet.messageId + DEPTH <= rounds) subscribe(packet.messageId + DEPTH);
			open--;
		} else if (packet.cmd === "publish") {
			missing.delete(packet.topic);
			subscriber.send({ cmd: qos === 1 ? "puback" : "pubrec", messageId: packet.messageId });
		} else if (packet.cmd === "pubrel") subscriber.send({ cmd: "pubcomp", messageId: packet.messageId });
	}
	assert.equal(open, 0, "all subscriptions are acknowledged");
	await acknowledgements;
	await Promise.all([subscriber.destroy(), publisher.destroy()]);
	return [...missing];
}

async function takeAcknowledgements(publisher: RawClient, count: number, qos: 1 | 2): Promise<void> {
	for (let open = count; open > 0; ) {
		const { cmd, messageId, reasonCode } = await publisher.receive();
		assert.ok(reasonCode === undefined || reasonCode < 0x80, `${cmd} with ${reasonCode}`);
		if (cmd === "pubrec") publisher.send({ cmd: "pubrel", messageId });
		if (cmd === (qos === 1 ? "puback" : "pubcomp")) open--;
	}
}

/** Kinds of filter: each answers a filter and a topic that it matches. */
const KINDS: readonly ((base: string) => readonly [filter: string, topic: string])[] = [
	(base) => [base, base],
	(base) => [`${base}/+`, `${base}/x`],
	(base) => [`${base}/#`, base],
	(base) => [`+/${base.slice(base.indexOf("/") + 1)}`, base],
];

for (const [composition, runtimes] of [
	["three replicas", THREE],
	["replicas on both runtimes", MIXED],
] as const) {
	describe(`subscribing on one of ${composition} and publishing on another`, { timeout: RUN_MS }, () => {
		const replicas = suiteReplicas({ runtimes, env: { MAX_SUBSCRIPTIONS: "100000" } });
		const places = (index: number) => {
			const { all } = replicas();
			const subscribeAt = all[index % all.length] as Target;
			return { subscribeAt, publishAt: all[(index + 1 + (index % 2)) % all.length] as Target };
		};
		const rounds = Math.ceil((composition === "three replicas" ? RACES : RACES / 10) / PAIRS);

		it("a QoS 1 message published after the SUBACK misses no subscription, exact or wildcard", { timeout: RUN_MS }, async () => {
			const missed = await Promise.all(
				Array.from({ length: PAIRS }, (_, index) => {
					const prefix = freshId("race");
					const kind = KINDS[index % KINDS.length] as (typeof KINDS)[number];
					const session = index % 3 === 0 ? durable() : { clientId: freshId() };
					const names = (round: number) => kind(`${prefix}/${prefix}-${round}`);
					return race({ ...places(index), session, qos: 1, rounds, names });
				}),
			);
			assert.deepEqual(missed.flat(), []);
		});

		it("a QoS 2 message published after the SUBACK misses no subscription", { timeout: RUN_MS }, async () => {
			const missed = await Promise.all(
				Array.from({ length: 6 }, (_, index) => {
					const prefix = freshId("race");
					const kind = KINDS[index % KINDS.length] as (typeof KINDS)[number];
					const session = index % 2 === 0 ? durable() : { clientId: freshId() };
					const names = (round: number) => kind(`${prefix}/${prefix}-${round}`);
					return race({ ...places(index), session, qos: 2, rounds: Math.ceil(RACES / 100), names });
				}),
			);
			assert.deepEqual(missed.flat(), []);
		});

		it("a message published after the SUBACK of a shared subscription reaches its only member", { timeout: RUN_MS }, async () => {
			const missed = await Promise.all(
				Array.from({ length: 6 }, (_, index) => {
					const prefix = freshId("race");
					const session = index % 2 === 0 ? durable() : { clientId: freshId() };
					const names = (round: number) => [`$share/${prefix}/${prefix}/${round}`, `${prefix}/${round}`] as const;
					return race({ ...places(index), session, qos: index % 3 === 0 ? 2 : 1, rounds: Math.ceil(RACES / 100), names });
				}),
			);
			assert.deepEqual(missed.flat(), []);
		});

		it("a message published after the UNSUBACK does not come, while other subscriptions go on", async () => {
			const { a, b } = replicas();
			const [gone, kept] = [freshTopic(), freshTopic()];
			const [subscriber, publisher] = await Promise.all([Collector.connect(a), RawClient.connect(b)]);
			for (const filter of [gone, `${gone}/#`, `$share/group/${gone}`, kept]) await subscriber.subscribe(filter, { qos: 1 });
			for (const filter of [`${gone}/#`, `$share/group/${gone}`, gone]) await subscriber.unsubscribe(filter);
			publisher.publish(gone, "unwanted");
			await publisher.publishAcked(gone, "unwanted");
			await publisher.publishAcked(kept, "wanted");
			await subscriber.until(1);
			assert.deepEqual(subscriber.texts(), ["wanted"]);
		});

		it("QoS 0 follows within a moment", async () => {
			const { b, c } = replicas();
			const topic = freshTopic();
			const [subscriber, publisher] = await Promise.all([RawClient.connect(b), RawClient.connect(c)]);
			await subscriber.subscribe(`${topic}/+`);
			// At most once, and routes for it may lag: published until one comes.
			const timer = setInterval(() => publisher.publish(`${topic}/x`, "hello"), 10);
			try {
				assert.equal(text(await subscriber.expect("publish")), "hello");
			} finally {
				clearInterval(timer);
			}
		});
	});
}
