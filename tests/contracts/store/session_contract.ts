/** Sessions: opening, closing, takeover, fencing and expiry. */

import assert from "node:assert/strict";
import { NEVER_EXPIRES } from "../../../src/store/store.ts";
import { assertRejects, contract, message, NOW, numbers, persistenceContract, type Suite, seqs, subscription, will } from "./fixture.ts";

export function sessionContract(suite: Suite): void {
	contract(suite, "openSession: a client id that was never seen has no session [MQTT-3.1.2-6]", async (f) => {
		const client = await f.connect("a");
		const { sessionPresent, subscriptions, inflight, reservedIds, lastPacketId } = client;
		assert.deepEqual(
			{ sessionPresent, subscriptions, inflight, reservedIds, lastPacketId },
			{ sessionPresent: false, subscriptions: [], inflight: [], reservedIds: [], lastPacketId: 0 },
		);
	});

	contract(suite, "openSession: a closed session with an expiry is resumed [MQTT-3.1.2-5]", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		await f.close(client);
		const again = await f.connect("a", { nowMs: NOW + 3_599_999 });
		assert.equal(again.sessionPresent, true);
		assert.deepEqual(
			again.subscriptions.map(({ filter }) => filter),
			["t"],
		);
	});

	contract(suite, "openSession: Clean Start ends everything of the old session [MQTT-3.1.2-4]", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t/#");
		await f.publish("q", ["t/#"], { reserve: { session: client.ref, packetId: 5 } });
		await f.checkpoint(client, { lastPacketId: 9 });
		await f.close(client);
		const again = await f.connect("a", { cleanStart: true });
		const { sessionPresent, subscriptions, reservedIds, lastPacketId } = again;
		assert.deepEqual(
			{ sessionPresent, subscriptions, reservedIds, lastPacketId },
			{ sessionPresent: false, subscriptions: [], reservedIds: [], lastPacketId: 0 },
		);
		assert.deepEqual(f.takeLogEvents(), ["+t/#", "-t/#"]);
		await f.close(again);
		assert.equal((await f.connect("a")).sessionPresent, true, "the new session is one of its own");
	});

	contract(suite, "openSession: a session without expiry ends with its connection [MQTT-3.1.2-23]", async (f) => {
		await f.close(await f.connect("a", { sessionExpirySeconds: 0 }));
		assert.equal((await f.connect("a")).sessionPresent, false);
	});

	contract(suite, "openSession: takeover resumes a live session that has an expiry", async (f) => {
		const old = await f.connect("a");
		await f.subscribe(old, "t");
		await f.checkpoint(old, { lastPacketId: 3 });
		const again = await f.connect("a");
		assert.equal(again.sessionPresent, true);
		assert.equal(again.subscriptions.length, 1);
		assert.equal(again.lastPacketId, 3);
	});

	contract(suite, "openSession: takeover of a live session without expiry finds none", async (f) => {
		const old = await f.connect("a", { sessionExpirySeconds: 0 });
		await f.subscribe(old, "$share/g/t");
		const again = await f.connect("a", { sessionExpirySeconds: 0 });
		assert.equal(again.sessionPresent, false);
		assert.deepEqual(again.subscriptions, []);
		assert.deepEqual(f.takeLogEvents(), ["+$share/g/t", "-$share/g/t"]);
	});

	contract(suite, "openSession: a session resumed without expiry is kept until its connection ends", async (f) => {
		const first = await f.connect("a");
		await f.subscribe(first, "t");
		await f.close(first);
		const second = await f.connect("a", { sessionExpirySeconds: 0 });
		assert.equal(second.sessionPresent, true);
		assert.equal((await f.subscribe(second, "u")).existed, false);
		assert.equal((await f.subscribe(second, "u")).existed, true, "it stores all, as before");
		await f.close(second);
		assert.equal((await f.connect("a")).sessionPresent, false);
	});

	contract(suite, "openSession: epochs are never used twice, whatever the client and the kind of session", async (f) => {
		const epochs = new Set<string>();
		for (const clientId of ["a", "b", "a", "a"]) {
			for (const sessionExpirySeconds of [0, 60]) epochs.add((await f.connect(clientId, { sessionExpirySeconds })).epoch);
		}
		assert.equal(epochs.size, 8);
	});

	for (const sessionExpirySeconds of [0, 3600]) {
		const kind = sessionExpirySeconds === 0 ? "without expiry" : "with an expiry";

		contract(suite, `fencing: after takeover every write of the old owner of a session ${kind} is refused`, async (f) => {
			const old = await f.connect("a", { sessionExpirySeconds });
			await f.publish("t", [], { reserve: { session: old.ref, packetId: 1 } });
			const present = await f.connect("a", { sessionExpirySeconds });
			await f.subscribe(present, "$share/g/t");
			await f.fill("$share/g/t", 1);
			await f.store.takeShared("$share/g/t", 1);
			const reserve = { session: old.ref, packetId: 2 };
			await assertRejects(f.store.subscribe(old.ref, [subscription("u")]), "fenced");
			await assertRejects(f.store.unsubscribe(old.ref, ["$share/g/t"]), "fenced");
			await assertRejects(f.publish("t", ["$share/g/t"], { reserve, retain: true, message: message("t", { payload: "x" }) }), "fenced");
			await assertRejects(f.store.release(old.ref, 1), "fenced");
			await assertRejects(f.checkpoint(old, { lastPacketId: 77 }), "fenced");
			await assertRejects(f.store.bindShared("$share/g/t", 1, old.ref), "fenced");
			await assertRejects(f.close(old), "fenced");
			assert.deepEqual(await f.retainedTopics("#"), [], "the refused publication is not retained");
			assert.equal((await f.read("$share/g/t")).length, 1, "nor appended");
			assert.equal((await f.store.stats()).subscriptions, 1);
			await f.checkpoint(present, {});
			await f.close(present);
		});

		contract(suite, `fencing: a closed session ${kind} takes no more writes`, async (f) => {
			const client = await f.connect("a", { sessionExpirySeconds });
			await f.close(client);
			await assertRejects(f.store.subscribe(client.ref, [subscription("u")]), "fenced");
			await assertRejects(f.checkpoint(client, {}), "fenced");
			await assertRejects(f.close(client), "fenced");
			await assertRejects(f.publish("t", [], { reserve: { session: client.ref, packetId: 2 } }), "fenced");
		});
	}

	contract(suite, "closeSession: the expiry of DISCONNECT replaces that of CONNECT", async (f) => {
		await f.close(await f.connect("longer"), { sessionExpirySeconds: 7200 });
		await f.close(await f.connect("shorter"), { sessionExpirySeconds: 10 });
		await f.close(await f.connect("none"), { sessionExpirySeconds: 0 });
		const nowMs = NOW + 4_000_000;
		assert.equal((await f.connect("longer", { nowMs })).sessionPresent, true);
		assert.equal((await f.connect("shorter", { nowMs })).sessionPresent, false);
		assert.equal((await f.connect("none")).sessionPresent, false);
	});

	contract(suite, "closeSession: DISCONNECT gives no lifetime to a session that had none", async (f) => {
		const client = await f.connect("a", { sessionExpirySeconds: 0 });
		await f.subscribe(client, "$share/g/t");
		await f.close(client, { sessionExpirySeconds: 60 });
		assert.deepEqual(f.takeLogEvents(), ["+$share/g/t", "-$share/g/t"]);
		assert.equal((await f.connect("a")).sessionPresent, false);
	});

	contract(suite, "openSession: a session that has expired and was not swept yet counts as absent", async (f) => {
		const client = await f.connect("a", { sessionExpirySeconds: 60 });
		await f.subscribe(client, "t/#");
		await f.close(client);
		const again = await f.connect("a", { nowMs: NOW + 60_000 });
		assert.equal(again.sessionPresent, false);
		assert.deepEqual(again.subscriptions, []);
		assert.deepEqual(f.takeLogEvents(), ["+t/#", "-t/#"]);
	});

	contract(suite, "openSession: the expiry of the newest CONNECT counts", async (f) => {
		await f.close(await f.connect("a", { sessionExpirySeconds: 60 }));
		await f.close(await f.connect("a", { sessionExpirySeconds: 600 }));
		assert.equal((await f.connect("a", { nowMs: NOW + 61_000 })).sessionPresent, true);
	});

	contract(suite, "openSession: another user is refused, with and without Clean Start, and nothing of the session changes", async (f) => {
		const refuse = async (user: string, nowMs = NOW): Promise<void> => {
			for (const cleanStart of [false, true]) {
				for (const sessionExpirySeconds of [0, 60]) {
					await assertRejects(f.connect("a", { user, cleanStart, sessionExpirySeconds, will: will("theirs"), nowMs }), "notOwner");
				}
			}
		};
		const connected = await f.connect("a", { user: "alice", will: will("w", 10) });
		await f.subscribe(connected, "t");
		for (const user of ["bob", ""]) await refuse(user);
		await f.checkpoint(connected, { lastPacketId: 7 });
		await f.close(connected);
		for (const user of ["bob", ""]) await refuse(user, NOW + 1000);
		assert.deepEqual(await f.dueWills(NOW + 9_999), []);
		assert.deepEqual(await f.dueWills(NOW + 10_000), ["a"]);
		await f.fill("t", 2);
		const { sessionPresent, subscriptions, lastPacketId } = await f.connect("a", { user: "alice", nowMs: NOW + 10_000 });
		assert.deepEqual(
			{ sessionPresent, lastPacketId, filters: subscriptions.map(({ filter }) => filter) },
			{
				sessionPresent: true,
				lastPacketId: 7,
				filters: ["t"],
			},
		);
		assert.deepEqual(numbers(1, 2), seqs(await f.read("t")));
		assert.equal((await f.store.stats()).sessions, 1);
	});

	contract(
		suite,
		"openSession: a session without expiry is its user's while it is connected, and anonymous clients are one user",
		async (f) => {
			const anonymous = await f.connect("a", { sessionExpirySeconds: 0 });
			await assertRejects(f.connect("a", { user: "bob" }), "notOwner");
			const again = await f.connect("a", { sessionExpirySeconds: 0 });
			await assertRejects(f.checkpoint(anonymous, {}), "fenced");
			await f.close(again);
			assert.equal((await f.connect("a", { user: "bob" })).sessionPresent, false);
		},
	);

	contract(suite, "openSession: a session that has ended is nobody's, and then that of who comes", async (f) => {
		await f.close(await f.connect("a", { user: "alice", sessionExpirySeconds: 60 }));
		await assertRejects(f.connect("a", { user: "bob", nowMs: NOW + 59_999 }), "notOwner");
		const bob = await f.connect("a", { user: "bob", nowMs: NOW + 60_000 });
		assert.equal(bob.sessionPresent, false);
		await assertRejects(f.connect("a", { user: "alice", nowMs: NOW + 60_000 }), "notOwner");
		await f.close(bob, { sessionExpirySeconds: 0 });
		await f.connect("a", { user: "alice", nowMs: NOW + 60_000 });
	});

	persistenceContract(suite, "start: whose a session is outlives the process", async (f) => {
		await f.connect("connected", { user: "alice" });
		await f.close(await f.connect("closed", { user: "alice" }));
		await f.restart();
		for (const clientId of ["connected", "closed"]) {
			await assertRejects(f.connect(clientId, { user: "bob" }), "notOwner");
			assert.equal((await f.connect(clientId, { user: "alice" })).sessionPresent, true);
		}
	});

	contract(suite, "due: names each expired session once and removes it with its logs", async (f) => {
		const a = await f.connect("a", { sessionExpirySeconds: 60 });
		await f.subscribe(a, "t/#");
		await f.close(a);
		await f.close(await f.connect("b", { sessionExpirySeconds: 120 }));
		await f.connect("connected", { sessionExpirySeconds: 1 });
		f.takeLogEvents();
		assert.deepEqual((await f.store.due(NOW + 59_999, 10)).expiredSessions, []);
		assert.deepEqual((await f.store.due(NOW + 60_000, 10)).expiredSessions, ["a"]);
		assert.deepEqual(f.takeLogEvents(), ["-t/#"]);
		assert.deepEqual((await f.store.due(NOW + 120_000, 10)).expiredSessions, ["b"]);
		assert.deepEqual((await f.store.due(NOW + 120_000, 10)).expiredSessions, []);
		assert.deepEqual(await f.store.stats(), { sessions: 1, subscriptions: 0, retained: 0, logs: 0, logEntries: 0 });
	});

	contract(suite, "due: ends no more sessions at once than it is asked for", async (f) => {
		for (const clientId of ["a", "b", "c"]) await f.close(await f.connect(clientId, { sessionExpirySeconds: 1 }));
		assert.equal((await f.store.due(NOW + 5000, 2)).expiredSessions.length, 2);
		assert.equal((await f.store.due(NOW + 5000, 2)).expiredSessions.length, 1);
	});

	contract(suite, "due: 0xffffffff seconds never pass", async (f) => {
		await f.close(await f.connect("a", { sessionExpirySeconds: NEVER_EXPIRES }));
		const nowMs = NOW + 5_000_000_000 * 1000;
		assert.deepEqual((await f.store.due(nowMs, 10)).expiredSessions, []);
		assert.equal((await f.connect("a", { nowMs })).sessionPresent, true);
	});

	contract(suite, "stats: counts sessions with and without expiry", async (f) => {
		const a = await f.connect("a");
		const b = await f.connect("b", { sessionExpirySeconds: 0 });
		await f.subscribe(b, "$share/g/t");
		await f.connect("b", { sessionExpirySeconds: 0 });
		await f.connect("c", { sessionExpirySeconds: 0 });
		await f.connect("c", { sessionExpirySeconds: 0 });
		assert.equal((await f.store.stats()).sessions, 3);
		await f.close(a);
		assert.equal((await f.store.stats()).sessions, 3, "a closed session with an expiry is there");
		await f.connect("a", { cleanStart: true, sessionExpirySeconds: 0 });
		assert.equal((await f.store.stats()).sessions, 3);
	});

	persistenceContract(suite, "start: connected sessions become disconnected, and their time runs from then", async (f) => {
		await f.connect("a", { sessionExpirySeconds: 60 });
		await f.connect("never", { sessionExpirySeconds: NEVER_EXPIRES });
		await f.restart(NOW + 100_000);
		assert.deepEqual((await f.store.due(NOW + 159_999, 10)).expiredSessions, []);
		assert.deepEqual((await f.store.due(NOW + 160_000, 10)).expiredSessions, ["a"]);
		assert.equal((await f.connect("never", { nowMs: NOW + 1e12 })).sessionPresent, true);
	});

	persistenceContract(suite, "start: the time of sessions that were disconnected before goes on", async (f) => {
		await f.close(await f.connect("a", { sessionExpirySeconds: 60 }));
		await f.restart(NOW + 50_000);
		assert.deepEqual((await f.store.due(NOW + 60_000, 10)).expiredSessions, ["a"]);
	});

	persistenceContract(suite, "start: sessions without expiry are gone with all that was stored for them", async (f) => {
		const client = await f.connect("a", { sessionExpirySeconds: 0 });
		await f.subscribe(client, "$share/g/t");
		await f.fill("$share/g/t", 3);
		await f.restart();
		assert.deepEqual(f.takeLogEvents(), []);
		assert.deepEqual(await f.store.stats(), { sessions: 0, subscriptions: 0, retained: 0, logs: 0, logEntries: 0 });
		assert.equal((await f.connect("a")).sessionPresent, false);
	});

	persistenceContract(suite, "start: epochs of the time before are refused", async (f) => {
		const before = await f.connect("a");
		await f.restart();
		await assertRejects(f.checkpoint(before, {}), "fenced");
		const after = await f.connect("a");
		assert.notEqual(after.epoch, before.epoch);
		await assertRejects(f.checkpoint(before, {}), "fenced");
	});

	contract(suite, "close: what was written before is stored, and what comes after is refused", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		const published = f.publish("t", ["t"]);
		await f.store.close();
		assert.equal((await published).appended.length, 1);
		await assertRejects(f.publish("t", ["t"]), "unavailable");
		await assertRejects(f.store.stats(), "unavailable");
		await f.store.close();
	});
}
