/** Keep Alive of MQTT 5: the client's, the server's in its place, and what a client that falls silent is told. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker } from "../support/test_broker.ts";
import { durable, freshTopic } from "../support/traffic.ts";

describe("keep alive", () => {
	const broker = suiteBroker();

	test("a silent client: DISCONNECT 0x8D after one and a half times its keep alive, close, and the will as if the network had failed [MQTT-3.1.2-22] [MQTT-3.2.2-22] [MQTT-3.1.2-8]", async () => {
		const topic = freshTopic();
		const watcher = await RawClient.connect(broker, { keepalive: 0 });
		await watcher.subscribe(topic);
		const startMs = Date.now();
		const options = durable();
		const client = await RawClient.connect(broker, { ...options, keepalive: 1, will: { topic, payload: "gone", qos: 0, retain: false } });
		assert.equal(client.connack.properties.serverKeepAlive, undefined);
		await client.expectDisconnect(0x8d);
		assert.ok(Date.now() - startMs >= 1500, "not before");
		await watcher.expect("publish", { payload: "gone" });
		// A keep alive of 0 is none, and the session of the one that fell silent is kept.
		await watcher.expectNothing();
		assert.equal((await RawClient.connect(broker, options)).connack.sessionPresent, true);
	});

	test("only what comes from the client counts, any packet does, and half of one does not [MQTT-3.1.2-22]", async () => {
		const topic = freshTopic();
		const reader = await RawClient.connect(broker, { keepalive: 1 });
		await reader.subscribe(topic);
		const stuck = await RawClient.connect(broker, { keepalive: 1 });
		stuck.sendBytes("30 10 00");
		// Twice 1.4 s and what follows is more than the 3 s that are allowed without a packet.
		const active = await RawClient.connect(broker, { keepalive: 2 });
		await sleep(700);
		await broker.shoal.publish(topic, "to the reader");
		await sleep(700);
		active.publish(topic, "to the reader");
		await sleep(1400);
		active.send({ cmd: "puback", messageId: 1 });
		for (let i = 0; i < 2; i++) await reader.expect("publish", { payload: "to the reader" });
		await reader.expectDisconnect(0x8d);
		await stuck.expectDisconnect(0x8d);
		await sleep(600);
		await active.expectNothing();
	});
});

describe("server keep alive", () => {
	test("counts where the client's is longer or none, which CONNACK tells; a shorter one stays the client's [MQTT-3.1.2-22] [MQTT-3.2.2-22]", async (t) => {
		const strict = await startBroker(t, { maxKeepAliveSeconds: 1 });
		const generous = await startBroker(t, { maxKeepAliveSeconds: 60 });
		const silent: RawClient[] = [];
		for (const [broker, keepalive, told] of [
			[strict, 0, 1],
			[strict, 60, 1],
			[strict, 1, undefined],
			[generous, 1, undefined],
		] as const) {
			const client = await RawClient.connect(broker, { keepalive });
			assert.equal(client.connack.properties.serverKeepAlive, told);
			silent.push(client);
		}
		const patient = await RawClient.connect(generous, { keepalive: 0 });
		assert.equal(patient.connack.properties.serverKeepAlive, 60);
		for (const client of silent) await client.expectDisconnect(0x8d);
		await patient.expectNothing();
	});
});
