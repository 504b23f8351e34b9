import assert from "node:assert/strict";
import { test } from "node:test";
import { ABSENT, type ProtocolVersion } from "../../src/mqtt/packet.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { assertChunkRefused, type Bytes, bytes, decodeOne, field, hex, packet, props, u16, u32, vbi } from "./wire.ts";

const VERSIONS: readonly ProtocolVersion[] = [3, 4, 5];
const USER = bytes([0x26], field("k"), field("v"));
const REASON = bytes([0x1f], field("why"));
const ILL_FORMED = bytes([0x1f], field([0xff]));

function none(version: ProtocolVersion): number[] {
	return version === 5 ? [0] : [];
}

const ACKS = [
	["puback", 0x40],
	["pubrec", 0x50],
	["pubrel", 0x62],
	["pubcomp", 0x70],
] as const;
const PUBACK_REASONS = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL_REASONS = [0x00, 0x92];
const ACK_REASONS = { puback: PUBACK_REASONS, pubrec: PUBACK_REASONS, pubrel: PUBREL_REASONS, pubcomp: PUBREL_REASONS };
const ACK_CLAUSES = { puback: "[MQTT-3.4.2-1]", pubrec: "[MQTT-3.5.2-1]", pubrel: "[MQTT-3.6.2-1]", pubcomp: "[MQTT-3.7.2-1]" };

for (const [kind, first] of ACKS) {
	test(`${kind}: is decoded for every version, with reason 0 where none is given`, () => {
		for (const version of VERSIONS) {
			assert.deepEqual(decodeOne(version, packet(first, u16(0xfedc)), kind), { kind, packetId: 0xfedc, reasonCode: 0 });
		}
	});

	test(`${kind}: v5 has its listed reason codes, others are refused with 0x82 ${ACK_CLAUSES[kind]}`, () => {
		for (let code = 0; code < 256; code++) {
			const short = packet(first, u16(1), [code]);
			const long = packet(first, u16(1), [code], props(REASON));
			if (ACK_REASONS[kind].includes(code)) {
				for (const chunk of [short, long]) assert.equal(decodeOne(5, chunk, kind).reasonCode, code);
			} else {
				for (const chunk of [short, long]) assertChunkRefused(5, chunk, ReasonCode.protocolError);
			}
		}
	});

	test(`${kind}: v5 properties are a Reason String and user properties`, () => {
		assert.equal(decodeOne(5, packet(first, u16(1), [0], props(USER, REASON, USER)), kind).packetId, 1);
		assertChunkRefused(5, packet(first, u16(1), [0], props(REASON, REASON)), ReasonCode.protocolError);
		assertChunkRefused(5, packet(first, u16(1), [0], props([0x11, 0, 0, 0, 1])), ReasonCode.protocolError);
		assertChunkRefused(5, packet(first, u16(1), [0], props(ILL_FORMED)), ReasonCode.malformedPacket);
		assertChunkRefused(5, packet(first, u16(1), [0], [9], USER), ReasonCode.malformedPacket);
	});

	test(`${kind}: another length, and packet id 0, are refused with 0x81`, () => {
		for (const version of VERSIONS) {
			for (const body of [[], [1], [0, 0]]) assertChunkRefused(version, packet(first, body), ReasonCode.malformedPacket);
			if (version < 5)
				for (const body of [
					[0, 1, 0],
					[0, 1, 0, 0],
				])
					assertChunkRefused(version, packet(first, body), ReasonCode.malformedPacket);
		}
	});
}

test("SUBSCRIBE: filters and options are decoded in their order", () => {
	const filters = bytes(field("a/+"), [0x00], field("#"), [0x01], field("$share/g/a"), [0x02]);
	for (const version of VERSIONS) {
		const subscribe = decodeOne(version, packet(0x82, u16(0xfedc), none(version), filters), "subscribe");
		assert.equal(subscribe.packetId, 0xfedc);
		assert.equal(subscribe.subscriptionId, ABSENT);
		const plain = { noLocal: false, retainAsPublished: false, retainHandling: 0 };
		assert.deepEqual(subscribe.requests, [
			{ filter: "a/+", qos: 0, ...plain },
			{ filter: "#", qos: 1, ...plain },
			{ filter: "$share/g/a", qos: 2, ...plain },
		]);
	}
});

