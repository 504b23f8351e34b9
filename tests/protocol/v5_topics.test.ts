/** Topic names and filters of MQTT 5.0 as clients see them: section 4.7, for live and for retained messages. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { durable, SESSION_KINDS, take, takeMany, text } from "../support/traffic.ts";

const TOPICS = ["a", "a/", "a/b", "a/b/c", "a//c", "/a", "/", "//", "A/b", "ab", "a b/c", "é", "e\u0301", "😀/b"];
const MATCHES: readonly (readonly [filter: string, topics: readonly string[]])[] = [
	["a", ["a"]],
	["a/", ["a/"]],
	["a/#", ["a", "a/", "a/b", "a/b/c", "a//c"]],
	["a/+", ["a/", "a/b"]],
	["a/+/c", ["a/b/c", "a//c"]],
	["a/+/#", ["a/", "a/b", "a/b/c", "a//c"]],
	["+", ["a", "ab", "é", "e\u0301"]],
	["+/b", ["a/b", "A/b", "😀/b"]],
	["+/+", ["a/", "a/b", "/a", "/", "A/b", "a b/c", "😀/b"]],
	["/+", ["/a", "/"]],
	["+/+/+", ["a/b/c", "a//c", "//"]],
	["/#", ["/a", "/", "//"]],
	["a b/c", ["a b/c"]],
	["é", ["é"]],
	["e\u0301", ["e\u0301"]],
	["#", TOPICS],
	["b", []],
	["a/b/", []],
	["A", []],
];

const BAD_FILTERS: readonly (readonly [filter: string, statement: string])[] = [
	["a/#/b", "[MQTT-4.7.1-1]"],
	["#/a", "[MQTT-4.7.1-1]"],
	["a#", "[MQTT-4.7.1-1]"],
	["a/b#", "[MQTT-4.7.1-1]"],
	["##", "[MQTT-4.7.1-1]"],
	["a/#/", "[MQTT-4.7.1-1]"],
	["+a", "[MQTT-4.7.1-2]"],
	["a+", "[MQTT-4.7.1-2]"],
	["a/b+/c", "[MQTT-4.7.1-2]"],
	["a/++", "[MQTT-4.7.1-2]"],
	["+#", "[MQTT-4.7.1-1] [MQTT-4.7.1-2]"],
	["", "[MQTT-4.7.3-1]"],
];

describe("topic filters in MQTT 5.0", () => {
	/** Nothing but these topics is ever published here. */
	const broker = suiteBroker();

	for (const [filter, topics] of MATCHES) {
		test(`topics: "${filter}" matches ${topics.length} of ${TOPICS.length} topics, character by character [MQTT-3.3.2-3] [MQTT-4.7.3-4]`, async () => {
			const publisher = await RawClient.connect(broker);
			for (const { options } of SESSION_KINDS) {
				const client = await RawClient.connect(broker, options());
				await client.subscribe(filter, { qos: 1, rh: 2 });
				for (const topic of TOPICS) await publisher.publishAcked(topic, topic, { retain: true });
				const live = await takeMany(client, topics.length);
				await client.expectNothing();
				assert.deepEqual(live.map(topicOf), topics, "live, in the order of publication");
				await client.subscribe(filter, { qos: 1, rh: 0 });
				const retained = await takeMany(client, topics.length);
				await client.expectNothing();
				assert.deepEqual(retained.map(topicOf).toSorted(), topics.toSorted(), "retained");
				assert.ok([...live, ...retained].every((publication) => publication.topic === text(publication)));
			}
		});
	}

	test("topics: a topic of 65,535 bytes is published, retained and subscribed to [MQTT-4.7.3-3]", async () => {
		const topic = `${"x".repeat(65_532)}/ü`;
		const publisher = await RawClient.connect(broker);
		const live = await RawClient.connect(broker, durable());
		await live.subscribe(topic, { qos: 1 });
		await publisher.publishAcked(topic, "long", { retain: true });
		await take(live, { topic, payload: "long" });
		const later = await RawClient.connect(broker);
		await later.subscribe("+/ü", { qos: 1 });
		await take(later, { topic, payload: "long", retain: true });
		await publisher.publishAcked(topic, "", { retain: true });
	});
});

