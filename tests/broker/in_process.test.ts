/** The broker as a library: publishing and subscribing within the process, and its app inside a program's own server. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Hono } from "hono";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { createBroker, type Message, type Shoal } from "../../src/shoal.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { type Cleanup, startBroker } from "../support/test_broker.ts";
import { durable, freshTopic, numbers, publishMany, take, takeMany, text } from "../support/traffic.ts";

const MEMORY = { host: "127.0.0.1", port: 0, store: "memory", sysIntervalSeconds: 0 } as const;

/** Collects what a subscription brings, and waits for as many as are due. */
class Collector {
	readonly messages: { readonly topic: string; readonly payload: string; readonly retain: boolean; readonly message: Message }[] = [];
	#wake: () => void = () => {};

	readonly handler = (message: Message, retain: boolean): void => {
		this.messages.push({ topic: message.topic.name, payload: text(message), retain, message });
		this.#wake();
	};

	async payloads(count: number): Promise<string[]> {
		while (this.messages.length < count) {
			await new Promise<void>((resolve) => {
				this.#wake = resolve;
			});
		}
		return this.messages.map(({ payload }) => payload);
	}
}

describe("publishing within the process", () => {
	const broker = suiteBroker();

	for (const qos of [0, 1, 2] as const) {
		test(`publish: a message with QoS ${qos} reaches clients of both kinds, and is stored when the promise resolves`, async () => {
			const topic = freshTopic();
			const online = await RawClient.connect(broker);
			await online.subscribe(topic, { qos: 2, nl: true });
			const session = durable();
			const offline = await RawClient.connect(broker, session);
			await offline.subscribe(topic, { qos: 2 });
			await offline.disconnect();
			await broker.shoal.publish(topic, "größe", { qos });
			await broker.shoal.publish(topic, Uint8Array.of(0, 255), { qos });
			const back = await RawClient.connect(broker, session);
			for (const client of qos > 0 ? [online, back] : [online]) {
				const publications = await takeMany(client, 2);
				assert.deepEqual(
					publications.map(({ payload }) => Buffer.from(payload)),
					[Buffer.from("größe"), Buffer.from([0, 255])],
				);
				for (const publication of publications) {
					assert.deepEqual([publication.topic, publication.qos, publication.retain, publication.dup], [topic, qos, false, false]);
				}
			}
			await back.expectNothing();
		});
	}

	test("publish: a retained message is there for later subscribers and an empty one removes it", async () => {
		const topic = freshTopic();
		await broker.shoal.publish(topic, "kept", { retain: true, expirySeconds: 1_000 });
		const client = await RawClient.connect(broker);
		await client.subscribe(topic, { qos: 1 });
		const { properties } = await take(client, { payload: "kept", retain: true });
		assert.ok(properties.messageExpiryInterval > 900 && properties.messageExpiryInterval <= 1_000);
		await broker.shoal.publish(topic, "", { retain: true, qos: 1 });
		await take(client, { payload: "" });
		await client.subscribe(topic);
		await client.expectNothing();
	});

	for (const topic of ["", "a/#", "a/+/b", "a\0b", "\ud800", "x".repeat(65_536)]) {
		test(`publish: the topic ${JSON.stringify(topic.slice(0, 10))} of ${topic.length} characters is refused with an error that says why`, async () => {
			await assert.rejects(broker.shoal.publish(topic, "x"), { name: "MqttError", message: /^Cannot use the topic name: / });
		});
	}

	test("publish: before the start and after the end nothing can be stored, and the promise says so", async () => {
		const shoal = createBroker(MEMORY);
		await assert.rejects(shoal.publish("a", "x", { retain: true }));
		await shoal.start();
		await shoal.publish("a", "x", { retain: true });
		await shoal.stop();
		await assert.rejects(shoal.publish("a", "x", { retain: true }));
	});
});

