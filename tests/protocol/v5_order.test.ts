/** Order of messages in MQTT 5.0: section 4.6, per publisher, topic and QoS. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { breakOff, durable, freshTopic, numbers, publishMany, SESSION_KINDS, takeMany, text } from "../support/traffic.ts";

const COUNT = 1_000;

describe("message order in MQTT 5.0", () => {
	const broker = suiteBroker();

	for (const { kind, options } of SESSION_KINDS) {
		for (const qos of [0, 1, 2]) {
			test(`order: ${COUNT} messages with QoS ${qos} to one topic reach a ${kind} in the order of publication [MQTT-4.6.0-5] [MQTT-4.6.0-6]`, async () => {
				const topic = freshTopic();
				const client = await RawClient.connect(broker, options());
				await client.subscribe(topic, { qos });
				const publisher = await RawClient.connect(broker);
				const [publications] = await Promise.all([takeMany(client, COUNT), publishMany(publisher, () => topic, COUNT, { qos })]);
				assert.deepEqual(publications.map(text), numbers(COUNT));
				assert.ok(publications.every((publication) => publication.qos === qos));
			});
		}

		test(`order: with a subscription of a lesser QoS a ${kind} gets the messages in order as well [MQTT-4.6.0-5]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			await client.subscribe(topic, { qos: 1 });
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, 100, { qos: 2 });
			assert.deepEqual((await takeMany(client, 100)).map(text), numbers(100));
		});

		test(`order: a ${kind} whose subscription is replaced again and again misses nothing and gets each topic in order [MQTT-3.8.4-4] [MQTT-4.6.0-5]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			await client.subscribe(`${topic}/+`, { qos: 1 });
			const publisher = await RawClient.connect(broker);
			const total = 200;
			const publishing = publishMany(publisher, (index) => `${topic}/${index % 3}`, total, { qos: 1 });
			const received: AnyPacket[] = [];
			let subscriptions = 0;
			while (received.length < total) {
				const packet = await client.receive();
				if (packet.cmd !== "publish") continue;
				client.send({ cmd: "puback", messageId: packet.messageId });
				received.push(packet);
				if (received.length % 10 > 0) continue;
				const options = { topic: `${topic}/+`, qos: 1, nl: false, rap: false, rh: subscriptions++ % 3 };
				client.send({ cmd: "subscribe", messageId: subscriptions, subscriptions: [options] });
			}
			await publishing;
			for (const remainder of [0, 1, 2]) {
				const own = received
					.filter((publication) => publication.topic.endsWith(`/${remainder}`))
					.map((publication) => Number(text(publication)));
				assert.deepEqual(
					own,
					numbers(total)
						.map(Number)
						.filter((value) => value % 3 === remainder),
				);
			}
		});
	}

	for (const qos of [1, 2]) {
		test(`order: of messages with QoS ${qos} those sent again come first, then those published offline, then live ones [MQTT-4.6.0-5]`, async () => {
			const topic = freshTopic();
			const session = durable();
			const first = await RawClient.connect(broker, session);
			await first.subscribe(topic, { qos });
			const publisher = await RawClient.connect(broker);
			const publish = async (from: number, to: number) => {
				for (let index = from; index < to; index++) await publisher.publishAcked(topic, `${index}`, { qos });
			};
			await publish(0, 5);
			for (const payload of numbers(5)) await first.expect("publish", { payload });
			await breakOff(broker, first);
			await publish(5, 10);
			const second = await RawClient.connect(broker, session);
			await publish(10, 15);
			assert.deepEqual((await takeMany(second, 15)).map(text), numbers(15));
		});
	}

	test("order: several publishers to several topics are each in order for every subscriber, whatever it acknowledges when [MQTT-4.6.0-5]", async () => {
		const topic = freshTopic();
		const publishers = 4;
		const each = 100;
		const subscribers: RawClient[] = [];
		for (const session of [{}, durable(), durable(undefined, { receiveMaximum: 7 })]) {
			const subscriber = await RawClient.connect(broker, session);
			await subscriber.subscribe(`${topic}/#`, { qos: 1 });
			subscribers.push(subscriber);
		}
		const taking = subscribers.map((subscriber) => takeMany(subscriber, publishers * each));
		const publishing = Array.from({ length: publishers }, async (_, index) => {
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => `${topic}/${index}`, each, { qos: 1 });
		});
		await Promise.all(publishing);
		for (const publications of await Promise.all(taking)) {
			for (let index = 0; index < publishers; index++) {
				const own = publications.filter((publication) => publication.topic === `${topic}/${index}`);
				assert.deepEqual(own.map(text), numbers(each));
			}
		}
	});
});
