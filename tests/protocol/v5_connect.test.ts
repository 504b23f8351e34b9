/** MQTT 5 CONNECT and CONNACK as a client sees them: what is accepted, what is refused, and with which words. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { field, packet, props, u16 } from "../mqtt/wire.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker } from "../support/test_broker.ts";

const CLEAN = 0x02;
const WILL = 0x04;
const PASSWORD = 0x40;
const USER_NAME = 0x80;
const NO_PROPERTIES = [0];

/** A CONNECT of MQTT 5 with these flags and this payload. */
const connect = (flags: number, ...payload: Parameters<typeof packet>[1][]) =>
	packet(0x10, field("MQTT"), [5, flags], u16(0), NO_PROPERTIES, ...payload);

describe("CONNECT", () => {
	const broker = suiteBroker();

	test("a good CONNECT is answered by CONNACK 0x00 with clear flags [MQTT-3.1.4-5] [MQTT-3.2.2-1] [MQTT-3.2.2-2]", async () => {
		const client = await RawClient.connect(broker);
		const bytes = Buffer.concat(client.bytes);
		assert.equal(bytes[0], 0x20, "the first byte is that of CONNACK");
		assert.equal(bytes[2], 0, "flags");
		assert.equal(bytes[3], 0, "reason code");
		await client.expectNothing();
	});

	test("CONNACK tells the limits of the server, and no more than differs from the defaults", async () => {
		const client = await RawClient.connect(broker, { keepalive: 30 });
		assert.deepEqual({ ...client.connack.properties }, { maximumPacketSize: 1_048_576, receiveMaximum: 1000, topicAliasMaximum: 32 });
	});

	test("CONNACK tells the configured limits", async (t) => {
		const own = await startBroker(t, { maxPacketSize: 5000, receiveMaximum: 65_535, topicAliasMaximum: 0 });
		const client = await RawClient.connect(own);
		assert.deepEqual({ ...client.connack.properties }, { maximumPacketSize: 5000 });
	});

	for (const [name, hex] of [
		["PUBLISH", "30 05 0001 61 00 62"],
		["PUBACK", "40 02 0001"],
		["PUBREL", "62 02 0001"],
		["SUBSCRIBE", "82 07 0001 00 0001 61 00"],
		["PINGREQ", "c0 00"],
		["DISCONNECT", "e0 00"],
		["AUTH", "f0 00"],
		["CONNACK", "20 03 00 00 00"],
		["rubbish", "00 00"],
	] as const) {
		test(`${name} as the first packet: closed without a word, not even DISCONNECT [MQTT-3.1.0-1] [MQTT-3.14.0-1]`, async () => {
			const client = await RawClient.open(broker);
			client.sendBytes(hex);
			await client.expectClosed();
			assert.equal(Buffer.concat(client.bytes).length, 0);
		});
	}

	test("a second CONNECT ends the connection with DISCONNECT 0x82 and no second CONNACK [MQTT-3.1.0-2] [MQTT-3.2.0-2]", async () => {
		const clientId = freshId();
		const client = await RawClient.connect(broker, { clientId });
		client.sendConnect({ clientId });
		await client.expectDisconnect(0x82);
	});

	test("a second CONNECT right behind the first gets both refused by one CONNACK [MQTT-3.1.0-2] [MQTT-3.2.0-2] [MQTT-3.14.0-1]", async () => {
		const client = await RawClient.open(broker);
		const one = { cmd: "connect", protocolId: "MQTT", protocolVersion: 5, clientId: freshId(), clean: true, keepalive: 0 };
		client.sendTogether(one, one);
		await client.expect("connack", { reasonCode: 0x82, sessionPresent: false });
		await client.expectClosed();
	});

	for (const [what, bytes] of [
		["protocol name HTTP", packet(0x10, field("HTTP"), [5, CLEAN], u16(0), NO_PROPERTIES, field("a"))],
		["protocol name mqtt in lower case [MQTT-3.1.2-1]", packet(0x10, field("mqtt"), [5, CLEAN], u16(0), NO_PROPERTIES, field("a"))],
		["protocol version 6", packet(0x10, field("MQTT"), [6, CLEAN], u16(0), NO_PROPERTIES, field("a"))],
		["protocol version 0 [MQTT-3.1.2-2]", packet(0x10, field("MQTT"), [0, CLEAN], u16(0), NO_PROPERTIES, field("a"))],
	] as const) {
		test(`${what}: "unacceptable protocol" in the words that every version has, then the close [MQTT-3.1.2-1] [MQTT-3.1.2-2]`, async () => {
			// The versions before 5 are the common ground: whoever speaks another one reads return code 1 there.
			const client = await RawClient.open(broker, 4);
			client.sendBytes(bytes);
			await client.expect("connack", { returnCode: 1, sessionPresent: false });
			await client.expectClosed();
		});
	}

	const withWill = CLEAN | WILL;
	for (const [what, bytes, reasonCode] of [
		["the reserved flag set [MQTT-3.1.2-3]", connect(CLEAN | 1, field("a")), 0x81],
		["Will QoS 1 without a will [MQTT-3.1.2-11]", connect(CLEAN | 0x08, field("a")), 0x81],
		["Will Retain without a will [MQTT-3.1.2-13]", connect(CLEAN | 0x20, field("a")), 0x81],
		["Will QoS 3 [MQTT-3.1.2-12]", connect(withWill | 0x18, field("a"), NO_PROPERTIES, field("t"), field("m")), 0x81],
		["a will flag and no will [MQTT-3.1.2-9]", connect(withWill, field("a")), 0x81],
		["a will without payload [MQTT-3.1.2-9]", connect(withWill, field("a"), NO_PROPERTIES, field("t")), 0x81],
		["a user name flag and no user name [MQTT-3.1.2-17]", connect(CLEAN | USER_NAME, field("a")), 0x81],
		["a user name and no user name flag [MQTT-3.1.2-16]", connect(CLEAN, field("a"), field("u")), 0x81],
		["a password flag and no password [MQTT-3.1.2-19]", connect(CLEAN | USER_NAME | PASSWORD, field("a"), field("u")), 0x81],
		["a password and no password flag [MQTT-3.1.2-18]", connect(CLEAN | USER_NAME, field("a"), field("u"), field("p")), 0x81],
		["no client id at all [MQTT-3.1.3-3]", connect(CLEAN), 0x81],
		["a client id that is no UTF-8 [MQTT-3.1.3-4]", connect(CLEAN, field([0xc3, 0x28])), 0x81],
		["a will topic that is no UTF-8 [MQTT-3.1.3-11]", connect(withWill, field("a"), NO_PROPERTIES, field([0xff]), field("m")), 0x81],
		["a user name with a surrogate [MQTT-3.1.3-12]", connect(CLEAN | USER_NAME, field("a"), field([0xed, 0xa0, 0x80])), 0x81],
		["a will topic with a wildcard", connect(withWill, field("a"), NO_PROPERTIES, field("t/#"), field("m")), 0x90],
		["a property twice", packet(0x10, field("MQTT"), [5, CLEAN], u16(0), props([0x21, 0, 5], [0x21, 0, 5]), field("a")), 0x82],
		["Receive Maximum 0", packet(0x10, field("MQTT"), [5, CLEAN], u16(0), props([0x21, 0, 0]), field("a")), 0x82],
		["Maximum Packet Size 0", packet(0x10, field("MQTT"), [5, CLEAN], u16(0), props([0x27, 0, 0, 0, 0]), field("a")), 0x82],
		["Request Problem Information 2", packet(0x10, field("MQTT"), [5, CLEAN], u16(0), props([0x17, 2]), field("a")), 0x82],
	] as const) {
		const code = `0x${reasonCode.toString(16)}`;
		test(`with ${what}: CONNACK ${code}, session present 0, close [MQTT-3.1.4-1] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-4.13.1-1]`, async () => {
			const client = await RawClient.open(broker);
			client.sendBytes(bytes);
			await client.expect("connack", { reasonCode, sessionPresent: false });
			await client.expectClosed();
		});
	}

	test("client ids of 1 and of 23 letters and digits are accepted [MQTT-3.1.3-5]", async () => {
		for (const clientId of ["0", "Z", "0123456789abcdefghijklm", "NOPQRSTUVWXYZnopqrstuvw"]) {
			const client = await RawClient.connect(broker, { clientId });
			assert.equal(client.connack.properties.assignedClientIdentifier, undefined, clientId);
			await client.expectNothing();
		}
	});

	test("client ids of 65,535 bytes and of any characters are accepted", async () => {
		for (const clientId of ["x".repeat(65_535), "a/b+c#d$", "\ufeffßжあ👍"])
			await (await RawClient.connect(broker, { clientId })).expectNothing();
	});

	test("an empty client id is replaced by one that nobody has, told in CONNACK [MQTT-3.1.3-6] [MQTT-3.2.2-16]", async () => {
		const ids = new Set<string>();
		for (let i = 0; i < 20; i++) {
			const client = await RawClient.open(broker);
			client.sendBytes(connect(i % 2 === 0 ? CLEAN : 0, field("")));
			const connack = await client.expect("connack", { reasonCode: 0, sessionPresent: false });
			ids.add(connack.properties.assignedClientIdentifier);
		}
		assert.ok(!ids.has("") && [...ids].every((id) => typeof id === "string"));
		assert.equal(ids.size, 20, "each is another one");
	});

	test("an assigned client id is the client's own: its session is resumed by that name [MQTT-3.1.3-7] [MQTT-3.1.3-2]", async () => {
		const properties = { sessionExpiryInterval: 100 };
		const first = await RawClient.connect(broker, { clientId: "", properties });
		const clientId = first.connack.properties.assignedClientIdentifier;
		assert.equal(first.connack.sessionPresent, false);
		await first.subscribe(`${clientId}/+`, { qos: 1 });
		await first.destroy();
		const second = await RawClient.connect(broker, { clientId, clean: false, properties });
		assert.equal(second.connack.sessionPresent, true);
		assert.equal(second.connack.properties.assignedClientIdentifier, undefined);
		second.publish(`${clientId}/x`, "still subscribed");
		await second.expect("publish", { payload: "still subscribed" });
	});

	test("Request Response Information 0, or absent: no Response Information in CONNACK [MQTT-3.1.2-28]", async (t) => {
		const own = await startBroker(t, { responseInformation: "answers/" });
		for (const properties of [{}, { requestResponseInformation: false }]) {
			const client = await RawClient.connect(own, { properties });
			assert.equal(client.connack.properties.responseInformation, undefined);
		}
		const asking = await RawClient.connect(own, { properties: { requestResponseInformation: true } });
		assert.equal(asking.connack.properties.responseInformation, "answers/");
	});

	test("Request Response Information 1 at a server that has none: CONNACK says nothing", async () => {
		const client = await RawClient.connect(broker, { properties: { requestResponseInformation: true } });
		assert.equal(client.connack.properties.responseInformation, undefined);
	});

	test("no CONNECT within the time limit: closed without a word [MQTT-3.14.0-1]", async (t) => {
		const own = await startBroker(t, { connectTimeoutSeconds: 1 });
		const connected = await RawClient.connect(own);
		const silent = await RawClient.open(own);
		const halfway = await RawClient.open(own);
		halfway.sendBytes(connect(CLEAN, field("a")).subarray(0, 10));
		await silent.expectClosed();
		await halfway.expectClosed();
		assert.equal(Buffer.concat([...silent.bytes, ...halfway.bytes]).length, 0);
		await connected.expectNothing();
	});

	test("packets right behind CONNECT are processed after CONNACK, in order [MQTT-3.2.0-1]", async () => {
		const topic = freshId("early");
		const client = await RawClient.open(broker);
		client.sendTogether(
			{ cmd: "connect", protocolId: "MQTT", protocolVersion: 5, clientId: freshId(), clean: true, keepalive: 0 },
			{ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos: 1 }] },
			{ cmd: "pingreq" },
			{ cmd: "publish", topic: `${topic}/other`, payload: "one", qos: 1, messageId: 2 },
			{ cmd: "unsubscribe", messageId: 3, unsubscriptions: [topic] },
			{ cmd: "pingreq" },
		);
		await client.expect("connack", { reasonCode: 0 });
		const rest: string[] = [];
		for (let i = 0; i < 5; i++) rest.push((await client.receive()).cmd);
		// What needs no store is answered before what does.
		assert.deepEqual(rest.toSorted(), ["pingresp", "pingresp", "puback", "suback", "unsuback"]);
		assert.ok(rest.indexOf("suback") < rest.indexOf("unsuback"));
		await client.expectNothing();
	});

	test("packets right behind a persistent session's CONNECT are processed after CONNACK, too [MQTT-3.2.0-1]", async () => {
		const topic = freshId("early");
		const client = await RawClient.open(broker);
		const properties = { sessionExpiryInterval: 60 };
		client.sendTogether(
			{ cmd: "connect", protocolId: "MQTT", protocolVersion: 5, clientId: freshId(), clean: true, keepalive: 0, properties },
			{ cmd: "publish", topic, payload: "kept", qos: 2, messageId: 2, retain: true },
		);
		await client.expect("connack", { reasonCode: 0 });
		await client.expect("pubrec", { messageId: 2, reasonCode: 0 });
		client.send({ cmd: "pubrel", messageId: 2 });
		await client.expect("pubcomp", { messageId: 2, reasonCode: 0 });
		await client.subscribe(topic);
		await client.expect("publish", { payload: "kept" });
	});

	test("CONNACK is the first packet, also where messages wait for a resumed session [MQTT-3.2.0-1]", async () => {
		const options = { clientId: freshId(), clean: false, properties: { sessionExpiryInterval: 100 } };
		const topic = freshId("waiting");
		const first = await RawClient.connect(broker, options);
		await first.subscribe(topic, { qos: 2 });
		await first.disconnect();
		const publisher = await RawClient.connect(broker);
		for (const payload of ["a", "b", "c"]) await publisher.publishAcked(topic, payload);
		const second = await RawClient.open(broker);
		second.sendConnect(options);
		await second.expect("connack", { reasonCode: 0, sessionPresent: true });
		for (const payload of ["a", "b", "c"]) await second.expect("publish", { payload });
	});

	test("a QoS 2 retained will and QoS 2 publications are accepted, so CONNACK announces neither Maximum QoS nor Retain Available", async () => {
		const topic = freshId("capable");
		const client = await RawClient.connect(broker, { will: { topic, payload: "w", qos: 2, retain: true } });
		assert.equal(client.connack.properties.maximumQoS, undefined);
		assert.equal(client.connack.properties.retainAvailable, undefined);
		assert.deepEqual((await client.subscribe(topic, { qos: 2 })).granted, [2]);
		await client.publishAcked(`${topic}/other`, "m", { qos: 2, retain: true });
	});
});
