import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AppOptions, createApp } from "../../src/http/app.ts";
import { createRuntimeAdapter } from "../../src/transport/runtime.ts";
import { decideUpgrade, refusalResponse } from "../../src/transport/upgrade.ts";
import { requestUpgrade } from "../support/raw_websocket.ts";

/** Refuses what is to be refused; an accepted upgrade has no connection here, so 204 stands for it. */
function upgrade(request: Request): Response {
	const decision = decideUpgrade(request, { requireSubprotocol: true });
	return decision.kind === "refuse" ? refusalResponse(decision) : new Response(null, { status: 204 });
}

function app(options: Partial<AppOptions> = {}) {
	return createApp({ path: "/mqtt", upgrade, ready: () => true, ...options });
}

describe("app", () => {
	test("GET /healthz: 200 while the process lives, ready or not", async () => {
		const response = await app({ ready: () => false }).request("/healthz");
		assert.equal(response.status, 200);
		assert.equal(await response.text(), "ok\n");
		assert.equal(response.headers.get("cache-control"), "no-store");
	});

	test("GET /readyz: 200 when ready, 503 with a word why when not", async () => {
		let state: boolean | string = true;
		const subject = app({ ready: () => state });
		assert.equal((await subject.request("/readyz")).status, 200);
		state = false;
		const notReady = await subject.request("/readyz");
		assert.equal(notReady.status, 503);
		assert.equal(await notReady.text(), "not ready\n");
		state = "draining";
		const draining = await subject.request("/readyz");
		assert.equal(draining.status, 503);
		assert.equal(await draining.text(), "draining\n");
	});

	test("unknown path: 404 that says where MQTT is", async () => {
		const response = await app({ path: "/broker" }).request("/nowhere");
		assert.equal(response.status, 404);
		assert.match(await response.text(), /MQTT is spoken at \/broker/);
		assert.equal(response.headers.get("x-content-type-options"), "nosniff");
	});

	test("GET path without upgrade: 426 with Upgrade", async () => {
		const response = await app().request("/mqtt");
		assert.equal(response.status, 426);
		assert.equal(response.headers.get("upgrade"), "websocket");
	});

	test("an upgrade without a path is taken like one at the path; anything else there is not found", async () => {
		const headers = { upgrade: "websocket", connection: "Upgrade", "sec-websocket-version": "13", "sec-websocket-protocol": "mqtt" };
		const upgraded = await app().request("/", { headers: { ...headers, "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==" } });
		assert.equal(upgraded.status, 204);
		const refused = await app().request("/", { headers: { ...headers, "sec-websocket-version": "8" } });
		assert.equal(refused.status, 426);
		assert.equal((await app().request("/")).status, 404);
	});

	for (const method of ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"]) {
		test(`${method} path: 405 with Allow`, async () => {
			const response = await app().request("/mqtt", { method });
			assert.equal(response.status, 405);
			assert.equal(response.headers.get("allow"), "GET");
		});
	}

	test("onUpgradeRefused: gets the status of every refusal and of nothing else", async () => {
		const statuses: number[] = [];
		const subject = app({ onUpgradeRefused: (status) => statuses.push(status) });
		const headers = {
			Upgrade: "websocket",
			Connection: "Upgrade",
			"Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": `${"A".repeat(22)}==`,
		};
		await subject.request("/mqtt");
		await subject.request("/mqtt", { headers });
		await subject.request("/mqtt", { headers: { ...headers, "Sec-WebSocket-Protocol": "mqtt" } });
		await subject.request("/healthz");
		assert.deepEqual(statuses, [426, 400]);
	});

	test("upgrade: an error becomes a 500 without a word of the inside", async () => {
		const subject = app({
			upgrade: () => {
				throw new Error("secret detail");
			},
		});
		const response = await subject.request("/mqtt");
		assert.equal(response.status, 500);
		assert.equal(await response.text(), "Internal server error\n");
	});

	test("upgrade: an asynchronous answer is awaited", async () => {
		const response = await app({ upgrade: async (request) => upgrade(request) }).request("/mqtt");
		assert.equal(response.status, 426);
	});
});

describe("app behind a listener", () => {
	const options = { maxPacketSize: 1_048_576, maxBufferedBytes: 16_777_216, pingSeconds: 0, compression: false, requireSubprotocol: true };
	const listen = () => {
		const subject = app();
		return createRuntimeAdapter(options).serve({
			hostname: "127.0.0.1",
			port: 0,
			fetch: (request, env) => subject.fetch(request, env as object),
		});
	};

	test("refusals: reach a client that asked for an upgrade, with status, headers and body", async () => {
		const listener = await listen();
		const { port } = listener;
		const foreign = await requestUpgrade({ port, protocols: ["foo"] });
		assert.equal(foreign.status, 400);
		assert.match(foreign.body, /"mqtt" and "mqttv3.1"/);
		const version = await requestUpgrade({ port, headers: { "Sec-WebSocket-Version": "8" } });
		assert.equal(version.status, 426);
		assert.equal(version.headers.get("sec-websocket-version"), "13");
		const elsewhere = await requestUpgrade({ port, path: "/elsewhere" });
		assert.equal(elsewhere.status, 404);
		const plain = await requestUpgrade({ port, headers: { upgrade: undefined, connection: "close" } });
		assert.equal(plain.status, 426);
		assert.equal(plain.headers.get("upgrade"), "websocket");
		const head = await requestUpgrade({ port, method: "HEAD", headers: { upgrade: undefined, connection: "close" } });
		assert.equal(head.status, 405);
		assert.equal(head.body, "");
		await listener.stop();
	});

	test("health: is served beside the WebSocket, request after request on one connection", async () => {
		const listener = await listen();
		for (let round = 0; round < 3; round++) {
			const response = await fetch(`http://127.0.0.1:${listener.port}/healthz`);
			assert.equal(await response.text(), "ok\n");
		}
		await listener.stop();
	});
});
