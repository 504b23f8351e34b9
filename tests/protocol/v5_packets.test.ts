/** MQTT 5's rules for every packet, as a connected client meets them: strings, integers, flags, properties and packet ids. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Bytes, bytes, field, hex, packet, props, u16 } from "../mqtt/wire.ts";
import { RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { durable, freshTopic, take } from "../support/traffic.ts";

const BAD_STRINGS: readonly (readonly [what: string, content: Bytes])[] = [
	["a continuation byte alone", [0x61, 0x80]],
	["a sequence that ends too soon", [0x61, 0xe2, 0x82]],
	["an overlong sequence", [0xc1, 0xa1]],
	["a surrogate", [0xed, 0xbf, 0xbf]],
	["a code point above U+10FFFF", [0xf4, 0x90, 0x80, 0x80]],
];
const NUL = [0x61, 0x00, 0x62];
const BOM = [0xef, 0xbb, 0xbf];

describe("a malformed packet", () => {
	const broker = suiteBroker();

	/** Sends bytes as a connected client, which then hears this reason and is closed. */
	async function refused(content: Bytes, reasonCode: number): Promise<void> {
		const client = await RawClient.connect(broker);
		client.sendBytes(Uint8Array.from(content));
		await client.expectDisconnect(reasonCode);
	}

	for (const [what, text] of BAD_STRINGS) {
		test(`that holds ${what} in a string: DISCONNECT 0x81, close [MQTT-1.5.4-1] [MQTT-4.13.1-1]`, async () => {
			await refused(packet(0x30, field(text), [0]), 0x81);
			await refused(packet(0x82, u16(1), [0], field(text), [0]), 0x81);
			await refused(packet(0xa2, u16(1), [0], field(text)), 0x81);
			await refused(packet(0x30, field("t"), props([0x03], field(text))), 0x81);
		});

		test(`that holds ${what} in either half of a string pair: DISCONNECT 0x81, close [MQTT-1.5.7-1] [MQTT-4.13.1-1]`, async () => {
			await refused(packet(0x30, field("t"), props([0x26], field(text), field("v"))), 0x81);
			await refused(packet(0x82, u16(1), props([0x26], field("n"), field(text)), field("t"), [0]), 0x81);
		});
	}

	test("that holds U+0000 in a string: DISCONNECT, close [MQTT-1.5.4-2] [MQTT-4.13.1-1]", async () => {
		await refused(packet(0x30, field(NUL), [0]), 0x81);
		await refused(packet(0x82, u16(1), [0], field(NUL), [0]), 0x81);
		await refused(packet(0x30, field("t"), props([0x26], field("n"), field(NUL))), 0x81);
	});

	for (const [what, content] of [
		["Remaining Length of two bytes for 0", [0xc0, 0x80, 0x00]],
		["Remaining Length of five bytes", [0x30, 0x80, 0x80, 0x80, 0x80, 0x01]],
		["property length of two bytes for 0", packet(0x30, field("t"), [0x80, 0x00])],
		["Subscription Identifier of two bytes for 1", packet(0x82, u16(1), props([0x0b, 0x81, 0x00]), field("t"), [0])],
	] as const) {
		test(`with a ${what}: DISCONNECT 0x81, close [MQTT-1.5.5-1] [MQTT-4.13.1-1]`, () => refused(content, 0x81));
	}

	for (const first of [0x3e, 0x38, 0x41, 0x51, 0x60, 0x63, 0x71, 0x80, 0x83, 0xa0, 0xc1, 0xe1, 0xf1]) {
		test(`with the first byte 0x${first.toString(16)}: DISCONNECT 0x81, close [MQTT-2.1.3-1] [MQTT-4.13.1-1]`, () =>
			refused([first, 2, 0, 1], 0x81));
	}

	test("that is cut off by the end of the connection is nothing", async () => {
		const topic = freshTopic();
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe(topic);
		const client = await RawClient.connect(broker);
		client.sendBytes(packet(0x30, field(topic), [0], [1, 2, 3]).subarray(0, -1));
		client.end();
		await client.expectClosed();
		await watcher.expectNothing();
	});
});

describe("strings", () => {
	const broker = suiteBroker();

	test("EF BB BF is a character of a topic: kept on the way, and part of what must match [MQTT-1.5.4-3]", async () => {
		const topic = new TextEncoder().encode(freshTopic());
		const marked = bytes(BOM, topic);
		const client = await RawClient.connect(broker);
		client.sendBytes(packet(0x82, u16(1), [0], field(marked), [0]));
		await client.expect("suback", { granted: [0] });
		client.bytes.length = 0;
		const sent = [packet(0x30, field(topic), [0], [1]), packet(0x30, field(marked), props([0x03], field(BOM)), [2])];
		client.sendBytes(bytes(...sent));
		await client.expect("publish");
		assert.equal(hex(Buffer.concat(client.bytes)), hex(sent[1]));
		await client.expectNothing();
	});

	test("any other well-formed string is passed on byte for byte [MQTT-1.5.4-1]", async () => {
		const prefix = freshTopic();
		const client = await RawClient.connect(broker);
		await client.subscribe(`${prefix}/#`);
		for (const text of ["\u0001\u001f\u007f", "\ufffe\uffff", "\u{10ffff}", "ﷺ𝔐", " ", "a".repeat(60_000)]) {
			client.bytes.length = 0;
			const content = packet(0x30, field(`${prefix}/${text}`), props([0x26], field(text), field(text)));
			client.sendBytes(content);
			await client.expect("publish");
			assert.equal(hex(Buffer.concat(client.bytes)), hex(content));
		}
	});
});

