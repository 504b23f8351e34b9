/** MQTT 5 over WebSocket: frames are only a byte stream, binary, with a subprotocol. And over every transport the stream is whole. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { generate, type Packet, parser } from "mqtt-packet";
import { bytes, field, packet, u16 } from "../mqtt/wire.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { encodeFrame, Opcode, RawWebSocket, requestUpgrade } from "../support/raw_websocket.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker } from "../support/test_broker.ts";
import { freshTopic } from "../support/traffic.ts";

const connect = () => packet(0x10, field("MQTT"), [5, 2], u16(0), [0], field(freshId()));
const encode = (value: AnyPacket) => generate(value as Packet, { protocolVersion: 5 });

/** The next packets that come, with how many of them each frame brought. */
async function receive(socket: RawWebSocket, count: number): Promise<{ packets: AnyPacket[]; perFrame: number[] }> {
	const packets: AnyPacket[] = [];
	const perFrame: number[] = [];
	const decoder = parser({ protocolVersion: 5 });
	decoder.on("packet", (value) => packets.push(value));
	while (packets.length < count) {
		const frame = await socket.next();
		if (frame === undefined || frame.opcode === Opcode.close) break;
		assert.equal(frame.opcode, Opcode.binary, "the server's data frames are binary");
		const before = packets.length;
		assert.equal(decoder.parse(frame.payload), 0, "the server's frames end with a packet");
		perFrame.push(packets.length - before);
	}
	return { packets, perFrame };
}

