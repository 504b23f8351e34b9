import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { V3_VERSIONS } from "../support/v3.ts";

describe("v3 retained messages", () => {
	const broker = suiteBroker();

	for (const { version, name } of V3_VERSIONS) {
		const connect = () => RawClient.connect(broker, { version });

		test(`${name}: the last retained message and its QoS are stored and come with RETAIN 1 to a new subscription [v3 MQTT-3.3.1-5] [v3 MQTT-3.3.1-6] [v3 MQTT-3.3.1-8]`, async () => {
			const publisher = await connect();
			for (const stored of [0, 1, 2]) {
				const topic = freshId("retained");
				await publisher.publishAcked(topic, "older", { retain: true });
				if (stored === 0) publisher.publish(topic, "newest", { retain: true });
				else await publisher.publishAcked(topic, "newest", { retain: true, qos: stored });
				await publisher.expectNothing();
				for (const granted of [0, 1, 2]) {
					const subscriber = await connect();
					await subscriber.subscribe(topic, { qos: granted });
					await subscriber.expect("publish", { topic, payload: "newest", retain: true, qos: Math.min(stored, granted), dup: false });
					await subscriber.expectNothing();
				}
			}
		});

		test(`${name}: a retained QoS 0 message replaces an older one of QoS 2 [v3 MQTT-3.3.1-7]`, async () => {
			const topic = freshId("retained");
			const publisher = await connect();
			await publisher.publishAcked(topic, "older", { retain: true, qos: 2 });
			publisher.publish(topic, "newer", { retain: true });
			await publisher.expectNothing();
			const subscriber = await connect();
			await subscriber.subscribe(topic, { qos: 2 });
			await subscriber.expect("publish", { payload: "newer", qos: 0 });
			await subscriber.expectNothing();
		});

		test(`${name}: RETAIN is 0 towards a subscription that stood before [v3 MQTT-3.3.1-9]`, async () => {
			const topic = freshId("retained");
			const subscriber = await connect();
			await subscriber.subscribe(topic, { qos: 1 });
			const publisher = await connect();
			publisher.publish(topic, "zero", { retain: true });
			await publisher.publishAcked(topic, "one", { retain: true });
			await subscriber.expect("publish", { payload: "zero", retain: false });
			await subscriber.expect("publish", { payload: "one", retain: false });
		});

		test(`${name}: an empty retained payload removes the message, goes to present subscribers like any other and is not stored [v3 MQTT-3.3.1-10] [v3 MQTT-3.3.1-11]`, async () => {
			const topic = freshId("retained");
			const publisher = await connect();
			await publisher.publishAcked(topic, "something", { retain: true });
			const present = await connect();
			await present.subscribe(topic);
			await present.expect("publish", { payload: "something", retain: true });
			await publisher.publishAcked(topic, "", { retain: true });
			await present.expect("publish", { payload: "", retain: false });
			const late = await connect();
			await late.subscribe(topic);
			await late.expectNothing();
		});

		test(`${name}: RETAIN 0 neither replaces nor removes the retained message [v3 MQTT-3.3.1-12]`, async () => {
			const topic = freshId("retained");
			const publisher = await connect();
			await publisher.publishAcked(topic, "kept", { retain: true });
			await publisher.publishAcked(topic, "passing");
			await publisher.publishAcked(topic, "");
			const subscriber = await connect();
			await subscriber.subscribe(topic);
			await subscriber.expect("publish", { payload: "kept", retain: true });
			await subscriber.expectNothing();
		});

		test(`${name}: a wildcard gets every matching retained message, once each, before what is published afterwards [v3 MQTT-3.3.1-6]`, async () => {
			const root = freshId("retained");
			const publisher = await connect();
			const topics = Array.from({ length: 250 }, (_, index) => `${root}/${index}/x`);
			for (const topic of topics) publisher.publish(topic, topic, { retain: true });
			publisher.publish(`${root}/elsewhere`, "", { retain: true });
			await publisher.expectNothing();
			const subscriber = await connect();
			await subscriber.subscribe(`${root}/+/x`, { qos: 1 });
			await publisher.publishAcked(`${root}/live/x`, "live");
			const came = [];
			for (let count = 0; count < topics.length; count++) came.push(await subscriber.expect("publish", { retain: true }));
			assert.deepEqual(came.map((one) => one.topic).sort(), topics.toSorted());
			await subscriber.expect("publish", { payload: "live", retain: false });
		});
	}
});