describe("properties and packet ids", () => {
	const broker = suiteBroker();

	test("packets of the server without properties have property length 0, or end before it where they may [MQTT-2.2.2-1]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		const answers = async (content: Uint8Array, cmd: string) => {
			client.bytes.length = 0;
			client.sendBytes(content);
			await client.expect(cmd);
			return hex(Buffer.concat(client.bytes));
		};
		assert.equal(await answers(packet(0x82, u16(1), [0], field(topic), [0]), "suback"), "900400010000");
		const publish = packet(0x30, field(topic), [0], [1]);
		assert.equal(await answers(publish, "publish"), hex(publish));
		// Nobody subscribes to it, which is the reason code that needs a property length behind it.
		assert.equal(await answers(packet(0x32, field(`${topic}/other`), u16(7), [0], [1]), "puback"), "400400071000");
		assert.equal(await answers(packet(0x34, field(`${topic}/other`), u16(8), [0], [1]), "pubrec"), "500400081000");
		assert.equal(await answers(packet(0x62, u16(8)), "pubcomp"), "70020008");
		assert.equal(await answers(packet(0xa2, u16(2), [0], field(topic)), "unsuback"), "b00400020000");
	});

	test("a QoS 0 PUBLISH has no packet id, whatever the publisher's QoS was [MQTT-2.2.1-2]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		await client.subscribe(topic, { qos: 0 });
		for (const qos of [0, 1, 2] as const) {
			client.bytes.length = 0;
			await broker.shoal.publish(topic, "m", { qos });
			await client.expect("publish", { qos: 0 });
			assert.equal(hex(Buffer.concat(client.bytes)), hex(packet(0x30, field(topic), [0], [0x6d])));
		}
	});

	test("a packet id of 0 is malformed: DISCONNECT 0x81 [MQTT-4.13.1-1]", async () => {
		for (const content of [
			packet(0x32, field("t"), u16(0), [0]),
			packet(0x82, u16(0), [0], field("t"), [0]),
			packet(0xa2, u16(0), [0], field("t")),
			packet(0x40, u16(0)),
		]) {
			const client = await RawClient.connect(broker);
			client.sendBytes(content);
			await client.expectDisconnect(0x81);
		}
	});

	test("acknowledgements carry the packet id of what they answer, 1 and 65,535 alike [MQTT-2.2.1-5] [MQTT-2.2.1-6]", async () => {
		const client = await RawClient.connect(broker);
		for (const messageId of [1, 255, 256, 65_535]) {
			client.send({ cmd: "subscribe", messageId, subscriptions: [{ topic: "unused/filter", qos: 0 }] });
			await client.expect("suback", { messageId });
			client.send({ cmd: "unsubscribe", messageId, unsubscriptions: ["unused/filter"] });
			await client.expect("unsuback", { messageId });
			await client.publishAcked("unused/topic", "m", { messageId, qos: 1 });
			await client.publishAcked("unused/topic", "m", { messageId, qos: 2 });
		}
	});

	for (const [kind, options] of [
		["a session that ends with its connection", () => ({})],
		["a persistent session", () => durable()],
	] as const) {
		test(`${kind}: deliveries under way have different packet ids, none of them 0, and PUBREL has that of its PUBLISH [MQTT-2.2.1-4] [MQTT-2.2.1-5]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			await client.subscribe(topic, { qos: 2 });
			const count = 200;
			for (let i = 0; i < count; i++) await broker.shoal.publish(topic, `${i}`, { qos: i % 2 === 0 ? 1 : 2 });
			const ids = new Set<number>();
			const ofQos2: number[] = [];
			for (let i = 0; i < count; i++) {
				const { messageId, qos } = await client.expect("publish");
				ids.add(messageId);
				if (qos === 2) ofQos2.push(messageId);
			}
			for (const messageId of ofQos2) {
				client.send({ cmd: "pubrec", messageId });
				await client.expect("pubrel", { messageId });
			}
			assert.equal(ids.size, count);
			assert.ok(!ids.has(0));
		});
	}

	test("packet ids come round after 65,535 and pass over the one that is still in use [MQTT-2.2.1-4]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker, { properties: { receiveMaximum: 100 } });
		await client.subscribe(topic, { qos: 1 });
		await broker.shoal.publish(topic, "unacknowledged", { qos: 1 });
		const { messageId: used } = await client.expect("publish", { payload: "unacknowledged" });
		const ids: number[] = [];
		for (let i = 0; i < 1350; i++) {
			const publications = Array.from({ length: 50 }, () => broker.shoal.publish(topic, "m", { qos: 1 }));
			for (let j = 0; j < 50; j++) ids.push((await take(client, { payload: "m" })).messageId);
			await Promise.all(publications);
		}
		assert.ok(!ids.includes(used) && !ids.includes(0));
		assert.deepEqual(ids.slice(65_533, 65_537), [65_535, 2, 3, 4]);
	});
});
