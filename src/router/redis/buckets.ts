/**
 * Exact filters in a fixed size: each falls into one of 2^23 buckets, and only which buckets have one is known. With 100,000
 * filters of a replica, one topic in 84 seems to be wanted there and is not.
 */

const BUCKET_BITS = 23;
const BYTES = 2 ** (BUCKET_BITS - 3);
/** More than this take less room as bits. */
const MAX_LISTED = 4096;

/** The bucket of a topic name or exact filter, given as UTF-8. All replicas must agree on it, also those of other versions. */
export function bucketOf(bytes: Uint8Array): number {
	let hash = 0x811c9dc5 | 0;
	for (let at = 0; at < bytes.length; at++) hash = Math.imul(hash ^ (bytes[at] as number), 0x01000193);
	// The last characters of similar names differ, and would change little of the upper bits.
	hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
	hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
	return (hash ^ (hash >>> 16)) >>> (32 - BUCKET_BITS);
}

/** A set of buckets that takes a megabyte at most. */
export class Buckets {
	#listed: Set<number> | undefined = new Set();
	/** As Redis counts bits: the first is the highest of its byte. */
	#bits: Uint8Array | undefined;

	/** @param bits As Redis keeps them, without zeros at the end. */
	static from(bits: Uint8Array): Buckets {
		const buckets = new Buckets();
		for (let at = 0; at < Math.min(bits.length, BYTES); at++) {
			const byte = bits[at] as number;
			if (byte === 0) continue;
			for (let bit = 0; bit < 8; bit++) if ((byte & (0x80 >> bit)) !== 0) buckets.set(at * 8 + bit, true);
			if (buckets.#bits !== undefined) {
				buckets.#bits.set(bits.subarray(0, BYTES));
				break;
			}
		}
		return buckets;
	}

	has(bucket: number): boolean {
		if (this.#bits === undefined) return (this.#listed as Set<number>).has(bucket);
		return ((this.#bits[bucket >>> 3] as number) & (0x80 >> (bucket & 7))) !== 0;
	}

	set(bucket: number, present: boolean): void {
		if (this.#bits !== undefined) {
			const byte = this.#bits[bucket >>> 3] as number;
			const mask = 0x80 >> (bucket & 7);
			this.#bits[bucket >>> 3] = present ? byte | mask : byte & ~mask;
			return;
		}
		const listed = this.#listed as Set<number>;
		if (!present) {
			listed.delete(bucket);
			return;
		}
		listed.add(bucket);
		if (listed.size > MAX_LISTED) {
			this.#bits = bitsOf(listed);
			this.#listed = undefined;
		}
	}
}

/** The buckets as Redis keeps them. */
export function bitsOf(buckets: Iterable<number>): Buffer {
	const bits = Buffer.alloc(BYTES);
	for (const bucket of buckets) bits[bucket >>> 3] = (bits[bucket >>> 3] as number) | (0x80 >> (bucket & 7));
	return bits;
}
