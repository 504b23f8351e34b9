/** `compose.yaml` without Docker: its Redis, two replicas with its settings, and HAProxy with its file, as processes of this machine. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { startRedis } from "../support/redis_server.ts";
import { createFolder, reservePorts, startServer } from "../support/server_process.ts";
import { readYaml } from "./platform_files.ts";
import { haproxy, untilReady } from "./proxies.ts";

const IDENTIFIER_NOT_FOUND = 0x92;

describe("deploy/compose.yaml", () => {
	it("what it starts is one broker: over both ports, and while one replica after the other is restarted", async (t) => {
		const [{ services }] = readYaml("compose.yaml");
		const [, , ...options] = services.redis.command;
		const redis = await startRedis(options);
		t.after(() => redis.stop());
		const settings = { ...services.shoal.environment, REDIS_URL: redis.url, DRAIN_SECONDS: "1" };
		const start = async () => {
			const ports = await reservePorts();
			return startServer(t, { ...settings, ...ports });
		};
		const [first, second] = [await start(), await start()];
		const { PORT: ws, MQTT_TCP_PORT: mqtt } = await reservePorts();
		const replicas = [first.wsPort, second.wsPort] as const;
		haproxy.start(t, createFolder(t), { cert: "", key: "" }, { ws, mqtt, replicas, tcp: [first.tcpPort, second.tcpPort] });
		await untilReady(ws, false);

		const session = { protocolVersion: 5, clean: false, reconnectPeriod: 100, properties: { sessionExpiryInterval: 600 } } as const;
		const page = await MqttJsClient.connect(t, `ws://127.0.0.1:${ws}/mqtt`, session);
		const device = await MqttJsClient.connect(t, `mqtt://127.0.0.1:${mqtt}`, session);
		await page.mqtt.subscribeAsync("a", { qos: 2 });
		const publishing = async () => {
			for (let index = 0; index < 300; index++) {
				await device.mqtt.publishAsync("a", `${index}`, { qos: 2 }).catch((error: { code?: number }) => {
					// PUBCOMP for a PUBREL that was sent again: the first had been heard. MQTT.js takes it for a failure.
					assert.equal(error.code, IDENTIFIER_NOT_FOUND);
				});
			}
		};
		const all = publishing();
		const before = await page.take(50);
		await first.kill("SIGTERM");
		const ports = { PORT: String(first.wsPort), MQTT_TCP_PORT: String(first.tcpPort) };
		await startServer(t, { ...settings, ...ports });
		await second.kill("SIGTERM");
		await all;
		const received = [...before, ...(await page.take(250))].map(({ text }) => Number(text));
		assert.deepEqual(
			received,
			Array.from({ length: 300 }, (_, index) => index),
		);
	});
});
