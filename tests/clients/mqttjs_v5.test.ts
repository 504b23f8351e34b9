/** MQTT.js: what only MQTT 5 has, and connections over TLS. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import type { IClientOptions } from "mqtt";
import { createAuthority } from "../support/certificates.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { freshId } from "../support/raw_client.ts";
import { createFolder, suiteServer } from "../support/server_process.ts";
import { freshTopic } from "../support/traffic.ts";

describe("MQTT.js: MQTT 5", () => {
	const server = suiteServer();
	const connect = (t: TestContext, options: IClientOptions = {}) =>
		MqttJsClient.connect(t, server().wsUrl, { protocolVersion: 5, ...options });

	it("CONNACK says what the server can do", async (t) => {
		const { connack } = await connect(t, { properties: { requestResponseInformation: true, requestProblemInformation: true } });
		assert.equal(connack?.reasonCode, 0);
		const { receiveMaximum, topicAliasMaximum, maximumPacketSize, ...available } = connack?.properties ?? {};
		assert.deepEqual([receiveMaximum, topicAliasMaximum, maximumPacketSize], [1000, 32, 1_048_576]);
		for (const feature of ["retainAvailable", "wildcardSubscriptionAvailable", "sharedSubscriptionAvailable"] as const) {
			assert.notEqual(available[feature], false, feature);
		}
	});

	it("properties of a message arrive as they were sent", async (t) => {
		const topic = freshTopic();
		const [publisher, subscriber] = [await connect(t), await connect(t)];
		await subscriber.mqtt.subscribeAsync(topic, { qos: 1, properties: { subscriptionIdentifier: 268_435_455 } });
		const properties = {
			payloadFormatIndicator: true,
			contentType: "text/plain",
			responseTopic: `${topic}/response`,
			correlationData: Buffer.from([0, 1, 254, 255]),
			userProperties: { one: "1", ä: "ö", both: ["first", "second"] },
		};
		await publisher.mqtt.publishAsync(topic, "hello", { qos: 1, properties: { ...properties, messageExpiryInterval: 1000 } });
		const { messageExpiryInterval = 0, subscriptionIdentifier, ...received } = (await subscriber.next()).properties;
		assert.ok(messageExpiryInterval > 990 && messageExpiryInterval <= 1000);
		assert.equal(subscriptionIdentifier, 268_435_455);
		assert.deepEqual({ ...received, userProperties: { ...received.userProperties } }, properties);
	});

	it("request and response work with a response topic and correlation data", async (t) => {
		const topic = freshTopic();
		const [requester, responder] = [await connect(t), await connect(t)];
		await responder.mqtt.subscribeAsync(`${topic}/requests`, { qos: 1 });
		responder.mqtt.on("message", (_, payload, { properties }) => {
			const { responseTopic = "", correlationData } = properties ?? {};
			responder.mqtt.publish(responseTopic, `${payload}?`, { qos: 1, properties: { ...(correlationData && { correlationData }) } });
		});
		await requester.mqtt.subscribeAsync(`${topic}/responses`, { qos: 1 });
		const properties = { responseTopic: `${topic}/responses`, correlationData: Buffer.from("42") };
		await requester.mqtt.publishAsync(`${topic}/requests`, "ready", { qos: 1, properties });
		const response = await requester.next();
		assert.equal(response.text, "ready?");
		assert.equal(response.properties.correlationData?.toString(), "42");
	});

	it("subscription options: No Local, Retain As Published and Retain Handling", async (t) => {
		const topic = freshTopic();
		const [client, other] = [await connect(t), await connect(t)];
		await other.mqtt.publishAsync(`${topic}/kept`, "old", { qos: 1, retain: true });
		await client.mqtt.subscribeAsync(`${topic}/+`, { qos: 1, nl: true, rap: true, rh: 2 });
		await client.mqtt.publishAsync(`${topic}/own`, "own", { qos: 1 });
		await other.mqtt.publishAsync(`${topic}/kept`, "new", { qos: 1, retain: true });
		const { text, retain } = await client.next();
		assert.deepEqual([text, retain], ["new", true]);
		assert.deepEqual(client.waiting, []);
	});

	it("topic aliases of the client stand for its topics", async (t) => {
		const topic = freshTopic();
		const [publisher, subscriber] = [await connect(t, { autoUseTopicAlias: true, autoAssignTopicAlias: true }), await connect(t)];
		await subscriber.mqtt.subscribeAsync(`${topic}/#`, { qos: 1 });
		const topics = Array.from({ length: 100 }, (_, index) => `${topic}/${index % 40}`);
		for (const each of topics) await publisher.mqtt.publishAsync(each, each, { qos: 1 });
		for (const message of await subscriber.take(topics.length)) assert.equal(message.text, message.topic);
	});

	it("topic aliases of the server are resolved by a client that allows them", async (t) => {
		const topic = freshTopic();
		const [publisher, subscriber] = [await connect(t), await connect(t, { properties: { topicAliasMaximum: 4 } })];
		await subscriber.mqtt.subscribeAsync(`${topic}/#`);
		const topics = Array.from({ length: 40 }, (_, index) => `${topic}/${index % 8}`);
		for (const each of topics) await publisher.mqtt.publishAsync(each, each, { qos: 1 });
		for (const message of await subscriber.take(topics.length)) assert.equal(message.text, message.topic);
	});

	it("a Receive Maximum of 1 gets one message after the other", async (t) => {
		const topic = freshTopic();
		const subscriber = await connect(t, { properties: { receiveMaximum: 1 } });
		await subscriber.mqtt.subscribeAsync(topic, { qos: 2 });
		const publisher = await connect(t);
		const all = Array.from({ length: 50 }, (_, index) => `${index}`);
		await Promise.all(all.map((text) => publisher.mqtt.publishAsync(topic, text, { qos: 2 })));
		assert.deepEqual(
			(await subscriber.take(50)).map(({ text }) => text),
			all,
		);
	});

	it("a shared subscription gives each message to one member, and to those that are left", async (t) => {
		const topic = freshTopic();
		const publisher = await connect(t);
		const members = [await connect(t), await connect(t), await connect(t)] as const;
		for (const member of members) await member.mqtt.subscribeAsync(`$share/workers/${topic}`, { qos: 1 });
		const received: string[] = [];
		let all: () => void = () => {};
		for (const { mqtt } of members) {
			mqtt.on("message", (_, payload) => {
				if (received.push(payload.toString()) % 60 === 0) all();
			});
		}
		const publish = async (from: number) => {
			const finished = new Promise<void>((resolve) => {
				all = resolve;
			});
			const numbers = Array.from({ length: 60 }, (_, index) => `${from + index}`);
			await Promise.all(numbers.map((text) => publisher.mqtt.publishAsync(topic, text, { qos: 1 })));
			await finished;
			assert.deepEqual(received.splice(0).sort(), numbers.sort());
		};
		await publish(0);
		for (const member of members) assert.ok(member.waiting.length > 0, "every member got some");
		await members[0].mqtt.endAsync();
		await publish(60);
	});

	it("a will waits for its delay, and is withheld when the client is back before", async (t) => {
		const topic = freshTopic();
		const watcher = await connect(t);
		await watcher.mqtt.subscribeAsync(topic, { qos: 1 });
		const options = (payload: string, willDelayInterval: number): IClientOptions => ({
			clientId: freshId("mqttjs"),
			clean: false,
			properties: { sessionExpiryInterval: 300 },
			will: { topic, payload: Buffer.from(payload), qos: 1, retain: false, properties: { willDelayInterval, contentType: "will" } },
		});
		const back = options("back", 1);
		for (const each of [back, options("gone", 1)]) await (await connect(t, each)).cut();
		await connect(t, back);
		const { text, properties } = await watcher.next();
		assert.deepEqual([text, properties.contentType], ["gone", "will"]);
		assert.deepEqual(watcher.waiting, []);
	});

	it("end() with the reason code 0x04 publishes the will", async (t) => {
		const topic = freshTopic();
		const watcher = await connect(t);
		await watcher.mqtt.subscribeAsync(topic, { qos: 1 });
		const client = await connect(t, { will: { topic, payload: Buffer.from("will"), qos: 1, retain: false } });
		await client.mqtt.endAsync(false, { reasonCode: 0x04 });
		assert.equal((await watcher.next()).text, "will");
	});

	it("a filter that is not valid is refused by itself, with its reason code", async (t) => {
		const topic = freshTopic();
		const client = await connect(t);
		// MQTT.js looks at filters itself, but not at a share name.
		const suback = client.event("packetreceive") as Promise<{ cmd: string; granted: number[] }>;
		await client.mqtt.subscribeAsync([topic, `$share//${topic}`], { qos: 1 }).catch(() => {});
		assert.deepEqual((await suback).granted, [1, 0x8f]);
	});

	it("a message that nobody wants is acknowledged with 0x10", async (t) => {
		const client = await connect(t);
		const puback = client.event("packetreceive") as Promise<{ cmd: string; reasonCode: number }>;
		await client.mqtt.publishAsync(freshTopic(), "for nobody", { qos: 1 });
		const { cmd, reasonCode } = await puback;
		assert.deepEqual([cmd, reasonCode], ["puback", 0x10]);
	});

	it("a takeover is told with DISCONNECT 0x8E", async (t) => {
		const clientId = freshId("mqttjs");
		const first = await connect(t, { clientId });
		const disconnect = first.event("disconnect") as Promise<{ reasonCode: number }>;
		await connect(t, { clientId });
		assert.equal((await disconnect).reasonCode, 0x8e);
	});
});

describe("MQTT.js: TLS", () => {
	const authority = createAuthority();
	const { cert: clientCert, key: clientKey } = authority.client("/O=Example/CN=device-1");
	const server = suiteServer((t) => {
		const folder = createFolder(t);
		const { cert, key } = authority.server();
		const files = { TLS_CERT_FILE: cert, TLS_KEY_FILE: key, TLS_CA_FILE: authority.cert };
		const paths = Object.entries(files).map(([variable, pem]) => {
			const path = join(folder, variable);
			writeFileSync(path, pem);
			return [variable, path];
		});
		return { ...Object.fromEntries(paths), WSS_PORT: "0", MQTT_TLS_PORT: "0", TLS_CLIENT_CERTIFICATE: "require" };
	});
	const wssUrl = () => `wss://localhost:${server().wssPort}/mqtt`;
	const tlsUrl = () => `mqtts://localhost:${server().tlsPort}`;
	const trusting: IClientOptions = { ca: authority.cert, rejectUnauthorized: true };

	for (const protocolVersion of [3, 4, 5] as const) {
		it(`version ${protocolVersion}, wss: a client that trusts the authority publishes and subscribes`, async (t) => {
			const client = await MqttJsClient.connect(t, wssUrl(), { ...trusting, protocolVersion });
			await assertServed(client);
		});

		it(`version ${protocolVersion}, mqtts: a client with a certificate publishes and subscribes`, async (t) => {
			const client = await MqttJsClient.connect(t, tlsUrl(), { ...trusting, protocolVersion, cert: clientCert, key: clientKey });
			await assertServed(client);
		});
	}

	it("mqtts: a client without a certificate, or with one of another authority, does not get in where one is required", async (t) => {
		const stranger = createAuthority("Another CA").client("/CN=stranger");
		for (const certificate of [{}, { cert: stranger.cert, key: stranger.key }]) {
			await assert.rejects(MqttJsClient.connect(t, tlsUrl(), { ...trusting, ...certificate }));
		}
	});

	it("wss and mqtts: a client that does not know the authority does not connect", async (t) => {
		for (const url of [wssUrl(), tlsUrl()]) {
			await assert.rejects(MqttJsClient.connect(t, url, { rejectUnauthorized: true, cert: clientCert, key: clientKey }), /certificate/);
		}
	});

	it("messages pass between ws, wss, mqtt and mqtts", async (t) => {
		const topic = freshTopic();
		const clients = [
			await MqttJsClient.connect(t, server().wsUrl),
			await MqttJsClient.connect(t, wssUrl(), trusting),
			await MqttJsClient.connect(t, server().tcpUrl),
			await MqttJsClient.connect(t, tlsUrl(), { ...trusting, cert: clientCert, key: clientKey }),
		];
		for (const client of clients) await client.mqtt.subscribeAsync(topic, { qos: 2 });
		for (const [index, client] of clients.entries()) await client.mqtt.publishAsync(topic, `${index}`, { qos: 2 });
		for (const client of clients) {
			const texts = (await client.take(clients.length)).map(({ text }) => text);
			assert.deepEqual(texts, ["0", "1", "2", "3"]);
		}
	});

	async function assertServed(client: MqttJsClient): Promise<void> {
		const topic = freshTopic();
		await client.mqtt.subscribeAsync(topic, { qos: 2 });
		const payload = Buffer.alloc(100_000, "TLS records are smaller than this");
		await client.mqtt.publishAsync(topic, payload, { qos: 2 });
		assert.ok(payload.equals((await client.next()).payload));
	}
});