describe("WebSocket", () => {
	const broker = suiteBroker();

	async function connected(): Promise<RawWebSocket> {
		const socket = await RawWebSocket.connect({ port: broker.wsPort });
		socket.send(connect());
		const { packets } = await receive(socket, 1);
		assert.equal(packets[0].reasonCode, 0);
		return socket;
	}

	for (const [offered, chosen] of [
		[["mqtt"], "mqtt"],
		[["foo", "mqtt"], "mqtt"],
		[["mqtt", "mqttv3.1"], "mqtt"],
	] as const) {
		test(`a client that offers ${offered.join(", ")} is told ${chosen}, and MQTT 5 is spoken [MQTT-6.0.0-4]`, async () => {
			const socket = await RawWebSocket.connect({ port: broker.wsPort, protocols: offered });
			assert.equal(socket.protocol, chosen);
			socket.send(connect());
			assert.equal((await receive(socket, 1)).packets[0].cmd, "connack");
			socket.destroy();
		});
	}

	test("a client that offers no subprotocol of MQTT is refused by HTTP", async () => {
		for (const protocols of [[], ["foo"], ["MQTT5"]]) {
			assert.equal((await requestUpgrade({ port: broker.wsPort, protocols })).status, 400, protocols.join());
		}
	});

	test("a text frame before CONNECT: closed with 1003, without a word of MQTT [MQTT-6.0.0-1]", async () => {
		const socket = await RawWebSocket.connect({ port: broker.wsPort });
		socket.sendText("hello");
		assert.deepEqual((await receive(socket, 1)).packets, []);
		await socket.ended;
		assert.equal(socket.closeCode, 1003);
	});

	test("a text frame after CONNECT, even one that holds a packet: DISCONNECT 0x81, then closed with 1003, and the will is published [MQTT-6.0.0-1] [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe(topic);
		const socket = await RawWebSocket.connect({ port: broker.wsPort });
		socket.send(packet(0x10, field("MQTT"), [5, 6], u16(0), [0], field(freshId()), [0], field(topic), field("gone")));
		await receive(socket, 1);
		socket.sendText("\u0030\u0005\u0000\u0001tp!");
		const { packets } = await receive(socket, 2);
		assert.deepEqual(
			packets.map(({ cmd, reasonCode }) => [cmd, reasonCode]),
			[["disconnect", 0x81]],
		);
		await socket.ended;
		assert.equal(socket.closeCode, 1003);
		await watcher.expect("publish", { payload: "gone" });
	});

	test("packets may be cut anywhere, also by frames of one byte and empty ones [MQTT-6.0.0-2]", async () => {
		const topic = freshTopic();
		const all = bytes(
			connect(),
			encode({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos: 0 }] }),
			encode({ cmd: "publish", topic: `${topic}/other`, payload: "x".repeat(300), qos: 1, messageId: 2 }),
			encode({ cmd: "pingreq" }),
		);
		for (const size of [1, 7]) {
			const socket = await RawWebSocket.connect({ port: broker.wsPort });
			for (let at = 0; at < all.length; at += size) {
				socket.send(all.subarray(at, at + size));
				if (at % 3 === 0) socket.send(new Uint8Array(0));
			}
			const { packets } = await receive(socket, 4);
			assert.deepEqual(packets.map(({ cmd }) => cmd).toSorted(), ["connack", "pingresp", "puback", "suback"]);
			socket.destroy();
		}
	});

	test("one message may be fragmented, with pings in between [MQTT-6.0.0-2]", async () => {
		const socket = await connected();
		const publish = encode({ cmd: "publish", topic: freshTopic(), payload: "x".repeat(300), qos: 1, messageId: 9 });
		socket.sendRaw(encodeFrame(publish.subarray(0, 5), { fin: false }));
		socket.sendRaw(encodeFrame(new Uint8Array(0), { opcode: Opcode.ping }));
		socket.sendRaw(encodeFrame(publish.subarray(5, 200), { opcode: Opcode.continuation, fin: false }));
		socket.sendRaw(encodeFrame(publish.subarray(200), { opcode: Opcode.continuation }));
		assert.equal((await socket.next())?.opcode, Opcode.pong);
		const { packets } = await receive(socket, 1);
		assert.deepEqual([packets[0].cmd, packets[0].messageId], ["puback", 9]);
		socket.destroy();
	});

	test("many packets may be in one frame, and a half one at its end: they are processed in order [MQTT-6.0.0-2]", async () => {
		const topic = freshTopic();
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe(topic);
		const socket = await connected();
		const publications = Array.from({ length: 101 }, (_, i) => encode({ cmd: "publish", topic, payload: `${i}`, qos: 0 }));
		const all = Buffer.concat(publications);
		socket.send(all.subarray(0, all.length - 3));
		for (let i = 0; i < 100; i++) await watcher.expect("publish", { payload: `${i}` });
		await watcher.expectNothing();
		socket.send(all.subarray(all.length - 3));
		await watcher.expect("publish", { payload: "100" });
		socket.destroy();
	});

	test("what the server sends in one turn it joins in frames of whole packets [MQTT-6.0.0-2]", async () => {
		const socket = await connected();
		socket.send(Buffer.concat(Array.from({ length: 50 }, () => encode({ cmd: "pingreq" }))));
		const { packets, perFrame } = await receive(socket, 50);
		assert.equal(packets.length, 50);
		assert.ok(Math.max(...perFrame) > 1, "packets share frames");
		socket.destroy();
	});

	test("MQTT_PIGGYBACK=single: each packet has a frame of its own", async (t) => {
		const own = await startBroker(t, { mqttPiggyback: "single" });
		const socket = await RawWebSocket.connect({ port: own.wsPort });
		socket.send(connect());
		socket.send(Buffer.concat(Array.from({ length: 50 }, () => encode({ cmd: "pingreq" }))));
		const { packets, perFrame } = await receive(socket, 51);
		assert.equal(packets.length, 51);
		assert.ok(perFrame.every((count) => count === 1));
		socket.destroy();
	});

	for (const [what, reasonCode, closeCode, sent] of [
		["a protocol error", 0x82, 1002, Uint8Array.of(0x82, 3, 0, 1, 0)],
		["too large a packet", 0x95, 1009, Buffer.from("30ffffff7f", "hex")],
	] as const) {
		test(`after ${what}: DISCONNECT 0x${reasonCode.toString(16)}, then close code ${closeCode} [MQTT-4.13.1-1] [MQTT-3.14.4-2]`, async () => {
			const socket = await connected();
			socket.send(sent);
			const { packets } = await receive(socket, 2);
			assert.deepEqual(
				packets.map(({ cmd, reasonCode }) => [cmd, reasonCode]),
				[["disconnect", reasonCode]],
			);
			await socket.ended;
			assert.equal(socket.closeCode, closeCode);
		});
	}

	test("after DISCONNECT of the client the server closes with 1000, and a close frame instead is an end without DISCONNECT [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe(topic);
		const withWill = (payload: string) =>
			packet(0x10, field("MQTT"), [5, 6], u16(0), [0], field(freshId()), [0], field(topic), field(payload));
		const orderly = await RawWebSocket.connect({ port: broker.wsPort });
		orderly.send(withWill("after DISCONNECT"));
		await receive(orderly, 1);
		orderly.send(encode({ cmd: "disconnect" }));
		await orderly.ended;
		assert.equal(orderly.closeCode, 1000);
		const closing = await RawWebSocket.connect({ port: broker.wsPort });
		closing.send(withWill("after a close frame"));
		await receive(closing, 1);
		closing.close(1000);
		await closing.ended;
		await watcher.expect("publish", { payload: "after a close frame" });
		await watcher.expectNothing();
	});
});

describe("transport", () => {
	const broker = suiteBroker();

	for (const transport of ["tcp", "ws"] as const) {
		test(`over ${transport} a stream of packets of all sizes arrives whole and in order [MQTT-4.2-1]`, async () => {
			const topic = freshTopic();
			const reader = await RawClient.connect(broker, { transport });
			await reader.subscribe(topic);
			const writer = await RawClient.connect(broker, { transport });
			const sizes = [0, 1, 100, 125, 126, 127, 65_535, 65_536, 1_000_000, 3];
			const payloads = sizes.map((size, i) => Buffer.alloc(size, `${i} of a stream `));
			for (let round = 0; round < 3; round++) {
				for (const payload of payloads) writer.publish(topic, payload);
				for (const payload of payloads) {
					const publish = await reader.expect("publish");
					assert.ok(payload.equals(publish.payload), `${payload.length} bytes`);
				}
			}
		});
	}
});
