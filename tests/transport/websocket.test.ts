import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { deflateRawSync } from "node:zlib";
import { createRuntimeAdapter, type WebSocketOptions } from "../../src/transport/runtime.ts";
import type { Accept, Listener, Socket } from "../../src/transport/socket.ts";
import { onDeno } from "../support/foreign_server.ts";
import { assertPattern, pattern } from "../support/pattern.ts";
import { encodeFrame, Opcode, type RawConnectOptions, type RawFrame, RawWebSocket, requestUpgrade } from "../support/raw_websocket.ts";
import { RecordingHandler, within } from "../support/recording_handler.ts";

const OPTIONS: WebSocketOptions = {
	maxPacketSize: 65_536,
	maxBufferedBytes: 65_536,
	pingSeconds: 0,
	compression: false,
	requireSubprotocol: true,
};
const LARGEST_BACKLOG = 1024 * 1024;

interface Connected {
	readonly client: RawWebSocket;
	readonly socket: Socket;
	readonly handler: RecordingHandler;
}

/** A listener whose connections are handed out one by one. */
async function listen(options: Partial<WebSocketOptions> = {}) {
	const adapter = createRuntimeAdapter({ ...OPTIONS, ...options });
	let accepted: (end: { socket: Socket; handler: RecordingHandler }) => void = () => {};
	const accept: Accept = (socket) => {
		const handler = new RecordingHandler();
		accepted({ socket, handler });
		return handler;
	};
	const listener: Listener = await adapter.serve({
		hostname: "127.0.0.1",
		port: 0,
		fetch: (request, env) => adapter.upgrade(request, env, accept),
	});
	const connect = async (client: Omit<RawConnectOptions, "port"> = {}): Promise<Connected> => {
		const end = new Promise<{ socket: Socket; handler: RecordingHandler }>((resolve) => {
			accepted = resolve;
		});
		const raw = await RawWebSocket.connect({ port: listener.port, ...client });
		return { client: raw, ...(await within(end, "the connection to be accepted")) };
	};
	return { listener, connect };
}

