import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Bytes, bytes, field, packet, props, u16, u32 } from "../mqtt/wire.ts";
import { assertServes } from "../support/canary.ts";
import { type AnyPacket, freshId, RawClient, type Transport, type Version } from "../support/raw_client.ts";
import { RawWebSocket, requestUpgrade } from "../support/raw_websocket.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { BAD_STRINGS, connectBytes, FLAG } from "../support/v3.ts";

/** A v5 CONNECT with these flags, properties and payload. */
const connect5 = (flags: number, properties: Bytes, ...payload: Bytes[]) =>
	packet(0x10, field("MQTT"), [5, flags], u16(0), properties, ...payload);
/** The same for any version; what is no property is left out before 5. */
const connect = (version: Version, flags: number, ...payload: Bytes[]) =>
	version === 5 ? connect5(flags, [0], ...payload) : connectBytes(version, flags, ...payload);

describe("malformed CONNECTs", () => {
	const broker = suiteBroker();

	/**
	 * Sends bytes on a new connection: MQTT 5 is told the code in a CONNACK, the others are closed. `undefined`: closed
	 * without a word in every version, for nobody knows which one it is.
	 */
	async function assertRefused(version: Version, transport: Transport, code: number | undefined, what: string, sent: Bytes): Promise<void> {
		const client = await RawClient.open(broker, version, transport);
		client.sendBytes(bytes(sent));
		const answers = (await client.receiveUntilClosed()).map(({ cmd, reasonCode }: AnyPacket) => `${cmd} ${reasonCode}`);
		assert.deepEqual(answers, version === 5 && code !== undefined ? [`connack ${code}`] : [], what);
		if (transport === "ws") assert.equal(client.closeCode, 1002, what);
		await assertServes(broker);
	}

	for (const version of [5, 4, 3] as const) {
		for (const transport of ["ws", "tcp"] as const) {
			const name = `MQTT level ${version} over ${transport}`;
			const refused = (code: number | undefined, what: string, sent: Bytes) => assertRefused(version, transport, code, what, sent);

			test(`fault 1, ${name}: a first packet with a wrong length is closed without an answer`, async () => {
				await refused(undefined, "five bytes", [0x10, 0xff, 0xff, 0xff, 0xff, 0x01]);
				await refused(undefined, "not minimal", [0x10, 0x80, 0x00]);
			});

			test(`fault 3, ${name}: a CONNECT that is cut anywhere behind its level is refused as malformed`, async () => {
				const body = connect(version, FLAG.clean | FLAG.will, field("c"), version === 5 ? [0] : [], field("t"), field("m")).subarray(2);
				for (let length = 0; length < body.length; length++) {
					const known = length >= (version === 3 ? 9 : 7);
					await refused(known ? 0x81 : undefined, `${length} bytes`, packet(0x10, body.subarray(0, length)));
				}
				await refused(0x81, "a byte too many", packet(0x10, body, [0]));
			});

			test(`fault 6, ${name}: a first packet other than CONNECT is closed without an answer`, async () => {
				for (const first of [
					[0xc0, 0],
					[0xe0, 0],
					packet(0x30, field("t"), [0]),
					packet(0x82, u16(1), [0], field("t"), [0]),
					[0x20, 2, 0, 0],
					[0, 0],
				]) {
					await refused(undefined, `first byte ${first[0]}`, first);
				}
				await refused(undefined, "HTTP", Buffer.from("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
			});

			test(`fault 7, ${name}: reserved flags and will flags that contradict each other are refused as malformed`, async () => {
				const id = field(freshId());
				for (const flags of [FLAG.reserved, FLAG.willQos1, 3 * FLAG.willQos1, FLAG.willRetain]) {
					await refused(0x81, `flags ${flags}`, connect(version, FLAG.clean | flags, id));
				}
				const will = [version === 5 ? [0] : [], field("t"), field("m")];
				await refused(0x81, "Will QoS 3", connect(version, FLAG.clean | FLAG.will | (3 * FLAG.willQos1), id, ...will));
				await refused(undefined, "flags of the fixed header", [0x11, ...connect(version, FLAG.clean, id).subarray(1)]);
			});

			test(`fault 8, ${name}: client id, will topic and user name that are no UTF-8 are refused as malformed`, async () => {
				const id = field(freshId());
				for (const [what, text] of BAD_STRINGS) {
					await refused(0x81, `client id: ${what}`, connect(version, FLAG.clean, field(text)));
					await refused(
						0x81,
						`will topic: ${what}`,
						connect(version, FLAG.clean | FLAG.will, id, version === 5 ? [0] : [], field(text), field("m")),
					);
					await refused(0x81, `user name: ${what}`, connect(version, FLAG.clean | FLAG.username, id, field(text)));
				}
			});

			test(`fault 9, ${name}: a will topic with a wildcard or without a character is refused as invalid`, async () => {
				for (const topic of ["#", "a/+", ""]) {
					const will = [version === 5 ? [0] : [], field(topic), field("m")];
					await refused(0x90, topic, connect(version, FLAG.clean | FLAG.will, field(freshId()), ...will));
				}
			});

			test(`fault 11, ${name}: a will topic with too many levels is refused as invalid`, async () => {
				for (const depth of [128, 65_535]) {
					const will = [version === 5 ? [0] : [], field("/".repeat(depth)), field("m")];
					await refused(0x90, `${depth}`, connect(version, FLAG.clean | FLAG.will, field(freshId()), ...will));
				}
			});
		}
	}

	for (const transport of ["ws", "tcp"] as const) {
		const refused = (code: number, what: string, sent: Bytes) => assertRefused(5, transport, code, what, sent);

		test(`fault 13 over ${transport}: CONNECT properties that are repeated, misplaced, unknown or out of range are errors`, async () => {
			const id = field(freshId());
			for (const [what, code, properties] of [
				["receive maximum twice", 0x82, props([0x21, 0, 1, 0x21, 0, 1])],
				["session expiry twice", 0x82, props([0x11], u32(1), [0x11], u32(1))],
				["topic alias", 0x82, props([0x23, 0, 1])],
				["will delay outside the will", 0x82, props([0x18], u32(1))],
				["server keep alive", 0x82, props([0x13, 0, 1])],
				["receive maximum 0", 0x82, props([0x21, 0, 0])],
				["maximum packet size 0", 0x82, props([0x27], u32(0))],
				["request problem information 2", 0x82, props([0x17, 2])],
				["request response information 2", 0x82, props([0x19, 2])],
				["authentication data without method", 0x82, props([0x16], field("data"))],
				["property 0x40", 0x81, props([0x40, 0])],
				["session expiry cut", 0x81, props([0x11, 0])],
				["length beyond the packet", 0x81, [100]],
				["length of five bytes", 0x81, [0x80, 0x80, 0x80, 0x80, 1]],
				["user property of one half", 0x81, props([0x26], field("name"))],
			] as const) {
				await refused(code, what, connect5(FLAG.clean, properties, id));
			}
		});

		test(`fault 13 over ${transport}: will properties that are repeated, misplaced or unknown are errors`, async () => {
			for (const [what, code, properties] of [
				["will delay twice", 0x82, props([0x18], u32(1), [0x18], u32(1))],
				["content type twice", 0x82, props([0x03], field("a"), [0x03], field("b"))],
				["session expiry", 0x82, props([0x11], u32(1))],
				["topic alias", 0x82, props([0x23, 0, 1])],
				["payload format 2", 0x82, props([0x01, 2])],
				["response topic with a wildcard", 0x82, props([0x08], field("a/+"))],
				["property 0x40", 0x81, props([0x40, 0])],
				["will delay cut", 0x81, props([0x18, 0])],
				["content type that is no UTF-8", 0x81, props([0x03], field([0xff]))],
				["length beyond the packet", 0x81, [100]],
			] as const) {
				await refused(code, what, connect5(FLAG.clean | FLAG.will, [0], field(freshId()), properties, field("t"), field("m")));
			}
		});

		test(`fault 16 over ${transport}: an unknown protocol name or level is told so in the words of 3.1.1`, async () => {
			for (const [name, level] of [
				["MQTT", 0],
				["MQTT", 3],
				["MQTT", 6],
				["MQTT", 255],
				["MQIsdp", 4],
				["MQIsdp", 5],
				["mqtt", 5],
				["", 5],
				["M".repeat(65_535), 5],
			] as const) {
				const client = await RawClient.open(broker, 4, transport);
				client.sendBytes(packet(0x10, field(name), [level, FLAG.clean], u16(0), [0], field("c")));
				await client.expect("connack", { returnCode: 1, sessionPresent: false });
				await client.expectClosed();
				await assertServes(broker);
			}
		});
	}

	test("fault 15: a WebSocket without a subprotocol of MQTT is refused with 400", async () => {
		for (const protocols of [[], ["wamp"], ["MQTT"], ["mqtt5"]]) {
			const { status } = await requestUpgrade({ port: broker.wsPort, protocols });
			assert.equal(status, 400, protocols.join());
		}
		await assertServes(broker);
	});

	for (const version of [5, 4, 3] as const) {
		test(`fault 15, MQTT level ${version}: a text frame is closed with 1003`, async () => {
			for (const connected of [false, true]) {
				const socket = await RawWebSocket.connect({ port: broker.wsPort });
				if (connected) {
					socket.send(connect(version, FLAG.clean, field(freshId())));
					assert.equal((await socket.next())?.payload[0], 0x20);
				}
				socket.sendText("\u0010\u0000");
				await socket.ended;
				assert.equal(socket.closeCode, 1003);
				await assertServes(broker);
			}
		});

		test(`fault 15, MQTT level ${version}: packets that are split byte by byte or joined in one frame are accepted`, async () => {
			const all = bytes(connect(version, FLAG.clean, field(freshId())), [0xc0, 0, 0xc0, 0], [0xe0, 0]);
			for (const size of [1, 5, all.length]) {
				const socket = await RawWebSocket.connect({ port: broker.wsPort });
				for (let at = 0; at < all.length; at += size) socket.send(all.subarray(at, at + size));
				const came: Buffer[] = [];
				for (let frame = await socket.next(); frame?.opcode === 2; frame = await socket.next()) came.push(frame.payload);
				await socket.ended;
				assert.equal(socket.closeCode, 1000);
				assert.equal(Buffer.concat(came).subarray(-4).toString("hex"), "d000d000");
			}
		});
	}
});
