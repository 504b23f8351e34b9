/** Starts and stops a `node:net` server and everything made from it. Knows ports and their errors, nothing of what is served. */

import type { Server } from "node:net";
import { log } from "../log.ts";
import type { Listener } from "./socket.ts";

const logger = log("transport");

/** A TLS handshake that takes longer is given up. */
export const HANDSHAKE_MS = 10_000;

/** Listens, and answers when the port is open. Rejects with an Error that names address and remedy. */
export function listen(server: Server, { hostname, port }: { readonly hostname: string; readonly port: number }): Promise<Listener> {
	return new Promise((resolve, reject) => {
		const onError = (error: Error) => reject(listenError(hostname, port, error));
		server.once("error", onError);
		server.listen({ host: hostname, port }, () => {
			server.off("error", onError);
			// Without a listener an error of one accept, such as too many open files, would end the process.
			server.on("error", (error) => logger.warn("Cannot accept a connection", { hostname, port, error: error.message }));
			const address = server.address();
			resolve({
				hostname: typeof address === "object" && address ? address.address : hostname,
				port: typeof address === "object" && address ? address.port : port,
				stop: async () => {
					// Its callback waits for the connections, which stay.
					server.close();
				},
			});
		});
	});
}

/** What went wrong in listening, in words. */
export function listenError(hostname: string, port: number, cause: unknown): Error {
	const place = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
	const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
	switch (code) {
		case "EADDRINUSE":
			return new Error(`Cannot listen on ${place}: the port is in use; stop the other process or choose another port`, { cause });
		case "EACCES":
			return new Error(`Cannot listen on ${place}: permission denied; choose a port from 1024 up or allow this one`, { cause });
		case "EADDRNOTAVAIL":
			return new Error(`Cannot listen on ${place}: this machine does not have the address`, { cause });
		default:
			return new Error(`Cannot listen on ${place}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
	}
}