test("SUBSCRIBE: v5 has No Local, Retain As Published, Retain Handling and a Subscription Identifier", () => {
	for (const id of [1, 127, 128, 268_435_455]) {
		const chunk = packet(
			0x82,
			u16(1),
			props(USER, [0x0b], vbi(id), USER),
			field("a"),
			[0x04],
			field("b"),
			[0x08],
			field("c"),
			[0x10],
			field("d"),
			[0x2e],
		);
		const { subscriptionId, requests } = decodeOne(5, chunk, "subscribe");
		assert.equal(subscriptionId, id);
		assert.deepEqual(requests, [
			{ filter: "a", qos: 0, noLocal: true, retainAsPublished: false, retainHandling: 0 },
			{ filter: "b", qos: 0, noLocal: false, retainAsPublished: true, retainHandling: 0 },
			{ filter: "c", qos: 0, noLocal: false, retainAsPublished: false, retainHandling: 1 },
			{ filter: "d", qos: 2, noLocal: true, retainAsPublished: true, retainHandling: 2 },
		]);
	}
});

test("SUBSCRIBE: filters that are no valid filters are passed on, the empty one too", () => {
	for (const version of VERSIONS) {
		for (const filter of ["", "a#", "$share//x", "\ufeff"]) {
			assert.equal(decodeOne(version, packet(0x82, u16(1), none(version), field(filter), [0]), "subscribe").requests[0]?.filter, filter);
		}
	}
});

test("SUBSCRIBE: no filter is refused with 0x82 [MQTT-3.8.3-2] [v3 MQTT-3.8.3-3]", () => {
	for (const version of VERSIONS) assertChunkRefused(version, packet(0x82, u16(1), none(version)), ReasonCode.protocolError);
	assertChunkRefused(5, packet(0x82, u16(1), props(USER)), ReasonCode.protocolError);
});

test("SUBSCRIBE: reserved options are refused with 0x81 [MQTT-3.8.3-5] [v3 MQTT-3.8.3-4]", () => {
	for (const bit of [0x40, 0x80]) assertChunkRefused(5, packet(0x82, u16(1), [0], field("a"), [bit]), ReasonCode.malformedPacket);
	for (const version of [3, 4] as const) {
		for (const bit of [0x04, 0x08, 0x10, 0x20, 0x40, 0x80]) {
			assertChunkRefused(version, packet(0x82, u16(1), field("a"), [0], field("b"), [bit]), ReasonCode.malformedPacket);
		}
	}
});

test("SUBSCRIBE: QoS 3 is refused, with 0x81 for v3 and 0x82 for v5 [v3 MQTT-3.8.3-4]", () => {
	assertChunkRefused(3, packet(0x82, u16(1), field("a"), [3]), ReasonCode.malformedPacket);
	assertChunkRefused(4, packet(0x82, u16(1), field("a"), [3]), ReasonCode.malformedPacket);
	assertChunkRefused(5, packet(0x82, u16(1), [0], field("a"), [3]), ReasonCode.protocolError);
});

test("SUBSCRIBE: Retain Handling 3 is refused with 0x82", () => {
	assertChunkRefused(5, packet(0x82, u16(1), [0], field("a"), [0x30]), ReasonCode.protocolError);
});

