/** Behind a real HAProxy and a real nginx, before three replicas: the upgrade, connections that are idle, and whose they are. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { PROXY_ADDRESS, startHAProxy } from "../support/haproxy.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { startNginx } from "../support/nginx.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { requestUpgrade } from "../support/raw_websocket.ts";
import { startReplicas, suiteReplicas } from "../support/replicas.ts";
import { freshTopic } from "../support/traffic.ts";

const RUN_MS = 60_000;
const IDLE_MS = 2000;
const HERE = "127.0.0.1";

describe("behind a proxy that cuts idle connections", () => {
	/** Each speaks within half of the proxy's time: the broker by WebSocket pings, a client over TCP by its keep alive. */
	const replicas = suiteReplicas({ env: { ALLOW_ANONYMOUS: "true", WS_PING_SECONDS: "1", MAX_KEEP_ALIVE_SECONDS: "1" } });

	it("HAProxy and nginx: the upgrade reaches a replica, and the subprotocol comes back", { timeout: RUN_MS }, async (t) => {
		for (const proxy of [await startHAProxy(t, replicas().all), await startNginx(t, replicas().all)]) {
			for (let replica = 0; replica < 3; replica++) {
				const { status, headers } = await requestUpgrade({ port: proxy.wsPort });
				assert.equal(status, 101);
				assert.equal(headers.get("sec-websocket-protocol"), "mqtt");
			}
		}
	});

	it("HAProxy and nginx: idle for three times their limit, WebSockets live by our pings and TCP by the server's keep alive; without either they cut", {
		timeout: RUN_MS,
	}, async (t) => {
		const proxies = [await startHAProxy(t, replicas().all, { idleMs: IDLE_MS }), await startNginx(t, replicas().all, { idleMs: IDLE_MS })];
		const topic = freshTopic();
		// They send nothing, which the broker allows.
		const silent = await Promise.all(proxies.map((proxy) => RawClient.connect(proxy, { version: 4 })));
		const clients = await Promise.all(
			proxies.flatMap(({ url, tcpUrl }) => [
				MqttJsClient.connect(t, url, { keepalive: 0, protocolVersion: 4 }),
				MqttJsClient.connect(t, url, { keepalive: 60, protocolVersion: 4 }),
				MqttJsClient.connect(t, tcpUrl, { keepalive: 60, protocolVersion: 5 }),
			]),
		);
		let closed = 0;
		for (const { mqtt } of clients) {
			mqtt.on("close", () => closed++);
			await mqtt.subscribeAsync(topic, { qos: 1 });
		}
		for (const client of silent) await client.expectClosed();
		await sleep(2 * IDLE_MS);
		assert.equal(closed, 0);
		await clients[0]?.mqtt.publishAsync(topic, "awake", { qos: 1 });
		for (const client of clients) assert.equal((await client.next()).text, "awake");
	});
});

it("HAProxy: with version 2 of the PROXY protocol and X-Forwarded-For the log has the client's address, not the proxy's", {
	timeout: RUN_MS,
}, async (t) => {
	const env = {
		ALLOW_ANONYMOUS: "true",
		PROXY_PROTOCOL: "true",
		PROXY_PROTOCOL_SOURCES: PROXY_ADDRESS,
		TRUSTED_PROXIES: "1",
		LOG_LEVEL: "debug",
	};
	const { all } = await startReplicas(t, { env });
	const proxy = await startHAProxy(t, all, { tellsAddress: true });
	for (const transport of ["tcp", "ws"] as const) {
		// One for each replica.
		const ids = [freshId(), freshId(), freshId()];
		for (const clientId of ids) await (await RawClient.connect(proxy, { transport, clientId })).disconnect();
		const lines = () => all.flatMap(({ log }) => log).filter(({ message }) => message === "Client connected");
		for (const clientId of ids) assert.equal(lines().find((line) => line.clientId === clientId)?.address, HERE, transport);
	}
});
