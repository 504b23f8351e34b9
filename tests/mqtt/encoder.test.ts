import assert from "node:assert/strict";
import { test } from "node:test";
import { type Packet, parser } from "mqtt-packet";
import { encodePacket } from "../../src/mqtt/encoder.ts";
import type { ConnackProperties, ProtocolVersion, ServerPacket } from "../../src/mqtt/packet.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { bytes, field, hex, packet, props, u16, u32 } from "./wire.ts";

const UNLIMITED = Number.POSITIVE_INFINITY;

function encode(of: ServerPacket, version: ProtocolVersion, maximumPacketSize = UNLIMITED): string | undefined {
	return hex(encodePacket(of, version, maximumPacketSize));
}

function connack(properties: ConnackProperties, reasonCode: ReasonCode = 0): ServerPacket {
	return { kind: "connack", reasonCode, sessionPresent: false, properties };
}

test("encodePacket: a v5 CONNACK without properties is five bytes, its flags are 0 or 1 [MQTT-3.2.2-1]", () => {
	assert.equal(encode({ kind: "connack", reasonCode: 0, sessionPresent: false }, 5), "2003000000");
	assert.equal(encode({ kind: "connack", reasonCode: 0, sessionPresent: true }, 5), "2003010000");
	assert.equal(encode({ kind: "connack", reasonCode: 0x87, sessionPresent: false }, 5), "2003008700");
});

test("encodePacket: a v5 CONNACK carries every property that is given, and none that is not", () => {
	const properties: Required<ConnackProperties> = {
		sessionExpirySeconds: 0xffffffff,
		receiveMaximum: 20,
		maximumPacketSize: 0x01020304,
		assignedClientId: "id-é",
		topicAliasMaximum: 0,
		reasonString: "why",
		serverKeepAliveSeconds: 30,
		responseInformation: "answers/",
		authenticationMethod: "SCRAM",
		authenticationData: Uint8Array.of(0, 255),
	};
	const expected = packet(
		0x20,
		[0, 0],
		props(
			[0x11, ...u32(0xffffffff)],
			[0x21, ...u16(20)],
			[0x27, ...u32(0x01020304)],
			bytes([0x12], field("id-é")),
			[0x22, 0, 0],
			bytes([0x1f], field("why")),
			[0x13, ...u16(30)],
			bytes([0x1a], field("answers/")),
			bytes([0x15], field("SCRAM")),
			bytes([0x16], field([0, 255])),
		),
	);
	assert.equal(encode(connack(properties), 5), hex(expected));
	for (const key of Object.keys(properties)) {
		const { [key as keyof ConnackProperties]: _, ...others } = properties;
		const without = encodePacket(connack(others), 5, UNLIMITED);
		assert.ok(without.length < expected.length, `${key} is left out`);
	}
});

test("encodePacket: a CONNACK leaves its Reason String out when that would oversize it [MQTT-3.2.2-19] [MQTT-3.2.2-20]", () => {
	const refused = connack({ reasonString: "because", receiveMaximum: 5 }, ReasonCode.notAuthorized);
	const bare = connack({ receiveMaximum: 5 }, ReasonCode.notAuthorized);
	const size = encodePacket(refused, 5, UNLIMITED).length;
	assert.equal(encodePacket(refused, 5, size).length, size);
	assert.equal(encode(refused, 5, size - 1), encode(bare, 5));
	// What is too large without it is answered as it is, for the caller to judge.
	assert.equal(encode(refused, 5, 2), encode(bare, 5));
	assert.equal(encode(bare, 5, 2), encode(bare, 5));
});

test("encodePacket: a v3 CONNACK has a return code and no properties [v3 MQTT-3.2.2-6]", () => {
	const code = (reasonCode: ReasonCode) => encode(connack({ reasonString: "why", receiveMaximum: 5 }, reasonCode), 4);
	assert.equal(code(ReasonCode.success), "20020000");
	assert.equal(code(ReasonCode.unsupportedProtocolVersion), "20020001");
	assert.equal(code(ReasonCode.clientIdentifierNotValid), "20020002");
	assert.equal(code(ReasonCode.serverUnavailable), "20020003");
	assert.equal(code(ReasonCode.badUserNameOrPassword), "20020004");
	assert.equal(code(ReasonCode.notAuthorized), "20020005");
	assert.throws(() => code(ReasonCode.packetTooLarge), RangeError);
});

test("encodePacket: Session Present is sent to 3.1.1 and 5.0 clients; 3.1 has a reserved byte there", () => {
	const present: ServerPacket = { kind: "connack", reasonCode: 0, sessionPresent: true };
	assert.equal(encode(present, 3), "20020000");
	assert.equal(encode(present, 4), "20020100");
	assert.equal(encode(present, 5), "2003010000");
});

test("encodePacket: SUBACK has the codes in the order of the filters [MQTT-3.9.3-1] [v3 MQTT-3.9.3-1]", () => {
	const suback: ServerPacket = { kind: "suback", packetId: 0xfedc, reasonCodes: [2, 0, 1, 0x80] };
	assert.equal(encode(suback, 5), "9007fedc0002000180");
	assert.equal(encode(suback, 4), "9006fedc02000180");
	assert.equal(encode(suback, 3), "9006fedc02000180");
});

