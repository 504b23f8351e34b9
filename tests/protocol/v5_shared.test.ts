/** Shared subscriptions of MQTT 5.0, section 4.8.2: who gets a message. What becomes of unfinished ones is in `v5_shared_handover.test.ts`. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { breakOff, durable, freshTopic, numbers, publishMany, SESSION_KINDS, take, takeMany, text } from "../support/traffic.ts";

const BAD_FILTERS: readonly (readonly [filter: string, statement: string])[] = [
	["$share//a", "[MQTT-4.8.2-1]"],
	["$share/", "[MQTT-4.8.2-1]"],
	["$share//", "[MQTT-4.8.2-1]"],
	["$share/name", "[MQTT-4.8.2-2]"],
	["$share/name/", "[MQTT-4.8.2-2]"],
	["$share/na+me/a", "[MQTT-4.8.2-2]"],
	["$share/+/a", "[MQTT-4.8.2-2]"],
	["$share/na#me/a", "[MQTT-4.8.2-2]"],
	["$share/#", "[MQTT-4.8.2-2]"],
];

describe("shared subscriptions in MQTT 5.0", () => {
	const broker = suiteBroker();

	async function members(count: number, filter: string, options: () => AnyPacket, qos = 2): Promise<RawClient[]> {
		const clients: RawClient[] = [];
		for (let index = 0; index < count; index++) {
			const client = await RawClient.connect(broker, options());
			await client.subscribe(filter, { qos });
			clients.push(client);
		}
		return clients;
	}

	for (const [filter, statement] of BAD_FILTERS) {
		test(`shared: "${filter}" is refused with 0x8f ${statement}`, async () => {
			const client = await RawClient.connect(broker);
			assert.deepEqual([...(await client.subscribe(filter, { qos: 1 })).granted], [0x8f]);
			await client.expectNothing();
		});
	}

	test("shared: a share name may have any other character, and the filter behind it may have levels and wildcards [MQTT-4.8.2-1] [MQTT-4.8.2-2]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		const publisher = await RawClient.connect(broker);
		for (const name of ["a", "$share", " ", "größe 😀"]) {
			const filter = `$share/${name}/${topic}/+/#`;
			assert.deepEqual([...(await client.subscribe(filter, { qos: 1 })).granted], [1]);
			await publisher.publishAcked(`${topic}/b/c`, name);
			await take(client, { topic: `${topic}/b/c`, payload: name });
			client.send({ cmd: "unsubscribe", messageId: 1, unsubscriptions: [filter] });
			await client.expect("unsuback");
		}
	});

	for (const { kind, options } of SESSION_KINDS) {
		for (const qos of [0, 1, 2]) {
			test(`shared: each message with QoS ${qos} goes to one member, in turn, where each is a ${kind}`, async () => {
				const topic = freshTopic();
				const clients = await members(3, `$share/g/${topic}`, options);
				const publisher = await RawClient.connect(broker);
				await publishMany(publisher, () => topic, 30, { qos });
				const got: string[] = [];
				for (const client of clients) {
					const own = (await takeMany(client, 10)).map(text);
					assert.deepEqual(
						own,
						own.toSorted((a, b) => Number(a) - Number(b)),
						"each member's messages are in order",
					);
					assert.equal(new Set(own.map((payload) => Number(payload) % 3)).size, 1, "every third message");
					got.push(...own);
					await client.expectNothing();
				}
				assert.deepEqual(
					got.map(Number).toSorted((a, b) => a - b),
					numbers(30).map(Number),
				);
			});
		}

		test(`shared: each member that is a ${kind} gets its messages with the QoS it was granted [MQTT-4.8.2-3]`, async () => {
			const topic = freshTopic();
			const clients: RawClient[] = [];
			for (const qos of [0, 1, 2]) clients.push(...(await members(1, `$share/g/${topic}`, options, qos)));
			const publisher = await RawClient.connect(broker);
			for (const published of [0, 1, 2]) {
				await publishMany(publisher, () => topic, 6, { qos: published });
				for (const [granted, client] of clients.entries()) {
					for (const publication of await takeMany(client, 2)) assert.equal(publication.qos, Math.min(published, granted));
				}
			}
		});

		test(`shared: a ${kind} gets identifiers, RETAIN as published and properties as with any subscription`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			await client.subscribe(`$share/g/${topic}`, { qos: 1, rap: true }, { subscriptionIdentifier: 8 });
			const publisher = await RawClient.connect(broker);
			for (const qos of [0, 1]) {
				for (const retain of [true, false]) {
					publisher.publish(topic, "x", { qos, retain, messageId: 1, properties: { contentType: "text" } });
					const { properties } = await take(client, { qos, retain, dup: false });
					assert.deepEqual([[properties.subscriptionIdentifier].flat()[0], properties.contentType], [8, "text"]);
				}
			}
		});

		test(`shared: a ${kind} that subscribes again to its group stays one member, with the new options`, async () => {
			const topic = freshTopic();
			const [client] = (await members(1, `$share/g/${topic}`, options, 0)) as [RawClient];
			const [other] = (await members(1, `$share/g/${topic}`, options, 1)) as [RawClient];
			await client.subscribe(`$share/g/${topic}`, { qos: 1 });
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, 10, { qos: 1 });
			for (const member of [client, other]) {
				for (const { qos } of await takeMany(member, 5)) assert.equal(qos, 1);
				await member.expectNothing();
			}
		});
	}

	for (const qos of [0, 1, 2]) {
		test(`shared: with QoS ${qos} every group, by name and filter, gets a message, and so does every subscription that is not shared`, async () => {
			const topic = freshTopic();
			const groups = [`$share/g/${topic}`, `$share/h/${topic}`, `$share/g/+/#`, `$share/g/${topic}/#`];
			const clients: RawClient[] = [];
			for (const filter of groups) clients.push(...(await members(1, filter, () => ({}))));
			const [own] = (await members(1, topic, () => durable())) as [RawClient];
			const [both] = (await members(1, topic, () => ({}))) as [RawClient];
			await both.subscribe(`$share/i/${topic}`, { qos: 2 });
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, 1, { qos });
			for (const client of [...clients, own]) {
				await takeMany(client, 1);
				await client.expectNothing();
			}
			await takeMany(both, 2);
			await both.expectNothing();
		});
	}

	test("shared: QoS 0 goes to members that are online only, and is not kept while none is", async () => {
		const topic = freshTopic();
		const session = durable();
		const [, second] = (await members(2, `$share/g/${topic}`, () => ({}))) as [RawClient, RawClient];
		const third = await RawClient.connect(broker, session);
		await third.subscribe(`$share/g/${topic}`, { qos: 0 });
		await breakOff(broker, third);
		const publisher = await RawClient.connect(broker);
		await publishMany(publisher, () => topic, 10);
		const seconds = await takeMany(second, 5);
		assert.equal(seconds.length, 5);
		const back = await RawClient.connect(broker, session);
		await back.expectNothing();
	});

	test("shared: once the last member has unsubscribed, a new one gets nothing of what came in between", async () => {
		const topic = freshTopic();
		const filter = `$share/g/${topic}`;
		const publisher = await RawClient.connect(broker);
		for (const { options } of SESSION_KINDS) {
			const [client] = (await members(1, filter, options)) as [RawClient];
			client.send({ cmd: "unsubscribe", messageId: 1, unsubscriptions: [filter] });
			await client.expect("unsuback");
			await publisher.publishAcked(topic, "between");
			const [next] = (await members(1, filter, options)) as [RawClient];
			await publisher.publishAcked(topic, "after");
			await take(next, { payload: "after" });
			await next.disconnect({ properties: { sessionExpiryInterval: 0 } });
			await publisher.publishAcked(topic, "between");
		}
	});

	test("shared: 1,000 messages to a group of one arrive in order", async () => {
		const topic = freshTopic();
		const [client] = (await members(1, `$share/g/${topic}`, () => durable())) as [RawClient];
		const publisher = await RawClient.connect(broker);
		const [publications] = await Promise.all([takeMany(client, 1_000), publishMany(publisher, () => topic, 1_000, { qos: 1 })]);
		assert.deepEqual(publications.map(text), numbers(1_000));
	});
});
