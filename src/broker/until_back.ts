/** Waiting for a store that is away (P11). Knows nothing of what is asked of it. */

import { setTimeout as sleep } from "node:timers/promises";
import { StoreError } from "../store/store.ts";

const RETRY_MS = 200;

/** Whether the store will be back, and what was asked of it is to be asked again. */
export function isAway(error: unknown): boolean {
	return error instanceof StoreError && error.code === "away";
}

/**
 * Repeats a call for as long as the store is away and somebody wants its result.
 * @throws What the call throws otherwise, and `away` when nobody waits any more.
 */
export async function untilBack<T>(call: () => Promise<T>, wanted: () => boolean): Promise<T> {
	for (;;) {
		try {
			return await call();
		} catch (error) {
			if (!isAway(error) || !wanted()) throw error;
		}
		// Not all of them at the same moment when it is back.
		await sleep(RETRY_MS * (0.5 + Math.random()));
	}
}
