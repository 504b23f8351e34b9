/**
 * Failed logins, counted per address and per user name in token buckets of bounded number. A name counts whether or not there
 * is such a user, so that the answer tells nothing. Decides nothing but "not now".
 */

import { createHash } from "node:crypto";
import type { Clock } from "../clock.ts";
import { makeRoom } from "./make_room.ts";

/** A bucket that starts full and gives one for each failure. */
export interface FailureAllowance {
	/** Failures in a row that it takes. */
	readonly burst: number;
	/** Failures per minute that it takes in the long run. */
	readonly perMinute: number;
}

export interface ThrottleOptions {
	readonly clock: Clock;
	/** Per address; of IPv6 per network of 64 bits. Default 20 in a row, 6 per minute. */
	readonly perAddress?: FailureAllowance;
	/** Per user name over all addresses. Higher, because it also keeps the user itself out. Default 100 in a row, 30 per minute. */
	readonly perUsername?: FailureAllowance;
	/** Addresses, and user names, that are remembered; the one that failed longest ago makes room. Default 20 000. */
	readonly maxEntries?: number;
}

/** How deep a bucket can be in debt, in bursts: attempts that were under way when it ran empty count as well. */
const MAX_DEBT_BURSTS = 5;

export class LoginThrottle {
	readonly #addresses: Buckets;
	readonly #usernames: Buckets;

	constructor(options: ThrottleOptions) {
		const { clock, maxEntries = 20_000 } = options;
		this.#addresses = new Buckets(options.perAddress ?? { burst: 20, perMinute: 6 }, maxEntries, clock);
		this.#usernames = new Buckets(options.perUsername ?? { burst: 100, perMinute: 30 }, maxEntries, clock);
	}

	/** Whether an attempt from there, or under that name, is refused unseen. */
	blocks(address: string, username: string | undefined): boolean {
		return this.#addresses.isEmpty(networkOf(address)) || (username !== undefined && this.#usernames.isEmpty(shortened(username)));
	}

	/** Counts a failure. */
	failed(address: string, username: string | undefined): void {
		this.#addresses.take(networkOf(address));
		if (username !== undefined) this.#usernames.take(shortened(username));
	}

	/** How many addresses and names are remembered. */
	get size(): number {
		return this.#addresses.size + this.#usernames.size;
	}
}

interface Bucket {
	tokens: number;
	atMs: number;
}

class Buckets {
	readonly #burst: number;
	readonly #perMs: number;
	readonly #maxEntries: number;
	readonly #clock: Clock;
	/** By key, the one that failed longest ago first. */
	readonly #buckets = new Map<string, Bucket>();

	constructor({ burst, perMinute }: FailureAllowance, maxEntries: number, clock: Clock) {
		this.#burst = burst;
		this.#perMs = perMinute / 60_000;
		this.#maxEntries = maxEntries;
		this.#clock = clock;
	}

	get size(): number {
		return this.#buckets.size;
	}

	isEmpty(key: string): boolean {
		const bucket = this.#buckets.get(key);
		if (bucket === undefined) return false;
		const tokens = this.#tokens(bucket);
		if (tokens >= this.#burst) this.#buckets.delete(key);
		return tokens < 1;
	}

	take(key: string): void {
		const bucket = this.#buckets.get(key);
		const tokens = bucket === undefined ? this.#burst : this.#tokens(bucket);
		this.#buckets.delete(key);
		makeRoom(this.#buckets, this.#maxEntries);
		this.#buckets.set(key, { tokens: Math.max(tokens - 1, -MAX_DEBT_BURSTS * this.#burst), atMs: this.#clock.nowMs() });
	}

	#tokens({ tokens, atMs }: Bucket): number {
		return Math.min(this.#burst, tokens + (this.#clock.nowMs() - atMs) * this.#perMs);
	}
}

/** A key of bounded length. */
const shortened = (name: string): string => (name.length <= 64 ? name : createHash("sha256").update(name).digest("base64"));

/** One customer has 2^64 addresses of IPv6. */
function networkOf(address: string): string {
	if (!address.includes(":")) return address;
	const [head = "", tail] = address.split("::");
	const groups = head === "" ? [] : head.split(":");
	// Without `::` all groups are written; with it, zeros fill what the tail leaves of eight.
	const missing = tail === undefined ? 0 : 8 - groups.length - (tail === "" ? 0 : tail.split(":").length);
	const all = [...groups, ...new Array<string>(Math.max(0, missing)).fill("0"), ...(tail ?? "").split(":")];
	return `${all
		.slice(0, 4)
		.map((group) => Number.parseInt(group, 16).toString(16))
		.join(":")}::/64`;
}
