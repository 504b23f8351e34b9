/**
 * The store of a replica without Redis: one SQLite file through `node:sqlite`, which Bun and Deno both have. Knows how the
 * parts in `embedded/` make the methods of `Store`, and which of them wait for the commit; each part knows its own tables.
 *
 * All calls run at once and in order, so a later one sees an earlier one; a promise resolves when what it says, and all that
 * it was based on, is committed. Calls made in one go without awaiting are committed together or not at all.
 */

import type { DatabaseSync } from "node:sqlite";
import { type Clock, systemClock } from "../clock.ts";
import type { Context, Counts } from "./embedded/context.ts";
import { Ids } from "./embedded/context.ts";
import { openDatabase, unavailable } from "./embedded/database.ts";
import { Forwarding } from "./embedded/forwarding.ts";
import { GroupCommit } from "./embedded/group_commit.ts";
import { LogReader } from "./embedded/log_reader.ts";
import { LogTrimmer } from "./embedded/log_trimmer.ts";
import { Logs } from "./embedded/logs.ts";
import { EmbeddedRecords, RecordTable } from "./embedded/records.ts";
import { Retained } from "./embedded/retained.ts";
import { Sessions } from "./embedded/sessions.ts";
import { SharedLogs } from "./embedded/shared_logs.ts";
import { type Subscribed, Subscriptions } from "./embedded/subscriptions.ts";
import { Wills } from "./embedded/wills.ts";
import { isShared } from "./log_name.ts";
import type { RecordStore } from "./records.ts";
import {
	type Checkpoint,
	type CloseSession,
	type Due,
	type LogEntry,
	type OpenedSession,
	type OpenSession,
	type Position,
	type PublishRequest,
	type PublishResult,
	type RetainedPage,
	type SessionRef,
	type Store,
	StoreError,
	type StoreLimits,
	type StoreStats,
	type SubscriptionOptions,
} from "./store.ts";

export interface EmbeddedStoreOptions {
	/** Path of the file, made if it is not there (its directory is not), or `:memory:`. */
	readonly path: string;
	/**
	 * When a commit counts. `normal`: handed to the operating system, so that it outlives the process but the last ones may be
	 * lost with the machine's power; `full`: written to the disk.
	 */
	readonly sync: "normal" | "full";
	readonly limits: StoreLimits;
	/** Told of each failure of the file; the calls it struck reject besides. */
	readonly onError?: (error: Error) => void;
	/** By which records expire. */
	readonly clock?: Clock;
}

/** Makes the embedded store. The file is opened by `start`. */
export function createEmbeddedStore(options: EmbeddedStoreOptions): EmbeddedStore {
	return new EmbeddedStore(options);
}

const DUPLICATE: PublishResult = { appended: [], duplicate: true };

/** What exists between `start` and `close`. */
interface Parts {
	readonly db: DatabaseSync;
	readonly group: GroupCommit;
	readonly counts: Counts;
	readonly logs: Logs;
	readonly reader: LogReader;
	readonly trimmer: LogTrimmer;
	readonly shared: SharedLogs;
	readonly retained: Retained;
	readonly wills: Wills;
	readonly sessions: Sessions;
	readonly forwarding: Forwarding;
	readonly records: RecordTable;
}

export class EmbeddedStore implements Store {
	readonly records: RecordStore;
	readonly #options: EmbeddedStoreOptions;
	#parts: Parts | undefined;

