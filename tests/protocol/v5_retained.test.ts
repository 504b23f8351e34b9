/** Retained messages of MQTT 5.0: sections 3.3.1.3 and 3.8.3.1, Retain Handling and Retain As Published. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { durable, freshTopic, publishMany, SESSION_KINDS, take, takeMany, text } from "../support/traffic.ts";

describe("retained messages in MQTT 5.0", () => {
	const broker = suiteBroker();

	async function subscribed(filter: string, options: AnyPacket = {}): Promise<RawClient> {
		const client = await RawClient.connect(broker);
		await client.subscribe(filter, { qos: 2, ...options });
		return client;
	}

	/** What a new subscriber is sent of the retained messages. */
	async function retained(filter: string): Promise<string[]> {
		const client = await RawClient.connect(broker);
		await client.subscribe(filter);
		client.send({ cmd: "pingreq" });
		const found: string[] = [];
		for (let packet = await client.receive(); packet.cmd !== "pingresp"; packet = await client.receive()) {
			assert.equal(packet.retain, true, "a message because of a subscription has RETAIN 1");
			found.push(text(packet));
		}
		return found;
	}

	for (const qos of [0, 1, 2]) {
		async function publish(client: RawClient, topic: string, payload: string, retain: boolean): Promise<void> {
			client.publish(topic, payload, { qos, retain, messageId: 1 });
			if (qos === 1) await client.expect("puback");
			if (qos === 2) {
				await client.expect("pubrec");
				client.send({ cmd: "pubrel", messageId: 1 });
				await client.expect("pubcomp");
			}
			await client.expectNothing();
		}

		test(`retained: of messages with QoS ${qos} and RETAIN 1 the newest is kept for its topic [MQTT-3.3.1-5]`, async () => {
			const topic = freshTopic();
			const publisher = await RawClient.connect(broker);
			await publish(publisher, topic, "old", true);
			await publish(publisher, `${topic}/other`, "other", true);
			assert.deepEqual(await retained(topic), ["old"]);
			await publish(publisher, topic, "new", true);
			assert.deepEqual(await retained(topic), ["new"]);
			assert.deepEqual(await retained(`${topic}/#`), ["new", "other"]);
		});

		test(`retained: an empty payload with QoS ${qos} removes what is retained, is not retained itself and reaches the subscribers [MQTT-3.3.1-6] [MQTT-3.3.1-7]`, async () => {
			const topic = freshTopic();
			const publisher = await RawClient.connect(broker);
			await publish(publisher, topic, "kept", true);
			await publish(publisher, `${topic}/other`, "other", true);
			const subscriber = await subscribed(topic, { rap: true, rh: 2 });
			await publish(publisher, topic, "", true);
			await take(subscriber, { payload: "", retain: true, qos });
			assert.deepEqual(await retained(topic), []);
			assert.deepEqual(await retained(`${topic}/#`), ["other"]);
			await publish(publisher, topic, "", true);
			assert.deepEqual(await retained(topic), []);
		});

		test(`retained: a message with QoS ${qos} and RETAIN 0 leaves what is retained alone [MQTT-3.3.1-8]`, async () => {
			const topic = freshTopic();
			const publisher = await RawClient.connect(broker);
			await publish(publisher, topic, "live", false);
			assert.deepEqual(await retained(topic), []);
			await publish(publisher, topic, "kept", true);
			await publish(publisher, topic, "live", false);
			await publish(publisher, topic, "", false);
			assert.deepEqual(await retained(topic), ["kept"]);
		});

		test(`retained: a message published with QoS ${qos} is sent with the lesser of that and the granted QoS [MQTT-3.8.4-8]`, async () => {
			const topic = freshTopic();
			const publisher = await RawClient.connect(broker);
			await publish(publisher, topic, "kept", true);
			for (const granted of [0, 1, 2]) {
				const subscriber = await subscribed(topic, { qos: granted });
				await take(subscriber, { payload: "kept", qos: Math.min(qos, granted), dup: false, retain: true });
			}
		});
	}

	for (const { kind, options } of SESSION_KINDS) {
		for (const rap of [false, true]) {
			const statement = rap ? "[MQTT-3.3.1-13]" : "[MQTT-3.3.1-12]";
			test(`retained: Retain As Published ${Number(rap)} gives a ${kind} live messages with RETAIN ${rap ? "as published" : "0"}, retained ones with RETAIN 1 ${statement}`, async () => {
				const topic = freshTopic();
				const publisher = await RawClient.connect(broker);
				await publisher.publishAcked(topic, "kept", { retain: true });
				const subscriber = await RawClient.connect(broker, options());
				await subscriber.subscribe(topic, { qos: 1, rap });
				await take(subscriber, { payload: "kept", retain: true });
				for (const qos of [0, 1]) {
					for (const retain of [true, false]) {
						publisher.publish(topic, "live", { qos, retain, messageId: 5 });
						await take(subscriber, { payload: "live", retain: rap && retain, qos });
					}
				}
			});
		}

		test(`retained: Retain Handling 0 gives a ${kind} the retained messages with every SUBSCRIBE [MQTT-3.3.1-9] [MQTT-3.8.4-4]`, async () => {
			const topic = freshTopic();
			const publisher = await RawClient.connect(broker);
			for (const level of ["a", "b"]) await publisher.publishAcked(`${topic}/${level}`, level, { retain: true });
			const subscriber = await RawClient.connect(broker, options());
			for (let times = 0; times < 3; times++) {
				await subscriber.subscribe(`${topic}/+`, { qos: 1, rh: 0 });
				for (const payload of ["a", "b"]) await take(subscriber, { payload, retain: true, qos: 1 });
				await subscriber.expectNothing();
			}
		});

		test(`retained: Retain Handling 1 gives a ${kind} the retained messages only if the subscription is new [MQTT-3.3.1-10]`, async () => {
			const topic = freshTopic();
			const publisher = await RawClient.connect(broker);
			await publisher.publishAcked(topic, "kept", { retain: true });
			const subscriber = await RawClient.connect(broker, options());
			await subscriber.subscribe(topic, { qos: 1, rh: 1 });
			await take(subscriber, { payload: "kept", retain: true });
			for (const qos of [1, 0, 2]) await subscriber.subscribe(topic, { qos, rh: 1 });
			await subscriber.expectNothing();
			subscriber.send({ cmd: "unsubscribe", messageId: 1, unsubscriptions: [topic] });
			await subscriber.expect("unsuback");
			await subscriber.subscribe(topic, { qos: 1, rh: 1 });
			await take(subscriber, { payload: "kept", retain: true });
			await subscriber.expectNothing();
		});

		test(`retained: Retain Handling 2 gives a ${kind} no retained messages, and live ones all the same [MQTT-3.3.1-11]`, async () => {
			const topic = freshTopic();
			const publisher = await RawClient.connect(broker);
			await publisher.publishAcked(topic, "kept", { retain: true });
			const subscriber = await RawClient.connect(broker, options());
			for (let times = 0; times < 2; times++) await subscriber.subscribe(topic, { qos: 1, rh: 2 });
			await publisher.publishAcked(topic, "live", { retain: true });
			await take(subscriber, { payload: "live", retain: false });
		});

		test(`retained: each SUBSCRIBE of a ${kind} that overlaps brings the message again, with its own identifier [MQTT-3.3.4-3]`, async () => {
			const topic = freshTopic();
			const publisher = await RawClient.connect(broker);
			await publisher.publishAcked(topic, "kept", { retain: true });
			const subscriber = await RawClient.connect(broker, options());
			for (const [filter, subscriptionIdentifier] of [
				[topic, 3],
				[`${topic}/#`, 268_435_455],
			] as const) {
				await subscriber.subscribe(filter, { qos: 1 }, { subscriptionIdentifier });
				const { properties } = await take(subscriber, { payload: "kept", retain: true });
				assert.deepEqual([properties.subscriptionIdentifier].flat(), [subscriptionIdentifier]);
			}
		});
	}

	test("retained: a resumed subscription is not new, so that Retain Handling 1 gives nothing and resumption itself neither [MQTT-3.3.1-10]", async () => {
		const topic = freshTopic();
		const session = durable();
		const first = await RawClient.connect(broker, session);
		await first.subscribe(topic, { qos: 1, rh: 1 });
		await first.disconnect();
		const publisher = await RawClient.connect(broker);
		publisher.publish(topic, "kept", { retain: true });
		await publisher.expectNothing();
		const second = await RawClient.connect(broker, session);
		await second.expectNothing();
		await second.subscribe(topic, { qos: 1, rh: 1 });
		await second.expectNothing();
	});

	test("retained: a filter with several SUBSCRIBE entries gives the messages of each, after the SUBACK", async () => {
		const topic = freshTopic();
		const publisher = await RawClient.connect(broker);
		for (const level of ["a", "b", "c"]) await publisher.publishAcked(`${topic}/${level}`, level, { retain: true });
		const subscriber = await RawClient.connect(broker);
		const subscriptions = ["a", "c"].map((level) => ({ topic: `${topic}/${level}`, qos: 0, nl: false, rap: false, rh: 0 }));
		subscriber.send({ cmd: "subscribe", messageId: 4, subscriptions });
		await subscriber.expect("suback", { messageId: 4 });
		await take(subscriber, { payload: "a" });
		await take(subscriber, { payload: "c" });
		await subscriber.expectNothing();
	});

	test("retained: a message outlives the session of its publisher and goes to one that shares a filter only when published", async () => {
		const topic = freshTopic();
		const publisher = await RawClient.connect(broker);
		await publisher.publishAcked(topic, "kept", { retain: true });
		await publisher.disconnect();
		assert.deepEqual(await retained(topic), ["kept"]);
		const member = await RawClient.connect(broker);
		await member.subscribe(`$share/group/${topic}`, { qos: 1 });
		await member.expectNothing();
	});

	const LIVE_KINDS = [
		["a subscription with QoS 0", () => ({}), 0],
		["a subscription with QoS 1", () => ({ properties: { receiveMaximum: 20 } }), 1],
		["a persistent subscription with QoS 1", () => durable(undefined, { receiveMaximum: 20 }), 1],
		["a persistent subscription with QoS 2", () => durable(undefined, { receiveMaximum: 20 }), 2],
	] as const;

	for (const [kind, options, qos] of LIVE_KINDS) {
		test(`retained: while many messages are sent to ${kind}, all updates of their topics follow, never an older one after a newer`, async () => {
			const topics = 250;
			const topic = freshTopic();
			const publisher = await RawClient.connect(broker);
			const name = (index: number) => `${topic}/${String(index % topics).padStart(4, "0")}`;
			await publishMany(publisher, name, topics, { qos: 1, retain: true });
			const subscriber = await RawClient.connect(broker, options());
			const messageId = 1;
			subscriber.send({ cmd: "subscribe", messageId, subscriptions: [{ topic: `${topic}/+`, qos, nl: false, rap: false, rh: 0 }] });
			if (qos > 0) await subscriber.expect("suback", { messageId });
			// Without acknowledgements the rest of the retained messages is read after the updates.
			for (let index = topics; index < 3 * topics; index++) {
				await publisher.publishAcked(name(index), `${index}`, { retain: true, messageId: index });
			}
			if (qos === 0) await subscriber.expect("suback", { messageId });
			const received = new Map<string, number[]>();
			while (received.size < topics || [...received.values()].some((values) => (values.at(-1) ?? 0) < 2 * topics)) {
				const [publication] = await takeMany(subscriber, 1);
				const values = received.get(publication.topic) ?? [];
				received.set(publication.topic, values);
				values.push(Number(text(publication)));
			}
			for (const [topic, values] of received) {
				assert.deepEqual(
					values,
					values.toSorted((a, b) => a - b),
					`order of ${topic}`,
				);
				assert.equal(new Set(values).size, values.length, `${topic} has each message once`);
				assert.deepEqual(
					values.slice(-2).map((value) => Math.floor(value / topics)),
					[1, 2],
					`${topic} has both updates`,
				);
			}
		});
	}

	for (const [kind, options, qos] of LIVE_KINDS.slice(1)) {
		for (const rh of [0, 1, 2]) {
			test(`retained: when ${kind} is replaced with Retain Handling ${rh} while retained messages are being sent, no live message is lost [MQTT-3.8.4-4]`, async () => {
				const topics = 150;
				const topic = freshTopic();
				const publisher = await RawClient.connect(broker);
				await publishMany(publisher, (index) => `${topic}/${index}`, topics, { qos: 1, retain: true });
				const subscriber = await RawClient.connect(broker, options());
				await subscriber.subscribe(`${topic}/+`, { qos });
				await publisher.publishAcked(`${topic}/live`, "first", { qos });
				await publisher.publishAcked(`${topic}/live`, "second", { qos });
				const subscriptions = [{ topic: `${topic}/+`, qos, nl: false, rap: false, rh }];
				subscriber.send({ cmd: "subscribe", messageId: 2, subscriptions });
				await publisher.publishAcked(`${topic}/live`, "third", { qos });
				const live: string[] = [];
				const retained = new Set<string>();
				let releases = 0;
				while (live.length < 3 || releases > 0) {
					const packet = await subscriber.receive();
					if (packet.cmd === "pubrel") {
						subscriber.send({ cmd: "pubcomp", messageId: packet.messageId });
						releases--;
					} else if (packet.cmd === "publish") {
						subscriber.send({ cmd: packet.qos === 1 ? "puback" : "pubrec", messageId: packet.messageId });
						if (packet.qos === 2) releases++;
						if (packet.retain) retained.add(packet.topic);
						else live.push(text(packet));
					} else assert.equal(packet.cmd, "suback");
				}
				assert.deepEqual(live, ["first", "second", "third"]);
				if (rh < 2) assert.equal(retained.size, topics, "the retained messages were all sent");
			});
		}
	}
});
