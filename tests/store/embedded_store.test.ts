/** The embedded store: the store contract on a file and in memory, and what only a file can do wrong. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { setImmediate } from "node:timers";
import { createEmbeddedStore } from "../../src/store/embedded_store.ts";
import { type Store, StoreError, type StoreErrorCode, type StoreLimits } from "../../src/store/store.ts";
import { assertRejects, Fixture, message, NOW, numbers, seqs, subscription, texts, will } from "../contracts/store/fixture.ts";
import { type StoreHarness, storeContract } from "../contracts/store_contract.ts";
import { copyAsKilled, HUGE, LIMITS, startLimited, temporaryDirectory } from "./embedded_support.ts";

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

/** Runs a test in a directory of its own. */
function inDirectory(title: string, body: (path: string) => Promise<void>): void {
	test(`embedded store: ${title}`, async () => {
		const directory = temporaryDirectory();
		try {
			await body(join(directory, "store.db"));
		} finally {
			rmSync(directory, { recursive: true });
		}
	});
}

function makeStore(path: string): Store {
	return createEmbeddedStore({ path, sync: "normal", limits: LIMITS });
}

/** Starting must fail with the code and a message with all the words, and change nothing. */
async function assertRefused(path: string, code: StoreErrorCode, words: readonly string[]): Promise<void> {
	const before = existsSync(path) && statSync(path).isFile() ? readFileSync(path) : undefined;
	await assert.rejects(makeStore(path).start(NOW, () => {}), (error) => {
		assert.ok(error instanceof StoreError);
		assert.equal(error.code, code);
		for (const word of [path, ...words]) assert.ok(error.message.includes(word), `"${error.message}" does not say "${word}"`);
		return true;
	});
	if (before !== undefined) assert.ok(before.equals(readFileSync(path)), "the file has changed");
}