test("SUBSCRIBE and UNSUBSCRIBE: ill-formed filters are refused with 0x81 [MQTT-3.8.3-1] [MQTT-3.10.3-1] [v3 MQTT-3.8.3-1] [v3 MQTT-3.10.3-1]", () => {
	for (const version of VERSIONS) {
		for (const filter of [[0xff], [0x61, 0], [0xed, 0xbf, 0xbf]]) {
			assertChunkRefused(version, packet(0x82, u16(1), none(version), field(filter), [0]), ReasonCode.malformedPacket);
			assertChunkRefused(version, packet(0xa2, u16(1), none(version), field(filter)), ReasonCode.malformedPacket);
		}
	}
});

test("SUBSCRIBE and UNSUBSCRIBE: packet id 0 is refused with 0x81 [v3 MQTT-2.3.1-1]", () => {
	for (const version of VERSIONS) {
		assertChunkRefused(version, packet(0x82, u16(0), none(version), field("a"), [0]), ReasonCode.malformedPacket);
		assertChunkRefused(version, packet(0xa2, u16(0), none(version), field("a")), ReasonCode.malformedPacket);
	}
});

test("SUBSCRIBE: a list that ends inside an entry is refused with 0x81", () => {
	for (const version of VERSIONS) {
		for (const tail of [field("a"), [0], [0, 5, 0x61], bytes(field("a"), [0], field("b"))]) {
			assertChunkRefused(version, packet(0x82, u16(1), none(version), tail), ReasonCode.malformedPacket);
		}
		for (const body of [[], [1]]) assertChunkRefused(version, packet(0x82, body), ReasonCode.malformedPacket);
	}
});

const WRONG_SUBSCRIBE: [what: string, part: Bytes, reasonCode: number][] = [
	["Subscription Identifier 0", [0x0b, 0], ReasonCode.protocolError],
	["two Subscription Identifiers", [0x0b, 1, 0x0b, 2], ReasonCode.protocolError],
	["a Reason String", REASON, ReasonCode.protocolError],
	["a Subscription Identifier with more bytes than it needs", [0x0b, 0x81, 0x00], ReasonCode.malformedPacket],
	["a Subscription Identifier of five bytes", [0x0b, 0x80, 0x80, 0x80, 0x80, 0x01], ReasonCode.malformedPacket],
	["a Subscription Identifier cut by the end of the properties", [0x0b, 0x81], ReasonCode.malformedPacket],
];
for (const [what, part, reasonCode] of WRONG_SUBSCRIBE) {
	test(`SUBSCRIBE: ${what} is refused with 0x${reasonCode.toString(16)}`, () => {
		assertChunkRefused(5, packet(0x82, u16(1), props(part), field("a"), [0]), reasonCode);
	});
}

test("UNSUBSCRIBE: filters are decoded in their order, the empty one too", () => {
	for (const version of VERSIONS) {
		const chunk = packet(0xa2, u16(0xfedc), version === 5 ? props(USER, USER) : [], field("b"), field(""), field("a/#"));
		assert.deepEqual(decodeOne(version, chunk, "unsubscribe"), { kind: "unsubscribe", packetId: 0xfedc, filters: ["b", "", "a/#"] });
	}
});

test("UNSUBSCRIBE: no filter is refused with 0x82 [MQTT-3.10.3-2] [v3 MQTT-3.10.3-2]", () => {
	for (const version of VERSIONS) assertChunkRefused(version, packet(0xa2, u16(1), none(version)), ReasonCode.protocolError);
});

test("UNSUBSCRIBE: a cut list and properties other than user properties are refused", () => {
	for (const version of VERSIONS) {
		for (const tail of [[0], [0, 5, 0x61]])
			assertChunkRefused(version, packet(0xa2, u16(1), none(version), tail), ReasonCode.malformedPacket);
	}
	assertChunkRefused(5, packet(0xa2, u16(1), props([0x0b, 1]), field("a")), ReasonCode.protocolError);
});

test("DISCONNECT: v3 has no body, and is refused with 0x81 when it has", () => {
	for (const version of [3, 4] as const) {
		assert.deepEqual(decodeOne(version, packet(0xe0), "disconnect"), { kind: "disconnect", reasonCode: 0, sessionExpirySeconds: ABSENT });
		assertChunkRefused(version, packet(0xe0, [0]), ReasonCode.malformedPacket);
	}
});

