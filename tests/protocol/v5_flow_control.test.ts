/** Flow control and packet size of MQTT 5.0: sections 4.9, 3.1.2.11.3, 3.1.2.11.4 and 3.2.2.3.3, in both directions. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import {
	acknowledge,
	breakOff,
	durable,
	freshTopic,
	numbers,
	publishMany,
	SESSION_KINDS,
	take,
	takeMany,
	text,
} from "../support/traffic.ts";

const SERVER_MAXIMUM = 1_000;

describe("flow control in MQTT 5.0", () => {
	const broker = suiteBroker({ receiveMaximum: SERVER_MAXIMUM });

	/**
	 * Takes `total` messages from a broker that may have `window` unacknowledged. With all of them unacknowledged it must
	 * send nothing more of the kind and yet answer PINGREQ, SUBSCRIBE and PUBLISH.
	 */
	async function takeInWindows(client: RawClient, total: number, window: number): Promise<AnyPacket[]> {
		const all: AnyPacket[] = [];
		while (all.length < total) {
			const open: AnyPacket[] = [];
			const expected = Math.min(window, total - all.length);
			while (open.length < expected) open.push(await client.expect("publish"));
			await client.expectNothing();
			await client.subscribe("another filter", { qos: 1 });
			await client.publishAcked("nobody reads this", "x", { qos: 2 });
			for (const publication of open) acknowledge(client, publication);
			const releases = open.filter(({ qos }) => qos === 2);
			for (const { messageId } of releases) await client.expect("pubrel", { messageId });
			// PUBREC has freed nothing yet.
			if (releases.length === window) await client.expectNothing();
			for (const { messageId } of releases) client.send({ cmd: "pubcomp", messageId });
			all.push(...open);
		}
		await client.expectNothing();
		return all;
	}

	for (const { kind, options } of SESSION_KINDS) {
		for (const qos of [1, 2]) {
			for (const receiveMaximum of [1, 10]) {
				test(`flow control: a ${kind} with Receive Maximum ${receiveMaximum} never has more live messages with QoS ${qos}, and all else goes on [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3]`, async () => {
					const topic = freshTopic();
					const client = await RawClient.connect(broker, options({ receiveMaximum }));
					await client.subscribe(topic, { qos });
					const publisher = await RawClient.connect(broker);
					const total = 4 * receiveMaximum + 3;
					await publishMany(publisher, () => topic, total, { qos });
					assert.deepEqual((await takeInWindows(client, total, receiveMaximum)).map(text), numbers(total));
				});

				test(`flow control: a ${kind} with Receive Maximum ${receiveMaximum} never has more retained messages with QoS ${qos} [MQTT-3.3.4-9] [MQTT-4.9.0-2]`, async () => {
					const topic = freshTopic();
					const publisher = await RawClient.connect(broker);
					const total = receiveMaximum === 1 ? 5 : 123;
					await publishMany(publisher, (index) => `${topic}/${String(index).padStart(4, "0")}`, total, { qos, retain: true });
					const client = await RawClient.connect(broker, options({ receiveMaximum }));
					await client.subscribe(`${topic}/+`, { qos });
					assert.deepEqual((await takeInWindows(client, total, receiveMaximum)).map(text), numbers(total));
				});
			}
		}

		test(`flow control: messages with QoS 0 reach a ${kind} whose quota is used up [MQTT-3.3.4-10] [MQTT-4.9.0-3]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options({ receiveMaximum: 1 }));
			await client.subscribe(topic, { qos: 1 });
			const publisher = await RawClient.connect(broker);
			await publishMany(publisher, () => topic, 3, { qos: 1 });
			await client.expect("publish", { payload: "0", qos: 1 });
			publisher.publish(topic, "at most once");
			await take(client, { payload: "at most once", qos: 0 });
		});

		test(`flow control: a ${kind} gets its quota back with a negative PUBACK or PUBREC [MQTT-4.9.0-2]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options({ receiveMaximum: 2 }));
			await client.subscribe(topic, { qos: 2 });
			const publisher = await RawClient.connect(broker);
			for (const qos of [1, 2]) {
				await publishMany(publisher, () => topic, 6, { qos });
				for (let round = 0; round < 3; round++) {
					const open = [await client.expect("publish"), await client.expect("publish")];
					assert.deepEqual(open.map(text), numbers(2, 2 * round));
					await client.expectNothing();
					for (const publication of open) acknowledge(client, publication, 0x97);
				}
			}
		});

		test(`flow control: a ${kind} may have ${SERVER_MAXIMUM} unacknowledged publications, with one more the broker disconnects [MQTT-3.3.4-7]`, async () => {
			const client = await RawClient.connect(broker, options());
			assert.equal(client.connack.properties.receiveMaximum, SERVER_MAXIMUM);
			const topic = freshTopic();
			const publication = (messageId: number) => ({ cmd: "publish", topic, payload: "x", qos: 2, dup: false, retain: false, messageId });
			client.sendTogether(...Array.from({ length: SERVER_MAXIMUM }, (_, index) => publication(index + 1)));
			for (let messageId = 1; messageId <= SERVER_MAXIMUM; messageId++) await client.expect("pubrec", { messageId });
			client.send({ cmd: "pubrel", messageId: 1 });
			await client.expect("pubcomp", { messageId: 1 });
			client.send(publication(1_001));
			await client.expect("pubrec", { messageId: 1_001 });
			client.send(publication(1_002));
			await client.expectDisconnect(0x93);
		});
	}

	test("flow control: 1,000 messages that waited for a persistent session come in order and within its Receive Maximum [MQTT-3.3.4-9] [MQTT-4.9.0-2] [MQTT-4.6.0-6]", async () => {
		const topic = freshTopic();
		const session = durable(undefined, { receiveMaximum: 50 });
		const first = await RawClient.connect(broker, session);
		await first.subscribe(topic, { qos: 1 });
		await breakOff(broker, first);
		const publisher = await RawClient.connect(broker);
		await publishMany(publisher, () => topic, 1_000, { qos: 1 });
		const client = await RawClient.connect(broker, session);
		assert.deepEqual((await takeInWindows(client, 1_000, 50)).map(text), numbers(1_000));
	});

	test("flow control: a share group keeps to the Receive Maximum of each member [MQTT-3.3.4-9] [MQTT-4.9.0-2]", async () => {
		const topic = freshTopic();
		const small = await RawClient.connect(broker, { properties: { receiveMaximum: 2 } });
		const large = await RawClient.connect(broker, durable(undefined, { receiveMaximum: 5 }));
		for (const member of [small, large]) await member.subscribe(`$share/g/${topic}`, { qos: 1 });
		const publisher = await RawClient.connect(broker);
		await publishMany(publisher, () => topic, 20, { qos: 1 });
		const open: AnyPacket[] = [];
		for (let count = 0; count < 2; count++) open.push(await small.expect("publish"));
		for (let count = 0; count < 5; count++) open.push(await large.expect("publish"));
		for (const member of [small, large]) await member.expectNothing();
		for (const publication of open.slice(2)) acknowledge(large, publication);
		const rest = await takeMany(large, 13);
		await small.expectNothing();
		assert.deepEqual(
			[...open, ...rest].map((publication) => Number(text(publication))).toSorted((a, b) => a - b),
			numbers(20).map(Number),
		);
	});

	for (const { kind, options } of SESSION_KINDS) {
		for (const qos of [0, 1, 2]) {
			test(`packet size: a ${kind} is not sent a message with QoS ${qos} above its Maximum Packet Size; the flow counts as complete and the next message comes [MQTT-3.1.2-24] [MQTT-3.1.2-25]`, async () => {
				const topic = freshTopic();
				const maximumPacketSize = 200;
				const client = await RawClient.connect(broker, options({ maximumPacketSize, receiveMaximum: 1 }));
				await client.subscribe(`${topic}/+`, { qos });
				const publisher = await RawClient.connect(broker);
				// PUBLISH: two bytes of header and length (three from 128 on), the topic, the packet id, the property length.
				const overhead = 3 + 2 + Buffer.byteLength(`${topic}/0`) + (qos > 0 ? 2 : 0) + 1;
				const payloads = [
					"small 1",
					"x".repeat(maximumPacketSize - overhead + 1),
					"y".repeat(100_000),
					"z".repeat(maximumPacketSize - overhead),
					"small 2",
				];
				for (const [index, payload] of payloads.entries()) {
					publisher.publish(`${topic}/${index}`, payload, { qos, messageId: index + 1, retain: true });
					if (qos > 0) await publisher.expect(qos === 1 ? "puback" : "pubrec", { reasonCode: 0 });
				}
				const fitting = [0, 3, 4].map((index) => payloads[index] as string);
				for (const payload of fitting) await take(client, { payload });
				await client.expectNothing();
				await client.subscribe(`${topic}/#`, { qos });
				const retained: string[] = [];
				for (let count = 0; count < 3; count++) retained.push(text(await take(client, { retain: true })));
				assert.deepEqual(retained, fitting);
				await client.expectNothing();
			});
		}
	}

	test("packet size: a message that waited offline and is too large is dropped, and is not tried again", async () => {
		const topic = freshTopic();
		const session = durable(undefined, { maximumPacketSize: 100 });
		const first = await RawClient.connect(broker, session);
		await first.subscribe(topic, { qos: 2 });
		await breakOff(broker, first);
		const publisher = await RawClient.connect(broker);
		for (const payload of ["1", "x".repeat(100), "2"]) await publisher.publishAcked(topic, payload, { qos: 2 });
		const second = await RawClient.connect(broker, session);
		assert.deepEqual((await takeMany(second, 2)).map(text), ["1", "2"]);
		await breakOff(broker, second);
		const third = await RawClient.connect(broker, durable(session.clientId));
		await third.expectNothing();
	});

	test("packet size: a member of a share group for which a message is too large does not stop the group", async () => {
		const topic = freshTopic();
		const member = await RawClient.connect(broker, { properties: { maximumPacketSize: 100 } });
		await member.subscribe(`$share/g/${topic}`, { qos: 1 });
		const publisher = await RawClient.connect(broker);
		for (const payload of ["1", "x".repeat(100), "2"]) await publisher.publishAcked(topic, payload);
		assert.deepEqual((await takeMany(member, 2)).map(text), ["1", "2"]);
	});
});
