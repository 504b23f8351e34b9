import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { AuthOutcome } from "../../src/auth/auth.ts";
import { field, packet, props, u16 } from "../mqtt/wire.ts";
import { assertServes } from "../support/canary.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker } from "../support/test_broker.ts";

const VERSIONS = [5, 4, 3] as const;
const TRANSPORTS = ["ws", "tcp"] as const;

describe("limit MAX_PACKET_SIZE (fault 19)", () => {
	const broker = suiteBroker({ maxPacketSize: 1024 });

	for (const version of VERSIONS) {
		for (const transport of TRANSPORTS) {
			test(`MQTT level ${version} over ${transport}: a packet over the limit is refused with 0x95 at its header, before the body is sent`, async () => {
				// Two bytes of length: 1,022 is the largest body.
				for (const header of [
					[0x30, 0xff, 0x07],
					[0x82, 0xff, 0x07],
					[0x30, 0xff, 0xff, 0xff, 0x7f],
				]) {
					const client = await RawClient.connect(broker, { version, transport });
					client.sendBytes(Uint8Array.from(header));
					await client.expectDisconnect(0x95);
					if (transport === "ws") assert.equal(client.closeCode, 1009);
					await assertServes(broker);
				}
			});

			test(`MQTT level ${version} over ${transport}: a packet of exactly the limit passes`, async () => {
				const client = await RawClient.connect(broker, { version, transport });
				const topic = freshId("topic");
				await client.subscribe(topic);
				const properties = version === 5 ? [0] : [];
				const payload = Buffer.alloc(1024 - 3 - 2 - topic.length - properties.length, "x");
				const whole = packet(0x30, field(topic), properties, payload);
				assert.equal(whole.length, 1024);
				client.sendBytes(whole);
				await client.expect("publish", { topic, payload: payload.toString() });
			});

			test(`MQTT level ${version} over ${transport}: a first packet over the limit is closed without an answer`, async () => {
				const client = await RawClient.open(broker, version, transport);
				client.sendBytes(Uint8Array.of(0x10, 0xff, 0xff, 0xff, 0x7f));
				await client.expectClosed();
				if (transport === "ws") assert.equal(client.closeCode, 1009);
				await assertServes(broker);
			});
		}
	}

	test("MQTT 5: CONNACK tells the limit", async () => {
		const client = await RawClient.connect(broker);
		assert.equal(client.connack.properties.maximumPacketSize, 1024);
	});
});

describe("limit MAX_CONNECTIONS", () => {
	for (const version of VERSIONS) {
		test(`MQTT level ${version}: one connection too many is closed (WebSocket: 1013), whether the others have sent CONNECT or not; a place that is free again is given away`, async (t) => {
			const broker = await startBroker(t, { maxConnections: 2 });
			const first = await RawClient.connect(broker, { version, transport: "ws" });
			const second = await RawClient.open(broker, version, "tcp");
			for (const transport of TRANSPORTS) {
				const third = await RawClient.open(broker, version, transport);
				third.sendConnect();
				assert.deepEqual(await third.receiveUntilClosed(), [], transport);
				if (transport === "ws") assert.equal(third.closeCode, 1013);
			}
			assert.equal(broker.shoal.connections, 2);
			await first.expectNothing();
			await second.destroy();
			await first.disconnect();
			await assertServes(broker);
		});
	}
});