describe("topics of the broker's own in MQTT 5.0", () => {
	const broker = suiteBroker();

	for (const { kind, options } of SESSION_KINDS) {
		test(`topics: filters of a ${kind} that begin with a wildcard match no topic that begins with $, others do [MQTT-4.7.2-1]`, async () => {
			const wildcards = await RawClient.connect(broker, options());
			for (const filter of ["#", "+", "+/a", "+/#", "+/+"]) await wildcards.subscribe(filter, { qos: 1, rh: 2 });
			const own = await RawClient.connect(broker, options());
			for (const filter of ["$other/#", "$other/a", "$other/+"]) await own.subscribe(filter, { qos: 1, rh: 2 });
			await broker.shoal.publish("$other/a", "x", { qos: 1, retain: true });
			await broker.shoal.publish("$other", "y", { qos: 1 });
			assert.deepEqual((await takeMany(own, 2)).map(text), ["x", "y"]);
			await own.expectNothing();
			await wildcards.expectNothing();
			for (const filter of ["#", "+/a", "+/#"]) await wildcards.subscribe(filter, { qos: 1 });
			await wildcards.expectNothing();
			await own.subscribe("$other/+", { qos: 1 });
			await take(own, { payload: "x", retain: true });
		});
	}

	test("topics: a share group with a wildcard at the beginning gets no topic that begins with $ [MQTT-4.7.2-1]", async () => {
		const member = await RawClient.connect(broker);
		await member.subscribe("$share/g/#", { qos: 1 });
		await member.subscribe("$share/h/$other/#", { qos: 1 });
		await broker.shoal.publish("$other/a", "x", { qos: 1 });
		await take(member, { payload: "x" });
		await member.expectNothing();
	});

	for (const topic of ["$SYS/broker/version", "$private/a", "$", "$share/g/a"]) {
		test(`topics: a client that publishes to ${topic} is told that it may not, and nobody gets that`, async () => {
			const client = await RawClient.connect(broker);
			await client.subscribe(`${topic}/#`, { qos: 2 });
			client.publish(topic, "x", { qos: 1, retain: true, messageId: 1 });
			await client.expect("puback", { messageId: 1, reasonCode: 0x87 });
			client.publish(topic, "x", { qos: 2, retain: true, messageId: 2 });
			await client.expect("pubrec", { messageId: 2, reasonCode: 0x87 });
			client.publish(topic, "x", { retain: true });
			await client.subscribe(`${topic}/#`, { qos: 2 });
			await client.expectNothing();
		});
	}
});

describe("bad topic filters in MQTT 5.0", () => {
	const broker = suiteBroker({ maxTopicLevels: 10 });

	for (const [filter, statement] of BAD_FILTERS) {
		test(`topics: the filter "${filter}" is refused with 0x8f and the connection goes on ${statement}`, async () => {
			const client = await RawClient.connect(broker);
			for (const bad of [filter, `$share/group/${filter}`]) {
				const { granted } = await client.subscribe(bad, { qos: 1 });
				assert.deepEqual([...granted], [0x8f]);
			}
			await client.expectNothing();
		});
	}

	test("topics: a filter with more levels than the broker takes is refused, a topic with more ends the connection with 0x90", async () => {
		const client = await RawClient.connect(broker);
		const { granted } = await client.subscribe("a/".repeat(10));
		assert.deepEqual([...granted], [0x8f]);
		assert.deepEqual([...(await client.subscribe("a/".repeat(9))).granted], [0]);
		client.publish("a/".repeat(9), "x");
		await take(client, { payload: "x" });
		client.publish("a/".repeat(10), "x");
		await client.expectDisconnect(0x90);
	});
});

function topicOf({ topic }: AnyPacket): string {
	return topic;
}
