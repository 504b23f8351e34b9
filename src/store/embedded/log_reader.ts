/** Reading logs: ranges of several logs merged, and single entries. Knows segments, moves nothing and trims nothing. */

import type { Message } from "../../mqtt/message.ts";
import type { LogEntry, Position } from "../store.ts";
import type { Context } from "./context.ts";
import { Query } from "./database.ts";
import type { Log, Logs } from "./logs.ts";
import { SegmentCursor } from "./segment.ts";

/** Segments to fetch at once over all logs of a read. */
const FETCHED_SEGMENTS = 32;

type SegmentRow = [last: number, entries: number, body: Uint8Array];

export interface LogPage {
	readonly entries: LogEntry[];
	/** Some entry of it is not committed yet. */
	readonly uncommitted: boolean;
}

export class LogReader {
	readonly #logs: Logs;
	readonly #select: Query<SegmentRow>;

	constructor(context: Context, logs: Logs) {
		this.#logs = logs;
		this.#select = new Query(context.db, "SELECT last, entries, body FROM segment WHERE log = ? AND last > ? ORDER BY last LIMIT ?");
	}

	read(positions: readonly Position[], limit: number): LogPage {
		const streams: LogStream[] = [];
		for (const { log: name, after } of positions) {
			const log = this.#logs.get(name);
			if (log === undefined || log.head <= after) continue;
			this.#logs.flush(log);
			streams.push(new LogStream(log, Math.max(after, log.first - 1)));
		}
		const fetched = Math.max(1, Math.floor(FETCHED_SEGMENTS / Math.max(1, streams.length)));
		for (const stream of streams) stream.fill(this.#select, fetched);
		const entries: LogEntry[] = [];
		let uncommitted = false;
		while (entries.length < limit) {
			let next: LogStream | undefined;
			for (const stream of streams) {
				if (stream.id < (next?.id ?? Number.POSITIVE_INFINITY)) next = stream;
			}
			if (next === undefined) break;
			const entry = next.take();
			entries.push(entry);
			uncommitted ||= this.#logs.isUncommitted(next.log, entry.seq);
			if (next.atEnd) next.fill(this.#select, fetched);
		}
		return { entries, uncommitted };
	}

	/** One entry, `undefined` if it is gone or was never there. */
	find(log: Log, seq: number): LogEntry | undefined {
		if (seq > log.head || (log.share === undefined && seq < log.first)) return undefined;
		this.#logs.flush(log);
		const row = this.#select.get(log.id, seq - 1, 1);
		if (row === undefined || row[0] - row[1] >= seq) return undefined;
		const cursor = new SegmentCursor(row[2], row[0], row[1]);
		cursor.skipTo(seq);
		return { log: log.name, seq, id: cursor.id, message: cursor.message() };
	}

	/** The message of one entry. */
	message(logName: string, seq: number): Message | undefined {
		const log = this.#logs.get(logName);
		return log === undefined ? undefined : this.find(log, seq)?.message;
	}
}

/** One log within a read: stands on its next entry. */
class LogStream {
	readonly log: Log;
	#after: number;
	#rows: SegmentRow[] = [];
	#nextRow = 0;
	#full = true;
	#cursor: SegmentCursor | undefined;
	/** Id of the next entry, infinite when there is none. */
	id = Number.POSITIVE_INFINITY;

	constructor(log: Log, after: number) {
		this.log = log;
		this.#after = after;
	}

	get atEnd(): boolean {
		return this.id === Number.POSITIVE_INFINITY;
	}

	fill(select: Query<SegmentRow>, limit: number): void {
		if (!this.#full) return;
		this.#rows = select.all(this.log.id, this.#after, limit);
		this.#full = this.#rows.length === limit;
		this.#nextRow = 0;
		this.#openRow();
	}

	take(): LogEntry {
		const cursor = this.#cursor as SegmentCursor;
		const entry = { log: this.log.name, seq: cursor.seq, id: this.id, message: cursor.message() };
		this.#after = cursor.seq;
		cursor.next();
		if (cursor.atEnd) this.#openRow();
		else this.id = cursor.id;
		return entry;
	}

	#openRow(): void {
		const row = this.#rows[this.#nextRow++];
		if (row === undefined) {
			this.id = Number.POSITIVE_INFINITY;
			return;
		}
		this.#cursor = new SegmentCursor(row[2], row[0], row[1]);
		this.#cursor.skipTo(this.#after + 1);
		this.id = this.#cursor.id;
	}
}
