/**
 * What operators manage, as far as authentication keeps it: records that a store holds, and a copy of all of one kind in memory
 * that follows the store. Knows no store: whoever composes the broker hands its records in.
 */

import type { Logger } from "../log.ts";

/** One record. */
export interface ManagedRecord {
	readonly key: string;
	readonly value: unknown;
	/** In ms since 1970, `Infinity` for never. */
	readonly expiresAtMs: number;
}

/** What is used of the store's records; the store says what each method promises. */
export interface ManagedRecords {
	put(kind: string, key: string, value: unknown, expiresAtMs?: number): Promise<void>;
	get(kind: string, key: string): Promise<ManagedRecord | undefined>;
	delete(kind: string, key: string): Promise<boolean>;
	list(
		kind: string,
		after: string | undefined,
		limit: number,
	): Promise<{ readonly records: readonly ManagedRecord[]; readonly next: string | undefined }>;
	/** Calls back with the key of what has changed, or with `undefined` when anything may have. */
	onChange(kind: string, listener: (key: string | undefined) => void): () => void;
}

/** One page of a list. */
export interface Page<T> {
	readonly items: readonly T[];
	/** `after` of the next page; `undefined` after the last. A page may be shorter than asked for and have a next one. */
	readonly next: string | undefined;
}

/** As many are managed as fit into every replica's memory. The message says what to remove. */
export class TooManyRecords extends Error {
	override readonly name = "TooManyRecords";
}

/** One page of a kind, without what cannot be read. */
export async function pageOf<T>(
	records: ManagedRecords,
	kind: string,
	after: string | undefined,
	limit: number,
	read: (record: ManagedRecord) => T | undefined,
): Promise<Page<T>> {
	const page = await records.list(kind, after, limit);
	return { items: page.records.map(read).filter((item) => item !== undefined), next: page.next };
}

export interface MirrorOptions<T> {
	readonly records: ManagedRecords;
	readonly kind: string;
	/** `undefined` for what cannot be read: the log says so, and what was known under its key stays. */
	readonly read: (record: ManagedRecord) => T | undefined;
	/** Something has changed; `before` and `after` are `undefined` where there is none. */
	readonly onChange: (key: string, after: T | undefined, before: T | undefined) => void;
	/** A batch of changes has been told. */
	readonly onSettled?: () => void;
	/** What more of this kind are refused beyond. */
	readonly maxEntries: number;
	readonly log: Logger;
	/** How long until a failed read is tried again. Default 1000. */
	readonly retryMs?: number;
}

const PAGE = 1000;
const BATCH = 100;
const RETRY_MS = 1000;

/** All records of one kind in memory. Each read begins after the word of its change, so the last one to come is the last state. */
export class Mirror<T> {
	readonly #options: MirrorOptions<T>;
	readonly #entries = new Map<string, T>();
	/** Keys whose record is to be read. */
	#changed = new Set<string>();
	#readAll = false;
	#loaded = false;
	#busy = false;
	#reading = Promise.resolve();
	#stop: (() => void) | undefined;
	#retry: ReturnType<typeof setTimeout> | undefined;
	#complaint = "";

	constructor(options: MirrorOptions<T>) {
		this.#options = options;
	}

	/** By key. Before `loaded` it is empty. */
	get entries(): ReadonlyMap<string, T> {
		return this.#entries;
	}

	/** Whether all records were read once. */
	get loaded(): boolean {
		return this.#loaded;
	}

	/** Reads all and follows the changes. Rejects when the store cannot be read. */
	async start(): Promise<void> {
		this.#stop ??= this.#options.records.onChange(this.#options.kind, (key) => this.#noticed(key));
		this.#readAll = true;
		await this.#readNow();
	}

