import assert from "node:assert/strict";
import { test } from "node:test";
import type { ProtocolVersion } from "../../src/mqtt/packet.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { assertRefused, type Bytes, bytes, decodeConnect, field, hex, newDecoder, packet, props, u16, u32 } from "./wire.ts";

const VERSIONS: readonly ProtocolVersion[] = [3, 4, 5];
const NAME: Record<ProtocolVersion, string> = { 3: "MQIsdp", 4: "MQTT", 5: "MQTT" };

/** A CONNECT with these flags, and these parts behind keep alive and (empty) properties. */
function connect(version: ProtocolVersion, flags: number, ...payload: Bytes[]): Uint8Array {
	return packet(0x10, field(NAME[version]), [version, flags], u16(60), version === 5 ? [0] : [], ...payload);
}

function connectWithProperties(...parts: Bytes[]): Uint8Array {
	return packet(0x10, field("MQTT"), [5, 2], u16(60), props(...parts), field("c"));
}

function connectWithWillProperties(...parts: Bytes[]): Uint8Array {
	return packet(0x10, field("MQTT"), [5, 0x06], u16(60), [0], field("c"), props(...parts), field("w"), field("gone"));
}

/** Asserts that it is refused, and that the version to answer in is known. */
function assertConnectRefused(chunk: Uint8Array, reasonCode: number, version: ProtocolVersion = 5): void {
	const decoder = newDecoder();
	assertRefused(() => decoder.decode(chunk, () => assert.fail("a packet was decoded")), reasonCode);
	assert.equal(decoder.protocolVersion, version);
}

test("CONNECT: each version is decoded with its fields, and the decoder knows the version", () => {
	for (const version of VERSIONS) {
		const decoder = newDecoder();
		assert.equal(decoder.protocolVersion, 4);
		decoder.decode(connect(version, 0xc2, field("client"), field("user"), field([0, 0xff])), (decoded) => {
			assert.equal(decoded.kind, "connect");
			if (decoded.kind !== "connect") return false;
			assert.equal(decoded.protocolVersion, version);
			assert.equal(decoded.cleanStart, true);
			assert.equal(decoded.keepAliveSeconds, 60);
			assert.equal(decoded.clientId, "client");
			assert.equal(decoded.username, "user");
			assert.equal(hex(decoded.password), "00ff");
			assert.equal(decoded.will, undefined);
			return true;
		});
		assert.equal(decoder.protocolVersion, version);
	}
});

test("CONNECT: a protocol name or level that is none of ours is refused with 0x84 [MQTT-3.1.2-1] [MQTT-3.1.2-2] [v3 MQTT-3.1.2-1] [v3 MQTT-3.1.2-2]", () => {
	const wrong: [name: string, level: number][] = [
		["MQTT", 3],
		["MQTT", 6],
		["MQTT", 0],
		["MQTT", 0x84],
		["MQIsdp", 4],
		["MQIsdp", 5],
		["mqtt", 4],
		["", 4],
		["MQTTX", 5],
	];
	for (const [name, level] of wrong) {
		assertConnectRefused(packet(0x10, field(name), [level, 2], u16(60), [0], field("c")), ReasonCode.unsupportedProtocolVersion, 4);
	}
	assertConnectRefused(packet(0x10, field([0xff]), [4, 2], u16(60), field("c")), ReasonCode.malformedPacket, 4);
});

test("CONNECT: the reserved flag is refused with 0x81 [MQTT-3.1.2-3] [v3 MQTT-3.1.2-3]", () => {
	for (const version of VERSIONS) assertConnectRefused(connect(version, 0x03, field("c")), ReasonCode.malformedPacket, version);
});

test("CONNECT: Will QoS without Will Flag is refused with 0x81 [MQTT-3.1.2-11] [v3 MQTT-3.1.2-11] [v3 MQTT-3.1.2-13]", () => {
	for (const version of VERSIONS) {
		assertConnectRefused(connect(version, 0x0a, field("c")), ReasonCode.malformedPacket, version);
		assertConnectRefused(connect(version, 0x12, field("c")), ReasonCode.malformedPacket, version);
	}
});

test("CONNECT: Will Retain without Will Flag is refused with 0x81 [MQTT-3.1.2-13] [v3 MQTT-3.1.2-15]", () => {
	for (const version of VERSIONS) assertConnectRefused(connect(version, 0x22, field("c")), ReasonCode.malformedPacket, version);
});