test("encodePacket: v3 SUBACK has 0x80 for every failure [v3 MQTT-3.9.3-2]", () => {
	assert.equal(encode({ kind: "suback", packetId: 1, reasonCodes: [0x87, 1, 0x8f, 0x97] }, 4), "9006000180018080");
	assert.equal(encode({ kind: "suback", packetId: 1, reasonCodes: [0x87, 1, 0x8f, 0x97] }, 5), "900700010087018f97");
});

test("encodePacket: UNSUBACK has codes in the order of the filters for v5 and none for v3 [MQTT-3.11.3-1]", () => {
	const unsuback: ServerPacket = { kind: "unsuback", packetId: 0xfedc, reasonCodes: [0, 0x11, 0x8f] };
	assert.equal(encode(unsuback, 5), "b006fedc0000118f");
	assert.equal(encode(unsuback, 4), "b002fedc");
	assert.equal(encode(unsuback, 3), "b002fedc");
});

test("encodePacket: SUBACK and UNSUBACK never have a reason string or user property [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]", () => {
	for (const kind of ["suback", "unsuback"] as const) {
		assert.equal(encodePacket({ kind, packetId: 1, reasonCodes: [0] }, 5, UNLIMITED)[4], 0, "the property length is 0");
	}
});

test("encodePacket: a thousand SUBACK codes are encoded", () => {
	const encoded = encodePacket({ kind: "suback", packetId: 1, reasonCodes: new Array(1000).fill(1) }, 5, UNLIMITED);
	assert.equal(encoded.length, 1006);
	assert.ok(encoded.subarray(6).every((code) => code === 1));
});

test("encodePacket: acknowledgements are those of writeAck", () => {
	assert.equal(encode({ kind: "puback", packetId: 7, reasonCode: 0 }, 5), "40020007");
	assert.equal(encode({ kind: "pubrec", packetId: 7, reasonCode: 0x97 }, 5), "500400079700");
	assert.equal(encode({ kind: "pubrel", packetId: 7, reasonCode: 0x92 }, 4), "62020007");
	assert.equal(encode({ kind: "pubcomp", packetId: 7, reasonCode: 0 }, 3), "70020007");
});

test("encodePacket: PINGRESP is two bytes for every version", () => {
	for (const version of [3, 4, 5] as const) assert.equal(encode({ kind: "pingresp" }, version), "d000");
});

test("encodePacket: DISCONNECT has a reason code and no Session Expiry Interval [MQTT-3.14.2-2]", () => {
	assert.equal(encode({ kind: "disconnect", reasonCode: 0x8e }, 5), "e0028e00");
	const explained: ServerPacket = { kind: "disconnect", reasonCode: 0x8b, reasonString: "restart" };
	assert.equal(encode(explained, 5), hex(packet(0xe0, [0x8b], props([0x1f], field("restart")))));
});

test("encodePacket: DISCONNECT leaves its Reason String out when that would oversize it [MQTT-3.14.2-3] [MQTT-3.14.2-4]", () => {
	const explained: ServerPacket = { kind: "disconnect", reasonCode: 0x8b, reasonString: "restart" };
	assert.equal(encode(explained, 5, 14), hex(packet(0xe0, [0x8b], props([0x1f], field("restart")))));
	assert.equal(encode(explained, 5, 13), "e0028b00");
});

test("encodePacket: AUTH has method and data, and no reason string or user property [MQTT-3.15.2-2] [MQTT-3.15.2-3]", () => {
	const method = bytes([0x15], field("SCRAM"));
	const challenge: ServerPacket = {
		kind: "auth",
		reasonCode: 0x18,
		authenticationMethod: "SCRAM",
		authenticationData: Uint8Array.of(0, 255),
	};
	assert.equal(encode(challenge, 5), hex(packet(0xf0, [0x18], props(method, [0x16], field([0, 255])))));
	assert.equal(encode({ kind: "auth", reasonCode: 0, authenticationMethod: "SCRAM" }, 5), hex(packet(0xf0, [0], props(method))));
});

test("encodePacket: DISCONNECT and AUTH of a v3 client are a RangeError", () => {
	for (const version of [3, 4] as const) {
		assert.throws(() => encodePacket({ kind: "disconnect", reasonCode: 0x8e }, version, UNLIMITED), RangeError);
		assert.throws(() => encodePacket({ kind: "auth", reasonCode: 0x18, authenticationMethod: "m" }, version, UNLIMITED), RangeError);
	}
});

test("encodePacket: mqtt-packet reads back what it encodes", () => {
	const packets: ServerPacket[] = [
		connack({ assignedClientId: "é", maximumPacketSize: 9 }),
		{ kind: "suback", packetId: 9, reasonCodes: [0, 0x87] },
		{ kind: "unsuback", packetId: 9, reasonCodes: [0x11] },
		{ kind: "disconnect", reasonCode: 0x95, reasonString: "too large" },
		{ kind: "auth", reasonCode: 0x18, authenticationMethod: "m" },
	];
	const read: Packet[] = [];
	const theirs = parser({ protocolVersion: 5 });
	theirs.on("packet", (decoded) => read.push(decoded));
	theirs.on("error", (error) => assert.fail(error));
	for (const one of packets) theirs.parse(encodePacket(one, 5, UNLIMITED) as Buffer);
	assert.deepEqual(
		read.map((decoded) => decoded.cmd),
		packets.map((one) => one.kind),
	);
});
