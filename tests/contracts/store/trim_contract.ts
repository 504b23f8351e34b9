/** Trimming: what may go, what must stay, and how a reader sees what went. `due` is called where a store may be lazy. */

import assert from "node:assert/strict";
import { contract, NOW, numbers, persistenceContract, type Suite, seqs, subscription, texts } from "./fixture.ts";

export function trimContract(suite: Suite): void {
	contract(suite, "checkpoint: what every subscriber has behind it goes, what one has not stays", async (f) => {
		const fast = await f.connect("fast");
		const slow = await f.connect("slow");
		await f.subscribe(fast, "t");
		await f.subscribe(slow, "t");
		await f.fill("t", 1000);
		await f.checkpoint(fast, { cursors: [{ log: "t", cursor: 1000, floor: 1000 }] });
		await f.checkpoint(slow, { cursors: [{ log: "t", cursor: 900, floor: 400 }] });
		await f.store.due(NOW, 10);
		assert.equal((await f.store.stats()).logEntries, 600);
		assert.deepEqual(seqs(await f.read("t", 400)), numbers(401, 1000));
		await f.checkpoint(slow, { cursors: [{ log: "t", cursor: 1000, floor: 1000 }] });
		await f.store.due(NOW, 10);
		assert.equal((await f.store.stats()).logEntries, 0);
	});

	contract(suite, "checkpoint: an offline session holds its entries", async (f) => {
		const online = await f.connect("online");
		const offline = await f.connect("offline");
		await f.subscribe(online, "t");
		await f.subscribe(offline, "t");
		await f.close(offline);
		await f.fill("t", 300);
		await f.checkpoint(online, { cursors: [{ log: "t", cursor: 300, floor: 300 }] });
		await f.store.due(NOW, 10);
		const again = await f.connect("offline");
		assert.deepEqual(texts(await f.read("t", again.subscriptions[0]?.cursor)), numbers(1, 300).map(String));
	});

	contract(suite, "unsubscribe: the entries that only this session held go", async (f) => {
		const a = await f.connect("a");
		const b = await f.connect("b");
		await f.subscribe(a, "t");
		await f.subscribe(b, "t");
		await f.fill("t", 300);
		await f.checkpoint(a, { cursors: [{ log: "t", cursor: 300, floor: 300 }] });
		await f.store.due(NOW, 10);
		assert.equal((await f.store.stats()).logEntries, 300);
		await f.store.unsubscribe(b.ref, ["t"]);
		await f.store.due(NOW, 10);
		assert.equal((await f.store.stats()).logEntries, 0);
	});

	contract(suite, "checkpoint: a log that nobody reads from again stays short while it is written", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		for (let round = 1; round <= 50; round++) {
			await f.fill("t", 100);
			await f.checkpoint(client, { cursors: [{ log: "t", cursor: round * 100, floor: round * 100 }] });
		}
		const { logEntries } = await f.store.stats();
		assert.ok(logEntries < 1000, `${logEntries} of 5000 are left without a call to due`);
	});

	contract(suite, "checkpoint: numbering goes on after the log has become empty", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		await f.fill("t", 3);
		await f.checkpoint(client, { cursors: [{ log: "t", cursor: 3, floor: 3 }] });
		await f.store.due(NOW, 10);
		assert.deepEqual((await f.publish("t", ["t"])).appended, [{ log: "t", seq: 4 }]);
		assert.deepEqual(seqs(await f.read("t", 3)), [4]);
	});

	contract(suite, "checkpoint: cursors of logs that the session does not read are ignored", async (f) => {
		const a = await f.connect("a");
		const b = await f.connect("b");
		await f.subscribe(a, "t");
		await f.fill("t", 3);
		await f.checkpoint(b, {
			cursors: [
				{ log: "t", cursor: 3, floor: 3 },
				{ log: "nobody", cursor: 1, floor: 1 },
			],
		});
		await f.store.due(NOW, 10);
		assert.deepEqual(seqs(await f.read("t")), [1, 2, 3]);
	});

	contract(
		suite,
		"publish: beyond logMaxMessages the oldest go, and a reader sees the jump",
		async (f) => {
			await f.subscribe(await f.connect("a"), "t");
			await f.fill("t", 5);
			assert.deepEqual(seqs(await f.read("t")), [1, 2, 3, 4, 5]);
			await f.fill("t", 3, 6);
			assert.deepEqual(seqs(await f.read("t")), [4, 5, 6, 7, 8]);
			assert.deepEqual(texts(await f.read("t", 2, 2)), ["4", "5"]);
			await f.fill("t", 2000, 9);
			await f.store.due(NOW, 10);
			assert.deepEqual(seqs(await f.read("t")), numbers(2004, 2008));
			assert.equal((await f.store.stats()).logEntries, 5);
		},
		{ logMaxMessages: 5 },
	);

	contract(suite, "publish: a large log is removed with its last subscription, and a new one has nothing of it", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		for (let round = 0; round < 5; round++) await f.fill("t", 2000);
		await f.store.unsubscribe(client.ref, ["t"]);
		assert.deepEqual(await f.subscribe(client, "t"), { existed: false, cursor: 0 });
		for (let round = 0; round < 10; round++) await f.store.due(NOW, 10);
		await f.fill("t", 2);
		assert.deepEqual(texts(await f.read("t")), ["1", "2"]);
		assert.equal((await f.store.stats()).logEntries, 2);
	});

	persistenceContract(suite, "numbering goes on after a crash with an empty log", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		await f.fill("t", 3);
		await f.checkpoint(client, { cursors: [{ log: "t", cursor: 3, floor: 3 }] });
		await f.store.due(NOW, 10);
		await f.restart();
		assert.equal((await f.store.stats()).logEntries, 0);
		const late = await f.connect("late");
		assert.deepEqual(await f.subscribe(late, "t"), { existed: false, cursor: 3 });
		assert.deepEqual((await f.publish("t", ["t"])).appended, [{ log: "t", seq: 4 }]);
	});

	persistenceContract(
		suite,
		"what was dropped stays dropped after a crash",
		async (f) => {
			await f.subscribe(await f.connect("a"), "t");
			await f.fill("t", 8);
			await f.restart();
			assert.deepEqual(seqs(await f.read("t")), [4, 5, 6, 7, 8]);
			assert.equal((await f.store.stats()).logEntries, 5);
		},
		{ logMaxMessages: 5 },
	);

	persistenceContract(suite, "a crash after trimming loses nothing that a session has not behind it", async (f) => {
		const a = await f.connect("a");
		const b = await f.connect("b");
		await f.store.subscribe(a.ref, [subscription("t"), subscription("u")]);
		await f.subscribe(b, "t");
		await f.fill("t", 500);
		await f.fill("u", 10);
		await f.checkpoint(a, { cursors: [{ log: "t", cursor: 500, floor: 500 }] });
		await f.checkpoint(b, { cursors: [{ log: "t", cursor: 350, floor: 333 }] });
		await f.store.due(NOW, 10);
		await f.restart();
		assert.deepEqual(seqs(await f.read("t", 333)), numbers(334, 500));
		assert.deepEqual(seqs(await f.read("u")), numbers(1, 10));
		await f.store.due(NOW, 10);
		assert.deepEqual(seqs(await f.read("t", 333)), numbers(334, 500));
	});
}
