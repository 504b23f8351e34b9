/**
 * Why inbound bytes do not go through mqtt-packet: each test shows one thing that version 9 takes or loses, and that the
 * decoder does neither. If one of them fails because mqtt-packet has improved, its reason here is gone.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { type IConnectPacket, type IPublishPacket, type Packet, parser } from "mqtt-packet";
import type { ProtocolVersion } from "../../src/mqtt/packet.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import {
	assertChunkRefused,
	assertRefused,
	bytes,
	decodeConnect,
	decodeOne,
	field,
	hex,
	newDecoder,
	packet,
	plainConnect,
	props,
	u16,
} from "./wire.ts";

/** What mqtt-packet makes of the bytes of a client that is connected with this version. */
function theirs(version: ProtocolVersion | undefined, chunk: Uint8Array): Packet[] {
	const packets: Packet[] = [];
	const decoder = parser(version === undefined ? {} : { protocolVersion: version });
	decoder.on("packet", (decoded) => packets.push(decoded));
	decoder.on("error", (error) => assert.fail(error));
	decoder.parse(Buffer.from(chunk));
	return packets;
}

test("mqtt-packet: loses the order of user properties [MQTT-3.3.2-18]", () => {
	const pair = (name: string, value: string) => bytes([0x26], field(name), field(value));
	const connect = packet(0x10, field("MQTT"), [5, 2], u16(60), props(pair("b", "1"), pair("a", "2"), pair("b", "3")), field("c"));
	const [first] = theirs(undefined, connect) as IConnectPacket[];
	assert.deepEqual({ ...first?.properties?.userProperties }, { b: ["1", "3"], a: "2" });
	assert.deepEqual(decodeConnect(connect).properties.userProperties, [
		["b", "1"],
		["a", "2"],
		["b", "3"],
	]);
});

test("mqtt-packet: replaces ill-formed UTF-8 by U+FFFD, so that two topics become one [MQTT-1.5.4-1]", () => {
	const publish = packet(0x30, field([0x61, 0xff]));
	assert.equal((theirs(4, publish)[0] as IPublishPacket).topic, "a\ufffd");
	assertChunkRefused(4, publish, ReasonCode.malformedPacket);
});

test("mqtt-packet: takes U+0000 in topics [MQTT-1.5.4-2]", () => {
	const publish = packet(0x30, field([0x61, 0]));
	assert.equal((theirs(4, publish)[0] as IPublishPacket).topic, "a\0");
	assertChunkRefused(4, publish, ReasonCode.malformedPacket);
});

test("mqtt-packet: takes variable byte integers with more bytes than they need [MQTT-1.5.5-1]", () => {
	const pingreq = bytes([0xc0, 0x80, 0x00]);
	assert.equal(theirs(4, pingreq).length, 1);
	assertChunkRefused(4, pingreq, ReasonCode.malformedPacket);
});

test("mqtt-packet: takes properties twice that may stand once", () => {
	const publish = packet(0x30, field("a"), props([0x23, 0, 1], [0x23, 0, 2]));
	assert.deepEqual((theirs(5, publish)[0] as IPublishPacket).properties?.topicAlias, [1, 2]);
	assertChunkRefused(5, publish, ReasonCode.protocolError);
});

test("mqtt-packet: takes properties in packets that may not have them", () => {
	const publish = packet(0x30, field("a"), props([0x13, 0, 1]));
	assert.equal(theirs(5, publish).length, 1);
	assertChunkRefused(5, publish, ReasonCode.protocolError);
});

test("mqtt-packet: takes a Subscription Identifier from a client [MQTT-3.3.4-6]", () => {
	const publish = packet(0x30, field("a"), props([0x0b, 1]));
	assert.equal(theirs(5, publish).length, 1);
	assertChunkRefused(5, publish, ReasonCode.protocolError);
});

test("mqtt-packet: reads fields from the next packet", () => {
	const cut = bytes(packet(0x32, field("a")), packet(0xc0));
	assert.equal(theirs(4, cut)[0]?.messageId, 0xc000);
	assertChunkRefused(4, cut, ReasonCode.malformedPacket);
});

