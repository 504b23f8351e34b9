/** The embedded store when its file cannot grow: who is told, and that everything is as it was before the failed group. */

import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers";
import { StoreError } from "../../src/store/store.ts";
import { assertRejects, message, NOW, seqs, subscription, texts, will } from "../contracts/store/fixture.ts";
import { copyAsKilled, fixtureOn, HUGE, inDirectory, LIMITS, makeStore, startLimited } from "./embedded_support.ts";

const SHARED = "$share/g/t";

inDirectory("a commit that fails rejects the whole group, and everything is as it was before it", async (path) => {
	const errors: Error[] = [];
	const { f, allowPages } = await startLimited(path, (error) => errors.push(error));
	const client = await f.connect("a");
	await f.store.subscribe(client.ref, [subscription("t"), subscription("u"), subscription(SHARED)]);
	await f.fill("t", 3);
	await f.fill(SHARED, 4);
	await f.publish("q", [], { reserve: { session: client.ref, packetId: 1 } });
	await f.retain("r");
	const other = await f.connect("other", { will: will("w") });
	await f.subscribe(other, "v");
	await f.subscribe(await f.connect("cleaned"), "c");
	const volatile = await f.connect("volatile", { sessionExpirySeconds: 0 });
	const taken = seqs(await f.store.takeShared(SHARED, 2));
	const before = await f.store.stats();
	f.takeLogEvents();
	let forwarded = 0;
	const forward = async () => void forwarded++;
	// Enough for all but the last call.
	allowPages(100);
	const calls = [
		f.fill("t", 20, 4),
		f.fill(SHARED, 2, 5),
		f.store.takeShared(SHARED, 9),
		f.connect("new"),
		f.subscribe(client, "new"),
		f.subscribe(other, "t"),
		f.subscribe(volatile, "$share/g/v"),
		f.store.unsubscribe(client.ref, ["u"]),
		f.store.release(client.ref, 1),
		f.publish("q", [], { reserve: { session: client.ref, packetId: 2 } }),
		f.retain("r2"),
		f.retain("r", ""),
		f.store.settleShared(SHARED, [1]),
		f.store.bindShared(SHARED, 2, client.ref),
		f.checkpoint(client, { cursors: [{ log: "t", cursor: 3, floor: 3 }], lastPacketId: 9 }),
		f.close(other),
		f.read("t", 3),
		f.connect("cleaned", { cleanStart: true }),
		f.store.retained("#", undefined, 9, NOW),
		f.publish("t", ["t"], { name: "n", forward }),
		f.publish("t", ["t"], { forward }),
		f.publish("t", ["v"], { message: HUGE }),
	];
	for (const [n, result] of (await Promise.allSettled(calls)).entries()) {
		assert.ok(result.status === "rejected" && result.reason instanceof StoreError, `call ${n}`);
		assert.equal(result.reason.code, "unavailable");
		assert.match(result.reason.message, /full.*Free disk space/);
	}
	assert.equal(errors.length, 1, "told once");
	assert.equal(forwarded, 0);
	assert.deepEqual(await f.store.stats(), before);
	assert.deepEqual(f.takeLogEvents(), ["+$share/g/v", "-$share/g/v"]);
	assert.deepEqual(
		["new", "u", "t", "c"].map((topic) => f.store.hasLog(topic)),
		[false, true, true, true],
	);

	allowPages(100_000);
	assert.deepEqual(taken, [1, 2]);
	assert.deepEqual((await f.publish("t", ["t", "u", "new", SHARED])).appended, [
		{ log: "t", seq: 4 },
		{ log: "u", seq: 1 },
		{ log: SHARED, seq: 5 },
	]);
	await f.store.returnShared(SHARED, [1, 2, 5]);
	assert.deepEqual(texts(await f.store.takeShared(SHARED, 9)), ["1", "2", "3", "4", ""]);
	assert.deepEqual(texts(await f.read("t")), ["1", "2", "3", ""]);
	assert.deepEqual(await f.retainedTopics("#"), ["r"]);
	assert.equal((await f.publish("q", [], { reserve: { session: client.ref, packetId: 1 } })).duplicate, true);
	assert.equal((await f.publish("q", [], { reserve: { session: client.ref, packetId: 2 } })).duplicate, false);
	assert.deepEqual(await f.dueWills(NOW), [], "the other connection lives");
	await f.close(other);
	assert.deepEqual(await f.dueWills(NOW), ["other"]);
	assert.equal((await f.connect("cleaned")).subscriptions.length, 1);
	const again = await f.connect("a");
	assert.deepEqual([again.sessionPresent, again.lastPacketId, again.subscriptions.length], [true, 0, 3]);
	await f.store.unsubscribe(again.ref, ["t"]);
	assert.equal(f.store.hasLog("t"), false, "nobody else had subscribed");
	await f.subscribe(volatile, "$share/g/v");
	const copy = copyAsKilled(path);
	const reopened = fixtureOn(makeStore(copy));
	await reopened.start();
	assert.deepEqual(reopened.takeLogEvents(), [`+${SHARED}`]);
	for (const topic of ["c", "u", "v"]) assert.ok(reopened.store.hasLog(topic), topic);
	await reopened.store.close();
	rmSync(join(copy, ".."), { recursive: true });
	await f.store.close();
});

