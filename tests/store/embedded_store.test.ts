/** The embedded store: the store contract on a file and in memory, and what only a file can do wrong. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { createEmbeddedStore } from "../../src/store/embedded_store.ts";
import { type Store, StoreError, type StoreErrorCode, type StoreLimits } from "../../src/store/store.ts";
import { assertRejects, type Client, Fixture, inflight, message, NOW, numbers, seqs, will } from "../contracts/store/fixture.ts";
import { type StoreHarness, storeContract } from "../contracts/store_contract.ts";
import { copyAsKilled, fixtureOn, inDirectory, LIMITS, makeStore, temporaryDirectory } from "./embedded_support.ts";

async function openFile(limits: StoreLimits, sync: "normal" | "full" = "normal"): Promise<StoreHarness> {
	const stores: Store[] = [];
	let path = join(temporaryDirectory(), "store.db");
	const paths = [path];
	const make = (): Store => {
		const store = createEmbeddedStore({ path, sync, limits });
		stores.push(store);
		return store;
	};
	return {
		store: make(),
		async reopen() {
			path = copyAsKilled(path);
			paths.push(path);
			return make();
		},
		async dispose() {
			for (const store of stores) await store.close();
			for (const each of paths) rmSync(join(each, ".."), { recursive: true });
		},
	};
}

async function openMemory(limits: StoreLimits): Promise<StoreHarness> {
	const store = createEmbeddedStore({ path: ":memory:", sync: "normal", limits });
	return { store, reopen: undefined, dispose: () => store.close() };
}

storeContract("embedded store in a file", openFile, true);
storeContract("embedded store in memory", openMemory, false);

/** Starting must fail with the code and a message with all the words, and change nothing. */
async function assertRefused(path: string, code: StoreErrorCode, words: readonly string[]): Promise<void> {
	const before = existsSync(path) && statSync(path).isFile() ? readFileSync(path) : undefined;
	await assert.rejects(
		makeStore(path).start(NOW, () => {}),
		(error) => {
			assert.ok(error instanceof StoreError);
			assert.equal(error.code, code);
			for (const word of [path, ...words]) assert.ok(error.message.includes(word), `"${error.message}" does not say "${word}"`);
			return true;
		},
	);
	if (before !== undefined) assert.ok(before.equals(readFileSync(path)), "the file has changed");
}

inDirectory("a file is closed whole and opened again, without help files left behind", async (path) => {
	for (let round = 1; round <= 3; round++) {
		const f = fixtureOn(makeStore(path));
		await f.start();
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		await f.publish("t", ["t"]);
		assert.equal((await f.read("t")).length, round);
		await f.store.close();
		assert.deepEqual(readdirSync(join(path, "..")), ["store.db"]);
	}
});

inDirectory("a session of a file that does not say whose it is goes to the first who comes, and then belongs to that one", async (path) => {
	const f = fixtureOn(makeStore(path));
	await f.start();
	await f.connect("a", { user: "alice" });
	await f.store.close();
	const db = new DatabaseSync(path);
	db.exec("ALTER TABLE session DROP COLUMN user");
	db.close();
	const later = fixtureOn(makeStore(path));
	await later.start();
	assert.equal((await later.connect("a", { user: "bob" })).sessionPresent, true);
	await assertRejects(later.connect("a", { user: "alice" }), "notOwner");
	await later.store.close();
});

inDirectory("a file of a newer version is refused and left as it is", async (path) => {
	const store = makeStore(path);
	await store.start(NOW, () => {});
	await store.close();
	const db = new DatabaseSync(path);
	db.exec("PRAGMA user_version = 99");
	db.close();
	await assertRefused(path, "newerVersion", ["99", "reads up to 1", "Start that version again, or restore a backup"]);
});

inDirectory("the database of another program is refused and left as it is", async (path) => {
	const db = new DatabaseSync(path);
	db.exec("CREATE TABLE customer (name TEXT)");
	db.close();
	await assertRefused(path, "unavailable", ["another program"]);
});

