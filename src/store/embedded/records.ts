/** The records that operators manage, in their table. Knows the open group that they are committed with, and nothing of what they say. */

import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Clock } from "../../clock.ts";
import {
	checkKey,
	checkRecord,
	type RecordListener,
	RecordListeners,
	type RecordPage,
	type RecordStore,
	type StoredRecord,
} from "../records.ts";
import { Query, type Row } from "./database.ts";
import type { GroupCommit } from "./group_commit.ts";

/** Also for files that were made without it. */
const TABLE = `
CREATE TABLE IF NOT EXISTS record (
	kind TEXT NOT NULL,
	key TEXT NOT NULL,
	expires_at INTEGER,
	value TEXT NOT NULL,
	PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS record_expires_at ON record (expires_at) WHERE expires_at IS NOT NULL;
`;

/** Expired records that one sweep removes. */
const EXPIRE_BATCH = 1000;

type RecordRow = [key: string, expiresAt: number | null, value: string];

/** The table. Each writing method begins the group. */
export class RecordTable {
	readonly #group: GroupCommit;
	readonly #put: StatementSync;
	readonly #delete: StatementSync;
	readonly #expire: StatementSync;
	readonly #get: Query<RecordRow>;
	readonly #list: Query<RecordRow>;
	readonly #expired: Query<Row>;

	constructor(db: DatabaseSync, group: GroupCommit) {
		this.#group = group;
		db.exec(TABLE);
		this.#put = db.prepare("INSERT OR REPLACE INTO record (kind, key, expires_at, value) VALUES (?, ?, ?, ?)");
		this.#delete = db.prepare("DELETE FROM record WHERE kind = ? AND key = ?");
		this.#expire = db.prepare(
			"DELETE FROM record WHERE (kind, key) IN (SELECT kind, key FROM record WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
		);
		this.#get = new Query(db, "SELECT key, expires_at, value FROM record WHERE kind = ? AND key = ?");
		this.#list = new Query(db, "SELECT key, expires_at, value FROM record WHERE kind = ? AND key > ? ORDER BY key LIMIT ?");
		this.#expired = new Query(db, "SELECT 1 FROM record WHERE expires_at <= ? LIMIT 1");
	}

	put(kind: string, key: string, json: string, expiresAtMs: number): void {
		this.#group.begin();
		this.#put.run(kind, key, expiresAtMs === Number.POSITIVE_INFINITY ? null : Math.ceil(expiresAtMs), json);
	}

	get(kind: string, key: string, nowMs: number): StoredRecord | undefined {
		const row = this.#get.get(kind, key);
		const record = row === undefined ? undefined : recordOf(row);
		return record !== undefined && record.expiresAtMs > nowMs ? record : undefined;
	}

	/** Answers whether there was one that had not expired. */
	delete(kind: string, key: string, nowMs: number): boolean {
		const existed = this.get(kind, key, nowMs) !== undefined;
		this.#group.begin();
		this.#delete.run(kind, key);
		return existed;
	}

	list(kind: string, after: string | undefined, limit: number, nowMs: number): RecordPage {
		const rows = this.#list.all(kind, after ?? "", limit);
		const records = rows.map(recordOf);
		const next = rows.length < limit ? undefined : records.at(-1)?.key;
		return { records: records.filter(({ expiresAtMs }) => expiresAtMs > nowMs), next };
	}

	/** Removes some of what has expired. */
	expire(nowMs: number): void {
		if (this.#expired.get(nowMs) === undefined) return;
		this.#group.begin();
		this.#expire.run(nowMs, EXPIRE_BATCH);
	}
}

function recordOf([key, expiresAt, value]: RecordRow): StoredRecord {
	return { key, value: JSON.parse(value), expiresAtMs: expiresAt ?? Number.POSITIVE_INFINITY };
}

/** Runs a call on the table and answers what it answered when that is committed. Rejects as the methods of the store do. */
export type WithRecords = <T>(kind: "read" | "write", call: (table: RecordTable) => T) => Promise<T>;

/** The records of one process. */
export class EmbeddedRecords implements RecordStore {
	readonly #with: WithRecords;
	readonly #clock: Clock;
	readonly #listeners = new RecordListeners();

	constructor(withRecords: WithRecords, clock: Clock) {
		this.#with = withRecords;
		this.#clock = clock;
	}

	async put(kind: string, key: string, value: unknown, expiresAtMs = Number.POSITIVE_INFINITY): Promise<void> {
		const json = checkRecord(kind, key, value);
		await this.#with("write", (table) => table.put(kind, key, json, expiresAtMs));
		this.#listeners.tell(kind, key);
	}

	async get(kind: string, key: string): Promise<StoredRecord | undefined> {
		checkKey(kind, key);
		return this.#with("read", (table) => table.get(kind, key, this.#clock.nowMs()));
	}

	async delete(kind: string, key: string): Promise<boolean> {
		checkKey(kind, key);
		const existed = await this.#with("write", (table) => table.delete(kind, key, this.#clock.nowMs()));
		this.#listeners.tell(kind, key);
		return existed;
	}

	list(kind: string, after: string | undefined, limit: number): Promise<RecordPage> {
		return this.#with("read", (table) => table.list(kind, after, limit, this.#clock.nowMs()));
	}

	onChange(kind: string, listener: RecordListener): () => void {
		return this.#listeners.add(kind, listener);
	}
}
