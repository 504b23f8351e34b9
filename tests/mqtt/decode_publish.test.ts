import assert from "node:assert/strict";
import { test } from "node:test";
import { ABSENT, NO_PROPERTIES, type ProtocolVersion } from "../../src/mqtt/packet.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { assertChunkRefused, type Bytes, bytes, connected, decodeAll, decodeOne, field, hex, packet, props, u16, u32 } from "./wire.ts";

const VERSIONS: readonly ProtocolVersion[] = [3, 4, 5];

/** Rest of a PUBLISH behind topic and packet id: (empty) properties where the version has them, and a payload. */
function rest(version: ProtocolVersion, payload: Bytes = []): Uint8Array {
	return bytes(version === 5 ? [0] : [], payload);
}

function publishWith(...properties: Bytes[]): Uint8Array {
	return packet(0x30, field("t"), props(...properties), [1, 2]);
}

const ALIAS = [0x23, 0x01, 0x02];
const EXPIRY = [0x02, ...u32(0x80000001)];
const FORMAT = [0x01, 0];
const TYPE = bytes([0x03], field("text/plain"));
const RESPONSE = bytes([0x08], field("answers/é"));
const CORRELATION = bytes([0x09], field([0, 0xff]));
const USER = bytes([0x26], field("b"), field("1"));
const USER_2 = bytes([0x26], field("a"), field(""));

test("PUBLISH: topic, payload and flags are decoded at every QoS", () => {
	for (const version of VERSIONS) {
		for (const [first, qos, retain, dup] of [
			[0x30, 0, false, false],
			[0x31, 0, true, false],
			[0x32, 1, false, false],
			[0x3d, 2, true, true],
		] as const) {
			const publish = decodeOne(version, packet(first, field("a/b"), qos > 0 ? u16(0xfedc) : [], rest(version, [9, 8])), "publish");
			assert.equal(publish.topic?.name, "a/b");
			assert.deepEqual([publish.qos, publish.retain, publish.dup], [qos, retain, dup]);
			assert.equal(publish.packetId, qos > 0 ? 0xfedc : 0);
			assert.equal(hex(publish.payload), "0908");
			assert.deepEqual([publish.topicAlias, publish.expirySeconds, publish.forwarded], [ABSENT, ABSENT, NO_PROPERTIES]);
		}
	}
});

test("PUBLISH: an empty payload is decoded", () => {
	for (const version of VERSIONS) {
		assert.equal(decodeOne(version, packet(0x30, field("a"), rest(version)), "publish").payload.length, 0);
		assert.equal(decodeOne(version, packet(0x32, field("a"), u16(1), rest(version)), "publish").payload.length, 0);
	}
});

test("PUBLISH: topics that were sent before are the same object, on every connection of the table", () => {
	const decoder = connected(4);
	const seen: unknown[] = [];
	decoder.decode(bytes(packet(0x30, field("a"), [1]), packet(0x32, field("a"), u16(1))), (decoded) => {
		if (decoded.kind === "publish") seen.push(decoded.topic);
		return true;
	});
	assert.equal(seen.length, 2);
	assert.equal(seen[0], seen[1]);
});

test("PUBLISH: QoS 3 is refused with 0x81 [MQTT-3.3.1-4] [v3 MQTT-3.3.1-4]", () => {
	for (const version of VERSIONS) {
		for (const first of [0x36, 0x37, 0x3e, 0x3f])
			assertChunkRefused(version, packet(first, field("a"), u16(1), rest(version)), ReasonCode.malformedPacket);
	}
});

test("PUBLISH: DUP with QoS 0 is refused with 0x81 [MQTT-3.3.1-2] [v3 MQTT-3.3.1-2]", () => {
	for (const version of VERSIONS) {
		for (const first of [0x38, 0x39]) assertChunkRefused(version, packet(first, field("a"), rest(version)), ReasonCode.malformedPacket);
	}
});

test("PUBLISH: packet id 0 is refused with 0x81 at QoS 1 and 2 [v3 MQTT-2.3.1-1]", () => {
	for (const version of VERSIONS) {
		for (const first of [0x32, 0x34])
			assertChunkRefused(version, packet(first, field("a"), u16(0), rest(version)), ReasonCode.malformedPacket);
	}
});

test("PUBLISH: the two bytes behind the topic are no packet id at QoS 0 [MQTT-2.2.1-2] [v3 MQTT-2.3.1-5]", () => {
	assert.equal(hex(decodeOne(4, packet(0x30, field("a"), u16(7)), "publish").payload), "0007");
});

test("PUBLISH: topic name and packet id that the packet does not hold are refused with 0x81 [MQTT-3.3.2-1] [v3 MQTT-3.3.2-1]", () => {
	for (const version of VERSIONS) {
		for (const body of [[], [0], [0, 1], [0, 5, 0x61, 0x61], [0xff, 0xff, 0x61]])
			assertChunkRefused(version, packet(0x30, body), ReasonCode.malformedPacket);
		for (const body of [[], [0, 1, 0x61], [0, 1, 0x61, 7], [0, 2, 0x61, 0, 1]])
			assertChunkRefused(version, packet(0x32, body), ReasonCode.malformedPacket);
	}
	// The property length is missing.
	assertChunkRefused(5, packet(0x30, field("a")), ReasonCode.malformedPacket);
	assertChunkRefused(5, packet(0x32, field("a"), u16(1)), ReasonCode.malformedPacket);
});

