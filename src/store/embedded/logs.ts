/**
 * The logs: which exist, their heads, and appending to them. Knows how entries become rows, and nothing of sessions; who
 * reads, trims or shares them stands in `log_reader.ts`, `log_trimmer.ts` and `shared_logs.ts`.
 *
 * Appended entries wait in memory until the group is committed or somebody reads them, and then go in as one row (segment)
 * per log: measured with 500 messages of 150 bytes to 50 logs per group on Bun, 270,000 messages a second appended, read and
 * trimmed, against 80,000 to 110,000 with a row for each entry and 110,000 to 180,000 clustered by (log, seq).
 */

import type { StatementSync } from "node:sqlite";
import type { Message } from "../../mqtt/message.ts";
import { isExact } from "../log_name.ts";
import type { Appended } from "../store.ts";
import type { Context } from "./context.ts";
import { Query } from "./database.ts";
import { EntryBuffer } from "./segment.ts";

/** A segment is closed at this size: reading one entry reads it all. */
const SEGMENT_BYTES = 16_384;
/** Entries that wait in memory before the group is committed early. */
const MAX_WAITING_BYTES = 1024 * 1024;
/** Dropped entries that may stay in the file before the next append removes them; otherwise `due` does. */
const DROPPED_BATCH = 256;
/** Segments that are deleted in one go: more would be felt as a pause. */
const DELETE_BATCH = 4096;

/** What a share group's log has besides: see `shared_logs.ts`. */
export interface ShareGroup {
	/** Entries beyond it have not been taken since the start. */
	cursor: number;
	readonly taken: Set<number>;
	/** Taken once and given back, ascending. */
	returned: number[];
	/** Entries in the log: settled ones leave holes. */
	entries: number;
}

export class Log {
	readonly id: number;
	readonly name: string;
	/** For `$share/...` only. */
	readonly share: ShareGroup | undefined;
	/** Last sequence number given out. */
	head: number;
	/** The lowest that can be read; `head + 1` when the log is empty. */
	first: number;
	/** Everything up to here is deleted from the file. */
	purged: number;
	/** What the file would say of `head` without any segment. */
	storedHead: number;
	/** Stored subscriptions with granted QoS ≥ 1. */
	subscribers = 0;
	/** Head at which a checkpoint tries to trim, see `log_trimmer.ts`. */
	trimAt = 0;
	/** Entries that are no rows yet: start and end of each in the entry buffer. */
	readonly waiting: number[] = [];
	/** Group that touched it last, and what it was before that. */
	group = 0;
	headBefore = 0;
	firstBefore = 0;
	purgedBefore = 0;
	storedHeadBefore = 0;
	entriesBefore = 0;

	constructor(id: number, name: string, head: number) {
		this.id = id;
		this.name = name;
		this.head = head;
		this.first = head + 1;
		this.purged = head;
		this.storedHead = head;
		this.share = name.startsWith("$share/") ? { cursor: 0, taken: new Set(), returned: [], entries: 0 } : undefined;
	}

	/** Entries that can be read. */
	get entries(): number {
		return this.share?.entries ?? this.head - this.first + 1;
	}
}

export class Logs {
	readonly #context: Context;
	readonly #maxEntries: number;
	readonly #byName = new Map<string, Log>();
	readonly #byId = new Map<number, Log>();
	readonly #buffer = new EntryBuffer();
	/** Removed logs whose segments are still to be deleted. */
	readonly #garbage = new Set<number>();
	#group = 0;
	#touched: Log[] = [];
	#onLog: (name: string, exists: boolean) => void = () => {};
	readonly #insertLog: StatementSync;
	readonly #deleteLog: StatementSync;
	readonly #updateHead: StatementSync;
	readonly #insertSegment: StatementSync;
	readonly #deleteSegments: StatementSync;
	readonly #deleteGarbage: StatementSync;
	readonly #deleteBound: StatementSync;
	readonly #nthLast: Query<[last: number]>;