	/** Stops following. What is known stays. */
	close(): void {
		this.#stop?.();
		this.#stop = undefined;
		clearTimeout(this.#retry);
	}

	/** Stores a record; when the promise resolves it counts here. @throws {TooManyRecords} when there are too many others */
	async put(key: string, value: unknown, expiresAtMs = Number.POSITIVE_INFINITY): Promise<void> {
		const { kind, records, maxEntries } = this.#options;
		if (this.#entries.size >= maxEntries && !this.#entries.has(key)) {
			throw new TooManyRecords(
				`There are ${maxEntries} entries of the kind "${kind}" already, which is the limit: remove some that are not needed`,
			);
		}
		await records.put(kind, key, value, expiresAtMs);
		this.#apply({ key, value, expiresAtMs });
		this.#options.onSettled?.();
	}

	/** Removes a record; when the promise resolves it does not count here any more. Answers whether there was one. */
	async delete(key: string): Promise<boolean> {
		const { kind, records } = this.#options;
		const existed = await records.delete(kind, key);
		this.#remove(key);
		this.#options.onSettled?.();
		return existed;
	}

	/** Forgets what the caller knows to have expired. */
	forget(key: string): void {
		this.#entries.delete(key);
	}

	#noticed(key: string | undefined): void {
		if (key === undefined) this.#readAll = true;
		else this.#changed.add(key);
		this.#readSoon();
	}

	/** Whoever reads already reads on. */
	#readSoon(): void {
		if (!this.#busy) this.#readNow().catch(() => this.#readLater());
	}

	#readLater(): void {
		if (this.#stop === undefined) return;
		clearTimeout(this.#retry);
		this.#retry = setTimeout(() => this.#readSoon(), this.#options.retryMs ?? RETRY_MS);
	}

	#readNow(): Promise<void> {
		if (this.#busy) return this.#reading;
		clearTimeout(this.#retry);
		this.#busy = true;
		this.#reading = this.#read();
		return this.#reading;
	}

	async #read(): Promise<void> {
		const { kind, log } = this.#options;
		try {
			while (this.#readAll || this.#changed.size > 0) {
				if (this.#readAll) await this.#loadAll();
				else await this.#loadChanged();
				this.#options.onSettled?.();
			}
			this.#complaint = "";
		} catch (error) {
			const { message } = error as Error;
			if (message !== this.#complaint)
				log.warn("Cannot read what operators manage; what is known stays until that works", { kind, error: message });
			this.#complaint = message;
			throw error;
		} finally {
			// In one step with the last look: a change that comes later begins anew.
			this.#busy = false;
		}
	}

	async #loadAll(): Promise<void> {
		const { kind, records } = this.#options;
		this.#readAll = false;
		const changed = this.#changed;
		this.#changed = new Set();
		try {
			const gone = new Set(this.#entries.keys());
			let after: string | undefined;
			do {
				const page = await records.list(kind, after, PAGE);
				for (const record of page.records) {
					gone.delete(record.key);
					// What is changed meanwhile is read once more, and may be newer already.
					if (!this.#changed.has(record.key)) this.#apply(record);
				}
				after = page.next;
			} while (after !== undefined);
			for (const key of gone) if (!this.#changed.has(key)) this.#remove(key);
			this.#loaded = true;
		} catch (error) {
			this.#readAll = true;
			for (const key of changed) this.#changed.add(key);
			throw error;
		}
	}

	async #loadChanged(): Promise<void> {
		const { kind, records } = this.#options;
		const keys = [...this.#changed].slice(0, BATCH);
		for (const key of keys) this.#changed.delete(key);
		const found = await Promise.allSettled(keys.map((key) => records.get(kind, key)));
		let failure: PromiseRejectedResult | undefined;
		for (const [n, result] of found.entries()) {
			const key = keys[n] as string;
			if (result.status === "rejected") {
				this.#changed.add(key);
				failure = result;
			} else if (result.value === undefined) this.#remove(key);
			else this.#apply(result.value);
		}
		if (failure !== undefined) throw failure.reason;
	}

	#apply(record: ManagedRecord): void {
		const { kind, read, log, onChange } = this.#options;
		const { key } = record;
		const after = read(record);
		if (after === undefined) {
			log.error("A record cannot be read, and is passed over: was it written by another version?", { kind, key });
			return;
		}
		const before = this.#entries.get(key);
		this.#entries.set(key, after);
		onChange(key, after, before);
	}

	#remove(key: string): void {
		const before = this.#entries.get(key);
		if (!this.#entries.delete(key)) return;
		this.#options.onChange(key, undefined, before);
	}
}
