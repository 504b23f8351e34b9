/**
 * How many connections may come per second: from each address, and in total. Knows addresses and times only. What it
 * remembers is one number for an address, and no more addresses than fit.
 */

import { addressPrefix } from "./address.ts";

/** A token bucket. */
export interface Rate {
	/** Connections a second in the long run; more than 0. */
	readonly perSecond: number;
	/** Connections at once after a rest; at least 1. */
	readonly burst: number;
}

/** Why `take` refuses. */
export interface TooMany {
	readonly whose: "address" | "total";
	/** After which one will be let in. */
	readonly waitMs: number;
}

/** At 100 bytes each, some megabytes under an attack from everywhere. */
const MAX_ADDRESSES = 65_536;

export class ConnectRate {
	readonly #perAddress: Bucket | undefined;
	readonly #total: Bucket | undefined;
	readonly #maxAddresses: number;
	/** When the bucket of an address will be full again. In the order of the last use. */
	readonly #fullAtMs = new Map<string, number>();
	#totalFullAtMs = 0;

	/** @param maxAddresses Addresses remembered; the one unseen for longest is forgotten first. */
	constructor(perAddress: Rate | undefined, total: Rate | undefined, maxAddresses = MAX_ADDRESSES) {
		this.#perAddress = perAddress && bucketOf(perAddress);
		this.#total = total && bucketOf(total);
		this.#maxAddresses = maxAddresses;
	}

	/** Addresses remembered. */
	get size(): number {
		return this.#fullAtMs.size;
	}

	/** Takes one connection; says what is wrong when it may not come, and then takes nothing. */
	take(address: string, nowMs: number): TooMany | undefined {
		let fullAtMs = nowMs;
		const prefix = this.#perAddress && addressPrefix(address);
		if (this.#perAddress && prefix !== undefined) {
			fullAtMs = Math.max(nowMs, this.#fullAtMs.get(prefix) ?? 0);
			const waitMs = waitFor(this.#perAddress, fullAtMs, nowMs);
			if (waitMs > 0) {
				this.#remember(prefix, fullAtMs);
				return { whose: "address", waitMs };
			}
		}
		if (this.#total) {
			const totalFullAtMs = Math.max(nowMs, this.#totalFullAtMs);
			const waitMs = waitFor(this.#total, totalFullAtMs, nowMs);
			if (waitMs > 0) return { whose: "total", waitMs };
			this.#totalFullAtMs = totalFullAtMs + this.#total.intervalMs;
		}
		if (this.#perAddress && prefix !== undefined) this.#remember(prefix, fullAtMs + this.#perAddress.intervalMs);
		return undefined;
	}

	#remember(prefix: string, fullAtMs: number): void {
		this.#fullAtMs.delete(prefix);
		this.#fullAtMs.set(prefix, fullAtMs);
		if (this.#fullAtMs.size <= this.#maxAddresses) return;
		for (const oldest of this.#fullAtMs.keys()) {
			this.#fullAtMs.delete(oldest);
			break;
		}
	}
}

interface Bucket {
	/** In which one token comes. */
	readonly intervalMs: number;
	/** That the bucket may be away from full and still give a token. */
	readonly spanMs: number;
}

function bucketOf({ perSecond, burst }: Rate): Bucket {
	if (!(perSecond > 0 && burst >= 1)) {
		throw new TypeError(
			`A connect rate of ${perSecond} a second with a burst of ${burst} lets nobody in: give more than 0, and at least 1`,
		);
	}
	const intervalMs = 1000 / perSecond;
	return { intervalMs, spanMs: (burst - 1) * intervalMs };
}

function waitFor({ spanMs }: Bucket, fullAtMs: number, nowMs: number): number {
	const waitMs = fullAtMs - nowMs - spanMs;
	// Sums of fractions of a millisecond are not exact.
	return waitMs > 1e-6 ? waitMs : 0;
}