describe("subscribing within the process", () => {
	const broker = suiteBroker();

	test("subscribe: retained messages come first, then live ones, each once, and only the former count as retained", async () => {
		const topic = freshTopic();
		const { shoal } = broker;
		for (const level of ["a", "b"]) await shoal.publish(`${topic}/${level}`, `retained ${level}`, { retain: true, qos: 1 });
		const collector = new Collector();
		const subscription = await shoal.subscribe(`${topic}/#`, collector.handler);
		const client = await RawClient.connect(broker);
		for (const qos of [0, 1, 2]) await publishMany(client, () => `${topic}/${qos}`, 1, { qos, retain: qos === 1 });
		await shoal.publish(topic, "own", { retain: true });
		await collector.payloads(6);
		assert.deepEqual(
			collector.messages.map(({ topic: name, payload, retain }) => [name, payload, retain]),
			[
				[`${topic}/a`, "retained a", true],
				[`${topic}/b`, "retained b", true],
				[`${topic}/0`, "0", false],
				[`${topic}/1`, "0", false],
				[`${topic}/2`, "0", false],
				[topic, "own", false],
			],
		);
		assert.deepEqual(
			collector.messages.slice(2, 5).map(({ message }) => [message.qos, message.retain, message.publisher !== ""]),
			[
				[0, false, true],
				[1, true, true],
				[2, false, true],
			],
		);
		subscription.close();
	});

	test("subscribe: several subscriptions get each message once, in order, until each is closed", async () => {
		const topic = freshTopic();
		const first = new Collector();
		const second = new Collector();
		const one = await broker.shoal.subscribe(topic, first.handler);
		const two = await broker.shoal.subscribe(`${topic}/#`, second.handler);
		const client = await RawClient.connect(broker);
		await publishMany(client, () => topic, 100, { qos: 1 });
		assert.deepEqual(await first.payloads(100), numbers(100));
		assert.deepEqual(await second.payloads(100), numbers(100));
		one.close();
		one.close();
		await publishMany(client, () => topic, 1, { qos: 1 });
		assert.equal((await second.payloads(101)).length, 101);
		assert.equal(first.messages.length, 100);
		two.close();
	});

	test("subscribe: a subscription closed from its own handler gets nothing more, not even what was handed out already", async () => {
		const topic = freshTopic();
		const got: string[] = [];
		const subscription = await broker.shoal.subscribe(topic, (message) => {
			got.push(text(message));
			subscription.close();
		});
		const other = new Collector();
		const { close } = await broker.shoal.subscribe(topic, other.handler);
		const client = await RawClient.connect(broker);
		await publishMany(client, () => topic, 10);
		await other.payloads(10);
		assert.deepEqual(got, ["0"]);
		close();
	});

	test("subscribe: a handler may publish, and gets to see that too", async () => {
		const topic = freshTopic();
		const collector = new Collector();
		const subscription = await broker.shoal.subscribe(topic, (message, retain) => {
			collector.handler(message, retain);
			const next = Number(text(message)) + 1;
			if (next < 20) void broker.shoal.publish(topic, `${next}`, { qos: (next % 3) as 0 | 1 | 2 });
		});
		await broker.shoal.publish(topic, "0");
		assert.deepEqual(await collector.payloads(20), numbers(20));
		subscription.close();
	});

	test("subscribe: a handler that throws or rejects ends neither the broker nor its own subscription", async () => {
		const topic = freshTopic();
		const collector = new Collector();
		const failing = await broker.shoal.subscribe(topic, (message, retain) => {
			collector.handler(message, retain);
			throw new Error("the handler fails");
		});
		const rejecting = await broker.shoal.subscribe(topic, async (message, retain) => {
			collector.handler(message, retain);
			throw new Error("the handler fails later");
		});
		const client = await RawClient.connect(broker);
		await client.subscribe(topic, { qos: 1 });
		for (const payload of numbers(2)) {
			await broker.shoal.publish(topic, payload, { qos: 1 });
			await take(client, { payload });
		}
		assert.deepEqual((await collector.payloads(4)).toSorted(), ["0", "0", "1", "1"]);
		failing.close();
		rejecting.close();
	});

	for (const filter of ["", "a/#/b", "a+", "a\0", "$share/g/a", "$share/g"]) {
		test(`subscribe: the filter ${JSON.stringify(filter)} is refused with an error that names it`, async () => {
			await assert.rejects(
				broker.shoal.subscribe(filter, () => {}),
				(error: Error) => error instanceof RangeError && error.message.startsWith(`Cannot subscribe to "${filter}"`),
			);
		});
	}

	test("subscribe: before the start it is refused, and then it is no subscription", async () => {
		const shoal = createBroker(MEMORY);
		const collector = new Collector();
		await assert.rejects(shoal.subscribe("a", collector.handler), { name: "StoreError" });
		await shoal.start();
		const later = new Collector();
		await shoal.subscribe("a", later.handler);
		await shoal.publish("a", "x");
		await later.payloads(1);
		assert.equal(collector.messages.length, 0);
		await shoal.stop();
	});
});

/** The servers of both runtimes, as a program would start them. */
interface Runtimes {
	readonly Bun?: {
		serve(options: {
			hostname: string;
			port: number;
			fetch(request: Request, server: unknown): Response | Promise<Response>;
			websocket: unknown;
		}): { readonly port: number; stop(closeAll: boolean): Promise<void> };
	};
	readonly Deno?: {
		serve(
			options: { hostname: string; port: number; onListen(): void },
			handler: (request: Request, info: unknown) => Response | Promise<Response>,
		): { readonly addr: { readonly port: number }; shutdown(): Promise<void> };
	};
}

