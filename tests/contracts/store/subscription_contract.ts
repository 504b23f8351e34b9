/** Subscriptions: what is stored of them, where they begin, and which logs they make. */

import assert from "node:assert/strict";
import { contract, message, persistenceContract, type Suite, seqs, subscription } from "./fixture.ts";

export function subscriptionContract(suite: Suite): void {
	contract(suite, "subscribe: the options come back as they were granted", async (f) => {
		const client = await f.connect("a");
		const granted = [
			subscription("x/+/z", { qos: 0, noLocal: true, retainHandling: 2 }),
			subscription("y/#", { qos: 2, retainAsPublished: true, retainHandling: 1, subscriptionId: 268_435_455 }),
			subscription("$share/gruppe/straße/+", { subscriptionId: 1 }),
		];
		assert.deepEqual(await f.store.subscribe(client.ref, granted), [
			{ existed: false, cursor: 0 },
			{ existed: false, cursor: 0 },
			{ existed: false, cursor: 0 },
		]);
		const { subscriptions } = await f.connect("a");
		const byFilter = (a: { filter: string }, b: { filter: string }) => (a.filter < b.filter ? -1 : 1);
		assert.deepEqual([...subscriptions].sort(byFilter), granted.map((s) => ({ ...s, cursor: 0 })).sort(byFilter));
	});

	contract(suite, "subscribe: a new subscription begins behind the last entry", async (f) => {
		const first = await f.connect("a");
		await f.subscribe(first, "t");
		await f.fill("t", 3);
		const second = await f.connect("b");
		assert.deepEqual(await f.subscribe(second, "t"), { existed: false, cursor: 3 });
		assert.equal((await f.connect("b")).subscriptions[0]?.cursor, 3);
		await f.fill("t", 1);
		assert.deepEqual(seqs(await f.read("t", 3)), [4]);
	});

	contract(suite, "subscribe: calls and publications that follow each other without waiting take effect in order", async (f) => {
		const first = await f.connect("a");
		await f.subscribe(first, "t");
		const second = await f.connect("b");
		const published = [f.publish("t", ["t"]), f.publish("t", ["t"])];
		const subscribed = f.subscribe(second, "t");
		published.push(f.publish("t", ["t"]));
		await Promise.all(published);
		assert.equal((await subscribed).cursor, 2);
	});

	contract(
		suite,
		"subscribe: a replaced subscription keeps its position while its granted QoS stays at least 1 [MQTT-3.8.4-3]",
		async (f) => {
			const client = await f.connect("a");
			await f.subscribe(client, "t");
			await f.fill("t", 5);
			await f.checkpoint(client, { cursors: [{ log: "t", cursor: 2, floor: 2 }] });
			assert.deepEqual(await f.subscribe(client, "t", { qos: 2, noLocal: true }), { existed: true, cursor: 2 });
			const { subscriptions } = await f.connect("a");
			assert.deepEqual(subscriptions, [{ ...subscription("t", { qos: 2, noLocal: true }), cursor: 2 }]);
			assert.equal((await f.store.stats()).subscriptions, 1);
		},
	);

	contract(suite, "subscribe: a subscription raised from QoS 0 begins behind the last entry", async (f) => {
		const other = await f.connect("other");
		await f.subscribe(other, "t");
		const client = await f.connect("a");
		assert.deepEqual(await f.subscribe(client, "t", { qos: 0 }), { existed: false, cursor: 0 });
		await f.fill("t", 2);
		assert.deepEqual(await f.subscribe(client, "t", { qos: 1 }), { existed: true, cursor: 2 });
	});

	contract(suite, "subscribe: a session without expiry keeps shared subscriptions only", async (f) => {
		const client = await f.connect("a", { sessionExpirySeconds: 0 });
		await f.store.subscribe(client.ref, [subscription("t"), subscription("$share/g/t")]);
		assert.deepEqual(f.takeLogEvents(), ["+$share/g/t"]);
		assert.equal((await f.store.stats()).subscriptions, 1);
		await f.store.unsubscribe(client.ref, ["t"]);
		await f.close(client);
		assert.deepEqual(f.takeLogEvents(), ["-$share/g/t"]);
		assert.equal((await f.store.stats()).subscriptions, 0);
	});

	contract(suite, "unsubscribe: removes exactly the named subscriptions and ignores unknown ones", async (f) => {
		const client = await f.connect("a");
		await f.store.subscribe(client.ref, [subscription("t"), subscription("u"), subscription("v", { qos: 0 })]);
		await f.store.unsubscribe(client.ref, ["t", "nobody/knows", "v"]);
		assert.deepEqual(
			(await f.connect("a")).subscriptions.map(({ filter }) => filter),
			["u"],
		);
		assert.equal((await f.store.stats()).subscriptions, 1);
	});

	contract(suite, "onLog: a log comes with the first subscription of QoS 1 or 2 and goes with the last", async (f) => {
		const a = await f.connect("a");
		const b = await f.connect("b");
		await f.subscribe(a, "t/#", { qos: 0 });
		assert.deepEqual(f.takeLogEvents(), [], "QoS 0 needs no log");
		await f.subscribe(a, "t/#", { qos: 1 });
		assert.deepEqual(f.takeLogEvents(), ["+t/#"]);
		await f.subscribe(b, "t/#", { qos: 2 });
		await f.subscribe(b, "t/#", { qos: 1 });
		await f.subscribe(a, "t/#", { qos: 0 });
		assert.deepEqual(f.takeLogEvents(), [], "somebody is left");
		await f.store.unsubscribe(b.ref, ["t/#"]);
		assert.deepEqual(f.takeLogEvents(), ["-t/#"]);
		assert.equal((await f.store.stats()).logs, 0);
	});

	contract(suite, "onLog: is told before the call that caused it resolves", async (f) => {
		const client = await f.connect("a");
		let seen: string[] = [];
		await f.store.subscribe(client.ref, [subscription("t/#")]).then(() => {
			seen = f.takeLogEvents();
		});
		assert.deepEqual(seen, ["+t/#"]);
		await f.store.unsubscribe(client.ref, ["t/#"]).then(() => {
			seen = f.takeLogEvents();
		});
		assert.deepEqual(seen, ["-t/#"]);
	});

	contract(
		suite,
		"hasLog: an exact filter's log is there from its first subscription of QoS 1 or 2 to its last, without onLog",
		async (f) => {
			const a = await f.connect("a");
			const b = await f.connect("b");
			const has: boolean[] = [];
			const look = () => has.push(f.store.hasLog("t/u"));
			await f.subscribe(a, "t/u", { qos: 0 }).then(look);
			await f.store.subscribe(a.ref, [subscription("t/u"), subscription("t/x")]).then(look);
			await f.subscribe(b, "t/u", { qos: 2 }).then(look);
			await f.subscribe(a, "t/u", { qos: 0 }).then(look);
			await f.store.unsubscribe(b.ref, ["t/u"]).then(look);
			await f.subscribe(b, "t/u").then(look);
			await f.connect("b", { cleanStart: true }).then(look);
			assert.deepEqual(has, [false, true, true, true, false, true, false]);
			assert.ok(f.store.hasLog("t/x"));
			assert.deepEqual(f.takeLogEvents(), []);
		},
	);

	contract(suite, "hasLog: knows nothing of wildcard filters, share groups and sessions that keep nothing", async (f) => {
		const client = await f.connect("a");
		await f.store.subscribe(client.ref, [subscription("t/#"), subscription("+"), subscription("$share/g/t")]);
		await f.subscribe(await f.connect("volatile", { sessionExpirySeconds: 0 }), "t");
		assert.equal(f.store.hasLog("t"), false);
		assert.equal(f.store.hasLog("$share/g/t"), false, "a topic of that name is not the group's");
	});

	contract(suite, "onLog: the end of a session takes its logs along, whichever way it ends", async (f) => {
		await f.subscribe(await f.connect("clean"), "clean/#");
		await f.subscribe(await f.connect("disconnected"), "disconnected/#");
		await f.subscribe(await f.connect("expired", { sessionExpirySeconds: 1 }), "expired/#");
		f.takeLogEvents();
		await f.connect("clean", { cleanStart: true });
		assert.deepEqual(f.takeLogEvents(), ["-clean/#"]);
		await f.close(await f.connect("disconnected"), { sessionExpirySeconds: 0 });
		assert.deepEqual(f.takeLogEvents(), ["-disconnected/#"]);
		await f.close(await f.connect("expired", { sessionExpirySeconds: 1 }));
		await f.store.due(Number.MAX_SAFE_INTEGER / 2, 10);
		assert.deepEqual(f.takeLogEvents(), ["-expired/#"]);
	});

	contract(suite, "onLog: a log that comes again starts empty at 1", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		await f.fill("t", 5);
		await f.store.unsubscribe(client.ref, ["t"]);
		assert.deepEqual(await f.subscribe(client, "t"), { existed: false, cursor: 0 });
		assert.deepEqual(await f.read("t"), []);
		assert.deepEqual((await f.publish("t", ["t"])).appended, [{ log: "t", seq: 1 }]);
	});

	persistenceContract(suite, "start: tells of every log there is before it resolves", async (f) => {
		const a = await f.connect("a");
		const b = await f.connect("b");
		await f.store.subscribe(a.ref, [
			subscription("t"),
			subscription("t/+/u"),
			subscription("$share/g/t"),
			subscription("zero", { qos: 0 }),
		]);
		await f.store.subscribe(b.ref, [subscription("t/+/u"), subscription("gone/#"), subscription("gone")]);
		await f.store.unsubscribe(b.ref, ["gone/#", "gone"]);
		await f.restart();
		assert.deepEqual(f.takeLogEvents().sort(), ["+$share/g/t", "+t/+/u"]);
		assert.deepEqual(
			["t", "zero", "gone"].map((topic) => f.store.hasLog(topic)),
			[true, false, false],
		);
	});

	persistenceContract(suite, "start: subscriptions, their positions and the numbering of their logs are as before", async (f) => {
		const client = await f.connect("a");
		await f.store.subscribe(client.ref, [subscription("t", { qos: 2 }), subscription("u")]);
		await f.fill("t", 4);
		await f.checkpoint(client, { cursors: [{ log: "t", cursor: 3, floor: 1 }] });
		await f.restart();
		const again = await f.connect("a");
		assert.deepEqual(again.subscriptions, [
			{ ...subscription("t", { qos: 2 }), cursor: 3 },
			{ ...subscription("u"), cursor: 0 },
		]);
		const { appended } = await f.publish("t", ["t", "u"], { message: message("t") });
		assert.deepEqual(appended, [
			{ log: "t", seq: 5 },
			{ log: "u", seq: 1 },
		]);
	});
}
