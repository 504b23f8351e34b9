/** QoS 2 of MQTT 5.0 within a connection: sections 3.5 to 3.7 and 4.3.3. What a reconnect adds is in `v5_resumption.test.ts`. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { packet, u16 } from "../mqtt/wire.ts";
import { RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { freshTopic, publishMany, SESSION_KINDS, take, takeMany, text } from "../support/traffic.ts";

const FAILURES = [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];

describe("QoS 2 in MQTT 5.0", () => {
	const broker = suiteBroker();

	for (const { kind, options } of SESSION_KINDS) {
		test(`QoS 2: each message to a ${kind} has an id that is free, QoS 2 and DUP 0 [MQTT-4.3.3-1] [MQTT-4.3.3-2]`, async () => {
			const topic = freshTopic();
			const subscriber = await RawClient.connect(broker, options());
			await subscriber.subscribe(topic, { qos: 2 });
			const publisher = await RawClient.connect(broker);
			const used = new Map<number, "sent" | "received">();
			for (let round = 0; round < 4; round++) {
				await publishMany(publisher, () => topic, 20, { qos: 2 });
				for (let index = 0; index < 20; index++) {
					const { messageId } = await subscriber.expect("publish", { payload: `${index}`, qos: 2, dup: false });
					assert.ok(messageId >= 1 && !used.has(messageId), `id ${messageId} is free`);
					used.set(messageId, "sent");
				}
				// Some flows stop after PUBLISH, some after PUBREL, the rest end.
				for (const messageId of [...used.keys()].filter((id) => id % 3 > 0 && used.get(id) === "sent")) {
					subscriber.send({ cmd: "pubrec", messageId });
					await subscriber.expect("pubrel", { messageId, reasonCode: 0 });
					used.set(messageId, "received");
				}
				for (const messageId of [...used.keys()].filter((id) => id % 3 === 1)) {
					subscriber.send({ cmd: "pubcomp", messageId });
					used.delete(messageId);
				}
			}
		});

		test(`QoS 2: a PUBLISH to a ${kind} counts until PUBREC, its PUBREL with the same id until PUBCOMP [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5]`, async () => {
			const topic = freshTopic();
			const subscriber = await RawClient.connect(broker, options({ receiveMaximum: 1 }));
			await subscriber.subscribe(topic, { qos: 2 });
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, 2, { qos: 2 });
			const { messageId } = await subscriber.expect("publish", { payload: "0", dup: false });
			// Neither of these may end or advance the flow.
			for (const cmd of ["puback", "pubcomp"]) subscriber.send({ cmd, messageId });
			await subscriber.expectNothing();
			subscriber.send({ cmd: "pubrec", messageId, reasonCode: 0x10 });
			await subscriber.expect("pubrel", { messageId, reasonCode: 0 });
			await subscriber.expectNothing();
			subscriber.send({ cmd: "pubrec", messageId });
			await subscriber.expect("pubrel", { messageId, reasonCode: 0 });
			await subscriber.expectNothing();
			subscriber.send({ cmd: "pubcomp", messageId });
			await take(subscriber, { payload: "1", dup: false });
		});

		test(`QoS 2: a negative PUBREC of a ${kind} ends the delivery, without PUBREL [MQTT-4.4.0-2] [MQTT-4.3.3-4]`, async () => {
			const topic = freshTopic();
			const session = options({ receiveMaximum: 1 });
			const subscriber = await RawClient.connect(broker, session);
			await subscriber.subscribe(topic, { qos: 2 });
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, FAILURES.length + 1, { qos: 2 });
			for (const [index, reasonCode] of FAILURES.entries()) {
				const { messageId } = await subscriber.expect("publish", { payload: `${index}`, dup: false });
				subscriber.send({ cmd: "pubrec", messageId, reasonCode });
			}
			await take(subscriber, { payload: `${FAILURES.length}`, dup: false });
			await subscriber.expectNothing();
			await subscriber.destroy();
			const again = await RawClient.connect(broker, session);
			await again.expectNothing();
		});

		test(`QoS 2: a ${kind} that publishes is answered with its id: PUBREC, then PUBCOMP, after which the id stands for a new message [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT-4.3.3-12]`, async () => {
			const topic = freshTopic();
			const subscriber = await RawClient.connect(broker);
			await subscriber.subscribe(topic, { qos: 0 });
			const publisher = await RawClient.connect(broker, options());
			for (const [index, messageId] of [1, 65_535, 1, 1, 300].entries()) {
				publisher.publish(topic, `${index}`, { qos: 2, messageId });
				await publisher.expect("pubrec", { messageId, reasonCode: 0 });
				publisher.send({ cmd: "pubrel", messageId });
				await publisher.expect("pubcomp", { messageId, reasonCode: 0 });
				await subscriber.expect("publish", { payload: `${index}` });
			}
			await subscriber.expectNothing();
		});

		test(`QoS 2: a message that a ${kind} repeats before PUBREL is answered by PUBREC and delivered once [MQTT-4.3.3-10]`, async () => {
			const topic = freshTopic();
			const subscriber = await RawClient.connect(broker);
			await subscriber.subscribe(topic, { qos: 2 });
			const publisher = await RawClient.connect(broker, options());
			const messageId = 77;
			publisher.publish(topic, "once", { qos: 2, messageId });
			await publisher.expect("pubrec", { messageId, reasonCode: 0 });
			for (const dup of [true, false, true]) {
				publisher.publish(topic, "once", { qos: 2, messageId, dup });
				await publisher.expect("pubrec", { messageId });
			}
			publisher.sendTogether(
				...[true, true].map((dup) => ({ cmd: "publish", topic, payload: "once", qos: 2, retain: false, dup, messageId })),
			);
			for (let times = 0; times < 2; times++) await publisher.expect("pubrec", { messageId });
			publisher.send({ cmd: "pubrel", messageId });
			await publisher.expect("pubcomp", { messageId, reasonCode: 0 });
			await take(subscriber, { payload: "once" });
			await publisher.publishAcked(topic, "next", { qos: 2, messageId });
			await take(subscriber, { payload: "next" });
		});

		test(`QoS 2: repeats of a ${kind} in one go with the first are delivered once [MQTT-4.3.3-10]`, async () => {
			const topic = freshTopic();
			const subscriber = await RawClient.connect(broker, options());
			await subscriber.subscribe(topic, { qos: 2 });
			const publisher = await RawClient.connect(broker, options());
			const messageId = 78;
			publisher.sendTogether(
				...[false, true, true].map((dup) => ({ cmd: "publish", topic, payload: "once", qos: 2, retain: false, dup, messageId })),
				{ cmd: "publish", topic, payload: "next", qos: 2, retain: false, dup: false, messageId: messageId + 1 },
			);
			const acknowledged: number[] = [];
			while (!acknowledged.includes(messageId + 1)) acknowledged.push((await publisher.expect("pubrec", { reasonCode: 0 })).messageId);
			assert.ok(acknowledged.includes(messageId));
			assert.deepEqual((await takeMany(subscriber, 2)).map(text), ["once", "next"]);
			await subscriber.expectNothing();
		});

		test(`QoS 2: after a negative PUBREC to a ${kind} the id stands for a new message at once [MQTT-4.3.3-9]`, async () => {
			const topic = freshTopic();
			const subscriber = await RawClient.connect(broker);
			await subscriber.subscribe(topic);
			const publisher = await RawClient.connect(broker, options());
			for (let times = 0; times < 2; times++) {
				publisher.publish("$SYS/own", "refused", { qos: 2, messageId: 5 });
				await publisher.expect("pubrec", { messageId: 5, reasonCode: 0x87 });
			}
			publisher.publish(topic, "accepted", { qos: 2, messageId: 5 });
			await publisher.expect("pubrec", { messageId: 5, reasonCode: 0 });
			await subscriber.expect("publish", { payload: "accepted" });
			publisher.send({ cmd: "pubrel", messageId: 5 });
			await publisher.expect("pubcomp", { messageId: 5, reasonCode: 0 });
		});
	}

	test("PUBREC: success is 0x00, a message that nobody wants 0x10, a topic of the broker's own 0x87 [MQTT-3.5.2-1]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		client.publish(topic, "x", { qos: 2, messageId: 1 });
		await client.expect("pubrec", { messageId: 1, reasonCode: 0x10 });
		client.send({ cmd: "pubrel", messageId: 1 });
		await client.expect("pubcomp", { messageId: 1, reasonCode: 0 });
		client.publish("$SYS/own", "x", { qos: 2, messageId: 1 });
		await client.expect("pubrec", { messageId: 1, reasonCode: 0x87 });
		const subscriber = await RawClient.connect(broker);
		await subscriber.subscribe(topic);
		client.publish(topic, "x", { qos: 2, messageId: 1 });
		await client.expect("pubrec", { messageId: 1, reasonCode: 0 });
	});

	test("PUBREL: it answers PUBREC with 0x00, and with 0x92 where the id is unknown [MQTT-3.6.2-1]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		await client.subscribe(topic, { qos: 2 });
		client.send({ cmd: "pubrec", messageId: 9 });
		await client.expect("pubrel", { messageId: 9, reasonCode: 0x92 });
		client.send({ cmd: "pubrec", messageId: 9, reasonCode: 0x80 });
		await client.expectNothing();
		const publisher = await RawClient.connect(broker);
		publisher.publish(topic, "x", { qos: 2, messageId: 1 });
		const { messageId } = await client.expect("publish");
		client.send({ cmd: "pubrec", messageId });
		await client.expect("pubrel", { messageId, reasonCode: 0 });
	});

	test("PUBCOMP: it answers PUBREL with 0x00, and with 0x92 where the id is unknown [MQTT-3.7.2-1]", async () => {
		const client = await RawClient.connect(broker);
		client.send({ cmd: "pubrel", messageId: 9 });
		await client.expect("pubcomp", { messageId: 9, reasonCode: 0x92 });
		await client.publishAcked(freshTopic(), "x", { qos: 2, messageId: 9 });
		client.send({ cmd: "pubrel", messageId: 9 });
		await client.expect("pubcomp", { messageId: 9, reasonCode: 0x92 });
	});

	test("PUBREC, PUBREL, PUBCOMP: with a failure too they stay below the client's Maximum Packet Size [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3]", async () => {
		const maximumPacketSize = 20;
		const client = await RawClient.connect(broker, { properties: { maximumPacketSize } });
		client.publish("$SYS/own", "x", { qos: 2, messageId: 2 });
		const pubrec = await client.expect("pubrec", { reasonCode: 0x87 });
		client.send({ cmd: "pubrec", messageId: 9 });
		const pubrel = await client.expect("pubrel", { reasonCode: 0x92 });
		client.send({ cmd: "pubrel", messageId: 9 });
		const pubcomp = await client.expect("pubcomp", { reasonCode: 0x92 });
		for (const { length } of [pubrec, pubrel, pubcomp]) assert.ok(length + 2 <= maximumPacketSize);
	});

	for (const first of [0x60, 0x61, 0x63, 0x66, 0x6a]) {
		test(`PUBREL: the first byte 0x${first.toString(16)} is malformed [MQTT-3.6.1-1]`, async () => {
			const client = await RawClient.connect(broker);
			client.sendBytes(packet(first, u16(1)));
			await client.expectDisconnect(0x81);
		});
	}

	const unlisted: readonly (readonly [name: string, first: number, code: number, statement: string])[] = [
		["PUBREC", 0x50, 0x92, "[MQTT-3.5.2-1]"],
		["PUBREC", 0x50, 0x01, "[MQTT-3.5.2-1]"],
		["PUBREL", 0x62, 0x10, "[MQTT-3.6.2-1]"],
		["PUBREL", 0x62, 0x80, "[MQTT-3.6.2-1]"],
		["PUBCOMP", 0x70, 0x10, "[MQTT-3.7.2-1]"],
		["PUBCOMP", 0x70, 0x80, "[MQTT-3.7.2-1]"],
	];
	for (const [name, first, code, statement] of unlisted) {
		test(`${name}: reason code 0x${code.toString(16)} of a client is a protocol error ${statement}`, async () => {
			const client = await RawClient.connect(broker);
			client.sendBytes(packet(first, u16(1), [code]));
			await client.expectDisconnect(0x82);
		});
	}
});
