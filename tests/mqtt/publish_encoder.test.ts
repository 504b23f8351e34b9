import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { generate } from "mqtt-packet";
import type { Message } from "../../src/mqtt/message.ts";
import { NO_PROPERTIES } from "../../src/mqtt/packet.ts";
import { type PublishFields, packetIdOffset, publishSize, writeAck, writePublish } from "../../src/mqtt/publish_encoder.ts";
import { Topic } from "../../src/mqtt/topic.ts";
import { bytes, decodeOne, field, hex, packet, props, u16, u32, vbi } from "./wire.ts";

const PLAIN: PublishFields = {
	version: 4,
	qos: 0,
	retain: false,
	dup: false,
	packetId: 0,
	subscriptionIds: undefined,
	topicAlias: 0,
	omitTopic: false,
	expirySeconds: undefined,
};

function message(payload: Uint8Array, forwarded = NO_PROPERTIES, topic = "a/b"): Message {
	return { topic: Topic.of(topic), payload, qos: 0, retain: false, forwarded, expiresAtMs: Number.POSITIVE_INFINITY, publisher: "" };
}

/** The packet, written at offset 3 of a buffer with three bytes to spare, which must stay as they are. */
function write(of: Message, fields: PublishFields): Uint8Array {
	const size = publishSize(of, fields);
	const target = new Uint8Array(size + 6).fill(0xee);
	assert.equal(writePublish(target, 3, of, fields), size + 3);
	assert.equal(hex(target.subarray(0, 3)), "eeeeee");
	assert.equal(hex(target.subarray(size + 3)), "eeeeee");
	return target.subarray(3, size + 3);
}

const PAYLOAD = Uint8Array.of(1, 2, 3);

test("writePublish: QoS 0 has no packet id [MQTT-2.2.1-2] [v3 MQTT-2.3.1-5]", () => {
	for (const version of [3, 4] as const) {
		assert.equal(hex(write(message(PAYLOAD), { ...PLAIN, version, packetId: 7 })), hex(packet(0x30, field("a/b"), PAYLOAD)));
	}
	assert.equal(hex(write(message(PAYLOAD), { ...PLAIN, version: 5, packetId: 7 })), hex(packet(0x30, field("a/b"), [0], PAYLOAD)));
});

test("writePublish: flags and packet id stand where they belong", () => {
	const fields: PublishFields = { ...PLAIN, qos: 2, retain: true, dup: true, packetId: 0xfedc };
	assert.equal(hex(write(message(PAYLOAD), fields)), hex(packet(0x3d, field("a/b"), u16(0xfedc), PAYLOAD)));
	assert.equal(
		hex(write(message(PAYLOAD), { ...fields, qos: 1, retain: false, dup: false })),
		hex(packet(0x32, field("a/b"), u16(0xfedc), PAYLOAD)),
	);
});

test("writePublish: no properties are a property length of 0 [MQTT-2.2.2-1]", () => {
	assert.equal(hex(write(message(PAYLOAD), { ...PLAIN, version: 5 })), hex(packet(0x30, field("a/b"), [0], PAYLOAD)));
});

test("writePublish: v5 has expiry, alias, the publisher's properties as they came, and every subscription id [MQTT-3.3.4-4] [MQTT-3.3.2-17] [MQTT-3.3.2-18]", () => {
	const forwarded = bytes([0x26], field("b"), field("1"), [0x01, 1], [0x26], field("a"), field("2"));
	const ids = [1, 128, 268_435_455];
	const fields: PublishFields = {
		...PLAIN,
		version: 5,
		qos: 1,
		packetId: 7,
		expirySeconds: 0xfffffffe,
		topicAlias: 0x0102,
		subscriptionIds: ids,
	};
	const properties = props([0x02, ...u32(0xfffffffe)], [0x23, 1, 2], forwarded, ...ids.map((id) => [0x0b, ...vbi(id)]));
	assert.equal(hex(write(message(PAYLOAD, forwarded), fields)), hex(packet(0x32, field("a/b"), u16(7), properties, PAYLOAD)));
});

test("writePublish: v3 leaves out what only v5 has", () => {
	const fields: PublishFields = { ...PLAIN, expirySeconds: 9, topicAlias: 3, subscriptionIds: [4] };
	assert.equal(hex(write(message(PAYLOAD, bytes([0x01, 1])), fields)), hex(packet(0x30, field("a/b"), PAYLOAD)));
});

test("writePublish: a topic that the client knows by its alias is sent empty", () => {
	const fields: PublishFields = { ...PLAIN, version: 5, topicAlias: 9, omitTopic: true };
	assert.equal(hex(write(message(PAYLOAD), fields)), hex(packet(0x30, field(""), props([0x23, 0, 9]), PAYLOAD)));
});

