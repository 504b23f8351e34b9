/** Waiting for what no packet tells. */

import assert from "node:assert/strict";

const TIMEOUT_MS = 10_000;
const POLL_MS = 10;

/** Waits until the condition holds; fails with the sentence when it does not within ten seconds. */
export async function eventually(what: string, condition: () => boolean): Promise<void> {
	const deadline = Date.now() + TIMEOUT_MS;
	while (!condition()) {
		assert.ok(Date.now() < deadline, `waited too long until ${what}`);
		await new Promise((resolve) => setTimeout(resolve, POLL_MS));
	}
}
