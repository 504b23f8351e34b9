import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Hono } from "hono";
import { createApp } from "../../src/http/app.ts";
import { createRuntimeAdapter } from "../../src/transport/runtime.ts";
import type { Accept, Listener } from "../../src/transport/socket.ts";
import { socketContract } from "../contracts/socket_contract.ts";
import { webSocketClient } from "../support/contract_clients.ts";
import { onDeno, serveForeign } from "../support/foreign_server.ts";
import { Opcode, RawWebSocket, requestUpgrade } from "../support/raw_websocket.ts";
import { RecordingHandler, within } from "../support/recording_handler.ts";

const options = { maxPacketSize: 1_048_576, maxBufferedBytes: 16_777_216, pingSeconds: 0, compression: false, requireSubprotocol: true };

socketContract("ws in a foreign server", { transport: "ws", stops: false, pauses: !onDeno, terminates: !onDeno }, async (accept) => {
	const adapter = createRuntimeAdapter(options);
	const listener = serveForeign(adapter, (request, second) => adapter.upgrade(request, second, accept));
	return { listener, connect: () => webSocketClient({ port: listener.port }) };
});

describe("app in a foreign Hono app", () => {
	const app = (accept: Accept, refused: number[] = []) => {
		const adapter = createRuntimeAdapter(options);
		const broker = createApp({
			path: "/mqtt",
			upgrade: (request, env) => adapter.upgrade(request, env, accept),
			ready: () => true,
			onUpgradeRefused: (status) => refused.push(status),
		});
		const foreign = new Hono().get("/", (context) => context.text("foreign")).route("/broker", broker);
		return { adapter, foreign };
	};
	const echo: Accept = (socket) => {
		const handler = new RecordingHandler();
		handler.onData = (bytes) => void socket.send(bytes);
		return handler;
	};
	const exchange = async (listener: Listener) => {
		try {
			const client = await RawWebSocket.connect({ port: listener.port, path: "/broker/mqtt", protocols: ["foo", "mqtt"] });
			assert.equal(client.protocol, "mqtt");
			client.send(Buffer.from("ping"));
			const frame = await within(client.next(), "the echo");
			assert.equal(frame?.opcode, Opcode.binary);
			assert.equal(frame?.payload.toString(), "ping");
			client.destroy();
			assert.equal((await requestUpgrade({ port: listener.port, path: "/broker/mqtt", protocols: ["foo"] })).status, 400);
			const health = await fetch(`http://127.0.0.1:${listener.port}/broker/healthz`);
			assert.equal(await health.text(), "ok\n");
			const own = await fetch(`http://127.0.0.1:${listener.port}/`);
			assert.equal(await own.text(), "foreign");
		} finally {
			await listener.stop();
		}
	};

	test("upgrade: works under a prefix when env is what the runtime gives as second argument", async () => {
		const { adapter, foreign } = app(echo);
		await exchange(serveForeign(adapter, (request, second) => foreign.fetch(request, second as object)));
	});

	test("upgrade: works under a prefix when env wraps it", async () => {
		const { adapter, foreign } = app(echo);
		await exchange(serveForeign(adapter, (request, second) => foreign.fetch(request, onDeno ? { info: second } : { server: second })));
	});

	test("upgrade: works under a prefix when our own listener serves the foreign app", async () => {
		const { adapter, foreign } = app(echo);
		await exchange(await adapter.serve({ hostname: "127.0.0.1", port: 0, fetch: (request, env) => foreign.fetch(request, env as object) }));
	});

	test("upgrade: without the runtime's second argument the request fails with 500 and no word of the inside", async () => {
		const refused: number[] = [];
		const { adapter, foreign } = app(echo, refused);
		const listener = serveForeign(adapter, (request) => foreign.fetch(request));
		const response = await requestUpgrade({ port: listener.port, path: "/broker/mqtt" });
		assert.equal(response.status, 500);
		assert.equal(response.body, "Internal server error\n");
		await listener.stop();
	});

	test("upgrade: throws a TypeError that says what to pass", () => {
		const adapter = createRuntimeAdapter(options);
		assert.throws(() => adapter.upgrade(new Request("http://localhost/mqtt"), {}, echo), {
			name: "TypeError",
			message: /pass "\{ (server|info) \}"/,
		});
	});
});
