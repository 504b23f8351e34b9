import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytes, field, packet, u16 } from "../mqtt/wire.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { RawWebSocket, requestUpgrade } from "../support/raw_websocket.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { connectBytes, FLAG, V3_VERSIONS } from "../support/v3.ts";

describe("v3 transports", () => {
	const broker = suiteBroker();

	test("a WebSocket that offers several subprotocols gets the one that is MQTT [v3 MQTT-6.0.0-4]", async () => {
		for (const [protocols, chosen] of [
			[["mqtt"], "mqtt"],
			[["mqttv3.1"], "mqttv3.1"],
			[["wamp", "mqtt"], "mqtt"],
		] as const) {
			const { status, headers } = await requestUpgrade({ port: broker.wsPort, protocols });
			assert.deepEqual([status, headers.get("sec-websocket-protocol")], [101, chosen]);
		}
	});

	for (const { version, name } of V3_VERSIONS) {
		test(`${name}: a text frame closes the WebSocket with 1003, before and after CONNECT [v3 MQTT-6.0.0-1]`, async () => {
			for (const sent of [undefined, connectBytes(version, FLAG.clean, field(freshId()))]) {
				const socket = await RawWebSocket.connect({ port: broker.wsPort, protocols: ["mqttv3.1", "mqtt"] });
				if (sent !== undefined) {
					socket.send(sent);
					assert.deepEqual([...((await socket.next())?.payload ?? [])], [0x20, 2, 0, 0]);
				}
				socket.sendText("hello");
				await socket.ended;
				assert.equal(socket.closeCode, 1003);
			}
		});

		test(`${name}: packets may be cut and joined over frames in any way [v3 MQTT-6.0.0-2]`, async () => {
			const topic = freshId("topic");
			const all = bytes(
				connectBytes(version, FLAG.clean, field(freshId())),
				packet(0x82, u16(1), field(topic), [1]),
				packet(0x32, field(topic), u16(7), [0x68, 0x69]),
				[0xc0, 0],
			);
			for (const size of [1, 3, all.length]) {
				const socket = await RawWebSocket.connect({ port: broker.wsPort });
				for (let at = 0; at < all.length; at += size) socket.send(all.subarray(at, at + size));
				const expected = 4 + 5 + (2 + 2 + topic.length + 2 + 2) + 4 + 2;
				const came: Buffer[] = [];
				for (let length = 0; length < expected; ) {
					const payload = (await socket.next())?.payload ?? assert.fail("the connection ended");
					came.push(payload);
					length += payload.length;
				}
				assert.deepEqual([...Buffer.concat(came).subarray(0, 4)], [0x20, 2, 0, 0]);
				assert.equal(Buffer.concat(came).length, expected, `pieces of ${size} bytes`);
				socket.destroy();
			}
		});

		for (const transport of ["tcp", "ws"] as const) {
			test(`${name} over ${transport}: packets up to the limit of size pass unchanged and in order [v3 MQTT-7.1.1-1] [v3 MQTT-7.0.0-2]`, async () => {
				const topic = freshId("topic");
				const subscriber = await RawClient.connect(broker, { version, transport });
				await subscriber.subscribe(topic, { qos: 1 });
				const publisher = await RawClient.connect(broker, { version, transport });
				const sizes = [0, 1, 125, 126, 127, 128, 65_535, 65_536, 200_000, 1_048_576 - (5 + topic.length + 2 + 2) + 1, 2, 300_000];
				const payloads = sizes.map((size, seed) => Buffer.from(Uint8Array.from({ length: size }, (_, at) => (at * 7 + seed) % 251)));
				for (const [index, payload] of payloads.entries()) publisher.publish(topic, payload, { qos: 1, messageId: index + 1 });
				for (const [index, payload] of payloads.entries()) {
					const one = await subscriber.expect("publish", { topic, qos: 1 });
					assert.ok(Buffer.compare(one.payload, payload) === 0, `payload of ${sizes[index]} bytes`);
					subscriber.send({ cmd: "puback", messageId: one.messageId });
				}
			});
		}
	}
});
