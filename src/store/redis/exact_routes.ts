/**
 * Which exact filters have a log, in memory of a fixed size however many they are: a bit for each bucket of a hash (P13).
 * Knows buckets only; how many filters are in each is counted in Redis, see `route_change.lua`.
 */

/** Buckets: with 100,000 filters about one topic of 85 seems to have a log and has none. */
const BUCKETS = 2 ** 23;
/** Counters of one key in Redis, so that few filters take little room there. */
const PAGE_BUCKETS = 2 ** 14;
export const COUNTER_PAGES = BUCKETS / PAGE_BUCKETS;
/** Set buckets that are kept one by one. */
const FEW = 4096;

/** The bucket of a topic name: FNV-1a over its UTF-16 units, mixed. All replicas compute it alike. */
export function bucketOf(topic: string): number {
	let hash = 0x811c9dc5;
	for (let at = 0; at < topic.length; at++) hash = Math.imul(hash ^ topic.charCodeAt(at), 0x01000193);
	hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
	hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
	return (hash ^ (hash >>> 16)) & (BUCKETS - 1);
}

/** Number of the key that counts a bucket's filters, and its place there. */
export function counterOf(bucket: number): { readonly page: number; readonly place: number } {
	return { page: Math.floor(bucket / PAGE_BUCKETS), place: bucket % PAGE_BUCKETS };
}

export class ExactRoutes {
	#few: Set<number> | undefined = new Set();
	#bits: Uint8Array | undefined;

	has(bucket: number): boolean {
		if (this.#few !== undefined) return this.#few.has(bucket);
		return (((this.#bits as Uint8Array)[bucket >>> 3] as number) & (1 << (bucket & 7))) !== 0;
	}

	set(bucket: number, exists: boolean): void {
		if (this.#few !== undefined) {
			if (exists) this.#few.add(bucket);
			else this.#few.delete(bucket);
			if (this.#few.size > FEW) this.#spread(this.#few);
			return;
		}
		const bits = this.#bits as Uint8Array;
		const at = bucket >>> 3;
		bits[at] = exists ? (bits[at] as number) | (1 << (bucket & 7)) : (bits[at] as number) & ~(1 << (bucket & 7));
	}

	/** Sets the buckets of a page that have filters. @param counters One byte for each; the rest of the page has none. */
	load(page: number, counters: Uint8Array): void {
		for (let place = 0; place < counters.length; place++) if (counters[place] !== 0) this.set(page * PAGE_BUCKETS + place, true);
	}

	#spread(few: Set<number>): void {
		this.#bits = new Uint8Array(BUCKETS / 8);
		this.#few = undefined;
		for (const bucket of few) this.set(bucket, true);
	}
}
