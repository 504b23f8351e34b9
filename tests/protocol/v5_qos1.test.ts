/** QoS 1 of MQTT 5.0 within a connection: sections 3.4 and 4.3.2. What a reconnect adds is in `v5_resumption.test.ts`. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { packet, props, u16 } from "../mqtt/wire.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { durable, freshTopic, publishMany, SESSION_KINDS, take, text } from "../support/traffic.ts";

const PUBACK_CODES = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];

describe("QoS 1 in MQTT 5.0", () => {
	const broker = suiteBroker();

	for (const { kind, options } of SESSION_KINDS) {
		test(`QoS 1: each message to a ${kind} has an id that no unacknowledged one has, QoS 1 and DUP 0 [MQTT-4.3.2-1] [MQTT-4.3.2-2]`, async () => {
			const topic = freshTopic();
			const subscriber = await RawClient.connect(broker, options());
			await subscriber.subscribe(topic, { qos: 1 });
			const publisher = await RawClient.connect(broker);
			const unacknowledged = new Set<number>();
			for (let round = 0; round < 4; round++) {
				await publishMany(publisher, () => topic, 30, { qos: 1 });
				for (let index = 0; index < 30; index++) {
					const { messageId } = await subscriber.expect("publish", { payload: `${index}`, qos: 1, dup: false });
					assert.ok(messageId >= 1 && !unacknowledged.has(messageId), `id ${messageId} is free`);
					unacknowledged.add(messageId);
				}
				for (const messageId of [...unacknowledged].filter((_id, index) => index % 3 !== round % 3)) {
					subscriber.send({ cmd: "puback", messageId });
					unacknowledged.delete(messageId);
				}
				await subscriber.expectNothing();
			}
		});

		test(`QoS 1: a message to a ${kind} counts as unacknowledged until the PUBACK with its id [MQTT-4.3.2-3]`, async () => {
			const topic = freshTopic();
			const subscriber = await RawClient.connect(broker, options({ receiveMaximum: 1 }));
			await subscriber.subscribe(topic, { qos: 1 });
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, 2, { qos: 1 });
			const { messageId } = await subscriber.expect("publish", { payload: "0" });
			for (const other of [messageId + 1, 65_535]) subscriber.send({ cmd: "puback", messageId: other });
			subscriber.send({ cmd: "pubcomp", messageId });
			await subscriber.expectNothing();
			subscriber.send({ cmd: "puback", messageId });
			await take(subscriber, { payload: "1" });
		});

		test(`QoS 1: a negative PUBACK of a ${kind} ends the delivery like a positive one [MQTT-4.4.0-2]`, async () => {
			const topic = freshTopic();
			const session = options({ receiveMaximum: 1 });
			const subscriber = await RawClient.connect(broker, session);
			await subscriber.subscribe(topic, { qos: 1 });
			const publisher = await RawClient.connect(broker);
			const codes = PUBACK_CODES.filter((code) => code >= 0x80);
			await publishMany(publisher, () => topic, codes.length + 1, { qos: 1 });
			for (const [index, reasonCode] of codes.entries()) {
				const { messageId } = await subscriber.expect("publish", { payload: `${index}`, dup: false });
				subscriber.send({ cmd: "puback", messageId, reasonCode });
			}
			await take(subscriber, { payload: `${codes.length}`, dup: false });
			await subscriber.expectNothing();
			await subscriber.destroy();
			const again = await RawClient.connect(broker, session);
			await again.expectNothing();
		});

		test(`QoS 1: a ${kind} that publishes is answered with the id that it used, which then stands for a new message [MQTT-4.3.2-4] [MQTT-4.3.2-5]`, async () => {
			const topic = freshTopic();
			const subscriber = await RawClient.connect(broker);
			await subscriber.subscribe(topic, { qos: 1 });
			const publisher = await RawClient.connect(broker, options());
			for (const messageId of [1, 65_535, 1, 1, 300]) {
				const payload = freshId();
				publisher.publish(topic, payload, { qos: 1, messageId });
				await publisher.expect("puback", { messageId });
				await take(subscriber, { payload });
			}
			await subscriber.expectNothing();
		});
	}

	test("QoS 1: of messages sent in one go each is acknowledged, in their order [MQTT-4.3.2-4]", async () => {
		const publisher = await RawClient.connect(broker);
		const topic = freshTopic();
		const ids = [7, 3, 65_535, 1, 4];
		publisher.sendTogether(
			...ids.map((messageId) => ({ cmd: "publish", topic, payload: "x", qos: 1, dup: false, retain: false, messageId })),
		);
		for (const messageId of ids) await publisher.expect("puback", { messageId });
	});

	test("QoS 1: an empty payload is a message like any other", async () => {
		const topic = freshTopic();
		const subscriber = await RawClient.connect(broker, durable());
		await subscriber.subscribe(topic, { qos: 1 });
		const publisher = await RawClient.connect(broker);
		await publisher.publishAcked(topic, "");
		assert.equal(text(await take(subscriber)), "");
	});

	test("PUBACK: success is 0x00, a message that nobody wants 0x10, a topic of the broker's own 0x87 [MQTT-3.4.2-1]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		client.publish(topic, "x", { qos: 1, messageId: 1 });
		await client.expect("puback", { messageId: 1, reasonCode: 0x10 });
		client.publish("$SYS/own", "x", { qos: 1, messageId: 2 });
		await client.expect("puback", { messageId: 2, reasonCode: 0x87 });
		const subscriber = await RawClient.connect(broker);
		await subscriber.subscribe(topic);
		client.publish(topic, "x", { qos: 1, messageId: 3 });
		await client.expect("puback", { messageId: 3, reasonCode: 0x00 });
	});

	test("PUBACK: it stays below the client's Maximum Packet Size, with a failure too [MQTT-3.4.2-2] [MQTT-3.4.2-3]", async () => {
		const maximumPacketSize = 20;
		const client = await RawClient.connect(broker, { properties: { maximumPacketSize } });
		client.publish("$SYS/own", "x", { qos: 1, messageId: 2 });
		const puback = await client.expect("puback", { messageId: 2, reasonCode: 0x87 });
		assert.ok(puback.length + 2 <= maximumPacketSize);
	});

	for (const code of [0x01, 0x92, 0xff]) {
		test(`PUBACK: reason code 0x${code.toString(16)} of a client is a protocol error [MQTT-3.4.2-1]`, async () => {
			const client = await RawClient.connect(broker);
			client.sendBytes(packet(0x40, u16(1), [code]));
			await client.expectDisconnect(0x82);
		});
	}

	test("PUBACK: every listed reason code is accepted, with a reason string and user properties too [MQTT-3.4.2-1]", async () => {
		const client = await RawClient.connect(broker);
		for (const code of PUBACK_CODES)
			client.sendBytes(packet(0x40, u16(1), [code], props([0x1f, 0, 1, 0x61], [0x26, 0, 1, 0x61, 0, 1, 0x62])));
		await client.expectNothing();
	});
});
