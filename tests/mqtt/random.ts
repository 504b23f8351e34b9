/** Reproducible random choices. */

export interface Random {
	/** A whole number from 0 up to, not including, the limit. */
	below(limit: number): number;
	pick<T>(from: readonly T[]): T;
	list<T>(length: number, from: readonly T[]): T[];
	bytes(length: number): Uint8Array;
}

/** The same choices for the same seed, on every runtime (xorshift, 32 bits). */
export function randomNumbers(seed: number): Random {
	let state = (seed | 0) ^ 0x9e3779b9 || 1;
	const below = (limit: number) => {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		return (state >>> 0) % limit;
	};
	const pick = <T>(from: readonly T[]) => from[below(from.length)] as T;
	return {
		below,
		pick,
		list: (length, from) => Array.from({ length }, () => pick(from)),
		bytes: (length) => Uint8Array.from({ length }, () => below(256)),
	};
}