inDirectory("a file is closed whole and opened again, without help files left behind", async (path) => {
	for (let round = 1; round <= 3; round++) {
		const f = new Fixture({ store: makeStore(path), reopen: undefined, dispose: async () => {} });
		await f.start();
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		await f.publish("t", ["t"]);
		assert.equal((await f.read("t")).length, round);
		await f.store.close();
		assert.deepEqual(readdirSync(join(path, "..")), ["store.db"]);
	}
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

inDirectory("a start that was refused leaves no lock", async (path) => {
	writeFileSync(path, "not a database, but long enough to be one. ".repeat(100));
	const store = makeStore(path);
	await assertRejects(store.start(NOW, () => {}), "unavailable");
	rmSync(path);
	await store.start(NOW, () => {});
	await store.close();
});

/** The child runs on the same runtime. */
function startChild(mode: "open" | "load", path: string): { child: ChildProcess; lines: AsyncIterator<string> } {
	const script = join(import.meta.dirname, "embedded_child.ts");
	const run = process.versions["bun"] === undefined ? ["run", "-A", "--no-check", script] : [script];
	const child = spawn(process.execPath, [...run, mode, path], { stdio: ["ignore", "pipe", "inherit"] });
	assert.ok(child.stdout);
	return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() };
}

async function kill(child: ChildProcess): Promise<void> {
	const exited = once(child, "exit");
	child.kill("SIGKILL");
	await exited;
}

inDirectory("a second process is refused, and says why", async (path) => {
	const store = makeStore(path);
	await store.start(NOW, () => {});
	const { lines } = startChild("open", path);
	const { value } = await lines.next();
	assert.match(String(value), /^unavailable: Cannot open the store ".*store\.db": .*locked.*Another process has it open/);
	await store.close();
});

inDirectory("a store in the same process is refused too, and the first goes on", async (path) => {
	const store = makeStore(path);
	await store.start(NOW, () => {});
	await assertRejects(makeStore(path).start(NOW, () => {}), "unavailable");
	assert.equal((await store.stats()).sessions, 0);
	await store.close();
});

inDirectory("kill -9 leaves no lock", async (path) => {
	const { child, lines } = startChild("open", path);
	assert.equal((await lines.next()).value, "opened");
	await assertRejects(makeStore(path).start(NOW, () => {}), "unavailable");
	await kill(child);
	const store = makeStore(path);
	await store.start(NOW, () => {});
	await store.close();
});

inDirectory("kill -9 under load keeps everything whose promise had resolved", async (path) => {
	const { child, lines } = startChild("load", path);
	assert.equal((await lines.next()).value, "opened");
	const acknowledged: string[] = [];
	while (acknowledged.length < 2000) acknowledged.push(String((await lines.next()).value));
	const exited = kill(child);
	for (let line = await lines.next(); line.done !== true; line = await lines.next()) acknowledged.push(line.value);
	await exited;
	// The kill may have cut the last line.
	if (acknowledged.at(-1)?.split(" ").length !== 3) acknowledged.pop();
	const f = new Fixture({ store: makeStore(path), reopen: undefined, dispose: async () => {} });
	await f.start();
	assert.deepEqual(f.takeLogEvents().sort(), ["+$share/g/t", "+t"]);
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

inDirectory("a commit that fails rejects the whole group, and everything is as it was before it", async (path) => {
	const errors: Error[] = [];
	const { f, allowPages } = await startLimited(path, (error) => errors.push(error));
	const shared = "$share/g/t";
	const client = await f.connect("a");
	await f.store.subscribe(client.ref, [subscription("t"), subscription("u"), subscription(shared)]);
	await f.fill("t", 3);
	await f.fill(shared, 4);
	await f.publish("q", [], { reserve: { session: client.ref, packetId: 1 } });
	await f.retain("r");
	const other = await f.connect("other", { will: will("w") });
	await f.subscribe(other, "v");
	const taken = seqs(await f.store.takeShared(shared, 2));
	const before = await f.store.stats();
	f.takeLogEvents();
	// Enough for all but the last call.
	allowPages(100);
	const calls = [
		f.fill("t", 20, 4),
		f.fill(shared, 2, 5),
		f.store.takeShared(shared, 9),
		f.connect("new"),
		f.subscribe(client, "new"),
		f.store.unsubscribe(client.ref, ["u"]),
		f.store.release(client.ref, 1),
		f.publish("q", [], { reserve: { session: client.ref, packetId: 2 } }),
		f.retain("r2"),
		f.retain("r", ""),
		f.store.settleShared(shared, [1]),
		f.store.bindShared(shared, 2, client.ref),
		f.checkpoint(client, { cursors: [{ log: "t", cursor: 3, floor: 3 }], lastPacketId: 9 }),
		f.close(other),
		f.read("t", 3),
		f.connect("a", { cleanStart: true }),
		f.store.retained("#", undefined, 9, NOW),
		f.publish("t", ["v"], { message: HUGE }),
	];
	for (const [n, result] of (await Promise.allSettled(calls)).entries()) {
		assert.ok(result.status === "rejected" && result.reason instanceof StoreError, `call ${n}`);
		assert.equal(result.reason.code, "unavailable");
		assert.match(result.reason.message, /full.*Free disk space/);
	}
	assert.equal(errors.length, 1, "told once");
	assert.deepEqual(await f.store.stats(), before);
	const events = f.takeLogEvents();
	for (const log of ["new", "u", "t", shared]) {
		assert.equal(events.filter((event) => event === `+${log}`).length, events.filter((event) => event === `-${log}`).length, log);
	}

	allowPages(100_000);
	assert.deepEqual(taken, [1, 2]);
	await f.store.returnShared(shared, [1]);
	await f.store.settleShared(shared, [2]);
	assert.deepEqual(texts(await f.store.takeShared(shared, 9)), ["1", "3", "4"]);
	assert.deepEqual((await f.publish("t", ["t", "u", "new", shared])).appended, [
		{ log: "t", seq: 4 },
		{ log: "u", seq: 1 },
		{ log: shared, seq: 5 },
	]);
	assert.deepEqual(texts(await f.read("t")), ["1", "2", "3", ""]);
	assert.deepEqual(await f.retainedTopics("#"), ["r"]);
	assert.equal((await f.publish("q", [], { reserve: { session: client.ref, packetId: 1 } })).duplicate, true);
	assert.equal((await f.publish("q", [], { reserve: { session: client.ref, packetId: 2 } })).duplicate, false);
	assert.deepEqual(await f.dueWills(NOW), [], "the other connection lives");
	await f.close(other);
	assert.deepEqual(await f.dueWills(NOW), ["other"]);
	const again = await f.connect("a");
	assert.deepEqual([again.sessionPresent, again.lastPacketId, again.subscriptions.length], [true, 0, 3]);
	await f.store.close();
});

inDirectory("a statement that fails rejects its group, and what follows is stored", async (path) => {
	const errors: Error[] = [];
	const { f, allowPages } = await startLimited(path, (error) => errors.push(error));
	const client = await f.connect("a");
	await f.subscribe(client, "t");
	allowPages(2);
	const small = f.publish("t", ["t"]);
	const huge = f.publish("huge", ["t"], { message: HUGE, retain: true });
	await assertRejects(huge, "unavailable");
	await assertRejects(small, "unavailable");
	assert.deepEqual((await f.publish("t", ["t"], { message: message("t", { payload: "next" }) })).appended, [{ log: "t", seq: 1 }]);
	assert.deepEqual(texts(await f.read("t")), ["next"]);
	assert.equal((await f.store.stats()).retained, 0);
	assert.equal(errors.length, 1);
	const copy = copyAsKilled(path);
	const reopened = new Fixture({ store: makeStore(copy), reopen: undefined, dispose: async () => {} });
	await reopened.start();
	assert.deepEqual(texts(await reopened.read("t")), ["next"]);
	await reopened.store.close();
	rmSync(join(copy, ".."), { recursive: true });
	await f.store.close();
});

inDirectory("a large group is committed before the turn of the event loop ends, and still as one", async (path) => {
	const { f, allowPages } = await startLimited(path, () => {});
	await f.subscribe(await f.connect("a"), "t");
	let turnEnded = false;
	setImmediate(() => {
		turnEnded = true;
	});
	await f.fill("t", 600);
	assert.equal(turnEnded, false);
	allowPages(0);
	const first = f.publish("t", ["t"]);
	const rest = [f.fill("t", 600), f.publish("t", ["t"], { message: HUGE })];
	await assertRejects(first, "unavailable");
	for (const each of rest) await assertRejects(each, "unavailable");
	assert.equal((await f.store.stats()).logEntries, 600);
	await f.store.close();
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
	await assertRejects(store.publish({ message: message("t"), logs: [], retain: false, reserve: undefined, willId: undefined }), "unavailable");
	await store.close();
});
