import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytes, field, packet, u16 } from "../mqtt/wire.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { BAD_STRINGS, connectBytes, FLAG, V3_VERSIONS } from "../support/v3.ts";

describe("v3 CONNECT", () => {
	const broker = suiteBroker();

	for (const { version, name, protocol } of V3_VERSIONS) {
		/** Sends bytes on a new connection, which must end without a word. */
		const closes = async (sent: Uint8Array, what: string) => {
			const client = await RawClient.open(broker, version);
			client.sendBytes(sent);
			assert.deepEqual(await client.receiveUntilClosed(), [], what);
		};

		test(`${name}: a first packet other than CONNECT closes the connection [v3 MQTT-3.1.0-1]`, async () => {
			for (const first of [
				{ cmd: "pingreq" },
				{ cmd: "disconnect" },
				{ cmd: "publish", topic: "t", payload: "", qos: 0 },
				{ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "t", qos: 0 }] },
				{ cmd: "pubrel", messageId: 1 },
			]) {
				const client = await RawClient.open(broker, version);
				client.send(first);
				assert.deepEqual(await client.receiveUntilClosed(), [], first.cmd);
			}
		});

		test(`${name}: a second CONNECT closes the connection [v3 MQTT-3.1.0-2]`, async () => {
			const clientId = freshId();
			const client = await RawClient.connect(broker, { version, clientId });
			client.sendConnect({ clientId });
			await client.expectClosed();
		});

		test(`${name}: another protocol name is refused [v3 MQTT-3.1.2-1]`, async () => {
			for (const wrong of ["mqtt", "MQTTT", "HTTP", "", protocol === "MQTT" ? "MQIsdp" : "MQTT"]) {
				const client = await RawClient.open(broker, version);
				client.sendBytes(packet(0x10, field(wrong), [version, FLAG.clean], u16(0), field("c")));
				await client.expect("connack", { returnCode: 1 });
				await client.expectClosed();
			}
		});

		test(`${name}: a level that is not spoken is refused with return code 1 [v3 MQTT-3.1.2-2] [v3 MQTT-3.2.2-4] [v3 MQTT-3.2.2-5]`, async () => {
			for (const level of [0, 1, 2, 6, 0x80 + version, 255]) {
				const client = await RawClient.open(broker, version);
				client.sendBytes(packet(0x10, field(protocol), [level, FLAG.clean], u16(0), field("c")));
				await client.expect("connack", { returnCode: 1, sessionPresent: false });
				await client.expectClosed();
			}
		});

		test(`${name}: the reserved CONNECT flag closes the connection [v3 MQTT-3.1.2-3]`, async () => {
			await closes(connectBytes(version, FLAG.clean | FLAG.reserved, field(freshId())), "reserved flag");
		});

		test(`${name}: a CONNECT cut anywhere closes the connection without CONNACK [v3 MQTT-3.1.4-1]`, async () => {
			const body = connectBytes(version, FLAG.clean | FLAG.will, field("c"), field("t"), field("m")).subarray(2);
			for (let length = 0; length < body.length; length++) {
				await closes(packet(0x10, body.subarray(0, length)), `${length} bytes of the body`);
			}
		});

		test(`${name}: bytes behind the payload of CONNECT close the connection without CONNACK [v3 MQTT-3.1.4-1]`, async () => {
			await closes(connectBytes(version, FLAG.clean, field(freshId()), [0]), "a byte too many");
		});

		test(`${name}: a Will Flag without will topic or message closes the connection [v3 MQTT-3.1.2-9]`, async () => {
			await closes(connectBytes(version, FLAG.clean | FLAG.will, field(freshId())), "neither");
			await closes(connectBytes(version, FLAG.clean | FLAG.will, field(freshId()), field("topic")), "no message");
		});

		test(`${name}: without Will Flag there are no will fields, Will QoS 0 and Will Retain 0 [v3 MQTT-3.1.2-11] [v3 MQTT-3.1.2-13] [v3 MQTT-3.1.2-15]`, async () => {
			await closes(connectBytes(version, FLAG.clean, field(freshId()), field("topic"), field("message")), "will fields");
			for (const flags of [FLAG.willQos1, 2 * FLAG.willQos1, FLAG.willRetain]) {
				await closes(connectBytes(version, FLAG.clean | flags, field(freshId())), `flags ${flags}`);
			}
		});

		test(`${name}: Will QoS 3 closes the connection [v3 MQTT-3.1.2-14]`, async () => {
			await closes(connectBytes(version, FLAG.clean | FLAG.will | (3 * FLAG.willQos1), field(freshId()), field("t"), field("m")), "QoS 3");
		});

		test(`${name}: a user name or password without its flag closes the connection [v3 MQTT-3.1.2-18] [v3 MQTT-3.1.2-20]`, async () => {
			await closes(connectBytes(version, FLAG.clean, field(freshId()), field("user")), "user name");
			await closes(connectBytes(version, FLAG.clean | FLAG.username, field(freshId()), field("user"), field("password")), "password");
		});

		test(`${name}: a password without user name closes the connection [v3 MQTT-3.1.2-22]`, async () => {
			await closes(connectBytes(version, FLAG.clean | FLAG.password, field(freshId()), field("password")), "password alone");
		});

		test(`${name}: a CONNECT without client id closes the connection [v3 MQTT-3.1.3-3]`, async () => {
			await closes(connectBytes(version, FLAG.clean), "no payload");
		});

		test(`${name}: client id, will topic and user name must be UTF-8 without U+0000 [v3 MQTT-1.5.3-1] [v3 MQTT-1.5.3-2] [v3 MQTT-3.1.3-4] [v3 MQTT-3.1.3-10] [v3 MQTT-3.1.3-11]`, async () => {
			for (const [what, text] of BAD_STRINGS) {
				await closes(connectBytes(version, FLAG.clean, field(text)), `client id: ${what}`);
				await closes(connectBytes(version, FLAG.clean | FLAG.will, field(freshId()), field(text), field("m")), `will topic: ${what}`);
				await closes(connectBytes(version, FLAG.clean | FLAG.username, field(freshId()), field(text)), `user name: ${what}`);
			}
		});

		test(`${name}: ids of one to 23 letters and digits are accepted, longer ones too [v3 MQTT-3.1.3-5] [v3 MQTT-3.1.4-4]`, async () => {
			for (const clientId of [`${version}`, "0123456789abcdefghijklm", "NOPQRSTUVWXYZnopqrstuvw", "xyzABCDEFGHIJKLM", "l".repeat(1000)]) {
				const client = await RawClient.connect(broker, { version, clientId });
				assert.equal(client.connack.returnCode, 0);
				await client.disconnect();
			}
		});

		test(`${name}: an empty client id without CleanSession is refused with return code 2 [v3 MQTT-3.1.3-8] [v3 MQTT-3.1.3-9] [v3 MQTT-3.2.2-5]`, async () => {
			const client = await RawClient.open(broker, version);
			client.sendBytes(connectBytes(version, 0, field("")));
			await client.expect("connack", { returnCode: 2, sessionPresent: false });
			await client.expectClosed();
		});

		test(`${name}: CONNACK comes first, whatever follows the CONNECT in the same write [v3 MQTT-3.2.0-1]`, async () => {
			const client = await RawClient.open(broker, version);
			const topic = freshId("topic");
			client.sendBytes(
				bytes(
					connectBytes(version, FLAG.clean, field(freshId())),
					packet(0x82, u16(1), field(topic), [0]),
					packet(0x30, field(topic), [0x68, 0x69]),
					[0xc0, 0],
				),
			);
			await client.expect("connack", { returnCode: 0 });
			const rest = [await client.receive(), await client.receive(), await client.receive()];
			assert.deepEqual(rest.map((one) => one.cmd).sort(), ["pingresp", "publish", "suback"]);
		});

		test(`${name}: PINGREQ is answered by PINGRESP [v3 MQTT-3.12.4-1]`, async () => {
			const client = await RawClient.connect(broker, { version });
			client.sendTogether({ cmd: "pingreq" }, { cmd: "pingreq" });
			await client.expect("pingresp");
			await client.expect("pingresp");
			await client.expectNothing();
		});

		test(`${name}: another connection with the client id ends the older one [v3 MQTT-3.1.4-2]`, async () => {
			const clientId = freshId();
			const older = await RawClient.connect(broker, { version, clientId });
			const newer = await RawClient.connect(broker, { version, clientId });
			await older.expectClosed();
			await newer.expectNothing();
		});

		test(`${name}: a DISCONNECT with reserved bits or a body is malformed, so that the will is published [v3 MQTT-3.14.1-1]`, async () => {
			const topic = freshId("topic");
			const watcher = await RawClient.connect(broker, { version });
			await watcher.subscribe(topic);
			for (const wrong of [[0xe1, 0], [0xe8, 0], packet(0xe0, [0])]) {
				const client = await RawClient.connect(broker, { version, will: { topic, payload: "malformed", qos: 0, retain: false } });
				client.sendBytes(bytes(wrong));
				await client.expectClosed();
				// The will shows that this was no DISCONNECT.
				await watcher.expect("publish", { topic, payload: "malformed" });
			}
		});
	}

	test("MQTT 3.1 and 3.1.1: 1.5 times the keep alive without a packet ends the connection, a PINGREQ in time does not [v3 MQTT-3.1.2-24]", async () => {
		const open = (keepalive: number) => Promise.all(V3_VERSIONS.map(({ version }) => RawClient.connect(broker, { version, keepalive })));
		const [silent, lively, unlimited] = await Promise.all([open(1), open(1), open(0)]);
		const pings = setInterval(() => {
			for (const client of lively) client.send({ cmd: "pingreq" });
		}, 300);
		await Promise.all(silent.map((client) => client.expectClosed()));
		clearInterval(pings);
		assert.ok([...lively, ...unlimited].every((client) => !client.closed));
		for (const client of unlimited) await client.expectNothing();
	});

	test("MQTT 3.1.1: a user name or password flag without the field closes the connection [v3 MQTT-3.1.2-19] [v3 MQTT-3.1.2-21]", async () => {
		for (const sent of [
			connectBytes(4, FLAG.clean | FLAG.username, field(freshId())),
			connectBytes(4, FLAG.clean | FLAG.username | FLAG.password, field(freshId()), field("user")),
		]) {
			const client = await RawClient.open(broker, 4);
			client.sendBytes(sent);
			await client.expectClosed();
		}
	});

	test("MQTT 3.1: a user name or password may be missing although its flag is set", async () => {
		for (const sent of [
			connectBytes(3, FLAG.clean | FLAG.username, field(freshId())),
			connectBytes(3, FLAG.clean | FLAG.username | FLAG.password, field(freshId()), field("user")),
		]) {
			const client = await RawClient.open(broker, 3);
			client.sendBytes(sent);
			await client.expect("connack", { returnCode: 0 });
		}
	});

	test("MQTT 3.1.1: clean sessions with an empty client id live side by side [v3 MQTT-3.1.3-6]", async () => {
		const topic = freshId("topic");
		const clients = [
			await RawClient.connect(broker, { version: 4, clientId: "" }),
			await RawClient.connect(broker, { version: 4, clientId: "" }),
		];
		for (const client of clients) await client.subscribe(topic);
		await broker.shoal.publish(topic, "to both");
		for (const client of clients) await client.expect("publish", { topic, payload: "to both" });
	});

	test("MQTT 3.1: an empty client id is refused with return code 2 even for a clean session [v3 MQTT-3.1.3-9]", async () => {
		const client = await RawClient.open(broker, 3);
		client.sendBytes(connectBytes(3, FLAG.clean, field("")));
		await client.expect("connack", { returnCode: 2 });
		await client.expectClosed();
	});
});
