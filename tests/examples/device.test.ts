/** `examples/device.ts`: what a device publishes, obeys, and leaves behind when it is gone. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MqttJsClient, type Received } from "../support/mqttjs_client.ts";
import { createFolder, reservePorts, startServer } from "../support/server_process.ts";
import { startBroker } from "../support/test_broker.ts";
import { line, startExample } from "./example_program.ts";

const count = ({ text }: Received): number => (JSON.parse(text) as { count: number }).count;

describe("examples/device.ts", () => {
	it("it is online, measures once a second, faster when it is told to, and says that it is offline when it ends", async (t) => {
		const broker = await startBroker(t);
		const watcher = await MqttJsClient.connect(t, broker.wsUrl, { protocolVersion: 5 });
		await watcher.mqtt.subscribeAsync("devices/one/status", { qos: 1 });
		const device = startExample(t, "device.ts", [broker.wsUrl, "one"]);
		await line(device, "connected");
		assert.equal((await watcher.next()).text, "online");

		await watcher.mqtt.subscribeAsync("devices/one/temperature", { qos: 1 });
		await watcher.mqtt.publishAsync("devices/one/commands", "faster", { qos: 1 });
		await line(device, "command not understood: faster");
		await watcher.mqtt.publishAsync("devices/one/commands", JSON.stringify({ intervalMs: 20 }), { qos: 1 });
		await line(device, "measuring every 20 ms");
		const [first, ...others] = await watcher.take(10);
		assert.ok(first);
		assert.deepEqual(
			others.map(count),
			others.map((_, index) => count(first) + index + 1),
		);
		assert.deepEqual([first.topic, first.qos], ["devices/one/temperature", 1]);

		await watcher.mqtt.unsubscribeAsync("devices/one/temperature");
		const { code } = await device.kill("SIGTERM");
		assert.equal(code, 0);
		const later = await MqttJsClient.connect(t, broker.wsUrl);
		await later.mqtt.subscribeAsync("devices/one/status");
		const { text, retain } = await later.next();
		assert.deepEqual([text, retain], ["offline", true]);
	});

	it("a device that dies leaves its will, which stays for those who ask later", async (t) => {
		const broker = await startBroker(t);
		const watcher = await MqttJsClient.connect(t, broker.wsUrl);
		await watcher.mqtt.subscribeAsync("devices/two/status", { qos: 1 });
		const device = startExample(t, "device.ts", [broker.wsUrl, "two"]);
		assert.equal((await watcher.next()).text, "online");
		await device.kill("SIGKILL");
		assert.equal((await watcher.next()).text, "offline");
		const later = await MqttJsClient.connect(t, broker.wsUrl);
		await later.mqtt.subscribeAsync("devices/two/status");
		assert.equal((await later.next()).retain, true);
	});

	it("no measurement and no command is lost over a restart of the broker", async (t) => {
		const env = { ...(await reservePorts()), STORE: "sqlite", DATA_DIR: createFolder(t) };
		const first = await startServer(t, env);
		const session = { protocolVersion: 5, clientId: "watcher", clean: false, properties: { sessionExpiryInterval: 600 } } as const;
		const watcher = await MqttJsClient.connect(t, first.wsUrl, session);
		await watcher.mqtt.subscribeAsync("devices/three/temperature", { qos: 1 });
		const device = startExample(t, "device.ts", [first.wsUrl, "three"]);
		await line(device, "connected");
		await watcher.mqtt.publishAsync("devices/three/commands", JSON.stringify({ intervalMs: 20 }), { qos: 1 });
		await line(device, "measuring every 20 ms");
		const before = await watcher.take(5);
		await first.kill("SIGKILL");
		await line(device, "connection closed");

		const second = await startServer(t, env);
		const back = await MqttJsClient.connect(t, second.wsUrl, session);
		await line(device, "connected again");
		const counts = new Set([...before, ...watcher.waiting].map(count));
		const highest = Math.max(...counts);
		// QoS 1 may repeat, so as many as it takes.
		while (!Array.from({ length: 100 }, (_, index) => highest + index + 1).every((each) => counts.has(each)))
			counts.add(count(await back.next()));
		await back.mqtt.publishAsync("devices/three/commands", JSON.stringify({ intervalMs: 30 }), { qos: 1 });
		await line(device, "measuring every 30 ms");
	});
});
