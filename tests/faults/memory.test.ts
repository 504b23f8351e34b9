import assert from "node:assert/strict";
import process from "node:process";
import { describe, test } from "node:test";
import { field, packet, u16, vbi } from "../mqtt/wire.ts";
import { assertServes } from "../support/canary.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { startBroker } from "../support/test_broker.ts";

const MIB = 1024 * 1024;
/** What an attack may add to the process, client included. */
const ALLOWED_BYTES = 64 * MIB;

describe("memory", () => {
	test("fault 20: packets of 256 MB that are declared and then stall take no memory, and end with keep alive and CONNECT timeout", async (t) => {
		const broker = await startBroker(t, { maxPacketSize: 268_435_460, maxBufferedBytes: 300_000_000, connectTimeoutSeconds: 1 });
		const before = process.memoryUsage();
		const attackers: RawClient[] = [];
		for (let count = 0; count < 32; count++) {
			const [version, transport] = [count % 2 === 0 ? 5 : 4, count % 4 < 2 ? "ws" : "tcp"] as const;
			const client = await RawClient.connect(broker, { version, transport, keepalive: 1 });
			client.sendBytes(Uint8Array.of(0x30, 0xff, 0xff, 0xff, 0x7f));
			client.sendBytes(Buffer.alloc(1000));
			const unknown = await RawClient.open(broker, version, transport);
			unknown.sendBytes(Uint8Array.of(0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4, 0x4d));
			attackers.push(client, unknown);
		}
		await assertServes(broker);
		const after = process.memoryUsage();
		assert.ok(after.rss - before.rss < ALLOWED_BYTES, `${after.rss - before.rss} bytes more in memory`);
		// What is set aside and not touched yet does not show in the resident set.
		assert.ok(after.external - before.external < ALLOWED_BYTES, `${after.external - before.external} bytes more set aside`);
		for (const client of attackers) await client.receiveUntilClosed();
		assert.equal(broker.shoal.connections, 0);
	});

	for (const transport of ["ws", "tcp"] as const) {
		test(`fault 22 over ${transport}: a flood of 512 MB with QoS 0, to nobody and to a subscriber that reads nothing, leaves the memory as it was after the first part`, async (t) => {
			const broker = await startBroker(t, { maxPacketSize: 131_072, maxBufferedBytes: 4 * MIB, stallTimeoutSeconds: 60 });
			const topic = freshId("topic");
			const stalled = await RawClient.connect(broker, { transport });
			await stalled.subscribe(topic);
			stalled.pause();
			const flooder = await RawClient.connect(broker, { transport });
			const payload = Buffer.alloc(65_000);
			const burst = Buffer.concat([packet(0x30, field(topic), [0], payload), packet(0x30, field("nobody"), [0], payload)]);
			let before = Number.POSITIVE_INFINITY;
			let most = 0;
			for (let count = 1; count <= 4_000; count++) {
				flooder.sendBytes(burst);
				// The client, which is in this process too, must not be what fills the memory.
				if (count % 50 !== 0) continue;
				await flooder.expectNothing();
				if (count === 800) before = process.memoryUsage().rss;
				most = Math.max(most, process.memoryUsage().rss);
			}
			assert.ok(broker.shoal.metrics.dropped.slowReader > 0, "the stalled subscriber missed some");
			assert.ok(most - before < ALLOWED_BYTES, `${most - before} bytes more`);
			await assertServes(broker);
		});
	}

	test("fault 22: of a flood with QoS 1 for a session that is away no more than LOG_MAX_MESSAGES is kept", async (t) => {
		const broker = await startBroker(t, { logMaxMessages: 100, sysIntervalSeconds: 1 });
		const topic = freshId("topic");
		const sleeper = await RawClient.connect(broker, { clean: false, properties: { sessionExpiryInterval: 1000 } });
		await sleeper.subscribe(topic, { qos: 1 });
		await sleeper.disconnect();
		const flooder = await RawClient.connect(broker);
		const publish = (messageId: number) => packet(0x32, field(topic), u16(messageId), [0], Buffer.alloc(10_000));
		for (let round = 0; round < 20; round++) {
			flooder.sendBytes(Buffer.concat(Array.from({ length: 100 }, (_, index) => publish(index + 1))));
			for (let messageId = 1; messageId <= 100; messageId++) await flooder.expect("puback", { messageId });
		}
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe("$SYS/broker/store/messages/count");
		let stored = 0;
		while (stored < 100) stored = Number((await watcher.expect("publish")).payload);
		assert.equal(stored, 100);
		await assertServes(broker);
	});

	test("fault 28: the user properties of a CONNECT are not kept with the connection", async (t) => {
		const broker = await startBroker(t);
		// The most that fit into a packet: 200,000 pairs of empty strings.
		const pairs = Buffer.alloc(1_000_000);
		for (let at = 0; at < pairs.length; at += 5) pairs[at] = 0x26;
		const connect = Buffer.from(packet(0x10, field("MQTT"), [5, 2], u16(0), vbi(pairs.length), pairs, field("")));
		const before = process.memoryUsage().rss;
		const clients: RawClient[] = [];
		for (let count = 0; count < 40; count++) {
			const client = await RawClient.open(broker);
			client.sendBytes(connect);
			await client.expect("connack", { reasonCode: 0 });
			clients.push(client);
		}
		const more = process.memoryUsage().rss - before;
		// Kept, they would be 600 MB and more; one that is being read is 20 MB until it is collected.
		assert.ok(more < 6 * ALLOWED_BYTES, `${more} bytes more`);
		for (const client of clients) await client.expectNothing();
	});
});