test("mqtt-packet: takes a property block that goes on beyond the packet", () => {
	const publish = bytes(packet(0x30, field("a"), [5, 0x02, 0, 0]), [0, 7]);
	assert.equal((theirs(5, publish)[0] as IPublishPacket).properties?.messageExpiryInterval, 7);
	assertChunkRefused(5, publish, ReasonCode.malformedPacket);
});

test("mqtt-packet: does not see bytes behind the last field", () => {
	const puback = packet(0x40, u16(1), [9, 9]);
	assert.equal(theirs(4, puback).length, 1);
	assertChunkRefused(4, puback, ReasonCode.malformedPacket);
});

test("mqtt-packet: takes packet id 0 [v3 MQTT-2.3.1-1]", () => {
	const publish = packet(0x32, field("a"), u16(0));
	assert.equal(theirs(4, publish)[0]?.messageId, 0);
	assertChunkRefused(4, publish, ReasonCode.malformedPacket);
});

test("mqtt-packet: takes DUP with QoS 0 [MQTT-3.3.1-2]", () => {
	const publish = packet(0x38, field("a"));
	assert.equal(theirs(4, publish).length, 1);
	assertChunkRefused(4, publish, ReasonCode.malformedPacket);
});

test("mqtt-packet: takes Will QoS 3 [MQTT-3.1.2-12]", () => {
	const connect = packet(0x10, field("MQTT"), [4, 0x1e], u16(60), field("c"), field("w"), field("gone"));
	assert.equal((theirs(undefined, connect)[0] as IConnectPacket).will?.qos, 3);
	assertRefused(() => newDecoder().decode(connect, () => true), ReasonCode.malformedPacket);
});

test("mqtt-packet: takes the protocol name of one version with the level of another [MQTT-3.1.2-1]", () => {
	const connect = packet(0x10, field("MQTT"), [3, 2], u16(60), field("c"));
	assert.equal(theirs(undefined, connect).length, 1);
	assertRefused(() => newDecoder().decode(connect, () => true), ReasonCode.unsupportedProtocolVersion);
});

test("mqtt-packet: takes packets before CONNECT, and those of a server [MQTT-3.1.0-1]", () => {
	const pingresp = packet(0xd0);
	assert.equal(theirs(undefined, pingresp).length, 1);
	assertRefused(() => newDecoder().decode(pingresp, () => true), ReasonCode.protocolError);
	assertChunkRefused(4, pingresp, ReasonCode.protocolError);
});

test("mqtt-packet: takes requests without a filter [MQTT-3.8.3-2] [MQTT-3.10.3-2]", () => {
	for (const first of [0x82, 0xa2]) {
		const request = packet(first, u16(1));
		assert.equal(theirs(4, request).length, 1);
		assertChunkRefused(4, request, ReasonCode.protocolError);
	}
});

test("mqtt-packet: reads the reason code of an empty DISCONNECT from what follows", () => {
	const chunk = bytes(packet(0xe0), [0x04]);
	const decoder = parser({ protocolVersion: 5 });
	let reasonCode: number | undefined;
	decoder.on("packet", (decoded) => {
		if (decoded.cmd === "disconnect") reasonCode = decoded.reasonCode;
	});
	decoder.parse(Buffer.from(chunk));
	assert.equal(reasonCode, 0x04);
	assert.equal(decodeOne(5, packet(0xe0), "disconnect").reasonCode, 0);
});

test("mqtt-packet: has no size limit: it holds whatever a header announces", () => {
	const decoder = parser({ protocolVersion: 4 });
	const held = decoder.parse(Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1]));
	assert.equal(held, 2);
	const ours = newDecoder(1 << 20);
	ours.decode(plainConnect(4), () => true);
	assertRefused(() => ours.decode(bytes([0x30, 0xff, 0xff, 0xff, 0x7f]), () => true), ReasonCode.packetTooLarge);
});

test("mqtt-packet: what it does right is done alike", () => {
	const publish = packet(0x33, field("a"), u16(7), [1, 2]);
	const [decoded] = theirs(4, publish) as IPublishPacket[];
	const ours = decodeOne(4, publish, "publish");
	assert.deepEqual(
		[decoded?.topic, decoded?.messageId, decoded?.qos, decoded?.retain],
		[ours.topic?.name, ours.packetId, ours.qos, ours.retain],
	);
	assert.equal(hex(decoded?.payload as Buffer), hex(ours.payload));
});
