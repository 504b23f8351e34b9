/** Shared subscriptions of MQTT 5.0, section 4.8.2: what becomes of messages that a member leaves unfinished or refuses. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AnyPacket, type ConnectOptions, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import {
	acknowledge,
	breakOff,
	durable,
	freshTopic,
	numbers,
	publishMany,
	SESSION_KINDS,
	take,
	takeMany,
	text,
} from "../support/traffic.ts";

describe("handover in share groups in MQTT 5.0", () => {
	const broker = suiteBroker();

	async function member(filter: string, session: ConnectOptions = {}, qos = 2): Promise<RawClient> {
		const client = await RawClient.connect(broker, session);
		await client.subscribe(filter, { qos });
		return client;
	}

	/** Two members that have two unacknowledged messages each: 0 and 2, 1 and 3. */
	async function pair(filter: string, topic: string, session: ConnectOptions, qos: number) {
		const leaver = await member(filter, session);
		const stayer = await member(filter);
		const publisher = await RawClient.connect(broker);
		await publishMany(publisher, () => topic, 4, { qos });
		const left = [await leaver.expect("publish"), await leaver.expect("publish")];
		const kept = [await stayer.expect("publish"), await stayer.expect("publish")];
		return { leaver, stayer, left, kept, publisher };
	}

	const LEAVING: readonly (readonly [how: string, leave: (client: RawClient, filter: string) => Promise<void>])[] = [
		["loses its connection", (client) => breakOff(broker, client)],
		["disconnects", (client) => client.disconnect()],
		["disconnects and ends its session", (client) => client.disconnect({ properties: { sessionExpiryInterval: 0 } })],
	];

	for (const { kind, options } of SESSION_KINDS) {
		for (const [how, leave] of LEAVING) {
			test(`handover: when a ${kind} ${how}, its unacknowledged QoS 1 messages go to another member, once`, async () => {
				const topic = freshTopic();
				const filter = `$share/g/${topic}`;
				const { leaver, stayer, left, kept, publisher } = await pair(filter, topic, options(), 1);
				acknowledge(leaver, left[0]);
				await leaver.expectNothing();
				await leave(leaver, filter);
				await take(stayer, { payload: text(left[1]), qos: 1 });
				for (const publication of kept) acknowledge(stayer, publication);
				await publisher.publishAcked(topic, "next");
				await take(stayer, { payload: "next" });
				await stayer.expectNothing();
			});
		}

		test(`handover: a member that is a ${kind} and unsubscribes completes what it was sent, and gets no more`, async () => {
			const topic = freshTopic();
			const filter = `$share/g/${topic}`;
			const { leaver, stayer, left, kept, publisher } = await pair(filter, topic, options(), 2);
			leaver.send({ cmd: "unsubscribe", messageId: 1, unsubscriptions: [filter] });
			await leaver.expect("unsuback");
			for (const publication of kept) acknowledge(stayer, publication);
			for (const { messageId } of kept) await stayer.expect("pubrel", { messageId });
			for (const { messageId } of kept) stayer.send({ cmd: "pubcomp", messageId });
			await publishMany(publisher, () => topic, 3, { qos: 1 });
			assert.deepEqual((await takeMany(stayer, 3)).map(text), numbers(3));
			for (const publication of left) acknowledge(leaver, publication);
			for (const { messageId } of left) await leaver.expect("pubrel", { messageId, reasonCode: 0 });
			for (const { messageId } of left) leaver.send({ cmd: "pubcomp", messageId });
			await leaver.expectNothing();
			await stayer.expectNothing();
		});

		for (const qos of [1, 2]) {
			test(`handover: a negative ${qos === 1 ? "PUBACK" : "PUBREC"} of a ${kind} discards the message, for the whole group [MQTT-4.8.2-6]`, async () => {
				const topic = freshTopic();
				const filter = `$share/g/${topic}`;
				const session = options();
				const { leaver, stayer, left, kept, publisher } = await pair(filter, topic, session, qos);
				for (const publication of left) acknowledge(leaver, publication, 0x83);
				await leaver.expectNothing();
				await publisher.publishAcked(topic, "next", { qos });
				await take(leaver, { payload: "next" });
				for (const publication of kept) acknowledge(stayer, publication, 0x80);
				await publisher.publishAcked(topic, "last", { qos });
				await take(stayer, { payload: "last" });
				await breakOff(broker, leaver);
				await stayer.expectNothing();
				const back = await RawClient.connect(broker, session);
				await back.expectNothing();
			});
		}
	}

	test("handover: a QoS 2 delivery stays with the session that it was begun with, and goes on there [MQTT-4.8.2-4]", async () => {
		const topic = freshTopic();
		const session = durable();
		const { leaver, stayer, left, kept, publisher } = await pair(`$share/g/${topic}`, topic, session, 2);
		acknowledge(leaver, left[0]);
		await leaver.expect("pubrel", { messageId: left[0].messageId });
		await breakOff(broker, leaver);
		for (const publication of kept) acknowledge(stayer, publication);
		for (const { messageId } of kept) await stayer.expect("pubrel", { messageId });
		for (const { messageId } of kept) stayer.send({ cmd: "pubcomp", messageId });
		await publisher.publishAcked(topic, "to the one online", { qos: 2 });
		await take(stayer, { payload: "to the one online" });
		await stayer.expectNothing();
		const back = await RawClient.connect(broker, session);
		const packets: AnyPacket[] = [await back.receive(), await back.receive()];
		assert.equal(packets.find(({ cmd }) => cmd === "pubrel")?.messageId, left[0].messageId);
		const again = packets.find(({ cmd }) => cmd === "publish");
		assert.deepEqual([again.messageId, text(again), again.dup, again.qos], [left[1].messageId, text(left[1]), true, 2]);
		acknowledge(back, again);
		await back.expect("pubrel", { messageId: again.messageId });
		for (const { messageId } of left) back.send({ cmd: "pubcomp", messageId });
		await back.expectNothing();
		await stayer.expectNothing();
	});

	for (const [how, session, end] of [
		["ends with its connection", {}, (client: RawClient) => breakOff(broker, client)],
		["is ended by DISCONNECT", durable(), (client: RawClient) => client.disconnect({ properties: { sessionExpiryInterval: 0 } })],
	] as const) {
		test(`handover: a QoS 2 delivery whose session ${how} goes to no other member [MQTT-4.8.2-5]`, async () => {
			const topic = freshTopic();
			const { leaver, stayer, left, kept, publisher } = await pair(`$share/g/${topic}`, topic, { ...session }, 2);
			acknowledge(leaver, left[0]);
			await leaver.expect("pubrel");
			await end(leaver);
			for (const publication of kept) acknowledge(stayer, publication);
			for (const { messageId } of kept) await stayer.expect("pubrel", { messageId });
			for (const { messageId } of kept) stayer.send({ cmd: "pubcomp", messageId });
			await publisher.publishAcked(topic, "next", { qos: 2 });
			await take(stayer, { payload: "next" });
			await stayer.expectNothing();
			const late = await member(`$share/g/${topic}`);
			await late.expectNothing();
		});
	}

	test("handover: a QoS 2 delivery whose session is ended by Clean Start goes to no other member [MQTT-4.8.2-5]", async () => {
		const topic = freshTopic();
		const session = durable();
		const { leaver, stayer, publisher } = await pair(`$share/g/${topic}`, topic, session, 2);
		await breakOff(broker, leaver);
		const fresh = await RawClient.connect(broker, { ...session, clean: true });
		await fresh.expectNothing();
		await publisher.publishAcked(topic, "next", { qos: 2 });
		await stayer.expect("publish", { payload: "next" });
		await stayer.expectNothing();
	});

	for (const qos of [1, 2]) {
		test(`handover: while all members are offline, messages with QoS ${qos} wait, and the first to come back gets them all in order`, async () => {
			const topic = freshTopic();
			const sessions = [durable(), durable(), durable()];
			for (const session of sessions) await breakOff(broker, await member(`$share/g/${topic}`, session));
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, 200, { qos });
			const [, second, third] = sessions as [ConnectOptions, ConnectOptions, ConnectOptions];
			const back = await RawClient.connect(broker, second);
			const publications = await takeMany(back, 200);
			assert.deepEqual(publications.map(text), numbers(200));
			assert.ok(publications.every(({ dup }) => !dup));
			const other = await RawClient.connect(broker, third);
			await publishMany(publisher, () => topic, 10, { qos });
			for (const client of [back, other]) {
				await takeMany(client, 5);
				await client.expectNothing();
			}
		});
	}

	test("handover: what a member did not acknowledge comes to itself again if nobody else is there", async () => {
		const topic = freshTopic();
		const session = durable();
		const first = await member(`$share/g/${topic}`, session, 1);
		const publisher = await RawClient.connect(broker);
		await publishMany(publisher, () => topic, 3, { qos: 1 });
		for (const payload of numbers(3)) await first.expect("publish", { payload });
		await breakOff(broker, first);
		const second = await RawClient.connect(broker, session);
		assert.deepEqual((await takeMany(second, 3)).map(text), numbers(3));
		await second.expectNothing();
	});

	test("handover: a member whose connection is taken over gets its unfinished messages again, or another does, each once", async () => {
		const topic = freshTopic();
		const session = durable();
		const first = await member(`$share/g/${topic}`, session, 1);
		const publisher = await RawClient.connect(broker);
		await publishMany(publisher, () => topic, 5, { qos: 1 });
		for (const payload of numbers(5)) await first.expect("publish", { payload });
		const second = await RawClient.connect(broker, session);
		assert.deepEqual((await takeMany(second, 5)).map(text), numbers(5));
		await second.expectNothing();
	});
});
