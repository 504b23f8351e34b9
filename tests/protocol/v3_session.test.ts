import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AnyPacket, type ConnectOptions, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { V3_VERSIONS } from "../support/v3.ts";

describe("v3 sessions", () => {
	const broker = suiteBroker();

	for (const { version, name } of V3_VERSIONS) {
		const connect = (options: ConnectOptions = {}) => RawClient.connect(broker, { version, ...options });
		/** A client id, a topic, and the way to connect with a session that is kept. */
		const persistent = () => {
			const clientId = freshId();
			return {
				topic: freshId("topic"),
				connect: () => connect({ clientId, clean: false }),
				clean: () => connect({ clientId, clean: true }),
			};
		};
		/** Session Present as this version shows it: 3.1 has no such flag. */
		const present = version === 4;

		test(`${name}: CleanSession 0 creates a session, keeps it after the disconnect and resumes it [v3 MQTT-3.1.2-4] [v3 MQTT-3.2.2-2] [v3 MQTT-3.2.2-3] [v3 MQTT-3.1.4-3]`, async () => {
			const session = persistent();
			const first = await session.connect();
			assert.equal(first.connack.sessionPresent, false);
			await first.subscribe(session.topic, { qos: 1 });
			await first.disconnect();
			const second = await session.connect();
			assert.equal(second.connack.sessionPresent, present);
			await broker.shoal.publish(session.topic, "without another SUBSCRIBE", { qos: 1 });
			await second.expect("publish", { topic: session.topic, payload: "without another SUBSCRIBE", qos: 1 });
		});

		test(`${name}: a broken connection keeps the session as a DISCONNECT does [v3 MQTT-3.1.2-4]`, async () => {
			const session = persistent();
			const first = await session.connect();
			await first.subscribe(session.topic, { qos: 1 });
			await first.destroy();
			await broker.shoal.publish(session.topic, "meanwhile", { qos: 1 });
			const second = await session.connect();
			assert.equal(second.connack.sessionPresent, present);
			await second.expect("publish", { payload: "meanwhile" });
		});

		test(`${name}: QoS 1 and 2 messages for an offline session are stored and come after CONNACK, in order [v3 MQTT-3.1.2-5] [v3 MQTT-3.2.0-1]`, async () => {
			const session = persistent();
			const first = await session.connect();
			await first.subscribe(session.topic, { qos: 2 });
			await first.disconnect();
			const publisher = await connect();
			for (const payload of ["one", "two", "three"]) {
				for (const qos of [1, 2]) await publisher.publishAcked(session.topic, payload, { qos });
			}
			// `connect` sees to it that CONNACK is the first packet.
			const second = await session.connect();
			const came: AnyPacket[] = [];
			for (let count = 0; count < 6; count++) came.push(await second.expect("publish", { dup: false, retain: false }));
			for (const qos of [1, 2]) {
				const payloads = came.filter((one) => one.qos === qos).map((one) => `${one.payload}`);
				assert.deepEqual(payloads, ["one", "two", "three"], `QoS ${qos}`);
			}
		});

		test(`${name}: CleanSession 1 discards the old session and its messages, and ends with the connection [v3 MQTT-3.1.2-6] [v3 MQTT-3.2.2-1]`, async () => {
			const session = persistent();
			const first = await session.connect();
			await first.subscribe(session.topic, { qos: 1 });
			await first.disconnect();
			await broker.shoal.publish(session.topic, "for the old session", { qos: 1 });
			const clean = await session.clean();
			assert.equal(clean.connack.sessionPresent, false);
			await broker.shoal.publish(session.topic, "for nobody", { qos: 1 });
			await clean.expectNothing();
			await clean.subscribe(session.topic, { qos: 1 });
			await clean.disconnect();
			const last = await session.connect();
			assert.equal(last.connack.sessionPresent, false);
			await broker.shoal.publish(session.topic, "for nobody either", { qos: 1 });
			await last.expectNothing();
		});

		test(`${name}: retained messages are no part of the session and survive it [v3 MQTT-3.1.2-7]`, async () => {
			const session = persistent();
			const first = await session.connect();
			await first.publishAcked(session.topic, "stays", { retain: true });
			await first.disconnect();
			const clean = await session.clean();
			await clean.disconnect();
			const reader = await connect();
			await reader.subscribe(session.topic);
			await reader.expect("publish", { payload: "stays", retain: true });
		});

		test(`${name}: the client id tells sessions apart [v3 MQTT-3.1.3-2]`, async () => {
			const [a, b] = [persistent(), persistent()];
			for (const session of [a, b]) {
				const client = await session.connect();
				await client.subscribe(session.topic, { qos: 1 });
				await client.disconnect();
			}
			await broker.shoal.publish(a.topic, "for a", { qos: 1 });
			await broker.shoal.publish(b.topic, "for b", { qos: 1 });
			const [clientA, clientB] = [await a.connect(), await b.connect()];
			await clientA.expect("publish", { payload: "for a" });
			await clientB.expect("publish", { payload: "for b" });
			await clientA.expectNothing();
			await clientB.expectNothing();
		});

		test(`${name}: a byte order mark belongs to a client id and is not stripped [v3 MQTT-1.5.3-3]`, async () => {
			const clientId = freshId();
			const plain = await connect({ clientId });
			const marked = await connect({ clientId: `\uFEFF${clientId}` });
			await marked.expectNothing();
			await plain.expectNothing();
		});

		test(`${name}: unacknowledged PUBLISH and PUBREL are sent again with their ids, DUP and order [v3 MQTT-4.4.0-1] [v3 MQTT-3.3.1-1] [v3 MQTT-2.3.1-4] [v3 MQTT-4.6.0-1] [v3 MQTT-4.1.0-1]`, async () => {
			const session = persistent();
			const first = await session.connect();
			await first.subscribe(session.topic, { qos: 2 });
			const publisher = await connect();
			for (const [payload, qos] of [
				["a", 1],
				["b", 2],
				["c", 2],
				["d", 1],
				["e", 1],
			] as const) {
				await publisher.publishAcked(session.topic, payload, { qos });
			}
			const sent: AnyPacket[] = [];
			for (let count = 0; count < 5; count++) sent.push(await first.expect("publish", { dup: false }));
			assert.deepEqual(sent.map((one) => `${one.payload}`).sort(), ["a", "b", "c", "d", "e"]);
			const idOf = (payload: string) => sent.find((one) => `${one.payload}` === payload).messageId;
			first.send({ cmd: "puback", messageId: idOf("d") });
			first.send({ cmd: "pubrec", messageId: idOf("b") });
			await first.expect("pubrel", { messageId: idOf("b") });
			await first.destroy();

			const second = await session.connect();
			const again = [];
			for (let count = 0; count < 4; count++) again.push(await second.receive());
			const publishes = again.filter((one) => one.cmd === "publish");
			const expected = sent.filter((one) => "ace".includes(`${one.payload}`));
			assert.deepEqual(
				publishes.map(({ payload, messageId, qos, dup }) => ({ payload: `${payload}`, messageId, qos, dup })),
				expected.map(({ payload, messageId, qos }) => ({ payload: `${payload}`, messageId, qos, dup: true })),
			);
			assert.deepEqual(
				again.filter((one) => one.cmd === "pubrel").map((one) => one.messageId),
				[idOf("b")],
			);
			await second.expectNothing();
		});

		test(`${name}: what was sent in a burst is sent again in the order in which it was sent first [v3 MQTT-4.6.0-1]`, async () => {
			const session = persistent();
			const first = await session.connect();
			await first.subscribe(session.topic, { qos: 2 });
			await first.disconnect();
			const publisher = await connect();
			for (let index = 0; index < 12; index++)
				await publisher.publishAcked(session.topic, `${index}`, { qos: 1 + (index % 3 === 0 ? 1 : 0) });
			const receiveAll = async (client: RawClient) => {
				const payloads: string[] = [];
				for (let count = 0; count < 12; count++) payloads.push(`${(await client.expect("publish")).payload}`);
				return payloads;
			};
			const second = await session.connect();
			const sent = await receiveAll(second);
			await second.disconnect();
			const third = await session.connect();
			assert.deepEqual(await receiveAll(third), sent);
			await third.destroy();
			const fourth = await session.connect();
			assert.deepEqual(await receiveAll(fourth), sent);
		});

		test(`${name}: an inbound QoS 2 id that waits for PUBREL is known after the reconnect [v3 MQTT-4.1.0-1] [v3 MQTT-4.3.3-2]`, async () => {
			const session = persistent();
			const watcher = await connect();
			await watcher.subscribe(session.topic, { qos: 2 });
			const first = await session.connect();
			first.publish(session.topic, "once", { qos: 2, messageId: 77 });
			await first.expect("pubrec", { messageId: 77 });
			await first.destroy();
			const second = await session.connect();
			second.publish(session.topic, "once", { qos: 2, messageId: 77, dup: true });
			await second.expect("pubrec", { messageId: 77 });
			second.send({ cmd: "pubrel", messageId: 77 });
			await second.expect("pubcomp", { messageId: 77 });
			const { messageId } = await watcher.expect("publish", { payload: "once" });
			watcher.send({ cmd: "pubrec", messageId });
			await watcher.expect("pubrel", { messageId });
			watcher.send({ cmd: "pubcomp", messageId });
			await watcher.expectNothing();
		});

		test(`${name}: a clean session lasts as long as its connection, with subscriptions and unacknowledged messages [v3 MQTT-4.1.0-2]`, async () => {
			const topic = freshId("topic");
			const client = await connect();
			await client.subscribe(topic, { qos: 1 });
			await broker.shoal.publish(topic, "first", { qos: 1 });
			const { messageId } = await client.expect("publish", { payload: "first" });
			for (let count = 0; count < 5; count++) await (await connect()).disconnect();
			await broker.shoal.publish(topic, "second", { qos: 1 });
			const second = await client.expect("publish", { payload: "second" });
			assert.notEqual(second.messageId, messageId, "the first one's id is still in use");
			client.send({ cmd: "puback", messageId });
			client.send({ cmd: "puback", messageId: second.messageId });
			await client.expectNothing();
		});

		test(`${name}: a takeover resumes the session on the new connection, with what is in flight [v3 MQTT-3.1.4-2] [v3 MQTT-4.4.0-1]`, async () => {
			const session = persistent();
			const older = await session.connect();
			await older.subscribe(session.topic, { qos: 1 });
			await broker.shoal.publish(session.topic, "in flight", { qos: 1 });
			const { messageId } = await older.expect("publish", { payload: "in flight" });
			const newer = await session.connect();
			assert.equal(newer.connack.sessionPresent, present);
			await newer.expect("publish", { payload: "in flight", dup: true, messageId });
			await older.expectClosed();
			newer.send({ cmd: "puback", messageId });
			await broker.shoal.publish(session.topic, "next", { qos: 1 });
			await newer.expect("publish", { payload: "next", dup: false });
		});

		test(`${name}: an acknowledged message does not come again after a reconnect [v3 MQTT-4.4.0-1]`, async () => {
			const session = persistent();
			const first = await session.connect();
			await first.subscribe(session.topic, { qos: 2 });
			await broker.shoal.publish(session.topic, "one", { qos: 1 });
			const one = await first.expect("publish", { payload: "one" });
			first.send({ cmd: "puback", messageId: one.messageId });
			await broker.shoal.publish(session.topic, "two", { qos: 2 });
			const { messageId } = await first.expect("publish", { payload: "two" });
			first.send({ cmd: "pubrec", messageId });
			await first.expect("pubrel", { messageId });
			first.send({ cmd: "pubcomp", messageId });
			await first.expectNothing();
			await first.disconnect();
			const second = await session.connect();
			await second.expectNothing();
		});
	}
});
