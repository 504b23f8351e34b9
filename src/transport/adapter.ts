/** What the two runtimes have in common for the rest of the server: an HTTP listener, and the upgrade of a request to a WebSocket. */

import type { TlsSettings } from "./certificate.ts";
import type { Door } from "./door.ts";
import type { Accept, Listener } from "./socket.ts";

export interface WebSocketOptions {
	/** Largest MQTT packet, in bytes. */
	readonly maxPacketSize: number;
	/** Unsent bytes above which the broker gives a connection nothing more. */
	readonly maxBufferedBytes: number;
	/** Between pings where the runtime sends them itself; 0 for none. */
	readonly pingSeconds: number;
	/** Negotiates permessage-deflate. On Bun only. */
	readonly compression: boolean;
	/** Refuses clients that offer no subprotocol of MQTT. */
	readonly requireSubprotocol: boolean;
	/** Judges who may come in; the same for all listeners. Default: one that lets everybody in. */
	readonly door?: Door;
}

export interface ServeOptions {
	readonly hostname: string;
	/** 0 takes any free port. */
	readonly port: number;
	/** Present: HTTPS. Without `clientCertificate` none is asked for. */
	readonly tls?: Omit<TlsSettings, "clientCertificate"> & Partial<Pick<TlsSettings, "clientCertificate">>;
	/** Answers a request. `env` is for `RuntimeAdapter.upgrade`, as the second argument of a Hono app's `fetch`. */
	readonly fetch: (request: Request, env: unknown) => Response | Promise<Response>;
}

export interface RuntimeAdapter {
	/**
	 * Makes a WebSocket of a request, or refuses with a status from 400 up. The response MUST be returned to the runtime
	 * unchanged (not even a header may be added); after a success it is what the runtime wants to see, whatever that is.
	 * To be called before anything reads the request.
	 *
	 * @param env What `serve` gave to `fetch`. In a foreign server: `{ server }`, the second argument of `fetch` on Bun, and
	 * `info`, that of the handler on Deno; each by itself will do, too.
	 * @throws {TypeError} when `env` is none of these
	 */
	upgrade(request: Request, env: unknown, accept: Accept): Response;
	/** Where a request comes from, as the door sees it; empty when `env` does not tell. */
	addressOf(request: Request, env: unknown): string;
	/** Serves HTTP, and WebSockets through `upgrade`. Rejects with an Error that names the remedy when it cannot listen. */
	serve(options: ServeOptions): Promise<Listener>;
	/** Bytes up to which a part of a received chunk is copied faster than viewed, on this engine; -1 for none. */
	readonly copyUpTo: number;
	/** For a foreign `Bun.serve`: its `websocket`. `undefined` on Deno, which needs none. */
	readonly websocket: unknown;
}
