/**
 * Small records that operators manage: users, rules, bans and the like. Knows what a store promises of them, and nothing of what
 * they say. They are few and change seldom: whoever needs them at every packet keeps a copy and listens.
 */

import { encodeText } from "../mqtt/utf8.ts";

/** One record, as it was put. */
export interface StoredRecord {
	readonly key: string;
	/** What JSON can hold. */
	readonly value: unknown;
	/** From when on it is not answered any more, in ms since 1970 by the clock of whoever asks; `Infinity` for never. */
	readonly expiresAtMs: number;
}

export interface RecordPage {
	/** In the order of the UTF-8 bytes of their keys. May be fewer than asked for, or none, and have a next page. */
	readonly records: readonly StoredRecord[];
	/** `after` of the next page; `undefined` after the last one. */
	readonly next: string | undefined;
}

/**
 * Records by kind and key. Every promise rejects with a `StoreError` like those of `Store`; after `away` it is unknown whether
 * the change was stored, and whether other replicas know of it: repeat the call.
 */
export interface RecordStore {
	/**
	 * Stores a record, instead of one that is there. When the promise resolves it is stored, the listeners here were called and
	 * other replicas are being told; theirs are called within 2 s, as long as they reach the store.
	 * @throws {RangeError} for a kind, key or value that is not allowed: see `checkRecord`
	 */
	put(kind: string, key: string, value: unknown, expiresAtMs?: number): Promise<void>;
	get(kind: string, key: string): Promise<StoredRecord | undefined>;
	/** Removes a record, and tells as `put` does. Answers whether there was one. */
	delete(kind: string, key: string): Promise<boolean>;
	/** Records whose key comes after the given one, at most `limit`. */
	list(kind: string, after: string | undefined, limit: number): Promise<RecordPage>;
	/**
	 * Calls the listener after each change of this kind, wherever it was made, until the answered function is called: with the key,
	 * or with `undefined` when any of them may have changed unnoticed. That a record expires is not told. It must not throw.
	 */
	onChange(kind: string, listener: RecordListener): () => void;
}

export type RecordListener = (key: string | undefined) => void;

/** The records of a store that several replicas share. */
export interface SharedRecordStore extends RecordStore {
	/** To be told all that `RouterHandlers.onNotice` is told; what is not about records is left alone. */
	noticed(notice: string | undefined): void;
}

const KIND = /^[a-z]{1,32}$/;
/** A client id may be as long as a string of MQTT. */
const MAX_KEY_BYTES = 66_000;
const MAX_VALUE_BYTES = 131_072;

/** The JSON of a record's value. @throws {RangeError} when the record cannot be stored, with a message that does not quote the value */
export function checkRecord(kind: string, key: string, value: unknown): string {
	checkKey(kind, key);
	const json: string | undefined = JSON.stringify(value);
	if (json === undefined) throw new RangeError(`Cannot store the ${kind}: JSON has no form for it`);
	const { length } = encodeText(json);
	if (length > MAX_VALUE_BYTES) throw new RangeError(`Cannot store the ${kind}: it has ${length} bytes, ${MAX_VALUE_BYTES} is the limit`);
	return json;
}

/** @throws {RangeError} for a kind that is no lower-case word, and for a key that is empty or too long */
export function checkKey(kind: string, key: string): void {
	if (!KIND.test(kind)) throw new RangeError(`Cannot use records of the kind "${kind}": expected a lower-case word`);
	const { length } = encodeText(key);
	if (length === 0 || length > MAX_KEY_BYTES) {
		throw new RangeError(`Cannot use a ${kind} whose key has ${length} bytes: expected 1 to ${MAX_KEY_BYTES}`);
	}
}

/** Those who want to hear of changes, by kind. */
export class RecordListeners {
	readonly #kinds = new Map<string, Set<RecordListener>>();

	/** See `RecordStore.onChange`. */
	add(kind: string, listener: RecordListener): () => void {
		const listeners = this.#kinds.get(kind) ?? new Set();
		this.#kinds.set(kind, listeners);
		listeners.add(listener);
		return () => listeners.delete(listener);
	}

	tell(kind: string, key: string | undefined): void {
		for (const listener of this.#kinds.get(kind) ?? []) listener(key);
	}

	/** Anything may have changed. */
	tellAll(): void {
		for (const kind of this.#kinds.keys()) this.tell(kind, undefined);
	}
}
