/**
 * Removes what every subscriber of a log has behind it. Knows floors and logs. Asking all floors costs a scan over the log's
 * subscribers, so it is done once per some hundred appended entries (or per subscriber, if those are more), and for the
 * rest in `sweep`, within a budget.
 */

import type { Context } from "./context.ts";
import { Query } from "./database.ts";
import type { Log, Logs } from "./logs.ts";

const TRIM_EVERY = 256;
/** Rows that one sweep may read or delete: about ten milliseconds. */
const SWEEP_ROWS = 20_000;

export class LogTrimmer {
	readonly #context: Context;
	readonly #logs: Logs;
	readonly #candidates = new Set<Log>();
	readonly #minFloor: Query<[floor: number | null]>;

	constructor(context: Context, logs: Logs) {
		this.#context = context;
		this.#logs = logs;
		this.#minFloor = new Query(context.db, "SELECT min(floor) FROM cursor WHERE log = ?");
	}

	/** A floor of the log has moved, or a subscriber has gone. In an open group. */
	floorMoved(log: Log): void {
		if (log.share !== undefined) return;
		this.#candidates.add(log);
		if (log.head < log.trimAt) return;
		log.trimAt = log.head + Math.max(TRIM_EVERY, log.subscribers);
		this.#trim(log);
	}

	/** Trims what is waiting for it. Begins a group if there is something. */
	sweep(): void {
		let rows = 0;
		for (const log of this.#candidates) {
			if (rows >= SWEEP_ROWS) return;
			if (this.#logs.byId(log.id) !== log || log.purged === log.head) {
				this.#candidates.delete(log);
				continue;
			}
			this.#context.group.begin();
			let done = false;
			while (!done && rows < SWEEP_ROWS) {
				const purgedBefore = log.purged;
				done = this.#trim(log);
				rows += log.subscribers + log.purged - purgedBefore;
			}
		}
	}

	#trim(log: Log): boolean {
		const { group, counts } = this.#context;
		const floor = Math.min(this.#minFloor.get(log.id)?.[0] ?? 0, log.head);
		this.#logs.flush(log);
		this.#logs.touch(log);
		if (floor >= log.first) {
			counts.entries -= floor + 1 - log.first;
			log.first = floor + 1;
		}
		const done = this.#logs.purge(log);
		if (done) {
			this.#candidates.delete(log);
			group.onRollback(() => this.#candidates.add(log));
		}
		return done;
	}
}
