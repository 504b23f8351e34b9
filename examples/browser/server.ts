/**
 * A broker that serves a page: publish and subscribe in the browser. From the top of the repository, after `npm ci`:
 *
 *   node_modules/.bin/bun examples/browser/server.ts
 *   node_modules/.bin/deno run -A examples/browser/server.ts
 *
 * Then open http://localhost:8083. Every setting of Shoal applies; ALLOW_ANONYMOUS=true lets other machines in.
 */

import { readFile } from "node:fs/promises";
import process from "node:process";
import { Hono } from "hono";
import { configureLog, createBroker, parseConfig } from "../../src/shoal.ts";

/** By path. MQTT.js comes from the packages, so that the page works without the internet. */
const FILES = [
	{ path: "/", file: "page.html", type: "text/html; charset=utf-8" },
	{ path: "/page.js", file: "page.js", type: "text/javascript; charset=utf-8" },
	{ path: "/mqtt.js", file: "../../node_modules/mqtt/dist/mqtt.esm.js", type: "text/javascript; charset=utf-8" },
];

const config = parseConfig(process.env);
configureLog({ level: config.logLevel, format: config.logFormat });
const broker = createBroker(config);

const pages = new Hono();
for (const { path, file, type } of FILES) {
	pages.get(path, async (context) => context.body(await readFile(new URL(file, import.meta.url)), 200, { "Content-Type": type }));
}
broker.app.route("/", pages);

await broker.start();
const [http] = await broker.listen();
console.log(`Open http://localhost:${http?.port}`);

for (const signal of ["SIGINT", "SIGTERM"]) {
	process.once(signal, async () => {
		await broker.stop();
		process.exit(0);
	});
}
