/** Retained messages: one value per topic, found by filter, in pages. */

import assert from "node:assert/strict";
import { matches } from "../../../src/mqtt/topic.ts";
import { assertMessage, assertRejects, contract, message, NOW, numbers, persistenceContract, type Suite, text } from "./fixture.ts";

const TOPICS = [
	"$SYS/a",
	"$SYS/a/b",
	"/",
	"/a",
	"a",
	"a/",
	"a/b",
	"a/b/c",
	"a/b/c/d",
	"a/c",
	"a/d/c",
	"a/ä/c",
	"a/𝄞/c",
	"a/\uffee/c",
	"a!b/c",
	"aa",
	"b",
	"b/b",
	"b//c",
];

const FILTERS = [
	"#",
	"+",
	"+/#",
	"/#",
	"/+",
	"a",
	"a/#",
	"a/+",
	"a/+/c",
	"+/b",
	"+/+/c",
	"a/b/#",
	"+/b/#",
	"b//c",
	"b/+/c",
	"$SYS/#",
	"$SYS/+",
	"$SYS/a",
	"nothing/+",
	"a/𝄞/#",
	"+/+",
];

function byBytes(a: string, b: string): number {
	return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

export function retainedContract(suite: Suite): void {
	contract(suite, "retained: gives the message as it was published, and the newest only", async (f) => {
		await f.retain("t", "1");
		const second = message("t", {
			payload: "2",
			qos: 2,
			retain: true,
			forwarded: new Uint8Array([1, 1]),
			expiresAtMs: NOW + 1000,
			publisher: "p",
		});
		await f.publish("t", [], { message: second, retain: true });
		const { messages, next } = await f.store.retained("t", undefined, 10, NOW);
		assert.equal(messages.length, 1);
		assertMessage(messages[0], second);
		assert.equal(next, undefined);
		assert.equal((await f.store.stats()).retained, 1);
	});

	contract(suite, "retained: tells who the author is, where there is one", async (f) => {
		const author = { name: "alice", username: "Älice", tokenId: "t1", issuedAtMs: NOW - 1000 };
		const authors = [author, undefined, { name: "", issuedAtMs: NOW }];
		for (const [n, each] of authors.entries()) await f.retain(`t/${n}`, "x", each === undefined ? {} : { author: each });
		const { messages } = await f.store.retained("t/+", undefined, 10, NOW);
		assert.deepEqual(
			messages.map((each) => each.author),
			authors,
		);
	});

	contract(suite, "publish: a message that is not to be retained is not", async (f) => {
		await f.publish("t", [], { message: message("t", { payload: "x", retain: true }), retain: false });
		assert.deepEqual(await f.retainedTopics("#"), []);
	});

	contract(suite, "publish: retaining and appending are one step", async (f) => {
		await f.subscribe(await f.connect("a"), "t");
		const { appended } = await f.publish("t", ["t"], { message: message("t", { payload: "x" }), retain: true });
		assert.deepEqual(appended, [{ log: "t", seq: 1 }]);
		assert.deepEqual(await f.retainedTopics("t"), ["t"]);
	});

	contract(suite, "publish: an empty payload removes the retained message [MQTT-3.3.1-6]", async (f) => {
		await f.retain("t");
		await f.retain("u");
		await f.retain("t", "");
		await f.retain("never/there", "");
		assert.deepEqual(await f.retainedTopics("#"), ["u"]);
		assert.equal((await f.store.stats()).retained, 1);
	});

	contract(suite, "retained: sees what was published before it, and resolves not before that is stored", async (f) => {
		const events: string[] = [];
		const published = f.retain("t").then(() => events.push("published"));
		const topics = await f.retainedTopics("#").finally(() => events.push("read"));
		await published;
		assert.deepEqual(topics, ["t"]);
		assert.deepEqual(events, ["published", "read"]);
	});

	for (const pageSize of [1, 3, 1000]) {
		contract(
			suite,
			`retained: pages of ${pageSize} give every match once, in topic order, and $ topics to $ filters only [MQTT-4.7.2-1]`,
			async (f) => {
				await Promise.all(TOPICS.map((topic) => f.retain(topic)));
				for (const filter of FILTERS) {
					const expected = TOPICS.filter((topic) => matches(filter, topic)).sort(byBytes);
					assert.deepEqual(await f.retainedTopics(filter, pageSize), expected, `filter ${filter}`);
				}
			},
		);
	}

	contract(suite, "retained: a page has what it is asked for while there is more", async (f) => {
		await Promise.all(numbers(100, 399).map((n) => f.retain(`t/${n}`)));
		const page = await f.store.retained("t/+", undefined, 120, NOW);
		assert.deepEqual(
			page.messages.map(({ topic }) => topic.name),
			numbers(100, 219).map((n) => `t/${n}`),
		);
		assert.ok(page.next);
		assert.equal((await f.retainedTopics("t/#", 120)).length, 300);
	});

	contract(suite, "retained: what comes and goes between pages disturbs no other topic", async (f) => {
		await Promise.all(numbers(1, 6).map((n) => f.retain(`t/${n}`)));
		const first = await f.store.retained("t/#", undefined, 3, NOW);
		await f.retain("t/3", "");
		await f.retain("t/1", "changed");
		await f.retain("t/0");
		await f.retain("t/5", "");
		await f.retain("t/7");
		const second = await f.store.retained("t/#", first.next, 10, NOW);
		assert.deepEqual(
			second.messages.map(({ topic }) => topic.name),
			["t/4", "t/6", "t/7"],
		);
	});

	contract(suite, "retained: a wildcard in the middle finds its few among many topics", async (f) => {
		const all: Promise<unknown>[] = [];
		for (const room of numbers(1, 40)) {
			for (const sensor of numbers(1, 100)) all.push(f.retain(`house/${room}/sensor/${sensor}`));
		}
		await Promise.all(all);
		assert.equal((await f.retainedTopics("house/+/sensor/50", 7)).length, 40);
		assert.equal((await f.retainedTopics("+/17/#", 30)).length, 100);
		assert.equal((await f.retainedTopics("house/+/nothing")).length, 0);
	});

	contract(suite, "retained: messages whose expiry has passed are left out and removed in time", async (f) => {
		await f.retain("t", "t", { expiresAtMs: NOW + 1000 });
		await f.retain("u", "u", { expiresAtMs: NOW + 5000 });
		await f.retain("v");
		assert.deepEqual(await f.retainedTopics("#", 1, NOW + 999), ["t", "u", "v"]);
		assert.deepEqual(await f.retainedTopics("#", 1, NOW + 1000), ["u", "v"]);
		await f.store.due(NOW + 1000, 10);
		assert.equal((await f.store.stats()).retained, 2);
		await f.retain("t", "again");
		assert.deepEqual(await f.retainedTopics("t", 1, NOW + 9000), ["t"]);
	});

	contract(
		suite,
		"publish: beyond maxRetained a new topic is refused with all that was to be stored, known ones are not",
		async (f) => {
			const client = await f.connect("a");
			await f.subscribe(client, "t");
			await f.retain("x", "1");
			await f.retain("y", "1");
			const reserve = { session: client.ref, packetId: 5 };
			await assertRejects(f.publish("t", ["t"], { message: message("z", { payload: "1" }), retain: true, reserve }), "full");
			assert.deepEqual(await f.read("t"), []);
			assert.deepEqual((await f.connect("a")).reservedIds, []);
			await f.retain("x", "2");
			await f.retain("nobody", "");
			await f.retain("y", "");
			await f.retain("z", "1");
			const { messages } = await f.store.retained("#", undefined, 10, NOW);
			assert.deepEqual(messages.map(text), ["2", "1"]);
			await assertRejects(f.retain("y"), "full");
		},
		{ maxRetained: 2 },
	);

	persistenceContract(suite, "retained messages and their number survive a crash [v3 MQTT-3.1.2-7]", async (f) => {
		await Promise.all(numbers(1, 20).map((n) => f.retain(`t/${n}`)));
		await f.retain("t/7", "");
		await f.restart();
		assert.equal((await f.retainedTopics("t/+", 4)).length, 19);
		assert.equal((await f.store.stats()).retained, 19);
	});
}
