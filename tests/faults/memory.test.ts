import assert from "node:assert/strict";
import process from "node:process";
import { describe, test } from "node:test";
import { field, packet, u16 } from "../mqtt/wire.ts";
import { assertServes } from "../support/canary.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { startBroker } from "../support/test_broker.ts";

const MIB = 1024 * 1024;
/** What a whole attack may add to the process, client included. */
const ALLOWED_BYTES = 64 * MIB;

/** Bytes of the process: what it holds, and what it has set aside without touching it yet. */
function memory(): number {
	const { rss, external } = process.memoryUsage();
	return Math.max(rss, external);
}

describe("memory", () => {
	for (const transport of ["ws", "tcp"] as const) {
		for (const version of [5, 4] as const) {
			test(`fault 20, MQTT level ${version} over ${transport}: packets of 256 MB that are declared and then stall take no memory, and end with the keep alive`, async (t) => {
				const broker = await startBroker(t, { maxPacketSize: 268_435_460, maxBufferedBytes: 300_000_000, connectTimeoutSeconds: 1 });
				const before = process.memoryUsage();
				const attackers: RawClient[] = [];
				for (let count = 0; count < 16; count++) {
					const client = await RawClient.connect(broker, { version, transport, keepalive: 1 });
					client.sendBytes(packet(0x30, field("t")).subarray(0, 1));
					client.sendBytes(Uint8Array.of(0xff, 0xff, 0xff, 0x7f));
					client.sendBytes(Buffer.alloc(1000));
					attackers.push(client);
					const unknown = await RawClient.open(broker, version, transport);
					unknown.sendBytes(Uint8Array.of(0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4, 0x4d));
					attackers.push(unknown);
				}
				await assertServes(broker);
				const after = process.memoryUsage();
				assert.ok(after.rss - before.rss < ALLOWED_BYTES, `${after.rss - before.rss} bytes more in memory`);
				assert.ok(after.external - before.external < ALLOWED_BYTES, `${after.external - before.external} bytes more set aside`);
				for (const client of attackers) await client.receiveUntilClosed();
				assert.equal(broker.shoal.connections, 0);
			});
		}

		test(`fault 22 over ${transport}: a flood of 128 MB with QoS 0, to nobody and to a subscriber that reads nothing, leaves the memory bounded`, async (t) => {
			const broker = await startBroker(t, { maxPacketSize: 131_072, maxBufferedBytes: 4 * MIB, stallTimeoutSeconds: 60 });
			const topic = freshId("topic");
			const stalled = await RawClient.connect(broker, { transport });
			await stalled.subscribe(topic);
			stalled.pause();
			const flooder = await RawClient.connect(broker, { transport });
			const payload = Buffer.alloc(65_000);
			const burst = Buffer.concat([packet(0x30, field(topic), [0], payload), packet(0x30, field("nobody"), [0], payload)]);
			const before = memory();
			let most = before;
			for (let count = 0; count < 1000; count++) {
				flooder.sendBytes(burst);
				// The client must not be what fills the memory: it waits until the broker has read.
				if (count % 8 === 7) await flooder.expectNothing();
				most = Math.max(most, memory());
			}
			assert.ok(broker.shoal.metrics.dropped.slowReader > 0, "the stalled subscriber missed some");
			assert.ok(most - before < ALLOWED_BYTES, `${most - before} bytes more`);
			await assertServes(broker);
		});
	}

	test("fault 22: a flood of 64 MB with QoS 1 for a session that is away is stored up to LOG_MAX_MESSAGES, and the rest of the memory stays bounded", async (t) => {
		const broker = await startBroker(t, { logMaxMessages: 100, maxPacketSize: 131_072 });
		const topic = freshId("topic");
		const sleeper = await RawClient.connect(broker, { clean: false, properties: { sessionExpiryInterval: 1000 } });
		await sleeper.subscribe(topic, { qos: 1 });
		await sleeper.disconnect();
		const flooder = await RawClient.connect(broker);
		const payload = Buffer.alloc(65_000);
		const before = memory();
		let most = before;
		for (let messageId = 1; messageId <= 1000; messageId++) {
			flooder.sendBytes(packet(0x32, field(topic), u16(messageId), [0], payload));
			await flooder.expect("puback", { messageId });
			most = Math.max(most, memory());
		}
		assert.ok(most - before < ALLOWED_BYTES, `${most - before} bytes more`);
		await assertServes(broker);
	});
});
