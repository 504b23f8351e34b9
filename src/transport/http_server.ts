/**
 * An HTTP server for fetch handlers on `node:http` and `node:https`. It leaves the connection of an upgrade request to the
 * handler, which `Deno.serve` cannot, and tells whose certificate it came with. Knows HTTP, nothing of what is served.
 */

import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { Server as NetServer, Socket as NodeSocket } from "node:net";
import { Readable } from "node:stream";
import type { ReadableStream as NodeReadableStream } from "node:stream/web";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import { log } from "../log.ts";
import type { ServeOptions } from "./adapter.ts";
import { type TlsSettings, tlsOptions, verifiedIdentity } from "./certificate.ts";
import type { Arrival } from "./door.ts";
import { HANDSHAKE_MS, listen } from "./listen.ts";
import type { ClientCertificate, Listener } from "./socket.ts";

const logger = log("transport");

/** A client that takes longer to send the head of a request is cut. */
const HEADERS_MS = 10_000;
const REQUEST_MS = 60_000;

/** The connection of an upgrade request, for the handler to take. */
export class Upgradable {
	readonly stream: NodeSocket;
	/** What came behind the request already. */
	readonly head: Uint8Array;
	readonly certificate: ClientCertificate | undefined;
	/** Whether the handler has taken it and answered by itself: its `Response` is then not sent. */
	taken = false;

	constructor(stream: NodeSocket, head: Uint8Array, certificate: ClientCertificate | undefined) {
		this.stream = stream;
		this.head = head;
		this.certificate = certificate;
	}
}

/** The connection that an `env` stands for: ours, or what `Deno.serve` tells. `undefined` when it stands for none. */
export function arrivalOf(env: unknown): { readonly arrival: Arrival; readonly upgradable: Upgradable | undefined } | undefined {
	const given = typeof env === "object" && env !== null && "upgradable" in env ? env.upgradable : undefined;
	const upgradable = given instanceof Upgradable ? given : undefined;
	const info = typeof env === "object" && env !== null && "info" in env ? env.info : env;
	if (typeof info !== "object" || info === null || !("remoteAddr" in info)) return undefined;
	const { hostname, port } = info.remoteAddr as { readonly hostname: string; readonly port: number };
	return { arrival: { address: hostname, port, certificate: upgradable?.certificate }, upgradable };
}

/** `env` of a request: what `Deno.serve` would tell, and the connection where the client asks for an upgrade. */
interface HttpEnv {
	readonly info: { readonly remoteAddr: { readonly transport: "tcp"; readonly hostname: string; readonly port: number } };
	readonly upgradable?: Upgradable;
}

/** Serves a fetch handler. Rejects with an Error that names the remedy when it cannot listen. */
export function serveHttp({ hostname, port, tls, fetch }: ServeOptions): Promise<Listener> {
	const timeouts = { headersTimeout: HEADERS_MS, requestTimeout: REQUEST_MS };
	const scheme = tls ? "https" : "http";
	const asked = tls?.clientCertificate ?? "none";
	const server =
		tls && asked === "none"
			? createHttpsServer({ ...timeouts, ...tlsOptions({ ...tls, clientCertificate: asked }, HANDSHAKE_MS) })
			: createHttpServer(timeouts);
	const certificates = new WeakMap<NodeSocket, ClientCertificate>();
	const listening = tls && asked !== "none" ? withCertificates(server, { ...tls, clientCertificate: asked }, certificates) : server;

	/** Answers what is wrong as a response: nothing that a client sends may end the process. */
	const answer = async (incoming: IncomingMessage, signal?: AbortSignal, upgradable?: Upgradable): Promise<Response> => {
		let request: Request;
		try {
			request = toRequest(incoming, scheme, signal);
		} catch {
			return new Response("Bad request\n", { status: 400 });
		}
		try {
			return await fetch(request, envOf(incoming.socket, upgradable));
		} catch (error) {
			logger.error("HTTP handler failed", { error });
			if (upgradable?.taken) upgradable.stream.destroy();
			return new Response("Internal server error\n", { status: 500 });
		}
	};

	server.on("request", (incoming: IncomingMessage, outgoing: ServerResponse) => {
		const gone = new AbortController();
		outgoing.on("error", ignore);
		outgoing.on("close", () => gone.abort());
		answer(incoming, gone.signal)
			.then((response) => send(response, outgoing, incoming.method === "HEAD"))
			// The status may be out already: only a broken connection tells the client that the rest is missing.
			.catch(() => outgoing.destroy());
	});
	// No signal here: its listener would keep the request in memory for as long as the WebSocket lives.
	server.on("upgrade", (incoming: IncomingMessage, stream: NodeSocket, head: Buffer) => {
		const upgradable = new Upgradable(stream, head, certificates.get(incoming.socket));
		stream.on("error", ignore);
		answer(incoming, undefined, upgradable)
			.then((response) => (upgradable.taken ? undefined : sendOver(stream, response)))
			.catch(() => stream.destroy());
	});
	server.on("clientError", (error, stream) => {
		logger.debug("HTTP connection failed", { error: error.message });
		stream.destroy();
	});
	return listen(listening, { hostname, port });
}

