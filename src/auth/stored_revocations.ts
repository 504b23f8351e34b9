/**
 * What operators take back, in the store: revocations, and bans of client ids, users and addresses. All of them are in every
 * replica's memory, so that they are asked at once; a new one counts everywhere within two seconds. Until they are loaded nobody
 * gets in. Knows no connections: whoever holds them listens.
 */

import { z } from "zod";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { Author } from "../mqtt/message.ts";
import { type ManagedRecord, type ManagedRecords, Mirror, type Page, pageOf } from "./managed.ts";
import { Unavailable } from "./member.ts";
import { MemoryRevocations, type Revocation, type RevocationList } from "./revocations.ts";

export interface StoredRevocation extends Revocation {
	/** Why, for other operators. */
	readonly reason: string;
}

/** Nobody may come as this client id or user, or from this address or network, whatever they bring. */
export interface Ban {
	readonly kind: "clientId" | "user" | "address";
	/** Of an address: canonical, or a network such as `192.0.2.0/24`. */
	readonly value: string;
	readonly reason: string;
	readonly createdAtMs: number;
	/** In ms since 1970, `Infinity` for never. */
	readonly expiresAtMs: number;
}

export interface StoredRevocationsOptions {
	readonly records: ManagedRecords;
	readonly clock: Clock;
	readonly log: Logger;
	/** Makes the check for a list of networks. */
	readonly networks: (entries: readonly string[]) => { has(address: string): boolean };
	/** Revocations, and as many bans. Default 100,000. */
	readonly maxEntries?: number;
}

const REVOCATION = "revocation";
const BAN = "ban";
const MAX_ENTRIES = 100_000;
const SWEEP_EVERY = 1024;

const revocationSchema = z.object({
	kind: z.enum(["token", "clientId", "user"]),
	value: z.string(),
	revokedAtMs: z.number(),
	reason: z.string(),
});

const banSchema = z.object({
	kind: z.enum(["clientId", "user", "address"]),
	value: z.string(),
	reason: z.string(),
	createdAtMs: z.number(),
});

const keyOf = (kind: string, value: string): string => `${kind} ${value}`;

/** Revocations and bans of all replicas. */
export class StoredRevocations implements RevocationList {
	readonly #records: ManagedRecords;
	readonly #clock: Clock;
	readonly #networksOf: StoredRevocationsOptions["networks"];
	readonly #maxEntries: number;
	readonly #revoked: MemoryRevocations;
	readonly #revocations: Mirror<StoredRevocation>;
	readonly #bans: Mirror<Ban>;
	readonly #revokedListeners = new Set<(revocation: Revocation) => void>();
	readonly #banListeners = new Set<(ban: Ban) => void>();
	/** Banned networks as they were last, and until when that holds. */
	#networks: { readonly list: { has(address: string): boolean }; readonly untilMs: number } | undefined;
	#untilSweep = SWEEP_EVERY;

