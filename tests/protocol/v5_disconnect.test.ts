/** DISCONNECT of MQTT 5, sent by either side, and PINGREQ, which keeps a connection from needing one. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { field, packet, props, u32 } from "../mqtt/wire.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker } from "../support/test_broker.ts";
import { durable, freshTopic } from "../support/traffic.ts";

/** What a server's DISCONNECT may say: MQTT 5 section 3.14.2.1. */
const SERVER_CODES = new Set([
	...[0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90],
	...[0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2],
]);

describe("PINGREQ", () => {
	const broker = suiteBroker();

	test("is answered by PINGRESP, each one [MQTT-3.12.4-1]", async () => {
		const client = await RawClient.connect(broker);
		client.bytes.length = 0;
		client.sendTogether({ cmd: "pingreq" }, { cmd: "pingreq" }, { cmd: "pingreq" });
		for (let i = 0; i < 3; i++) await client.expect("pingresp");
		assert.deepEqual([...Buffer.concat(client.bytes)], [0xd0, 0, 0xd0, 0, 0xd0, 0]);
	});
});

describe("DISCONNECT of the client", () => {
	const broker = suiteBroker();

	for (const [what, bytes] of [
		["without a body", packet(0xe0)],
		["with a reason code alone", packet(0xe0, [0])],
		["with an empty property block", packet(0xe0, [0], props())],
		[
			"with every property that it can have",
			packet(0xe0, [0x04], props([0x11], u32(0), [0x1f], field("why"), [0x26], field("a"), field("b"))),
		],
	] as const) {
		test(`${what}: the server closes, without a word [MQTT-3.14.4-2]`, async () => {
			const client = await RawClient.connect(broker);
			client.sendBytes(bytes);
			await client.expectClosed();
		});
	}

	test("what follows it is not processed [MQTT-3.14.4-1]", async () => {
		const topic = freshTopic();
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe(topic);
		const client = await RawClient.connect(broker);
		client.sendTogether(
			{ cmd: "publish", topic, payload: "before", qos: 0 },
			{ cmd: "disconnect" },
			{ cmd: "publish", topic, payload: "after", qos: 0 },
			{ cmd: "pingreq" },
		);
		await client.expectClosed();
		await watcher.expect("publish", { payload: "before" });
		await watcher.expectNothing();
	});

	test("what was published before it is delivered, QoS 1 and 2 also without waiting for the acknowledgement", async () => {
		const topic = freshTopic();
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe(topic, { qos: 0 });
		for (const options of [{ clientId: freshId() }, durable()]) {
			const client = await RawClient.connect(broker, options);
			client.sendTogether(
				{ cmd: "publish", topic, payload: "one", qos: 1, messageId: 1 },
				{ cmd: "publish", topic, payload: "two", qos: 2, messageId: 2 },
				{ cmd: "disconnect" },
			);
			await watcher.expect("publish", { payload: "one" });
			await watcher.expect("publish", { payload: "two" });
		}
	});

	for (const [what, bytes, reasonCode] of [
		["with flags [MQTT-3.14.1-1]", [0xe1, 0], 0x81],
		["with the reason code 0x8E, which only servers send [MQTT-3.14.2-1]", packet(0xe0, [0x8e], [0]), 0x82],
		["with a reason code that is none [MQTT-3.14.2-1]", packet(0xe0, [0x01], [0]), 0x82],
		["with a property that it cannot have", packet(0xe0, [0], props([0x21, 0, 1])), 0x82],
		["with a property twice", packet(0xe0, [0], props([0x11], u32(0), [0x11], u32(0))), 0x82],
		["that ends inside a property", packet(0xe0, [0], [5, 0x11, 0, 0]), 0x81],
	] as const) {
		const code = `0x${reasonCode.toString(16)}`;
		test(`${what}: DISCONNECT ${code}, close, and the will is published [MQTT-4.13.1-1] [MQTT-3.1.2-8]`, async () => {
			const topic = freshTopic();
			const watcher = await RawClient.connect(broker);
			await watcher.subscribe(topic);
			const client = await RawClient.connect(broker, { will: { topic, payload: "gone", qos: 0, retain: false } });
			client.sendBytes(Uint8Array.from(bytes));
			await client.expectDisconnect(reasonCode);
			await watcher.expect("publish", { payload: "gone" });
		});
	}
});

