/** PUBLISH of MQTT 5.0, sections 3.3.1 and 3.3.2: its flags, its topic, and the properties that travel with it. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { field, packet, props, u16 } from "../mqtt/wire.ts";
import { RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { durable, freshTopic, SESSION_KINDS, take, text } from "../support/traffic.ts";

const USER_PROPERTIES = [
	["z", "1"],
	["a", "2"],
	["z", "3"],
	["a", "2"],
	["", ""],
	["größe", "∞"],
] as const;
/** As on the wire: the order and the repetitions are what mqtt-packet cannot show. */
const userPropertyBytes = Buffer.concat(
	USER_PROPERTIES.map(([name, value]) => Buffer.concat([Buffer.from([0x26]), field(name), field(value)])),
);
const FIRST_DELIVERY = ["[MQTT-3.3.1-2] [MQTT-4.3.1-1]", "[MQTT-4.3.2-2]", "[MQTT-4.3.3-2]"] as const;
const correlation = Buffer.from([0, 255, 254, 0, 1]);

/** A PUBLISH with every property; the two that concern the delivery stand between those that are forwarded. */
function fullPublish(topic: string, qos: number, retain = false, expirySeconds = 1000): Uint8Array {
	return packet(
		0x30 | (qos << 1) | (retain ? 1 : 0),
		field(topic),
		qos > 0 ? u16(9) : [],
		props(
			[0x01, 1],
			[0x02, 0, 0, expirySeconds >> 8, expirySeconds & 0xff],
			[0x08],
			field("answers/ä"),
			[0x09],
			field(correlation),
			[0x23, 0, 1],
			userPropertyBytes,
			[0x03],
			field("text/plain; charset=utf-8"),
		),
		Buffer.from("payload"),
	);
}

function assertForwarded(subscriber: RawClient, publication: { properties: Record<string, unknown> }): void {
	const { payloadFormatIndicator, responseTopic, correlationData, contentType, messageExpiryInterval } = publication.properties;
	assert.equal(Number(payloadFormatIndicator), 1);
	assert.equal(responseTopic, "answers/ä");
	assert.deepEqual(Buffer.from(correlationData as Buffer), correlation);
	assert.equal(contentType, "text/plain; charset=utf-8");
	assert.ok(Number(messageExpiryInterval) > 900);
	assert.ok(Buffer.concat(subscriber.bytes).includes(userPropertyBytes), "the user properties stand in their order");
}

