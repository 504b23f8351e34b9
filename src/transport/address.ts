/** Textual IP addresses in the one form that rules, limits and logs compare. Knows nothing of sockets. */

import { isIPv4 } from "node:net";

const MAPPED = /^::ffff:(.+)$/;
const MAPPED_HEX = /^([0-9a-f]{1,4}):([0-9a-f]{1,4})$/;

/**
 * Canonical form of an address that a runtime reports: lower case, without zone, and IPv4 as IPv4 where a dual-stack
 * listener shows it as IPv6 (`::ffff:127.0.0.1`).
 */
export function canonicalAddress(address: string): string {
	const plain = address.replace(/%.*$/, "").toLowerCase();
	const mapped = MAPPED.exec(plain)?.[1];
	if (mapped === undefined) return plain;
	if (isIPv4(mapped)) return mapped;
	const [, high = "", low = ""] = MAPPED_HEX.exec(mapped) ?? [];
	if (high === "") return plain;
	const [a, b] = [Number.parseInt(high, 16), Number.parseInt(low, 16)];
	return `${a >> 8}.${a & 0xff}.${b >> 8}.${b & 0xff}`;
}

/** Whether an address can only be that of the machine itself. */
export function isLoopback(address: string): boolean {
	const canonical = canonicalAddress(address);
	return canonical === "::1" || (canonical.startsWith("127.") && isIPv4(canonical));
}
