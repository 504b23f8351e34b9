import assert from "node:assert/strict";
import { connect as connectTcp } from "node:net";
import { describe, test } from "node:test";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import { createRuntimeAdapter } from "../../src/transport/runtime.ts";
import type { Listener, Socket } from "../../src/transport/socket.ts";
import { listenTcp, type TcpOptions } from "../../src/transport/tcp.ts";
import { createAuthority } from "../support/certificates.ts";
import { streamClient } from "../support/contract_clients.ts";
import { pattern } from "../support/pattern.ts";
import { RecordingHandler, within } from "../support/recording_handler.ts";

const HOST = { hostname: "127.0.0.1", port: 0 };
const authority = createAuthority("Good CA");
const stranger = createAuthority("Other CA");
const server = authority.server();
const device = authority.client("/C=DE/O=Example, Ltd/OU=a\\+b/CN=device-1", { subjectAltName: "DNS:device-1.example,URI:urn:device:1" });

type Tls = NonNullable<TcpOptions["tls"]>;

/** A listener that collects the sockets it accepts, for as long as `use` takes. */
async function withListener(
	tls: Partial<Tls> | undefined,
	use: (listener: Listener, accepted: { socket: Socket; handler: RecordingHandler }[]) => Promise<void>,
	handshakeMs?: number,
): Promise<void> {
	const accepted: { socket: Socket; handler: RecordingHandler }[] = [];
	const options = tls ? { ...HOST, tls: { ...server, clientCertificate: "none" as const, ...tls } } : HOST;
	const listener = await listenTcp({ ...options, ...(handshakeMs === undefined ? {} : { handshakeMs }) }, (socket) => {
		const handler = new RecordingHandler();
		accepted.push({ socket, handler });
		return handler;
	});
	try {
		await use(listener, accepted);
	} finally {
		for (const { socket } of accepted) socket.terminate();
		await listener.stop();
	}
}

/** Connects and sends a byte; answers how it ended: the error's code, or "end". Settles only when the server ends it. */
function ending(port: number, options: ConnectionOptions): Promise<string> {
	return new Promise((resolve) => {
		let outcome = "end";
		const stream = connectTls({ host: "127.0.0.1", port, ca: [authority.cert], ...options }, () => stream.write("x"));
		stream.on("error", (error: NodeJS.ErrnoException) => {
			outcome = error.code ?? error.message;
		});
		stream.on("data", () => {});
		stream.on("end", () => stream.end());
		stream.on("close", () => resolve(outcome));
	});
}

