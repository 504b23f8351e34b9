/**
 * What was taken back before it ended: single tokens, and everything of a client id or a user. In memory, for one replica;
 * a shared list implements the same interface. Knows no connections: whoever holds them listens.
 */

import type { Clock } from "../clock.ts";
import type { Author, Message } from "../mqtt/message.ts";

/** What is revoked: a token by its `jti`, everything issued for a client id, or everything of a user. */
export interface Revocation {
	readonly kind: "token" | "clientId" | "user";
	/** The `jti`, the client id, or the name or user name of the principal. */
	readonly value: string;
	/** When it was decided. What a client id or user was given later is good; what bears no date is not. */
	readonly revokedAtMs: number;
	/** When the entry may be forgotten, because everything it means has ended: in ms since 1970, `Infinity` for never. */
	readonly expiresAtMs: number;
}

export interface RevocationList {
	/** Whether a principal that uses, or used, a client id has lost its rights. A rejection counts as yes. */
	isRevoked(principal: Author, clientId: string): boolean | Promise<boolean>;
	/** Calls back when something was revoked, so that live connections can be judged again; answers how to stop that. */
	onRevoked(listener: (revocation: Revocation) => void): () => void;
}

/** Whether one revocation hits a principal. */
function hits(revocation: Revocation, principal: Author, clientId: string): boolean {
	const { kind, value, revokedAtMs } = revocation;
	if (kind === "token") return principal.tokenId === value;
	if (kind === "clientId" ? clientId !== value : principal.username !== value && principal.name !== value) return false;
	// `iat` counts in seconds: a token of the same second may be older.
	return principal.issuedAtMs === undefined || principal.issuedAtMs <= revokedAtMs;
}

const NOBODY: Author = { name: "" };

/**
 * Whether the publisher of a message that stayed behind, a will or a retained one, has lost its rights since: then nobody is to
 * get it. Answers at once when the list does; a rejection counts as yes.
 */
export function isTakenBack(list: RevocationList | undefined, { author, publisher }: Message): boolean | Promise<boolean> {
	if (list === undefined || (author === undefined && publisher === "")) return false;
	return list.isRevoked(author ?? NOBODY, publisher);
}

const SWEEP_EVERY = 1024;

/** A list that ends with the process. */
export class MemoryRevocations implements RevocationList {
	readonly #clock: Clock;
	readonly #entries = new Map<string, Revocation>();
	readonly #listeners = new Set<(revocation: Revocation) => void>();
	#untilSweep = SWEEP_EVERY;

	constructor(clock: Clock) {
		this.#clock = clock;
	}

	/** Adds an entry, in the place of an earlier one for the same thing. */
	revoke(revocation: Revocation): void {
		this.#entries.set(keyOf(revocation.kind, revocation.value), revocation);
		if (--this.#untilSweep <= 0) this.#sweep();
		for (const listener of this.#listeners) listener(revocation);
	}

	/** Takes an entry back; answers whether there was one. */
	restore(kind: Revocation["kind"], value: string): boolean {
		return this.#entries.delete(keyOf(kind, value));
	}

	/** What is in force, oldest first. */
	list(): Revocation[] {
		this.#sweep();
		return [...this.#entries.values()];
	}

	isRevoked(principal: Author, clientId: string): boolean {
		// Asked for each retained message that is sent, when mostly nothing is revoked.
		if (this.#entries.size === 0) return false;
		const { tokenId, name, username } = principal;
		return (
			(tokenId !== undefined && this.#hit("token", tokenId, principal, clientId)) ||
			this.#hit("clientId", clientId, principal, clientId) ||
			this.#hit("user", name, principal, clientId) ||
			(username !== undefined && this.#hit("user", username, principal, clientId))
		);
	}

	onRevoked(listener: (revocation: Revocation) => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	#hit(kind: Revocation["kind"], value: string, principal: Author, clientId: string): boolean {
		const entry = this.#entries.get(keyOf(kind, value));
		return entry !== undefined && entry.expiresAtMs > this.#clock.nowMs() && hits(entry, principal, clientId);
	}

	#sweep(): void {
		this.#untilSweep = SWEEP_EVERY;
		const nowMs = this.#clock.nowMs();
		for (const [key, { expiresAtMs }] of this.#entries) if (expiresAtMs <= nowMs) this.#entries.delete(key);
	}
}

const keyOf = (kind: Revocation["kind"], value: string): string => `${kind} ${value}`;
