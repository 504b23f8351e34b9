/** Message delivery over the end of a connection in MQTT 5.0: sections 3.3.1.1, 4.4 and 4.5, in both directions. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type AnyPacket, type ConnectOptions, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import type { TestBroker } from "../support/test_broker.ts";
import { breakOff, durable, freshTopic, numbers, publishMany, SESSION_KINDS, take, takeMany, text } from "../support/traffic.ts";

/** The ways in which a connection ends while its session goes on. */
const ENDINGS: readonly (readonly [ending: string, end: (client: RawClient, broker: TestBroker) => Promise<void>])[] = [
	["a broken network", (client, broker) => breakOff(broker, client)],
	["DISCONNECT", (client) => client.disconnect()],
	["DISCONNECT with will", (client) => client.disconnect({ reasonCode: 4 })],
	["a takeover", async () => {}],
];

describe("session resumption in MQTT 5.0", () => {
	const broker = suiteBroker();

	async function subscribed(session: ConnectOptions, filter: string, qos: number, properties?: AnyPacket): Promise<RawClient> {
		const client = await RawClient.connect(broker, session);
		await client.subscribe(filter, { qos, rap: true }, properties);
		return client;
	}

	async function resumed(session: ConnectOptions): Promise<RawClient> {
		const client = await RawClient.connect(broker, session);
		assert.equal(client.connack.sessionPresent, true);
		return client;
	}

	/** Of four flows the first and the last go on with PUBLISH, the third with PUBREL, and the second is over. */
	async function expectAgain(client: RawClient, ids: readonly number[]): Promise<void> {
		const packets: AnyPacket[] = [];
		for (let count = 0; count < 3; count++) packets.push(await client.receive());
		await client.expectNothing();
		const releases = packets.filter(({ cmd }) => cmd === "pubrel");
		const publications = packets.filter(({ cmd }) => cmd === "publish");
		assert.deepEqual(
			releases.map(({ messageId, reasonCode }) => [messageId, reasonCode]),
			[[ids[2], 0]],
		);
		assert.deepEqual(
			publications.map((publication) => [publication.messageId, text(publication), publication.dup, publication.qos]),
			[
				[ids[0], "0", true, 2],
				[ids[3], "3", true, 2],
			],
		);
	}

	for (const [ending, end] of ENDINGS) {
		test(`resumption: after ${ending}, QoS 1 messages without PUBACK are sent again in order, with their ids and DUP 1, before others [MQTT-3.3.1-1] [MQTT-4.4.0-1] [MQTT-4.3.2-3]`, async () => {
			const topic = freshTopic();
			const session = durable();
			const first = await subscribed(session, topic, 1, { subscriptionIdentifier: 12 });
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, 6, { qos: 1, retain: true });
			const sent: AnyPacket[] = [];
			for (const payload of numbers(6)) sent.push(await first.expect("publish", { payload, dup: false }));
			for (const index of [1, 4]) first.send({ cmd: "puback", messageId: sent[index].messageId });
			await first.expectNothing();
			await end(first, broker);
			if (ending !== "a takeover") await publisher.publishAcked(topic, "offline");
			const second = await resumed(session);
			for (const index of [0, 2, 3, 5]) {
				const { messageId, properties, retain } = sent[index];
				const again = await second.expect("publish", { messageId, payload: `${index}`, dup: true, qos: 1, retain });
				assert.deepEqual(again.properties, properties);
			}
			if (ending !== "a takeover") {
				const { messageId } = await second.expect("publish", { payload: "offline", dup: false });
				assert.ok(![0, 2, 3, 5].some((index) => sent[index].messageId === messageId), "a new message has an id of its own");
				second.send({ cmd: "puback", messageId });
			}
			await second.expectNothing();
			for (const index of [0, 2, 3, 5]) second.send({ cmd: "puback", messageId: sent[index].messageId });
			await second.expectNothing();
			await end(second, broker);
			await (await resumed(session)).expectNothing();
		});

		test(`resumption: after ${ending}, QoS 2 goes on where it was: PUBLISH again with DUP 1 before PUBREC, only PUBREL after it, nothing after PUBCOMP [MQTT-3.3.1-1] [MQTT-4.4.0-1] [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.3.3-6]`, async () => {
			const topic = freshTopic();
			const session = durable();
			const first = await subscribed(session, topic, 2);
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, 4, { qos: 2 });
			const ids: number[] = [];
			for (const payload of numbers(4)) ids.push((await first.expect("publish", { payload, dup: false })).messageId);
			for (const index of [1, 2]) {
				first.send({ cmd: "pubrec", messageId: ids[index] });
				await first.expect("pubrel", { messageId: ids[index] });
			}
			first.send({ cmd: "pubcomp", messageId: ids[1] });
			await first.expectNothing();
			await end(first, broker);
			const second = await resumed(session);
			await expectAgain(second, ids);
			// A second resumption repeats the PUBREL, and again nothing but it.
			await end(second, broker);
			const third = await resumed(session);
			await expectAgain(third, ids);
			for (const messageId of [ids[0], ids[3]]) {
				third.send({ cmd: "pubrec", messageId });
				await third.expect("pubrel", { messageId, reasonCode: 0 });
			}
			for (const messageId of [ids[0], ids[2], ids[3]]) third.send({ cmd: "pubcomp", messageId });
			await third.expectNothing();
			await end(third, broker);
			await (await resumed(session)).expectNothing();
		});

		test(`resumption: after ${ending}, a QoS 2 publication that is repeated with its id is answered by PUBREC and delivered once [MQTT-4.3.3-10]`, async () => {
			const topic = freshTopic();
			const subscriber = await subscribed({}, topic, 1);
			const session = durable();
			const first = await RawClient.connect(broker, session);
			first.publish(topic, "once", { qos: 2, messageId: 5 });
			await first.expect("pubrec", { messageId: 5, reasonCode: 0 });
			await end(first, broker);
			const second = await resumed(session);
			second.publish(topic, "once", { qos: 2, messageId: 5, dup: true });
			await second.expect("pubrec", { messageId: 5, reasonCode: 0 });
			await end(second, broker);
			const third = await resumed(session);
			third.send({ cmd: "pubrel", messageId: 5 });
			await third.expect("pubcomp", { messageId: 5, reasonCode: 0 });
			await third.publishAcked(topic, "next", { qos: 2, messageId: 5 });
			assert.deepEqual((await takeMany(subscriber, 2)).map(text), ["once", "next"]);
			await subscriber.expectNothing();
		});
	}

	test("resumption: a QoS 2 publication whose PUBREC the client did not wait for is delivered once [MQTT-4.3.3-10]", async () => {
		const topic = freshTopic();
		const subscriber = await subscribed({}, topic, 1);
		const session = durable();
		for (let times = 0; times < 10; times++) {
			const client = await RawClient.connect(broker, session);
			client.publish(topic, "once", { qos: 2, messageId: 6, dup: times > 0 });
			await client.destroy();
		}
		const last = await resumed(session);
		await last.publishAcked(topic, "once", { qos: 2, messageId: 6, dup: true });
		await last.publishAcked(topic, "next", { qos: 2, messageId: 6 });
		assert.deepEqual((await takeMany(subscriber, 2)).map(text), ["once", "next"]);
		await subscriber.expectNothing();
	});

	test("resumption: PUBREL that is repeated after a reconnect is answered by PUBCOMP again [MQTT-4.3.3-11]", async () => {
		const session = durable();
		const first = await RawClient.connect(broker, session);
		await first.publishAcked(freshTopic(), "x", { qos: 2, messageId: 8 });
		await breakOff(broker, first);
		const second = await resumed(session);
		second.send({ cmd: "pubrel", messageId: 8 });
		await second.expect("pubcomp", { messageId: 8 });
	});

	for (const qos of [1, 2]) {
		test(`resumption: an accepted message with QoS ${qos} is added to every session that matches, online and offline, and delivered in order [MQTT-4.5.0-1]`, async () => {
			const topic = freshTopic();
			const sessions = [durable(), durable(), durable()];
			for (const session of sessions) await breakOff(broker, await subscribed(session, `${topic}/+`, qos));
			const online = await subscribed(durable(), `${topic}/#`, qos);
			const short = await subscribed({}, `${topic}/a`, qos);
			const publisher = await RawClient.connect(broker);
			const count = 60;
			await publishMany(publisher, () => `${topic}/a`, count, { qos });
			for (const client of [online, short]) assert.deepEqual((await takeMany(client, count)).map(text), numbers(count));
			for (const session of sessions) {
				const client = await resumed(session);
				const publications = await takeMany(client, count);
				assert.deepEqual(publications.map(text), numbers(count));
				assert.ok(publications.every((publication) => !publication.dup && publication.qos === qos));
				await client.expectNothing();
			}
		});
	}

	test("resumption: subscriptions go on with their options and identifiers", async () => {
		const topic = freshTopic();
		const session = durable();
		const first = await RawClient.connect(broker, session);
		await first.subscribe(`${topic}/a`, { qos: 0, rap: true }, { subscriptionIdentifier: 4 });
		await first.subscribe(`${topic}/b`, { qos: 2, nl: true });
		await first.disconnect();
		const second = await resumed(session);
		const publisher = await RawClient.connect(broker);
		await publisher.publishAcked(`${topic}/a`, "a", { retain: true });
		const { properties } = await take(second, { topic: `${topic}/a`, qos: 0, retain: true });
		assert.equal([properties.subscriptionIdentifier].flat()[0], 4);
		await second.publishAcked(`${topic}/b`, "own");
		await publisher.publishAcked(`${topic}/b`, "foreign", { qos: 2 });
		await take(second, { topic: `${topic}/b`, qos: 2, payload: "foreign" });
	});

	for (const [what, change] of [
		["Clean Start", (session: ConnectOptions) => ({ ...session, clean: true })],
		["the end of the session", (session: ConnectOptions) => session],
	] as const) {
		test(`resumption: after ${what} nothing is sent again [MQTT-4.4.0-1]`, async () => {
			const topic = freshTopic();
			const session = durable();
			const first = await subscribed(session, topic, 2);
			const publisher = await RawClient.connect(broker);
			for (const qos of [1, 2]) await publisher.publishAcked(topic, "x", { qos });
			await first.expect("publish");
			const { messageId } = await first.expect("publish");
			first.send({ cmd: "pubrec", messageId });
			await first.expect("pubrel");
			if (what === "Clean Start") await breakOff(broker, first);
			else await first.disconnect({ properties: { sessionExpiryInterval: 0 } });
			const second = await RawClient.connect(broker, change(session));
			assert.equal(second.connack.sessionPresent, false);
			await second.expectNothing();
			await publisher.publishAcked(topic, "x");
			await second.expectNothing();
		});
	}

	for (const { kind, options } of SESSION_KINDS) {
		test(`resumption: within the connection of a ${kind} nothing is sent again, however long the client waits [MQTT-4.4.0-1]`, async () => {
			const topic = freshTopic();
			const subscriber = await subscribed(options(), topic, 2);
			const publisher = await RawClient.connect(broker);
			for (const qos of [1, 2, 2]) await publisher.publishAcked(topic, "x", { qos });
			await subscriber.expect("publish");
			const { messageId } = await subscriber.expect("publish");
			await subscriber.expect("publish");
			subscriber.send({ cmd: "pubrec", messageId });
			await subscriber.expect("pubrel", { messageId });
			await delay(500);
			await subscriber.expectNothing();
		});
	}

	test("resumption: with a smaller Receive Maximum no more than that is sent again at a time, and all in the end [MQTT-3.3.4-9] [MQTT-4.4.0-1]", async () => {
		const topic = freshTopic();
		const session = durable();
		const first = await subscribed(session, topic, 2);
		const publisher = await RawClient.connect(broker);
		await publishMany(publisher, () => topic, 9, { qos: 1 });
		const ids: number[] = [];
		for (const payload of numbers(9)) ids.push((await first.expect("publish", { payload })).messageId);
		await breakOff(broker, first);
		await publisher.publishAcked(topic, "9");
		const second = await RawClient.connect(broker, durable(session.clientId, { receiveMaximum: 3 }));
		const received: AnyPacket[] = [];
		while (received.length < 10) {
			const expected = Math.min(3, 10 - received.length);
			for (let count = 0; count < expected; count++) received.push(await second.expect("publish"));
			await second.expectNothing();
			for (const { messageId } of received.slice(-expected)) second.send({ cmd: "puback", messageId });
		}
		assert.deepEqual(received.map(text), numbers(10));
		assert.deepEqual(
			received.slice(0, 9).map(({ messageId, dup }) => [messageId, dup]),
			ids.map((id) => [id, true]),
		);
		assert.equal(received[9].dup, false);
	});

	test("resumption: of retained messages that a subscription is owed the unacknowledged are sent again, and those that waited follow [MQTT-3.3.1-9] [MQTT-4.4.0-1]", async () => {
		const topic = freshTopic();
		const publisher = await RawClient.connect(broker);
		await publishMany(publisher, (index) => `${topic}/${index}`, 5, { qos: 1, retain: true });
		const session = durable(undefined, { receiveMaximum: 2 });
		const first = await subscribed(session, `${topic}/+`, 1);
		const ids: number[] = [];
		for (const payload of numbers(2)) ids.push((await first.expect("publish", { payload, retain: true })).messageId);
		await breakOff(broker, first);
		const second = await resumed(session);
		for (const [index, messageId] of ids.entries()) await take(second, { payload: `${index}`, messageId, dup: true, retain: true });
		await publisher.publishAcked(`${topic}/live`, "live");
		const followed: string[] = [];
		while (followed.at(-1) !== "live") followed.push(text(await take(second)));
		assert.deepEqual(followed, [...numbers(3, 2), "live"]);
	});
});
