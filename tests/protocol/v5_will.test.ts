/** Wills of MQTT 5: when one is published, when not, and what of it reaches the subscribers. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { generate, type Packet } from "mqtt-packet";
import { bytes, field, hex, packet, props, u16, u32 } from "../mqtt/wire.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { encodeFrame, Opcode, RawWebSocket } from "../support/raw_websocket.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { durable, freshTopic, take } from "../support/traffic.ts";

const broker = suiteBroker();

function willTo(topic: string, fields: AnyPacket = {}): AnyPacket {
	return { topic, payload: "gone", qos: 0, retain: false, ...fields };
}

/** A client that has subscribed to the topic and what is below it. */
async function watch(topic: string, options: AnyPacket = {}, properties: AnyPacket = {}): Promise<RawClient> {
	const client = await RawClient.connect(broker, { properties });
	await client.subscribe(`${topic}/#`, { qos: 2, rap: true, ...options });
	return client;
}

/** Makes sure that all wills that were due are out: one that falls due now is published after them. */
async function expectNoWill(watcher: RawClient, topic: string): Promise<void> {
	const marker = await RawClient.connect(broker, { will: willTo(`${topic}/marker`, { payload: "marker" }) });
	await marker.destroy();
	await watcher.expect("publish", { payload: "marker" });
	await watcher.expectNothing();
}

