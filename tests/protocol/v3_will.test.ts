import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { V3_VERSIONS } from "../support/v3.ts";

describe("v3 wills", () => {
	const broker = suiteBroker();

	test("MQTT 3.1 and 3.1.1: the end of the keep alive publishes the will [v3 MQTT-3.1.2-8]", async () => {
		const topic = freshId("will");
		const watcher = await RawClient.connect(broker, { version: 4 });
		await watcher.subscribe(`${topic}/+`);
		for (const { version } of V3_VERSIONS) {
			await RawClient.connect(broker, {
				version,
				keepalive: 1,
				will: { topic: `${topic}/${version}`, payload: "late", qos: 0, retain: false },
			});
		}
		const topics = V3_VERSIONS.map(({ version }) => `${topic}/${version}`);
		const came = [await watcher.expect("publish", { payload: "late" }), await watcher.expect("publish", { payload: "late" })];
		assert.deepEqual(came.map((one) => one.topic).sort(), topics);
	});

	for (const { version, name } of V3_VERSIONS) {
		/** A topic with somebody who listens to it, and a client with a will for it. */
		const setUp = async (will: object = {}) => {
			const topic = freshId("will");
			const watcher = await RawClient.connect(broker, { version });
			await watcher.subscribe(topic, { qos: 2 });
			const client = await RawClient.connect(broker, { version, will: { topic, payload: "will", qos: 0, retain: false, ...will } });
			return { topic, watcher, client };
		};
		/** Wills are published in the order in which they fall due: after this one nothing older can come. */
		const expectOnlyLaterWill = async (topic: string, watcher: RawClient) => {
			const later = await RawClient.connect(broker, { version, will: { topic, payload: "a later will", qos: 0, retain: false } });
			await later.destroy();
			await watcher.expect("publish", { payload: "a later will" });
			await watcher.expectNothing();
		};

		test(`${name}: a connection that breaks publishes the will, once [v3 MQTT-3.1.2-8] [v3 MQTT-3.1.2-10] [v3 MQTT-3.1.2-9]`, async () => {
			const { topic, watcher, client } = await setUp();
			await client.destroy();
			await watcher.expect("publish", { topic, payload: "will", qos: 0, retain: false });
			await expectOnlyLaterWill(topic, watcher);
		});

		test(`${name}: a protocol error publishes the will [v3 MQTT-3.1.2-8]`, async () => {
			const { watcher, client } = await setUp();
			client.sendConnect();
			await client.expectClosed();
			await watcher.expect("publish", { payload: "will" });
		});

		test(`${name}: a takeover publishes the older connection's will [v3 MQTT-3.1.2-8]`, async () => {
			const topic = freshId("will");
			const clientId = freshId();
			const watcher = await RawClient.connect(broker, { version });
			await watcher.subscribe(topic);
			await RawClient.connect(broker, { version, clientId, will: { topic, payload: "taken over", qos: 0, retain: false } });
			await RawClient.connect(broker, { version, clientId });
			await watcher.expect("publish", { payload: "taken over" });
			await watcher.expectNothing();
		});

		test(`${name}: DISCONNECT discards the will [v3 MQTT-3.14.4-3] [v3 MQTT-3.1.2-10] [v3 MQTT-3.1.2-8]`, async () => {
			const { topic, watcher, client } = await setUp();
			await client.disconnect();
			await expectOnlyLaterWill(topic, watcher);
		});

		test(`${name}: a will that was published or discarded does not come back with the session [v3 MQTT-3.1.2-10]`, async () => {
			const topic = freshId("will");
			const clientId = freshId();
			const watcher = await RawClient.connect(broker, { version });
			await watcher.subscribe(topic);
			const will = { topic, payload: "once", qos: 0, retain: false };
			const first = await RawClient.connect(broker, { version, clientId, clean: false, will });
			await first.destroy();
			await watcher.expect("publish", { payload: "once" });
			const second = await RawClient.connect(broker, { version, clientId, clean: false });
			await second.destroy();
			await expectOnlyLaterWill(topic, watcher);
		});

		test(`${name}: without a will nothing is published when the connection breaks [v3 MQTT-3.1.2-12]`, async () => {
			const watcher = await RawClient.connect(broker, { version });
			const topic = freshId("will");
			await watcher.subscribe(`${topic}/#`);
			const client = await RawClient.connect(broker, { version });
			await client.subscribe(`${topic}/a`);
			await client.destroy();
			await expectOnlyLaterWill(`${topic}/a`, watcher);
		});

		test(`${name}: Will Retain 0 publishes without retaining, Will Retain 1 retains [v3 MQTT-3.1.2-16] [v3 MQTT-3.1.2-17]`, async () => {
			for (const retain of [false, true]) {
				const { topic, watcher, client } = await setUp({ retain, qos: 1 });
				await client.destroy();
				// To a subscription that stood before, RETAIN is 0 either way.
				await watcher.expect("publish", { payload: "will", retain: false });
				const late = await RawClient.connect(broker, { version });
				await late.subscribe(topic, { qos: 1 });
				if (retain) await late.expect("publish", { payload: "will", retain: true, qos: 1 });
				else await late.expectNothing();
			}
		});

		test(`${name}: the will has its QoS, for those who are offline too [v3 MQTT-3.1.2-9]`, async () => {
			for (const qos of [0, 1, 2]) {
				const { topic, watcher, client } = await setUp({ qos });
				const clientId = freshId();
				const sleeper = await RawClient.connect(broker, { version, clientId, clean: false });
				await sleeper.subscribe(topic, { qos: 2 });
				await sleeper.disconnect();
				await client.destroy();
				const delivered = await watcher.expect("publish", { payload: "will", qos });
				assert.equal(delivered.dup, false);
				const awake = await RawClient.connect(broker, { version, clientId, clean: false });
				if (qos > 0) await awake.expect("publish", { payload: "will", qos });
			}
		});

		test(`${name}: an empty will message is published`, async () => {
			const { topic, watcher, client } = await setUp({ payload: "" });
			await client.destroy();
			await watcher.expect("publish", { topic, payload: "" });
		});
	}
});
