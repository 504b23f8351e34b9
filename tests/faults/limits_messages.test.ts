import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { assertServes } from "../support/canary.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker } from "../support/test_broker.ts";

const VERSIONS = [5, 4, 3] as const;
const KEPT = { sessionExpiryInterval: 1000 };

describe("limit RECEIVE_MAXIMUM (faults 22 and 26)", () => {
	const broker = suiteBroker({ receiveMaximum: 2 });
	const publishAll = (client: RawClient, topic: string, qos: number, ...ids: number[]) =>
		client.sendTogether(...ids.map((messageId) => ({ cmd: "publish", topic, payload: `${messageId}`, qos, messageId })));
	/** Codes of the DISCONNECT packets among the answers. */
	const ends = (answers: AnyPacket[]) => answers.filter(({ cmd }) => cmd === "disconnect").map(({ reasonCode }) => reasonCode);

	test("MQTT 5: CONNACK tells the limit", async () => {
		const client = await RawClient.connect(broker);
		assert.equal(client.connack.properties.receiveMaximum, 2);
	});

	test("MQTT 5: a QoS 2 publication more than the limit without PUBREL is ended with 0x93", async () => {
		const client = await RawClient.connect(broker);
		publishAll(client, "t", 2, 1, 2);
		await client.expect("pubrec", { messageId: 1 });
		await client.expect("pubrec", { messageId: 2 });
		publishAll(client, "t", 2, 3);
		await client.expectDisconnect(0x93);
		await assertServes(broker);
	});

	test("MQTT 5: QoS 1 publications more than the limit, sent at once, are ended with 0x93", async () => {
		const topic = freshId("topic");
		// Somebody for whom they must be stored, so that the acknowledgements cannot be there before the next packet.
		const sleeper = await RawClient.connect(broker, { clean: false, properties: KEPT });
		await sleeper.subscribe(topic, { qos: 1 });
		await sleeper.disconnect();
		const client = await RawClient.connect(broker);
		publishAll(client, topic, 1, 1, 2, 3);
		assert.deepEqual(ends(await client.receiveUntilClosed()), [0x93]);
		await assertServes(broker);
	});

	test("MQTT 5: a repeated id does not count twice, a released one no more", async () => {
		const topic = freshId("topic");
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe(topic);
		const client = await RawClient.connect(broker);
		publishAll(client, topic, 2, 1, 2, 1, 2, 1);
		for (const messageId of [1, 2]) {
			client.send({ cmd: "pubrel", messageId });
			for (let answer = await client.receive(); answer.cmd !== "pubcomp"; answer = await client.receive())
				assert.equal(answer.cmd, "pubrec");
		}
		publishAll(client, topic, 2, 3, 4);
		for (const messageId of [3, 4]) await client.expect("pubrec", { messageId });
		for (const payload of ["1", "2", "3", "4"]) await watcher.expect("publish", { payload });
		await watcher.expectNothing();
	});

	test("MQTT 5: ids that wait for PUBREL count after a reconnect, too", async () => {
		const session = { clientId: freshId(), clean: false, properties: KEPT };
		const first = await RawClient.connect(broker, session);
		publishAll(first, "t", 2, 1, 2);
		await first.expect("pubrec");
		await first.expect("pubrec");
		await first.destroy();
		const second = await RawClient.connect(broker, session);
		publishAll(second, "t", 2, 3);
		await second.expectDisconnect(0x93);
	});

	for (const version of [4, 3] as const) {
		test(`MQTT level ${version} knows no such limit: it has as many QoS 2 publications open as it likes`, async () => {
			const client = await RawClient.connect(broker, { version });
			const ids = Array.from({ length: 100 }, (_, index) => index + 1);
			publishAll(client, "t", 2, ...ids);
			for (const messageId of ids) await client.expect("pubrec", { messageId });
		});
	}
});