describe("will", () => {
	test("is published when the connection breaks [MQTT-3.1.2-7] [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const client = await RawClient.connect(broker, { will: willTo(`${topic}/will`) });
		await watcher.expectNothing();
		await client.destroy();
		await watcher.expect("publish", { topic: `${topic}/will`, payload: "gone", qos: 0, retain: false });
		await watcher.expectNothing();
	});

	test("is published when the client ends the connection without DISCONNECT, however orderly [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const client = await RawClient.connect(broker, { will: willTo(`${topic}/will`) });
		client.end();
		await watcher.expect("publish", { payload: "gone" });
	});

	test("is not published after DISCONNECT 0x00, by which it is removed for good [MQTT-3.14.4-3] [MQTT-3.1.2-10]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const options = durable();
		for (const disconnect of [{}, { reasonCode: 0 }, { properties: { sessionExpiryInterval: 0 } }]) {
			const client = await RawClient.connect(broker, { ...options, will: willTo(`${topic}/will`) });
			await client.disconnect(disconnect);
		}
		// Without a will of its own, the session has none from earlier.
		await (await RawClient.connect(broker, options)).destroy();
		await expectNoWill(watcher, topic);
	});

	test("is published once: a later end of the session's connection has none [MQTT-3.1.2-10]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const options = durable();
		await (await RawClient.connect(broker, { ...options, will: willTo(`${topic}/will`) })).destroy();
		await watcher.expect("publish", { payload: "gone" });
		await (await RawClient.connect(broker, options)).destroy();
		await expectNoWill(watcher, topic);
	});

	for (const reasonCode of [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99]) {
		test(`is published after DISCONNECT 0x${reasonCode.toString(16).padStart(2, "0")} [MQTT-3.1.2-8]`, async () => {
			const topic = freshTopic();
			const watcher = await watch(topic);
			const client = await RawClient.connect(broker, { will: willTo(`${topic}/will`) });
			await client.disconnect({ reasonCode });
			await watcher.expect("publish", { payload: "gone" });
		});
	}

	test("is published when the server ends the connection for a protocol error [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const client = await RawClient.connect(broker, { will: willTo(`${topic}/will`) });
		client.sendBytes("00 00");
		await client.expectDisconnect(0x81);
		await watcher.expect("publish", { payload: "gone" });
	});

	test("is not published when a CONNECT is refused for what follows it [MQTT-3.1.2-7]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		for (const options of [{}, durable()]) {
			const client = await RawClient.open(broker);
			const connect = {
				cmd: "connect",
				protocolId: "MQTT",
				protocolVersion: 5,
				clean: true,
				keepalive: 0,
				clientId: freshId(),
				...options,
			};
			client.sendTogether({ ...connect, will: willTo(`${topic}/will`) }, connect);
			await client.expect("connack", { reasonCode: 0x82 });
			await client.expectClosed();
		}
		await expectNoWill(watcher, topic);
	});

	for (const transport of ["tcp", "ws"] as const) {
		test(`is not published when DISCONNECT comes over ${transport} right behind CONNECT and the client leaves without waiting [MQTT-3.14.4-3]`, async () => {
			const topic = freshTopic();
			const watcher = await watch(topic);
			for (const options of [{}, durable()]) {
				const connect = {
					cmd: "connect",
					protocolId: "MQTT",
					protocolVersion: 5,
					clean: true,
					keepalive: 0,
					clientId: freshId(),
					...options,
				};
				const packets = [{ ...connect, will: willTo(`${topic}/will`) }, { cmd: "disconnect" }];
				const together = Buffer.concat(packets.map((value) => generate(value as Packet, { protocolVersion: 5 })));
				if (transport === "tcp") {
					const client = await RawClient.open(broker);
					client.sendBytes(together);
					client.end();
					// Whether the CONNACK was still sent is nobody's concern.
					await client.receive().catch(() => undefined);
					await client.expectClosed();
				} else {
					const socket = await RawWebSocket.connect({ port: broker.wsPort });
					socket.sendRaw(Buffer.concat([encodeFrame(together), encodeFrame(Buffer.of(0x03, 0xe8), { opcode: Opcode.close })]));
					await socket.ended;
				}
			}
			await expectNoWill(watcher, topic);
		});
	}

	test("of the empty payload and the largest one are published as they are [MQTT-3.1.2-9]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		for (const payload of ["", "x".repeat(65_535)]) {
			const client = await RawClient.connect(broker, { will: willTo(`${topic}/will`, { payload }) });
			await client.destroy();
			await watcher.expect("publish", { topic: `${topic}/will`, payload });
		}
	});

	test("is delivered with its QoS, and stored for sessions that are away [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const away = durable();
		const sleeper = await RawClient.connect(broker, away);
		await sleeper.subscribe(`${topic}/#`, { qos: 2 });
		await sleeper.disconnect();
		const watcher = await watch(topic);
		for (const qos of [0, 1, 2]) {
			const client = await RawClient.connect(broker, { will: willTo(`${topic}/will`, { qos, payload: `qos ${qos}` }) });
			await client.destroy();
			await take(watcher, { payload: `qos ${qos}`, qos, dup: false });
		}
		const back = await RawClient.connect(broker, away);
		await take(back, { payload: "qos 1", qos: 1 });
		await take(back, { payload: "qos 2", qos: 2 });
		await back.expectNothing();
	});

	test("with Will Retain 0 is no retained message [MQTT-3.1.2-14]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		await (await RawClient.connect(broker, { will: willTo(`${topic}/will`, { retain: false }) })).destroy();
		await watcher.expect("publish", { payload: "gone", retain: false });
		await (await watch(topic)).expectNothing();
	});

	test("with Will Retain 1 is the retained message of its topic [MQTT-3.1.2-15]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		await (await RawClient.connect(broker, { will: willTo(`${topic}/will`, { retain: true, qos: 1 }) })).destroy();
		await watcher.expect("publish", { payload: "gone", retain: true, qos: 1 });
		const late = await watch(topic);
		await late.expect("publish", { payload: "gone", retain: true, qos: 1 });
		await (await RawClient.connect(broker, { will: willTo(`${topic}/will`, { retain: true, payload: "" }) })).destroy();
		await watcher.expect("publish", { payload: "" });
		await (await watch(topic)).expectNothing();
	});

	test("is published with its properties, the user properties in their order [MQTT-3.1.3-10] [MQTT-3.1.2-9]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const user = [
			["b", "1"],
			["a", "2"],
			["b", "3"],
			["", ""],
			["a", "2"],
		].map(([name = "", value = ""]) => bytes([0x26], field(name), field(value)));
		const [first = [], second = [], ...others] = user;
		const kept = bytes([0x01, 1], first, [0x03], field("text/plain"), second, [0x08], field("answer"), [0x09], field([0, 255]), ...others);
		const client = await RawClient.open(broker);
		client.sendBytes(
			packet(
				0x10,
				...[field("MQTT"), [5, 0x06], u16(0), [0], field(freshId())],
				...[props(kept.subarray(0, 2), [0x18], u32(0), kept.subarray(2)), field(`${topic}/will`), field("gone")],
			),
		);
		await client.expect("connack", { reasonCode: 0 });
		watcher.bytes.length = 0;
		await client.destroy();
		const publish = await watcher.expect("publish", { payload: "gone" });
		const { userProperties: _, ...properties } = publish.properties;
		assert.deepEqual(properties, {
			payloadFormatIndicator: true,
			contentType: "text/plain",
			responseTopic: "answer",
			correlationData: Buffer.from([0, 255]),
		});
		const sent = hex(packet(0x30, field(`${topic}/will`), props(kept), new TextEncoder().encode("gone")));
		assert.equal(hex(Buffer.concat(watcher.bytes)), sent, "every byte of the properties is where the client put it");
	});

	test("has its Message Expiry Interval from its publication on, and no Will Delay Interval", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const properties = { messageExpiryInterval: 100, willDelayInterval: 0 };
		await (await RawClient.connect(broker, { will: willTo(`${topic}/will`, { properties }) })).destroy();
		const publish = await watcher.expect("publish", { payload: "gone" });
		assert.deepEqual({ ...publish.properties }, { messageExpiryInterval: 100 });
	});

	test("does not come back to its own client by a No Local subscription", async () => {
		const topic = freshTopic();
		const options = durable();
		const first = await RawClient.connect(broker, { ...options, will: willTo(`${topic}/will`, { qos: 1 }) });
		await first.subscribe(`${topic}/#`, { qos: 1, nl: true });
		const watcher = await watch(topic);
		await first.destroy();
		await take(watcher, { payload: "gone" });
		await (await RawClient.connect(broker, options)).expectNothing();
	});

	test("of 200 clients that break at once are published each once [MQTT-3.1.2-8] [MQTT-3.1.2-10]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic, { qos: 0 });
		const clients = await Promise.all(
			Array.from({ length: 200 }, (_, i) => RawClient.connect(broker, { will: willTo(`${topic}/${i}`, { qos: 1 }) })),
		);
		await Promise.all(clients.map((client) => client.destroy()));
		const topics = new Set<string>();
		for (let i = 0; i < 200; i++) topics.add((await watcher.expect("publish")).topic);
		assert.equal(topics.size, 200);
		await expectNoWill(watcher, topic);
	});
});

