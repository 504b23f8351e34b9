/** What the parts of the embedded store share: the database, the open group, ids and counters. Knows none of the parts. */

import type { DatabaseSync, StatementSync } from "node:sqlite";
import { Query } from "./database.ts";
import type { GroupCommit } from "./group_commit.ts";

/** Sizes that would cost a scan to count. Restored as a whole when a group is rolled back. */
export interface Counts {
	sessions: number;
	subscriptions: number;
	retained: number;
	entries: number;
}

export interface Context {
	readonly db: DatabaseSync;
	readonly group: GroupCommit;
	readonly ids: Ids;
	readonly counts: Counts;
}

/** Ids taken from the database at once; a crash skips the rest of a block. */
const BLOCK = 65_536;

/** Numbers that grow for ever, over restarts too. */
export class Ids {
	readonly #select: Query<[next: number]>;
	readonly #update: StatementSync;
	#next = 0;
	#limit = 0;

	constructor(db: DatabaseSync) {
		this.#select = new Query(db, "SELECT next FROM counter");
		this.#update = db.prepare("UPDATE counter SET next = ?");
		this.reload();
	}

	/** Call in an open group: taking a new block writes. */
	next(): number {
		if (this.#next === this.#limit) {
			this.#limit = this.#next + BLOCK;
			this.#update.run(this.#limit);
		}
		return this.#next++;
	}

	/** A group was rolled back, and with it perhaps a block. */
	reload(): void {
		this.#limit = this.#select.get()?.[0] ?? 1;
		// What was given out stays used: it may stand in a promise that has resolved.
		this.#next = Math.max(this.#next, this.#limit);
		this.#limit = this.#next;
	}
}
