/**
 * A broker inside a Hono app, on the port of the app: HTTP for some, MQTT for others. After `npm ci`:
 *
 *   PORT=8080 node_modules/.bin/bun examples/embedded.ts
 *   node_modules/.bin/deno serve -A --port 8080 examples/embedded.ts
 *
 * Then `curl -X PUT --data on localhost:8080/lights/kitchen` reaches clients of ws://localhost:8080/iot/mqtt that subscribe to
 * `lights/#`, and what they publish there can be asked for with `curl localhost:8080/lights`.
 */

import process from "node:process";
import { Hono } from "hono";
// In a program of your own: from "shoal".
import { createBroker } from "../src/shoal.ts";

const broker = createBroker({ store: "memory" });
await broker.start();

const lights = new Map<string, string>();
await broker.subscribe("lights/+", ({ topic, payload }) => {
	lights.set(topic.name.slice("lights/".length), new TextDecoder().decode(payload));
});

const app = new Hono();
app.get("/lights", (context) => context.json(Object.fromEntries(lights)));
app.put("/lights/:room", async (context) => {
	// Resolves when the message is stored: now it may be promised.
	await broker.publish(`lights/${context.req.param("room")}`, await context.req.text(), { qos: 1, retain: true });
	return context.body(null, 204);
});
// MQTT is at /iot/mqtt, health at /iot/healthz.
app.route("/iot", broker.app);

for (const signal of ["SIGINT", "SIGTERM"]) {
	process.once(signal, async () => {
		await broker.drain(3);
		await broker.stop();
		process.exit(0);
	});
}

// Bun serves what a program exports, and so does "deno serve". Bun needs "websocket" for the upgrade.
// biome-ignore lint/style/noDefaultExport: that is where both runtimes look
export default { port: Number(process.env.PORT ?? 8080), fetch: app.fetch, websocket: broker.websocket };
