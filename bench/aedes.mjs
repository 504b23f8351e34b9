/** Aedes behind WebSockets, as a peer to measure against: `node aedes.mjs <folder of its packages> <port>`. */

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";

const [folder = "", port = ""] = process.argv.slice(2);
const load = createRequire(join(folder, "package.json"));
const { Aedes } = load("aedes");
const { WebSocketServer, createWebSocketStream } = load("ws");

const broker = await Aedes.createBroker({ concurrency: 1000, queueLimit: 1_000_000, heartbeatInterval: 3_600_000 });
const http = createServer();
const sockets = new WebSocketServer({ server: http, handleProtocols: () => "mqtt", perMessageDeflate: false });
sockets.on("connection", (/** @type {unknown} */ socket, /** @type {unknown} */ request) => {
	const stream = createWebSocketStream(socket);
	stream.on("error", () => {});
	broker.handle(stream, request);
});
http.listen({ host: "127.0.0.1", port: Number(port) });
