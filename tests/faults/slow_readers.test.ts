import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import type { Config } from "../../src/config.ts";
import { field, packet, u16 } from "../mqtt/wire.ts";
import { assertServes } from "../support/canary.ts";
import { eventually } from "../support/eventually.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { startBroker, type TestBroker } from "../support/test_broker.ts";

const LIMITS = { maxPacketSize: 65_536, maxBufferedBytes: 262_144, stallTimeoutSeconds: 1 };
const PAYLOAD_BYTES = 32_768;
/** The kernel's buffers of both ends take less than so many of them. */
const ENOUGH = 1_000;

/** Publishes until the condition holds; the publisher waits for the reader after each, so that nobody but the stalled one can fall behind. */
async function publishUntil(
	broker: TestBroker,
	topic: string,
	qos: 0 | 1,
	reader: RawClient,
	done: (count: number) => boolean,
): Promise<number> {
	let count = 0;
	while (!done(count)) {
		assert.ok(count < ENOUGH, "the condition holds before the bound is reached");
		const numbered = Buffer.alloc(PAYLOAD_BYTES);
		numbered.writeUInt32BE(count++);
		await broker.shoal.publish(topic, numbered, { qos });
		const { payload } = await reader.expect("publish");
		assert.equal(payload.readUInt32BE(), count - 1, "the reader misses nothing");
	}
	return count;
}

for (const [version, transport] of [
	[5, "ws"],
	[5, "tcp"],
	[4, "ws"],
] as const) {
	describe(`a reader that stalls, MQTT level ${version} over ${transport}`, () => {
		test("fault 23: QoS 0 for it is bounded, dropped and counted, others miss nothing, and it is ended after STALL_TIMEOUT_SECONDS with 0x97", async (t) => {
			const broker = await startBroker(t, LIMITS);
			const { metrics } = broker.shoal;
			const topic = freshId("topic");
			const stalled = await RawClient.connect(broker, { version, transport });
			await stalled.subscribe(topic);
			const reader = await RawClient.connect(broker, { version, transport });
			await reader.subscribe(topic);
			stalled.pause();
			const count = await publishUntil(broker, topic, 0, reader, () => metrics.dropped.slowReader >= 20);
			assert.equal(metrics.dropped.slowReader, 20);
			await eventually("the stalled client is ended", () => metrics.disconnectsSent.get(0x97) === 1);
			await eventually("it is forgotten", () => broker.shoal.connections === 1);
			await assertServes(broker);
			stalled.resume();
			const got = await stalled.receiveUntilClosed();
			const end = version === 5 ? got.pop() : undefined;
			if (version === 5) assert.deepEqual([end.cmd, end.reasonCode], ["disconnect", 0x97]);
			assert.equal(got.length, count - 20);
			for (const [index, { payload }] of got.entries())
				assert.equal(payload.readUInt32BE(), index, "what it gets has no holes before the first drop");
		});

		test("fault 24: QoS 1 for it waits in the log, others miss nothing, and its session gets everything when it is back", async (t) => {
			const broker = await startBroker(t, LIMITS);
			const { metrics } = broker.shoal;
			const topic = freshId("topic");
			const session = {
				version,
				transport,
				clientId: freshId(),
				clean: false,
				properties: { sessionExpiryInterval: 1000, receiveMaximum: 65_535 },
			};
			const stalled = await RawClient.connect(broker, session);
			await stalled.subscribe(topic, { qos: 1 });
			const reader = await RawClient.connect(broker, { version, transport });
			await reader.subscribe(topic, { qos: 0 });
			stalled.pause();
			const before = metrics.messagesSent[1];
			const count = await publishUntil(broker, topic, 1, reader, (published) => published === 100);
			// A window of payloads as large as the buffer is all that is taken out of the log for it.
			assert.ok((metrics.messagesSent[1] - before) * PAYLOAD_BYTES <= LIMITS.maxBufferedBytes + PAYLOAD_BYTES);
			await stalled.destroy();
			await eventually("it is gone", () => broker.shoal.connections === 1);
			await assertServes(broker);
			const back = await RawClient.connect(broker, session);
			for (let index = 0; index < count; index++) {
				const { payload, messageId } = await back.expect("publish", { qos: 1 });
				assert.equal(payload.readUInt32BE(), index);
				back.send({ cmd: "puback", messageId });
			}
			await back.expectNothing();
			assert.deepEqual({ ...metrics.dropped }, { ...metrics.dropped, slowReader: 0, queueFull: 0, logTrimmed: 0 });
		});

		test("a client that asks and never reads the answers is cut off when they reach MAX_BUFFERED_BYTES", async (t) => {
			const broker = await startBroker(t, { ...LIMITS, stallTimeoutSeconds: 60 });
			const { metrics } = broker.shoal;
			const client = await RawClient.connect(broker, { version, transport });
			client.pause();
			const properties = version === 5 ? [0] : [];
			const flood = Buffer.concat(Array.from({ length: 32_000 }, () => packet(0x32, field("t"), u16(1), properties)));
			let sent = 0;
			await eventually("it is cut off", () => {
				if (sent < ENOUGH && !client.closed) {
					client.sendBytes(flood);
					sent++;
				}
				return metrics.disconnectsSent.get(0x97) === 1;
			});
			await eventually("it is forgotten", () => broker.shoal.connections === 0);
			await assertServes(broker);
		});
	});
}

