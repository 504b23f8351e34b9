import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytes, field, packet, u16 } from "../mqtt/wire.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { BAD_STRINGS, V3_VERSIONS } from "../support/v3.ts";

describe("v3 SUBSCRIBE and UNSUBSCRIBE", () => {
	const broker = suiteBroker();

	for (const { version, name } of V3_VERSIONS) {
		const connect = () => RawClient.connect(broker, { version });
		/** Sends bytes on a connection that is open, which must end without a word. */
		const closes = async (what: string, sent: Uint8Array) => {
			const client = await connect();
			client.sendBytes(sent);
			assert.deepEqual(await client.receiveUntilClosed(), [], what);
		};
		const unsubscribe = async (client: RawClient, ...unsubscriptions: string[]) => {
			client.send({ cmd: "unsubscribe", messageId: 321, unsubscriptions });
			return client.expect("unsuback", { messageId: 321 });
		};

		test(`${name}: SUBSCRIBE is answered by one SUBACK with its id and a granted QoS for each filter, in order [v3 MQTT-3.8.4-1] [v3 MQTT-3.8.4-2] [v3 MQTT-3.8.4-4] [v3 MQTT-3.8.4-5] [v3 MQTT-3.9.3-1] [v3 MQTT-2.3.1-7]`, async () => {
			const client = await connect();
			const root = freshId("topic");
			const subscriptions = [2, 0, 1, 1, 2].map((qos, index) => ({ topic: `${root}/${index}`, qos }));
			client.send({ cmd: "subscribe", messageId: 0xfedc, subscriptions });
			const { granted } = await client.expect("suback", { messageId: 0xfedc });
			assert.deepEqual(granted, [2, 0, 1, 1, 2]);
			await client.expectNothing();
		});

		test(`${name}: an invalid filter gets 0x80 and its neighbours are granted [v3 MQTT-3.8.4-5] [v3 MQTT-3.9.3-1] [v3 MQTT-3.9.3-2] [v3 MQTT-4.7.1-2] [v3 MQTT-4.7.1-3] [v3 MQTT-4.7.3-1]`, async () => {
			const client = await connect();
			const root = freshId("topic");
			for (const bad of ["a/#/b", "a#", "#a", "a+", "+a", "a/b+/c", "##", "++", ""]) {
				// By hand: mqtt-packet refuses some of these itself.
				client.sendBytes(packet(0x82, u16(7), field(`${root}/1`), [1], field(bad), [2], field(`${root}/2`), [2]));
				const { granted } = await client.expect("suback", { messageId: 7 });
				assert.deepEqual(granted, [1, 0x80, 2], bad);
			}
			await broker.shoal.publish(`${root}/2`, "to the neighbour");
			await client.expect("publish", { payload: "to the neighbour" });
		});

		test(`${name}: filters must be UTF-8 without U+0000 [v3 MQTT-3.8.3-1] [v3 MQTT-3.10.3-1] [v3 MQTT-1.5.3-1] [v3 MQTT-1.5.3-2] [v3 MQTT-4.7.3-2]`, async () => {
			for (const [what, text] of BAD_STRINGS) {
				await closes(`SUBSCRIBE: ${what}`, packet(0x82, u16(1), field(text), [0]));
				await closes(`UNSUBSCRIBE: ${what}`, packet(0xa2, u16(1), field(text)));
			}
		});

		test(`${name}: SUBSCRIBE and UNSUBSCRIBE without a filter close the connection [v3 MQTT-3.8.3-3] [v3 MQTT-3.10.3-2] [v3 MQTT-4.8.0-1]`, async () => {
			await closes("SUBSCRIBE", packet(0x82, u16(1)));
			await closes("UNSUBSCRIBE", packet(0xa2, u16(1)));
		});

		test(`${name}: reserved bits of the requested QoS and QoS 3 close the connection [v3 MQTT-3.8.3-4]`, async () => {
			for (const requested of [3, 4, 0x08, 0x10, 0x20, 0x40, 0x81])
				await closes(`${requested}`, packet(0x82, u16(1), field("t"), [requested]));
		});

		test(`${name}: wrong flags of SUBSCRIBE and UNSUBSCRIBE close the connection [v3 MQTT-3.8.1-1] [v3 MQTT-3.10.1-1] [v3 MQTT-2.2.2-2]`, async () => {
			for (const flags of [0, 1, 3, 6]) {
				await closes(`SUBSCRIBE ${flags}`, packet(0x80 | flags, u16(1), field("t"), [0]));
				await closes(`UNSUBSCRIBE ${flags}`, packet(0xa0 | flags, u16(1), field("t")));
			}
			// DUP, which 3.1 allowed when a packet is sent again.
			if (version === 4) await closes("DUP", packet(0x8a, u16(1), field("t"), [0]));
		});

		test(`${name}: a message is delivered with the lesser of its own and the granted QoS [v3 MQTT-3.8.4-6]`, async () => {
			const publisher = await connect();
			for (const granted of [0, 1, 2]) {
				const topic = freshId("topic");
				const subscriber = await connect();
				await subscriber.subscribe(topic, { qos: granted });
				publisher.publish(topic, "0");
				await publisher.publishAcked(topic, "1", { qos: 1 });
				await publisher.publishAcked(topic, "2", { qos: 2 });
				for (const published of [0, 1, 2]) {
					await subscriber.expect("publish", { payload: `${published}`, qos: Math.min(published, granted) });
				}
			}
		});

		test(`${name}: overlapping subscriptions deliver with the highest of their QoS, once [v3 MQTT-3.3.5-1]`, async () => {
			const topic = freshId("topic");
			for (const order of [
				[0, 2, 1],
				[2, 0, 1],
			]) {
				const subscriber = await connect();
				for (const [index, qos] of order.entries()) await subscriber.subscribe([topic, `${topic}/#`, "+"][index] as string, { qos });
				await broker.shoal.publish(topic, "once", { qos: 2 });
				await subscriber.expect("publish", { payload: "once", qos: 2 });
				await subscriber.expectNothing();
			}
		});

		test(`${name}: a second SUBSCRIBE for a filter replaces the first, sends retained messages again and does not interrupt the flow [v3 MQTT-3.8.4-3]`, async () => {
			const root = freshId("topic");
			const [subscriber, publisher] = [await connect(), await connect()];
			await publisher.publishAcked(`${root}/retained`, "retained", { retain: true });
			await subscriber.subscribe(`${root}/#`, { qos: 2 });
			await subscriber.expect("publish", { payload: "retained", retain: true, qos: 1 });
			const payloads: string[] = [];
			for (let index = 0; index < 100; index++) {
				publisher.publish(`${root}/live`, `${index}`, { qos: 1, messageId: index + 1 });
				if (index === 50) subscriber.send({ cmd: "subscribe", messageId: 9, subscriptions: [{ topic: `${root}/#`, qos: 0 }] });
			}
			const seen = { suback: 0, retained: 0 };
			while (payloads.length < 100 || seen.suback < 1 || seen.retained < 1) {
				const one = await subscriber.receive();
				if (one.cmd === "suback") seen.suback++;
				else if (one.retain) seen.retained++;
				else payloads.push(`${one.payload}`);
			}
			// Each live message once; the order is per QoS, and the QoS changed on the way.
			assert.deepEqual(
				payloads.toSorted((a, b) => Number(a) - Number(b)),
				Array.from({ length: 100 }, (_, index) => `${index}`),
			);
			assert.deepEqual(seen, { suback: 1, retained: 1 });
			await broker.shoal.publish(`${root}/live`, "after", { qos: 2 });
			await subscriber.expect("publish", { payload: "after", qos: 0 });
			await subscriber.expectNothing();
			await broker.shoal.publish(`${root}/retained`, "", { retain: true });
		});

		test(`${name}: several filters in one SUBSCRIBE act like a sequence of them [v3 MQTT-3.8.4-4]`, async () => {
			const topic = freshId("topic");
			const client = await connect();
			client.send({
				cmd: "subscribe",
				messageId: 4,
				subscriptions: [
					{ topic, qos: 2 },
					{ topic, qos: 1 },
				],
			});
			await client.expect("suback", { messageId: 4 });
			await broker.shoal.publish(topic, "once", { qos: 2 });
			await client.expect("publish", { payload: "once", qos: 1 });
			await client.expectNothing();
		});

		test(`${name}: UNSUBSCRIBE removes what matches its filter letter by letter, and nothing else [v3 MQTT-3.10.4-1] [v3 MQTT-3.10.4-2] [v3 MQTT-3.10.4-4] [v3 MQTT-2.3.1-7]`, async () => {
			const topic = freshId("topic");
			const client = await connect();
			await client.subscribe(`${topic}/+`, { qos: 1 });
			await unsubscribe(client, `${topic}/#`, `${topic}/a`, topic, `${topic}/+/`);
			await broker.shoal.publish(`${topic}/a`, "still", { qos: 1 });
			await client.expect("publish", { payload: "still" });
			await unsubscribe(client, `${topic}/+`);
			await broker.shoal.publish(`${topic}/a`, "no more", { qos: 1 });
			await broker.shoal.publish(`${topic}/a`, "no more");
			await client.expectNothing();
		});

		test(`${name}: UNSUBACK comes although nothing is deleted [v3 MQTT-3.10.4-5] [v3 MQTT-3.10.4-4]`, async () => {
			const client = await connect();
			await unsubscribe(client, freshId("never"));
			assert.deepEqual([...(client.bytes.at(-1) as Buffer)], [0xb0, 2, ...u16(321)]);
		});

		test(`${name}: several filters in one UNSUBSCRIBE act like a sequence of them, with one UNSUBACK [v3 MQTT-3.10.4-6]`, async () => {
			const root = freshId("topic");
			const client = await connect();
			for (const level of ["a", "b", "c"]) await client.subscribe(`${root}/${level}`);
			await unsubscribe(client, `${root}/a`, `${root}/missing`, `${root}/c`, `${root}/a`);
			for (const level of ["a", "b", "c"]) await broker.shoal.publish(`${root}/${level}`, level);
			await client.expect("publish", { payload: "b" });
			await client.expectNothing();
		});

		test(`${name}: deliveries of QoS 1 and 2 that have begun are completed after UNSUBSCRIBE [v3 MQTT-3.10.4-3]`, async () => {
			for (const clean of [true, false]) {
				const topic = freshId("topic");
				const clientId = freshId();
				const client = await RawClient.connect(broker, { version, clientId, clean });
				await client.subscribe(topic, { qos: 2 });
				await broker.shoal.publish(topic, "two", { qos: 2 });
				await broker.shoal.publish(topic, "one", { qos: 1 });
				const begun = [await client.expect("publish"), await client.expect("publish")];
				const idOf = (qos: number) => begun.find((one) => one.qos === qos).messageId;
				await unsubscribe(client, topic);
				client.send({ cmd: "pubrec", messageId: idOf(2) });
				await client.expect("pubrel", { messageId: idOf(2) });
				client.send({ cmd: "pubcomp", messageId: idOf(2) });
				if (clean) continue;
				// The other one is still in flight, so it comes again with the session although nothing subscribes to it.
				await client.destroy();
				const again = await RawClient.connect(broker, { version, clientId, clean });
				await again.expect("publish", { payload: "one", dup: true, messageId: idOf(1) });
				again.send({ cmd: "puback", messageId: idOf(1) });
				await again.expectNothing();
			}
		});

		test(`${name}: what was stored for a session before its UNSUBSCRIBE and is not under way does not come afterwards [v3 MQTT-3.10.4-2]`, async () => {
			const topic = freshId("topic");
			const clientId = freshId();
			const client = await RawClient.connect(broker, { version, clientId, clean: false });
			await client.subscribe(topic, { qos: 1 });
			await unsubscribe(client, topic);
			await broker.shoal.publish(topic, "no more", { qos: 1 });
			await client.disconnect();
			await broker.shoal.publish(topic, "no more", { qos: 1 });
			const again = await RawClient.connect(broker, { version, clientId, clean: false });
			await again.expectNothing();
		});

		test(`${name}: wildcards match levels as the specification shows [v3 MQTT-4.7.1-2] [v3 MQTT-4.7.1-3] [v3 MQTT-3.3.2-3] [v3 MQTT-4.7.3-4]`, async () => {
			const root = freshId("topic");
			const cases: readonly (readonly [filter: string, topics: readonly string[]])[] = [
				["#", ["", "/a", "/a/b", "//", "/A", "/é"]],
				["/#", ["", "/a", "/a/b", "//", "/A", "/é"]],
				["/+", ["/a", "/A", "/é"]],
				["/+/+", ["/a/b", "//"]],
				["/a", ["/a"]],
				["/a/#", ["/a", "/a/b"]],
				["/+/", ["//"]],
				["/é", ["/é"]],
				["/e\u0301", []],
			];
			const topics = ["", "/a", "/a/b", "//", "/A", "/é"];
			for (const [filter, expected] of cases) {
				const client = await connect();
				await client.subscribe(filter === "#" ? "#" : root + filter, { qos: 0 });
				for (const topic of topics) await broker.shoal.publish(root + topic, "x");
				client.send({ cmd: "pingreq" });
				const came: AnyPacket[] = [];
				for (let one = await client.receive(); one.cmd === "publish"; one = await client.receive()) came.push(one.topic.slice(root.length));
				assert.deepEqual(came, expected, filter);
			}
		});

		test(`${name}: filters that begin with a wildcard do not match topics that begin with $ [v3 MQTT-4.7.2-1]`, async () => {
			const [wild, exact] = [await connect(), await connect()];
			const level = freshId("level");
			await wild.subscribe("#");
			await wild.subscribe(`+/${level}`);
			await exact.subscribe(`$${level}/${level}`);
			await exact.subscribe(`$${level}/#`);
			await broker.shoal.publish(`$${level}/${level}`, "hidden");
			await exact.expect("publish", { payload: "hidden" });
			await wild.expectNothing();
		});
	}

	test("MQTT 3.1: DUP of SUBSCRIBE, UNSUBSCRIBE and PUBREL is accepted", async () => {
		const client = await RawClient.connect(broker, { version: 3 });
		client.sendBytes(bytes(packet(0x8a, u16(1), field("t"), [0]), packet(0xaa, u16(2), field("t")), [0x6a, 2, 0, 3]));
		const answers = [await client.receive(), await client.receive(), await client.receive()];
		assert.deepEqual(answers.map(({ cmd, messageId }) => `${cmd} ${messageId}`).sort(), ["pubcomp 3", "suback 1", "unsuback 2"]);
	});
});