describe("limit CONNECT_TIMEOUT_SECONDS (fault 18)", () => {
	const never = { authenticate: () => new Promise<AuthOutcome>(() => {}) };

	test("a connection without CONNECT, and one that sends it byte by byte without end, are closed; a connected one is not", async (t) => {
		const broker = await startBroker(t, { connectTimeoutSeconds: 1 });
		const connected = await RawClient.connect(broker, { transport: "ws" });
		const [silent, slow] = (await Promise.all(
			[0, 1].map(() => Promise.all(TRANSPORTS.map((transport) => RawClient.open(broker, 5, transport)))),
		)) as [RawClient[], RawClient[]];
		const connect = packet(0x10, field("MQTT"), [5, 2], u16(0), props(), field("x".repeat(100)));
		let at = 0;
		const drip = setInterval(() => {
			for (const client of slow) client.sendBytes(connect.subarray(at, at + 1));
			at++;
		}, 50);
		for (const client of [...silent, ...slow]) assert.deepEqual(await client.receiveUntilClosed(), []);
		clearInterval(drip);
		assert.ok(at < connect.length, "the CONNECT was not complete yet");
		assert.equal(broker.shoal.connections, 1);
		await connected.expectNothing();
		await assertServes(broker);
	});

	test("a CONNECT whose authentication takes longer is refused", async (t) => {
		const broker = await startBroker(t, { connectTimeoutSeconds: 1 }, { authenticator: never });
		const [modern, old] = [await RawClient.open(broker, 5), await RawClient.open(broker, 4)];
		for (const client of [modern, old]) client.sendConnect();
		await modern.expect("connack", { reasonCode: 0x80 });
		await modern.expectClosed();
		await old.expectClosed();
	});
});

describe("limit MAX_TOPIC_LEVELS", () => {
	const broker = suiteBroker({ maxTopicLevels: 3 });

	for (const version of VERSIONS) {
		test(`MQTT level ${version}: topics, filters and wills of more levels are refused, those of so many are not`, async () => {
			const client = await RawClient.connect(broker, { version });
			const subscriptions = ["a/b/c", "a/b/c/d", "+/+/+/#", "$share/g/a/b/x", "$share/g/a/b/c/d"].map((topic) => ({ topic, qos: 0 }));
			client.send({ cmd: "subscribe", messageId: 2, subscriptions });
			const { granted } = await client.expect("suback");
			const failure = version === 5 ? 0x8f : 0x80;
			assert.deepEqual(granted, [0, failure, failure, 0, failure]);
			client.publish("a/b/c", "in");
			await client.expect("publish", { topic: "a/b/c" });
			client.publish("a/b/c/d", "out");
			await client.expectDisconnect(0x90);
			const will = await RawClient.open(broker, version);
			will.sendConnect({ will: { topic: "a/b/c/d", payload: "", qos: 0, retain: false } });
			if (version === 5) await will.expect("connack", { reasonCode: 0x90 });
			await will.expectClosed();
			await assertServes(broker);
		});
	}
});

describe("limit MAX_SUBSCRIPTIONS (fault 29)", () => {
	for (const version of VERSIONS) {
		test(`MQTT level ${version}: filters over the limit are refused with 0x97, replaced and removed ones make no trouble, and a resumed session counts`, async (t) => {
			const broker = await startBroker(t, { maxSubscriptions: 3 });
			const session = { version, clientId: freshId(), clean: false, properties: { sessionExpiryInterval: 1000 } };
			const full = version === 5 ? 0x97 : 0x80;
			const subscribe = async (client: RawClient, ...topics: string[]) => {
				client.send({ cmd: "subscribe", messageId: 5, subscriptions: topics.map((topic) => ({ topic, qos: 1 })) });
				return (await client.expect("suback")).granted;
			};
			const first = await RawClient.connect(broker, session);
			assert.deepEqual(await subscribe(first, "a", "b", "a", "c", "d", "b"), [1, 1, 1, 1, full, 1]);
			assert.deepEqual(await subscribe(first, "e"), [full]);
			await first.disconnect();
			const second = await RawClient.connect(broker, session);
			assert.deepEqual(await subscribe(second, "e", "c"), [full, 1]);
			second.send({ cmd: "unsubscribe", messageId: 6, unsubscriptions: ["a"] });
			await second.expect("unsuback");
			assert.deepEqual(await subscribe(second, "e", "a"), [1, full]);
			await broker.shoal.publish("a", "not subscribed", { qos: 1 });
			await broker.shoal.publish("e", "subscribed", { qos: 1 });
			await second.expect("publish", { topic: "e" });
			if (version === 5) assert.equal(broker.shoal.metrics.subscriptionsRefused.get(0x97), 4);
		});

		test(`MQTT level ${version}: of 20,000 filters in one SUBSCRIBE the first 1,000 are granted, and a topic that matches them all comes once`, async (t) => {
			const broker = await startBroker(t);
			const client = await RawClient.connect(broker, { version });
			// All ways to put + for a level: the first 1,024 of them match the topic.
			const filters = Array.from({ length: 20_000 }, (_, index) =>
				Array.from({ length: 15 }, (_, level) => ((index >> level) & 1 ? "+" : "a")).join("/"),
			);
			client.sendBytes(
				packet(0x82, u16(5), version === 5 ? [0] : [], ...filters.map((filter) => Buffer.concat([field(filter), Uint8Array.of(0)]))),
			);
			const { granted } = (await client.expect("suback")) as { granted: number[] };
			assert.equal(granted.length, 20_000);
			assert.ok(granted.every((code, index) => code === (index < 1000 ? 0 : version === 5 ? 0x97 : 0x80)));
			client.publish(Array(15).fill("a").join("/"), "once");
			await client.expect("publish", { payload: "once" });
			await client.expectNothing();
			await assertServes(broker);
		});
	}
});

