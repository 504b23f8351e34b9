/** Bytes for tests of streams. */

import assert from "node:assert/strict";

/** Bytes that tell their place: a lost, doubled or moved one shows. */
export function pattern(length: number, from = 0): Buffer {
	const bytes = Buffer.allocUnsafe(length);
	for (let index = 0; index < length; index++) bytes[index] = patternAt(from + index);
	return bytes;
}

function patternAt(position: number): number {
	return (position * 31 + (position >> 8) * 7 + (position >> 16)) & 0xff;
}

/** Fails at the first byte that is not the pattern's. */
export function assertPattern(bytes: Uint8Array, from = 0): void {
	for (let index = 0; index < bytes.length; index++) {
		if (bytes[index] !== patternAt(from + index))
			assert.fail(`byte ${from + index} is ${bytes[index]}, expected ${patternAt(from + index)}`);
	}
}