	constructor(context: Context, maxEntries: number) {
		const { db } = context;
		this.#context = context;
		this.#maxEntries = maxEntries;
		this.#insertLog = db.prepare("INSERT INTO log (id, name, head) VALUES (?, ?, 0)");
		this.#deleteLog = db.prepare("DELETE FROM log WHERE id = ?");
		this.#updateHead = db.prepare("UPDATE log SET head = ? WHERE id = ?");
		this.#insertSegment = db.prepare("INSERT INTO segment (log, last, entries, body) VALUES (?, ?, ?, ?)");
		this.#deleteSegments = db.prepare("DELETE FROM segment WHERE log = ? AND last <= ?");
		this.#deleteGarbage = db.prepare(`DELETE FROM segment WHERE id IN (SELECT id FROM segment WHERE log = ? LIMIT ${DELETE_BATCH})`);
		this.#deleteBound = db.prepare("DELETE FROM bound WHERE log = ? AND seq <= ?");
		this.#nthLast = new Query(db, "SELECT last FROM segment WHERE log = ? ORDER BY last LIMIT 1 OFFSET ?");
	}

	/** Reads what exists. Before anything else. */
	load(): void {
		const { db, counts } = this.#context;
		for (const [id, name, head] of new Query<[number, string, number]>(db, "SELECT id, name, head FROM log").all()) {
			const log = new Log(id, name, head);
			this.#byName.set(name, log);
			this.#byId.set(id, log);
		}
		const firstOf = new Query<[number]>(db, "SELECT last - entries + 1 FROM segment WHERE log = ? ORDER BY last LIMIT 1");
		const stored = new Query<[number, number, number]>(db, "SELECT log, max(last), count(*) FROM segment GROUP BY log");
		for (const [id, last, rows] of stored.all()) {
			const log = this.#byId.get(id);
			if (log === undefined) {
				this.#garbage.add(id);
				continue;
			}
			log.head = Math.max(log.head, last);
			log.purged = (firstOf.get(id)?.[0] ?? last + 1) - 1;
			log.first = log.purged + 1;
			if (log.share === undefined) log.first = Math.max(log.first, log.head - this.#maxEntries + 1);
			else log.share.entries = rows;
			counts.entries += log.entries;
		}
		for (const [id, n] of new Query<[number, number]>(db, "SELECT log, count(*) FROM cursor GROUP BY log").all()) {
			const log = this.#byId.get(id);
			if (log !== undefined) log.subscribers = n;
		}
	}

	/** Tells of all logs now, and of each that comes or goes from now on, apart from those of exact filters. */
	watch(onLog: (name: string, exists: boolean) => void): void {
		this.#onLog = onLog;
		for (const name of this.#byName.keys()) if (!isExact(name)) onLog(name, true);
	}

	get size(): number {
		return this.#byName.size;
	}

	get(name: string): Log | undefined {
		return this.#byName.get(name);
	}

	byId(id: number): Log | undefined {
		return this.#byId.get(id);
	}

	/** Makes a log. In an open group. */
	create(name: string): Log {
		const log = new Log(this.#context.ids.next(), name, 0);
		this.#insertLog.run(log.id, name);
		this.#setExists(log, true);
		this.#context.group.onRollback(() => this.#setExists(log, false));
		return log;
	}

	/** Removes a log with its entries. In an open group. */
	remove(log: Log): void {
		const { group, counts } = this.#context;
		counts.entries -= log.entries;
		log.waiting.length = 0;
		this.#deleteLog.run(log.id);
		if (log.share !== undefined) this.#deleteBound.run(log.id, log.head);
		if ((log.share?.entries ?? log.head - log.purged) <= DELETE_BATCH) {
			this.#deleteSegments.run(log.id, log.head);
		} else {
			this.#garbage.add(log.id);
		}
		this.#setExists(log, false);
		group.onRollback(() => {
			this.#garbage.delete(log.id);
			this.#setExists(log, true);
		});
	}

	#setExists(log: Log, exists: boolean): void {
		if (exists) {
			this.#byName.set(log.name, log);
			this.#byId.set(log.id, log);
		} else {
			this.#byName.delete(log.name);
			this.#byId.delete(log.id);
		}
		if (!isExact(log.name)) this.#onLog(log.name, exists);
	}

	/** Appends a message to those of the named logs that exist. Begins a group if there is one. */
	append(message: Message, names: readonly string[]): Appended[] {
		const { group, ids, counts } = this.#context;
		const appended: Appended[] = [];
		const usedBefore = this.#buffer.used;
		let start = -1;
		for (const name of names) {
			const log = this.#byName.get(name);
			if (log === undefined) continue;
			if (start === -1) {
				group.begin();
				start = this.#buffer.add(ids.next(), message);
			}
			this.touch(log);
			log.waiting.push(start, this.#buffer.used);
			log.head++;
			counts.entries++;
			if (log.share !== undefined) {
				log.share.entries++;
			} else if (log.head - log.first >= this.#maxEntries) {
				log.first++;
				counts.entries--;
			}
			appended.push({ log: name, seq: log.head });
		}
		if (this.#buffer.used > MAX_WAITING_BYTES && usedBefore <= MAX_WAITING_BYTES) group.commitSoon();
		return appended;
	}

	/** Call before changing a log in an open group: remembers what it was when the group began. */
	touch(log: Log): void {
		if (log.group === this.#group) return;
		log.group = this.#group;
		log.headBefore = log.head;
		log.firstBefore = log.first;
		log.purgedBefore = log.purged;
		log.storedHeadBefore = log.storedHead;
		log.entriesBefore = log.share?.entries ?? 0;
		this.#touched.push(log);
	}

	/** Whether an entry is not committed yet. */
	isUncommitted(log: Log, seq: number): boolean {
		return this.#context.group.isOpen && log.group === this.#group && seq > log.headBefore;
	}

	/** Makes rows of the entries that wait. */
	flush(log: Log): void {
		const { waiting } = log;
		if (waiting.length === 0) return;
		const before = log.head - waiting.length / 2;
		let from = 0;
		while (from < waiting.length) {
			let to = from + 2;
			let bytes = (waiting[from + 1] as number) - (waiting[from] as number);
			while (log.share === undefined && to < waiting.length) {
				bytes += (waiting[to + 1] as number) - (waiting[to] as number);
				if (bytes > SEGMENT_BYTES) break;
				to += 2;
			}
			this.#insertSegment.run(log.id, before + to / 2, (to - from) / 2, this.#buffer.pack(waiting, from, to));
			from = to;
		}
		waiting.length = 0;
		if (log.share !== undefined) this.#dropSurplus(log, log.share);
		else if (log.first - 1 - log.purged >= DROPPED_BATCH) this.purge(log);
	}

	/** Deletes rows of entries that can no longer be read, some thousand at most. Whether that was all. In an open group. */
	purge(log: Log): boolean {
		this.touch(log);
		const target = Math.min(log.first - 1, log.purged + DELETE_BATCH);
		if (target > log.purged) this.#deleteSegments.run(log.id, target);
		log.purged = target;
		return target === log.first - 1;
	}

	/** Drops the oldest of a share group's log beyond the limit, whoever has taken them. */
	#dropSurplus(log: Log, share: ShareGroup): void {
		const surplus = share.entries - this.#maxEntries;
		if (surplus <= 0) return;
		const last = this.#nthLast.get(log.id, surplus - 1)?.[0];
		if (last === undefined) return;
		this.#deleteSegments.run(log.id, last);
		this.#deleteBound.run(log.id, last);
		share.entries -= surplus;
		this.#context.counts.entries -= surplus;
	}

	/** Deletes some of what removed logs have left. Whether there is more. Begins a group if there is something. */
	collectGarbage(): boolean {
		for (const id of this.#garbage) {
			this.#context.group.begin();
			if (Number(this.#deleteGarbage.run(id).changes) === DELETE_BATCH) return true;
			this.#garbage.delete(id);
			this.#context.group.onRollback(() => this.#garbage.add(id));
		}
		return false;
	}

	begun(): void {
		this.#group++;
		this.#touched = [];
	}

	flushAll(): void {
		for (const log of this.#touched) this.flush(log);
	}

	beforeCommit(): void {
		for (const log of this.#touched) {
			this.flush(log);
			// Without its last segment nothing in the file would tell how far the log has come.
			if (log.purged < log.head && log.share === undefined) continue;
			if (log.storedHead === log.head || !this.#byId.has(log.id)) continue;
			log.storedHead = log.head;
			this.#updateHead.run(log.head, log.id);
		}
	}

	committed(): void {
		this.#buffer.clear();
	}

	rolledBack(): void {
		this.#buffer.clear();
		for (const log of this.#touched) {
			log.waiting.length = 0;
			log.head = log.headBefore;
			log.first = log.firstBefore;
			log.purged = log.purgedBefore;
			log.storedHead = log.storedHeadBefore;
			if (log.share !== undefined) log.share.entries = log.entriesBefore;
		}
	}
}
