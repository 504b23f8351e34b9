/** Overlapping subscriptions of one session in MQTT 5.0: section 3.3.4, the QoS of the copies and their identifiers. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AnyPacket, type ConnectOptions, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { breakOff, durable, freshTopic, SESSION_KINDS, take, takeMany, text } from "../support/traffic.ts";

/** Subscription identifiers of a PUBLISH in ascending order; an exact repetition would show. */
function identifiers({ properties }: AnyPacket): number[] {
	return [properties?.subscriptionIdentifier ?? []].flat().toSorted((a: number, b: number) => a - b);
}

describe("overlapping subscriptions in MQTT 5.0", () => {
	const broker = suiteBroker();

	/** Connects with three filters that match `{topic}/a`, with these QoS and the identifiers 1, 2 and 3. */
	async function threefold(session: ConnectOptions, topic: string, granted: readonly number[]): Promise<RawClient> {
		const client = await RawClient.connect(broker, session);
		for (const [index, filter] of [`${topic}/#`, `${topic}/+`, `${topic}/a`].entries()) {
			await client.subscribe(filter, { qos: granted[index] }, { subscriptionIdentifier: index + 1 });
		}
		return client;
	}

	/** All copies of the latest message: what comes until a message with QoS 2 of another filter, which none of them can follow. */
	async function copies(client: RawClient, publisher: RawClient, topic: string): Promise<AnyPacket[]> {
		await publisher.publishAcked(`end of ${topic}`, "end", { qos: 2 });
		const publications: AnyPacket[] = [];
		while (!publications.some((publication) => text(publication) === "end")) publications.push(...(await takeMany(client, 1)));
		return publications.filter((publication) => text(publication) !== "end");
	}

	for (const granted of [
		[0, 0, 0],
		[1, 1, 1],
		[2, 1, 2],
		[0, 2, 1],
		[1, 0, 0],
	]) {
		test(`overlapping: a session that ends with its connection gets one copy at the highest QoS of ${granted}, with all identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]`, async () => {
			const topic = freshTopic();
			const client = await threefold({}, topic, granted);
			const publisher = await RawClient.connect(broker);
			for (const qos of [0, 1, 2]) {
				publisher.publish(`${topic}/a`, "x", { qos, messageId: 3 + qos });
				const publication = await take(client, { payload: "x", qos: Math.min(qos, Math.max(...granted)) });
				assert.deepEqual(identifiers(publication), [1, 2, 3]);
				await client.expectNothing();
			}
		});

		test(`overlapping: a persistent session gets a message at the highest QoS of ${granted}, and each identifier in exactly one copy [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-5]`, async () => {
			const topic = freshTopic();
			const client = await threefold(durable(), topic, granted);
			await client.subscribe(`end of ${topic}`, { qos: 2 });
			for (const qos of [1, 2]) {
				const publisher = await RawClient.connect(broker);
				await publisher.publishAcked(`${topic}/a`, "x", { qos });
				const publications = await copies(client, publisher, topic);
				assert.equal(Math.max(...publications.map((publication) => publication.qos)), Math.min(qos, Math.max(...granted)));
				assert.deepEqual(publications.flatMap(identifiers).toSorted(), [1, 2, 3]);
				for (const publication of publications) {
					const own = Math.max(...identifiers(publication).map((id) => granted[id - 1] as number));
					assert.equal(publication.qos, Math.min(qos, own), "a copy has the highest QoS of its subscriptions");
				}
			}
		});
	}

	for (const granted of [
		[1, 1, 1],
		[2, 1, 2],
		[1, 2, 1],
	]) {
		test(`overlapping: a persistent session with QoS ${granted} gets one copy with all identifiers, online and offline [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]`, async () => {
			const topic = freshTopic();
			const session = durable();
			const highest = Math.max(...granted);
			const first = await threefold(session, topic, granted);
			const publisher = await RawClient.connect(broker);
			await publisher.publishAcked(`${topic}/a`, "online", { qos: 2 });
			assert.deepEqual(identifiers(await take(first, { payload: "online", qos: highest })), [1, 2, 3]);
			await first.expectNothing();
			await breakOff(broker, first);
			for (const payload of ["offline 1", "offline 2"]) await publisher.publishAcked(`${topic}/a`, payload, { qos: 2 });
			await publisher.publishAcked(`${topic}/b`, "offline 3", { qos: 2 });
			const second = await RawClient.connect(broker, session);
			const publications = await takeMany(second, 3);
			assert.deepEqual(publications.map(text), ["offline 1", "offline 2", "offline 3"]);
			assert.deepEqual(publications.map(identifiers), [
				[1, 2, 3],
				[1, 2, 3],
				[1, 2],
			]);
			assert.deepEqual([publications[0].qos, publications[1].qos], [highest, highest]);
			await second.expectNothing();
		});
	}

	for (const { kind, options } of SESSION_KINDS) {
		test(`overlapping: subscriptions of a ${kind} without identifier add none, and one identifier may serve several [MQTT-3.3.4-3]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			const publisher = await RawClient.connect(broker);
			await client.subscribe(`${topic}/#`, { qos: 1 });
			await publisher.publishAcked(`${topic}/a`, "x");
			assert.deepEqual(identifiers(await take(client)), []);
			await client.subscribe(`${topic}/+`, { qos: 1 }, { subscriptionIdentifier: 9 });
			await publisher.publishAcked(`${topic}/a`, "x");
			assert.deepEqual(identifiers(await take(client)), [9]);
			await client.subscribe(`${topic}/a`, { qos: 1 }, { subscriptionIdentifier: 9 });
			await publisher.publishAcked(`${topic}/a`, "x");
			const own = identifiers(await take(client));
			assert.ok(own.length > 0 && own.every((id) => id === 9));
			await client.expectNothing();
		});

		test(`overlapping: of subscriptions of a ${kind} those with No Local leave out its own messages, the other one delivers them [MQTT-3.8.3-3]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			await client.subscribe(`${topic}/#`, { qos: 2, nl: true }, { subscriptionIdentifier: 1 });
			await client.subscribe(`${topic}/+`, { qos: 1 }, { subscriptionIdentifier: 2 });
			for (const qos of [1, 2]) {
				client.publish(`${topic}/a`, "own", { qos, messageId: 4 + qos });
				const packets = [await client.receive(), await client.receive()];
				const publication = packets.find(({ cmd }) => cmd === "publish");
				assert.deepEqual([publication?.qos, identifiers(publication)], [1, [2]]);
				client.send({ cmd: "puback", messageId: publication.messageId });
				await client.expectNothing();
			}
		});

		test(`overlapping: a ${kind} gets RETAIN as published if one of its subscriptions wants that [MQTT-3.3.1-13]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			await client.subscribe(`${topic}/#`, { qos: 1, rap: true });
			await client.subscribe(`${topic}/+`, { qos: 1, rap: false });
			const publisher = await RawClient.connect(broker);
			for (const retain of [true, false]) {
				await publisher.publishAcked(`${topic}/a`, "x", { retain });
				await take(client, { payload: "x", retain });
				await client.expectNothing();
			}
		});
	}
});