describe("PUBLISH in MQTT 5.0", () => {
	const broker = suiteBroker();

	for (const { kind, options } of SESSION_KINDS) {
		for (const qos of [0, 1, 2] as const) {
			test(`PUBLISH: a first delivery with QoS ${qos} to a ${kind} has DUP 0, whatever DUP the publisher sent [MQTT-3.3.1-3] ${FIRST_DELIVERY[qos]}`, async () => {
				const topic = freshTopic();
				const subscriber = await RawClient.connect(broker, options());
				await subscriber.subscribe(topic, { qos });
				const publisher = await RawClient.connect(broker);
				for (const dup of [true, false]) {
					for (const published of [1, 2]) {
						await publisher.publishAcked(topic, "x", { qos: published, dup });
						await take(subscriber, { topic, payload: "x", dup: false, qos: Math.min(qos, published) });
					}
				}
				publisher.publish(topic, "last");
				await take(subscriber, { payload: "last", dup: false, qos: 0 });
			});

			test(`PUBLISH: every property reaches a ${kind} with QoS ${qos} unaltered, user properties in their order [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]`, async () => {
				const topic = freshTopic();
				const subscriber = await RawClient.connect(broker, options());
				await subscriber.subscribe(topic, { qos }, { subscriptionIdentifier: 7 });
				const publisher = await RawClient.connect(broker);
				publisher.sendBytes(fullPublish(topic, qos));
				assertForwarded(subscriber, await take(subscriber, { topic, qos, payload: "payload" }));
			});
		}
	}

	test("PUBLISH: a message without properties is forwarded without any", async () => {
		const topic = freshTopic();
		const subscriber = await RawClient.connect(broker);
		await subscriber.subscribe(topic, { qos: 2 });
		const publisher = await RawClient.connect(broker);
		for (const qos of [0, 1, 2]) {
			publisher.publish(topic, "x", { qos, messageId: qos + 1 });
			const publication = await take(subscriber, { qos });
			assert.equal(publication.properties, undefined);
		}
	});

	test("PUBLISH: a payload of any bytes, also none and 100 kB, arrives as it was sent", async () => {
		const topic = freshTopic();
		const subscriber = await RawClient.connect(broker, durable());
		await subscriber.subscribe(topic, { qos: 1 });
		const publisher = await RawClient.connect(broker);
		const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
		for (const payload of [every, Buffer.alloc(0), Buffer.alloc(100_000, 0xfe)]) {
			for (const qos of [0, 1]) {
				publisher.publish(topic, payload, { qos, messageId: 1 });
				if (qos === 1) await publisher.expect("puback");
				assert.deepEqual(Buffer.from((await take(subscriber, { qos })).payload), payload);
			}
		}
	});

	test("PUBLISH: every property reaches a persistent session that was offline unaltered [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]", async () => {
		const topic = freshTopic();
		const session = durable();
		const before = await RawClient.connect(broker, session);
		await before.subscribe(topic, { qos: 2 });
		await before.destroy();
		const publisher = await RawClient.connect(broker);
		publisher.sendBytes(fullPublish(topic, 1));
		await publisher.expect("puback", { messageId: 9 });
		const subscriber = await RawClient.connect(broker, session);
		assertForwarded(subscriber, await take(subscriber, { topic, qos: 1, payload: "payload" }));
	});

	test("PUBLISH: every property is retained with the message unaltered [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]", async () => {
		const topic = freshTopic();
		const publisher = await RawClient.connect(broker);
		publisher.sendBytes(fullPublish(topic, 1, true));
		await publisher.expect("puback", { messageId: 9 });
		for (const qos of [0, 1]) {
			const subscriber = await RawClient.connect(broker);
			await subscriber.subscribe(topic, { qos });
			assertForwarded(subscriber, await take(subscriber, { topic, qos, retain: true }));
		}
	});

	test("PUBLISH: the forwarded topic name is that of the publisher, not the filter [MQTT-3.3.2-3]", async () => {
		const topic = freshTopic();
		const subscriber = await RawClient.connect(broker);
		for (const filter of [`${topic}/+/c`, `${topic}/1/#`]) await subscriber.subscribe(filter, { qos: 1 });
		const publisher = await RawClient.connect(broker);
		await publisher.publishAcked(`${topic}/b/c`, "first");
		await take(subscriber, { topic: `${topic}/b/c`, payload: "first" });
		await publisher.publishAcked(`${topic}/1`, "second");
		await take(subscriber, { topic: `${topic}/1`, payload: "second" });
		await subscriber.expectNothing();
	});

	for (const { kind, options } of SESSION_KINDS) {
		test(`PUBLISH: the broker answers a publisher with a ${kind} according to the QoS: nothing, PUBACK, PUBREC [MQTT-3.3.4-1]`, async () => {
			const publisher = await RawClient.connect(broker, options());
			const topic = freshTopic();
			publisher.publish(topic, "0");
			await publisher.expectNothing();
			publisher.publish(topic, "1", { qos: 1, messageId: 11 });
			await publisher.expect("puback", { messageId: 11 });
			publisher.publish(topic, "2", { qos: 2, messageId: 12 });
			await publisher.expect("pubrec", { messageId: 12 });
			await publisher.expectNothing();
		});
	}

	const refused: readonly (readonly [what: string, bytes: Uint8Array, reasonCode: number])[] = [
		["DUP with QoS 0 is malformed [MQTT-3.3.1-2]", packet(0x38, field("a"), [0]), 0x81],
		["QoS 3 is malformed [MQTT-3.3.1-4]", packet(0x36, field("a"), u16(1), [0]), 0x81],
		["a topic name that is not UTF-8 is malformed [MQTT-3.3.2-1]", packet(0x30, field([0x61, 0xc3, 0x28]), [0]), 0x81],
		["a topic name with # is invalid [MQTT-3.3.2-2] [MQTT-4.7.0-1]", packet(0x30, field("a/#"), [0]), 0x90],
		["a topic name with + is invalid [MQTT-3.3.2-2] [MQTT-4.7.0-1]", packet(0x30, field("a+b"), [0]), 0x90],
		["a topic name without any character and without alias is a protocol error [MQTT-4.7.3-1]", packet(0x30, field(""), [0]), 0x82],
		["a topic name with U+0000 is malformed [MQTT-4.7.3-2]", packet(0x30, field("a\0b"), [0]), 0x81],
		["a response topic that is not UTF-8 is malformed [MQTT-3.3.2-13]", packet(0x30, field("a"), props([0x08], field([0xff]))), 0x81],
		["a response topic with + is a protocol error [MQTT-3.3.2-14]", packet(0x30, field("a"), props([0x08], field("a/+"))), 0x82],
		["a response topic with # is a protocol error [MQTT-3.3.2-14]", packet(0x30, field("a"), props([0x08], field("#"))), 0x82],
		["a content type that is not UTF-8 is malformed [MQTT-3.3.2-19]", packet(0x30, field("a"), props([0x03], field([0x80]))), 0x81],
		["a subscription identifier from a client is a protocol error [MQTT-3.3.4-6]", packet(0x30, field("a"), props([0x0b, 1])), 0x82],
		["a payload format indicator of 2 is a protocol error", packet(0x30, field("a"), props([0x01, 2])), 0x82],
		["a content type that stands twice is a protocol error", packet(0x30, field("a"), props([0x03], field("x"), [0x03], field("x"))), 0x82],
	];
	for (const [what, bytes, reasonCode] of refused) {
		test(`PUBLISH: ${what}`, async () => {
			const client = await RawClient.connect(broker);
			client.sendBytes(bytes);
			await client.expectDisconnect(reasonCode);
		});
	}

	test("PUBLISH: what a connection sends behind a refused packet is not published", async () => {
		const topic = freshTopic();
		const subscriber = await RawClient.connect(broker);
		await subscriber.subscribe(topic);
		const publisher = await RawClient.connect(broker);
		const good = (payload: string) => packet(0x30, field(topic), [0], Buffer.from(payload));
		publisher.sendBytes(Buffer.concat([good("before"), packet(0x30, field("a/#"), [0]), good("behind")]));
		await publisher.expectDisconnect(0x90);
		assert.equal(text(await subscriber.expect("publish")), "before");
		await subscriber.expectNothing();
	});
});
