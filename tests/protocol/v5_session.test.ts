/** Sessions of MQTT 5: which state a CONNECT finds, how long it lives, and what a second connection does to the first. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type ConnectOptions, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker, type TestBroker } from "../support/test_broker.ts";
import { durable, freshTopic, take } from "../support/traffic.ts";

const NEVER = 0xffffffff;

/** Whether a session with this client id can be resumed; it can be resumed again afterwards. */
async function isPresent(broker: TestBroker, clientId: string): Promise<boolean> {
	const client = await RawClient.connect(broker, durable(clientId));
	const { sessionPresent } = client.connack;
	await client.disconnect();
	return sessionPresent;
}

describe("session", () => {
	const broker = suiteBroker();

	test("Clean Start 0 with a session: resumed, with subscriptions and what came meanwhile [MQTT-3.1.2-5] [MQTT-3.2.2-3] [MQTT-3.1.2-23] [MQTT-3.1.4-4]", async () => {
		const options = durable();
		const topic = freshTopic();
		const first = await RawClient.connect(broker, options);
		assert.equal(first.connack.sessionPresent, false);
		await first.subscribe(topic, { qos: 2 });
		await first.disconnect();
		const publisher = await RawClient.connect(broker);
		await publisher.publishAcked(topic, "one", { qos: 1 });
		await publisher.publishAcked(topic, "two", { qos: 2 });
		const second = await RawClient.connect(broker, options);
		assert.equal(second.connack.sessionPresent, true);
		await take(second, { payload: "one", qos: 1, dup: false });
		await take(second, { payload: "two", qos: 2, dup: false });
		await publisher.publishAcked(topic, "three");
		await take(second, { payload: "three" });
	});

	test("Clean Start 0 without a session: a new one is created, and kept [MQTT-3.1.2-6] [MQTT-3.2.2-3]", async () => {
		const clientId = freshId();
		const first = await RawClient.connect(broker, durable(clientId));
		assert.equal(first.connack.sessionPresent, false);
		await first.disconnect();
		assert.equal(await isPresent(broker, clientId), true);
	});

	test("Clean Start 1: the old session is gone with subscriptions and messages, a new one begins [MQTT-3.1.2-4] [MQTT-3.2.2-2] [MQTT-3.1.4-4]", async () => {
		const options = durable();
		const topic = freshTopic();
		const first = await RawClient.connect(broker, options);
		await first.subscribe(topic, { qos: 1 });
		await first.disconnect();
		await broker.shoal.publish(topic, "missed", { qos: 1 });
		const second = await RawClient.connect(broker, { ...options, clean: true });
		assert.equal(second.connack.sessionPresent, false);
		await broker.shoal.publish(topic, "not subscribed", { qos: 1 });
		await second.expectNothing();
		await second.subscribe(topic, { qos: 1 });
		await second.destroy();
		await broker.shoal.publish(topic, "for the new session", { qos: 1 });
		const third = await RawClient.connect(broker, options);
		assert.equal(third.connack.sessionPresent, true, "the new session is one to keep");
		await take(third, { payload: "for the new session" });
		await third.expectNothing();
	});

	test("another client id is another session [MQTT-3.1.3-2]", async () => {
		const clientId = freshId();
		await (await RawClient.connect(broker, durable(clientId))).disconnect();
		for (const other of [clientId.toUpperCase(), `${clientId} `, `${clientId}\u0301`]) assert.equal(await isPresent(broker, other), false);
		assert.equal(await isPresent(broker, clientId), true);
	});

	for (const [what, options] of [
		["without a Session Expiry Interval", {}],
		["with Session Expiry Interval 0", { properties: { sessionExpiryInterval: 0 } }],
	] as const satisfies readonly (readonly [string, ConnectOptions])[]) {
		test(`a session ${what} ends with its connection [MQTT-4.1.0-2] [MQTT-3.2.2-3]`, async () => {
			const clientId = freshId();
			const topic = freshTopic();
			const first = await RawClient.connect(broker, { clientId, clean: false, ...options });
			await first.subscribe(topic, { qos: 1 });
			await first.disconnect();
			const second = await RawClient.connect(broker, { clientId, clean: false, ...options });
			assert.equal(second.connack.sessionPresent, false);
			await broker.shoal.publish(topic, "nobody subscribes", { qos: 1 });
			await second.expectNothing();
		});
	}

	test("a session is kept while connected, and until its expiry has passed since the end of the connection [MQTT-4.1.0-1] [MQTT-4.1.0-2] [MQTT-3.1.2-23]", async () => {
		const options = durable(freshId(), { sessionExpiryInterval: 1 });
		const topic = freshTopic();
		const first = await RawClient.connect(broker, options);
		await first.subscribe(topic, { qos: 1 });
		await sleep(1200);
		await broker.shoal.publish(topic, "while connected", { qos: 1 });
		await take(first, { payload: "while connected" });
		await first.disconnect();
		const second = await RawClient.connect(broker, options);
		assert.equal(second.connack.sessionPresent, true, "the time of the connection does not count");
		await second.disconnect();
		await sleep(1050);
		const third = await RawClient.connect(broker, options);
		assert.equal(third.connack.sessionPresent, false);
		await broker.shoal.publish(topic, "after the end", { qos: 1 });
		await third.expectNothing();
	});

	test("Session Expiry Interval of a resuming CONNECT replaces the earlier one [MQTT-4.1.0-2]", async () => {
		const clientId = freshId();
		await (await RawClient.connect(broker, durable(clientId))).disconnect();
		const second = await RawClient.connect(broker, { clientId, clean: false });
		assert.equal(second.connack.sessionPresent, true);
		await second.disconnect();
		assert.equal(await isPresent(broker, clientId), false);
	});

	test("Session Expiry Interval 0xFFFFFFFF is granted where the server sets no limit", async (t) => {
		const own = await startBroker(t, { maxSessionExpirySeconds: NEVER });
		const clientId = freshId();
		const client = await RawClient.connect(own, durable(clientId, { sessionExpiryInterval: NEVER }));
		assert.equal(client.connack.properties.sessionExpiryInterval, undefined);
		await client.disconnect();
		assert.equal(await isPresent(own, clientId), true);
	});

	test("Session Expiry Interval above the server's limit: CONNACK tells the limit, and it holds, also for DISCONNECT [MQTT-4.1.0-2]", async (t) => {
		const own = await startBroker(t, { maxSessionExpirySeconds: 1 });
		const ids = [freshId(), freshId(), freshId()];
		for (const [i, clientId] of ids.entries()) {
			const client = await RawClient.connect(own, durable(clientId, { sessionExpiryInterval: i === 0 ? 100 : NEVER }));
			assert.equal(client.connack.properties.sessionExpiryInterval, 1);
			if (i === 0) await client.destroy();
			else await client.disconnect({ properties: { sessionExpiryInterval: i === 1 ? 200 : NEVER } });
		}
		const exact = await RawClient.connect(own, durable(freshId(), { sessionExpiryInterval: 1 }));
		assert.equal(exact.connack.properties.sessionExpiryInterval, undefined, "what is granted as asked is not told");
		// Longer than the others: the end of a broken connection is noticed after it.
		await sleep(1300);
		for (const clientId of ids) assert.equal(await isPresent(own, clientId), false);
	});

	test("Session Expiry Interval in DISCONNECT may shorten and lengthen the session's life", async () => {
		const ids = [freshId(), freshId(), freshId()];
		const [ended = "", shortened = "", lengthened = ""] = ids;
		await (await RawClient.connect(broker, durable(ended))).disconnect({ properties: { sessionExpiryInterval: 0 } });
		await (await RawClient.connect(broker, durable(shortened))).disconnect({ properties: { sessionExpiryInterval: 1 } });
		const brief = await RawClient.connect(broker, durable(lengthened, { sessionExpiryInterval: 1 }));
		await brief.disconnect({ properties: { sessionExpiryInterval: 100 } });
		assert.equal(await isPresent(broker, ended), false);
		await sleep(1050);
		assert.equal(await isPresent(broker, shortened), false);
		assert.equal(await isPresent(broker, lengthened), true);
	});

	test("Session Expiry Interval in the DISCONNECT of a session without one: DISCONNECT 0x82, and the session ends", async () => {
		const clientId = freshId();
		const client = await RawClient.connect(broker, { clientId });
		client.send({ cmd: "disconnect", properties: { sessionExpiryInterval: 100 } });
		await client.expectDisconnect(0x82);
		assert.equal(await isPresent(broker, clientId), false);
	});

	test("retained messages are no part of a session: they stay when it ends", async () => {
		const topic = freshTopic();
		const first = await RawClient.connect(broker);
		await first.publishAcked(topic, "kept", { retain: true });
		await first.disconnect();
		const second = await RawClient.connect(broker);
		await second.subscribe(topic);
		await second.expect("publish", { payload: "kept", retain: true });
	});

	test("packet ids of QoS 2 publications are part of the session: no second delivery after a reconnect [MQTT-4.1.0-1]", async () => {
		const options = durable();
		const topic = freshTopic();
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe(topic, { qos: 0 });
		const first = await RawClient.connect(broker, options);
		first.publish(topic, "once", { qos: 2, messageId: 7 });
		await first.expect("pubrec", { messageId: 7 });
		await watcher.expect("publish", { payload: "once" });
		await first.destroy();
		const second = await RawClient.connect(broker, options);
		second.publish(topic, "once", { qos: 2, messageId: 7, dup: true });
		await second.expect("pubrec", { messageId: 7, reasonCode: 0 });
		second.send({ cmd: "pubrel", messageId: 7 });
		await second.expect("pubcomp", { messageId: 7, reasonCode: 0 });
		await watcher.expectNothing();
	});
});

