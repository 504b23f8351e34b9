/**
 * Share groups: who has taken which entry. Knows entries and their rows, and nothing of members. A settled entry is deleted,
 * so the rows of a group's log are exactly what is not settled: after a crash they are simply there again. What was taken
 * and not yet settled is known in memory only; a bound entry has a row that names its session.
 */

import type { StatementSync } from "node:sqlite";
import type { LogEntry } from "../store.ts";
import type { Context } from "./context.ts";
import { Query } from "./database.ts";
import type { LogPage, LogReader } from "./log_reader.ts";
import type { Log, Logs, ShareGroup } from "./logs.ts";
import { SegmentCursor } from "./segment.ts";

export class SharedLogs {
	readonly #context: Context;
	readonly #logs: Logs;
	readonly #reader: LogReader;
	readonly #select: Query<[last: number, body: Uint8Array]>;
	readonly #boundOf: Query<[log: number, seq: number]>;
	readonly #deleteEntry: StatementSync;
	readonly #insertBound: StatementSync;
	readonly #deleteBound: StatementSync;

	constructor(context: Context, logs: Logs, reader: LogReader) {
		const { db } = context;
		this.#context = context;
		this.#logs = logs;
		this.#reader = reader;
		this.#select = new Query(
			db,
			`SELECT last, body FROM segment WHERE log = ?1 AND last > ?2
			AND NOT EXISTS (SELECT 1 FROM bound WHERE bound.log = ?1 AND bound.seq = segment.last) ORDER BY last LIMIT ?3`,
		);
		this.#boundOf = new Query(db, "SELECT log, seq FROM bound WHERE session = ?");
		this.#deleteEntry = db.prepare("DELETE FROM segment WHERE log = ? AND last = ?");
		this.#insertBound = db.prepare("INSERT INTO bound (log, seq, session) VALUES (?, ?, ?)");
		this.#deleteBound = db.prepare("DELETE FROM bound WHERE log = ? AND seq = ?");
	}

	take(name: string, limit: number): LogPage {
		const log = this.#logs.get(name);
		const entries: LogEntry[] = [];
		if (log?.share === undefined) return { entries, uncommitted: false };
		const { share } = log;
		const { cursor, returned } = share;
		let reused = 0;
		while (reused < returned.length && entries.length < limit) {
			// One that the length limit has dropped meanwhile is skipped.
			const entry = this.#reader.find(log, returned[reused++] as number);
			if (entry !== undefined) entries.push(entry);
		}
		if (reused > 0) share.returned = returned.slice(reused);
		this.#logs.flush(log);
		if (entries.length < limit && log.head > cursor) {
			for (const [seq, body] of this.#select.all(log.id, cursor, limit - entries.length)) {
				const stored = new SegmentCursor(body, seq, 1);
				entries.push({ log: name, seq, id: stored.id, message: stored.message() });
				share.cursor = seq;
			}
		}
		let uncommitted = false;
		for (const { seq } of entries) {
			share.taken.add(seq);
			uncommitted ||= this.#logs.isUncommitted(log, seq);
		}
		if (uncommitted) {
			this.#context.group.onRollback(() => {
				for (const { seq } of entries) share.taken.delete(seq);
				share.returned = [...returned.slice(0, reused), ...share.returned];
				share.cursor = cursor;
			});
		}
		return { entries, uncommitted };
	}

	/** In an open group. */
	settle(name: string, seqs: readonly number[]): void {
		const log = this.#logs.get(name);
		if (log?.share === undefined) return;
		for (const seq of seqs) this.#settle(log, log.share, seq);
	}

	#settle(log: Log, share: ShareGroup, seq: number): void {
		this.#logs.touch(log);
		// A taken entry is not bound, which spares the look-up.
		if (share.taken.delete(seq)) this.#context.group.onRollback(() => share.taken.add(seq));
		else this.#deleteBound.run(log.id, seq);
		const deleted = Number(this.#deleteEntry.run(log.id, seq).changes);
		share.entries -= deleted;
		this.#context.counts.entries -= deleted;
	}

	giveBack(name: string, seqs: readonly number[]): void {
		const share = this.#logs.get(name)?.share;
		if (share === undefined) return;
		for (const seq of seqs) {
			if (share.taken.delete(seq)) share.returned.push(seq);
		}
		share.returned.sort((a, b) => a - b);
	}

	/** In an open group. Nothing happens to an entry that is not taken: it was settled, bound or dropped before. */
	bind(name: string, seq: number, session: number): void {
		const log = this.#logs.get(name);
		if (log?.share === undefined || !log.share.taken.delete(seq)) return;
		const { taken } = log.share;
		this.#insertBound.run(log.id, seq, session);
		this.#context.group.onRollback(() => taken.add(seq));
	}

	/** The session ends: what is bound to it goes with it [MQTT-4.8.2-5]. In an open group. */
	dropBound(session: number): void {
		for (const [id, seq] of this.#boundOf.all(session)) {
			const log = this.#logs.byId(id);
			if (log?.share !== undefined) this.#settle(log, log.share, seq);
		}
	}
}
