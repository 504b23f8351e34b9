import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { DoorReason } from "../../src/metrics.ts";
import type { TlsSettings } from "../../src/transport/certificate.ts";
import { Door, type DoorOptions } from "../../src/transport/door.ts";
import { createRuntimeAdapter } from "../../src/transport/runtime.ts";
import type { Accept, Socket } from "../../src/transport/socket.ts";
import { listenTcp } from "../../src/transport/tcp.ts";
import { createAuthority } from "../support/certificates.ts";
import { streamClient } from "../support/contract_clients.ts";
import { serveForeign } from "../support/foreign_server.ts";
import { type RawConnectOptions, RawWebSocket, requestUpgrade } from "../support/raw_websocket.ts";
import { RecordingHandler, within } from "../support/recording_handler.ts";

const authority = createAuthority();
const server = authority.server();
const device = authority.client("/CN=device-1");
const stranger = createAuthority("Other CA").client("/CN=device-1");
const HOST = { hostname: "127.0.0.1", port: 0 };

interface Open {
	readonly port: number;
	/** The sockets that were accepted. */
	readonly sockets: readonly Socket[];
}

/** A WebSocket listener, ours or a foreign one, for as long as `use` takes. */
async function serving(
	options: DoorOptions,
	use: (open: Open) => Promise<void>,
	{ tls, foreign = false }: { readonly tls?: TlsSettings; readonly foreign?: boolean } = {},
): Promise<void> {
	const sockets: Socket[] = [];
	const accept: Accept = (socket) => {
		sockets.push(socket);
		return new RecordingHandler();
	};
	const adapter = createRuntimeAdapter({
		maxPacketSize: 65_536,
		maxBufferedBytes: 65_536,
		pingSeconds: 0,
		compression: false,
		requireSubprotocol: true,
		door: new Door(options),
	});
	const fetch = (request: Request, env: unknown) => adapter.upgrade(request, env, accept);
	const listener = foreign ? serveForeign(adapter, fetch) : await adapter.serve({ ...HOST, fetch, ...(tls && { tls }) });
	try {
		await use({ port: listener.port, sockets });
	} finally {
		for (const socket of sockets) socket.terminate();
		await listener.stop();
	}
}

/** Connects; answers the socket that the listener has for it. */
async function connected({ port, sockets }: Open, options: Omit<RawConnectOptions, "port"> = {}): Promise<Socket> {
	const before = sockets.length;
	await RawWebSocket.connect({ port, ...options });
	while (sockets.length === before) await new Promise((resolve) => setTimeout(resolve, 5));
	return sockets[before] as Socket;
}

for (const foreign of [false, true]) {
	describe(`the door of ${foreign ? "a foreign server" : "our own server"}`, () => {
		test("a client over its rate gets 429 with Retry-After, and the handler does not hear of it", async () => {
			await serving(
				{ ratePerAddress: { perSecond: 0.01, burst: 1 } },
				async (open) => {
					await connected(open);
					const refused = await requestUpgrade({ port: open.port });
					assert.equal(refused.status, 429);
					assert.match(refused.headers.get("retry-after") ?? "", /^(99|100)$/);
					assert.equal(open.sockets.length, 1);
				},
				{ foreign },
			);
		});

		test("a page of another origin gets 403", async () => {
			await serving(
				{ origins: ["https://app.example.com"] },
				async (open) => {
					const refused = await requestUpgrade({ port: open.port, headers: { Origin: "https://evil.example" } });
					assert.equal(refused.status, 403);
					await connected(open, { headers: { Origin: "https://app.example.com" } });
				},
				{ foreign },
			);
		});

		test("address, socketAddress and token are there, and after forgetRequest the token is gone", async () => {
			await serving(
				{ trustedProxies: { hops: 1, from: ["127.0.0.1"] }, token: { authorization: true, query: "token" } },
				async (open) => {
					const headers = { "X-Forwarded-For": "203.0.113.66, 192.0.2.1", Authorization: "Bearer abc" };
					const socket = await connected(open, { path: "/mqtt?token=def&x=1", headers });
					assert.equal(socket.peer.address, "192.0.2.1");
					assert.equal(socket.peer.socketAddress, "127.0.0.1");
					assert.equal(socket.peer.token, "abc");
					assert.equal(socket.peer.request?.url, `http://127.0.0.1:${open.port}/mqtt?x=1`);
					assert.equal(socket.peer.request?.headers.get("authorization"), null);
					socket.forgetRequest();
					assert.equal(socket.peer.token, undefined);
					assert.equal(socket.peer.address, "192.0.2.1");
					assert.equal(socket.peer.socketAddress, "127.0.0.1");
				},
				{ foreign },
			);
		});
	});
}

