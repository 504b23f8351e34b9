/** What the tests of the embedded store share: files as a kill would leave them, and files that cannot grow. */

import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { createEmbeddedStore } from "../../src/store/embedded_store.ts";
import type { Store, StoreLimits } from "../../src/store/store.ts";
import { Fixture, message } from "../contracts/store/fixture.ts";

export const LIMITS: StoreLimits = { logMaxMessages: 100_000, maxRetained: 100_000 };

export function temporaryDirectory(): string {
	return mkdtempSync(join(tmpdir(), "store-test-"));
}

/** What a kill would leave: the files as they are, whatever the process still has in mind. */
export function copyAsKilled(path: string): string {
	const copy = join(temporaryDirectory(), "store.db");
	for (const suffix of ["", "-wal"]) {
		if (existsSync(path + suffix)) copyFileSync(path + suffix, copy + suffix);
	}
	return copy;
}

/** Starts a store and answers besides how to set the number of pages that its file may have. */
export async function startLimited(
	path: string,
	onError: (error: Error) => void,
	limits = LIMITS,
): Promise<{ f: Fixture; allowPages: (extra: number) => void }> {
	let db: DatabaseSync | undefined;
	const exec = DatabaseSync.prototype.exec;
	DatabaseSync.prototype.exec = function (sql) {
		db = this;
		return exec.call(this, sql);
	};
	const f = fixtureOn(createEmbeddedStore({ path, sync: "normal", limits, onError }));
	try {
		await f.start();
	} finally {
		DatabaseSync.prototype.exec = exec;
	}
	return {
		f,
		allowPages(extra) {
			const pages = Number(db?.prepare("PRAGMA page_count").get()?.page_count);
			db?.exec(`PRAGMA max_page_count = ${pages + extra}`);
		},
	};
}

/** More than the pages that the tests leave. */
export const HUGE = message("huge", { payload: new Uint8Array(3_000_000) });

/** Runs a test in a directory of its own. */
export function inDirectory(title: string, body: (path: string) => Promise<void>): void {
	test(`embedded store: ${title}`, async () => {
		const directory = temporaryDirectory();
		try {
			await body(join(directory, "store.db"));
		} finally {
			rmSync(directory, { recursive: true });
		}
	});
}

export function makeStore(path: string): Store {
	return createEmbeddedStore({ path, sync: "normal", limits: LIMITS });
}

/** Short words for a store that the test starts and closes itself. */
export function fixtureOn(store: Store): Fixture {
	return new Fixture({ store, reopen: undefined, dispose: () => store.close() });
}