inDirectory("a statement that fails rejects its group, and what follows is stored", async (path) => {
	const errors: Error[] = [];
	const { f, allowPages } = await startLimited(path, (error) => errors.push(error));
	await f.subscribe(await f.connect("a"), "t");
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
	const reopened = fixtureOn(makeStore(copy));
	await reopened.start();
	assert.deepEqual(texts(await reopened.read("t")), ["next"]);
	await reopened.store.close();
	rmSync(join(copy, ".."), { recursive: true });
	await f.store.close();
});

inDirectory("a log that a failed group had emptied is numbered on after a crash", async (path) => {
	const { f, allowPages } = await startLimited(path, () => {});
	const client = await f.connect("a");
	await f.store.subscribe(client.ref, [subscription("t"), subscription("v")]);
	await f.fill("t", 1);
	await f.checkpoint(client, { cursors: [{ log: "t", cursor: 1, floor: 1 }] });
	await f.fill("t", 2);
	await f.checkpoint(client, { cursors: [{ log: "t", cursor: 3, floor: 3 }] });
	const { logEntries } = await f.store.stats();
	allowPages(100);
	const emptied = f.store.due(NOW, 10);
	const huge = f.publish("t", ["v"], { message: HUGE });
	await assertRejects(huge, "unavailable");
	await assertRejects(emptied, "unavailable");
	assert.equal((await f.store.stats()).logEntries, logEntries);
	await f.store.due(NOW, 10);
	assert.equal((await f.store.stats()).logEntries, 0);
	const copy = copyAsKilled(path);
	const reopened = fixtureOn(makeStore(copy));
	await reopened.start();
	assert.deepEqual((await reopened.publish("t", ["t"])).appended, [{ log: "t", seq: 4 }]);
	await reopened.store.close();
	rmSync(join(copy, ".."), { recursive: true });
	await f.store.close();
});

inDirectory("the length limit counts nothing of a failed group", async (path) => {
	const { f, allowPages } = await startLimited(path, () => {}, { ...LIMITS, logMaxMessages: 5 });
	const client = await f.connect("a");
	for (const log of ["t", SHARED, "v"]) await f.subscribe(client, log);
	for (const log of ["t", SHARED]) await f.fill(log, 4);
	allowPages(100);
	const calls = [f.fill("t", 4, 5), f.fill(SHARED, 4, 5), f.publish("t", ["v"], { message: HUGE })];
	for (const call of calls) await assertRejects(call, "unavailable");
	for (const log of ["t", SHARED]) await f.fill(log, 1, 5);
	assert.deepEqual(texts(await f.read("t")), ["1", "2", "3", "4", "5"]);
	assert.deepEqual(texts(await f.store.takeShared(SHARED, 9)), ["1", "2", "3", "4", "5"]);
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