test("PUBLISH: fields are not read from the next packet of the chunk", () => {
	for (const version of VERSIONS) {
		assertChunkRefused(version, bytes(packet(0x30, [0, 3, 0x61]), new Uint8Array(9).fill(0x61)), ReasonCode.malformedPacket);
		assertChunkRefused(version, bytes(packet(0x30, [0]), new Uint8Array(9)), ReasonCode.malformedPacket);
		assertChunkRefused(version, bytes(packet(0x32, [0, 1, 0x61]), packet(0xc0), packet(0xc0)), ReasonCode.malformedPacket);
	}
	assertChunkRefused(5, bytes(packet(0x30, field("a"), [2, 1]), packet(0xc0)), ReasonCode.malformedPacket);
});

test("PUBLISH: ill-formed UTF-8 and U+0000 in the topic are refused with 0x81 [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.3.2-1] [v3 MQTT-1.5.3-1] [v3 MQTT-1.5.3-2]", () => {
	for (const version of VERSIONS) {
		for (const name of [[0xff], [0x61, 0], [0xed, 0xa0, 0x80], [0xc3]]) {
			assertChunkRefused(version, packet(0x30, field(name), rest(version)), ReasonCode.malformedPacket);
		}
	}
});

test("PUBLISH: U+FEFF in the topic is kept [MQTT-1.5.4-3] [v3 MQTT-1.5.3-3]", () => {
	assert.equal(decodeOne(4, packet(0x30, field("\ufeffa")), "publish").topic?.name, "\ufeffa");
});

test("PUBLISH: a topic with a wildcard is refused with 0x90 [MQTT-3.3.2-2] [v3 MQTT-3.3.2-2]", () => {
	for (const version of VERSIONS) {
		for (const name of ["a/+", "#", "a#"])
			assertChunkRefused(version, packet(0x30, field(name), rest(version)), ReasonCode.topicNameInvalid);
	}
});

test("PUBLISH: an empty topic without alias is refused, with 0x82 for v5 and 0x90 for v3 [MQTT-4.7.3-1] [v3 MQTT-4.7.3-1]", () => {
	assertChunkRefused(5, packet(0x30, field(""), [0], [1]), ReasonCode.protocolError);
	assertChunkRefused(4, packet(0x30, field(""), [1]), ReasonCode.topicNameInvalid);
	assertChunkRefused(3, packet(0x30, field(""), [1]), ReasonCode.topicNameInvalid);
});

test("PUBLISH: an empty topic with an alias has no topic, alias 0 is passed on [MQTT-3.3.2-8]", () => {
	const known = decodeOne(5, packet(0x30, field(""), props(ALIAS), [1]), "publish");
	assert.deepEqual([known.topic, known.topicAlias, known.forwarded], [undefined, 0x0102, NO_PROPERTIES]);
	assert.equal(decodeOne(5, packet(0x30, field(""), props([0x23, 0, 0])), "publish").topicAlias, 0);
});

test("PUBLISH: alias and expiry are taken out of the properties, wherever they stand", () => {
	const others = [TYPE, USER, CORRELATION, USER_2];
	for (let alias = 0; alias <= others.length; alias++) {
		for (let expiry = 0; expiry <= others.length + 1; expiry++) {
			const parts: Bytes[] = [...others];
			parts.splice(alias, 0, ALIAS);
			parts.splice(expiry, 0, EXPIRY);
			const publish = decodeOne(5, publishWith(...parts), "publish");
			assert.deepEqual([publish.topicAlias, publish.expirySeconds], [0x0102, 0x80000001]);
			assert.equal(hex(publish.forwarded), hex(bytes(...others)), `alias at ${alias}, expiry at ${expiry}`);
			assert.equal(hex(publish.payload), "0102");
		}
	}
});

test("PUBLISH: properties that are forwarded are a view where they stand together, and a copy where not", () => {
	for (const parts of [
		[USER, TYPE],
		[ALIAS, USER, TYPE],
		[USER, TYPE, EXPIRY],
		[EXPIRY, ALIAS, USER],
		[ALIAS, USER, TYPE, EXPIRY],
		[USER, ALIAS, EXPIRY],
	]) {
		const chunk = publishWith(...parts);
		assert.equal(decodeOne(5, chunk, "publish").forwarded.buffer, chunk.buffer);
	}
	for (const parts of [
		[USER, ALIAS, TYPE],
		[USER, ALIAS, TYPE, EXPIRY, USER_2],
	]) {
		const chunk = publishWith(...parts);
		assert.notEqual(decodeOne(5, chunk, "publish").forwarded.buffer, chunk.buffer);
	}
	assert.equal(decodeOne(5, publishWith(ALIAS, EXPIRY), "publish").forwarded, NO_PROPERTIES);
});

