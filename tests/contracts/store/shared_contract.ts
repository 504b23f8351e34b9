/** Share groups: each entry to one taker, and what becomes of it. */

import assert from "node:assert/strict";
import {
	type Client,
	contract,
	type Fixture,
	inflight,
	message,
	NOW,
	numbers,
	persistenceContract,
	type Suite,
	seqs,
	text,
	texts,
} from "./fixture.ts";

const LOG = "$share/g/t";

async function group(f: Fixture, entries: number, clientId = "member"): Promise<Client> {
	const member = await f.connect(clientId);
	await f.subscribe(member, LOG);
	await f.fill(LOG, entries);
	return member;
}

async function take(f: Fixture, limit = 1000): Promise<number[]> {
	return seqs(await f.store.takeShared(LOG, limit));
}

export function sharedContract(suite: Suite): void {
	contract(suite, "takeShared: gives each entry once, in order", async (f) => {
		await group(f, 5);
		const first = await f.store.takeShared(LOG, 2);
		assert.deepEqual(texts(first), ["1", "2"]);
		assert.deepEqual([first[0]?.log, first[0]?.seq], [LOG, 1]);
		assert.deepEqual(await take(f), [3, 4, 5]);
		assert.deepEqual(await take(f), []);
		await f.fill(LOG, 1, 6);
		assert.deepEqual(texts(await f.store.takeShared(LOG, 9)), ["6"]);
		assert.deepEqual(await f.store.takeShared("$share/nobody/t", 9), []);
	});

	contract(suite, "takeShared: calls without waiting share nothing", async (f) => {
		await group(f, 6);
		const taken = await Promise.all([take(f, 2), take(f, 2), take(f, 2), take(f, 2)]);
		assert.deepEqual(taken, [[1, 2], [3, 4], [5, 6], []]);
	});

	contract(suite, "takeShared: gets what was published before it, and resolves not before that is stored", async (f) => {
		await group(f, 0);
		const events: string[] = [];
		const published = f.publish("t", [LOG]).then(() => events.push("published"));
		const taken = await take(f).finally(() => events.push("taken"));
		await published;
		assert.deepEqual(taken, [1]);
		assert.deepEqual(events, ["published", "taken"]);
	});

	contract(suite, "returnShared: entries given back come first, in their order", async (f) => {
		await group(f, 6);
		await take(f, 4);
		await f.store.returnShared(LOG, [4, 2]);
		assert.deepEqual(await take(f, 3), [2, 4, 5]);
		assert.deepEqual(texts(await f.store.takeShared(LOG, 9)), ["6"]);
	});

	contract(suite, "returnShared: has no effect on what is not taken", async (f) => {
		await group(f, 3);
		await take(f, 2);
		await f.store.settleShared(LOG, [1]);
		await f.store.returnShared(LOG, [1, 2, 2, 3, 99]);
		assert.deepEqual(await take(f), [2, 3]);
	});

	contract(suite, "settleShared: removes the entries, whichever way they came", async (f) => {
		await group(f, 5);
		await take(f, 4);
		await f.store.settleShared(LOG, [1, 3]);
		assert.equal((await f.store.stats()).logEntries, 3);
		await f.store.returnShared(LOG, [2]);
		assert.deepEqual(await take(f), [2, 5]);
		await f.store.settleShared(LOG, [2, 4, 5, 5]);
		assert.equal((await f.store.stats()).logEntries, 0);
		assert.deepEqual(await take(f), []);
		assert.deepEqual((await f.publish("t", [LOG])).appended, [{ log: LOG, seq: 6 }]);
	});

	contract(suite, "share groups: two groups on one filter get every message each", async (f) => {
		const member = await group(f, 0);
		await f.subscribe(member, "$share/h/t");
		await f.subscribe(member, "t");
		await f.publish("t", [LOG, "$share/h/t", "t"], { message: message("t", { payload: "x" }) });
		assert.deepEqual(texts(await f.store.takeShared(LOG, 9)), ["x"]);
		await f.store.settleShared(LOG, [1]);
		assert.deepEqual(texts(await f.store.takeShared("$share/h/t", 9)), ["x"]);
		assert.deepEqual(texts(await f.read("t")), ["x"]);
	});

	contract(suite, "share groups: the log stays while there is a member, and what was taken can still be returned", async (f) => {
		const a = await group(f, 2, "a");
		await group(f, 0, "b");
		await take(f);
		await f.store.unsubscribe(a.ref, [LOG]);
		await f.store.returnShared(LOG, [1, 2]);
		assert.deepEqual(await take(f), [1, 2]);
		f.takeLogEvents();
		await f.connect("b", { cleanStart: true });
		assert.deepEqual(f.takeLogEvents(), [`-${LOG}`]);
		assert.deepEqual(await take(f), []);
		await f.store.returnShared(LOG, [1]);
		await f.store.settleShared(LOG, [1]);
	});

	contract(suite, "share groups: entries are not trimmed before they are settled", async (f) => {
		const member = await group(f, 700);
		await take(f, 2);
		await f.store.bindShared(LOG, 1, member.ref);
		await f.checkpoint(member, { cursors: [{ log: LOG, cursor: 700, floor: 700 }] });
		await f.store.due(NOW, 10);
		assert.equal((await f.store.stats()).logEntries, 700);
		await f.store.returnShared(LOG, [2]);
		assert.deepEqual(await take(f), numbers(2, 700));
	});

	contract(
		suite,
		"share groups: beyond logMaxMessages the oldest go, taken or not",
		async (f) => {
			const member = await group(f, 4);
			await take(f, 3);
			await f.store.bindShared(LOG, 1, member.ref);
			await f.fill(LOG, 4, 5);
			assert.equal((await f.store.stats()).logEntries, 5);
			await f.store.returnShared(LOG, [2, 3]);
			await f.store.settleShared(LOG, [1]);
			assert.deepEqual(texts(await f.store.takeShared(LOG, 9)), ["4", "5", "6", "7", "8"]);
		},
		{ logMaxMessages: 5 },
	);

	contract(suite, "bindShared: a bound entry goes to nobody else while its session lasts [MQTT-4.8.2-4]", async (f) => {
		const member = await group(f, 3);
		await group(f, 0, "other");
		await take(f, 2);
		await f.store.bindShared(LOG, 1, member.ref);
		await f.store.returnShared(LOG, [1, 2]);
		assert.deepEqual(await take(f), [2, 3]);
		await f.close(member);
		const again = await f.connect("member");
		assert.deepEqual(await take(f), []);
		await f.store.settleShared(LOG, [1, 2, 3]);
		assert.equal((await f.store.stats()).logEntries, 0);
		await f.close(again);
	});

	contract(suite, "bindShared: the entry is dropped when its session ends [MQTT-4.8.2-5]", async (f) => {
		await group(f, 3, "other");
		for (const [n, sessionExpirySeconds] of [3600, 0].entries()) {
			const member = await f.connect("member", { sessionExpirySeconds });
			await f.subscribe(member, LOG);
			assert.deepEqual(await take(f, 1), [n + 1]);
			await f.store.bindShared(LOG, n + 1, member.ref);
			await f.close(member, { sessionExpirySeconds: 0 });
		}
		assert.equal((await f.store.stats()).logEntries, 1);
		await f.store.returnShared(LOG, [1, 2]);
		assert.deepEqual(await take(f), [3]);
	});

	contract(suite, "bindShared: the delivery of a resumed session finds its message", async (f) => {
		const member = await group(f, 2);
		await take(f);
		const bound = f.store.bindShared(LOG, 2, member.ref);
		await f.checkpoint(member, { inflight: [inflight(4, { qos: 2, log: LOG, seq: 2 })] });
		await bound;
		const [record] = (await f.connect("member")).inflight;
		assert.equal(record?.message === undefined ? "" : text(record.message), "2");
	});

	persistenceContract(suite, "a crash makes taken and returned entries available again, in order", async (f) => {
		await group(f, 600);
		await take(f, 300);
		await f.store.returnShared(LOG, [7]);
		await f.store.settleShared(LOG, [1, 2, 5]);
		await f.restart();
		assert.deepEqual(await take(f), [3, 4, ...numbers(6, 600)]);
	});

	persistenceContract(suite, "a crash leaves bound entries with their session [MQTT-4.8.2-4]", async (f) => {
		const member = await group(f, 4);
		await take(f);
		await f.store.bindShared(LOG, 2, member.ref);
		await f.checkpoint(member, { inflight: [inflight(4, { qos: 2, log: LOG, seq: 2 })] });
		await f.restart();
		assert.deepEqual(await take(f), [1, 3, 4]);
		const again = await f.connect("member");
		assert.deepEqual(
			again.inflight.map((record) => record.message && text(record.message)),
			["2"],
		);
		await f.store.settleShared(LOG, [2]);
		assert.equal((await f.store.stats()).logEntries, 3);
		await f.restart();
		assert.deepEqual(await take(f), [1, 3, 4]);
	});

	persistenceContract(suite, "a bound entry is dropped when its session ends after a crash [MQTT-4.8.2-5]", async (f) => {
		const member = await group(f, 3);
		await group(f, 0, "other");
		await take(f);
		await f.store.bindShared(LOG, 1, member.ref);
		await f.restart();
		await f.connect("member", { cleanStart: true });
		await f.restart();
		assert.deepEqual(await take(f), [2, 3]);
	});

	persistenceContract(suite, "numbering goes on after a crash when all entries were settled", async (f) => {
		await group(f, 3);
		await f.store.settleShared(LOG, await take(f));
		await f.restart();
		assert.deepEqual((await f.publish("t", [LOG])).appended, [{ log: LOG, seq: 4 }]);
		assert.deepEqual(await take(f), [4]);
	});
}
