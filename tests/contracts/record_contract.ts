/** What every store promises of the records that operators manage, as tests. Knows no implementation. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../src/clock.ts";
import type { RecordStore, StoredRecord } from "../../src/store/records.ts";
import { type Store, StoreError } from "../../src/store/store.ts";

export interface RecordHarness {
	readonly store: Store;
	/** A store on the same data, as after a crash; the first one is not used any more. Absent where nothing outlives the process. */
	readonly reopen: (() => Promise<Store>) | undefined;
	dispose(): Promise<void>;
}

const START = 1_700_000_000_000;

/** A clock that stands until it is moved. */
export class MovedClock implements Clock {
	now = START;

	nowMs(): number {
		return this.now;
	}
}

/**
 * Defines the contract's tests for one implementation.
 * @param open Makes a store that is not started, with the given clock; called once for each test.
 * @param outlives Whether the data outlive the process: `reopen` is there then.
 */
export function recordContract(name: string, open: (clock: Clock) => Promise<RecordHarness>, outlives: boolean): void {
	interface Opened {
		readonly records: RecordStore;
		readonly harness: RecordHarness;
		readonly clock: MovedClock;
	}
	const it = (title: string, check: (opened: Opened) => Promise<void>): void => {
		test(`${name}: ${title}`, async () => {
			const clock = new MovedClock();
			const harness = await open(clock);
			try {
				await harness.store.start(clock.now, () => {});
				await check({ records: harness.store.records, harness, clock });
			} finally {
				await harness.dispose();
			}
		});
	};

	it("a record is answered as it was put, and replaced by the next with its key", async ({ records }) => {
		const value = { text: 'ü "日本"', list: [1, null, true], nested: { empty: "" } };
		await records.put("user", "bob", value);
		assert.deepEqual(await records.get("user", "bob"), { key: "bob", value, expiresAtMs: Number.POSITIVE_INFINITY });
		await records.put("user", "bob", "other", START + 5000);
		assert.deepEqual(await records.get("user", "bob"), { key: "bob", value: "other", expiresAtMs: START + 5000 });
	});

	it("a record of another kind or key is another record", async ({ records }) => {
		await records.put("user", "bob", 1);
		await records.put("rule", "bob", 2);
		await records.put("user", "bo", 3);
		assert.equal((await records.get("user", "bob"))?.value, 1);
		assert.equal((await records.get("rule", "bob"))?.value, 2);
		assert.equal(await records.get("user", "alice"), undefined);
		assert.equal(await records.get("ban", "bob"), undefined);
	});

	it("delete answers whether there was a record, and removes it", async ({ records }) => {
		assert.equal(await records.delete("user", "bob"), false);
		await records.put("user", "bob", 1);
		assert.equal(await records.delete("user", "bob"), true);
		assert.equal(await records.get("user", "bob"), undefined);
		assert.deepEqual(await records.list("user", undefined, 10), { records: [], next: undefined });
		assert.equal(await records.delete("user", "bob"), false);
	});

	it("list answers all records of a kind in the order of the bytes of their keys, page by page", async ({ records }) => {
		const keys = Array.from({ length: 25 }, (_, n) => `key ${n}`).concat("ä", "Z", "a/b:c d", "\u{1f600}", "\uffee");
		await Promise.all(keys.map((key) => records.put("user", key, { key })));
		await records.put("users", "other", 1);
		const found: StoredRecord[] = [];
		let after: string | undefined;
		for (let pages = 0; pages < 10; pages++) {
			const page = await records.list("user", after, 7);
			assert.ok(page.records.length <= 7);
			found.push(...page.records);
			after = page.next;
			if (after === undefined) break;
		}
		const ordered = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
		assert.deepEqual(
			found.map(({ key }) => key),
			ordered,
		);
		assert.deepEqual(
			found.map(({ value }) => value),
			ordered.map((key) => ({ key })),
		);
	});

	it("an expired record is not answered, does not count as deleted, and leaves the list", async ({ records, clock }) => {
		await records.put("ban", "a", 1, START + 1000);
		await records.put("ban", "b", 2, START + 2000);
		await records.put("ban", "c", 3);
		clock.now = START + 999;
		assert.equal((await records.get("ban", "a"))?.value, 1);
		clock.now = START + 1000;
		assert.equal(await records.get("ban", "a"), undefined);
		assert.deepEqual(
			(await records.list("ban", undefined, 10)).records.map(({ key }) => key),
			["b", "c"],
		);
		assert.equal(await records.delete("ban", "a"), false);
		await records.put("ban", "b", 4);
		clock.now = START + 1e9;
		assert.equal((await records.get("ban", "b"))?.value, 4, "the later one never expires");
	});

	it("a change calls the listeners of its kind with the key before its promise resolves, until they stop listening", async ({
		records,
	}) => {
		const told: (string | undefined)[] = [];
		const stop = records.onChange("user", (key) => told.push(key));
		await records.put("user", "bob", 1);
		assert.deepEqual(told, ["bob"]);
		await records.put("rule", "r", 1);
		await records.delete("user", "bob");
		assert.deepEqual(told, ["bob", "bob"]);
		stop();
		await records.put("user", "alice", 1);
		assert.deepEqual(told, ["bob", "bob"]);
	});

	it("a listener finds what it is told of", async ({ records }) => {
		const found: Promise<StoredRecord | undefined>[] = [];
		records.onChange("user", (key) => found.push(records.get("user", key ?? "")));
		await records.put("user", "bob", 1);
		await records.delete("user", "bob");
		assert.deepEqual(
			(await Promise.all(found)).map((record) => record?.value),
			[1, undefined],
		);
	});

	it("a kind, key or value that cannot be stored is refused with RangeError, without quoting the value", async ({ records }) => {
		for (const [kind, key, value] of [
			["", "k", 1],
			["A", "k", 1],
			["a b", "k", 1],
			["user", "", 1],
			["user", "k".repeat(66_001), 1],
			["user", "k", undefined],
			["user", "k", "s3cret".repeat(30_000)],
		] as const) {
			await assert.rejects(records.put(kind, key, value), (error) => error instanceof RangeError && !error.message.includes("s3cret"));
		}
		await assert.rejects(records.get("user", ""), RangeError);
		assert.deepEqual((await records.list("user", undefined, 10)).records, []);
	});

	if (outlives) {
		it("records are there after a crash", async ({ records, harness, clock }) => {
			await records.put("user", "bob", { a: 1 });
			await records.put("ban", "x", 2, START + 1000);
			const again = await harness.reopen?.();
			assert.ok(again);
			await again.start(clock.now, () => {});
			assert.deepEqual((await again.records.get("user", "bob"))?.value, { a: 1 });
			assert.deepEqual((await again.records.list("ban", undefined, 10)).records, [{ key: "x", value: 2, expiresAtMs: START + 1000 }]);
		});
	}

	it("before start and after close every call rejects with unavailable", async ({ records, harness }) => {
		await harness.store.close();
		const refused = (error: unknown): boolean => error instanceof StoreError && error.code === "unavailable";
		await assert.rejects(records.put("user", "bob", 1), refused);
		await assert.rejects(records.get("user", "bob"), refused);
		await assert.rejects(records.delete("user", "bob"), refused);
		await assert.rejects(records.list("user", undefined, 10), refused);
	});
}