describe("will delay", () => {
	const delayed = (topic: string, willDelayInterval: number, fields: AnyPacket = {}) =>
		willTo(`${topic}/will`, { ...fields, properties: { willDelayInterval, ...fields.properties } });

	test("passes before the will is published [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const client = await RawClient.connect(broker, { ...durable(), will: delayed(topic, 1) });
		const endMs = Date.now();
		await client.destroy();
		await watcher.expect("publish", { payload: "gone" });
		assert.ok(Date.now() - endMs >= 1000, "not before its time");
	});

	test("is cut short by the end of the session [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		// Neither has a session that outlives the connection: due at once.
		await (await RawClient.connect(broker, { will: delayed(topic, 1000, { payload: "at once" }) })).destroy();
		await watcher.expect("publish", { payload: "at once" });
		const ending = await RawClient.connect(broker, { ...durable(), will: delayed(topic, 1000, { payload: "by DISCONNECT" }) });
		await ending.disconnect({ reasonCode: 4, properties: { sessionExpiryInterval: 0 } });
		await watcher.expect("publish", { payload: "by DISCONNECT" });
		const brief = { ...durable(), properties: { sessionExpiryInterval: 1 } };
		const client = await RawClient.connect(broker, { ...brief, will: delayed(topic, 1000) });
		const endMs = Date.now();
		await client.destroy();
		await watcher.expect("publish", { payload: "gone" });
		assert.ok(Date.now() - endMs >= 1000, "not before the session ends");
	});

	test("is long enough for a client that returns: its will is not published [MQTT-3.1.3-9] [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const options = durable();
		await (await RawClient.connect(broker, { ...options, will: delayed(topic, 1) })).destroy();
		const back = await RawClient.connect(broker, options);
		assert.equal(back.connack.sessionPresent, true);
		await sleep(1200);
		await expectNoWill(watcher, topic);
		await back.destroy();
		await expectNoWill(watcher, topic);
	});

	test("starts anew with the will of the returning client [MQTT-3.1.3-9] [MQTT-3.1.2-10]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const options = durable();
		await (await RawClient.connect(broker, { ...options, will: delayed(topic, 1, { payload: "first" }) })).destroy();
		const back = await RawClient.connect(broker, { ...options, will: delayed(topic, 0, { payload: "second" }) });
		await back.destroy();
		await watcher.expect("publish", { payload: "second" });
		await sleep(1200);
		await expectNoWill(watcher, topic);
	});

	test("ends when the client returns with Clean Start 1, since its session ends: published at once [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const options = durable();
		await (await RawClient.connect(broker, { ...options, will: delayed(topic, 1000) })).destroy();
		await watcher.expectNothing();
		await RawClient.connect(broker, { ...options, clean: true });
		await watcher.expect("publish", { payload: "gone" });
		await expectNoWill(watcher, topic);
	});

	for (const [what, first, second, expected] of [
		["delay and Clean Start 0: no will", 1000, {}, undefined],
		["no delay: the will", 0, {}, "gone"],
		["delay and Clean Start 1: the will, since the session ends", 1000, { clean: true }, "gone"],
	] as const) {
		test(`at a takeover, ${what} [MQTT-3.1.4-3] [MQTT-3.1.2-8] [MQTT-3.1.3-9]`, async () => {
			const topic = freshTopic();
			const watcher = await watch(topic);
			const options = durable();
			const older = await RawClient.connect(broker, { ...options, will: delayed(topic, first) });
			const newer = await RawClient.connect(broker, { ...options, ...second });
			await older.expectDisconnect(0x8e);
			if (expected !== undefined) await watcher.expect("publish", { payload: expected });
			await expectNoWill(watcher, topic);
			await newer.disconnect();
			await expectNoWill(watcher, topic);
		});
	}

	test("at a takeover of a session that ends with its connection: the will, whatever its delay [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await watch(topic);
		const clientId = freshId();
		const older = await RawClient.connect(broker, { clientId, will: delayed(topic, 1000) });
		await RawClient.connect(broker, { clientId, clean: false });
		await older.expectDisconnect(0x8e);
		await watcher.expect("publish", { payload: "gone" });
	});
});