inDirectory("a file that is no database is refused and left as it is", async (path) => {
	writeFileSync(path, "not a database, but long enough to be one. ".repeat(100));
	await assertRefused(path, "unavailable", ["not a database", "restore a backup"]);
});

inDirectory("a damaged file is refused", async (path) => {
	const store = makeStore(path);
	await store.start(NOW, () => {});
	await store.close();
	const bytes = readFileSync(path);
	bytes.fill(0xa5, 4096);
	writeFileSync(path, bytes);
	await assertRefused(path, "unavailable", ["malformed", "restore a backup"]);
});

inDirectory("a path in a directory that is not there is refused", async (path) => {
	await assertRefused(join(path, "..", "nowhere", "store.db"), "unavailable", ["unable to open", "Check that the directory exists"]);
});

inDirectory("a start that failed leaves no lock", async (path) => {
	const store = makeStore(path);
	await store.start(NOW, () => {});
	await store.close();
	const whole = readFileSync(path);
	writeFileSync(path, Buffer.from(whole).fill(0xa5, 4096));
	await assertRejects(
		store.start(NOW, () => {}),
		"unavailable",
	);
	writeFileSync(path, whole);
	await store.start(NOW, () => {});
	await store.close();
});

interface Child {
	readonly process: ChildProcess;
	readonly lines: AsyncIterator<string>;
	kill(): Promise<void>;
}

/** Runs `embedded_child.ts` on the same runtime while `body` runs. */
async function withChild(mode: "open" | "load", path: string, body: (child: Child) => Promise<void>): Promise<void> {
	const script = fileURLToPath(new URL("./embedded_child.ts", import.meta.url));
	const run = process.versions.bun === undefined ? ["run", "-A", "--no-check", script] : [script];
	const child = spawn(process.execPath, [...run, mode, path], { stdio: ["ignore", "pipe", "inherit"] });
	const exited = once(child, "exit");
	const kill = async () => {
		child.kill("SIGKILL");
		await exited;
	};
	try {
		assert.ok(child.stdout);
		await body({ process: child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator](), kill });
	} finally {
		await kill();
	}
}

inDirectory("a second process is refused, and says why", async (path) => {
	const store = makeStore(path);
	await store.start(NOW, () => {});
	await withChild("open", path, async ({ lines }) => {
		const { value } = await lines.next();
		assert.match(String(value), /^unavailable: Cannot open the store ".*store\.db": .*locked.*Another process has it open/);
	});
	await store.close();
});

inDirectory("a store in the same process is refused too, and the first goes on", async (path) => {
	const store = makeStore(path);
	await store.start(NOW, () => {});
	await assertRejects(
		makeStore(path).start(NOW, () => {}),
		"unavailable",
	);
	assert.equal((await store.stats()).sessions, 0);
	await store.close();
});

inDirectory("kill -9 leaves no lock", async (path) => {
	const store = makeStore(path);
	await withChild("open", path, async ({ lines, kill }) => {
		assert.equal((await lines.next()).value, "opened");
		await assertRejects(
			store.start(NOW, () => {}),
			"unavailable",
		);
		await kill();
	});
	await store.start(NOW, () => {});
	await store.close();
});