/** Serves an app that has the broker's in it; answers the port. */
function serve(t: Cleanup, app: Hono, shoal: Shoal): number {
	const { Bun, Deno } = globalThis as Runtimes;
	const place = { hostname: "127.0.0.1", port: 0 };
	if (Bun !== undefined) {
		const server = Bun.serve({ ...place, fetch: (request, server) => app.fetch(request, { server }), websocket: shoal.websocket });
		t.after(() => server.stop(true));
		return server.port;
	}
	if (Deno === undefined) throw new Error("neither Bun nor Deno");
	const server = Deno.serve({ ...place, onListen: () => {} }, (request, info) => app.fetch(request, { info }));
	t.after(() => server.shutdown());
	return server.addr.port;
}

/** Connects MQTT.js without reconnecting. */
async function connectClient(t: Cleanup, url: string, options: IClientOptions): Promise<MqttClient> {
	const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, clientId: freshId(), ...options });
	t.after(async () => void client.end(true));
	return client;
}

describe("the app in a server of one's own", () => {
	for (const protocolVersion of [3, 4, 5] as const) {
		test(`app: MQTT.js with protocol level ${protocolVersion} works through a Hono app that has the broker's under a prefix`, async (t) => {
			const shoal = createBroker(MEMORY);
			await shoal.start();
			t.after(() => shoal.stop());
			const app = new Hono().get("/", (context) => context.text("the program's own")).route("/deep/broker", shoal.app);
			const port = serve(t, app, shoal);
			const url = `ws://127.0.0.1:${port}/deep/broker/mqtt`;
			const options: IClientOptions = { protocolVersion, ...(protocolVersion === 3 && { protocolId: "MQIsdp" }) };

			const client = await connectClient(t, url, options);
			assert.equal(shoal.connections, 1);
			const received: string[] = [];
			const all = new Promise<void>((resolve) => {
				client.on("message", (topic, payload, { qos, retain }) => {
					received.push(`${topic} ${payload} ${qos} ${retain}`);
					if (received.length === 5) resolve();
				});
			});
			await shoal.publish("in/retained", "from the process", { qos: 1, retain: true });
			await client.subscribeAsync("in/#", { qos: 2 });
			for (const qos of [0, 1, 2] as const) await client.publishAsync("in/own", `${qos}`, { qos });
			await shoal.publish("in/live", "from the process");
			await all;
			assert.deepEqual(received, [
				"in/retained from the process 1 true",
				"in/own 0 0 false",
				"in/own 1 1 false",
				"in/own 2 2 false",
				"in/live from the process 0 false",
			]);

			const own = await fetch(`http://127.0.0.1:${port}/`);
			assert.equal(await own.text(), "the program's own");
			assert.equal((await fetch(`http://127.0.0.1:${port}/deep/broker/readyz`)).status, 200);
			assert.equal((await fetch(`http://127.0.0.1:${port}/readyz`)).status, 404);
			assert.equal((await fetch(`http://127.0.0.1:${port}/mqtt`)).status, 404);

			const closed = new Promise<void>((resolve) => client.once("close", () => resolve()));
			await shoal.stop();
			await closed;
			assert.equal(shoal.connections, 0);
			assert.equal((await fetch(`http://127.0.0.1:${port}/deep/broker/readyz`)).status, 503);
			assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "the program's own");
		});
	}

	test("app: a broker can serve its own port and a foreign app at once, for the same clients", async (t) => {
		const broker = await startBroker(t);
		const port = serve(t, new Hono().route("/x", broker.shoal.app), broker.shoal);
		const through = await connectClient(t, `ws://127.0.0.1:${port}/x/mqtt`, { protocolVersion: 5 });
		const topic = freshTopic();
		const arrived = new Promise<string>((resolve) => through.on("message", (_topic, payload) => resolve(payload.toString())));
		await through.subscribeAsync(topic, { qos: 1 });
		const direct = await connectClient(t, broker.wsUrl, { protocolVersion: 5 });
		await direct.publishAsync(topic, "across", { qos: 1 });
		assert.equal(await arrived, "across");
		assert.equal(broker.shoal.connections, 2);
	});

	test("app: before the start it answers that it is not ready, and refuses clients", async (t) => {
		const shoal = createBroker(MEMORY);
		const port = serve(t, new Hono().route("/broker", shoal.app), shoal);
		assert.equal((await fetch(`http://127.0.0.1:${port}/broker/readyz`)).status, 503);
		assert.equal((await fetch(`http://127.0.0.1:${port}/broker/healthz`)).status, 200);
		await assert.rejects(mqtt.connectAsync(`ws://127.0.0.1:${port}/broker/mqtt`, { reconnectPeriod: 0 }, false));
		await shoal.start();
		t.after(() => shoal.stop());
		assert.equal((await fetch(`http://127.0.0.1:${port}/broker/readyz`)).status, 200);
		await connectClient(t, `ws://127.0.0.1:${port}/broker/mqtt`, {});
	});
});
