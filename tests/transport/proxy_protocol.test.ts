import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { DoorReason } from "../../src/metrics.ts";
import { Door } from "../../src/transport/door.ts";
import { parseProxyHeader } from "../../src/transport/proxy_protocol.ts";
import type { PeerInfo } from "../../src/transport/socket.ts";
import { listenTcp, type TcpOptions } from "../../src/transport/tcp.ts";
import { createAuthority } from "../support/certificates.ts";
import { type StreamOptions, streamClient } from "../support/contract_clients.ts";
import { RecordingHandler, within } from "../support/recording_handler.ts";

const SIGNATURE = Buffer.from("0d0a0d0a000d0a515549540a", "hex");

/** A header of version 2. */
function block(versionAndCommand: number, family: number, rest: Uint8Array, length = rest.length): Buffer {
	return Buffer.concat([SIGNATURE, Buffer.of(versionAndCommand, family, length >> 8, length & 0xff), rest]);
}

const IPV4 = Buffer.from("c0000201cb0071011267075b", "hex");
const IPV6 = Buffer.from(`20010db8${"00".repeat(11)}01${"00".repeat(15)}011267075b`, "hex");
const MAPPED = Buffer.from(`${"00".repeat(10)}ffffc0000201${"00".repeat(16)}1267075b`, "hex");
const EXTENSION = Buffer.from("030004deadbeef", "hex");

const client4 = { address: "192.0.2.1", port: 4711 };
const client6 = { address: "2001:db8::1", port: 4711 };

