/** Deliveries under way: what a session finds again of them. */

import assert from "node:assert/strict";
import type { InflightRecord } from "../../../src/store/store.ts";
import { assertMessage, contract, inflight, message, NOW, persistenceContract, type Suite, text } from "./fixture.ts";

/** A record in one line. */
function brief({ packetId, state, log, seq, message: body }: InflightRecord): string {
	return `${packetId} ${state} ${log}/${seq} ${body === undefined ? "-" : text(body)}`;
}

export function inflightContract(suite: Suite): void {
	contract(suite, "checkpoint: deliveries come back with all their fields, in their order [MQTT-4.4.0-1]", async (f) => {
		const client = await f.connect("a");
		const byValue = message("ö", { payload: "by value", qos: 2, publisher: "p", forwarded: new Uint8Array([1, 0]), expiresAtMs: NOW });
		const records = [
			inflight(65_535, { qos: 2, retain: true, subscriptionIds: [1, 268_435_455, 3], message: byValue }),
			inflight(1, { qos: 2, state: "received", log: "gone/ü", seq: 2 ** 40 + 5 }),
			inflight(300, { message: message("t", { payload: new Uint8Array(100_000).fill(9) }) }),
			inflight(2, { state: "received", log: "gone/ü", seq: 3, subscriptionIds: [0] }),
		];
		await f.checkpoint(client, { inflight: records, lastPacketId: 65_535 });
		const again = await f.connect("a");
		assert.equal(again.lastPacketId, 65_535);
		assert.equal(again.inflight.length, records.length);
		for (const [n, expected] of records.entries()) {
			const { message: found, ...rest } = again.inflight[n] as InflightRecord;
			const { message: wanted, ...fields } = expected;
			assert.deepEqual(rest, fields);
			if (wanted === undefined) assert.equal(found, undefined);
			else assertMessage(found, wanted);
		}
	});

	contract(suite, "checkpoint: each one replaces the list of the last", async (f) => {
		const client = await f.connect("a");
		await f.checkpoint(client, { inflight: [inflight(1, { state: "received" }), inflight(2, { state: "received" })] });
		await f.checkpoint(client, { inflight: [inflight(3, { state: "received" })] });
		assert.deepEqual((await f.connect("a")).inflight.map(brief), ["3 received /0 -"]);
		await f.checkpoint(await f.connect("a"), {});
		assert.deepEqual((await f.connect("a")).inflight, []);
	});

	contract(suite, "openSession: the message of a delivery is found in its log, above the floor and below the cursor", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		await f.fill("t", 700);
		await f.checkpoint(client, {
			cursors: [{ log: "t", cursor: 700, floor: 600 }],
			inflight: [
				inflight(5, { log: "t", seq: 601 }),
				inflight(6, { log: "t", seq: 700, state: "received", qos: 2 }),
				inflight(7, { log: "t", seq: 650, qos: 2 }),
			],
		});
		await f.store.due(NOW, 10);
		assert.deepEqual((await f.connect("a")).inflight.map(brief), ["5 sent t/601 601", "6 received t/700 -", "7 sent t/650 650"]);
	});

	contract(
		suite,
		"openSession: a delivery whose message is gone is left out, unless PUBREC came [MQTT-4.3.3-6]",
		async (f) => {
			const client = await f.connect("a");
			await f.subscribe(client, "t");
			await f.fill("t", 5);
			const records = [
				inflight(1, { log: "t", seq: 1 }),
				inflight(2, { log: "t", seq: 2, state: "received", qos: 2 }),
				inflight(3, { log: "nobody", seq: 1 }),
				inflight(4, { log: "t", seq: 99 }),
				inflight(5, { log: "t", seq: 5 }),
			];
			await f.checkpoint(client, { cursors: [{ log: "t", cursor: 5, floor: 0 }], inflight: records });
			assert.deepEqual((await f.connect("a")).inflight.map(brief), ["1 sent t/1 1", "2 received t/2 -", "5 sent t/5 5"]);
			await f.fill("t", 4, 6);
			assert.deepEqual((await f.connect("a")).inflight.map(brief), ["2 received t/2 -", "5 sent t/5 5"]);
		},
		{ logMaxMessages: 5 },
	);

	contract(suite, "unsubscribe: stored deliveries of the subscription keep their messages [MQTT-3.10.4-3]", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		await f.subscribe(client, "u");
		await f.fill("t", 2);
		await f.fill("u", 1);
		await f.checkpoint(client, {
			cursors: [{ log: "t", cursor: 2, floor: 0 }],
			inflight: [
				inflight(1, { log: "t", seq: 2 }),
				inflight(2, { log: "t", seq: 1, state: "received" }),
				inflight(3, { log: "u", seq: 1 }),
			],
		});
		await f.store.unsubscribe(client.ref, ["t"]);
		await f.subscribe(client, "t");
		await f.fill("t", 2, 100);
		assert.deepEqual((await f.connect("a")).inflight.map(brief), ["1 sent t/2 2", "2 received t/1 -", "3 sent u/1 1"]);
	});

	contract(suite, "checkpoint: a session without expiry takes it and keeps nothing", async (f) => {
		const client = await f.connect("a", { sessionExpirySeconds: 0 });
		await f.subscribe(client, "$share/g/t");
		await f.checkpoint(client, { inflight: [inflight(1, { state: "received" })], lastPacketId: 4 });
		await f.close(client);
		const again = await f.connect("a");
		assert.deepEqual(again.inflight, []);
		assert.equal(again.lastPacketId, 0);
	});

	persistenceContract(suite, "deliveries and the last packet id are there after a crash [MQTT-4.4.0-1]", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		await f.fill("t", 3);
		await f.checkpoint(client, {
			cursors: [{ log: "t", cursor: 3, floor: 1 }],
			inflight: [
				inflight(8, { log: "t", seq: 2, qos: 2 }),
				inflight(9, { log: "t", seq: 3, qos: 2, state: "received" }),
				inflight(10, { message: message("r", { payload: "kept" }), retain: true }),
			],
			lastPacketId: 10,
		});
		await f.restart();
		const again = await f.connect("a");
		assert.deepEqual(again.inflight.map(brief), ["8 sent t/2 2", "9 received t/3 -", "10 sent /0 kept"]);
		assert.equal(again.lastPacketId, 10);
	});
}
