/** SUBSCRIBE and SUBACK of MQTT 5.0: sections 3.8 and 3.9. Overlapping subscriptions are in `v5_overlapping.test.ts`. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { field, packet, props, u16 } from "../mqtt/wire.ts";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { breakOff, durable, freshTopic, publishMany, SESSION_KINDS, take } from "../support/traffic.ts";

const SUBACK_CODES = [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];

function entry(topic: string, qos: number, options: AnyPacket = {}): AnyPacket {
	return { topic, qos, nl: false, rap: false, rh: 0, ...options };
}

describe("SUBSCRIBE in MQTT 5.0", () => {
	const broker = suiteBroker(
		{ maxSubscriptions: 20 },
		{ authorizer: { permits: (_principal, _clientId, access) => access.action === "publish" || !access.filter.endsWith("secret") } },
	);

	test("SUBACK: every SUBSCRIBE is answered with its id [MQTT-3.8.4-1] [MQTT-3.8.4-2]", async () => {
		const client = await RawClient.connect(broker);
		const ids = [1, 65_535, 2, 300];
		client.sendTogether(...ids.map((messageId) => ({ cmd: "subscribe", messageId, subscriptions: [entry(freshTopic(), 1)] })));
		for (const messageId of ids) await client.expect("suback", { messageId, granted: [1] });
	});

	for (const { kind, options } of SESSION_KINDS) {
		test(`SUBACK: several filters of a ${kind} are handled like a sequence and answered at once, with one code for each in their order [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			const subscriptions = [
				entry(`${topic}/0`, 0),
				entry(`${topic}/#/bad`, 1),
				entry(`${topic}/2`, 2),
				entry(`${topic}/secret`, 1),
				entry(`${topic}/1`, 1),
				entry(`$share/${topic}`, 0),
				entry(`$share/group/${topic}/3`, 2),
				entry(`${topic}/0`, 1),
			];
			client.send({ cmd: "subscribe", messageId: 5, subscriptions });
			const { granted } = await client.expect("suback", { messageId: 5 });
			assert.deepEqual([...granted], [0, 0x8f, 2, 0x87, 1, 0x8f, 2, 1]);
			assert.ok([...granted].every((code) => SUBACK_CODES.includes(code)));
			const publisher = await RawClient.connect(broker);
			// The granted filters hold, the last word on one of them counts, and the refused ones mean nothing.
			for (const [level, qos] of [
				["0", 1],
				["2", 2],
				["1", 1],
				["3", 2],
			] as const) {
				await publisher.publishAcked(`${topic}/secret`, "x", { qos: 2 });
				await publisher.publishAcked(`${topic}/${level}`, "x", { qos: 2 });
				await take(client, { topic: `${topic}/${level}`, qos });
			}
		});

		for (const granted of [0, 1, 2] as const) {
			test(`SUBACK: QoS ${granted} is granted to a ${kind}, which then gets the lesser of that and the published QoS [MQTT-3.8.4-7] [MQTT-3.8.4-8]`, async () => {
				const topic = freshTopic();
				const client = await RawClient.connect(broker, options());
				const suback = await client.subscribe(topic, { qos: granted });
				assert.deepEqual([...suback.granted], [granted]);
				const publisher = await RawClient.connect(broker);
				for (const qos of [0, 1, 2]) {
					publisher.publish(topic, `${qos}`, { qos, messageId: 40 + qos });
					await take(client, { payload: `${qos}`, qos: Math.min(qos, granted) });
				}
			});
		}

		test(`SUBSCRIBE: an identical filter of a ${kind} replaces the subscription with all its options [MQTT-3.8.4-3]`, async () => {
			const topic = freshTopic();
			const client = await RawClient.connect(broker, options());
			const publisher = await RawClient.connect(broker);
			for (const [qos, rap, subscriptionIdentifier] of [
				[0, false, 1],
				[2, true, 2],
				[1, false, undefined],
				[0, true, 4],
				[2, false, 5],
			] as const) {
				await client.subscribe(topic, { qos, rap, rh: 2 }, subscriptionIdentifier === undefined ? undefined : { subscriptionIdentifier });
				await publisher.publishAcked(topic, `${qos}`, { qos: 2, retain: true });
				const { properties } = await take(client, { payload: `${qos}`, qos, retain: rap });
				assert.equal([properties?.subscriptionIdentifier].flat()[0], subscriptionIdentifier);
				await client.expectNothing();
			}
			await client.subscribe(topic, { qos: 1, nl: true, rh: 2 });
			await client.publishAcked(topic, "own");
			await client.expectNothing();
		});

		test(`SUBSCRIBE: with No Local a ${kind} does not get its own messages, and those of others [MQTT-3.8.3-3]`, async () => {
			const topic = freshTopic();
			const session = options();
			const client = await RawClient.connect(broker, session);
			await client.subscribe(`${topic}/#`, { qos: 2, nl: true, rap: true });
			const other = await RawClient.connect(broker);
			for (const qos of [0, 1, 2]) {
				for (const retain of [false, true]) {
					await publishMany(client, () => topic, 1, { qos, retain });
					await publishMany(other, () => `${topic}/foreign`, 1, { qos, retain });
					await take(client, { topic: `${topic}/foreign`, qos, retain });
					await client.expectNothing();
				}
			}
			await client.publishAcked(`${topic}/kept`, "own", { retain: true });
			await client.subscribe(`${topic}/kept`, { qos: 2, nl: true });
			await client.expectNothing();
			await client.disconnect();
			const again = await RawClient.connect(broker, session);
			await again.expectNothing();
		});
	}

	test("SUBSCRIBE: No Local speaks of the client id, so it holds for what was published over an earlier connection of the session [MQTT-3.8.3-3]", async () => {
		const topic = freshTopic();
		const session = durable();
		const first = await RawClient.connect(broker, durable(session.clientId, { receiveMaximum: 1 }));
		await first.subscribe(topic, { qos: 1, nl: true });
		const other = await RawClient.connect(broker);
		await other.publishAcked(topic, "foreign 1");
		await first.expect("publish", { payload: "foreign 1" });
		await first.publishAcked(topic, "own");
		await other.publishAcked(topic, "foreign 2");
		await breakOff(broker, first);
		const second = await RawClient.connect(broker, session);
		await take(second, { payload: "foreign 1" });
		await take(second, { payload: "foreign 2" });
		await second.expectNothing();
	});

	test("SUBSCRIBE: a subscription beyond the limit is refused with 0x97, a replacement is not [MQTT-3.9.3-2]", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		const subscriptions = Array.from({ length: 22 }, (_, index) => entry(`${topic}/${index}`, 1));
		client.send({ cmd: "subscribe", messageId: 1, subscriptions });
		const { granted } = await client.expect("suback");
		assert.deepEqual([...granted], [...Array(20).fill(1), 0x97, 0x97]);
		assert.deepEqual([...(await client.subscribe(`${topic}/0`, { qos: 2 })).granted], [2]);
		assert.deepEqual([...(await client.subscribe(`${topic}/20`, { qos: 2 })).granted], [0x97]);
	});

	test("SUBACK: it stays below the client's Maximum Packet Size, with a failure too [MQTT-3.9.2-1] [MQTT-3.9.2-2]", async () => {
		const maximumPacketSize = 20;
		const client = await RawClient.connect(broker, { properties: { maximumPacketSize } });
		for (const filter of ["a/#/b", "secret", "a"]) {
			const suback = await client.subscribe(filter);
			assert.ok(suback.length + 2 <= maximumPacketSize);
		}
	});

	test("SUBSCRIBE: the largest subscription identifier is accepted and user properties are ignored", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker);
		await client.subscribe(topic, {}, { subscriptionIdentifier: 268_435_455, userProperties: { a: ["1", "2"] } });
		client.publish(topic, "x");
		const { properties } = await client.expect("publish");
		assert.equal([properties.subscriptionIdentifier].flat()[0], 268_435_455);
		assert.equal(properties.userProperties, undefined);
	});

	const one = field("a");
	const refused: readonly (readonly [what: string, bytes: Uint8Array, reasonCode: number])[] = [
		...[0x80, 0x81, 0x83, 0x8a].map(
			(first) =>
				[`the first byte 0x${first.toString(16)} is malformed [MQTT-3.8.1-1]`, packet(first, u16(1), [0], one, [0]), 0x81] as const,
		),
		["a filter that is not UTF-8 is malformed [MQTT-3.8.3-1]", packet(0x82, u16(1), [0], field([0x61, 0xff]), [0]), 0x81],
		["a filter with U+0000 is malformed [MQTT-4.7.3-2]", packet(0x82, u16(1), [0], field("a\0"), [0]), 0x81],
		["without any filter it is a protocol error [MQTT-3.8.3-2]", packet(0x82, u16(1), [0]), 0x82],
		["No Local on a shared filter is a protocol error [MQTT-3.8.3-4]", packet(0x82, u16(1), [0], field("$share/g/a"), [0x04]), 0x82],
		["option bit 6 is malformed [MQTT-3.8.3-5]", packet(0x82, u16(1), [0], one, [0x40]), 0x81],
		["option bit 7 is malformed [MQTT-3.8.3-5]", packet(0x82, u16(1), [0], one, [0x81]), 0x81],
		["option bits in a second entry are looked at too [MQTT-3.8.3-5]", packet(0x82, u16(1), [0], one, [0], one, [0xc0]), 0x81],
		["QoS 3 is a protocol error", packet(0x82, u16(1), [0], one, [0x03]), 0x82],
		["Retain Handling 3 is a protocol error", packet(0x82, u16(1), [0], one, [0x30]), 0x82],
		["subscription identifier 0 is a protocol error", packet(0x82, u16(1), props([0x0b, 0]), one, [0]), 0x82],
		["a second subscription identifier is a protocol error", packet(0x82, u16(1), props([0x0b, 1, 0x0b, 2]), one, [0]), 0x82],
		["a filter without options is malformed", packet(0x82, u16(1), [0], one), 0x81],
	];
	for (const [what, bytes, reasonCode] of refused) {
		test(`SUBSCRIBE: ${what}`, async () => {
			const client = await RawClient.connect(broker);
			client.sendBytes(bytes);
			await client.expectDisconnect(reasonCode);
		});
	}

	test("SUBSCRIBE: what is sent right behind it reaches the subscription", async () => {
		const topic = freshTopic();
		for (const { options } of SESSION_KINDS) {
			const client = await RawClient.connect(broker, options());
			client.sendTogether(
				{ cmd: "subscribe", messageId: 1, subscriptions: [entry(topic, 1)] },
				{ cmd: "publish", topic, payload: "x", qos: 1, messageId: 1, dup: false, retain: false },
			);
			const seen: string[] = [];
			while (seen.length < 3) seen.push((await client.receive()).cmd);
			assert.deepEqual(seen.toSorted(), ["puback", "publish", "suback"]);
		}
	});
});
