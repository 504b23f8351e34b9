/** Writes packets byte by byte, right or wrong, and asks the decoder about them. */

import assert from "node:assert/strict";
import { PacketDecoder } from "../../src/mqtt/decoder.ts";
import type { ClientPacket, ProtocolVersion } from "../../src/mqtt/packet.ts";
import { MqttError, reasonName } from "../../src/mqtt/reason_code.ts";
import { TopicTable } from "../../src/mqtt/topic.ts";

export type Bytes = Uint8Array | readonly number[];

/** Byte arrays, one behind the other. */
export function bytes(...parts: Bytes[]): Uint8Array {
	return Uint8Array.from(parts.flatMap((part) => [...part]));
}

export function u16(value: number): number[] {
	return [value >> 8, value & 0xff];
}

export function u32(value: number): number[] {
	return [...u16(value >>> 16), ...u16(value & 0xffff)];
}

/** A variable byte integer in its shortest form. */
export function vbi(value: number): number[] {
	return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...vbi(value >>> 7)];
}

/** A length-prefixed string or binary field. */
export function field(value: string | Bytes): Uint8Array {
	const content = typeof value === "string" ? new TextEncoder().encode(value) : value;
	return bytes(u16(content.length), content);
}

/** A property block. */
export function props(...parts: Bytes[]): Uint8Array {
	const content = bytes(...parts);
	return bytes(vbi(content.length), content);
}

/** A packet with the right Remaining Length. */
export function packet(first: number, ...parts: Bytes[]): Uint8Array {
	const body = bytes(...parts);
	return bytes([first], vbi(body.length), body);
}

/** A CONNECT without anything that can be left out. */
export function plainConnect(version: ProtocolVersion): Uint8Array {
	return packet(0x10, field(version === 3 ? "MQIsdp" : "MQTT"), [version, 2], u16(60), version === 5 ? [0] : [], field("c"));
}

/** A decoder, and a table of its own so that no test depends on another's topics. */
export function newDecoder(maxPacketSize = 268_435_460): PacketDecoder {
	return new PacketDecoder({ maxPacketSize, topics: new TopicTable() });
}

/** A decoder that has had its CONNECT. */
export function connected(version: ProtocolVersion, maxPacketSize?: number): PacketDecoder {
	const decoder = newDecoder(maxPacketSize);
	decoder.decode(plainConnect(version), () => true);
	return decoder;
}

/** What the decoder makes of bytes that a connected client sends. */
export function decodeAll(version: ProtocolVersion, chunk: Uint8Array): ClientPacket[] {
	const packets: ClientPacket[] = [];
	connected(version).decode(chunk, (decoded) => packets.push(decoded) > 0);
	return packets;
}

/** The only packet in the bytes, which must be of this kind. */
export function decodeOne<K extends ClientPacket["kind"]>(
	version: ProtocolVersion,
	chunk: Uint8Array,
	kind: K,
): Extract<ClientPacket, { kind: K }> {
	const packets = decodeAll(version, chunk);
	assert.equal(packets.length, 1, "exactly one packet is decoded");
	const [only] = packets;
	assert.equal(only?.kind, kind);
	return only as Extract<ClientPacket, { kind: K }>;
}

/** The packet of a first chunk, which must be one CONNECT. */
export function decodeConnect(chunk: Uint8Array): Extract<ClientPacket, { kind: "connect" }> {
	const packets: ClientPacket[] = [];
	newDecoder().decode(chunk, (decoded) => packets.push(decoded) > 0);
	assert.equal(packets.length, 1, "exactly one packet is decoded");
	assert.equal(packets[0]?.kind, "connect");
	return packets[0] as Extract<ClientPacket, { kind: "connect" }>;
}

/** Asserts that a call throws `MqttError` with this reason code. */
export function assertRefused(run: () => unknown, reasonCode: number): void {
	let thrown: unknown;
	try {
		run();
	} catch (error) {
		thrown = error;
	}
	assert.ok(thrown instanceof MqttError, `MqttError ${reasonName(reasonCode)} is thrown, not ${thrown}`);
	assert.equal(reasonName(thrown.reasonCode), reasonName(reasonCode), thrown.message);
}

/** Asserts that a connected client's bytes are refused, and no packet is decoded. */
export function assertChunkRefused(version: ProtocolVersion, chunk: Uint8Array, reasonCode: number): void {
	const decoder = connected(version);
	assertRefused(
		() =>
			decoder.decode(chunk, (decoded) => {
				assert.fail(`${decoded.kind} was decoded`);
			}),
		reasonCode,
	);
}

/** Hexadecimal, for comparing bytes of whatever class. */
export function hex(content: Uint8Array | undefined): string | undefined {
	return content === undefined ? undefined : Array.from(content, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