test("CONNECT: Will QoS 3 is refused with 0x81, with and without a will [MQTT-3.1.2-12] [v3 MQTT-3.1.2-14]", () => {
	for (const version of VERSIONS) {
		const will = bytes(field("c"), version === 5 ? [0] : [], field("w"), field("gone"));
		assertConnectRefused(connect(version, 0x1e, will), ReasonCode.malformedPacket, version);
		assertConnectRefused(connect(version, 0x1a, field("c")), ReasonCode.malformedPacket, version);
	}
});

test("CONNECT: Will Flag needs will topic and will payload, and (v5) will properties [MQTT-3.1.2-9] [v3 MQTT-3.1.2-9]", () => {
	for (const version of VERSIONS) {
		const properties = version === 5 ? [0] : [];
		const whole = decodeConnect(connect(version, 0x36, field("c"), properties, field("w/t"), field([1, 2])));
		assert.equal(whole.will?.topic.name, "w/t");
		assert.equal(hex(whole.will?.payload), "0102");
		assert.equal(whole.will?.qos, 2);
		assert.equal(whole.will?.retain, true);
		assertConnectRefused(connect(version, 0x06, field("c")), ReasonCode.malformedPacket, version);
		assertConnectRefused(connect(version, 0x06, field("c"), properties, field("w")), ReasonCode.malformedPacket, version);
		assertConnectRefused(connect(version, 0x06, field("c"), properties, field("w"), [0, 2, 1]), ReasonCode.malformedPacket, version);
	}
});

test("CONNECT: fields without their flags are refused with 0x81 [MQTT-3.1.2-16] [MQTT-3.1.2-18] [v3 MQTT-3.1.2-18] [v3 MQTT-3.1.2-20]", () => {
	for (const version of VERSIONS) {
		assertConnectRefused(connect(version, 0x02, field("c"), field("u")), ReasonCode.malformedPacket, version);
		assertConnectRefused(connect(version, 0x82, field("c"), field("u"), field("p")), ReasonCode.malformedPacket, version);
	}
});

test("CONNECT: flags without their fields are refused with 0x81 [MQTT-3.1.2-17] [MQTT-3.1.2-19] [v3 MQTT-3.1.2-19] [v3 MQTT-3.1.2-21]", () => {
	for (const version of [4, 5] as const) {
		assertConnectRefused(connect(version, 0x82, field("c")), ReasonCode.malformedPacket, version);
		assertConnectRefused(connect(version, 0xc2, field("c"), field("u")), ReasonCode.malformedPacket, version);
	}
});

test("CONNECT: a 3.1 client may leave out what its flags announce at the end, as that version says", () => {
	const neither = decodeConnect(connect(3, 0xc2, field("c")));
	assert.deepEqual([neither.username, neither.password], [undefined, undefined]);
	const noPassword = decodeConnect(connect(3, 0xc2, field("c"), field("u")));
	assert.deepEqual([noPassword.username, noPassword.password], ["u", undefined]);
	assertConnectRefused(connect(3, 0xc2, field("c"), [0]), ReasonCode.malformedPacket, 3);
});

test("CONNECT: a password without user name is refused with 0x81 for v3 and decoded for v5 [v3 MQTT-3.1.2-22]", () => {
	assertConnectRefused(connect(3, 0x42, field("c"), field("p")), ReasonCode.malformedPacket, 3);
	assertConnectRefused(connect(4, 0x42, field("c"), field("p")), ReasonCode.malformedPacket, 4);
	const v5 = decodeConnect(connect(5, 0x42, field("c"), field("p")));
	assert.equal(v5.username, undefined);
	assert.equal(hex(v5.password), "70");
});

test("CONNECT: a missing client id is refused with 0x81, any string is passed on [MQTT-3.1.3-3] [v3 MQTT-3.1.3-3]", () => {
	for (const version of VERSIONS) {
		assertConnectRefused(connect(version, 2), ReasonCode.malformedPacket, version);
		for (const id of ["", "\ufeffé 😀/+#", "x".repeat(65_535)]) assert.equal(decodeConnect(connect(version, 2, field(id))).clientId, id);
	}
});

const ILL_FORMED: Bytes[] = [[0xff], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0x61, 0x00], [0xe2, 0x82]];
const STRINGS: [name: string, make: (version: ProtocolVersion, content: Bytes) => Uint8Array, clauses: string][] = [
	["client id", (version, content) => connect(version, 2, field(content)), "[MQTT-3.1.3-4] [v3 MQTT-3.1.3-4]"],
	["user name", (version, content) => connect(version, 0x82, field("c"), field(content)), "[MQTT-3.1.3-12] [v3 MQTT-3.1.3-11]"],
	[
		"will topic",
		(version, content) => connect(version, 6, field("c"), version === 5 ? [0] : [], field(content), field("")),
		"[MQTT-3.1.3-11] [v3 MQTT-3.1.3-10]",
	],
];
for (const [name, make, clauses] of STRINGS) {
	test(`CONNECT: an ill-formed ${name} is refused with 0x81 [MQTT-1.5.4-1] [MQTT-1.5.4-2] ${clauses}`, () => {
		for (const version of VERSIONS) {
			for (const content of ILL_FORMED) assertConnectRefused(make(version, content), ReasonCode.malformedPacket, version);
		}
	});
}

