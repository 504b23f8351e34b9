/** What client and server tell each other of their limits in CONNECT and CONNACK, and that each keeps to the other's. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Authenticator } from "../../src/shoal.ts";
import { field, packet, u16 } from "../mqtt/wire.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker } from "../support/test_broker.ts";
import { acknowledge, durable, freshTopic, take } from "../support/traffic.ts";

describe("Maximum Packet Size of the client", () => {
	const broker = suiteBroker();
	/** PUBLISH without properties: 2 bytes of header, the topic, a property length of 0, and a packet id above QoS 0. */
	const sizeOf = (topic: string, payload: string, qos: number) => 2 + 2 + topic.length + (qos > 0 ? 2 : 0) + 1 + payload.length;

	for (const qos of [0, 1, 2] as const) {
		for (const [kind, options] of [
			["a session that ends with its connection", () => ({})],
			["a persistent session", () => durable()],
		] as const) {
			test(`QoS ${qos}, ${kind}: a message of exactly that size comes, a larger one is as good as delivered [MQTT-3.1.2-24] [MQTT-3.1.2-25]`, async () => {
				const topic = freshTopic();
				const maximumPacketSize = 100;
				const fitting = "x".repeat(maximumPacketSize - sizeOf(topic, "", qos));
				const { properties, ...rest } = options() as AnyPacket;
				const client = await RawClient.connect(broker, { ...rest, properties: { ...properties, maximumPacketSize, receiveMaximum: 1 } });
				await client.subscribe(topic, { qos });
				const publisher = await RawClient.connect(broker);
				for (const payload of [fitting, `${fitting}x`, `${fitting}xyz`, fitting, "after"]) {
					if (qos === 0) publisher.publish(topic, payload);
					else await publisher.publishAcked(topic, payload, { qos });
				}
				// With a Receive Maximum of 1 a message that is neither sent nor given up would block the rest.
				await take(client, { payload: fitting });
				await take(client, { payload: fitting });
				await take(client, { payload: "after" });
				await client.expectNothing();
			});
		}
	}

	test("a message too large for one subscriber reaches the others, and a retained one too [MQTT-3.1.2-25]", async () => {
		const topic = freshTopic();
		const small = await RawClient.connect(broker, { properties: { maximumPacketSize: 100 } });
		const large = await RawClient.connect(broker);
		for (const client of [small, large]) await client.subscribe(topic, { qos: 1 });
		const payload = "x".repeat(200);
		await broker.shoal.publish(topic, payload, { retain: true, qos: 2 });
		await take(large, { payload });
		await small.expectNothing();
		await small.subscribe(topic, { qos: 1 });
		await small.expectNothing();
	});

	test("a message that waited for a session is judged by the size that its next connection allows [MQTT-3.1.2-24]", async () => {
		const topic = freshTopic();
		const options = durable();
		const first = await RawClient.connect(broker, options);
		await first.subscribe(topic, { qos: 1 });
		await broker.shoal.publish(topic, "x".repeat(200), { qos: 1 });
		await first.expect("publish");
		await first.destroy();
		await broker.shoal.publish(topic, "y".repeat(200), { qos: 1 });
		await broker.shoal.publish(topic, "short", { qos: 1 });
		const second = await RawClient.connect(broker, durable(options.clientId, { maximumPacketSize: 100 }));
		await take(second, { payload: "short" });
		await second.expectNothing();
	});

	test("the reason string of a refusing CONNACK is left out where it would not fit [MQTT-3.2.2-19] [MQTT-3.1.2-24]", async (t) => {
		const authenticator: Authenticator = { authenticate: () => ({ kind: "refused", reasonCode: 0x86 }) };
		const own = await startBroker(t, {}, { authenticator });
		for (const maximumPacketSize of [5, 20, 1000]) {
			const client = await RawClient.open(own);
			client.sendConnect({ properties: { maximumPacketSize } });
			const connack = await client.expect("connack", { reasonCode: 0x86 });
			assert.equal(connack.properties?.reasonString === undefined, maximumPacketSize < 1000);
			await client.expectClosed();
			assert.ok(Buffer.concat(client.bytes).length <= maximumPacketSize);
		}
	});

	test("the reason string of DISCONNECT is left out where it would not fit [MQTT-3.14.2-3] [MQTT-3.1.2-24]", async () => {
		for (const maximumPacketSize of [16, 1000]) {
			const clientId = freshId();
			const client = await RawClient.connect(broker, { clientId, properties: { maximumPacketSize } });
			client.bytes.length = 0;
			await RawClient.connect(broker, { clientId });
			const disconnect = await client.expect("disconnect", { reasonCode: 0x8e });
			assert.equal(disconnect.properties?.reasonString === undefined, maximumPacketSize < 1000);
			await client.expectClosed();
			assert.ok(Buffer.concat(client.bytes).length <= maximumPacketSize);
		}
	});

	test("a CONNACK that does not fit is not sent: the connection is closed [MQTT-3.1.2-24]", async () => {
		const topic = freshTopic();
		for (const maximumPacketSize of [1, 10]) {
			const client = await RawClient.open(broker);
			client.sendTogether(
				{
					...{ cmd: "connect", protocolId: "MQTT", protocolVersion: 5, clientId: freshId(), clean: true, keepalive: 0 },
					properties: { maximumPacketSize },
				},
				{ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos: 0 }] },
			);
			await client.expectClosed();
			assert.equal(Buffer.concat(client.bytes).length, 0);
		}
	});

	test("a SUBACK that does not fit is not sent: the connection is closed [MQTT-3.1.2-24]", async () => {
		const client = await RawClient.connect(broker, { properties: { maximumPacketSize: 20 } });
		const subscriptions = Array.from({ length: 20 }, (_, i) => ({ topic: `a/${i}`, qos: 0 }));
		client.send({ cmd: "subscribe", messageId: 1, subscriptions });
		await client.expectClosed();
	});
});