describe("DISCONNECT of the server", () => {
	const broker = suiteBroker({ maxPacketSize: 1000, receiveMaximum: 1, topicAliasMaximum: 1, publishRate: 50, publishBurst: 50 });
	const publish = { cmd: "publish", topic: "t", payload: "", qos: 0 };

	for (const [what, reasonCode, ...packets] of [
		["a second CONNECT", 0x82, { cmd: "connect", protocolId: "MQTT", protocolVersion: 5, clientId: "x", clean: true, keepalive: 0 }],
		["a packet of reserved type", 0x81, Buffer.from([0x00, 0x00])],
		["a packet that only servers send", 0x82, { cmd: "suback", messageId: 1, granted: [0] }],
		["a SUBSCRIBE without filters", 0x82, Buffer.from([0x82, 3, 0, 1, 0])],
		["PUBLISH to a wildcard", 0x90, { ...publish, topic: "a/+" }],
		["an alias above the limit", 0x94, { ...publish, properties: { topicAlias: 2 } }],
		["too large a packet", 0x95, { ...publish, payload: "x".repeat(1000) }],
		["too many unacknowledged publications", 0x93, { ...publish, qos: 2, messageId: 1 }, { ...publish, qos: 2, messageId: 2 }],
		["too many messages at a time", 0x96, ...Array.from({ length: 60 }, () => publish)],
	] as [string, number, ...AnyPacket[]][]) {
		const code = `0x${reasonCode.toString(16)}`;
		test(`after ${what}: a listed code, ${code}, no Session Expiry Interval, nothing more, close [MQTT-3.14.2-1] [MQTT-3.14.2-2] [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.1-1] [MQTT-4.13.2-1]`, async () => {
			const client = await RawClient.connect(broker);
			for (const packet of packets) {
				if (packet instanceof Uint8Array) client.sendBytes(packet);
				else client.send(packet);
			}
			client.send({ cmd: "pingreq" });
			let disconnect = await client.receive();
			if (disconnect.cmd === "pubrec") disconnect = await client.receive();
			assert.equal(disconnect.cmd, "disconnect");
			assert.equal(disconnect.reasonCode, reasonCode);
			assert.ok(SERVER_CODES.has(disconnect.reasonCode));
			assert.deepEqual(Object.keys(disconnect.properties), ["reasonString"]);
			await client.expectClosed();
		});
	}

	test("at a shutdown: 0x8B and the close, for whoever is connected [MQTT-3.14.2-1] [MQTT-3.14.4-2]", async (t) => {
		const own = await startBroker(t);
		const client = await RawClient.connect(own);
		await own.shoal.drain(0);
		await client.expectDisconnect(0x8b);
	});

	test("is not sent before CONNACK: a shutdown closes who has not said CONNECT, and refuses who waits, with 0x88 [MQTT-3.14.0-1] [MQTT-3.2.2-8]", async (t) => {
		let asked = (): void => {};
		const waiting = new Promise<void>((resolve) => {
			asked = resolve;
		});
		const authenticator = {
			authenticate: () => {
				asked();
				return new Promise<never>(() => {});
			},
		};
		const own = await startBroker(t, {}, { authenticator });
		const silent = await RawClient.open(own);
		const client = await RawClient.open(own);
		client.sendConnect();
		await waiting;
		await own.shoal.drain(0);
		await silent.expectClosed();
		assert.equal(Buffer.concat(silent.bytes).length, 0);
		await client.expect("connack", { reasonCode: 0x88, sessionPresent: false });
		await client.expectClosed();
	});
});