/**
 * Puts TLS with client certificates before an HTTP server. Not `node:https`: Bun's does not tell whose certificate it was.
 * The HTTP server itself never listens, so that nothing of it watches the time of a connection: that is done here.
 */
function withCertificates(server: Server, tls: TlsSettings, certificates: WeakMap<NodeSocket, ClientCertificate>): NetServer {
	const timers = new WeakMap<NodeSocket, ReturnType<typeof setTimeout>>();
	server.on("upgrade", (incoming: IncomingMessage) => clearTimeout(timers.get(incoming.socket)));
	const tlsServer = createTlsServer(tlsOptions(tls, HANDSHAKE_MS), (stream: TLSSocket) => {
		stream.on("error", ignore);
		const certificate = verifiedIdentity(stream, tls.clientCertificate);
		if (certificate === "refused") {
			stream.destroy();
			return;
		}
		if (certificate) certificates.set(stream, certificate);
		const timer = setTimeout(() => stream.destroy(), REQUEST_MS);
		timers.set(stream, timer);
		stream.on("close", () => clearTimeout(timer));
		server.emit("connection", stream);
	});
	tlsServer.on("tlsClientError", (error, stream) => {
		logger.debug("TLS handshake failed", { error: error.message });
		stream.destroy();
	});
	return tlsServer;
}

function envOf(socket: NodeSocket, upgradable: Upgradable | undefined): HttpEnv {
	const info = { remoteAddr: { transport: "tcp", hostname: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 } } as const;
	return upgradable ? { info, upgradable } : { info };
}

/**
 * Throws where the client sent what no `Request` can be, such as a Host that is none.
 *
 * @param signal Absent for an upgrade, which has no body either.
 */
function toRequest(incoming: IncomingMessage, scheme: string, signal?: AbortSignal): Request {
	const url = new URL(`${scheme}://${incoming.headers.host ?? "localhost"}${incoming.url ?? "/"}`);
	const headers = new Headers();
	const raw = incoming.rawHeaders;
	for (let index = 0; index + 1 < raw.length; index += 2) headers.append(raw[index] as string, raw[index + 1] as string);
	const method = incoming.method ?? "GET";
	if (!signal) return new Request(url, { method, headers });
	if (method === "GET" || method === "HEAD") return new Request(url, { method, headers, signal });
	const body = Readable.toWeb(incoming) as NodeReadableStream<Uint8Array> as unknown as ReadableStream<Uint8Array>;
	return new Request(url, { method, headers, signal, body, duplex: "half" } as RequestInit);
}

/** Rejects when the body breaks off. */
async function send(response: Response, outgoing: ServerResponse, headOnly: boolean): Promise<void> {
	outgoing.statusCode = response.status;
	for (const [name, value] of response.headers) if (name !== "set-cookie") outgoing.setHeader(name, value);
	const cookies = response.headers.getSetCookie();
	if (cookies.length > 0) outgoing.setHeader("set-cookie", cookies);
	if (headOnly || !response.body) {
		await response.body?.cancel();
		outgoing.end();
		return;
	}
	// The head goes out before the first part is there: a stream may have nothing to say for long.
	outgoing.flushHeaders();
	const reader = response.body.getReader();
	outgoing.on("close", () => void reader.cancel().catch(ignore));
	for (let part = await reader.read(); !part.done; part = await reader.read()) {
		if (!outgoing.write(part.value)) await new Promise<void>((resume) => outgoing.once("drain", resume).once("close", resume));
	}
	outgoing.end();
}

function ignore(): void {
	// "close" follows, and is what counts.
}

/** Sends a response to an upgrade request that nobody took, and ends the connection. */
async function sendOver(stream: NodeSocket, response: Response): Promise<void> {
	const body = Buffer.from(await response.arrayBuffer());
	const headers = [...response.headers].filter(([name]) => name !== "connection" && name !== "content-length");
	const connection = response.headers.has("upgrade") ? "Upgrade, close" : "close";
	const lines = [`HTTP/1.1 ${response.status} ${STATUS_CODES[response.status] ?? ""}`];
	headers.push(["connection", connection], ["content-length", String(body.length)]);
	for (const [name, value] of headers) lines.push(`${name}: ${value}`);
	stream.resume();
	stream.end(Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), body]));
	stream.setTimeout(HEADERS_MS, () => stream.destroy());
}