describe("Maximum Packet Size of the server", () => {
	const broker = suiteBroker({ maxPacketSize: 256 });
	const payloadOf = (size: number, topic: string) => "x".repeat(size - 3 - 2 - topic.length - 1);

	test("a packet of exactly that size is accepted, a larger one ends the connection with 0x95 [MQTT-4.13.2-1]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		assert.equal(client.connack.properties.maximumPacketSize, 256);
		await client.subscribe(topic);
		const fitting = payloadOf(256, topic);
		client.publish(topic, fitting);
		await client.expect("publish", { payload: fitting });
		client.publish(topic, `${fitting}x`);
		await client.expectDisconnect(0x95);
	});

	test("a packet that only announces more is refused before it has come", async () => {
		const client = await RawClient.connect(broker);
		client.sendBytes("30 ff ff ff 7f");
		await client.expectDisconnect(0x95);
	});

	test("a CONNECT over the limit is closed", async () => {
		const client = await RawClient.open(broker);
		client.sendBytes(packet(0x10, field("MQTT"), [5, 2], u16(0), [0], field("x".repeat(300))));
		await client.expectClosed();
	});
});

describe("Receive Maximum", () => {
	const broker = suiteBroker({ receiveMaximum: 3 });

	for (const qos of [1, 2] as const) {
		test(`of the client, QoS ${qos}: no more unacknowledged deliveries than that, other packets go on [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, { properties: { receiveMaximum: 2 } });
			await client.subscribe(topic, { qos });
			for (let i = 0; i < 5; i++) await broker.shoal.publish(topic, `${i}`, { qos });
			await broker.shoal.publish(topic, "QoS 0");
			const [first, second] = [await client.expect("publish", { payload: "0" }), await client.expect("publish", { payload: "1" })];
			await client.expect("publish", { payload: "QoS 0" });
			await client.expectNothing();
			acknowledge(client, first);
			if (qos === 2) {
				await client.expect("pubrel", { messageId: first.messageId });
				// PUBREC alone frees nothing.
				await client.expectNothing();
				client.send({ cmd: "pubcomp", messageId: first.messageId });
			}
			await client.expect("publish", { payload: "2" });
			await client.expectNothing();
			// A refusing PUBREC ends its delivery, as PUBACK does.
			acknowledge(client, second, 0x80);
			await client.expect("publish", { payload: "3" });
			await client.expectNothing();
		});
	}

	test("of the client counts after a reconnect as the new CONNECT says [MQTT-3.3.4-9]", async () => {
		const topic = freshTopic();
		const options = durable(freshId(), { receiveMaximum: 3 });
		const first = await RawClient.connect(broker, options);
		await first.subscribe(topic, { qos: 1 });
		for (let i = 0; i < 5; i++) await broker.shoal.publish(topic, `${i}`, { qos: 1 });
		for (let i = 0; i < 3; i++) await first.expect("publish", { payload: `${i}` });
		await first.expectNothing();
		await first.destroy();
		const second = await RawClient.connect(broker, durable(options.clientId, { receiveMaximum: 1 }));
		for (let i = 0; i < 5; i++) {
			const publish = await second.expect("publish", { payload: `${i}`, dup: i < 3 });
			await second.expectNothing();
			acknowledge(second, publish);
		}
		await second.expectNothing();
	});

	test("of the server: as many unacknowledged publications are taken, one more ends the connection with 0x93 [MQTT-3.3.4-7]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		assert.equal(client.connack.properties.receiveMaximum, 3);
		for (let messageId = 1; messageId <= 3; messageId++) {
			client.publish(topic, "m", { qos: 2, messageId });
			await client.expect("pubrec", { messageId });
		}
		// What is not counted: QoS 0, and a repeated PUBLISH.
		client.publish(topic, "m");
		client.publish(topic, "m", { qos: 2, messageId: 3, dup: true });
		await client.expect("pubrec", { messageId: 3 });
		client.send({ cmd: "pubrel", messageId: 1 });
		await client.expect("pubcomp", { messageId: 1 });
		client.publish(topic, "m", { qos: 2, messageId: 4 });
		await client.expect("pubrec", { messageId: 4 });
		client.publish(topic, "m", { qos: 1, messageId: 5 });
		await client.expectDisconnect(0x93);
	});
});

describe("Topic Alias Maximum of the client", () => {
	const broker = suiteBroker({ topicAliasMaximum: 2 });

	async function aliasesOf(topicAliasMaximum: number | undefined): Promise<readonly (number | undefined)[]> {
		const prefix = freshTopic();
		const client = await RawClient.connect(broker, { properties: topicAliasMaximum === undefined ? {} : { topicAliasMaximum } });
		await client.subscribe(`${prefix}/#`);
		const aliases: (number | undefined)[] = [];
		for (const name of ["a", "a", "b", "c", "d", "a"]) {
			await broker.shoal.publish(`${prefix}/${name}`, "m");
			aliases.push((await client.expect("publish")).properties?.topicAlias);
		}
		return aliases;
	}

	test("absent or 0: the server sends no Topic Alias [MQTT-3.1.2-27]", async () => {
		assert.deepEqual(new Set(await aliasesOf(undefined)), new Set([undefined]));
		assert.deepEqual(new Set(await aliasesOf(0)), new Set([undefined]));
	});

	test("no alias is above it, nor above the server's own limit [MQTT-3.1.2-26] [MQTT-3.3.2-11]", async () => {
		assert.deepEqual(await aliasesOf(1), [1, 1, undefined, undefined, undefined, 1]);
		assert.deepEqual(await aliasesOf(3), [1, 1, 2, undefined, undefined, 1]);
	});
});

describe("Request Problem Information", () => {
	const broker = suiteBroker();

	/** All packets that tell of a problem, from one client. */
	async function problems(properties: AnyPacket): Promise<AnyPacket[]> {
		const client = await RawClient.connect(broker, { properties });
		const packets: AnyPacket[] = [];
		const ask = async (packet: AnyPacket, cmd: string) => {
			client.send(packet);
			packets.push(await client.expect(cmd));
		};
		await ask({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "a/#/b", qos: 0 }] }, "suback");
		await ask({ cmd: "unsubscribe", messageId: 2, unsubscriptions: ["not subscribed"] }, "unsuback");
		await ask({ cmd: "publish", topic: "$SYS/forged", payload: "", qos: 1, messageId: 3 }, "puback");
		await ask({ cmd: "publish", topic: "$SYS/forged", payload: "", qos: 2, messageId: 4 }, "pubrec");
		await ask({ cmd: "pubrel", messageId: 5 }, "pubcomp");
		await ask({ cmd: "pubrec", messageId: 6 }, "pubrel");
		for (const packet of packets) assert.ok((packet.reasonCode ?? packet.granted[0]) > 0, `${packet.cmd} tells of a problem`);
		return packets;
	}

	test("0: neither reason string nor user property on anything but PUBLISH, CONNACK and DISCONNECT [MQTT-3.1.2-29]", async () => {
		for (const { cmd, properties } of await problems({ requestProblemInformation: false })) {
			assert.equal(properties?.reasonString, undefined, cmd);
			assert.equal(properties?.userProperties, undefined, cmd);
		}
	});

	test("0: user properties of a PUBLISH are forwarded all the same [MQTT-3.1.2-29]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker, { properties: { requestProblemInformation: false } });
		await client.subscribe(topic);
		client.publish(topic, "m", { properties: { userProperties: { a: "b" } } });
		const publish = await client.expect("publish", { payload: "m" });
		assert.deepEqual({ ...publish.properties.userProperties }, { a: "b" });
	});
});
