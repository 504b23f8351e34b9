/** UNSUBSCRIBE and UNSUBACK of MQTT 5.0: sections 3.10 and 3.11. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { field, packet, u16 } from "../mqtt/wire.ts";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { breakOff, durable, freshTopic, publishMany, SESSION_KINDS, take } from "../support/traffic.ts";

const UNSUBACK_CODES = [0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];

describe("UNSUBSCRIBE in MQTT 5.0", () => {
	const broker = suiteBroker();

	async function unsubscribe(client: RawClient, unsubscriptions: string[], messageId = 9): Promise<number[]> {
		client.send({ cmd: "unsubscribe", messageId, unsubscriptions });
		const unsuback = await client.expect("unsuback", { messageId });
		assert.ok(unsuback.granted.every((code: number) => UNSUBACK_CODES.includes(code)));
		return [...unsuback.granted];
	}

	/** A client to which a flow of each kind has been begun: QoS 1 sent, QoS 2 sent, QoS 2 after PUBREL. */
	async function begun(session: AnyPacket, filters: readonly string[], topic: string): Promise<{ client: RawClient; ids: number[] }> {
		const client = await RawClient.connect(broker, session);
		for (const filter of filters) await client.subscribe(filter, { qos: 2 });
		const publisher = await RawClient.connect(broker);
		const ids: number[] = [];
		for (const [index, qos] of [1, 2, 2].entries()) {
			await publisher.publishAcked(topic, `${index}`, { qos });
			ids.push((await client.expect("publish", { payload: `${index}`, qos })).messageId);
		}
		client.send({ cmd: "pubrec", messageId: ids[2] });
		await client.expect("pubrel", { messageId: ids[2] });
		return { client, ids };
	}

	/** Ends those flows from where they stand. */
	async function completed(client: RawClient, [first, second, third]: readonly number[]): Promise<void> {
		client.send({ cmd: "puback", messageId: first });
		client.send({ cmd: "pubrec", messageId: second });
		await client.expect("pubrel", { messageId: second, reasonCode: 0 });
		for (const messageId of [second, third]) client.send({ cmd: "pubcomp", messageId });
		await client.expectNothing();
	}

	test("UNSUBACK: every UNSUBSCRIBE is answered with its id, also when nothing was subscribed [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-2]", async () => {
		const client = await RawClient.connect(broker);
		const ids = [1, 65_535, 2, 300];
		client.sendTogether(...ids.map((messageId) => ({ cmd: "unsubscribe", messageId, unsubscriptions: [freshTopic()] })));
		for (const messageId of ids) {
			const { granted } = await client.expect("unsuback", { messageId });
			assert.deepEqual([...granted], [0x11]);
		}
	});

	for (const { kind, options } of SESSION_KINDS) {
		test(`UNSUBACK: several filters of a ${kind} are handled like a sequence and answered at once, with one code for each in their order [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			for (const level of ["a", "b", "c"]) await client.subscribe(`${topic}/${level}`, { qos: 1 });
			const codes = await unsubscribe(client, [`${topic}/b`, `${topic}/none`, `${topic}/a`, `${topic}/b`]);
			assert.deepEqual(codes, [0x00, 0x11, 0x00, 0x11]);
			const publisher = await RawClient.connect(broker);
			for (const level of ["a", "b", "c"]) await publisher.publishAcked(`${topic}/${level}`, level);
			await take(client, { payload: "c" });
			await client.expectNothing();
		});

		test(`UNSUBSCRIBE: a filter of a ${kind} is found by its characters alone, whatever else would match [MQTT-3.10.4-1]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			const filters = [`${topic}/a/b`, `${topic}/+/b`, `${topic}/#`, `$share/g/${topic}/a/b`];
			for (const filter of filters) await client.subscribe(filter, { qos: 1 });
			const others = [`${topic}/a/B`, `${topic}/a/b/`, `/${topic}/a/b`, `${topic}/a/+`, `${topic}/+/+`, "#", `$share/h/${topic}/a/b`];
			assert.deepEqual(
				await unsubscribe(client, others),
				others.map(() => 0x11),
			);
			for (const filter of filters) {
				assert.deepEqual(await unsubscribe(client, [filter]), [0x00]);
				assert.deepEqual(await unsubscribe(client, [filter]), [0x11]);
			}
		});

		test(`UNSUBSCRIBE: once a ${kind} has the UNSUBACK no new message comes because of the filter, and others hold on [MQTT-3.10.4-2]`, async () => {
			const topic = freshTopic();
			const session = options();
			const client = await RawClient.connect(broker, session);
			for (const filter of [`${topic}/#`, `${topic}/a`, `$share/g/${topic}/+`])
				await client.subscribe(filter, { qos: 2 }, { subscriptionIdentifier: filter.length });
			const publisher = await RawClient.connect(broker);
			await unsubscribe(client, [`${topic}/#`, `$share/g/${topic}/+`]);
			for (const qos of [0, 1, 2]) {
				await publishMany(publisher, (index) => `${topic}/${index === 0 ? "b" : "a"}`, 2, { qos });
				const { properties } = await take(client, { topic: `${topic}/a`, qos });
				assert.equal([properties.subscriptionIdentifier].flat()[0], topic.length + 2);
			}
			await unsubscribe(client, [`${topic}/a`]);
			for (const qos of [1, 2]) await publisher.publishAcked(`${topic}/a`, "x", { qos, messageId: 10 + qos });
			await client.expectNothing();
			await client.disconnect();
			await (await RawClient.connect(broker, session)).expectNothing();
		});

		test(`UNSUBSCRIBE: after it a ${kind} that subscribes again gets nothing of what was published in between [MQTT-3.10.4-2]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			const publisher = await RawClient.connect(broker);
			for (let times = 0; times < 3; times++) {
				await client.subscribe(topic, { qos: 1 });
				await publisher.publishAcked(topic, `during ${times}`);
				await take(client, { payload: `during ${times}` });
				await unsubscribe(client, [topic]);
				await publisher.publishAcked(topic, `between ${times}`);
			}
			await client.expectNothing();
		});

		test(`UNSUBSCRIBE: deliveries to a ${kind} that have begun are completed after it [MQTT-3.10.4-3]`, async () => {
			const topic = freshTopic();
			const { client, ids } = await begun(options({ receiveMaximum: 3 }), [topic], topic);
			await unsubscribe(client, [topic]);
			await completed(client, ids);
			// Their ids and their places in the window are free again.
			await client.subscribe(topic, { qos: 2 });
			const publisher = await RawClient.connect(broker);
			for (const payload of ["a", "b", "c"]) await publisher.publishAcked(topic, payload);
			for (const payload of ["a", "b", "c"]) await client.expect("publish", { payload });
		});
	}

	for (const [what, filters] of [
		["its only subscription", (topic: string) => [topic]],
		["a subscription of several", (topic: string) => [topic, `${topic}/other`]],
	] as const) {
		test(`UNSUBSCRIBE: deliveries to a persistent session that have begun are completed over a reconnect after it removed ${what} [MQTT-3.10.4-3]`, async () => {
			const topic = freshTopic();
			const session = durable();
			const { client, ids } = await begun(session, filters(topic), topic);
			await unsubscribe(client, [topic]);
			await breakOff(broker, client);
			const again = await RawClient.connect(broker, session);
			const packets: AnyPacket[] = [];
			for (let count = 0; count < 3; count++) packets.push(await again.receive());
			assert.deepEqual(
				packets.filter(({ cmd }) => cmd === "publish").map(({ messageId, dup, qos }) => [messageId, dup, qos]),
				[
					[ids[0], true, 1],
					[ids[1], true, 2],
				],
			);
			assert.deepEqual(packets.find(({ cmd }) => cmd === "pubrel")?.messageId, ids[2]);
			await completed(again, ids);
		});
	}

	test("UNSUBACK: it stays below the client's Maximum Packet Size [MQTT-3.11.2-1] [MQTT-3.11.2-2]", async () => {
		const maximumPacketSize = 20;
		const client = await RawClient.connect(broker, { properties: { maximumPacketSize } });
		client.send({ cmd: "unsubscribe", messageId: 4, unsubscriptions: ["a/#/b", "a"] });
		const unsuback = await client.expect("unsuback");
		assert.ok(unsuback.length + 2 <= maximumPacketSize);
	});

	const refused: readonly (readonly [what: string, bytes: Uint8Array, reasonCode: number])[] = [
		...[0xa0, 0xa1, 0xa3, 0xaa].map(
			(first) =>
				[`the first byte 0x${first.toString(16)} is malformed [MQTT-3.10.1-1]`, packet(first, u16(1), [0], field("a")), 0x81] as const,
		),
		["a filter that is not UTF-8 is malformed [MQTT-3.10.3-1]", packet(0xa2, u16(1), [0], field([0x61, 0xff])), 0x81],
		["a filter with U+0000 is malformed [MQTT-4.7.3-2]", packet(0xa2, u16(1), [0], field("a\0")), 0x81],
		["without any filter it is a protocol error [MQTT-3.10.3-2]", packet(0xa2, u16(1), [0]), 0x82],
	];
	for (const [what, bytes, reasonCode] of refused) {
		test(`UNSUBSCRIBE: ${what}`, async () => {
			const client = await RawClient.connect(broker);
			client.sendBytes(bytes);
			await client.expectDisconnect(reasonCode);
		});
	}
});
