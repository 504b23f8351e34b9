/** Logs: appending, numbering, order and reading. */

import assert from "node:assert/strict";
import { assertMessage, contract, message, NOW, numbers, persistenceContract, type Suite, seqs, subscription, texts } from "./fixture.ts";

export function logContract(suite: Suite): void {
	contract(suite, "publish: entries of each log are numbered densely from 1", async (f) => {
		const client = await f.connect("a");
		await f.store.subscribe(client.ref, [subscription("t"), subscription("u")]);
		assert.deepEqual((await f.publish("t", ["t"])).appended, [{ log: "t", seq: 1 }]);
		assert.deepEqual((await f.publish("t", ["t", "u"])).appended, [
			{ log: "t", seq: 2 },
			{ log: "u", seq: 1 },
		]);
		assert.deepEqual((await f.publish("t", ["u"])).appended, [{ log: "u", seq: 2 }]);
		assert.deepEqual(seqs(await f.read("t")), [1, 2]);
	});

	contract(suite, "publish: a log that does not exist is skipped", async (f) => {
		await f.subscribe(await f.connect("a"), "t");
		assert.deepEqual(await f.publish("t", ["nobody", "t"]), { appended: [{ log: "t", seq: 1 }], duplicate: false });
		assert.deepEqual(await f.publish("t", ["nobody"]), { appended: [], duplicate: false });
		assert.deepEqual(await f.read("nobody"), []);
	});

	contract(suite, "publish: the message is read as it was written", async (f) => {
		await f.subscribe(await f.connect("a"), "t");
		const messages = [
			message("ä/𝄞//", {
				payload: new Uint8Array([0, 255, 128, 1]),
				qos: 2,
				retain: true,
				forwarded: new Uint8Array([1, 1, 38, 0, 1, 97, 0, 0]),
				expiresAtMs: NOW + 0.5,
				publisher: "gerät-𝄞",
			}),
			message("t", { qos: 0 }),
			message("t", { payload: new Uint8Array(300_000).fill(7), publisher: "x" }),
			message(`long/${"t".repeat(65_000)}`, { payload: "y", forwarded: new Uint8Array(70_000).fill(1) }),
		];
		await Promise.all(messages.map((each) => f.publish("t", ["t"], { message: each })));
		const entries = await f.read("t");
		assert.equal(entries.length, messages.length);
		for (const [n, each] of messages.entries()) assertMessage(entries[n]?.message, each);
	});

	contract(suite, "publish: what the caller does to the payload's buffer afterwards changes nothing", async (f) => {
		await f.subscribe(await f.connect("a"), "t");
		const payload = new TextEncoder().encode("before");
		await f.publish("t", ["t"], { message: message("t", { payload }) });
		payload.fill(0);
		assert.deepEqual(texts(await f.read("t")), ["before"]);
	});

	contract(suite, "publish: calls without waiting are numbered in the order of the calls", async (f) => {
		await f.subscribe(await f.connect("a"), "t");
		const results = await Promise.all(numbers(1, 2000).map((n) => f.publish("t", ["t"], { message: message("t", { payload: `${n}` }) })));
		assert.deepEqual(
			results.map(({ appended }) => appended[0]?.seq),
			numbers(1, 2000),
		);
		assert.deepEqual(texts(await f.read("t", 0, 5000)), numbers(1, 2000).map(String));
	});

	contract(suite, "promises of calls that change something settle in the order of the calls", async (f) => {
		const client = await f.connect("a");
		await f.store.subscribe(client.ref, [subscription("t"), subscription("$share/g/t")]);
		const settled: number[] = [];
		const calls = [
			() => f.publish("t", ["t"]),
			() => f.checkpoint(client, {}),
			() => f.checkpoint(client, { lastPacketId: 1 }),
			() => f.publish("t", ["t"]),
			() => f.store.subscribe(client.ref, [subscription("u")]),
			() => f.store.unsubscribe(client.ref, ["u"]),
			() => f.store.settleShared("$share/g/t", [1]),
			() => f.publish("t", ["$share/g/t"], { reserve: { session: client.ref, packetId: 1 } }),
			() => f.store.release(client.ref, 1),
			() => f.retain("r"),
		];
		await Promise.all(calls.map((call, n) => call().then(() => settled.push(n))));
		assert.deepEqual(settled, numbers(0, calls.length - 1));
	});

	contract(suite, "read: sees what was published before it, and resolves not before that is stored", async (f) => {
		await f.subscribe(await f.connect("a"), "t");
		const events: string[] = [];
		const published = f.publish("t", ["t"], { message: message("t", { payload: "1" }) }).then(() => events.push("published"));
		const entries = await f.read("t").then((read) => {
			events.push("read");
			return read;
		});
		await published;
		assert.deepEqual(texts(entries), ["1"]);
		assert.deepEqual(events, ["published", "read"]);
	});

	contract(suite, "read: begins behind the position and stops at the limit", async (f) => {
		await f.subscribe(await f.connect("a"), "t");
		await f.fill("t", 600);
		await f.fill("t", 10, 601);
		assert.deepEqual(seqs(await f.read("t", 0, 5)), [1, 2, 3, 4, 5]);
		assert.deepEqual(seqs(await f.read("t", 300, 3)), [301, 302, 303]);
		assert.deepEqual(seqs(await f.read("t", 598)), numbers(599, 610));
		assert.deepEqual(texts(await f.read("t", 598)), numbers(599, 610).map(String));
		assert.deepEqual(await f.read("t", 610), []);
		assert.deepEqual(await f.read("t", 9999), []);
		assert.deepEqual(await f.store.read([], 10), []);
	});

	contract(suite, "read: entries of several logs come in the order in which they were published", async (f) => {
		const client = await f.connect("a");
		const logs = ["x", "y", "z"];
		await f.store.subscribe(
			client.ref,
			logs.map((log) => subscription(log)),
		);
		for (let n = 1; n <= 300; n++) {
			const published = f.publish("t", [logs[(n * n) % 3] as string], { message: message("t", { payload: `${n}` }) });
			if (n % 7 === 0) await published;
		}
		const positions = logs.map((log) => ({ log, after: 0 }));
		assert.deepEqual(texts(await f.store.read(positions, 1000)), numbers(1, 300).map(String));
		assert.deepEqual(texts(await f.store.read(positions, 40)), numbers(1, 40).map(String));
		const ids = (await f.store.read(positions, 1000)).map(({ id }) => id);
		assert.deepEqual(
			ids,
			[...ids].sort((a, b) => a - b),
		);
		assert.equal(new Set(ids).size, 300);
	});

	contract(suite, "read: copies of one message in several logs have one id, and no other message has it", async (f) => {
		const client = await f.connect("a");
		await f.store.subscribe(client.ref, [subscription("x"), subscription("y")]);
		await Promise.all([f.publish("t", ["x", "y"]), f.publish("t", ["y"]), f.publish("t", ["y", "x"])]);
		const entries = await f.store.read(
			[
				{ log: "x", after: 0 },
				{ log: "y", after: 0 },
			],
			10,
		);
		const ids = entries.map(({ id }) => id);
		assert.deepEqual(entries.map(({ log, seq }) => `${log}${seq}`).sort(), ["x1", "x2", "y1", "y2", "y3"]);
		assert.equal(ids[0], ids[1]);
		assert.equal(ids[3], ids[4]);
		assert.equal(new Set(ids).size, 3);
	});

	contract(suite, "publish: a reserved packet id makes a repetition change nothing [MQTT-4.3.3-10]", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		const reserve = { session: client.ref, packetId: 7 };
		const kept = { message: message("t", { payload: "1" }), retain: true, reserve };
		const { appended, duplicate } = await f.publish("t", ["t"], kept);
		assert.deepEqual({ appended, duplicate }, { appended: [{ log: "t", seq: 1 }], duplicate: false });
		const repeated = { message: message("t", { payload: "2" }), retain: true, reserve };
		assert.deepEqual(await f.publish("t", ["t"], repeated), { appended: [], duplicate: true });
		assert.deepEqual(texts(await f.read("t")), ["1"]);
		assert.equal((await f.store.retained("#", undefined, 10, NOW)).messages[0]?.payload[0], "1".charCodeAt(0));
	});

	for (const sessionExpirySeconds of [0, 3600]) {
		const kind = sessionExpirySeconds === 0 ? "without expiry" : "with an expiry";

		contract(suite, `release: a session ${kind} can use the packet id again`, async (f) => {
			const client = await f.connect("a", { sessionExpirySeconds });
			const reserve = { session: client.ref, packetId: 7 };
			const results = [f.publish("t", [], { reserve }), f.publish("t", [], { reserve })];
			const other = f.publish("t", [], { reserve: { session: client.ref, packetId: 8 } });
			assert.deepEqual(
				(await Promise.all([...results, other])).map(({ duplicate }) => duplicate),
				[false, true, false],
			);
			await f.store.release(client.ref, 7);
			await f.store.release(client.ref, 9999);
			assert.equal((await f.publish("t", [], { reserve })).duplicate, false);
		});
	}

	contract(suite, "openSession: reserved packet ids are those of the resumed session", async (f) => {
		const client = await f.connect("a");
		const other = await f.connect("b");
		for (const packetId of [3, 1, 2]) await f.publish("t", [], { reserve: { session: client.ref, packetId } });
		await f.publish("t", [], { reserve: { session: other.ref, packetId: 9 } });
		await f.store.release(client.ref, 1);
		const again = await f.connect("a");
		assert.deepEqual([...again.reservedIds].sort(), [2, 3]);
		assert.equal((await f.publish("t", [], { reserve: { session: again.ref, packetId: 3 } })).duplicate, true);
		assert.equal((await f.publish("t", [], { reserve: { session: again.ref, packetId: 1 } })).duplicate, false);
	});

	persistenceContract(suite, "reserved packet ids and released ones survive a crash [MQTT-4.3.3-10]", async (f) => {
		const client = await f.connect("a");
		for (const packetId of [1, 2]) await f.publish("t", [], { reserve: { session: client.ref, packetId } });
		await f.store.release(client.ref, 1);
		await f.restart();
		const again = await f.connect("a");
		assert.deepEqual(again.reservedIds, [2]);
		assert.equal((await f.publish("t", [], { reserve: { session: again.ref, packetId: 2 } })).duplicate, true);
	});

	persistenceContract(suite, "what was published is read after a crash, and ids go on growing", async (f) => {
		await f.subscribe(await f.connect("a"), "t");
		await f.fill("t", 700);
		const before = (await f.read("t")).at(-1)?.id ?? Number.POSITIVE_INFINITY;
		await f.restart();
		assert.deepEqual(texts(await f.read("t")), numbers(1, 700).map(String));
		await f.fill("t", 1);
		const entry = (await f.read("t", 700))[0];
		assert.equal(entry?.seq, 701);
		assert.ok((entry?.id ?? 0) > before, `${entry?.id} after ${before}`);
	});
}
