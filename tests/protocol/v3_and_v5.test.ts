import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytes, field, packet, u16 } from "../mqtt/wire.ts";
import { type ConnectOptions, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { V3_VERSIONS } from "../support/v3.ts";

/** Everything that a v5 publisher can say about a message. */
const PROPERTIES = {
	payloadFormatIndicator: true,
	messageExpiryInterval: 1000,
	contentType: "text/plain",
	responseTopic: "answer/here",
	correlationData: Buffer.from([1, 2, 3]),
	userProperties: { a: ["1", "2"], b: "3" },
};

describe("v3 and v5 clients together", () => {
	const broker = suiteBroker();

	test("messages stored for an offline v3 session lose their v5 properties, but those that expire are dropped for it too", async () => {
		const topic = freshId("topic");
		const sleepers = V3_VERSIONS.map(({ version }) => ({ version, clientId: freshId(), clean: false }));
		for (const sleeper of sleepers) {
			const client = await RawClient.connect(broker, sleeper);
			await client.subscribe(topic, { qos: 2 });
			await client.disconnect();
		}
		const publisher = await RawClient.connect(broker);
		await publisher.publishAcked(topic, "gone", { properties: { messageExpiryInterval: 1 } });
		await publisher.publishAcked(topic, "stays", { qos: 2, properties: PROPERTIES });
		await new Promise((resolve) => setTimeout(resolve, 1_100));
		for (const sleeper of sleepers) {
			const client = await RawClient.connect(broker, sleeper);
			const { messageId } = await client.expect("publish", { payload: "stays", qos: 2 });
			const connack = [0x20, 2, sleeper.version === 4 ? 1 : 0, 0];
			assert.deepEqual(bytes(...client.bytes), bytes(connack, packet(0x34, field(topic), u16(messageId), Buffer.from("stays"))));
			await client.expectNothing();
		}
	});

	for (const { version, name } of V3_VERSIONS) {
		const old = (options: ConnectOptions = {}) => RawClient.connect(broker, { version, ...options });
		const modern = (options: ConnectOptions = {}) => RawClient.connect(broker, { version: 5, ...options });

		test(`a ${name} subscriber gets a v5 message without its properties, byte by byte what a v3 client would have sent`, async () => {
			const topic = freshId("topic");
			const [subscriber, publisher] = [await old(), await modern()];
			await subscriber.subscribe(topic, { qos: 1 });
			const before = subscriber.bytes.length;
			publisher.publish(topic, "hi", { properties: PROPERTIES });
			await subscriber.expect("publish", { payload: "hi" });
			assert.deepEqual(bytes(...subscriber.bytes.slice(before)), packet(0x30, field(topic), [0x68, 0x69]));
			const acked = subscriber.bytes.length;
			await publisher.publishAcked(topic, "hi", { properties: PROPERTIES });
			const { messageId } = await subscriber.expect("publish", { payload: "hi", qos: 1 });
			assert.deepEqual(bytes(...subscriber.bytes.slice(acked)), packet(0x32, field(topic), u16(messageId), [0x68, 0x69]));
		});

		test(`a v5 subscriber gets a ${name} message with no properties but its own subscription identifier`, async () => {
			const topic = freshId("topic");
			const [plain, numbered, publisher] = [await modern(), await modern(), await old()];
			await plain.subscribe(topic, { qos: 2 });
			await numbered.subscribe(topic, { qos: 2 }, { subscriptionIdentifier: 42 });
			const before = plain.bytes.length;
			publisher.publish(topic, "hi");
			await plain.expect("publish", { payload: "hi" });
			assert.deepEqual(bytes(...plain.bytes.slice(before)), packet(0x30, field(topic), [0, 0x68, 0x69]));
			await numbered.expect("publish", { payload: "hi", properties: { subscriptionIdentifier: 42 } });
			await publisher.publishAcked(topic, "two", { qos: 2 });
			await plain.expect("publish", { payload: "two", qos: 2 });
			await numbered.expect("publish", { payload: "two", qos: 2, properties: { subscriptionIdentifier: 42 } });
		});

		test(`the properties of a v5 message reach v5 subscribers whole although a ${name} client gets it too`, async () => {
			const topic = freshId("topic");
			const [first, second, last, publisher] = [await modern(), await old(), await modern(), await modern()];
			for (const subscriber of [first, second, last]) await subscriber.subscribe(topic);
			publisher.publish(topic, "hi", { properties: PROPERTIES });
			await second.expect("publish", { payload: "hi" });
			for (const subscriber of [first, last]) {
				const { properties } = await subscriber.expect("publish", { payload: "hi" });
				assert.deepEqual({ ...properties, userProperties: { ...properties.userProperties } }, PROPERTIES);
			}
		});

		test(`a retained v5 message loses nothing for v5 and its properties for ${name}, and the other way round`, async () => {
			const topic = freshId("retained");
			const [oldPublisher, modernPublisher] = [await old(), await modern()];
			await modernPublisher.publishAcked(topic, "v5", { retain: true, properties: { contentType: "a/b" } });
			const [oldReader, modernReader] = [await old(), await modern()];
			await oldReader.subscribe(topic);
			await oldReader.expect("publish", { payload: "v5", retain: true });
			await modernReader.subscribe(topic, { rap: true });
			await modernReader.expect("publish", { payload: "v5", retain: true, properties: { contentType: "a/b" } });
			await oldPublisher.publishAcked(topic, "v3", { retain: true });
			await oldReader.expect("publish", { payload: "v3", retain: false });
			const { properties } = await modernReader.expect("publish", { payload: "v3", retain: true });
			assert.ok(properties === undefined || Object.keys(properties).length === 0);
			await oldPublisher.publishAcked(topic, "", { retain: true });
			const late = await modern();
			await late.subscribe(topic);
			await late.expectNothing();
		});

		test(`a v5 will reaches a ${name} subscriber, a ${name} will a v5 subscriber`, async () => {
			const topic = freshId("will");
			const [oldWatcher, modernWatcher] = [await old(), await modern()];
			for (const watcher of [oldWatcher, modernWatcher]) await watcher.subscribe(topic, { qos: 1 });
			const will = { topic, payload: "v5", qos: 1, retain: false, properties: { contentType: "a/b", userProperties: { k: "v" } } };
			const modernClient = await modern({ will });
			await modernClient.destroy();
			await oldWatcher.expect("publish", { payload: "v5", qos: 1 });
			const { properties } = await modernWatcher.expect("publish", { payload: "v5", qos: 1 });
			assert.equal(properties.contentType, "a/b");
			const oldClient = await old({ will: { topic, payload: "v3", qos: 1, retain: false } });
			await oldClient.destroy();
			await oldWatcher.expect("publish", { payload: "v3" });
			await modernWatcher.expect("publish", { payload: "v3" });
		});

		test(`a v5 topic alias means nothing to a ${name} subscriber`, async () => {
			const topic = freshId("topic");
			const [subscriber, publisher] = [await old(), await modern()];
			await subscriber.subscribe(topic);
			publisher.publish(topic, "set", { properties: { topicAlias: 1 } });
			publisher.publish("", "used", { properties: { topicAlias: 1 } });
			await subscriber.expect("publish", { topic, payload: "set" });
			await subscriber.expect("publish", { topic, payload: "used" });
		});

		test(`a session goes from ${name} to v5 and back, with subscriptions and what is in flight`, async () => {
			const topic = freshId("topic");
			const clientId = freshId();
			const properties = { sessionExpiryInterval: 1000 };
			const first = await old({ clientId, clean: false });
			await first.subscribe(topic, { qos: 2 });
			await broker.shoal.publish(topic, "one", { qos: 1 });
			const one = await first.expect("publish", { payload: "one" });
			await first.destroy();

			const second = await modern({ clientId, clean: false, properties });
			assert.equal(second.connack.sessionPresent, true);
			await second.expect("publish", { payload: "one", dup: true, messageId: one.messageId });
			second.send({ cmd: "puback", messageId: one.messageId });
			await second.subscribe(`${topic}/more`, { qos: 1, rap: true }, { subscriptionIdentifier: 9 });
			await broker.shoal.publish(topic, "two", { qos: 2 });
			const two = await second.expect("publish", { payload: "two", qos: 2 });
			second.send({ cmd: "pubrec", messageId: two.messageId });
			await second.expect("pubrel", { messageId: two.messageId });

			const third = await old({ clientId, clean: false });
			await second.expectDisconnect(0x8e);
			await third.expect("pubrel", { messageId: two.messageId });
			third.send({ cmd: "pubcomp", messageId: two.messageId });
			await broker.shoal.publish(`${topic}/more`, "three", { qos: 1 });
			await third.expect("publish", { payload: "three", qos: 1 });
			await third.expectNothing();
		});

		test(`a ${name} connection that takes over tells the v5 client why, the other way round it just closes`, async () => {
			const clientId = freshId();
			const first = await modern({ clientId });
			const second = await old({ clientId });
			await first.expectDisconnect(0x8e);
			const third = await modern({ clientId });
			await second.expectClosed();
			await third.expectNothing();
		});

		test(`a refused publication of a v5 client and of a ${name} client are answered each in its own words`, async () => {
			const [oldClient, modernClient] = [await old(), await modern()];
			for (const qos of [1, 2]) {
				modernClient.publish("$SYS/forged", "", { qos, messageId: 3 });
				await modernClient.expect(qos === 1 ? "puback" : "pubrec", { reasonCode: 0x87 });
				await oldClient.publishAcked("$SYS/forged", "", { qos });
			}
		});

		test(`${name} and v5 members of a share group take turns, each in its own form`, async () => {
			const topic = freshId("topic");
			const members = [await old(), await modern()];
			for (const member of members) await member.subscribe(`$share/g/${topic}`, { qos: 1 });
			const publisher = await modern();
			for (let index = 0; index < 20; index++) await publisher.publishAcked(topic, `${index}`, { properties: { contentType: "a/b" } });
			const got: string[][] = [[], []];
			for (const [index, member] of members.entries()) {
				member.send({ cmd: "pingreq" });
				for (let one = await member.receive(); one.cmd === "publish"; one = await member.receive()) {
					got[index]?.push(`${one.payload}`);
					assert.equal(one.properties?.contentType, index === 1 ? "a/b" : undefined);
				}
			}
			assert.deepEqual(
				got.flat().sort((a, b) => Number(a) - Number(b)),
				Array.from({ length: 20 }, (_, index) => `${index}`),
			);
			assert.ok(
				got.every((list) => list.length > 0),
				"both had a part",
			);
		});
	}
});
