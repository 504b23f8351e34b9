/**
 * WebSockets and HTTP of Bun, except for clients with certificates: `Bun.serve` can ask for one and refuse without, but
 * tells nobody whose it was (1.4.5), so they get `http_server.ts` and `framed_socket.ts`. Knows how Bun tells backpressure: `send` answers -1 for queued and 0 for dropped, and a
 * message that finds more than `backpressureLimit` waiting is dropped without a word.
 */

import type { RuntimeAdapter, ServeOptions, WebSocketOptions } from "./adapter.ts";
import { LINGER_MS } from "./byte_stream.ts";
import { Door } from "./door.ts";
import { takeOver } from "./framed_socket.ts";
import { CLOSE_CODES } from "./frames.ts";
import { arrivalOf, serveHttp } from "./http_server.ts";
import { listenError } from "./listen.ts";
import type { Accept, CloseKind, Listener, PeerInfo, Socket, SocketHandler } from "./socket.ts";
import { refusalResponse, withoutRequest } from "./upgrade.ts";

/** The parts of Bun that are used, so that nothing else of it is needed to check the types. */
interface BunServer {
	readonly hostname: string;
	readonly port: number;
	upgrade(request: Request, options: { headers: Record<string, string>; data: BunSocket }): boolean;
	requestIP(request: Request): { readonly address: string; readonly port: number } | null;
	stop(closeActiveConnections: boolean): Promise<void>;
}

interface BunWebSocket {
	readonly data: BunSocket;
	readonly readyState: number;
	binaryType: string;
	sendBinary(bytes: Uint8Array, compress: boolean): number;
	getBufferedAmount(): number;
	ping(): void;
	pause(): void;
	resume(): void;
	close(code: number): void;
	terminate(): void;
}

interface BunGlobal {
	readonly Bun: {
		serve(options: {
			hostname: string;
			port: number;
			tls?: { cert: string; key: string };
			development: false;
			reusePort: false;
			fetch(request: Request, server: BunServer): Response | Promise<Response>;
			error(error: unknown): Response;
			websocket: unknown;
		}): BunServer;
	};
}

/** A frame may carry several packets, and a client may send what it has collected in one: no tighter than Bun itself. */
const LEAST_FRAME_LIMIT = 16 * 1024 * 1024;
/** Bun's largest limit. */
const LARGEST_LIMIT = 0xffff_ffff;

/** Makes the adapter for Bun. */
export function createBunAdapter(options: WebSocketOptions): RuntimeAdapter {
	const { maxPacketSize, maxBufferedBytes, compression } = options;
	const websocket = {
		open: (ws: BunWebSocket) => ws.data.opened(ws),
		message: (ws: BunWebSocket, message: string | Uint8Array) => ws.data.received(message),
		drain: (ws: BunWebSocket) => ws.data.drained(),
		close: (ws: BunWebSocket) => ws.data.closed(),
		maxPayloadLength: Math.min(LARGEST_LIMIT, Math.max(LEAST_FRAME_LIMIT, 2 * maxPacketSize)),
		// The broker stops well before. Without a limit the pongs for a peer that pings and does not read would pile up.
		backpressureLimit: Math.min(LARGEST_LIMIT, 2 * maxBufferedBytes + maxPacketSize),
		closeOnBackpressureLimit: false,
		// Pings are sent by `Socket.ping`, and silence is judged by MQTT's Keep Alive.
		idleTimeout: 0,
		sendPings: false,
		perMessageDeflate: compression,
	};
	const door = options.door ?? new Door();
	return {
		websocket,
		// A view makes the chunk's ArrayBuffer first, which takes JavaScriptCore 0.15 µs; copying 256 bytes takes less.
		copyUpTo: 256,
		upgrade: (request, env, accept) => upgrade(request, env, accept, options, door),
		addressOf: (request, env) =>
			door.addressOf(request.headers, arrivalOf(env)?.arrival.address ?? serverOf(env)?.requestIP(request)?.address ?? ""),
		serve: (serveOptions) =>
			(serveOptions.tls?.clientCertificate ?? "none") === "none" ? serve(serveOptions, websocket) : serveHttp(serveOptions),
	};
}

function upgrade(request: Request, env: unknown, accept: Accept, options: WebSocketOptions, door: Door): Response {
	const framed = arrivalOf(env);
	const server = framed ? undefined : serverOf(env);
	const remote = server?.requestIP(request);
	const judgement = door.judge(request, framed?.arrival ?? { address: remote?.address ?? "", port: remote?.port ?? 0 }, options);
	if (judgement.kind === "refuse") return refusalResponse(judgement);
	const { peer, protocol } = judgement;
	if (framed?.upgradable) return takeOver(framed.upgradable, request.headers.get("sec-websocket-key") ?? "", protocol, peer, accept);
	const upgraded = server?.upgrade(request, {
		// Without the header Bun would echo the client's first subprotocol; empty, it is left out (oven-sh/bun#18243).
		headers: { "Sec-WebSocket-Protocol": protocol ?? "" },
		data: new BunSocket(peer, accept, options.compression),
	});
	return upgraded ? new Response(null) : new Response("The connection cannot be upgraded\n", { status: 400 });
}