describe("retained messages that are many times what a connection may buffer", () => {
	const COUNT = 300;
	/** A broker that retains 300 messages of 32 KB. */
	const start = async (t: TestContext, qos: 0 | 1, limits: Partial<Config> = {}) => {
		const broker = await startBroker(t, { ...LIMITS, ...limits });
		for (let index = 0; index < COUNT; index++)
			await broker.shoal.publish(`retained/${index}`, Buffer.alloc(PAYLOAD_BYTES), { qos, retain: true });
		return broker;
	};
	/** Receives all that is retained. */
	const receiveRetained = async (client: RawClient) => {
		const topics = new Set<string>();
		while (topics.size < COUNT) {
			const { topic, qos, messageId } = await client.expect("publish", { retain: true });
			topics.add(topic);
			if (qos === 1) client.send({ cmd: "puback", messageId });
		}
	};

	for (const qos of [0, 1] as const) {
		for (const transport of ["ws", "tcp"] as const) {
			test(`a reader over ${transport} with QoS ${qos} that keeps up gets them all`, async (t) => {
				const broker = await start(t, qos);
				const client = await RawClient.connect(broker, { version: 4, transport });
				await client.subscribe("retained/#", { qos });
				await receiveRetained(client);
				assert.equal(broker.shoal.metrics.dropped.slowReader + broker.shoal.metrics.dropped.queueFull, 0);
			});

			test(`a reader over ${transport} with QoS ${qos} that stalls gets them when it reads on, and what is published meanwhile behind them, up to MAX_BUFFERED_BYTES`, async (t) => {
				const broker = await start(t, qos, { stallTimeoutSeconds: 60 });
				const { metrics } = broker.shoal;
				const client = await RawClient.connect(broker, { version: 4, transport });
				client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "retained/#", qos }] });
				client.pause();
				await eventually("some are sent", () => (metrics.messagesSent[qos] as number) > 0);
				for (let index = 0; index < 100; index++) await broker.shoal.publish("retained/live", Buffer.alloc(PAYLOAD_BYTES), { qos });
				const held = LIMITS.maxBufferedBytes / PAYLOAD_BYTES;
				assert.equal(metrics.dropped.queueFull, 100 - held);
				client.resume();
				await client.expect("suback");
				await receiveRetained(client);
				for (let index = 0; index < held; index++) {
					const { messageId } = await client.expect("publish", { topic: "retained/live", retain: false });
					if (qos === 1) client.send({ cmd: "puback", messageId });
				}
				await client.expectNothing();
				assert.equal(metrics.dropped.slowReader, 0);
			});
		}
	}
});