describe("limit PUBLISH_RATE (fault 22)", () => {
	for (const version of VERSIONS) {
		test(`MQTT level ${version}: a client that publishes faster is ended with 0x96`, async (t) => {
			const broker = await startBroker(t, { publishRate: 1 });
			for (const qos of [0, 1]) {
				const client = await RawClient.connect(broker, { version });
				client.sendTogether(...[1, 2, 3].map((messageId) => ({ cmd: "publish", topic: "t", payload: "", qos, messageId })));
				const answers = await client.receiveUntilClosed();
				const ends = answers.filter(({ cmd }: AnyPacket) => cmd === "disconnect").map(({ reasonCode }: AnyPacket) => reasonCode);
				assert.deepEqual(ends, version === 5 ? [0x96] : []);
				assert.ok(answers.filter(({ cmd }: AnyPacket) => cmd === "puback").length <= 1);
				await assertServes(broker);
			}
		});

		test(`MQTT level ${version}: PUBLISH_BURST lets so many through at once`, async (t) => {
			const broker = await startBroker(t, { publishRate: 1, publishBurst: 20 });
			const watcher = await RawClient.connect(broker);
			await watcher.subscribe("burst");
			const client = await RawClient.connect(broker, { version });
			client.sendTogether(...Array.from({ length: 20 }, (_, index) => ({ cmd: "publish", topic: "burst", payload: `${index}`, qos: 0 })));
			await client.expectNothing();
			for (let index = 0; index < 20; index++) await watcher.expect("publish", { payload: `${index}` });
			client.sendTogether(...Array.from({ length: 20 }, () => ({ cmd: "publish", topic: "elsewhere", payload: "", qos: 0 })));
			await client.expectDisconnect(0x96);
		});
	}
});

describe("many user properties (fault 28)", () => {
	const count = 10_000;
	const pairs = Array.from({ length: count }, (_, index) =>
		Buffer.concat([Uint8Array.of(0x26), field(`k${index % 7}`), field(`${index}`)]),
	);

	test("10,000 of them are forwarded whole and in order", async (t) => {
		const broker = await startBroker(t);
		const client = await RawClient.connect(broker);
		await client.subscribe("t");
		client.sendBytes(packet(0x30, field("t"), props(...pairs), [0x78]));
		await client.expect("publish", { payload: "x" });
		assert.ok(Buffer.concat(client.bytes).includes(Buffer.from(props(...pairs))), "the same bytes");
	});

	test("in a CONNECT and its will they are accepted, over the limit of size they are refused with 0x95", async (t) => {
		const broker = await startBroker(t);
		const client = await RawClient.open(broker);
		client.sendBytes(packet(0x10, field("MQTT"), [5, 6], u16(0), props(...pairs), field("c"), props(...pairs), field("t"), field("m")));
		await client.expect("connack", { reasonCode: 0 });
		const few = await startBroker(t, { maxPacketSize: 65_536 });
		const flooder = await RawClient.connect(few);
		flooder.sendBytes(packet(0x30, field("t"), props(...pairs), [0x78]));
		await flooder.expectDisconnect(0x95);
		await assertServes(few);
	});
});
