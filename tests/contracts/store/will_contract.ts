/** Wills: when each is due, and that it is settled once. */

import assert from "node:assert/strict";
import { NEVER_EXPIRES } from "../../../src/store/store.ts";
import { assertMessage, assertRejects, contract, message, NOW, persistenceContract, type Suite, texts, will } from "./fixture.ts";

const LATER = NOW + 3_000_000;

export function willContract(suite: Suite): void {
	contract(suite, "due: a will is not due while its connection lives", async (f) => {
		await f.connect("a", { will: will("w") });
		await f.connect("b", { will: will("w"), sessionExpirySeconds: 0 });
		assert.deepEqual(await f.dueWills(LATER), []);
	});

	contract(suite, "due: a will comes with its author and its publisher", async (f) => {
		const left = message("w", { publisher: "a", author: { name: "alice", tokenId: "t1" } });
		await f.close(await f.connect("a", { will: { message: left, delaySeconds: 0, expirySeconds: undefined } }));
		assertMessage((await f.store.due(NOW, 10)).wills[0]?.message, left);
	});

	contract(suite, "closeSession: discard removes the will [MQTT-3.14.4-3]", async (f) => {
		await f.close(await f.connect("a", { will: will("w", 10) }), { will: "discard" });
		await f.close(await f.connect("b", { will: will("w"), sessionExpirySeconds: 0 }), { will: "discard" });
		assert.deepEqual(await f.dueWills(LATER), []);
	});

	contract(suite, "closeSession: keep makes the will due after its delay [MQTT-3.1.2-8]", async (f) => {
		await f.close(await f.connect("now", { will: will("w") }));
		await f.close(await f.connect("delayed", { will: will("w", 10) }));
		assert.deepEqual(await f.dueWills(NOW), ["now"]);
		assert.deepEqual(await f.dueWills(NOW + 9_999), ["now"]);
		assert.deepEqual(await f.dueWills(NOW + 10_000), ["now", "delayed"]);
	});

	contract(suite, "closeSession: the will is due when the session ends, if that is sooner [MQTT-3.1.2-8]", async (f) => {
		await f.close(await f.connect("volatile", { will: will("w", 10), sessionExpirySeconds: 0 }));
		await f.close(await f.connect("short", { will: will("w", 10), sessionExpirySeconds: 5 }));
		await f.close(await f.connect("shortened", { will: will("w", 10) }), { sessionExpirySeconds: 2 });
		await f.close(await f.connect("endless", { will: will("w", 10), sessionExpirySeconds: NEVER_EXPIRES }));
		assert.deepEqual(await f.dueWills(NOW), ["volatile"]);
		assert.deepEqual(await f.dueWills(NOW + 2_000), ["volatile", "shortened"]);
		assert.deepEqual(await f.dueWills(NOW + 5_000), ["volatile", "shortened", "short"]);
		assert.deepEqual(await f.dueWills(NOW + 10_000), ["volatile", "shortened", "short", "endless"]);
	});

	contract(suite, "openSession: resumption cancels a will that is not yet due [MQTT-3.1.3-9]", async (f) => {
		await f.close(await f.connect("a", { will: will("w", 10) }));
		await f.connect("a", { nowMs: NOW + 9_000 });
		assert.deepEqual(await f.dueWills(LATER), []);
	});

	contract(suite, "openSession: resumption does not cancel a will that is due", async (f) => {
		await f.close(await f.connect("a", { will: will("w", 10) }));
		await f.connect("a", { nowMs: NOW + 10_000 });
		assert.deepEqual(await f.dueWills(NOW + 10_000), ["a"]);
	});

	contract(suite, "openSession: Clean Start makes a pending will due at once [MQTT-3.1.2-8]", async (f) => {
		await f.close(await f.connect("a", { will: will("w", 10) }));
		await f.connect("a", { cleanStart: true, nowMs: NOW + 1_000 });
		assert.deepEqual(await f.dueWills(NOW + 1_000), ["a"]);
	});

	contract(
		suite,
		"openSession: a client that was sent away and is back in time has its will cancelled, with and without a session",
		async (f) => {
			const grace = NOW + 5_000;
			await f.close(await f.connect("volatile", { will: will("w"), sessionExpirySeconds: 0 }), { nowMs: grace });
			await f.close(await f.connect("delayed", { will: will("w", 10), sessionExpirySeconds: 0 }), { nowMs: grace });
			await f.close(await f.connect("clean", { will: will("w") }), { nowMs: grace });
			await f.close(await f.connect("resumed", { will: will("w") }), { nowMs: grace });
			await f.close(await f.connect("late", { will: will("w"), sessionExpirySeconds: 0 }), { nowMs: grace });
			for (const [id, sessionExpirySeconds] of [
				["volatile", 0],
				["delayed", 0],
				["clean", 60],
				["resumed", 60],
			] as const) {
				await f.connect(id, { cleanStart: id !== "resumed", sessionExpirySeconds, nowMs: NOW + 4_000 });
			}
			assert.deepEqual(await f.dueWills(NOW + 4_999), []);
			assert.deepEqual(await f.dueWills(grace), ["late"]);
			await f.connect("late", { cleanStart: true, nowMs: grace });
			assert.deepEqual(await f.dueWills(grace), ["late"]);
		},
	);

	contract(suite, "openSession: takeover makes a will without delay due and cancels one with delay", async (f) => {
		await f.connect("now", { will: will("w") });
		await f.connect("delayed", { will: will("w", 10) });
		await f.connect("now");
		await f.connect("delayed");
		assert.deepEqual(await f.dueWills(LATER), ["now"]);
	});

	contract(suite, "openSession: takeover that ends the session makes its will due at once, whatever the delay", async (f) => {
		await f.connect("clean", { will: will("w", 10) });
		await f.connect("volatile", { will: will("w", 10), sessionExpirySeconds: 0 });
		await f.connect("clean", { cleanStart: true });
		await f.connect("volatile");
		assert.deepEqual((await f.dueWills(NOW)).sort(), ["clean", "volatile"]);
	});

	contract(suite, "openSession: the will of an expired session that was not swept yet stays due", async (f) => {
		await f.close(await f.connect("a", { will: will("w", 100), sessionExpirySeconds: 60 }));
		await f.connect("a", { nowMs: NOW + 60_000 });
		assert.deepEqual(await f.dueWills(NOW + 60_000), ["a"]);
	});

	contract(suite, "due: the sweep of a session that expires brings its will", async (f) => {
		await f.close(await f.connect("a", { will: will("w", 100), sessionExpirySeconds: 60 }));
		const { wills, expiredSessions } = await f.store.due(NOW + 60_000, 10);
		assert.deepEqual([wills.map(({ clientId }) => clientId), expiredSessions], [["a"], ["a"]]);
	});

	contract(suite, "openSession: a new connection's will stands beside an old one that is due", async (f) => {
		await f.close(await f.connect("a", { will: will("old") }));
		const again = await f.connect("a", { will: will("new") });
		const topics = async () => (await f.store.due(NOW, 10)).wills.map((due) => due.message.topic.name);
		assert.deepEqual(await topics(), ["old"]);
		await f.close(again);
		assert.deepEqual(await topics(), ["old", "new"]);
	});

	contract(suite, "closeSession: a fenced owner does not fire the will of its successor", async (f) => {
		const old = await f.connect("a");
		await f.connect("a", { will: will("w") });
		await assertRejects(f.close(old), "fenced");
		assert.deepEqual(await f.dueWills(LATER), []);
	});

	contract(suite, "publish: settles a will in the same step, once", async (f) => {
		await f.subscribe(await f.connect("reader"), "w");
		await f.close(await f.connect("a", { will: will("w") }));
		const [due] = (await f.store.due(NOW, 10)).wills;
		assert.ok(due);
		assert.deepEqual(await f.dueWills(NOW), ["a"], "it comes again until then");
		const request = { message: message("w", { payload: "x" }), willId: due.id, retain: true };
		const results = await Promise.all([f.publish("w", ["w"], request), f.publish("w", ["w"], request)]);
		assert.deepEqual(
			results.map(({ appended, duplicate }) => [appended.length, duplicate]),
			[
				[1, false],
				[0, true],
			],
		);
		assert.deepEqual(texts(await f.read("w")), ["x"]);
		assert.deepEqual(await f.dueWills(LATER), []);
		assert.deepEqual(await f.publish("w", ["w"], request), { appended: [], duplicate: true });
		assert.deepEqual(await f.retainedTopics("#"), ["w"]);
	});

	contract(suite, "publish: the id of a settled will never settles another one", async (f) => {
		await f.close(await f.connect("a", { will: will("w") }));
		const [first] = (await f.store.due(NOW, 10)).wills;
		await f.publish("w", [], { willId: first?.id });
		await f.close(await f.connect("a", { will: will("w") }));
		assert.equal((await f.publish("w", [], { willId: first?.id })).duplicate, true);
		assert.deepEqual(await f.dueWills(NOW), ["a"]);
	});

	contract(
		suite,
		"publish: a will that is refused as full is still due",
		async (f) => {
			await f.retain("r");
			await f.close(await f.connect("a", { will: will("w") }));
			const [due] = (await f.store.due(NOW, 10)).wills;
			const request = { message: message("w", { payload: "x" }), willId: due?.id };
			await assertRejects(f.publish("w", [], { ...request, retain: true }), "full");
			assert.deepEqual(await f.dueWills(NOW), ["a"]);
			assert.equal((await f.publish("w", [], request)).duplicate, false);
		},
		{ maxRetained: 1 },
	);

	contract(suite, "due: gives no more wills than it is asked for, those that wait longest first", async (f) => {
		for (const [clientId, delay] of [
			["c", 3],
			["a", 1],
			["b", 2],
		] as const) {
			await f.close(await f.connect(clientId, { will: will("w", delay) }));
		}
		const due = await f.store.due(LATER, 2);
		assert.deepEqual(
			due.wills.map(({ clientId }) => clientId),
			["a", "b"],
		);
	});

	contract(suite, "due: the will's message is whole, and its expiry runs from its publication", async (f) => {
		const content = message("ẅ", { payload: "bye", qos: 2, retain: true, publisher: "a", forwarded: new Uint8Array([1, 1]) });
		await f.close(await f.connect("a", { will: { message: content, delaySeconds: 5, expirySeconds: 30 } }));
		await f.close(await f.connect("b", { will: { message: content, delaySeconds: 5, expirySeconds: undefined } }));
		const [first, second] = (await f.store.due(NOW + 20_000, 10)).wills;
		assertMessage(first?.message, { ...content, expiresAtMs: NOW + 50_000 });
		assertMessage(second?.message, content);
	});

	persistenceContract(suite, "start: wills of connections that the crash ended are due after their delay", async (f) => {
		await f.connect("now", { will: will("w") });
		await f.connect("delayed", { will: will("w", 10) });
		await f.connect("short", { will: will("w", 10), sessionExpirySeconds: 5 });
		await f.connect("volatile", { will: will("w", 10), sessionExpirySeconds: 0 });
		await f.restart(NOW + 1000);
		assert.deepEqual((await f.dueWills(NOW + 1000)).sort(), ["now", "volatile"]);
		assert.deepEqual((await f.dueWills(NOW + 6000)).sort(), ["now", "short", "volatile"]);
		assert.deepEqual((await f.dueWills(NOW + 11_000)).sort(), ["delayed", "now", "short", "volatile"]);
	});

	persistenceContract(suite, "start: a client that is back in time cancels the will that the crash started [MQTT-3.1.3-9]", async (f) => {
		await f.connect("a", { will: will("w", 10) });
		await f.restart();
		await f.connect("a", { nowMs: NOW + 5000 });
		assert.deepEqual(await f.dueWills(LATER), []);
	});

	persistenceContract(suite, "start: pending wills keep their time, settled and discarded ones stay gone", async (f) => {
		await f.close(await f.connect("pending", { will: will("w", 10) }));
		await f.close(await f.connect("discarded", { will: will("w") }), { will: "discard" });
		await f.close(await f.connect("settled", { will: will("w") }));
		const [due] = (await f.store.due(NOW, 10)).wills;
		await f.publish("w", [], { willId: due?.id });
		await f.restart(NOW + 8000);
		assert.deepEqual(await f.dueWills(NOW + 9_999), []);
		assert.deepEqual(await f.dueWills(NOW + 10_000), ["pending"]);
		assert.equal((await f.publish("w", [], { willId: due?.id })).duplicate, true);
	});
}