describe("limit MAX_INFLIGHT (fault 27)", () => {
	const broker = suiteBroker({ maxInflight: 3 });

	for (const version of VERSIONS) {
		for (const clean of [true, false]) {
			for (const qos of [1, 2]) {
				test(`MQTT level ${version}, ${clean ? "clean" : "persistent"} session, QoS ${qos}: a client that never acknowledges gets so many deliveries, under ids that are not in use, and the rest once it does`, async () => {
					const topic = freshId("topic");
					const client = await RawClient.connect(broker, { version, clientId: freshId(), clean, properties: clean ? {} : KEPT });
					await client.subscribe(topic, { qos });
					for (let index = 0; index < 10; index++) await broker.shoal.publish(topic, `${index}`, { qos: 2 });
					const open = new Set<number>();
					let next = 0;
					const opened = ({ cmd, payload, messageId, dup }: AnyPacket) => {
						assert.deepEqual([cmd, `${payload}`, dup], ["publish", `${next++}`, false]);
						assert.ok(open.size < 3, "there is room for it");
						assert.ok(!open.has(messageId), "its id is not in use");
						open.add(messageId);
					};
					while (open.size < 3) opened(await client.receive());
					await client.expectNothing();
					const acknowledge = (messageId: number) => {
						client.send({ cmd: qos === 1 ? "puback" : "pubrec", messageId });
						if (qos === 1) open.delete(messageId);
					};
					for (const messageId of open) acknowledge(messageId);
					while (next < 10) {
						const one = await client.receive();
						if (one.cmd === "pubrel") {
							client.send({ cmd: "pubcomp", messageId: one.messageId });
							open.delete(one.messageId);
						} else {
							opened(one);
							acknowledge(one.messageId);
						}
					}
				});
			}
		}
	}

	test("ids go round from 65,535 to 1 and pass over the one that is still in use [v3 MQTT-2.3.1-4]", async () => {
		const topic = freshId("topic");
		const client = await RawClient.connect(broker, { version: 4 });
		await client.subscribe(topic, { qos: 1 });
		await broker.shoal.publish(topic, "held", { qos: 1 });
		const { messageId: held } = await client.expect("publish", { payload: "held" });
		const seen = new Set<number>();
		for (let count = 0; count < 65_600; count += 2) {
			for (const payload of ["a", "b"]) await broker.shoal.publish(topic, payload, { qos: 1 });
			const acknowledgements = [];
			for (const payload of ["a", "b"]) {
				const { messageId } = await client.expect("publish", { payload });
				assert.ok(messageId !== held && messageId > 0);
				seen.add(messageId);
				acknowledgements.push({ cmd: "puback", messageId });
			}
			client.sendTogether(...acknowledgements);
		}
		assert.equal(seen.size, 65_534, "all but 0 and the one in use");
	});

	test("MQTT 5: a smaller Receive Maximum of the client binds more", async () => {
		const topic = freshId("topic");
		const client = await RawClient.connect(broker, { properties: { receiveMaximum: 1 } });
		await client.subscribe(topic, { qos: 1 });
		for (const payload of ["0", "1"]) await broker.shoal.publish(topic, payload, { qos: 1 });
		const { messageId } = await client.expect("publish", { payload: "0" });
		await client.expectNothing();
		client.send({ cmd: "puback", messageId });
		await client.expect("publish", { payload: "1" });
	});
});

describe("limit MAX_QUEUED_MESSAGES", () => {
	for (const version of VERSIONS) {
		test(`MQTT level ${version}: what waits for a connected client beyond the limit is dropped and counted`, async (t) => {
			const broker = await startBroker(t, { maxInflight: 1, maxQueuedMessages: 5 });
			const client = await RawClient.connect(broker, { version });
			await client.subscribe("t", { qos: 1 });
			const other = await RawClient.connect(broker, { version });
			await other.subscribe("t", { qos: 0 });
			for (let index = 0; index < 10; index++) await broker.shoal.publish("t", `${index}`, { qos: 1 });
			assert.equal(broker.shoal.metrics.dropped.queueFull, 4);
			for (let index = 0; index < 6; index++) {
				const { messageId } = await client.expect("publish", { payload: `${index}` });
				client.send({ cmd: "puback", messageId });
			}
			await client.expectNothing();
			for (let index = 0; index < 10; index++) await other.expect("publish", { payload: `${index}` });
			await broker.shoal.publish("t", "again", { qos: 1 });
			await client.expect("publish", { payload: "again" });
		});
	}
});

