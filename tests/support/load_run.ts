/** Runs of load clients on several replicas: clients that come back anywhere, and waiting until all have what they are owed. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { type HistoryEvent, judge, type Verdict } from "./history.ts";
import type { LoadOptions, LoadPublisher } from "./load_client.ts";
import type { Replica } from "./replicas.ts";

/** For clients to come back and publications to be acknowledged. */
const PATIENCE_MS = 60_000;
/** When nothing has happened for so long, nothing will: longer than a lease, after which others take over. */
const QUIET_MS = 12_000;

/** Options of a client that connects to another replica each time, whichever `choose` names. */
export function roaming(choose: () => Replica, options: Omit<LoadOptions, "ports">): LoadOptions {
	return {
		...options,
		get ports() {
			return choose().ports;
		},
	};
}

/** Any of these. */
export function anyOf<T>(choices: readonly T[]): T {
	return choices[Math.floor(Math.random() * choices.length)] as T;
}

/** Waits until this holds. */
export async function until(what: string, ready: () => boolean): Promise<void> {
	const deadline = Date.now() + PATIENCE_MS;
	while (!ready()) {
		assert.ok(Date.now() < deadline, `waited ${PATIENCE_MS / 1000} s until ${what}`);
		await sleep(20);
	}
}

/** Waits until all publications are acknowledged. */
export function acknowledged(publishers: readonly LoadPublisher[]): Promise<void> {
	return until("all publications are acknowledged", () => publishers.every(({ open }) => open === 0));
}

/** Waits until everybody has what is owed, or nothing has happened for so long that nothing will; answers the verdict. */
export async function drained(events: readonly HistoryEvent[], pollMs = 500): Promise<Verdict> {
	let known = 0;
	let quietSince = Date.now();
	for (;;) {
		const verdict = judge(events);
		if (verdict.lost === 0 || Date.now() > quietSince + QUIET_MS) return verdict;
		if (events.length > known) quietSince = Date.now();
		known = events.length;
		await sleep(pollMs);
	}
}
