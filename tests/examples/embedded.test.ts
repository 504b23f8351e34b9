/** `examples/embedded.ts`: HTTP and MQTT of one app, on one port. */

import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import type { Program } from "../support/program.ts";
import { reservePorts } from "../support/server_process.ts";
import { startExample } from "./example_program.ts";

/** Starts it and answers when it takes requests. */
async function start(t: TestContext): Promise<{ program: Program; port: string }> {
	const { PORT: port } = await reservePorts();
	const program = startExample(t, "embedded.ts", [], { PORT: port }, ["serve", "-A", "--port", port]);
	await program.until("address", () => (`${program.stdout}${program.stderr}`.includes(`:${port}`) ? true : undefined));
	return { program, port };
}

describe("examples/embedded.ts", () => {
	it("what HTTP puts reaches MQTT clients, and what they publish can be asked for by HTTP", async (t) => {
		const { program, port } = await start(t);
		const client = await MqttJsClient.connect(t, `ws://127.0.0.1:${port}/iot/mqtt`);
		await client.mqtt.subscribeAsync("lights/#", { qos: 1 });
		const put = await fetch(`http://127.0.0.1:${port}/lights/kitchen`, { method: "PUT", body: "on" });
		assert.equal(put.status, 204);
		const { topic, text } = await client.next();
		assert.deepEqual([topic, text], ["lights/kitchen", "on"]);

		await client.mqtt.publishAsync("lights/hall", "off", { qos: 1 });
		const lights = await fetch(`http://127.0.0.1:${port}/lights`);
		assert.deepEqual(await lights.json(), { kitchen: "on", hall: "off" });
		const health = await fetch(`http://127.0.0.1:${port}/iot/readyz`);
		assert.equal(await health.text(), "ready\n");

		const { code } = await program.kill("SIGTERM");
		assert.equal(code, 0);
	});
});
