/**
 * The records that operators manage, in Redis: of each kind a hash, the order of its keys, and when they expire. Knows how other
 * replicas hear of a change, and nothing of what the records say.
 */

import { decodeText } from "../../mqtt/utf8.ts";
import {
	checkKey,
	checkRecord,
	type RecordListener,
	RecordListeners,
	type RecordPage,
	type SharedRecordStore,
	type StoredRecord,
} from "../records.ts";
import type { Connection } from "./connection.ts";
import type { Context } from "./context.ts";
import { scripts } from "./scripts.ts";

/** Expired records that one sweep removes of a kind. */
const EXPIRE_BATCH = 1000;
const EXPIRE_EVERY_MS = 300_000;
/** More than clocks are apart. */
const EXPIRED_FOR_MS = 60_000;

/** How notices begin that are about records; kind and key follow. */
const NOTICE = /^record (\S+) (.*)$/s;

export interface RedisRecordsOptions {
	/** Runs a call with what exists while the store is open, as the methods of the store do. */
	readonly with: <T>(call: (context: Context) => Promise<T>) => Promise<T>;
	/** `Router.announce`; without it other replicas hear nothing. */
	readonly announce: ((notice: string) => Promise<void>) | undefined;
	readonly nowMs: () => number;
}

export class RedisRecords implements SharedRecordStore {
	readonly #options: RedisRecordsOptions;
	readonly #listeners = new RecordListeners();
	/** Kinds that this replica has to do with: those it clears of expired records. */
	readonly #kinds = new Set<string>();
	#expiredAtMs = Number.NEGATIVE_INFINITY;

	constructor(options: RedisRecordsOptions) {
		this.#options = options;
	}

	async put(kind: string, key: string, value: unknown, expiresAtMs = Number.POSITIVE_INFINITY): Promise<void> {
		const json = checkRecord(kind, key, value);
		this.#kinds.add(kind);
		const expires = expiresAtMs === Number.POSITIVE_INFINITY ? "" : String(Math.ceil(expiresAtMs));
		await this.#options.with(({ connection, keys }) =>
			connection.run(scripts.recordPut, keys.managed(kind), [key, `${expires} ${json}`, expires]),
		);
		await this.#tell(kind, key);
	}

	async get(kind: string, key: string): Promise<StoredRecord | undefined> {
		checkKey(kind, key);
		const bytes = await this.#options.with(({ connection, keys }) => connection.send("HGET", [keys.managed(kind)[0], key]));
		return bytes === null ? undefined : this.#living(key, bytes as Buffer);
	}

	async delete(kind: string, key: string): Promise<boolean> {
		checkKey(kind, key);
		const bytes = await this.#options.with(({ connection, keys }) => connection.run(scripts.recordDelete, keys.managed(kind), [key]));
		await this.#tell(kind, key);
		return bytes !== null && this.#living(key, bytes as Buffer) !== undefined;
	}

	async list(kind: string, after: string | undefined, limit: number): Promise<RecordPage> {
		this.#kinds.add(kind);
		return this.#options.with(async ({ connection, keys }) => {
			const names = await this.#names(connection, keys.managed(kind)[1], after, limit);
			if (names.length === 0) return { records: [], next: undefined };
			const values = (await connection.send("HMGET", [keys.managed(kind)[0], ...names])) as (Buffer | null)[];
			// One that was removed in between has no value any more.
			const records = names.map((key, n) => {
				const bytes = values[n];
				return bytes === null || bytes === undefined ? undefined : this.#living(key, bytes);
			});
			return { records: records.filter((record) => record !== undefined), next: names.length < limit ? undefined : names.at(-1) };
		});
	}

	onChange(kind: string, listener: RecordListener): () => void {
		this.#kinds.add(kind);
		return this.#listeners.add(kind, listener);
	}

	noticed(notice: string | undefined): void {
		if (notice === undefined) {
			this.#listeners.tellAll();
			return;
		}
		const [, kind, key] = NOTICE.exec(notice) ?? [];
		if (kind !== undefined) this.#listeners.tell(kind, key);
	}

	/** Removes what has expired, if that was not done lately: it is not answered any more in any case. */
	async expire({ connection, keys }: Context): Promise<void> {
		const nowMs = performance.now();
		if (nowMs - this.#expiredAtMs < EXPIRE_EVERY_MS) return;
		this.#expiredAtMs = nowMs;
		const sweeps = [...this.#kinds].map((kind) => connection.run(scripts.recordExpire, keys.managed(kind), [EXPIRED_FOR_MS, EXPIRE_BATCH]));
		await Promise.all(sweeps);
	}

	async #names(connection: Connection, index: string, after: string | undefined, limit: number): Promise<string[]> {
		const from = after === undefined ? "-" : `(${after}`;
		const names = (await connection.send("ZRANGE", [index, from, "+", "BYLEX", "LIMIT", 0, limit])) as Buffer[];
		return names.map((bytes) => decodeText(bytes, 0, bytes.length));
	}

	/** The caller hears of a notice that may not have been told: other replicas are told anyway when they are reached again. */
	async #tell(kind: string, key: string): Promise<void> {
		this.#listeners.tell(kind, key);
		await this.#options.announce?.(`record ${kind} ${key}`);
	}

	#living(key: string, bytes: Buffer): StoredRecord | undefined {
		const space = bytes.indexOf(0x20);
		const expiresAtMs = space === 0 ? Number.POSITIVE_INFINITY : Number(bytes.toString("latin1", 0, space));
		if (expiresAtMs <= this.#options.nowMs()) return undefined;
		return { key, value: JSON.parse(decodeText(bytes, space + 1, bytes.length)), expiresAtMs };
	}
}
