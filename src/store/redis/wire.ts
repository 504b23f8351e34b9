/** What a connection has below it, be it one server or a cluster, and how failures of Redis become `StoreError`s. */

import { StoreError } from "../store.ts";
import type { Argument } from "./link.ts";
import type { Script } from "./scripts.ts";

export interface WireOptions {
	/** Those that will be run. */
	readonly scripts: readonly Script[];
	/** The connection counts as lost when commands are under way and nothing was answered for so long. */
	readonly stallMs: number;
	/** Called whenever the connection is there, before any command: what it sends comes first. */
	readonly onReady: () => void;
	/** Called once when the connection is lost or cannot be made, until it is there again. */
	readonly onError: (error: Error) => void;
}

/** The connections of one `Connection`, whose methods say what is meant here. `label` names a command in errors. */
export interface Wire {
	readonly ready: boolean;
	readonly batch: number;
	readonly lastError: Error | undefined;
	send(label: string, name: string, args: readonly Argument[]): Promise<unknown>;
	sendToAll(name: string, args: readonly Argument[]): Promise<readonly unknown[]>;
	confirm(): Promise<void>;
	drop(reason: string): void;
	close(): void;
}

/** How often connections are looked after. */
export const WATCH_MS = 500;
const MIN_RETRY_MS = 50;

/** How long to wait before connecting again, by chance: replicas must not all come back at once. */
export function retryDelay(attempt: number, maxMs: number): number {
	return MIN_RETRY_MS + Math.random() * Math.min(maxMs - MIN_RETRY_MS, MIN_RETRY_MS * 2 ** attempt);
}

/**
 * Of a connection that was lost: nobody knows any more whether a replica has what was written on it, and those who were
 * answered on it ask that only now.
 */
export class Doubt {
	static readonly #MS = 1000;
	#until = 0;

	/** A connection has ended; `unsafe` when something on it was never confirmed. */
	lost(unsafe: boolean): void {
		if (unsafe) this.#until = performance.now() + Doubt.#MS;
	}

	/** Throws `away` while it lasts. */
	check(): void {
		if (performance.now() >= this.#until) return;
		throw new StoreError("away", "Cannot confirm what was written: the connection to Redis was lost meanwhile. It is tried again");
	}
}

export function away(label: string, error: Error | undefined): StoreError {
	const why = error === undefined ? "there is no connection" : error.message;
	return new StoreError("away", `Cannot ${label}: Redis is away (${why}). It is tried again until it is back`);
}

/** Unknown scripts, or a primary that has become a replica: only another connection helps. */
export function needsAnother({ message }: Error): boolean {
	return message.startsWith("NOSCRIPT") || message.startsWith("READONLY") || message.startsWith("UNBLOCKED");
}

/** What the server answered. Without the error as the cause: it carries the command with all that was to be stored. */
export function translate(label: string, error: Error): StoreError {
	const { message } = error;
	if (error instanceof StoreError) return error;
	if (message.startsWith("FENCED")) {
		return new StoreError("fenced", `Cannot ${label}: another connection has the session, or it was closed`);
	}
	if (message.startsWith("NOTOWNER")) return new StoreError("notOwner", `Cannot ${label}: it is another user's`);
	if (message.startsWith("FULL")) return new StoreError("full", `Cannot ${label}: ${message.slice(5)}. Remove some or raise it`);
	if (message.startsWith("OOM")) {
		return new StoreError("full", `Cannot ${label}: Redis has no memory left. Raise its maxmemory or remove messages`);
	}
	return new StoreError("away", `Cannot ${label}: Redis answers "${message}"`);
}

/** What a failure says at the start, when nothing is tried again. */
export function atStart(error: unknown): unknown {
	return error instanceof StoreError && error.code === "away" ? new StoreError("unavailable", error.message) : error;
}
