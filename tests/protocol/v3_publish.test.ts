import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytes, field, packet, u16 } from "../mqtt/wire.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { BAD_STRINGS, V3_VERSIONS } from "../support/v3.ts";

describe("v3 PUBLISH", () => {
	const broker = suiteBroker();

	for (const { version, name } of V3_VERSIONS) {
		const connect = () => RawClient.connect(broker, { version });
		/** A publisher, and a subscriber to a topic of their own. */
		const pair = async (qos = 2) => {
			const topic = freshId("topic");
			const subscriber = await connect();
			await subscriber.subscribe(topic, { qos });
			return { topic, subscriber, publisher: await connect() };
		};
		/** Sends bytes on a connection that is open, which must end without a word. */
		const closes = async (what: string, ...sent: (Uint8Array | number[])[]) => {
			const client = await connect();
			client.sendBytes(bytes(...sent));
			assert.deepEqual(await client.receiveUntilClosed(), [], what);
		};

		test(`${name}: a PUBLISH is answered according to its QoS, with its id [v3 MQTT-3.3.4-1] [v3 MQTT-2.3.1-6]`, async () => {
			const publisher = await connect();
			publisher.publish("t", "0");
			await publisher.expectNothing();
			publisher.publish("t", "1", { qos: 1, messageId: 0x1234 });
			await publisher.expect("puback", { messageId: 0x1234 });
			publisher.publish("t", "2", { qos: 2, messageId: 0xffff });
			await publisher.expect("pubrec", { messageId: 0xffff });
			publisher.send({ cmd: "pubrel", messageId: 0xffff });
			await publisher.expect("pubcomp", { messageId: 0xffff });
		});

		test(`${name}: acknowledgements, UNSUBACK and PINGRESP have their reserved bits and lengths [v3 MQTT-2.2.2-1] [v3 MQTT-3.6.1-1]`, async () => {
			const { topic, subscriber, publisher } = await pair();
			const start = publisher.bytes.length;
			publisher.publish(topic, "1", { qos: 1, messageId: 1 });
			await publisher.expect("puback");
			publisher.publish(topic, "2", { qos: 2, messageId: 2 });
			await publisher.expect("pubrec");
			publisher.send({ cmd: "pubrel", messageId: 2 });
			await publisher.expect("pubcomp");
			publisher.send({ cmd: "unsubscribe", messageId: 3, unsubscriptions: ["t"] });
			await publisher.expect("unsuback");
			await publisher.expectNothing();
			assert.equal(
				Buffer.concat(publisher.bytes.slice(start)).toString("hex"),
				["40020001", "50020002", "70020002", "b0020003", "d000"].join(""),
			);
			await subscriber.expect("publish", { qos: 1 });
			const { messageId } = await subscriber.expect("publish", { qos: 2 });
			const before = subscriber.bytes.length;
			subscriber.send({ cmd: "pubrec", messageId });
			await subscriber.expect("pubrel", { messageId });
			assert.deepEqual([...Buffer.concat(subscriber.bytes.slice(before))], [0x62, 2, ...u16(messageId)]);
		});

		test(`${name}: QoS 0 has no packet id and DUP 0 [v3 MQTT-2.3.1-5] [v3 MQTT-3.3.1-2] [v3 MQTT-4.3.1-1]`, async () => {
			const { topic, subscriber, publisher } = await pair(0);
			const before = subscriber.bytes.length;
			publisher.publish(topic, "x");
			await subscriber.expect("publish", { qos: 0, dup: false });
			assert.deepEqual(bytes(...subscriber.bytes.slice(before)), packet(0x30, field(topic), [0x78]));
		});

		test(`${name}: DUP on QoS 0 closes the connection [v3 MQTT-3.3.1-2]`, async () => {
			await closes("DUP", packet(0x38, field("t"), [0x78]));
		});

		test(`${name}: QoS 3 closes the connection [v3 MQTT-3.3.1-4]`, async () => {
			await closes("QoS 3", packet(0x36, field("t"), u16(1)));
		});

		test(`${name}: packet id 0 closes the connection [v3 MQTT-2.3.1-1]`, async () => {
			await closes("PUBLISH", packet(0x32, field("t"), u16(0)));
			await closes("SUBSCRIBE", packet(0x82, u16(0), field("t"), [0]));
			await closes("UNSUBSCRIBE", packet(0xa2, u16(0), field("t")));
		});

		test(`${name}: flags that a packet may not have close the connection [v3 MQTT-2.2.2-2] [v3 MQTT-3.6.1-1] [v3 MQTT-4.8.0-1]`, async () => {
			for (const first of [0x41, 0x5f, 0x60, 0x64, 0x63, 0x72]) await closes(`0x${first.toString(16)}`, [first, 2, 0, 1]);
			for (const first of [0xc1, 0xc8]) await closes(`0x${first.toString(16)}`, [first, 0]);
			// What only 3.1 allowed: DUP on a PUBREL that is sent again.
			if (version === 4) await closes("0x6a", [0x6a, 2, 0, 1]);
		});

		test(`${name}: packets that only a server sends, and types 0 and 15, close the connection [v3 MQTT-4.8.0-1]`, async () => {
			for (const sent of [
				[0x20, 2, 0, 0],
				[0x90, 3, 0, 1, 0],
				[0xb0, 2, 0, 1],
				[0xd0, 0],
				[0, 0],
				[0xf0, 0],
			])
				await closes(`0x${sent[0]?.toString(16)}`, sent);
		});

		test(`${name}: a topic name must be UTF-8 without U+0000 and stand first [v3 MQTT-3.3.2-1] [v3 MQTT-1.5.3-1] [v3 MQTT-1.5.3-2] [v3 MQTT-4.7.3-2]`, async () => {
			for (const [what, text] of BAD_STRINGS) await closes(what, packet(0x30, field(text), [0x78]));
			await closes("cut inside the name", packet(0x30, u16(4), [0x61]));
			await closes("no name", packet(0x30));
		});

		test(`${name}: a byte order mark in a topic name or filter is kept and makes it another one [v3 MQTT-1.5.3-3]`, async () => {
			const { topic, subscriber, publisher } = await pair();
			const marked = `\uFEFF${topic}`;
			const other = await connect();
			await other.subscribe(marked);
			publisher.publish(marked, "marked");
			publisher.publish(topic, "plain");
			await other.expect("publish", { topic: marked, payload: "marked" });
			await subscriber.expect("publish", { topic, payload: "plain" });
			await other.expectNothing();
		});

		test(`${name}: wildcards in a topic name close the connection [v3 MQTT-3.3.2-2] [v3 MQTT-4.7.1-1]`, async () => {
			for (const topic of ["a/+/b", "a/#", "#", "+", "a+", "#a"]) await closes(topic, packet(0x30, field(topic), [0x78]));
		});

		test(`${name}: an empty topic name closes the connection [v3 MQTT-4.7.3-1]`, async () => {
			await closes("empty", packet(0x30, field(""), [0x78]));
		});

		test(`${name}: a topic of 65,535 bytes is a topic [v3 MQTT-4.7.3-3]`, async () => {
			const { subscriber, publisher } = await pair();
			const topic = "long/".padEnd(65_535, "x");
			await subscriber.subscribe(topic);
			publisher.publish(topic, "here");
			const delivered = await subscriber.expect("publish", { payload: "here" });
			assert.equal(delivered.topic, topic);
		});

		test(`${name}: what is forwarded keeps topic and payload as they are [v3 MQTT-3.3.2-3] [v3 MQTT-4.5.0-1]`, async () => {
			const { topic, subscriber, publisher } = await pair();
			await subscriber.subscribe(`${topic}/+/é`);
			const payload = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
			publisher.publish(`${topic}/level/é`, payload);
			publisher.publish(topic, "");
			const delivered = await subscriber.expect("publish", { topic: `${topic}/level/é` });
			assert.deepEqual([...delivered.payload], [...payload]);
			await subscriber.expect("publish", { topic, payload: "" });
		});

		test(`${name}: DUP of a delivery does not come from the publisher's [v3 MQTT-3.3.1-3]`, async () => {
			const { topic, subscriber, publisher } = await pair();
			publisher.publish(topic, "1", { qos: 1, messageId: 5, dup: true });
			publisher.publish(topic, "2", { qos: 2, messageId: 6, dup: true });
			await subscriber.expect("publish", { payload: "1", dup: false });
			await subscriber.expect("publish", { payload: "2", dup: false });
		});

		test(`${name}: after PUBACK the same id is a new message, whatever its DUP [v3 MQTT-4.3.2-2]`, async () => {
			const { topic, subscriber, publisher } = await pair();
			await publisher.publishAcked(topic, "first", { messageId: 5 });
			await publisher.publishAcked(topic, "second", { messageId: 5, dup: true });
			await subscriber.expect("publish", { payload: "first" });
			await subscriber.expect("publish", { payload: "second" });
		});

		test(`${name}: a QoS 2 message that is repeated before PUBREL is not delivered again, after it the id is new [v3 MQTT-4.3.3-2]`, async () => {
			const { topic, subscriber, publisher } = await pair(0);
			for (const dup of [false, true, true]) {
				publisher.publish(topic, "once", { qos: 2, messageId: 8, dup });
				await publisher.expect("pubrec", { messageId: 8 });
			}
			for (let count = 0; count < 2; count++) {
				publisher.send({ cmd: "pubrel", messageId: 8 });
				await publisher.expect("pubcomp", { messageId: 8 });
			}
			await publisher.publishAcked(topic, "new", { qos: 2, messageId: 8 });
			await subscriber.expect("publish", { payload: "once" });
			await subscriber.expect("publish", { payload: "new" });
			await subscriber.expectNothing();
		});

		test(`${name}: deliveries have ids that are not 0 and not in use, until each is acknowledged [v3 MQTT-2.3.1-4] [v3 MQTT-4.3.2-1]`, async () => {
			const { topic, subscriber, publisher } = await pair(1);
			const inUse = new Set<number>();
			for (let round = 0; round < 20; round++) {
				await publisher.publishAcked(topic, `${round}`);
				const { messageId } = await subscriber.expect("publish", { payload: `${round}`, qos: 1, dup: false });
				assert.ok(messageId > 0 && !inUse.has(messageId), `id ${messageId} is free`);
				if (round % 2 === 0) inUse.add(messageId);
				else subscriber.send({ cmd: "puback", messageId });
			}
			// Not acknowledged, and yet not sent again while the connection lives.
			await subscriber.expectNothing();
		});

		test(`${name}: a QoS 2 delivery goes PUBLISH, PUBREC, PUBREL, PUBCOMP under one id, which is in use until then [v3 MQTT-4.3.3-1] [v3 MQTT-2.3.1-6]`, async () => {
			const { topic, subscriber, publisher } = await pair();
			await publisher.publishAcked(topic, "exactly once", { qos: 2 });
			const { messageId } = await subscriber.expect("publish", { payload: "exactly once", qos: 2, dup: false });
			// PUBREL waits for PUBREC, and a PUBCOMP in its place changes nothing.
			subscriber.send({ cmd: "pubcomp", messageId });
			await subscriber.expectNothing();
			for (let count = 0; count < 2; count++) {
				subscriber.send({ cmd: "pubrec", messageId });
				await subscriber.expect("pubrel", { messageId });
			}
			await publisher.publishAcked(topic, "next", { qos: 2 });
			const next = await subscriber.expect("publish", { payload: "next", qos: 2 });
			assert.notEqual(next.messageId, messageId);
			subscriber.send({ cmd: "pubcomp", messageId });
			await subscriber.expectNothing();
		});

		test(`${name}: an accepted message reaches every matching session, connected or not [v3 MQTT-4.5.0-1]`, async () => {
			const { topic, subscriber, publisher } = await pair();
			const clientId = freshId();
			const sleeper = await RawClient.connect(broker, { version, clientId, clean: false });
			await sleeper.subscribe(topic, { qos: 1 });
			await sleeper.disconnect();
			const other = await connect();
			await other.subscribe("#");
			await publisher.subscribe(topic, { qos: 1 });
			publisher.publish(topic, "to all", { qos: 1, messageId: 3 });
			const own = [await publisher.receive(), await publisher.receive()].map((one) => one.cmd);
			assert.deepEqual(own.sort(), ["puback", "publish"]);
			await subscriber.expect("publish", { payload: "to all" });
			await other.expect("publish", { payload: "to all", qos: 0 });
			const awake = await RawClient.connect(broker, { version, clientId, clean: false });
			await awake.expect("publish", { payload: "to all", qos: 1 });
		});

		for (const qos of [0, 1, 2]) {
			test(`${name}: 300 messages with QoS ${qos} arrive in the order in which they were published [v3 MQTT-4.6.0-5] [v3 MQTT-4.6.0-6]`, async () => {
				const { topic, subscriber, publisher } = await pair();
				const messages = Array.from({ length: 300 }, (_, index) => ({
					cmd: "publish",
					topic,
					payload: `${index}`,
					qos,
					messageId: index + 1,
				}));
				publisher.sendTogether(...messages);
				for (let index = 0; index < 300; ) {
					const { cmd, messageId, payload, ...packet } = await subscriber.receive();
					// The flows have to go on, or the broker would wait when its window is full.
					if (cmd === "pubrel") subscriber.send({ cmd: "pubcomp", messageId });
					else {
						assert.deepEqual([cmd, `${payload}`, packet.qos], ["publish", `${index++}`, qos]);
						if (qos > 0) subscriber.send({ cmd: qos === 1 ? "puback" : "pubrec", messageId });
					}
				}
			});
		}
	}
});
