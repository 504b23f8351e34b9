/** What the tests of managed records share: one store that several replicas see, whose words travel when the test says so. */

import { setImmediate as turn } from "node:timers/promises";
import type { ManagedRecord, ManagedRecords } from "../../src/auth/managed.ts";

/** What all replicas have in common. */
export class SharedRecords {
	readonly kinds = new Map<string, Map<string, ManagedRecord>>();
	readonly views: RecordsView[] = [];
	/** Reads and writes reject with this. */
	failure: Error | undefined;

	/** The store as one replica has it. */
	view(): RecordsView {
		const view = new RecordsView(this);
		this.views.push(view);
		return view;
	}

	kind(kind: string): Map<string, ManagedRecord> {
		const records = this.kinds.get(kind) ?? new Map();
		this.kinds.set(kind, records);
		return records;
	}
}

/** One replica's. */
export class RecordsView implements ManagedRecords {
	readonly #shared: SharedRecords;
	readonly #listeners: { readonly kind: string; readonly listener: (key: string | undefined) => void }[] = [];
	/** Changes that others have made and that this one was not told. */
	#untold: { readonly kind: string; readonly key: string }[] = [];
	reads = 0;
	/** Called while a page is on its way. */
	whileListing: (() => Promise<void>) | undefined;

	constructor(shared: SharedRecords) {
		this.#shared = shared;
	}

	async put(kind: string, key: string, value: unknown, expiresAtMs = Number.POSITIVE_INFINITY): Promise<void> {
		await this.#way();
		this.#shared.kind(kind).set(key, { key, value: JSON.parse(JSON.stringify(value)), expiresAtMs });
		this.#tell(kind, key);
	}

	async get(kind: string, key: string): Promise<ManagedRecord | undefined> {
		this.reads++;
		const record = this.#shared.kind(kind).get(key);
		await this.#way();
		return record;
	}

	async delete(kind: string, key: string): Promise<boolean> {
		await this.#way();
		const existed = this.#shared.kind(kind).delete(key);
		this.#tell(kind, key);
		return existed;
	}

	async list(kind: string, after: string | undefined, limit: number): Promise<{ records: ManagedRecord[]; next: string | undefined }> {
		this.reads++;
		const keys = [...this.#shared.kind(kind).keys()].sort().filter((key) => after === undefined || key > after);
		const records = keys.slice(0, limit).map((key) => this.#shared.kind(kind).get(key) as ManagedRecord);
		await this.#way();
		await this.whileListing?.();
		return { records, next: keys.length > limit ? keys[limit - 1] : undefined };
	}

	onChange(kind: string, listener: (key: string | undefined) => void): () => void {
		const entry = { kind, listener };
		this.#listeners.push(entry);
		return () => this.#listeners.splice(this.#listeners.indexOf(entry), 1);
	}

	get listeners(): number {
		return this.#listeners.length;
	}

	/** Is told what it has missed; or, with `everything`, that it has missed something. */
	async hear(everything = false): Promise<void> {
		const untold = this.#untold.splice(0);
		if (everything) for (const { listener } of [...this.#listeners]) listener(undefined);
		else for (const { kind, key } of untold) this.told(kind, key);
		for (let n = 0; n < 20; n++) await turn();
	}

	told(kind: string, key: string): void {
		for (const each of [...this.#listeners]) if (each.kind === kind) each.listener(key);
	}

	#tell(kind: string, key: string): void {
		this.told(kind, key);
		for (const view of this.#shared.views) if (view !== this) view.#untold.push({ kind, key });
	}

	async #way(): Promise<void> {
		await turn();
		if (this.#shared.failure !== undefined) throw this.#shared.failure;
	}
}