test("PUBLISH: user properties keep order and repetition [MQTT-3.3.2-17] [MQTT-3.3.2-18]", () => {
	const forwarded = bytes(USER, USER_2, USER, USER);
	assert.equal(hex(decodeOne(5, publishWith(forwarded), "publish").forwarded), hex(forwarded));
});

test("PUBLISH: format, content type, response topic and correlation data are forwarded as they are [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-20]", () => {
	const forwarded = bytes(RESPONSE, FORMAT, CORRELATION, TYPE);
	assert.equal(hex(decodeOne(5, publishWith(forwarded), "publish").forwarded), hex(forwarded));
});

test("PUBLISH: properties of one packet do not leak into the next", () => {
	const [first, second, third] = decodeAll(5, bytes(publishWith(ALIAS, EXPIRY, USER), publishWith(USER), publishWith()));
	assert.equal(first?.kind === "publish" && first.topicAlias, 0x0102);
	for (const later of [second, third])
		assert.deepEqual(later?.kind === "publish" && [later.topicAlias, later.expirySeconds], [ABSENT, ABSENT]);
	assert.equal(third?.kind === "publish" && third.forwarded.length, 0);
});

test("PUBLISH: a payload that is not the UTF-8 which its format indicator says is passed on", () => {
	assert.equal(hex(decodeOne(5, packet(0x30, field("a"), props([0x01, 1]), [0xff]), "publish").payload), "ff");
});

const WRONG: [what: string, part: Bytes, reasonCode: number, clauses: string][] = [
	["a Subscription Identifier", [0x0b, 1], ReasonCode.protocolError, "[MQTT-3.3.4-6]"],
	["Payload Format Indicator 2", [0x01, 2], ReasonCode.protocolError, ""],
	["an ill-formed Response Topic", bytes([0x08], field([0xc3])), ReasonCode.malformedPacket, "[MQTT-3.3.2-13]"],
	["a Response Topic with +", bytes([0x08], field("a/+")), ReasonCode.protocolError, "[MQTT-3.3.2-14]"],
	["a Response Topic with #", bytes([0x08], field("#")), ReasonCode.protocolError, "[MQTT-3.3.2-14]"],
	["an ill-formed Content Type", bytes([0x03], field([0x61, 0])), ReasonCode.malformedPacket, "[MQTT-3.3.2-19]"],
	["an ill-formed name of a user property", bytes([0x26], field([0xff]), field("v")), ReasonCode.malformedPacket, "[MQTT-1.5.7-1]"],
	["an ill-formed value of a user property", bytes([0x26], field("k"), field([0xff])), ReasonCode.malformedPacket, "[MQTT-1.5.7-1]"],
	["two Topic Aliases", bytes(ALIAS, ALIAS), ReasonCode.protocolError, ""],
	["two Message Expiry Intervals", bytes(EXPIRY, EXPIRY), ReasonCode.protocolError, ""],
	["two Content Types", bytes(TYPE, USER, TYPE), ReasonCode.protocolError, ""],
	["two Response Topics", bytes(RESPONSE, RESPONSE), ReasonCode.protocolError, ""],
	["two Correlation Data", bytes(CORRELATION, CORRELATION), ReasonCode.protocolError, ""],
	["two Payload Format Indicators", bytes(FORMAT, FORMAT), ReasonCode.protocolError, ""],
	["a Will Delay Interval", [0x18, 0, 0, 0, 1], ReasonCode.protocolError, ""],
	["a Reason String", bytes([0x1f], field("x")), ReasonCode.protocolError, ""],
	["a property that does not exist", [0x04, 0], ReasonCode.malformedPacket, ""],
	["property 0", [0x00], ReasonCode.malformedPacket, ""],
	["a property identifier of two bytes", [0xa6, 0x00], ReasonCode.malformedPacket, ""],
	["a Topic Alias cut by the end of the properties", [0x23, 1], ReasonCode.malformedPacket, ""],
	["a Message Expiry Interval cut by the end of the properties", [0x02, 0, 0, 0], ReasonCode.malformedPacket, ""],
	["a string cut by the end of the properties", [0x03, 0, 3, 0x61], ReasonCode.malformedPacket, ""],
	["an identifier without value", [0x01], ReasonCode.malformedPacket, ""],
];
for (const [what, part, reasonCode, clauses] of WRONG) {
	test(`PUBLISH: ${what} is refused with 0x${reasonCode.toString(16)} ${clauses}`.trimEnd(), () => {
		assertChunkRefused(5, publishWith(part), reasonCode);
		assertChunkRefused(5, publishWith(USER, part), reasonCode);
	});
}

test("PUBLISH: a property length that is too long, over-long or endless is refused with 0x81 [MQTT-1.5.5-1]", () => {
	for (const length of [[3], [0x80, 0x00], [0x80, 0x80, 0x80, 0x80, 0x01], [0x80], [0xff, 0x7f]]) {
		assertChunkRefused(5, packet(0x30, field("a"), length, USER.subarray(0, 2)), ReasonCode.malformedPacket);
	}
});
