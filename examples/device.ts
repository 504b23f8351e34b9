/**
 * A device as a program: it measures a temperature, obeys commands, and is missed when it is gone. With a broker on port 8083:
 *
 *   node_modules/.bin/bun examples/device.ts [address] [name]
 *   node_modules/.bin/deno run -A examples/device.ts [address] [name]
 *
 * It publishes `devices/NAME/temperature`, takes `{"intervalMs":200}` on `devices/NAME/commands`, and keeps `devices/NAME/status`.
 */

import process from "node:process";
import mqtt from "mqtt";

const [address = "ws://localhost:8083/mqtt", name = `device-${Math.random().toString(36).slice(2, 8)}`] = process.argv.slice(2);
const topic = (last: string): string => `devices/${name}/${last}`;

const client = mqtt.connect(address, {
	protocolVersion: 5,
	clientId: name,
	username: process.env.MQTT_USERNAME ?? "",
	password: process.env.MQTT_PASSWORD ?? "",
	// The broker keeps commands for an hour while the device is away.
	clean: false,
	properties: { sessionExpiryInterval: 3600 },
	keepalive: 30,
	reconnectPeriod: 1000,
	// The broker says this when it hears no more. A device that is back within three seconds was never gone.
	will: { topic: topic("status"), payload: Buffer.from("offline"), qos: 1, retain: true, properties: { willDelayInterval: 3 } },
});

client.on("connect", ({ sessionPresent }) => {
	// Retained: whoever asks later knows.
	client.publish(topic("status"), "online", { qos: 1, retain: true });
	// A session that is still there has its subscriptions.
	if (sessionPresent) return console.log("connected again");
	client.subscribe(topic("commands"), { qos: 1 }, (error) => console.log(error === null ? "connected" : `error: ${error.message}`));
});
client.on("close", () => console.log("connection closed"));
client.on("error", (error) => console.log(`error: ${error.message}`));
client.on("message", (_, payload) => {
	const intervalMs = readCommand(payload.toString());
	if (intervalMs === undefined) return console.log(`command not understood: ${payload}`);
	console.log(`measuring every ${intervalMs} ms`);
	clearInterval(timer);
	timer = setInterval(measure, intervalMs);
});

let count = 0;
let timer = setInterval(measure, 1000);

function measure(): void {
	count++;
	const celsius = 20 + 5 * Math.sin(count / 20);
	// While there is no connection MQTT.js keeps it; with QoS 1 until the broker has said that it is stored.
	client.publish(topic("temperature"), JSON.stringify({ count, celsius: Number(celsius.toFixed(2)) }), { qos: 1 });
}

function readCommand(text: string): number | undefined {
	try {
		const { intervalMs } = JSON.parse(text) as { intervalMs?: unknown };
		return Number.isInteger(intervalMs) && Number(intervalMs) >= 10 ? Number(intervalMs) : undefined;
	} catch {
		return undefined;
	}
}

for (const signal of ["SIGINT", "SIGTERM"]) {
	process.once(signal, async () => {
		clearInterval(timer);
		// After a DISCONNECT there is no will: the device says it itself.
		if (client.connected) await client.publishAsync(topic("status"), "offline", { qos: 1, retain: true });
		await client.endAsync();
		process.exit(0);
	});
}
