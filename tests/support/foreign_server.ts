/** The HTTP server of the runtime, started the way a program that mounts the broker would do it. */

import type { RuntimeAdapter } from "../../src/transport/runtime.ts";
import type { Listener } from "../../src/transport/socket.ts";

type Handler = (request: Request, second: unknown) => Response | Promise<Response>;

interface Runtime {
	readonly Bun?: {
		serve(options: { hostname: string; port: number; fetch: Handler; websocket: unknown }): {
			readonly port: number;
			readonly hostname: string;
			stop(): Promise<void>;
		};
	};
	readonly Deno?: {
		serve(
			options: { hostname: string; port: number; onListen(): void },
			handler: Handler,
		): { readonly addr: { readonly port: number; readonly hostname: string }; shutdown(): Promise<void> };
	};
}

export const onDeno = "Deno" in globalThis;

/** Serves with `Bun.serve` or `Deno.serve`. `second` of the handler is the server on Bun and the info on Deno. */
export function serveForeign(adapter: RuntimeAdapter, fetch: Handler): Listener {
	const { Bun, Deno } = globalThis as Runtime;
	const place = { hostname: "127.0.0.1", port: 0 };
	if (Bun) {
		const server = Bun.serve({ ...place, fetch, websocket: adapter.websocket });
		return { port: server.port, hostname: server.hostname, stop: async () => void server.stop() };
	}
	if (!Deno) throw new Error("neither Bun nor Deno");
	const server = Deno.serve({ ...place, onListen: () => {} }, fetch);
	return { ...server.addr, stop: async () => void server.shutdown() };
}