	constructor(options: EmbeddedStoreOptions) {
		this.#options = options;
		this.records = new EmbeddedRecords((kind, call) => this.#withRecords(kind, call), options.clock ?? systemClock);
	}

	async start(nowMs: number, onLog: (name: string, exists: boolean) => void): Promise<void> {
		if (this.#parts !== undefined) throw new TypeError("Cannot start the store: it is started already");
		let db: DatabaseSync | undefined;
		try {
			db = openDatabase(this.#options.path, this.#options.sync);
			const parts = assemble(db, this.#options);
			parts.group.begin();
			parts.sessions.recover(nowMs);
			const recovered = parts.group.joinVoid();
			parts.group.commit();
			await recovered;
			parts.logs.watch(onLog);
			this.#parts = parts;
		} catch (error) {
			// An open handle would keep the lock.
			if (db?.isOpen === true) db.close();
			throw error instanceof StoreError ? error : unavailable(this.#options.path, "open", error);
		}
	}

	close(): Promise<void> {
		const parts = this.#parts;
		if (parts === undefined) return Promise.resolve();
		const stored = parts.group.joinVoid();
		parts.group.commit();
		this.#parts = undefined;
		parts.db.close();
		return stored;
	}

	hasLog(topic: string): boolean {
		return !isShared(topic) && this.#parts?.logs.get(topic) !== undefined;
	}

	openSession(request: OpenSession): Promise<OpenedSession> {
		try {
			const { sessions, group } = this.#open();
			return group.join(sessions.open(request));
		} catch (error) {
			return this.#failed(error);
		}
	}

	closeSession(session: SessionRef, request: CloseSession): Promise<void> {
		try {
			const { sessions, group } = this.#open();
			sessions.close(session, request);
			return group.joinVoid();
		} catch (error) {
			return this.#failed(error);
		}
	}

	subscribe(session: SessionRef, subscriptions: readonly SubscriptionOptions[]): Promise<readonly Subscribed[]> {
		try {
			const { sessions, group } = this.#open();
			return group.join(sessions.subscribe(session, subscriptions));
		} catch (error) {
			return this.#failed(error);
		}
	}

	unsubscribe(session: SessionRef, filters: readonly string[]): Promise<void> {
		try {
			const { sessions, group } = this.#open();
			sessions.unsubscribe(session, filters);
			return group.joinVoid();
		} catch (error) {
			return this.#failed(error);
		}
	}

	publish(request: PublishRequest): Promise<PublishResult> {
		if (request.forward !== undefined) return this.#publishForwarded(request, request.forward);
		try {
			const { group, logs, retained, sessions, wills } = this.#open();
			const { message, reserve, willId } = request;
			// All that can be refused comes before the first write.
			const owner = reserve === undefined ? undefined : sessions.owner(reserve.session);
			if (owner !== undefined && reserve !== undefined && sessions.isReserved(owner, reserve.packetId)) return group.join(DUPLICATE);
			if (request.retain) retained.refuseSurplus(message);
			if (request.retain || willId !== undefined) group.begin();
			if (willId !== undefined && !wills.remove(Number(willId))) return group.join(DUPLICATE);
			if (owner !== undefined && reserve !== undefined) sessions.reserve(owner, reserve.packetId);
			if (request.retain) retained.set(message);
			return group.join({ appended: logs.append(message, request.logs), duplicate: false });
		} catch (error) {
			return this.#failed(error);
		}
	}

	#publishForwarded(request: PublishRequest, forward: NonNullable<PublishRequest["forward"]>): Promise<PublishResult> {
		try {
			const { group, logs, retained, sessions, wills, forwarding } = this.#open();
			const { message, reserve, willId, name } = request;
			const owner = reserve === undefined ? undefined : sessions.owner(reserve.session);
			let key = name;
			if (owner !== undefined && reserve !== undefined) {
				if (sessions.isReserved(owner, reserve.packetId)) return group.join(DUPLICATE);
				// Another session of the client may use the packet id for another message.
				key = `session ${owner.row === 0 ? owner.epoch : owner.row} ${reserve.packetId}`;
			} else if (willId !== undefined) {
				if (!wills.has(Number(willId))) return group.join(DUPLICATE);
				key = `will ${willId}`;
			}
			return forwarding.publish(key, forward, {
				store() {
					if (request.retain) {
						retained.refuseSurplus(message);
						group.begin();
						retained.set(message);
					}
					return { appended: logs.append(message, request.logs), duplicate: false };
				},
				end: () => {
					try {
						if (reserve !== undefined) sessions.reserve(sessions.owner(reserve.session), reserve.packetId);
						if (willId !== undefined) group.begin();
						if (willId !== undefined) wills.remove(Number(willId));
						return group.joinVoid();
					} catch (error) {
						return this.#failed(error);
					}
				},
			});
		} catch (error) {
			return this.#failed(error);
		}
	}

	release(session: SessionRef, packetId: number): Promise<void> {
		try {
			const { sessions, group } = this.#open();
			sessions.release(session, packetId);
			return group.joinVoid();
		} catch (error) {
			return this.#failed(error);
		}
	}

	read(positions: readonly Position[], limit: number): Promise<readonly LogEntry[]> {
		try {
			const { reader, group } = this.#open();
			const { entries, uncommitted } = reader.read(positions, limit);
			return uncommitted ? group.join(entries) : Promise.resolve(entries);
		} catch (error) {
			return this.#readFailed(error);
		}
	}

	checkpoint(session: SessionRef, checkpoint: Checkpoint): Promise<void> {
		try {
			const { sessions, group } = this.#open();
			sessions.checkpoint(session, checkpoint);
			return group.joinVoid();
		} catch (error) {
			return this.#failed(error);
		}
	}

	takeShared(log: string, limit: number): Promise<readonly LogEntry[]> {
		try {
			const { shared, group } = this.#open();
			const { entries, uncommitted } = shared.take(log, limit);
			return uncommitted ? group.join(entries) : Promise.resolve(entries);
		} catch (error) {
			return this.#readFailed(error);
		}
	}

	settleShared(log: string, seqs: readonly number[]): Promise<void> {
		try {
			const { shared, group } = this.#open();
			group.begin();
			shared.settle(log, seqs);
			return group.joinVoid();
		} catch (error) {
			return this.#failed(error);
		}
	}

	returnShared(log: string, seqs: readonly number[]): Promise<void> {
		try {
			const { shared, group } = this.#open();
			shared.giveBack(log, seqs);
			return group.joinVoid();
		} catch (error) {
			return this.#failed(error);
		}
	}

	bindShared(log: string, seq: number, session: SessionRef): Promise<void> {
		try {
			const { sessions, group } = this.#open();
			sessions.bindShared(log, seq, session);
			return group.joinVoid();
		} catch (error) {
			return this.#failed(error);
		}
	}

	retained(filter: string, after: string | undefined, limit: number, nowMs: number): Promise<RetainedPage> {
		try {
			const { retained, group } = this.#open();
			const page = retained.page(filter, after, limit, nowMs);
			return retained.isUncommitted ? group.join(page) : Promise.resolve(page);
		} catch (error) {
			return this.#readFailed(error);
		}
	}

	due(nowMs: number, limit: number): Promise<Due> {
		try {
			const { group, logs, records, retained, sessions, trimmer, wills } = this.#open();
			const due = { wills: wills.due(nowMs, limit), expiredSessions: sessions.expire(nowMs, limit) };
			// This is called again and again, which makes it the place for what has no deadline either.
			retained.expire(nowMs);
			records.expire(nowMs);
			trimmer.sweep();
			logs.collectGarbage();
			return group.join(due);
		} catch (error) {
			return this.#failed(error);
		}
	}

	stats(): Promise<StoreStats> {
		try {
			const { counts, logs } = this.#open();
			const { sessions, subscriptions, retained, entries } = counts;
			return Promise.resolve({ sessions, subscriptions, retained, logs: logs.size, logEntries: entries });
		} catch (error) {
			return this.#readFailed(error);
		}
	}

	#withRecords<T>(kind: "read" | "write", call: (records: RecordTable) => T): Promise<T> {
		try {
			const { records, group } = this.#open();
			return group.join(call(records));
		} catch (error) {
			return kind === "read" ? this.#readFailed(error) : this.#failed(error);
		}
	}

	#open(): Parts {
		if (this.#parts === undefined) {
			throw new StoreError("unavailable", `Cannot use the store "${this.#options.path}": it is not started, or it was closed`);
		}
		return this.#parts;
	}

	/** A `StoreError` is a refusal and came before any write; anything else leaves nobody knowing what was written. */
	#failed(error: unknown): Promise<never> {
		if (error instanceof StoreError || this.#parts === undefined) return Promise.reject(error);
		return Promise.reject(this.#parts.group.abort(error));
	}

	#readFailed(error: unknown): Promise<never> {
		if (error instanceof StoreError || this.#parts === undefined) return Promise.reject(error);
		return Promise.reject(this.#parts.group.readFailed(error));
	}
}

function assemble(db: DatabaseSync, { path, limits, onError }: EmbeddedStoreOptions): Parts {
	const counts: Counts = { sessions: 0, subscriptions: 0, retained: 0, entries: 0 };
	let countsBefore: Counts = { ...counts };
	const hooks = {
		begun() {
			countsBefore = { ...counts };
			logs.begun();
		},
		beforeCommit() {
			logs.beforeCommit();
		},
		committed() {
			logs.committed();
			retained.groupEnded();
		},
		rolledBack() {
			Object.assign(counts, countsBefore);
			logs.rolledBack();
			retained.groupEnded();
			ids.reload();
		},
	};
	const group = new GroupCommit(db, path, hooks, onError ?? (() => {}));
	const ids = new Ids(db);
	const context: Context = { db, group, ids, counts };
	const logs = new Logs(context, limits.logMaxMessages);
	logs.load();
	const reader = new LogReader(context, logs);
	const trimmer = new LogTrimmer(context, logs);
	const shared = new SharedLogs(context, logs, reader);
	const retained = new Retained(context, limits.maxRetained);
	const wills = new Wills(context);
	const subscriptions = new Subscriptions(context, logs, trimmer);
	const sessions = new Sessions(context, subscriptions, wills, shared, reader);
	const records = new RecordTable(db, group);
	return { db, group, counts, logs, reader, trimmer, shared, retained, wills, sessions, forwarding: new Forwarding(group), records };
}