describe("wss with client certificates", () => {
	const withCertificates = (clientCertificate: "request" | "require", use: (open: Open) => Promise<void>) =>
		serving({}, use, { tls: { ...server, ca: authority.cert, clientCertificate } });
	const trust = { ca: [authority.cert] };

	for (const asked of ["request", "require"] as const) {
		test(`"${asked}": a certificate of the authority is the peer's identity, and stays when the request is forgotten`, async () => {
			await withCertificates(asked, async (open) => {
				const socket = await connected(open, { tls: { ...trust, ...device } });
				assert.equal(socket.peer.transport, "wss");
				assert.equal(socket.peer.certificate?.commonName, "device-1");
				socket.forgetRequest();
				assert.match(socket.peer.certificate?.fingerprint256 ?? "", /^[0-9a-f]{64}$/);
			});
		});

		test(`"${asked}": a certificate of another authority is refused`, async () => {
			await withCertificates(asked, async (open) => {
				await assert.rejects(within(RawWebSocket.connect({ port: open.port, tls: { ...trust, ...stranger } }), "the refusal"));
				assert.equal(open.sockets.length, 0);
			});
		});
	}

	test('"require": a client without is refused', async () => {
		await withCertificates("require", async (open) => {
			await assert.rejects(within(RawWebSocket.connect({ port: open.port, tls: trust }), "the refusal"));
			assert.equal(open.sockets.length, 0);
		});
	});

	test('"request": a client without is accepted without identity', async () => {
		await withCertificates("request", async (open) => {
			assert.equal((await connected(open, { tls: trust })).peer.certificate, undefined);
		});
	});

	test("a request without upgrade is answered beside it", async () => {
		await withCertificates("request", async (open) => {
			const plain = await requestUpgrade({ port: open.port, tls: trust, headers: { upgrade: undefined, connection: "close" } });
			assert.equal(plain.status, 426);
		});
	});
});

describe("listenTcp with a door", () => {
	for (const tls of [undefined, { ...server, clientCertificate: "none" as const }]) {
		test(`${tls ? "tls" : "tcp"}: a client over its rate is closed, and the handler does not hear of it`, async () => {
			let count = 0;
			const refused: DoorReason[] = [];
			const door = new Door({ ratePerAddress: { perSecond: 0.001, burst: 1 }, onRefused: (reason) => refused.push(reason) });
			const listener = await listenTcp({ ...HOST, door, handshakeMs: 600_000, ...(tls && { tls }) }, () => {
				count++;
				return new RecordingHandler();
			});
			const first = await streamClient({ port: listener.port, ...(tls && { tls: { ca: [authority.cert] } }) });
			while (count === 0) await new Promise((resolve) => setTimeout(resolve, 5));
			// Without TLS, so that a refusal after the handshake would not be seen as one.
			const second = await streamClient({ port: listener.port });
			await within(second.ended, "the close");
			assert.equal(count, 1);
			assert.deepEqual(refused, ["rateAddress"]);
			first.write(Buffer.of(1));
			first.destroy();
			await listener.stop();
		});
	}
});
