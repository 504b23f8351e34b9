/** Which slot of a Redis Cluster a command belongs to. Knows where commands have their keys, and nothing of nodes. */

import type { Argument } from "./link.ts";

export const SLOTS = 16_384;

const TABLE = Uint16Array.from({ length: 256 }, (_, byte) => {
	let crc = byte << 8;
	for (let bit = 0; bit < 8; bit++) crc = (crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0);
	return crc;
});

/**
 * Where commands without a key go. They must always meet the same server while it lives: TIME is compared with the leases of
 * replicas, whose keys have this tag, and two servers have two clocks.
 */
const KEYLESS = slotOf("{reps}");
const WITHOUT_KEY = new Set(["TIME", "INFO", "CONFIG", "PING", "CLIENT", "CLUSTER", "SCRIPT", "WAIT"]);
const SECOND_IS_KEY = new Set(["XGROUP", "XINFO", "OBJECT", "MEMORY", "BITOP"]);

/** The slot of a command: that of its first key. PUBLISH goes by its channel, which keeps the order of what is published there. */
export function slotOfCommand(name: string, args: readonly Argument[]): number {
	const key = keyOf(name, args);
	return key === undefined ? KEYLESS : slotOf(key);
}

function keyOf(name: string, args: readonly Argument[]): Argument | undefined {
	if (name === "EVALSHA" || name === "EVAL") return Number(args[1]) > 0 ? args[2] : undefined;
	if (name === "XREAD" || name === "XREADGROUP") return args[args.indexOf("STREAMS") + 1];
	if (WITHOUT_KEY.has(name)) return undefined;
	return SECOND_IS_KEY.has(name) ? args[1] : args[0];
}

/** The slot of a key: by what stands in its first pair of braces, if that is not empty. */
export function slotOf(key: Argument): number {
	const bytes = typeof key === "object" ? key : Buffer.from(String(key));
	const open = bytes.indexOf(0x7b);
	const close = open < 0 ? -1 : bytes.indexOf(0x7d, open + 1);
	return close > open + 1 ? crc16(bytes, open + 1, close) % SLOTS : crc16(bytes, 0, bytes.length) % SLOTS;
}

/** CRC-16/XMODEM, as the specification of Redis Cluster asks. */
function crc16(bytes: Uint8Array, start: number, end: number): number {
	let crc = 0;
	for (let at = start; at < end; at++) crc = ((crc << 8) & 0xffff) ^ (TABLE[(crc >> 8) ^ (bytes[at] as number)] as number);
	return crc;
}