async function serve({ hostname, port, tls, fetch }: ServeOptions, websocket: unknown): Promise<Listener> {
	const { Bun } = globalThis as unknown as BunGlobal;
	let server: BunServer;
	try {
		server = Bun.serve({
			hostname,
			port,
			...(tls ? { tls: { cert: tls.cert, key: tls.key } } : {}),
			development: false,
			// Without it Bun shares the port of another production server, and half of the clients go there.
			reusePort: false,
			fetch: (request, own) => fetch(request, { server: own }),
			error: () => new Response("Internal server error\n", { status: 500 }),
			websocket,
		});
	} catch (error) {
		throw listenError(hostname, port, error);
	}
	return {
		hostname: server.hostname,
		port: server.port,
		stop: async () => {
			// Its promise waits for the connections, which stay.
			void server.stop(false);
		},
	};
}

function serverOf(env: unknown): BunServer {
	const candidate = typeof env === "object" && env !== null && "server" in env ? env.server : env;
	if (typeof candidate === "object" && candidate !== null && "requestIP" in candidate) return candidate as BunServer;
	throw new TypeError('Cannot upgrade without the server: pass "{ server }" (second argument of "fetch" in Bun.serve) as second argument');
}

/** Made at the upgrade, before Bun has a socket for it. */
class BunSocket implements Socket {
	peer: PeerInfo;
	readonly #accept: Accept;
	readonly #compression: boolean;
	#ws: BunWebSocket | undefined;
	#handler: SocketHandler | undefined;
	#state: "open" | "closing" | "closed" = "open";
	#queued = false;
	#closeCode = CLOSE_CODES.normal;
	#linger: ReturnType<typeof setTimeout> | undefined;

	constructor(peer: PeerInfo, accept: Accept, compression: boolean) {
		this.peer = peer;
		this.#accept = accept;
		this.#compression = compression;
	}

	send(bytes: Uint8Array): "sent" | "queued" | "dropped" {
		if (this.#state !== "open" || !this.#ws) return "dropped";
		const status = this.#ws.sendBinary(bytes, this.#compression);
		if (status > 0) return "sent";
		if (status === 0) return "dropped";
		this.#queued = true;
		return "queued";
	}

	get bufferedAmount(): number {
		return this.#state === "closed" ? 0 : (this.#ws?.getBufferedAmount() ?? 0);
	}

	pause(): void {
		if (this.#state === "open") this.#ws?.pause();
	}

	resume(): void {
		if (this.#state === "open") this.#ws?.resume();
	}

	forgetRequest(): void {
		this.peer = withoutRequest(this.peer);
	}

	ping(): void {
		if (this.#state === "open") this.#ws?.ping();
	}

	close(kind: CloseKind): void {
		if (this.#state !== "open") return;
		this.#state = "closing";
		this.#closeCode = CLOSE_CODES[kind];
		this.#ws?.resume();
		if (this.bufferedAmount === 0) {
			this.#ws?.close(this.#closeCode);
			return;
		}
		// After its `close` Bun gives what is queued no more than 0 to 4 s (measured, 1.4.5): so first it has to be gone.
		this.#linger = setTimeout(() => this.#ws?.terminate(), LINGER_MS);
	}

	terminate(): void {
		if (this.#state === "closed") return;
		this.#state = "closing";
		this.#ws?.terminate();
	}

	/** Bun's `open`. */
	opened(ws: BunWebSocket): void {
		this.#ws = ws;
		ws.binaryType = "uint8array";
		this.#handler = this.#accept(this);
		if (!this.#handler) this.close("busy");
	}

	/** Bun's `message`. The array is new for each message. */
	received(message: string | Uint8Array): void {
		if (this.#state !== "open") return;
		if (typeof message === "string") this.#handler?.onText();
		else if (message.length > 0) this.#handler?.onData(message);
	}

	/** Bun's `drain`, which also comes while a part still waits. */
	drained(): void {
		if (this.#ws?.getBufferedAmount() !== 0) return;
		if (this.#state === "closing") this.#ws.close(this.#closeCode);
		if (this.#state !== "open" || !this.#queued) return;
		this.#queued = false;
		this.#handler?.onDrain();
	}

	/** Bun's `close`, which it calls from within `ws.close()`: passed on afterwards, for nobody expects it in the middle of a call. */
	closed(): void {
		if (this.#state === "closed") return;
		this.#state = "closed";
		clearTimeout(this.#linger);
		queueMicrotask(() => this.#handler?.onClose());
	}
}
