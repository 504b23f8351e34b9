/**
 * The file of the embedded store: opening, its schema and what its errors mean to the operator. Knows SQLite through
 * `node:sqlite` and nothing of sessions or messages. One process owns a file: SQLite's exclusive locking mode refuses a
 * second one and, being a lock of the operating system, leaves nothing behind after a kill.
 */

import { existsSync, rmSync, statSync } from "node:fs";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { StoreError } from "../store.ts";

/** Version of the schema, kept in the file's `user_version`. */
const SCHEMA_VERSION = 1;
/** "Shol", the file's `application_id`: tells a store from the database of another program. */
const APPLICATION_ID = 0x53686f6c;

/**
 * Ids come from `counter` and are never used twice: rows of an ended session or a removed log that are still to be deleted
 * can then not be taken for somebody else's. Segments are appended by rowid and found by an index.
 */
const SCHEMA = `
CREATE TABLE counter (next INTEGER NOT NULL);
INSERT INTO counter VALUES (1);
CREATE TABLE session (
	id INTEGER PRIMARY KEY,
	client TEXT NOT NULL UNIQUE,
	user TEXT, -- NULL: not known
	expiry_seconds INTEGER NOT NULL,
	expires_at INTEGER, -- NULL while connected
	last_packet_id INTEGER NOT NULL DEFAULT 0,
	inflight BLOB
);
CREATE INDEX session_expires_at ON session (expires_at);
CREATE TABLE subscription (
	session INTEGER NOT NULL,
	filter TEXT NOT NULL,
	log INTEGER, -- NULL for QoS 0
	options INTEGER NOT NULL,
	subscription_id INTEGER NOT NULL,
	PRIMARY KEY (session, filter)
) WITHOUT ROWID;
CREATE TABLE cursor (
	log INTEGER NOT NULL,
	session INTEGER NOT NULL,
	position INTEGER NOT NULL,
	floor INTEGER NOT NULL,
	PRIMARY KEY (log, session)
) WITHOUT ROWID;
CREATE TABLE log (
	id INTEGER PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	head INTEGER NOT NULL -- at least; the segments tell the rest
);
CREATE TABLE segment (
	id INTEGER PRIMARY KEY,
	log INTEGER NOT NULL,
	last INTEGER NOT NULL, -- sequence number of its last entry
	entries INTEGER NOT NULL,
	body BLOB NOT NULL
);
CREATE UNIQUE INDEX segment_last ON segment (log, last);
CREATE TABLE bound (
	log INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	session INTEGER NOT NULL,
	PRIMARY KEY (log, seq)
) WITHOUT ROWID;
CREATE INDEX bound_session ON bound (session);
CREATE TABLE reservation (
	session INTEGER NOT NULL,
	packet_id INTEGER NOT NULL,
	PRIMARY KEY (session, packet_id)
) WITHOUT ROWID;
CREATE TABLE will (
	id INTEGER PRIMARY KEY,
	client TEXT NOT NULL,
	delay_seconds INTEGER NOT NULL,
	message_expiry_seconds INTEGER,
	due_at INTEGER, -- NULL while its connection lives
	message BLOB NOT NULL
);
CREATE INDEX will_client ON will (client);
CREATE INDEX will_due_at ON will (due_at);
CREATE TABLE retained (
	id INTEGER PRIMARY KEY,
	topic TEXT NOT NULL UNIQUE,
	expires_at INTEGER,
	message BLOB NOT NULL
);
CREATE INDEX retained_expires_at ON retained (expires_at) WHERE expires_at IS NOT NULL;
PRAGMA application_id = ${APPLICATION_ID};
PRAGMA user_version = ${SCHEMA_VERSION};
`;

/** A row as an array of its columns: half the cost of an object. */
export type Row = readonly [...columns: unknown[]];

/** A prepared statement that answers rows as arrays. */
export class Query<T extends Row> {
	readonly #statement: StatementSync;

	constructor(db: DatabaseSync, sql: string) {
		this.#statement = db.prepare(sql);
		this.#statement.setReturnArrays(true);
	}

	all(...values: SQLInputValue[]): T[] {
		return this.#statement.all(...values) as unknown as T[];
	}

