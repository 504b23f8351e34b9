/** The records that operators manage, in SQLite: the contract, and that expired ones are removed. */

import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import type { Clock } from "../../src/clock.ts";
import { createEmbeddedStore, type EmbeddedStore } from "../../src/store/embedded_store.ts";
import { MovedClock, type RecordHarness, recordContract } from "../contracts/record_contract.ts";
import { copyAsKilled, LIMITS, temporaryDirectory } from "./embedded_support.ts";

async function openFile(clock: Clock): Promise<RecordHarness> {
	const stores: EmbeddedStore[] = [];
	const paths = [join(temporaryDirectory(), "store.db")];
	const make = (): EmbeddedStore => {
		const store = createEmbeddedStore({ path: paths.at(-1) as string, sync: "normal", limits: LIMITS, clock });
		stores.push(store);
		return store;
	};
	return {
		store: make(),
		async reopen() {
			paths.push(copyAsKilled(paths.at(-1) as string));
			return make();
		},
		async dispose() {
			for (const store of stores) await store.close();
			for (const path of paths) rmSync(join(path, ".."), { recursive: true });
		},
	};
}

async function openMemory(clock: Clock): Promise<RecordHarness> {
	const store = createEmbeddedStore({ path: ":memory:", sync: "normal", limits: LIMITS, clock });
	return { store, reopen: undefined, dispose: () => store.close() };
}

recordContract("records in a file", openFile, true);
recordContract("records in memory", openMemory, false);

test("embedded store: due removes expired records from the file, and no others", async () => {
	const path = join(temporaryDirectory(), "store.db");
	const clock = new MovedClock();
	const store = createEmbeddedStore({ path, sync: "normal", limits: LIMITS, clock });
	await store.start(clock.now, () => {});
	await store.records.put("ban", "expired", 1, clock.now + 10);
	await store.records.put("ban", "later", 1, clock.now + 1000);
	await store.records.put("ban", "never", 1);
	await store.due(clock.now + 10, 100);
	await store.close();
	const db = new DatabaseSync(path);
	assert.deepEqual(
		db
			.prepare("SELECT key FROM record ORDER BY key")
			.all()
			.map(({ key }) => key),
		["later", "never"],
	);
	db.close();
	rmSync(join(path, ".."), { recursive: true });
});

test("embedded store: a file that was made without records gets them", async () => {
	const path = join(temporaryDirectory(), "store.db");
	const before = createEmbeddedStore({ path, sync: "normal", limits: LIMITS });
	await before.start(Date.now(), () => {});
	await before.close();
	const db = new DatabaseSync(path);
	db.exec("DROP TABLE record");
	db.close();
	const store = createEmbeddedStore({ path, sync: "normal", limits: LIMITS });
	await store.start(Date.now(), () => {});
	await store.records.put("user", "bob", 1);
	assert.equal((await store.records.get("user", "bob"))?.value, 1);
	await store.close();
	rmSync(join(path, ".."), { recursive: true });
});