describe("WebSocket", () => {
	const subject = listen();
	after(async () => (await subject).listener.stop());
	const connect = async (client?: Omit<RawConnectOptions, "port">) => (await subject).connect(client);

	for (const [offered, chosen] of [
		[["mqtt"], "mqtt"],
		[["foo", "mqtt"], "mqtt"],
		[["mqttv3.1", "mqtt"], "mqttv3.1"],
		[["foo", "bar", "mqttv3.1"], "mqttv3.1"],
	] as const) {
		test(`subprotocols ${offered.join(", ")}: ${chosen} is answered [MQTT-6.0.0-4]`, async () => {
			const { client } = await connect({ protocols: offered });
			assert.equal(client.protocol, chosen);
			client.destroy();
		});
	}

	for (const offered of [[], ["foo"]]) {
		test(`subprotocols [${offered}]: refused with 400`, async () => {
			const { port } = (await subject).listener;
			assert.equal((await requestUpgrade({ port, protocols: offered })).status, 400);
		});

		test(`subprotocols [${offered}]: accepted without an answer when none is required`, async () => {
			const lenient = await listen({ requireSubprotocol: false });
			const { client } = await lenient.connect({ protocols: offered });
			assert.equal(client.protocol, undefined);
			client.destroy();
			await lenient.listener.stop();
		});
	}

	test("Upgrade and Connection: are read in any case and in lists", async () => {
		const { client } = await connect({ headers: { Upgrade: "h2c, WebSocket", Connection: "keep-alive, upgrade" } });
		client.destroy();
	});

	test("a frame right behind the upgrade request is not lost", async () => {
		const { client, handler } = await connect({ early: encodeFrame(pattern(100)) });
		client.send(pattern(50, 100));
		await handler.until("all bytes", () => handler.bytes >= 150);
		assertPattern(handler.data());
		client.destroy();
	});

	test("compression: is not negotiated though the client offers it, and a compressed frame ends the connection", async () => {
		const { client, handler } = await connect({ headers: { "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits" } });
		assert.equal(client.response.headers.get("sec-websocket-extensions"), null);
		client.sendRaw(encodeFrame(pattern(10), { rsv1: true }));
		await within(client.ended, "the end");
		assert.equal(client.closeCode, 1002);
		await handler.until("onClose", () => handler.count("close") === 1);
		assert.deepEqual(handler.events, ["close"]);
	});

	test("compression: works where the runtime has it, and is refused at the start where not", async () => {
		if (onDeno) {
			assert.throws(() => createRuntimeAdapter({ ...OPTIONS, compression: true }), /compression off/);
			return;
		}
		const compressing = await listen({ compression: true });
		const { client, socket, handler } = await compressing.connect({ headers: { "Sec-WebSocket-Extensions": "permessage-deflate" } });
		assert.match(client.response.headers.get("sec-websocket-extensions") ?? "", /^permessage-deflate/);
		const payload = Buffer.alloc(5_000, "shoal ");
		client.sendRaw(encodeFrame(deflateRawSync(payload, { finishFlush: 2 }).subarray(0, -4), { rsv1: true }));
		await handler.until("all bytes", () => handler.bytes >= payload.length);
		assert.ok(handler.data().equals(payload));
		socket.send(payload);
		const frame = await within(client.next(), "a frame");
		assert.equal(frame?.rsv1, true);
		assert.ok((frame?.payload.length ?? payload.length) < 500);
		client.destroy();
		await compressing.listener.stop();
	});

	for (const [title, bytes] of [
		["an unmasked frame", encodeFrame(pattern(10), { masked: false })],
		["an unknown opcode", encodeFrame(pattern(10), { opcode: 5 })],
		["a continuation of nothing", encodeFrame(pattern(10), { opcode: Opcode.continuation })],
		["a fragmented ping", encodeFrame(pattern(10), { opcode: Opcode.ping, fin: false })],
		["a message within a fragmented one", Buffer.concat([encodeFrame(new Uint8Array(0), { fin: false }), encodeFrame(pattern(10))])],
	] as const) {
		test(`${title}: ends the connection with 1002, and nothing of it is data`, async () => {
			const { client, handler } = await connect();
			client.sendRaw(bytes);
			await within(client.ended, "the end");
			assert.equal(client.closeCode, 1002);
			await handler.until("onClose", () => handler.count("close") === 1);
			assert.deepEqual(handler.events, ["close"]);
		});
	}

	test("ping of the client: is answered with its payload", async () => {
		const { client } = await connect();
		client.sendRaw(encodeFrame(Buffer.from("marco"), { opcode: Opcode.ping }));
		const frame = await within(client.next(), "the pong");
		assert.equal(frame?.opcode, Opcode.pong);
		assert.equal(frame?.payload.toString(), "marco");
		client.destroy();
	});

	test("ping of the server: is a ping frame, and the pong is no data", async () => {
		const { client, socket, handler } = await connect();
		const pinged = new Promise<void>((resolve) => {
			client.onPing = resolve;
		});
		socket.ping();
		await within(pinged, "the ping");
		client.send(pattern(1));
		await handler.until("data", () => handler.bytes > 0);
		assert.deepEqual(handler.events, ["data"]);
		client.destroy();
	});

	test("pings of a client that reads nothing: do not pile up pongs, and the connection goes on", async () => {
		const { client, socket, handler } = await connect();
		client.pause();
		const pings = Buffer.concat(new Array(1_000).fill(encodeFrame(Buffer.alloc(125), { opcode: Opcode.ping })));
		for (let round = 1; round <= 200; round++) {
			client.sendRaw(pings);
			client.send(pattern(1));
			await handler.until("the pings", () => handler.bytes >= round);
			assert.ok(socket.bufferedAmount < LARGEST_BACKLOG, `${socket.bufferedAmount} bytes wait`);
		}
		client.resume();
		let pong: RawFrame | undefined;
		while (pong?.payload.toString() !== "last") {
			client.sendRaw(encodeFrame(Buffer.from("last"), { opcode: Opcode.ping }));
			pong = await within(client.next(), "a pong");
			assert.equal(pong?.opcode, Opcode.pong);
		}
		client.destroy();
	});

	test("a message without end: is passed on or refused with 1009, never held", async () => {
		const { client, handler } = await connect();
		const megabyte = new Uint8Array(1024 * 1024);
		let ended = false;
		void client.ended.then(() => {
			ended = true;
		});
		for (let index = 0; index < 40 && !ended; index++) {
			client.sendRaw(encodeFrame(megabyte, { opcode: index === 0 ? Opcode.binary : Opcode.continuation, fin: false }));
			await new Promise((resolve) => setTimeout(resolve, 1));
		}
		if (onDeno) {
			await handler.until("all bytes", () => handler.bytes === 40 * megabyte.length);
			client.destroy();
			return;
		}
		await within(client.ended, "the end");
		assert.equal(client.closeCode, 1009);
		assert.equal(handler.bytes, 0);
	});

	for (const leaving of ["destroy", "resetAndDestroy"] as const) {
		test(`a client that left (${leaving}) before the upgrade was answered: onClose comes once, if it was accepted at all`, async () => {
			const adapter = createRuntimeAdapter(OPTIONS);
			const handlers: RecordingHandler[] = [];
			const asked = Promise.withResolvers<void>();
			const gone = Promise.withResolvers<void>();
			const answered = Promise.withResolvers<void>();
			const listener = await adapter.serve({
				hostname: "127.0.0.1",
				port: 0,
				fetch: async (request, env) => {
					asked.resolve();
					await gone.promise;
					const response = adapter.upgrade(request, env, () => {
						handlers.push(new RecordingHandler());
						return handlers.at(-1);
					});
					answered.resolve();
					return response;
				},
			});
			const connecting = RawWebSocket.open({
				port: listener.port,
				onConnected: (stream) => void asked.promise.then(() => stream[leaving]()),
			});
			await assert.rejects(connecting, /connection ended/);
			await new Promise((resolve) => setTimeout(resolve, 50));
			gone.resolve();
			await within(answered.promise, "the upgrade");
			await new Promise((resolve) => setTimeout(resolve, 50));
			for (const handler of handlers) assert.deepEqual(handler.events, ["close"]);
			await listener.stop();
		});
	}

	test("close frame of the client: is answered with its code", async () => {
		const { client, handler } = await connect();
		client.close(4321);
		await within(client.ended, "the end");
		assert.equal(client.closeCode, 4321);
		await handler.until("onClose", () => handler.count("close") === 1);
	});

	test("close frame without a code: is answered without one", async () => {
		const { client } = await connect();
		client.sendRaw(encodeFrame(new Uint8Array(0), { opcode: Opcode.close }));
		await within(client.ended, "the end");
		assert.equal(client.closeCode, 1005);
	});
});
