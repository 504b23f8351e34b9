/**
 * One transaction for all that is written in one turn of the event loop, and the promises that wait for it. Knows when to
 * begin, commit and roll back, and nothing of what is written. A commit costs about as much as some hundred rows.
 *
 * There are no savepoints. What can be refused (an old epoch, a limit) is refused before its first write; what fails after
 * that is the disk or the file, for which SQLite itself mostly rolls the whole transaction back, savepoints included. So
 * such a failure takes the whole group with it, and no caller has been told that its part was stored.
 */

import type { DatabaseSync, StatementSync } from "node:sqlite";
import { setImmediate } from "node:timers";
import type { StoreError } from "../store.ts";
import { unavailable } from "./database.ts";

/** Calls in a group after which it does not wait for the end of the turn. */
const MAX_CALLS = 512;

/** What the owner of the state in memory does at the borders of a group. */
export interface GroupHooks {
	/** A group begins: remember what to go back to. */
	begun(): void;
	/** Last chance to write. */
	beforeCommit(): void;
	committed(): void;
	/** The database is as it was at `begun`; so must be the memory. The actions given to `onRollback` have run. */
	rolledBack(): void;
}

interface Settler {
	readonly resolve: (value: unknown) => void;
	readonly reject: (error: Error) => void;
	readonly value: unknown;
	/** The promise itself, where neighbours may share it because it carries no value. */
	readonly shared: Promise<void> | undefined;
}

export class GroupCommit {
	readonly #db: DatabaseSync;
	readonly #path: string;
	readonly #hooks: GroupHooks;
	readonly #onError: (error: Error) => void;
	readonly #begin: StatementSync;
	readonly #commit: StatementSync;
	readonly #rollback: StatementSync;
	#open = false;
	#calls = 0;
	#turnEndScheduled = false;
	#settlers: Settler[] = [];
	#undo: (() => void)[] = [];

	constructor(db: DatabaseSync, path: string, hooks: GroupHooks, onError: (error: Error) => void) {
		this.#db = db;
		this.#path = path;
		this.#hooks = hooks;
		this.#onError = onError;
		this.#begin = db.prepare("BEGIN IMMEDIATE");
		this.#commit = db.prepare("COMMIT");
		this.#rollback = db.prepare("ROLLBACK");
	}

	/** Whether something is written and not yet committed. */
	get isOpen(): boolean {
		return this.#open;
	}

	/** Call before the first write of a method. */
	begin(): void {
		if (this.#open) return;
		this.#begin.run();
		this.#open = true;
		this.#hooks.begun();
		if (this.#turnEndScheduled) return;
		this.#turnEndScheduled = true;
		setImmediate(() => {
			this.#turnEndScheduled = false;
			this.commit();
		});
	}

	/** Something that must be taken back in memory if the group is rolled back. Actions run in reverse order. */
	onRollback(action: () => void): void {
		this.#undo.push(action);
	}

	/** A promise of `value` for when the group is committed; it is resolved already when no group is open. */
	join<T>(value: T): Promise<T> {
		if (!this.#open) return Promise.resolve(value);
		this.#countCall();
		return new Promise<T>((resolve, reject) => {
			this.#settlers.push({ resolve: resolve as (value: unknown) => void, reject, value, shared: undefined });
		});
	}

	/** Like `join` without a value. Calls that follow each other share one promise: they would settle one after the other anyway. */
	joinVoid(): Promise<void> {
		if (!this.#open) return Promise.resolve();
		this.#countCall();
		const last = this.#settlers[this.#settlers.length - 1];
		if (last?.shared !== undefined) return last.shared;
		const { promise, resolve, reject } = Promise.withResolvers<void>();
		this.#settlers.push({ resolve: resolve as (value: unknown) => void, reject, value: undefined, shared: promise });
		return promise;
	}

	/** Commits early. Not within the call: what one caller does in one go is to stand or fall together. */
	commitSoon(): void {
		queueMicrotask(() => this.commit());
	}

	commit(): void {
		if (!this.#open) return;
		try {
			this.#hooks.beforeCommit();
			this.#commit.run();
		} catch (error) {
			this.abort(error);
			return;
		}
		this.#open = false;
		this.#undo = [];
		this.#hooks.committed();
		for (const settler of this.#takeSettlers()) settler.resolve(settler.value);
	}

	/** Rolls the group back, rejects all that wait for it, and returns the error for the caller at hand. */
	abort(cause: unknown): StoreError {
		const error = unavailable(this.#path, "write", cause);
		if (this.#open) {
			try {
				if (this.#db.isTransaction) this.#rollback.run();
			} catch (rollbackError) {
				this.#onError(unavailable(this.#path, "write", rollbackError));
			}
			this.#open = false;
			const undo = this.#undo;
			this.#undo = [];
			for (let at = undo.length - 1; at >= 0; at--) undo[at]?.();
			this.#hooks.rolledBack();
			for (const settler of this.#takeSettlers()) settler.reject(error);
		}
		this.#onError(error);
		return error;
	}

	/** The error for a failed read. It fails alone, unless SQLite has dropped the transaction over it. */
	readFailed(cause: unknown): StoreError {
		if (this.#open && !this.#db.isTransaction) return this.abort(cause);
		return unavailable(this.#path, "read", cause);
	}

	#countCall(): void {
		if (++this.#calls === MAX_CALLS) this.commitSoon();
	}

	#takeSettlers(): Settler[] {
		const settlers = this.#settlers;
		this.#settlers = [];
		this.#calls = 0;
		return settlers;
	}
}
