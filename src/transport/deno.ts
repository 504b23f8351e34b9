/**
 * WebSockets and HTTP of Deno. Its own listener reads the frames itself (`framed_socket.ts`); Deno's WebSocket is for
 * requests that a foreign `Deno.serve` brings. Measured with Deno 2.9.6, that one has faults that nobody can mend from
 * outside: it collects a fragmented message without any limit (and a frame up to 64 MiB) before it tells anybody, it cannot
 * be paused or dropped (a peer that reads nothing keeps its queue in memory until the peer's own end), and it takes
 * unmasked frames. So a server for strangers uses `serve`.
 */

import type { RuntimeAdapter, WebSocketOptions } from "./adapter.ts";
import { LINGER_MS } from "./byte_stream.ts";
import { Door } from "./door.ts";
import { takeOver } from "./framed_socket.ts";
import { CLOSE_CODES } from "./frames.ts";
import { arrivalOf, serveHttp } from "./http_server.ts";
import type { Accept, CloseKind, PeerInfo, Socket, SocketHandler } from "./socket.ts";
import { refusalResponse, withoutRequest } from "./upgrade.ts";

/** The parts of Deno that are used, so that nothing else of it is needed to check the types. */
interface DenoGlobal {
	readonly Deno: {
		upgradeWebSocket(request: Request, options: { protocol?: string; idleTimeout: number }): { response: Response; socket: WebSocket };
	};
}

/** Above this `send` answers `queued`, as `node:net` does. Deno writes later and tells nothing, so below it means nothing. */
const HIGH_WATER_BYTES = 65_536;
const DRAIN_POLL_MS = 10;

/** Makes the adapter for Deno. Throws where the options ask for compression, which Deno does not have. */
export function createDenoAdapter(options: WebSocketOptions): RuntimeAdapter {
	if (options.compression) throw new Error("Cannot compress WebSocket messages on Deno: switch compression off, or run on Bun");
	const door = options.door ?? new Door();
	return {
		websocket: undefined,
		// V8 takes 0.02 µs for a view, and 0.3 µs to allocate.
		copyUpTo: -1,
		upgrade: (request, env, accept) => upgrade(request, env, accept, options, door),
		addressOf: (request, env) => door.addressOf(request.headers, arrivalOf(env)?.arrival.address ?? ""),
		serve: serveHttp,
	};
}

function upgrade(request: Request, env: unknown, accept: Accept, options: WebSocketOptions, door: Door): Response {
	const { arrival, upgradable } = connectionOf(env);
	const judgement = door.judge(request, arrival, options);
	if (judgement.kind === "refuse") return refusalResponse(judgement);
	const { peer, protocol } = judgement;
	if (upgradable) return takeOver(upgradable, request.headers.get("sec-websocket-key") ?? "", protocol, peer, accept);
	const { Deno } = globalThis as unknown as DenoGlobal;
	const { response, socket } = Deno.upgradeWebSocket(request, {
		...(protocol === undefined ? {} : { protocol }),
		// Deno pings after half of it and closes after the other half without a pong.
		idleTimeout: 2 * options.pingSeconds,
	});
	new DenoSocket(socket, peer, accept);
	return response;
}

function connectionOf(env: unknown): NonNullable<ReturnType<typeof arrivalOf>> {
	const connection = arrivalOf(env);
	if (connection) return connection;
	throw new TypeError(
		'Cannot upgrade without the connection: pass "{ info }" (second argument of the handler in Deno.serve) as second argument',
	);
}

/** Sockets with a queue, looked after by one timer: Deno has no event for an empty queue. */
const queued = new Set<DenoSocket>();
let poll: ReturnType<typeof setInterval> | undefined;

function watchQueue(socket: DenoSocket): void {
	queued.add(socket);
	poll ??= setInterval(() => {
		for (const one of queued) one.checkQueue();
	}, DRAIN_POLL_MS);
}

function unwatchQueue(socket: DenoSocket): void {
	queued.delete(socket);
	if (queued.size > 0) return;
	clearInterval(poll);
	poll = undefined;
}

/** A WebSocket of a foreign `Deno.serve`. */
class DenoSocket implements Socket {
	peer: PeerInfo;
	readonly #ws: WebSocket;
	#handler: SocketHandler | undefined;
	#state: "open" | "closing" | "closed" = "open";
	#linger: ReturnType<typeof setTimeout> | undefined;

	constructor(ws: WebSocket, peer: PeerInfo, accept: Accept) {
		this.peer = peer;
		this.#ws = ws;
		ws.binaryType = "arraybuffer";
		ws.onopen = () => {
			this.#handler = accept(this);
			if (!this.#handler) this.close("busy");
		};
		ws.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
			if (this.#state !== "open") return;
			if (typeof data === "string") this.#handler?.onText();
			else if (data.byteLength > 0) this.#handler?.onData(new Uint8Array(data));
		};
		// "close" follows every error, and is what counts.
		ws.onerror = (event) => event.preventDefault();
		ws.onclose = () => this.#closed();
	}

	send(bytes: Uint8Array): "sent" | "queued" | "dropped" {
		if (this.#state !== "open" || this.#ws.readyState !== WebSocket.OPEN) return "dropped";
		this.#ws.send(bytes as Uint8Array<ArrayBuffer>);
		if (this.#ws.bufferedAmount <= HIGH_WATER_BYTES) return "sent";
		watchQueue(this);
		return "queued";
	}

	get bufferedAmount(): number {
		return this.#ws.bufferedAmount;
	}

	pause(): void {
		// Deno reads on.
	}

	resume(): void {
		// Never paused.
	}

	forgetRequest(): void {
		this.peer = withoutRequest(this.peer);
	}

	ping(): void {
		// Deno pings by itself.
	}

	close(kind: CloseKind): void {
		if (this.#state !== "open") return;
		this.#state = "closing";
		unwatchQueue(this);
		this.#linger = setTimeout(() => this.#closed(), LINGER_MS);
		this.#ws.close(CLOSE_CODES[kind]);
	}

	/** All that can be done is to forget it: Deno keeps the connection until the peer lets go. */
	terminate(): void {
		if (this.#state === "closed") return;
		if (this.#state === "open") this.#ws.close();
		this.#state = "closing";
		queueMicrotask(() => this.#closed());
	}

	/** Called by the timer that all sockets with a queue share. */
	checkQueue(): void {
		if (this.#ws.bufferedAmount > 0) return;
		unwatchQueue(this);
		if (this.#state === "open") this.#handler?.onDrain();
	}

	#closed(): void {
		if (this.#state === "closed") return;
		this.#state = "closed";
		clearTimeout(this.#linger);
		unwatchQueue(this);
		this.#handler?.onClose();
	}
}
