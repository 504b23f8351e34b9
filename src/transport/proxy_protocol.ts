/**
 * The PROXY protocol, versions 1 and 2: the line or block in which a proxy tells who is behind a TCP connection, before the
 * first byte of anything else. Reads no more than it must and believes nothing that is not exactly right.
 */

import type { Socket as NodeSocket } from "node:net";
import { parseAddress } from "./address.ts";

/** The client behind the proxy. */
export interface ProxiedClient {
	/** Canonical. */
	readonly address: string;
	readonly port: number;
}

/** What the first bytes of a connection are. */
export type ProxyHeader =
	| { readonly kind: "incomplete" }
	| { readonly kind: "malformed"; readonly problem: string }
	/** `client` is `undefined` where the proxy speaks for itself (LOCAL), or tells no IP address (UNKNOWN, UNIX). */
	| { readonly kind: "complete"; readonly length: number; readonly client: ProxiedClient | undefined };

const SIGNATURE_1 = Buffer.from("PROXY ", "latin1");
const SIGNATURE_2 = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
/** With CR and LF, as the specification counts. */
const MAX_LENGTH_1 = 107;
const FIXED_LENGTH_2 = 16;
/** Of addresses and extensions together. They hold names and checksums: nobody needs more. */
const MAX_LENGTH_2 = 4096;
const LINE_1 = /^PROXY (TCP4|TCP6) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})$/;
const UNKNOWN_1 = /^PROXY UNKNOWN(?: .*)?$/;
const LOCAL = 0;
const PROXY = 1;

/** Length of the addresses by family and protocol; only streams come over TCP. */
const ADDRESS_LENGTHS: ReadonlyMap<number, number> = new Map([
	[0x00, 0],
	[0x11, 12],
	[0x21, 36],
	[0x31, 216],
]);

/** Reads the first bytes of a connection, which may go on behind the header. */
export function parseProxyHeader(bytes: Buffer): ProxyHeader {
	if (beginsLike(bytes, SIGNATURE_2)) return bytes.length < FIXED_LENGTH_2 ? { kind: "incomplete" } : parseBlock(bytes);
	if (beginsLike(bytes, SIGNATURE_1)) return parseLine(bytes);
	return malformed("it does not begin like one");
}

function beginsLike(bytes: Buffer, signature: Buffer): boolean {
	const length = Math.min(bytes.length, signature.length);
	return bytes.compare(signature, 0, length, 0, length) === 0;
}

function parseLine(bytes: Buffer): ProxyHeader {
	const end = bytes.subarray(0, MAX_LENGTH_1).indexOf("\r\n");
	if (end < 0) return bytes.length < MAX_LENGTH_1 ? { kind: "incomplete" } : malformed("its line does not end");
	const line = bytes.toString("latin1", 0, end);
	const length = end + 2;
	if (UNKNOWN_1.test(line)) return { kind: "complete", length, client: undefined };
	const [, family, source = "", destination = "", port, destinationPort] = LINE_1.exec(line) ?? [];
	if (family === undefined) return malformed("its line is none");
	const isFamily = (text: string) => parseAddress(text) !== undefined && text.includes(":") === (family === "TCP6");
	const address = parseAddress(source);
	if (address === undefined || !isFamily(source) || !isFamily(destination)) return malformed("an address is none of its family");
	if (Number(port) > 65_535 || Number(destinationPort) > 65_535) return malformed("a port is none");
	return { kind: "complete", length, client: { address, port: Number(port) } };
}

function parseBlock(bytes: Buffer): ProxyHeader {
	const versionAndCommand = bytes.readUInt8(12);
	const family = bytes.readUInt8(13);
	const rest = bytes.readUInt16BE(14);
	const command = versionAndCommand & 0x0f;
	if (versionAndCommand >> 4 !== 2 || (command !== LOCAL && command !== PROXY)) return malformed("its version or command is unknown");
	if (rest > MAX_LENGTH_2) return malformed(`it is longer than ${MAX_LENGTH_2} bytes`);
	const addresses = ADDRESS_LENGTHS.get(family);
	// What a proxy says of its own connections is to be ignored, whatever it is.
	if (command === PROXY && addresses === undefined) return malformed("its address family is unknown");
	if (command === PROXY && rest < (addresses ?? 0)) return malformed("it is too short for its addresses");
	const length = FIXED_LENGTH_2 + rest;
	if (bytes.length < length) return { kind: "incomplete" };
	return { kind: "complete", length, client: command === LOCAL ? undefined : clientOf(bytes, family) };
}

function clientOf(bytes: Buffer, family: number): ProxiedClient | undefined {
	if (family === 0x11) return { address: bytes.subarray(16, 20).join("."), port: bytes.readUInt16BE(24) };
	if (family !== 0x21) return undefined;
	const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(16 + 2 * index).toString(16));
	return { address: parseAddress(groups.join(":")) ?? "", port: bytes.readUInt16BE(48) };
}

function malformed(problem: string): ProxyHeader {
	return { kind: "malformed", problem };
}

/**
 * Reads the header from a connection. What came behind it is put back: whoever takes the connection within `onHeader` gets
 * it all. Neither is called when the connection ends before.
 */
export function receiveProxyHeader(
	stream: NodeSocket,
	onHeader: (client: ProxiedClient | undefined) => void,
	onMalformed: (problem: string) => void,
): void {
	let received: Buffer = Buffer.alloc(0);
	const onData = (chunk: Buffer) => {
		received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
		const header = parseProxyHeader(received);
		if (header.kind === "incomplete") return;
		stream.off("data", onData);
		if (header.kind === "malformed") {
			onMalformed(header.problem);
			return;
		}
		// A copy: the receiver may write to it.
		if (received.length > header.length) stream.unshift(Buffer.from(received.subarray(header.length)));
		onHeader(header.client);
	};
	stream.on("data", onData);
}
