/**
 * Workers of a backend that share what devices send: each message goes to one of them. With a broker on port 8083:
 *
 *   node_modules/.bin/bun examples/workers.ts [address] [how many] [milliseconds of work]
 *   node_modules/.bin/deno run -A examples/workers.ts [address] [how many] [milliseconds of work]
 *
 * Start it as often as you like, on as many machines: they are one group.
 */

import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import mqtt, { type MqttClient } from "mqtt";

/** The group is `backend`. */
const FILTER = "$share/backend/devices/+/temperature";
const SUCCESS = 0;
const [address = "ws://localhost:8083/mqtt", howMany = "3", workMs = "100"] = process.argv.slice(2);

const workers = await Promise.all(Array.from({ length: Number(howMany) }, (_, index) => start(`worker-${process.pid}-${index + 1}`)));
console.log(`workers that are ready: ${workers.length}`);

async function start(name: string): Promise<MqttClient> {
	const client = await mqtt.connectAsync(address, {
		protocolVersion: 5,
		clientId: name,
		username: process.env.MQTT_USERNAME ?? "",
		password: process.env.MQTT_PASSWORD ?? "",
		// What was waiting while all workers were away is still there for a minute.
		clean: false,
		properties: {
			sessionExpiryInterval: 60,
			// So many at a time, and the rest stays for the others.
			receiveMaximum: 4,
		},
		// Acknowledged after the work, not before: what a worker had not finished when it died goes to another one.
		customHandleAcks: async (topic, payload, _, done) => {
			await work(name, topic, payload);
			done(SUCCESS);
		},
	});
	client.on("error", (error) => console.log(`${name}: ${error.message}`));
	await client.subscribeAsync(FILTER, { qos: 1 });
	return client;
}

async function work(name: string, topic: string, payload: Uint8Array): Promise<void> {
	await sleep(Number(workMs));
	console.log(`${name} ${topic} ${Buffer.from(payload)}`);
}

for (const signal of ["SIGINT", "SIGTERM"]) {
	process.once(signal, async () => {
		await Promise.all(workers.map((client) => client.endAsync()));
		process.exit(0);
	});
}
