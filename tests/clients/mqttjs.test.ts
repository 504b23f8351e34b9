/** MQTT.js, every protocol version over both of its transports, against the server as a process. For MQTT 5 alone: `mqttjs_v5.test.ts`. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { IClientOptions } from "mqtt";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { freshId } from "../support/raw_client.ts";
import { suiteServer } from "../support/server_process.ts";
import { freshTopic } from "../support/traffic.ts";

const VERSIONS = [
	{ protocolVersion: 3, name: "3.1" },
	{ protocolVersion: 4, name: "3.1.1" },
	{ protocolVersion: 5, name: "5.0" },
] as const;

const BINARY = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));

describe("MQTT.js", () => {
	const server = suiteServer();

	for (const transport of ["ws", "mqtt"] as const) {
		for (const { protocolVersion, name } of VERSIONS) {
			const title = `MQTT ${name}, ${transport}:`;
			const url = () => (transport === "ws" ? server().wsUrl : server().tcpUrl);
			const connect = (t: Parameters<typeof MqttJsClient.connect>[0], options: IClientOptions = {}) =>
				MqttJsClient.connect(t, url(), { protocolVersion, ...options });
			/** Options of a session that outlives its connection. */
			const durable = (): IClientOptions => ({
				clientId: freshId("mqttjs"),
				clean: false,
				...(protocolVersion === 5 && { properties: { sessionExpiryInterval: 300 } }),
			});

			it(`${title} messages of every QoS arrive whole, at the lesser QoS of both sides`, async (t) => {
				const topic = freshTopic();
				const [publisher, subscriber] = [await connect(t), await connect(t)];
				for (const qos of [0, 1, 2] as const) {
					const [granted] = await subscriber.mqtt.subscribeAsync(`${topic}/${qos}/+`, { qos });
					assert.equal(granted?.qos, qos);
				}
				for (const granted of [0, 1, 2] as const) {
					for (const qos of [0, 1, 2] as const) {
						await publisher.mqtt.publishAsync(`${topic}/${granted}/x`, BINARY, { qos });
						const { payload, ...message } = await subscriber.next();
						assert.deepEqual([message.topic, message.qos, message.retain], [`${topic}/${granted}/x`, Math.min(qos, granted), false]);
						assert.deepEqual(Buffer.from(payload), BINARY);
					}
				}
			});

			it(`${title} a payload of 200 KB and an empty one arrive whole`, async (t) => {
				const topic = freshTopic();
				const client = await connect(t);
				await client.mqtt.subscribeAsync(topic, { qos: 2 });
				const large = Buffer.alloc(200_000, BINARY);
				for (const payload of [large, Buffer.alloc(0)]) {
					await client.mqtt.publishAsync(topic, payload, { qos: 2 });
					assert.ok(payload.equals((await client.next()).payload));
				}
			});

			it(`${title} a thousand messages of QoS 1 and 2 arrive once and in order`, async (t) => {
				const topic = freshTopic();
				const [publisher, subscriber] = [await connect(t), await connect(t)];
				await subscriber.mqtt.subscribeAsync(topic, { qos: 2 });
				const all = Array.from({ length: 1000 }, (_, index) => index);
				await Promise.all(all.map((index) => publisher.mqtt.publishAsync(topic, `${index}`, { qos: index % 2 === 0 ? 1 : 2 })));
				const messages = await subscriber.take(1000);
				for (const qos of [1, 2]) {
					const got = messages.filter((message) => message.qos === qos).map((message) => Number(message.text));
					assert.deepEqual(
						got,
						all.filter((index) => (index % 2 === 0 ? 1 : 2) === qos),
					);
				}
			});

			it(`${title} a retained message comes with the subscription, until it is cleared`, async (t) => {
				const topic = freshTopic();
				const publisher = await connect(t);
				await publisher.mqtt.publishAsync(topic, "kept", { qos: 1, retain: true });
				const first = await connect(t);
				await first.mqtt.subscribeAsync(topic, { qos: 1 });
				const { text, retain } = await first.next();
				assert.deepEqual([text, retain], ["kept", true]);

				await publisher.mqtt.publishAsync(topic, "", { qos: 1, retain: true });
				assert.equal((await first.next()).retain, false);
				const second = await connect(t);
				await second.mqtt.subscribeAsync(topic, { qos: 1 });
				await publisher.mqtt.publishAsync(topic, "live", { qos: 1 });
				assert.equal((await second.next()).text, "live");
			});

			it(`${title} a will is published when the connection is lost, and not after end()`, async (t) => {
				const topic = freshTopic();
				const watcher = await connect(t);
				await watcher.mqtt.subscribeAsync(topic, { qos: 1 });
				const will = (payload: string) => ({ will: { topic, payload: Buffer.from(payload), qos: 1 as const, retain: false } });
				await (await connect(t, will("ended"))).mqtt.endAsync();
				await (await connect(t, will("lost"))).cut();
				assert.equal((await watcher.next()).text, "lost");
			});

			it(`${title} a persistent session gets what was published while it was away`, async (t) => {
				const topic = freshTopic();
				const options = durable();
				const first = await connect(t, options);
				await first.mqtt.subscribeAsync(topic, { qos: 2 });
				await first.mqtt.endAsync();
				const publisher = await connect(t);
				for (const qos of [1, 2] as const) await publisher.mqtt.publishAsync(topic, `QoS ${qos}`, { qos });

				const second = MqttJsClient.open(t, url(), { protocolVersion, ...options });
				const messages = await second.take(2);
				if (protocolVersion > 3) assert.equal(second.connack?.sessionPresent, true);
				assert.deepEqual(messages.map(({ text }) => text).sort(), ["QoS 1", "QoS 2"]);
				// The session is the same one: its subscription still stands.
				await publisher.mqtt.publishAsync(topic, "live", { qos: 1 });
				assert.equal((await second.next()).text, "live");
			});

			it(`${title} a clean session finds nothing of an earlier one`, async (t) => {
				const topic = freshTopic();
				const options = durable();
				const first = await connect(t, options);
				await first.mqtt.subscribeAsync(topic, { qos: 1 });
				await first.mqtt.endAsync();
				const publisher = await connect(t);
				await publisher.mqtt.publishAsync(topic, "missed", { qos: 1 });
				const second = await connect(t, { ...options, clean: true });
				if (protocolVersion > 3) assert.equal(second.connack?.sessionPresent, false);
				await second.mqtt.subscribeAsync(topic, { qos: 1 });
				await publisher.mqtt.publishAsync(topic, "live", { qos: 1 });
				assert.equal((await second.next()).text, "live");
			});

			it(`${title} after unsubscribe nothing more comes`, async (t) => {
				const topic = freshTopic();
				const client = await connect(t);
				await client.mqtt.subscribeAsync({ [`${topic}/a`]: { qos: 1 }, [`${topic}/b`]: { qos: 1 } });
				await client.mqtt.unsubscribeAsync(`${topic}/a`);
				await client.mqtt.publishAsync(`${topic}/a`, "no", { qos: 1 });
				await client.mqtt.publishAsync(`${topic}/b`, "yes", { qos: 1 });
				assert.equal((await client.next()).text, "yes");
				assert.deepEqual(client.waiting, []);
			});

			it(`${title} it reconnects by itself, resubscribes, and sends what was published meanwhile`, async (t) => {
				const topic = freshTopic();
				const observer = await connect(t);
				await observer.mqtt.subscribeAsync(`${topic}/meanwhile`, { qos: 2 });
				const client = await connect(t, { reconnectPeriod: 20 });
				await client.mqtt.subscribeAsync(`${topic}/back`, { qos: 2 });
				for (let round = 0; round < 3; round++) {
					const reconnected = client.event("connect");
					await client.cut();
					const published = client.mqtt.publishAsync(`${topic}/meanwhile`, `${round}`, { qos: 2 });
					await reconnected;
					await published;
					assert.equal((await observer.next()).text, `${round}`);
					await client.mqtt.publishAsync(`${topic}/back`, `${round}`, { qos: 2 });
					assert.equal((await client.next()).text, `${round}`);
				}
				assert.deepEqual([...observer.waiting, ...client.waiting], []);
			});

			it(`${title} a second client with the same id takes the place of the first`, async (t) => {
				const clientId = freshId("mqttjs");
				const first = await connect(t, { clientId });
				const closed = first.event("close");
				const second = await connect(t, { clientId });
				await closed;
				assert.equal(second.mqtt.connected, true);
			});
		}
	}

	it("every version, both transports: PINGREQ keeps a connection past one and a half times its keep alive", async (t) => {
		const urls = [server().wsUrl, server().tcpUrl];
		const pings = urls.flatMap((url) =>
			VERSIONS.map(async ({ protocolVersion }) => {
				const client = await MqttJsClient.connect(t, url, { protocolVersion, keepalive: 1 });
				for (let i = 0; i < 3; i++) assert.equal(((await client.event("packetreceive")) as { cmd: string }).cmd, "pingresp");
				assert.equal(client.mqtt.connected, true);
			}),
		);
		await Promise.all(pings);
	});

	for (const transport of ["ws", "mqtt"] as const) {
		for (const { protocolVersion, name } of VERSIONS.slice(1)) {
			it(`MQTT ${name}, ${transport}: an empty client id with a user name and no password is let in and served`, async (t) => {
				const topic = freshTopic();
				const url = transport === "ws" ? server().wsUrl : server().tcpUrl;
				// What the types do not allow and examples do.
				const password = null as unknown as string;
				const client = await MqttJsClient.connect(t, url, { protocolVersion, clientId: "", username: "anything", password });
				if (protocolVersion === 5) assert.ok((client.connack?.properties?.assignedClientIdentifier ?? "").length > 0);
				await client.mqtt.subscribeAsync(topic);
				await client.mqtt.publishAsync(topic, "served");
				assert.equal((await client.next()).text, "served");
			});
		}
	}
});