describe("takeover", () => {
	const broker = suiteBroker();

	test("a second connection with the client id: the first gets DISCONNECT 0x8E and is closed [MQTT-3.1.4-3] [MQTT-4.13.2-1]", async () => {
		const clientId = freshId();
		const first = await RawClient.connect(broker, { clientId });
		const second = await RawClient.connect(broker, { clientId });
		await first.expectDisconnect(0x8e);
		assert.equal(second.connack.sessionPresent, false);
		await second.expectNothing();
	});

	for (const [oldVersion, newVersion] of [
		[4, 5],
		[5, 4],
	] as const) {
		test(`client ids are shared by all versions: version ${newVersion} takes over from version ${oldVersion} [MQTT-3.1.4-3]`, async () => {
			const clientId = freshId();
			const first = await RawClient.connect(broker, { clientId, version: oldVersion });
			const second = await RawClient.connect(broker, { clientId, version: newVersion });
			await first.expectDisconnect(0x8e);
			await second.expectNothing();
		});
	}

	test("the session moves on with subscriptions and unacknowledged deliveries [MQTT-3.1.2-5] [MQTT-3.2.2-3]", async () => {
		const options = durable();
		const topic = freshTopic();
		const first = await RawClient.connect(broker, options);
		await first.subscribe(topic, { qos: 1 });
		await broker.shoal.publish(topic, "unacknowledged", { qos: 1 });
		const { messageId } = await first.expect("publish", { payload: "unacknowledged", dup: false });
		const second = await RawClient.connect(broker, options);
		assert.equal(second.connack.sessionPresent, true);
		await first.expectDisconnect(0x8e);
		await second.expect("publish", { payload: "unacknowledged", dup: true, messageId });
		await broker.shoal.publish(topic, "next", { qos: 1 });
		await take(second, { payload: "next", dup: false });
	});

	test("with Clean Start 1 nothing of the first connection's session is left [MQTT-3.1.2-4] [MQTT-3.2.2-2]", async () => {
		const options = durable();
		const topic = freshTopic();
		const first = await RawClient.connect(broker, options);
		await first.subscribe(topic, { qos: 1 });
		await broker.shoal.publish(topic, "unacknowledged", { qos: 1 });
		await first.expect("publish", { payload: "unacknowledged" });
		const second = await RawClient.connect(broker, { ...options, clean: true });
		assert.equal(second.connack.sessionPresent, false);
		await broker.shoal.publish(topic, "next", { qos: 1 });
		await second.expectNothing();
	});

	test("the first connection's end does not disturb the second's session", async () => {
		const options = durable();
		const topic = freshTopic();
		const first = await RawClient.connect(broker, options);
		const second = await RawClient.connect(broker, options);
		await second.subscribe(topic, { qos: 1 });
		await first.expectDisconnect(0x8e);
		await second.destroy();
		await broker.shoal.publish(topic, "kept", { qos: 1 });
		const third = await RawClient.connect(broker, options);
		assert.equal(third.connack.sessionPresent, true);
		await take(third, { payload: "kept" });
	});

	test("of many connections that come at once with one client id exactly one is left [MQTT-3.1.4-3]", async (t) => {
		const own = await startBroker(t);
		const options = durable();
		const clients = await Promise.all(Array.from({ length: 30 }, () => RawClient.open(own)));
		for (const client of clients) {
			client.sendConnect(options);
			client.send({ cmd: "pingreq" });
		}
		// Whoever was overtaken before its session was open is closed without CONNACK.
		const first = await Promise.all(clients.map(heard));
		for (const words of first) assert.ok(["", "connack,disconnect", "connack,pingresp"].includes(words), words);
		for (const client of clients) if (!client.closed) client.send({ cmd: "pingreq" });
		const then = await Promise.all(clients.map(heard));
		assert.equal(then.filter((words) => words === "pingresp").length, 1, then.join(" "));
		assert.equal(own.shoal.connections, 1);
		const probe = await RawClient.connect(own, options);
		assert.equal(probe.connack.sessionPresent, true);
	});
});

/** What comes until the client has its PINGRESP or is closed; a takeover is what ends it. */
async function heard(client: RawClient): Promise<string> {
	const words: string[] = [];
	while (words.at(-1) !== "pingresp") {
		const packet = await client.receive().catch(() => undefined);
		if (packet === undefined) break;
		if (packet.cmd === "disconnect") assert.equal(packet.reasonCode, 0x8e);
		words.push(packet.cmd);
	}
	return words.join();
}