	constructor({ records, clock, log, networks, maxEntries = MAX_ENTRIES }: StoredRevocationsOptions) {
		this.#records = records;
		this.#clock = clock;
		this.#networksOf = networks;
		this.#maxEntries = maxEntries;
		this.#revoked = new MemoryRevocations(clock);
		this.#revoked.onRevoked((revocation) => this.#tellRevoked(revocation));
		const common = { records, log, maxEntries };
		this.#revocations = new Mirror<StoredRevocation>({
			...common,
			kind: REVOCATION,
			read: readRevocation,
			onChange: (_key, after, before) => {
				if (after === undefined) {
					if (before !== undefined) this.#revoked.restore(before.kind, before.value);
				} else if (after.revokedAtMs !== before?.revokedAtMs || after.expiresAtMs !== before.expiresAtMs) this.#revoked.revoke(after);
			},
		});
		this.#bans = new Mirror<Ban>({
			...common,
			kind: BAN,
			read: readBan,
			onChange: (_key, after, before) => this.#banChanged(after, before),
		});
	}

	/** Loads everything and follows changes. The store is open by then. Rejects when it cannot be read. */
	async start(): Promise<void> {
		await Promise.all([this.#revocations.start(), this.#bans.start()]);
	}

	/** Stops following. */
	close(): void {
		this.#revocations.close();
		this.#bans.close();
		this.#revokedListeners.clear();
		this.#banListeners.clear();
	}

	isRevoked(principal: Author, clientId: string): boolean | Promise<boolean> {
		if (!this.#revocations.loaded || !this.#bans.loaded) return Promise.reject(new Unavailable("The revocations are not loaded yet"));
		const { name, username } = principal;
		return (
			this.#revoked.isRevoked(principal, clientId) ||
			this.#isBanned("clientId", clientId) ||
			(name !== "" && this.#isBanned("user", name)) ||
			(username !== undefined && this.#isBanned("user", username))
		);
	}

	/** Whether nobody may come from there. @param address In canonical form. */
	isBanned(address: string): boolean {
		if (!this.#bans.loaded) return true;
		return this.#isBanned("address", address) || this.#bannedNetworks().has(address);
	}

	/** Also told of bans of client ids and users. */
	onRevoked(listener: (revocation: Revocation) => void): () => void {
		this.#revokedListeners.add(listener);
		return () => this.#revokedListeners.delete(listener);
	}

	/** Calls back when something was banned, so that connections from there can be ended; answers how to stop that. */
	onBanned(listener: (ban: Ban) => void): () => void {
		this.#banListeners.add(listener);
		return () => this.#banListeners.delete(listener);
	}

	/** Revokes everywhere; here when the promise resolves. @throws {TooManyRecords} when there are as many already as fit */
	revoke({ kind, value, revokedAtMs, expiresAtMs, reason }: StoredRevocation): Promise<void> {
		this.#sweepIfFull();
		return this.#revocations.put(keyOf(kind, value), { kind, value, revokedAtMs, reason }, expiresAtMs);
	}

	/** Takes a revocation back; answers whether there was one. */
	restore(kind: Revocation["kind"], value: string): Promise<boolean> {
		return this.#revocations.delete(keyOf(kind, value));
	}

	/** The revocation of that very thing, if it is in force. */
	revocation(kind: Revocation["kind"], value: string): StoredRevocation | undefined {
		return this.#inForce(this.#revocations.entries.get(keyOf(kind, value)));
	}

	/** In force, in the order of kind and value. */
	revocations(after: string | undefined, limit: number): Promise<Page<StoredRevocation>> {
		return pageOf(this.#records, REVOCATION, after, limit, readRevocation);
	}

	/** Bans everywhere; here when the promise resolves. @throws {TooManyRecords} when there are as many already as fit */
	ban({ kind, value, reason, createdAtMs, expiresAtMs }: Ban): Promise<void> {
		this.#sweepIfFull();
		return this.#bans.put(keyOf(kind, value), { kind, value, reason, createdAtMs }, expiresAtMs);
	}

	/** Lifts a ban; answers whether there was one. */
	unban(kind: Ban["kind"], value: string): Promise<boolean> {
		return this.#bans.delete(keyOf(kind, value));
	}

	/** In force, in the order of kind and value. */
	bans(after: string | undefined, limit: number): Promise<Page<Ban>> {
		return pageOf(this.#records, BAN, after, limit, readBan);
	}

	#banChanged(after: Ban | undefined, before: Ban | undefined): void {
		if ((after ?? before)?.kind === "address") this.#networks = undefined;
		if (after === undefined || (before !== undefined && before.expiresAtMs === after.expiresAtMs)) return;
		if (after.kind !== "address") {
			const { kind, value, createdAtMs, expiresAtMs } = after;
			this.#tellRevoked({ kind, value, revokedAtMs: createdAtMs, expiresAtMs });
		}
		for (const listener of this.#banListeners) listener(after);
	}

	#tellRevoked(revocation: Revocation): void {
		if (--this.#untilSweep <= 0) this.#sweep();
		for (const listener of this.#revokedListeners) listener(revocation);
	}

	#isBanned(kind: Ban["kind"], value: string): boolean {
		return this.#inForce(this.#bans.entries.get(keyOf(kind, value))) !== undefined;
	}

	#inForce<T extends { readonly expiresAtMs: number }>(entry: T | undefined): T | undefined {
		return entry !== undefined && entry.expiresAtMs > this.#clock.nowMs() ? entry : undefined;
	}

	#bannedNetworks(): { has(address: string): boolean } {
		if (this.#networks === undefined || this.#networks.untilMs <= this.#clock.nowMs()) {
			const bans = [...this.#bans.entries.values()].filter(
				(ban) => ban.kind === "address" && ban.value.includes("/") && this.#inForce(ban),
			);
			const untilMs = bans.reduce((first, { expiresAtMs }) => Math.min(first, expiresAtMs), Number.POSITIVE_INFINITY);
			this.#networks = { list: this.#networksOf(bans.map(({ value }) => value)), untilMs };
		}
		return this.#networks.list;
	}

	#sweepIfFull(): void {
		if (Math.max(this.#revocations.entries.size, this.#bans.entries.size) >= this.#maxEntries) this.#sweep();
	}

	#sweep(): void {
		this.#untilSweep = SWEEP_EVERY;
		for (const mirror of [this.#revocations, this.#bans]) {
			for (const [key, entry] of mirror.entries) if (this.#inForce(entry) === undefined) mirror.forget(key);
		}
	}
}

function readRevocation({ value, expiresAtMs }: ManagedRecord): StoredRevocation | undefined {
	const result = revocationSchema.safeParse(value);
	return result.success ? { ...result.data, expiresAtMs } : undefined;
}

function readBan({ value, expiresAtMs }: ManagedRecord): Ban | undefined {
	const result = banSchema.safeParse(value);
	return result.success ? { ...result.data, expiresAtMs } : undefined;
}