describe("limit LOG_MAX_MESSAGES (fault 25)", () => {
	for (const version of VERSIONS) {
		test(`MQTT level ${version}: of what is stored for a session that stays away the oldest is dropped, and counted when it comes`, async (t) => {
			const broker = await startBroker(t, { logMaxMessages: 5 });
			const session = { version, clientId: freshId(), clean: false, properties: KEPT };
			const first = await RawClient.connect(broker, session);
			await first.subscribe("log/+", { qos: 2 });
			await first.subscribe("other", { qos: 1 });
			await first.disconnect();
			await broker.shoal.publish("other", "untouched", { qos: 1 });
			for (let index = 0; index < 12; index++) await broker.shoal.publish(`log/${index}`, `${index}`, { qos: 1 });
			const second = await RawClient.connect(broker, session);
			await second.expect("publish", { topic: "other", payload: "untouched" });
			for (let index = 7; index < 12; index++) await second.expect("publish", { topic: `log/${index}`, payload: `${index}` });
			await second.expectNothing();
			assert.equal(broker.shoal.metrics.dropped.logTrimmed, 7);
		});
	}
});

describe("limit MAX_RETAINED_MESSAGES", () => {
	test("MQTT 5: one topic too many is refused with 0x97, others can still be replaced and removed", async (t) => {
		const broker = await startBroker(t, { maxRetainedMessages: 2 });
		const client = await RawClient.connect(broker);
		const retain = async (topic: string, payload: string, qos: 1 | 2) => {
			client.publish(topic, payload, { retain: true, qos, messageId: 4 });
			const { reasonCode = 0 } = await client.expect(qos === 1 ? "puback" : "pubrec", { messageId: 4 });
			if (qos === 2 && reasonCode < 0x80) {
				client.send({ cmd: "pubrel", messageId: 4 });
				await client.expect("pubcomp");
			}
			return reasonCode < 0x80 ? "stored" : reasonCode;
		};
		assert.equal(await retain("a", "1", 1), "stored");
		assert.equal(await retain("b", "1", 2), "stored");
		assert.equal(await retain("c", "1", 1), 0x97);
		assert.equal(await retain("c", "1", 2), 0x97);
		client.publish("c", "1", { retain: true });
		await client.expectNothing();
		assert.equal(broker.shoal.metrics.dropped.storeFailed, 3);
		assert.equal(broker.shoal.metrics.publishesRefused.get(0x97), 2);
		assert.equal(await retain("a", "2", 1), "stored");
		assert.equal(await retain("b", "", 1), "stored");
		assert.equal(await retain("never there", "", 1), "stored");
		assert.equal(await retain("c", "2", 2), "stored");
		const reader = await RawClient.connect(broker);
		await reader.subscribe("#");
		await reader.expect("publish", { topic: "a", payload: "2" });
		await reader.expect("publish", { topic: "c", payload: "2" });
		await reader.expectNothing();
	});

	test("a limit of 0 retains nothing", async (t) => {
		const broker = await startBroker(t, { maxRetainedMessages: 0 });
		const client = await RawClient.connect(broker);
		await client.publishAcked("a", "not retained");
		client.publish("a", "retained", { retain: true, qos: 1, messageId: 1 });
		await client.expect("puback", { reasonCode: 0x97 });
		await client.subscribe("#");
		await client.expectNothing();
	});
});