describe("parseProxyHeader", () => {
	for (const [title, bytes, client] of [
		["v1 TCP4", Buffer.from("PROXY TCP4 192.0.2.1 203.0.113.1 4711 1883\r\n"), client4],
		["v1 TCP6", Buffer.from("PROXY TCP6 2001:DB8:0::1 ::1 4711 1883\r\n"), client6],
		["v1 TCP6 with a mapped address", Buffer.from("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:203.0.113.1 4711 1883\r\n"), client4],
		["v1 UNKNOWN", Buffer.from("PROXY UNKNOWN\r\n"), undefined],
		["v1 UNKNOWN with addresses, of the greatest length", Buffer.from(`PROXY UNKNOWN ${"f".repeat(91)}\r\n`), undefined],
		["v2 over IPv4", block(0x21, 0x11, IPV4), client4],
		["v2 over IPv4 with extensions", block(0x21, 0x11, Buffer.concat([IPV4, EXTENSION])), client4],
		["v2 over IPv6", block(0x21, 0x21, IPV6), client6],
		["v2 over IPv6 with a mapped address", block(0x21, 0x21, MAPPED), client4],
		["v2 over a UNIX socket", block(0x21, 0x31, Buffer.alloc(216, "/run/x")), undefined],
		["v2 unspecified", block(0x21, 0x00, EXTENSION), undefined],
		["v2 LOCAL", block(0x20, 0x00, Buffer.alloc(0)), undefined],
		["v2 LOCAL with addresses", block(0x20, 0x11, IPV4), undefined],
		["v2 of the greatest length", block(0x21, 0x11, Buffer.concat([IPV4, Buffer.alloc(4084)])), client4],
	] as const) {
		test(`${title}: is complete, whatever follows, and with no byte less`, () => {
			const complete = { kind: "complete", length: bytes.length, client } as const;
			assert.deepEqual(parseProxyHeader(bytes), complete);
			assert.deepEqual(parseProxyHeader(Buffer.concat([bytes, Buffer.from("\x10\x0cMQTT\r\n")])), complete);
			for (let length = 0; length < bytes.length; length++) {
				assert.equal(parseProxyHeader(bytes.subarray(0, length)).kind, "incomplete", `${length} bytes`);
			}
		});
	}

	for (const [title, bytes] of [
		["an MQTT CONNECT", Buffer.from("100c00044d515454040200000000", "hex")],
		["a TLS ClientHello", Buffer.from("160301", "hex")],
		["an HTTP request", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
		["v1 in lower case", Buffer.from("proxy TCP4 192.0.2.1 203.0.113.1 4711 1883\r\n")],
		["v1 without end in 107 bytes", Buffer.from(`PROXY UNKNOWN ${"f".repeat(93)}`)],
		["v1 one byte too long", Buffer.from(`PROXY UNKNOWN ${"f".repeat(92)}\r\n`)],
		["v1 with an unknown family", Buffer.from("PROXY UDP4 192.0.2.1 203.0.113.1 4711 1883\r\n")],
		["v1 UNKNOWN with something attached", Buffer.from("PROXY UNKNOWNTCP4\r\n")],
		["v1 with an address of the other family", Buffer.from("PROXY TCP4 2001:db8::1 ::1 4711 1883\r\n")],
		["v1 TCP6 with an IPv4 address", Buffer.from("PROXY TCP6 192.0.2.1 ::1 4711 1883\r\n")],
		["v1 with an address that is none", Buffer.from("PROXY TCP4 192.0.2.256 203.0.113.1 4711 1883\r\n")],
		["v1 with a destination that is none", Buffer.from("PROXY TCP4 192.0.2.1 x 4711 1883\r\n")],
		["v1 with a host name", Buffer.from("PROXY TCP4 localhost localhost 4711 1883\r\n")],
		["v1 with a port over 65535", Buffer.from("PROXY TCP4 192.0.2.1 203.0.113.1 65536 1883\r\n")],
		["v1 with leading zeros", Buffer.from("PROXY TCP4 192.0.2.1 203.0.113.1 04711 1883\r\n")],
		["v1 with two spaces", Buffer.from("PROXY TCP4  192.0.2.1 203.0.113.1 4711 1883\r\n")],
		["v1 without ports", Buffer.from("PROXY TCP4 192.0.2.1 203.0.113.1\r\n")],
		["v1 with a bare LF in it", Buffer.from("PROXY TCP4 192.0.2.1 203.0.113.1 4711 1883\nx\r\n")],
		["v2 with a wrong signature", Buffer.from("0d0a0d0a000d0a515549540b21110000", "hex")],
		["v2 of version 3", block(0x31, 0x11, IPV4)],
		["v2 with command 2", block(0x22, 0x11, IPV4)],
		["v2 over UDP", block(0x21, 0x12, IPV4)],
		["v2 with an unknown family", block(0x21, 0x41, IPV4)],
		["v2 too short for its addresses", block(0x21, 0x21, IPV4)],
		["v2 over 4096 bytes", block(0x21, 0x11, IPV4, 4097)],
	] as const) {
		test(`${title}: is malformed`, () => assert.equal(parseProxyHeader(bytes).kind, "malformed"));
	}
});

const authority = createAuthority();
const server = authority.server();
const device = authority.client("/CN=device-1");
const LINE = "PROXY TCP4 192.0.2.1 203.0.113.1 4711 1883\r\n";

/** A listener behind a proxy, with what it accepts and refuses, for as long as `use` takes. */
async function behindProxy(
	options: Partial<TcpOptions>,
	use: (listener: {
		connect(client?: Omit<StreamOptions, "port">): ReturnType<typeof streamClient>;
		accepted(): Promise<{ peer: PeerInfo; handler: RecordingHandler }>;
		readonly count: number;
		readonly refused: readonly DoorReason[];
	}) => Promise<void>,
): Promise<void> {
	const waiting: ((one: { peer: PeerInfo; handler: RecordingHandler }) => void)[] = [];
	const refused: DoorReason[] = [];
	const door = new Door({ ratePerAddress: { perSecond: 0.001, burst: 2 }, onRefused: (reason) => refused.push(reason) });
	let count = 0;
	const listener = await listenTcp({ hostname: "127.0.0.1", port: 0, proxyProtocol: true, door, ...options }, ({ peer }) => {
		const handler = new RecordingHandler();
		count++;
		waiting.shift()?.({ peer, handler });
		return handler;
	});
	try {
		await use({
			connect: (client) => streamClient({ port: listener.port, ...client }),
			accepted: () => within(new Promise((resolve) => waiting.push(resolve)), "the connection to be accepted"),
			get count() {
				return count;
			},
			refused,
		});
	} finally {
		await listener.stop();
	}
}

describe("listenTcp behind a proxy", () => {
	for (const [version, header] of [
		["v1", Buffer.from(LINE)],
		["v2", block(0x21, 0x11, Buffer.concat([IPV4, EXTENSION]))],
	] as const) {
		test(`${version}: the client's address is that of the header, and MQTT begins right behind it`, async () => {
			await behindProxy({}, async ({ connect, accepted }) => {
				const coming = accepted();
				const client = await connect({ preamble: () => Buffer.concat([header, Buffer.from("early")]) });
				const { peer, handler } = await coming;
				assert.deepEqual(peer, { transport: "tcp", address: "192.0.2.1", port: 4711, socketAddress: "127.0.0.1" });
				client.write(Buffer.from(" late"));
				await handler.until("all data", () => handler.bytes === 10);
				assert.equal(handler.data().toString(), "early late");
				client.destroy();
			});
		});

		test(`${version} before TLS: the client's address is that of the header, its certificate that of TLS`, async () => {
			const tls = { ...server, ca: authority.cert, clientCertificate: "require" } as const;
			await behindProxy({ tls }, async ({ connect, accepted }) => {
				const coming = accepted();
				const client = await connect({ preamble: () => header, tls: { ca: [authority.cert], ...device } });
				const { peer, handler } = await coming;
				const { certificate, ...rest } = peer;
				assert.deepEqual(rest, { transport: "tls", address: "192.0.2.1", port: 4711, socketAddress: "127.0.0.1" });
				assert.equal(certificate?.commonName, "device-1");
				client.write(Buffer.from("hello"));
				await handler.until("all data", () => handler.bytes === 5);
				client.destroy();
			});
		});
	}

	test("a header byte by byte is one", async () => {
		await behindProxy({}, async ({ connect, accepted }) => {
			const coming = accepted();
			const client = await connect();
			client.writeInPieces(Buffer.from(`${LINE}x`));
			const { peer, handler } = await coming;
			assert.equal(peer.address, "192.0.2.1");
			await handler.until("the byte", () => handler.bytes === 1);
			client.destroy();
		});
	});

	test("LOCAL: the proxy itself is the client", async () => {
		await behindProxy({}, async ({ connect, accepted }) => {
			const coming = accepted();
			const client = await connect({ preamble: () => block(0x20, 0, Buffer.alloc(0)) });
			assert.deepEqual((await coming).peer, { transport: "tcp", address: "127.0.0.1", port: client.localPort });
			client.destroy();
		});
	});

	for (const [title, bytes] of [
		["a client without proxy", Buffer.from("100c00044d515454040200000000", "hex")],
		["a malformed header", Buffer.from("PROXY TCP4 x y 1 2\r\n")],
		["a header that never ends", Buffer.alloc(5000, "PROXY ")],
	] as const) {
		test(`${title}: closed, counted, and nobody hears of it`, async () => {
			await behindProxy({}, async (listener) => {
				const client = await listener.connect({ preamble: () => bytes });
				await within(client.ended, "the close");
				assert.equal(listener.count, 0);
				assert.deepEqual(listener.refused, ["proxyHeader"]);
			});
		});
	}

	for (const [title, options, preamble] of [
		["a header that does not come", {}, ""],
		["half a header", {}, "PROXY TCP4 192.0"],
		["TLS that does not come after the header", { tls: { ...server, clientCertificate: "none" } }, LINE],
	] as const) {
		test(`${title}: closed when the time is up`, async () => {
			await behindProxy({ ...options, handshakeMs: 50 }, async (listener) => {
				const client = await listener.connect({ preamble: () => preamble });
				await within(client.ended, "the close");
				assert.equal(listener.count, 0);
			});
		});
	}

	test("a source that is no proxy: closed without reading, and counted", async () => {
		await behindProxy({ proxySources: ["10.0.0.0/8"] }, async (listener) => {
			const client = await listener.connect({ preamble: () => LINE });
			await within(client.ended, "the close");
			assert.equal(listener.count, 0);
			assert.deepEqual(listener.refused, ["proxySource"]);
		});
	});

	test("a source that is one: may", async () => {
		await behindProxy({ proxySources: ["127.0.0.0/8"] }, async ({ connect, accepted }) => {
			const coming = accepted();
			const client = await connect({ preamble: () => LINE });
			assert.equal((await coming).peer.address, "192.0.2.1");
			client.destroy();
		});
	});

	test("the connect rate is that of the client, not of the proxy", async () => {
		await behindProxy({}, async (listener) => {
			for (const [address, letIn] of [
				["192.0.2.1", true],
				["192.0.2.1", true],
				["192.0.2.1", false],
				["192.0.2.2", true],
			] as const) {
				const coming = letIn ? listener.accepted() : undefined;
				const client = await listener.connect({ preamble: () => LINE.replace("192.0.2.1", address) });
				if (coming) assert.equal((await coming).peer.address, address);
				else await within(client.ended, "the close");
				client.destroy();
			}
			assert.deepEqual(listener.refused, ["rateAddress"]);
		});
	});
});
