/** Textual IP addresses in the one form that rules, limits and logs compare, and lists of networks. Knows nothing of sockets. */

import { BlockList, isIP, isIPv4 } from "node:net";

const MAPPED = /^::ffff:(.+)$/;
const MAPPED_HEX = /^([0-9a-f]{1,4}):([0-9a-f]{1,4})$/;
/** `192.0.2.1:443`, `[2001:db8::1]` and `[2001:db8::1]:443`. */
const WITH_PORT = /^(?:\[([^\]]*)\]|([^:]*))(?::\d{1,5})?$/;

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

/** Canonical form of an address that somebody wrote; `undefined` when it is none. */
export function parseAddress(text: string): string | undefined {
	const plain = text.replace(/%.*$/, "");
	switch (isIP(plain)) {
		case 4:
			return plain;
		case 6:
			// A URL has the shortest form of RFC 5952, whatever was written.
			return canonicalAddress(new URL(`http://[${plain}]`).hostname.slice(1, -1));
		default:
			return undefined;
	}
}

/** Like `parseAddress`, for an address that may have a port or brackets, as proxies write them. */
export function parseAddressWithPort(text: string): string | undefined {
	const [, bracketed, bare] = WITH_PORT.exec(text) ?? [];
	return parseAddress(bracketed ?? bare ?? text);
}

/** Whether an address can only be that of the machine itself. */
export function isLoopback(address: string): boolean {
	const canonical = canonicalAddress(address);
	return canonical === "::1" || (canonical.startsWith("127.") && isIPv4(canonical));
}

/**
 * The part of a canonical address that one customer of a network has: the whole of an IPv4 address, and the /64 of an IPv6
 * address, in which anybody can take as many addresses as they like.
 */
export function addressPrefix(address: string): string {
	if (!address.includes(":")) return address;
	const [head = "", tail] = address.split("::");
	const groups = head === "" ? [] : head.split(":");
	if (tail !== undefined) {
		const last = tail === "" ? [] : tail.split(":");
		while (groups.length + last.length < 8) groups.push("0");
		groups.push(...last);
	}
	return `${groups.slice(0, 4).join(":")}::/64`;
}

/** Networks and single addresses. */
export class AddressList {
	readonly #list = new BlockList();

	/**
	 * @param entries Such as `10.0.0.0/8`, `fdaa::/16` and `192.0.2.1`.
	 * @throws {TypeError} that names the entry which is none
	 */
	constructor(entries: readonly string[]) {
		for (const entry of entries) this.#add(entry);
	}

	/** @param address Canonical; anything else is in no list. */
	has(address: string): boolean {
		const version = isIP(address);
		return version !== 0 && this.#list.check(address, version === 4 ? "ipv4" : "ipv6");
	}

	#add(entry: string): void {
		const [network = "", length, ...rest] = entry.split("/");
		const address = parseAddress(network);
		const bits = address?.includes(":") ? 128 : 32;
		const prefix = length === undefined ? bits : /^\d{1,3}$/.test(length) ? Number(length) : -1;
		// The length of a mapped IPv4 network counts bits of IPv6: better refused than misread.
		const misread = length !== undefined && network.includes(":") && bits === 32;
		if (address === undefined || prefix < 0 || prefix > bits || rest.length > 0 || misread) {
			throw new TypeError(`"${entry}" is no network: write an address, or one with a prefix length such as "10.0.0.0/8" or "fdaa::/16"`);
		}
		this.#list.addSubnet(address, prefix, bits === 32 ? "ipv4" : "ipv6");
	}
}
