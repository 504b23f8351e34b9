/** What the tests of MQTT 3.1 and 3.1.1 share: the two versions, and a CONNECT byte by byte. */

import { type Bytes, field, packet, u16 } from "../mqtt/wire.ts";

/** Protocol levels and names of the versions before 5. */
export const V3_VERSIONS = [
	{ version: 3, name: "MQTT 3.1", protocol: "MQIsdp" },
	{ version: 4, name: "MQTT 3.1.1", protocol: "MQTT" },
] as const;

export type V3Version = (typeof V3_VERSIONS)[number]["version"];

/** Bits of the CONNECT flags. */
export const FLAG = { reserved: 0x01, clean: 0x02, will: 0x04, willQos1: 0x08, willRetain: 0x20, password: 0x40, username: 0x80 } as const;

/** A CONNECT with keep alive 0 and this payload, right or wrong. */
export function connectBytes(version: V3Version, flags: number, ...payload: Bytes[]): Uint8Array {
	return packet(0x10, field(version === 3 ? "MQIsdp" : "MQTT"), [version, flags], u16(0), ...payload);
}

/** Byte sequences that are not MQTT strings, with what is wrong with each. */
export const BAD_STRINGS: readonly (readonly [what: string, bytes: readonly number[]])[] = [
	["a continuation byte alone", [0x61, 0x80]],
	["a sequence cut short", [0x61, 0xe2, 0x82]],
	["an overlong slash", [0xc0, 0xaf]],
	["half a surrogate pair", [0xed, 0xa0, 0x80]],
	["a code point above U+10FFFF", [0xf4, 0x90, 0x80, 0x80]],
	["U+0000", [0x61, 0x00, 0x62]],
];