inDirectory("kill -9 under load keeps everything whose promise had resolved", async (path) => {
	const acknowledged: string[] = [];
	await withChild("load", path, async ({ lines, kill }) => {
		assert.equal((await lines.next()).value, "opened");
		while (acknowledged.length < 2000) acknowledged.push(String((await lines.next()).value));
		const killed = kill();
		for (let line = await lines.next(); line.done !== true; line = await lines.next()) acknowledged.push(line.value);
		await killed;
	});
	// The kill may have cut the last line.
	if (acknowledged.at(-1)?.split(" ").length !== 3) acknowledged.pop();
	const f = fixtureOn(makeStore(path));
	await f.start();
	assert.deepEqual(f.takeLogEvents(), ["+$share/g/t"]);
	assert.ok(f.store.hasLog("t"));
	const plain = seqs(await f.read("t", 0, 1_000_000));
	const shared = seqs(await f.store.takeShared("$share/g/t", 1_000_000));
	const retained = new Set(await f.retainedTopics("r/#"));
	const { reservedIds } = await f.connect("a");
	const reserved = new Set(reservedIds);
	assert.deepEqual(plain, numbers(1, plain.length), "dense");
	assert.deepEqual(shared, plain, "both logs have the same messages");
	for (const line of acknowledged) {
		const [plainSeq, sharedSeq, packetId] = line.split(" ").map(Number);
		assert.ok((plainSeq ?? 0) <= plain.length && (sharedSeq ?? 0) <= shared.length, `${line} of ${plain.length}`);
		assert.ok(retained.has(`r/${packetId}`) && reserved.has((packetId ?? 0) + 1), line);
	}
	await f.store.close();
});

/** Rows of a table, as a kill would leave them. */
function countRows(path: string, table: string): unknown {
	const copy = copyAsKilled(path);
	const db = new DatabaseSync(copy);
	const row = db.prepare(`SELECT count(*) AS n FROM ${table}`).get();
	db.close();
	rmSync(join(copy, ".."), { recursive: true });
	return row?.n;
}

inDirectory("what has ended leaves no rows", async (path) => {
	const group = "$share/g/t";
	const f = fixtureOn(makeStore(path));
	await f.start();
	const keeper = await f.connect("keeper");
	await f.subscribe(keeper, group);
	const bind = async (client: Client) => {
		const [entry] = await f.store.takeShared(group, 1);
		await f.store.bindShared(group, entry?.seq ?? 0, client.ref);
	};
	for (const [clientId, sessionExpirySeconds] of [
		["durable", 60],
		["volatile", 0],
	] as const) {
		const client = await f.connect(clientId, { sessionExpirySeconds, will: will("w") });
		for (const log of ["t", "u", group]) await f.subscribe(client, log);
		for (let round = 0; round < 4; round++) await f.fill("t", 2000);
		await f.publish("t", ["t", "u", group], { reserve: { session: client.ref, packetId: 1 } });
		await bind(client);
		await f.checkpoint(client, { inflight: [inflight(1, { log: "t", seq: 1 })] });
		await f.close(client, { will: "discard", sessionExpirySeconds: 0 });
	}
	assert.equal(countRows(path, "bound"), 0, "while the group goes on");
	await f.fill(group, 1);
	await bind(keeper);
	assert.equal(countRows(path, "bound"), 1);
	await f.store.unsubscribe(keeper.ref, [group]);
	await f.close(keeper, { sessionExpirySeconds: 0 });
	// A large log is deleted bit by bit, and a crash in between must not stop that.
	const copy = copyAsKilled(path);
	const reopened = fixtureOn(makeStore(copy));
	await reopened.start();
	for (let round = 0; round < 10; round++) await reopened.store.due(NOW, 10);
	await reopened.store.close();
	for (const table of ["session", "subscription", "cursor", "log", "segment", "bound", "reservation", "will"]) {
		assert.equal(countRows(copy, table), 0, table);
	}
	await f.store.close();
	rmSync(join(copy, ".."), { recursive: true });
});

test("embedded store: keeps the contract's order of effects with full synchronisation too", async () => {
	const harness = await openFile(LIMITS, "full");
	const f = new Fixture(harness);
	await f.start();
	await f.subscribe(await f.connect("a"), "t");
	await f.fill("t", 100);
	await f.restart();
	assert.deepEqual(seqs(await f.read("t")), numbers(1, 100));
	await f.dispose();
});

test("embedded store: before start every call is refused", async () => {
	const store = makeStore(":memory:");
	await assertRejects(store.stats(), "unavailable");
	await assertRejects(
		store.publish({
			message: message("t"),
			logs: [],
			retain: false,
			reserve: undefined,
			willId: undefined,
			name: undefined,
			forward: undefined,
		}),
		"unavailable",
	);
	await store.close();
});