test("CONNECT: a will topic with a wildcard, or none, is refused with 0x90 [MQTT-4.7.0-1] [MQTT-4.7.3-1] [v3 MQTT-4.7.1-1]", () => {
	for (const version of VERSIONS) {
		for (const name of ["a/+", "#", ""]) {
			const chunk = connect(version, 6, field("c"), version === 5 ? [0] : [], field(name), field("gone"));
			assertConnectRefused(chunk, ReasonCode.topicNameInvalid, version);
		}
	}
});

test("CONNECT: a will does not keep the chunk that it came in", () => {
	const chunk = connectWithWillProperties([0x26], field("k"), field("v"));
	const { will } = decodeConnect(chunk);
	chunk.fill(0xff);
	assert.equal(hex(will?.payload), hex(new TextEncoder().encode("gone")));
	assert.equal(hex(will?.forwarded), "2600016b000176");
	assert.notEqual(will?.payload.buffer, chunk.buffer);
});

test("CONNECT: v3 has the properties' defaults, and a session that never expires without CleanSession", () => {
	for (const version of [3, 4] as const) {
		const clean = decodeConnect(connect(version, 2, field("c")));
		assert.equal(clean.properties.sessionExpirySeconds, 0);
		const persistent = decodeConnect(connect(version, 0, field("c")));
		assert.equal(persistent.cleanStart, false);
		assert.deepEqual(persistent.properties, { ...clean.properties, sessionExpirySeconds: 0xffffffff });
	}
});

test("CONNECT: v5 without properties has the defaults of the specification", () => {
	assert.deepEqual(decodeConnect(connect(5, 0, field("c"))).properties, {
		sessionExpirySeconds: 0,
		receiveMaximum: 65_535,
		maximumPacketSize: Number.POSITIVE_INFINITY,
		topicAliasMaximum: 0,
		requestResponseInformation: false,
		requestProblemInformation: true,
		userProperties: [],
		authenticationMethod: undefined,
		authenticationData: undefined,
	});
});

test("CONNECT: v5 properties are decoded, user properties in their order", () => {
	const pair = (name: string, value: string) => bytes([0x26], field(name), field(value));
	const { properties } = decodeConnect(
		connectWithProperties(
			pair("b", "1"),
			[0x11, ...u32(0xfffffffe)],
			[0x21, 0, 9],
			pair("a", "2"),
			[0x27, ...u32(0xffffffff)],
			[0x22, 0xff, 0xff],
			[0x19, 1],
			[0x17, 0],
			bytes([0x15], field("SCRAM")),
			bytes([0x16], field([0, 1])),
			pair("b", "é"),
		),
	);
	assert.deepEqual(
		{ ...properties, authenticationData: hex(properties.authenticationData) },
		{
			sessionExpirySeconds: 0xfffffffe,
			receiveMaximum: 9,
			maximumPacketSize: 0xffffffff,
			topicAliasMaximum: 0xffff,
			requestResponseInformation: true,
			requestProblemInformation: false,
			userProperties: [
				["b", "1"],
				["a", "2"],
				["b", "é"],
			],
			authenticationMethod: "SCRAM",
			authenticationData: "0001",
		},
	);
});

const WRONG_PROPERTIES: [what: string, part: Bytes, reasonCode: number][] = [
	["Receive Maximum 0", [0x21, 0, 0], ReasonCode.protocolError],
	["Maximum Packet Size 0", [0x27, 0, 0, 0, 0], ReasonCode.protocolError],
	["Request Response Information 2", [0x19, 2], ReasonCode.protocolError],
	["Request Problem Information 2", [0x17, 2], ReasonCode.protocolError],
	["Authentication Data without Method", [0x16, 0, 1, 7], ReasonCode.protocolError],
	["Session Expiry Interval twice", [0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1], ReasonCode.protocolError],
	["Will Delay Interval, which belongs to the will", [0x18, 0, 0, 0, 1], ReasonCode.protocolError],
	["Topic Alias, which belongs to PUBLISH", [0x23, 0, 1], ReasonCode.protocolError],
	["Server Keep Alive, which servers send", [0x13, 0, 1], ReasonCode.protocolError],
	["a property that does not exist", [0x7f, 0], ReasonCode.malformedPacket],
	["an identifier that is not one byte", [0x80, 0x01, 0], ReasonCode.malformedPacket],
	["a value that goes beyond the property block", [0x11, 0, 0, 0], ReasonCode.malformedPacket],
	["a user property without value", [0x26, 0, 1, 0x61], ReasonCode.malformedPacket],
];
for (const [what, part, reasonCode] of WRONG_PROPERTIES) {
	test(`CONNECT: ${what} is refused with 0x${reasonCode.toString(16)}, in the words of v5`, () => {
		assertConnectRefused(connectWithProperties(part), reasonCode);
	});
}