test("DISCONNECT: v5 reason and properties may be left out", () => {
	const bare = { kind: "disconnect", reasonCode: 0, sessionExpirySeconds: ABSENT } as const;
	assert.deepEqual(decodeOne(5, packet(0xe0), "disconnect"), bare);
	assert.deepEqual(decodeOne(5, packet(0xe0, [0x04]), "disconnect"), { ...bare, reasonCode: 4 });
	assert.deepEqual(decodeOne(5, packet(0xe0, [0x04], props()), "disconnect"), { ...bare, reasonCode: 4 });
	const full = packet(0xe0, [0], props(USER, [0x11, ...u32(0xffffffff)], REASON));
	assert.deepEqual(decodeOne(5, full, "disconnect"), { ...bare, sessionExpirySeconds: 0xffffffff });
});

test("DISCONNECT: v5 has the reason codes that a client may send, others are refused with 0x82 [MQTT-3.14.2-1]", () => {
	const allowed = [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
	for (let code = 0; code < 256; code++) {
		if (allowed.includes(code)) assert.equal(decodeOne(5, packet(0xe0, [code]), "disconnect").reasonCode, code);
		else assertChunkRefused(5, packet(0xe0, [code]), ReasonCode.protocolError);
	}
});

test("DISCONNECT: wrong properties are refused", () => {
	assertChunkRefused(5, packet(0xe0, [0], props([0x1c], field("other"))), ReasonCode.protocolError);
	assertChunkRefused(5, packet(0xe0, [0], props(REASON, REASON)), ReasonCode.protocolError);
	assertChunkRefused(5, packet(0xe0, [0], props([0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1])), ReasonCode.protocolError);
	assertChunkRefused(5, packet(0xe0, [0], props(ILL_FORMED)), ReasonCode.malformedPacket);
	assertChunkRefused(5, packet(0xe0, [0], [5, 0x11, 0, 0]), ReasonCode.malformedPacket);
});

test("AUTH: method and data are decoded", () => {
	const auth = decodeOne(5, packet(0xf0, [0x18], props(USER, [0x15], field("SCRAM"), REASON, [0x16], field([0, 0xff]))), "auth");
	assert.deepEqual([auth.reasonCode, auth.authenticationMethod, hex(auth.authenticationData)], [0x18, "SCRAM", "00ff"]);
	const again = decodeOne(5, packet(0xf0, [0x19], props([0x15], field("SCRAM"))), "auth");
	assert.deepEqual([again.reasonCode, again.authenticationData], [0x19, undefined]);
});

test("AUTH: a client may send 0x18 and 0x19, other reason codes are refused with 0x82 [MQTT-3.15.2-1]", () => {
	for (let code = 0; code < 256; code++) {
		if (code === 0x18 || code === 0x19) continue;
		assertChunkRefused(5, packet(0xf0, [code], props([0x15], field("m"))), ReasonCode.protocolError);
	}
	assertChunkRefused(5, packet(0xf0), ReasonCode.protocolError);
});

test("AUTH: without Authentication Method it is refused with 0x82, also with data", () => {
	for (const tail of [[], props(), props([0x16], field("d"))]) assertChunkRefused(5, packet(0xf0, [0x18], tail), ReasonCode.protocolError);
});

test("AUTH: wrong properties are refused", () => {
	const method = bytes([0x15], field("m"));
	assertChunkRefused(5, packet(0xf0, [0x18], props(method, method)), ReasonCode.protocolError);
	assertChunkRefused(5, packet(0xf0, [0x18], props(method, [0x11, 0, 0, 0, 1])), ReasonCode.protocolError);
	assertChunkRefused(5, packet(0xf0, [0x18], props([0x15], field([0xff]))), ReasonCode.malformedPacket);
});
