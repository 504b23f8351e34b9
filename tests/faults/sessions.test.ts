import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytes, packet, props, u16, u32 } from "../mqtt/wire.ts";
import { type ConnectOptions, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";

describe("sessions between connections", () => {
	const broker = suiteBroker();

	for (const version of [5, 4, 3] as const) {
		for (const transport of ["ws", "tcp"] as const) {
			const name = `MQTT level ${version} over ${transport}`;
			/** How to come back to one session. */
			const session = (): ConnectOptions => ({
				version,
				transport,
				clientId: freshId(),
				clean: false,
				properties: { sessionExpiryInterval: 1000 },
			});

			test(`fault 69, ${name}: a QoS 2 message that is sent again after a takeover is delivered once, not twice and not never`, async () => {
				const topic = freshId("topic");
				const watcher = await RawClient.connect(broker, { version });
				await watcher.subscribe(topic);
				const options = session();
				const first = await RawClient.connect(broker, options);
				first.publish(topic, "acknowledged", { qos: 2, messageId: 1 });
				await first.expect("pubrec", { messageId: 1 });
				// The answer to this one is on its way when the other connection comes.
				first.publish(topic, "on its way", { qos: 2, messageId: 2 });
				const second = await RawClient.connect(broker, options);
				for (const [messageId, payload] of [
					[1, "acknowledged"],
					[2, "on its way"],
				] as const) {
					second.publish(topic, payload, { qos: 2, messageId, dup: true });
					await second.expect("pubrec", { messageId });
					second.send({ cmd: "pubrel", messageId });
					await second.expect("pubcomp", { messageId });
				}
				await watcher.expect("publish", { payload: "acknowledged" });
				await watcher.expect("publish", { payload: "on its way" });
				await watcher.expectNothing();
			});

			test(`fault 70, ${name}: a PUBACK in one frame with the DISCONNECT is taken`, async () => {
				const topic = freshId("topic");
				const options = session();
				const first = await RawClient.connect(broker, options);
				await first.subscribe(topic, { qos: 1 });
				await broker.shoal.publish(topic, "once", { qos: 1 });
				const { messageId } = await first.expect("publish", { payload: "once" });
				first.sendBytes(bytes([0x40, 2], u16(messageId), [0xe0, 0]));
				await first.expectClosed();
				const second = await RawClient.connect(broker, options);
				await second.expectNothing();
			});

			test(`fault 70, ${name}: PUBREC and PUBLISH in one frame with the DISCONNECT are taken`, async () => {
				const topic = freshId("topic");
				const options = session();
				const first = await RawClient.connect(broker, options);
				await first.subscribe(topic, { qos: 2 });
				await broker.shoal.publish(topic, "exactly once", { qos: 2 });
				const { messageId } = await first.expect("publish", { payload: "exactly once" });
				const watcher = await RawClient.connect(broker, { version });
				await watcher.subscribe(`${topic}/last`);
				first.sendTogether(
					{ cmd: "pubrec", messageId },
					{ cmd: "publish", topic: `${topic}/last`, payload: "last words", qos: 1, messageId: 9 },
					{ cmd: "disconnect" },
				);
				await watcher.expect("publish", { payload: "last words" });
				await first.receiveUntilClosed();
				const second = await RawClient.connect(broker, options);
				await second.expect("pubrel", { messageId });
				second.send({ cmd: "pubcomp", messageId });
				await second.expectNothing();
			});

			test(`fault 72, ${name}: a session that is resumed does not get the retained messages of its subscriptions again`, async () => {
				const topic = freshId("topic");
				const options = session();
				const first = await RawClient.connect(broker, options);
				await broker.shoal.publish(topic, "retained", { qos: 1, retain: true });
				await first.subscribe(topic, { qos: 1 });
				const { messageId } = await first.expect("publish", { payload: "retained", retain: true });
				first.send({ cmd: "puback", messageId });
				await first.expectNothing();
				await first.disconnect();
				const second = await RawClient.connect(broker, options);
				await second.expectNothing();
				const third = await RawClient.connect(broker, options);
				await third.expectNothing();
				await third.subscribe(topic, { qos: 1 });
				await third.expect("publish", { payload: "retained", retain: true });
			});
		}
	}

	for (const transport of ["ws", "tcp"] as const) {
		test(`fault 71, MQTT 5 over ${transport}: a DISCONNECT that gives a session an expiry that CONNECT gave none is a protocol error, and the will is published`, async () => {
			const topic = freshId("will");
			const watcher = await RawClient.connect(broker);
			await watcher.subscribe(topic);
			const clientId = freshId();
			const will = { topic, payload: "protocol error", qos: 0, retain: false };
			const client = await RawClient.connect(broker, { transport, clientId, will });
			await client.subscribe("t", { qos: 1 });
			client.sendBytes(packet(0xe0, [0], props([0x11], u32(100))));
			await client.expectDisconnect(0x82);
			await watcher.expect("publish", { payload: "protocol error" });
			const again = await RawClient.connect(broker, { clientId, clean: false });
			assert.equal(again.connack.sessionPresent, false);
		});

		test(`fault 71, MQTT 5 over ${transport}: a DISCONNECT may set an expiry to 0, and change one that is not 0`, async () => {
			for (const [expiry, present] of [
				[0, false],
				[50, true],
			] as const) {
				const options = { transport, clientId: freshId(), clean: false, properties: { sessionExpiryInterval: 100 } };
				const client = await RawClient.connect(broker, options);
				await client.disconnect({ properties: { sessionExpiryInterval: expiry } });
				const again = await RawClient.connect(broker, options);
				assert.equal(again.connack.sessionPresent, present);
			}
		});
	}
});