describe("listenTcp with client certificates", () => {
	for (const clientCertificate of ["require", "request"] as const) {
		test(`"${clientCertificate}": a certificate of the authority is the peer's identity`, async () => {
			await withListener({ ca: authority.cert, clientCertificate }, async (listener, accepted) => {
				const client = await streamClient({ port: listener.port, tls: { ca: [authority.cert], ...device } });
				client.write(pattern(3));
				while (accepted.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
				const { socket, handler } = accepted[0] as (typeof accepted)[0];
				await handler.until("data", () => handler.bytes === 3);
				const { serialNumber = "", fingerprint256 = "", ...names } = socket.peer.certificate ?? {};
				assert.deepEqual(names, {
					commonName: "device-1",
					subject: "CN=device-1,OU=a\\+b,O=Example\\, Ltd,C=DE",
					issuer: "CN=Good CA",
					subjectAltName: "DNS:device-1.example, URI:urn:device:1",
				});
				assert.match(serialNumber, /^[0-9A-F]+$/i);
				assert.match(fingerprint256, /^[0-9a-f]{64}$/);
				assert.equal(socket.peer.transport, "tls");
				client.destroy();
			});
		});

		for (const [whose, client] of [
			["another authority", stranger.client("/CN=device-1")],
			["the device, forged: signed by itself", createAuthority("device-1")],
		] as const) {
			test(`"${clientCertificate}": a certificate of ${whose} is refused`, async () => {
				await withListener({ ca: authority.cert, clientCertificate }, async (listener, accepted) => {
					await within(ending(listener.port, { cert: client.cert, key: client.key }), "the refusal");
					assert.equal(accepted.length, 0);
				});
			});
		}
	}

	test('"require": a client without certificate is refused', async () => {
		await withListener({ ca: authority.cert, clientCertificate: "require" }, async (listener, accepted) => {
			await within(ending(listener.port, {}), "the refusal");
			assert.equal(accepted.length, 0);
		});
	});

	test('"request": a client without certificate is accepted without identity', async () => {
		await withListener({ ca: authority.cert, clientCertificate: "request" }, async (listener, accepted) => {
			const client = await streamClient({ port: listener.port, tls: { ca: [authority.cert] } });
			while (accepted.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
			assert.equal(accepted[0]?.socket.peer.certificate, undefined);
			client.destroy();
		});
	});

	test('"none": a client that has a certificate is not asked for it', async () => {
		await withListener({ clientCertificate: "none" }, async (listener, accepted) => {
			const client = await streamClient({ port: listener.port, tls: { ca: [authority.cert], ...device } });
			while (accepted.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
			assert.equal(accepted[0]?.socket.peer.certificate, undefined);
			client.destroy();
		});
	});

	test("a subject with several common names has none", async () => {
		const twice = authority.client("/CN=alice/CN=bob");
		await withListener({ ca: authority.cert, clientCertificate: "require" }, async (listener, accepted) => {
			const client = await streamClient({ port: listener.port, tls: { ca: [authority.cert], ...twice } });
			while (accepted.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
			assert.equal(accepted[0]?.socket.peer.certificate?.commonName, undefined);
			assert.equal(accepted[0]?.socket.peer.certificate?.subject, "CN=bob,CN=alice");
			client.destroy();
		});
	});

	test("certificates without an authority to check them: a TypeError that says what to set", () => {
		const options = { ...HOST, tls: { ...server, clientCertificate: "require" as const } };
		assert.throws(() => listenTcp(options, () => undefined), { name: "TypeError", message: /set "ca"/ });
	});
});

describe("listenTcp with clients that misbehave", () => {
	test("a TLS handshake that is none: the connection ends, the listener lives", async () => {
		await withListener({}, async (listener, accepted) => {
			const stream = connectTcp({ host: "127.0.0.1", port: listener.port }, () => stream.write("CONNECT in plain text\r\n\r\n"));
			stream.on("error", () => {});
			stream.on("data", () => {});
			await within(new Promise((resolve) => stream.on("close", resolve)), "the end");
			assert.equal(accepted.length, 0);
			const client = await streamClient({ port: listener.port, tls: { ca: [authority.cert] } });
			client.destroy();
		});
	});

	test("a TLS handshake that is never finished: the connection ends", async () => {
		await withListener(
			{},
			async (listener, accepted) => {
				const stream = connectTcp({ host: "127.0.0.1", port: listener.port });
				stream.on("error", () => {});
				stream.on("data", () => {});
				await within(new Promise((resolve) => stream.on("close", resolve)), "the end");
				assert.equal(accepted.length, 0);
			},
			50,
		);
	});

	test("a handshake broken off and a connection reset: are no error of the process", async () => {
		await withListener({}, async (listener, accepted) => {
			for (let round = 0; round < 5; round++) {
				const stream = connectTcp({ host: "127.0.0.1", port: listener.port }, () => {
					stream.write(Buffer.of(0x16, 0x03, 0x01, 0x02));
					stream.resetAndDestroy();
				});
				stream.on("error", () => {});
				await within(new Promise((resolve) => stream.on("close", resolve)), "the end");
			}
			const client = await streamClient({ port: listener.port, tls: { ca: [authority.cert] } });
			while (accepted.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
			client.destroy();
		});
	});

	test("a reset in the middle of a stalled send: onClose comes once", async () => {
		await withListener(undefined, async (listener, accepted) => {
			const stream = connectTcp({ host: "127.0.0.1", port: listener.port });
			stream.on("error", () => {});
			stream.pause();
			while (accepted.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
			const { socket, handler } = accepted[0] as (typeof accepted)[0];
			while (socket.bufferedAmount < 1024 * 1024) socket.send(pattern(65_536));
			stream.resetAndDestroy();
			await handler.until("onClose", () => handler.count("close") > 0);
			assert.equal(handler.count("close"), 1);
			assert.equal(socket.send(pattern(1)), "dropped");
		});
	});
});

describe("listening", () => {
	const adapter = createRuntimeAdapter({
		maxPacketSize: 65_536,
		maxBufferedBytes: 65_536,
		pingSeconds: 0,
		compression: false,
		requireSubprotocol: true,
	});
	const http = (port: number, hostname = "127.0.0.1") => adapter.serve({ hostname, port, fetch: () => new Response("ok") });
	const tcp = (port: number, hostname = "127.0.0.1") => listenTcp({ hostname, port }, () => undefined);

	for (const [name, listen] of [
		["serve", http],
		["listenTcp", tcp],
	] as const) {
		test(`${name}: a port in use is an error that says so and what to do`, async () => {
			const first = await tcp(0);
			await assert.rejects(listen(first.port), {
				name: "Error",
				message: `Cannot listen on 127.0.0.1:${first.port}: the port is in use; stop the other process or choose another port`,
			});
			await first.stop();
		});

		test(`${name}: an address that the machine does not have is an error that names it`, async () => {
			await assert.rejects(listen(0, "192.0.2.1"), { name: "Error", message: /^Cannot listen on 192\.0\.2\.1:0: / });
		});

		test(`${name}: port 0 takes a free port and tells which`, async () => {
			const listener = await listen(0);
			assert.ok(listener.port > 0);
			assert.equal(listener.hostname, "127.0.0.1");
			await listener.stop();
		});

		test(`${name}: a port that was given up can be taken again`, async () => {
			const first = await listen(0);
			await first.stop();
			const second = await listen(first.port);
			assert.equal(second.port, first.port);
			await second.stop();
		});
	}

	test("listenTcp on every address: an IPv4 client has its IPv4 address", async () => {
		let address = "";
		const listener = await listenTcp({ hostname: "::", port: 0 }, (socket) => {
			address = socket.peer.address;
			return undefined;
		});
		const client = await streamClient({ port: listener.port });
		await within(client.ended, "the end");
		assert.equal(address, "127.0.0.1");
		await listener.stop();
	});
});