	get(...values: SQLInputValue[]): T | undefined {
		// Bun answers null where Deno answers undefined.
		return (this.#statement.get(...values) ?? undefined) as unknown as T | undefined;
	}
}

/**
 * Opens a file, or makes it. Throws `StoreError` `newerVersion` for a file of a newer Shoal and `unavailable` for one that
 * cannot be used; neither has been written to then.
 * @param path A path, or `:memory:`.
 */
export function openDatabase(path: string, sync: "normal" | "full"): DatabaseSync {
	let db: DatabaseSync | undefined;
	try {
		if (path !== ":memory:" && existsSync(path) && statSync(path).size > 0) inspect(path);
		db = new DatabaseSync(path, { timeout: 0 });
		// Before the first access: the index of the WAL is then kept in memory and needs no file.
		db.exec("PRAGMA locking_mode = EXCLUSIVE");
		db.exec("PRAGMA journal_mode = WAL");
		db.exec(`PRAGMA synchronous = ${sync === "full" ? "FULL" : "NORMAL"}`);
		db.exec("PRAGMA cache_size = -16000");
		db.exec("PRAGMA temp_store = MEMORY");
		// A WAL that one big group has blown up is cut back.
		db.exec("PRAGMA journal_size_limit = 67108864");
		db.exec("BEGIN EXCLUSIVE");
		if (db.prepare("PRAGMA user_version").get()?.user_version === 0) db.exec(SCHEMA);
		// A file may have been made before there was the column.
		const knowsUsers = db.prepare("SELECT 1 FROM pragma_table_info('session') WHERE name = 'user'").all().length > 0;
		if (!knowsUsers) db.exec("ALTER TABLE session ADD COLUMN user TEXT");
		db.exec("COMMIT");
		// What `inspect` has left; nobody can be using it.
		if (path !== ":memory:") rmSync(`${path}-shm`, { force: true });
		return db;
	} catch (error) {
		// An open handle would keep the lock.
		if (db?.isOpen === true) db.close();
		throw error instanceof StoreError ? error : unavailable(path, "open", error);
	}
}

/** Judges an existing file through a connection that cannot write, so that what is refused stays as it was. */
function inspect(path: string): void {
	const db = new DatabaseSync(path, { readOnly: true });
	try {
		// Not the option `timeout`: Deno 2.9 ignores it for a read-only connection and blocks for 5 s.
		db.exec("PRAGMA busy_timeout = 0");
		const version = Number(db.prepare("PRAGMA user_version").get()?.user_version);
		const application = db.prepare("PRAGMA application_id").get()?.application_id;
		const tables = Number(db.prepare("SELECT count(*) AS n FROM sqlite_schema").get()?.n);
		if (application !== APPLICATION_ID && tables > 0) {
			throw new StoreError("unavailable", `Cannot open the store "${path}": it is the database of another program, name another file`);
		}
		if (version > SCHEMA_VERSION) {
			throw new StoreError(
				"newerVersion",
				`Cannot open the store "${path}": a newer version of Shoal wrote it (data version ${version}, this one reads up to ` +
					`${SCHEMA_VERSION}). Start that version again, or restore a backup from before the upgrade`,
			);
		}
	} finally {
		db.close();
	}
}

/** The `StoreError` for an error of SQLite, with what the operator can do about it. */
export function unavailable(path: string, action: "open" | "read" | "write", cause: unknown): StoreError {
	const problem = cause instanceof Error ? cause.message : String(cause);
	return new StoreError("unavailable", `Cannot ${action} the store "${path}": ${problem}. ${remedy(problem)}`, { cause });
}

function remedy(problem: string): string {
	// Words, because Deno gives the number of the error for some calls only.
	if (problem.includes("locked")) return "Another process has it open: stop that one, or give each process a file of its own";
	if (problem.includes("not a database") || problem.includes("malformed")) {
		return "The file is damaged or not a store: restore a backup, or move it away to start with an empty one";
	}
	if (problem.includes("full")) return "Free disk space or raise the quota: the store goes on by itself then";
	if (problem.includes("unable to open")) return "Check that the directory exists and that this user may write to it";
	if (problem.includes("readonly")) return "Check that this user may write to the file and its directory";
	return "Check the disk and the file's permissions";
}
