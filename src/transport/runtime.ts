/** The single choice between Bun and Deno. */

import type { RuntimeAdapter, WebSocketOptions } from "./adapter.ts";
import { createBunAdapter } from "./bun.ts";
import { createDenoAdapter } from "./deno.ts";

export type { RuntimeAdapter, WebSocketOptions } from "./adapter.ts";

/** Makes the adapter of the runtime that this runs on. */
export function createRuntimeAdapter(options: WebSocketOptions): RuntimeAdapter {
	if ("Bun" in globalThis) return createBunAdapter(options);
	if ("Deno" in globalThis) return createDenoAdapter(options);
	throw new Error("Shoal runs on Bun and on Deno: start it with one of them");
}

/** Name and version of the runtime that this runs on, such as `bun 1.4.5`. */
export function runtimeName(): string {
	const { bun, deno } = process.versions as Readonly<Record<string, string | undefined>>;
	if (bun !== undefined) return `bun ${bun}`;
	return deno === undefined ? `node ${process.versions.node}` : `deno ${deno}`;
}