test("writePublish: expiry 0 and subscription id lists without entries are written as such", () => {
	const fields: PublishFields = { ...PLAIN, version: 5, expirySeconds: 0, subscriptionIds: [] };
	assert.equal(hex(write(message(PAYLOAD), fields)), hex(packet(0x30, field("a/b"), props([0x02, 0, 0, 0, 0]), PAYLOAD)));
});

test("writePublish: remaining lengths of one to four bytes are written in the fewest [MQTT-1.5.5-1]", () => {
	for (const size of [0, 122, 123, 16_378, 16_379, 2_097_146, 2_097_147]) {
		const payload = Buffer.alloc(size, 5);
		const written = write(message(payload), PLAIN);
		const expected = generate({ cmd: "publish", topic: "a/b", payload, qos: 0, dup: false, retain: false });
		assert.ok(expected.equals(written), `payload of ${size} bytes`);
		assert.equal(decodeOne(4, written, "publish").payload.length, size);
	}
});

test("writePublish: property lengths of two and three bytes are written in the fewest [MQTT-1.5.5-1]", () => {
	for (const size of [122, 123, 16_378, 16_379]) {
		const forwarded = bytes([0x26], field("k"), field("v".repeat(size - 6)));
		const fields: PublishFields = { ...PLAIN, version: 5, expirySeconds: 1 };
		const expected = packet(0x30, field("a/b"), props([0x02, 0, 0, 0, 1], forwarded), PAYLOAD);
		assert.equal(hex(write(message(PAYLOAD, forwarded), fields)), hex(expected));
	}
});

test("publishSize: a packet that four bytes of length cannot say is infinitely large", () => {
	const length = 268_435_455 - 5;
	const payload = { length } as unknown as Uint8Array;
	assert.equal(publishSize(message(payload), PLAIN), 268_435_460);
	assert.equal(publishSize(message(payload), { ...PLAIN, version: 5 }), Number.POSITIVE_INFINITY);
});

test("packetIdOffset: finds the packet id of any encoded PUBLISH, to send one encoding to many", () => {
	for (const version of [3, 4, 5] as const) {
		for (const omitTopic of version === 5 ? [false, true] : [false]) {
			for (const size of [0, 3, 200, 20_000, 2_100_000]) {
				for (const topic of ["a", "x".repeat(300)]) {
					const of = message(new Uint8Array(size), NO_PROPERTIES, topic);
					const fields: PublishFields = { ...PLAIN, version, qos: 1, packetId: 0x1234, topicAlias: omitTopic ? 5 : 0, omitTopic };
					const target = new Uint8Array(publishSize(of, fields) + 10);
					const end = writePublish(target, 10, of, fields);
					const at = packetIdOffset(target, 10);
					assert.deepEqual([target[at], target[at + 1]], [0x12, 0x34]);
					target[at] = 0xab;
					target[at + 1] = 0xcd;
					const other = new Uint8Array(end - 10);
					writePublish(other, 0, of, { ...fields, packetId: 0xabcd });
					assert.equal(Buffer.compare(other, target.subarray(10)), 0);
				}
			}
		}
	}
});

const ACKS = [
	[4, "puback", 0x40],
	[5, "pubrec", 0x50],
	[6, "pubrel", 0x62],
	[7, "pubcomp", 0x70],
] as const;

test("writeAck: is what mqtt-packet makes of it, for every type, version and reason code", () => {
	for (const [type, cmd] of ACKS) {
		for (const version of [3, 4, 5] as const) {
			for (const reasonCode of [0, 0x10, 0x80, 0x92, 0x99]) {
				for (const messageId of [1, 0xff, 0x100, 0xfedc, 0xffff]) {
					const target = new Uint8Array(10).fill(0xee);
					const end = writeAck(target, 2, type, messageId, reasonCode, version);
					const expected = generate({ cmd, messageId, reasonCode }, { protocolVersion: version });
					assert.equal(hex(target.subarray(2, end)), hex(expected));
					assert.equal(hex(target.subarray(end)), "ee".repeat(10 - end), "nothing is written behind it");
				}
			}
		}
	}
});

test("writeAck: PUBREL has the flags 0010, the others have none [MQTT-3.6.1-1] [MQTT-2.1.3-1]", () => {
	for (const [type, , first] of ACKS) {
		const target = new Uint8Array(4);
		writeAck(target, 0, type, 1, 0, 4);
		assert.equal(target[0], first);
	}
});

test("writeAck: never has a reason string or user property that could oversize it [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3]", () => {
	for (const [type] of ACKS) {
		const target = new Uint8Array(6).fill(0xee);
		assert.equal(writeAck(target, 0, type, 1, 0x92, 5), 6);
		assert.equal(target[5], 0, "the property length is 0");
	}
});
