/** Paho for Python, over its own WebSocket and over TCP: each client is a Python process that `paho_client.py` makes steerable. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PahoClient } from "../support/paho_client.ts";
import { type AnyPacket, freshId } from "../support/raw_client.ts";
import { suiteServer } from "../support/server_process.ts";
import type { Cleanup } from "../support/test_broker.ts";
import { freshTopic } from "../support/traffic.ts";

describe("Paho for Python", () => {
	const server = suiteServer();

	for (const transport of ["websockets", "tcp"] as const) {
		for (const [version, name] of [
			[3, "3.1"],
			[4, "3.1.1"],
			[5, "5.0"],
		] as const) {
			const title = `MQTT ${name}, ${transport}:`;

			async function connect(t: Cleanup, options: AnyPacket = {}): Promise<{ client: PahoClient; present: number }> {
				const client = new PahoClient(t);
				const port = transport === "tcp" ? server().tcpPort : server().wsPort;
				client.do("connect", { port, transport, version, id: freshId("paho"), ...options });
				const { code, present } = await client.expect("connected");
				assert.equal(code, 0);
				return { client, present };
			}

			it(`${title} messages of every QoS arrive whole, at the lesser QoS of both sides`, async (t) => {
				const topic = freshTopic();
				const [{ client: publisher }, { client: subscriber }] = [await connect(t), await connect(t)];
				for (const granted of [0, 1, 2]) {
					await subscriber.subscribe(`${topic}/${granted}`, granted);
					for (const qos of [0, 1, 2]) {
						const payload = `QoS ${qos} ${"ü".repeat(70_000)}`;
						await publisher.publish(`${topic}/${granted}`, payload, qos);
						const message = await subscriber.message();
						assert.deepEqual([message.topic, message.qos, message.retain], [`${topic}/${granted}`, Math.min(qos, granted), false]);
						assert.ok(message.payload === payload);
					}
				}
			});

			it(`${title} two hundred messages sent at once arrive once and in order`, async (t) => {
				const topic = freshTopic();
				const [{ client: publisher }, { client: subscriber }] = [await connect(t), await connect(t)];
				for (const qos of [1, 2]) {
					await subscriber.subscribe(`${topic}/${qos}`, qos);
					const texts = Array.from({ length: 200 }, (_, index) => `${index}`);
					for (const text of texts) publisher.do("publish", { topic: `${topic}/${qos}`, payload: Buffer.from(text).toString("hex"), qos });
					const received: string[] = [];
					while (received.length < texts.length) received.push((await subscriber.message()).payload);
					assert.deepEqual(received, texts);
				}
			});

			it(`${title} a retained message comes with the subscription, until it is cleared`, async (t) => {
				const topic = freshTopic();
				const { client: publisher } = await connect(t);
				await publisher.publish(`${topic}/kept`, "kept", 1, { retain: true });
				await publisher.publish(`${topic}/cleared`, "cleared", 1, { retain: true });
				await publisher.publish(`${topic}/cleared`, "", 1, { retain: true });
				const { client: subscriber } = await connect(t);
				await subscriber.subscribe(`${topic}/+`, 1);
				const { payload, retain } = await subscriber.message();
				assert.deepEqual([payload, retain], ["kept", true]);
				await publisher.publish(`${topic}/live`, "live", 1);
				assert.equal((await subscriber.message()).payload, "live");
			});

			it(`${title} the will of a killed process is published, that of one that disconnects is not`, async (t) => {
				const topic = freshTopic();
				const { client: watcher } = await connect(t);
				await watcher.subscribe(topic, 1);
				const will = (payload: string) => ({ will: { topic, payload, qos: 1 } });
				await (await connect(t, will("left"))).client.disconnect();
				await (await connect(t, will("killed"))).client.kill();
				assert.equal((await watcher.message()).payload, "killed");
			});

			it(`${title} a persistent session gets what was published while it was away`, async (t) => {
				const topic = freshTopic();
				const session = { id: freshId("paho"), clean: false, expiry: 300 };
				const { client: first, present } = await connect(t, session);
				assert.equal(present, 0);
				await first.subscribe(topic, 2);
				await first.kill();
				const { client: publisher } = await connect(t);
				for (const qos of [1, 2]) await publisher.publish(topic, `QoS ${qos}`, qos);
				const { client: second, present: presentAgain } = await connect(t, session);
				// 3.1 has no such flag.
				if (version > 3) assert.equal(presentAgain, 1);
				const payloads = [(await second.message()).payload, (await second.message()).payload];
				assert.deepEqual(payloads.sort(), ["QoS 1", "QoS 2"]);
			});

			it(`${title} after unsubscribe nothing more comes`, async (t) => {
				const topic = freshTopic();
				const { client } = await connect(t);
				await client.subscribe(`${topic}/a`, 1);
				await client.subscribe(`${topic}/b`, 0);
				client.do("unsubscribe", { topic: `${topic}/a` });
				await client.expect("unsubscribed");
				const { client: publisher } = await connect(t);
				await publisher.publish(`${topic}/a`, "no", 1);
				await publisher.publish(`${topic}/b`, "yes", 1);
				assert.equal((await client.message()).payload, "yes");
			});
		}
	}

	for (const transport of ["websockets", "tcp"] as const) {
		it(`MQTT 5.0, ${transport}: properties arrive as they were sent`, async (t) => {
			const topic = freshTopic();
			const port = transport === "tcp" ? server().tcpPort : server().wsPort;
			const client = new PahoClient(t);
			client.do("connect", { port, transport, version: 5, id: freshId("paho") });
			await client.expect("connected");
			await client.subscribe(topic, 0);
			const properties = {
				PayloadFormatIndicator: 1,
				MessageExpiryInterval: 1000,
				ContentType: "text/plain",
				ResponseTopic: "answers",
				CorrelationData: "42",
				UserProperty: [
					["a", "1"],
					["a", "2"],
				],
			};
			client.do("publish", { topic, payload: Buffer.from("x").toString("hex"), qos: 0, properties });
			const events = [await client.expect("published"), await client.expect("message")];
			const { MessageExpiryInterval, ...received } = events[1].properties;
			assert.ok(MessageExpiryInterval > 990);
			const { MessageExpiryInterval: _, ...sent } = properties;
			assert.deepEqual(received, { ...sent, CorrelationData: Buffer.from("42").toString("hex") });
		});
	}
});