test("CONNECT: ill-formed text in either half of a user property is refused with 0x81 [MQTT-1.5.7-1]", () => {
	for (const content of ILL_FORMED) {
		assertConnectRefused(connectWithProperties([0x26], field(content), field("v")), ReasonCode.malformedPacket);
		assertConnectRefused(connectWithProperties([0x26], field("k"), field(content)), ReasonCode.malformedPacket);
	}
});

test("CONNECT: a property length beyond the packet is refused with 0x81", () => {
	assertConnectRefused(packet(0x10, field("MQTT"), [5, 2], u16(60), [50], field("c")), ReasonCode.malformedPacket);
	assertConnectRefused(packet(0x10, field("MQTT"), [5, 2], u16(60), [0x80, 0x00], field("c")), ReasonCode.malformedPacket);
	assertConnectRefused(
		packet(0x10, field("MQTT"), [5, 2], u16(60), [0xff, 0xff, 0xff, 0xff, 0x01], field("c")),
		ReasonCode.malformedPacket,
	);
});

test("CONNECT: will properties: delay and expiry are taken out, the rest is forwarded in its order [MQTT-3.1.3-10]", () => {
	const format = [0x01, 1];
	const type = bytes([0x03], field("text/plain"));
	const response = bytes([0x08], field("answers"));
	const correlation = bytes([0x09], field([0, 255]));
	const user = bytes([0x26], field("b"), field("1"), [0x26], field("a"), field("2"));
	const parts = [type, [0x18, ...u32(30)], user, format, [0x02, ...u32(0xffffffff)], correlation, response];
	const { will } = decodeConnect(connectWithWillProperties(...parts));
	assert.equal(will?.delaySeconds, 30);
	assert.equal(will?.expirySeconds, 0xffffffff);
	assert.equal(hex(will?.forwarded), hex(bytes(type, user, format, correlation, response)));
	const none = decodeConnect(connectWithWillProperties());
	assert.deepEqual([none.will?.delaySeconds, none.will?.expirySeconds, none.will?.forwarded.length], [0, -1, 0]);
});

const WRONG_WILL_PROPERTIES: [what: string, part: Bytes, reasonCode: number][] = [
	["Topic Alias", [0x23, 0, 1], ReasonCode.protocolError],
	["Session Expiry Interval", [0x11, 0, 0, 0, 1], ReasonCode.protocolError],
	["Will Delay Interval twice", [0x18, 0, 0, 0, 1, 0x18, 0, 0, 0, 1], ReasonCode.protocolError],
	["Payload Format Indicator 2", [0x01, 2], ReasonCode.protocolError],
	["a Response Topic with a wildcard", bytes([0x08], field("a/+")), ReasonCode.protocolError],
	["an ill-formed Content Type", bytes([0x03], field([0xff])), ReasonCode.malformedPacket],
];
for (const [what, part, reasonCode] of WRONG_WILL_PROPERTIES) {
	test(`CONNECT: ${what} in the will properties is refused with 0x${reasonCode.toString(16)}`, () => {
		assertConnectRefused(connectWithWillProperties(part), reasonCode);
	});
}

test("CONNECT: a packet that ends anywhere too early is refused with 0x81 [MQTT-3.1.4-1] [v3 MQTT-3.1.4-1]", () => {
	for (const version of VERSIONS) {
		const body = connect(version, 0xf6, field("c"), version === 5 ? [0] : [], field("w"), field("gone"), field("u"), field("p")).subarray(
			2,
		);
		assert.equal(decodeConnect(packet(0x10, body)).username, "u");
		for (let length = 0; length < body.length; length++) {
			// MQTT 3.1 allows user name and password to be missing.
			if (version === 3 && (length === body.length - 3 || length === body.length - 6)) continue;
			const decoder = newDecoder();
			assertRefused(() => decoder.decode(packet(0x10, body.subarray(0, length)), () => true), ReasonCode.malformedPacket);
		}
	}
});
