/** MQTT.js as the tests use it: connected, ended with the test, and with what came in a queue that can be waited for. */

import assert from "node:assert/strict";
import mqtt, { type IClientOptions, type IConnackPacket, type IPublishPacket, type MqttClient } from "mqtt";
import { freshId } from "./raw_client.ts";
import type { Cleanup } from "./test_broker.ts";

const TIMEOUT_MS = 10_000;

/** A message as MQTT.js handed it over. */
export interface Received {
	readonly topic: string;
	readonly payload: Buffer;
	readonly text: string;
	readonly qos: number;
	readonly retain: boolean;
	readonly dup: boolean;
	readonly properties: NonNullable<IPublishPacket["properties"]>;
}

export class MqttJsClient {
	/** The client itself, for everything that is not here. */
	readonly mqtt: MqttClient;
	/** The last CONNACK. */
	connack: IConnackPacket | undefined;
	readonly #received: Received[] = [];
	#wake: () => void = () => {};

	private constructor(client: MqttClient) {
		this.mqtt = client;
		client.on("connect", (connack) => {
			this.connack = connack;
		});
		client.on("message", (topic, payload, { qos, retain, dup, properties = {} }) => {
			this.#received.push({ topic, payload, text: payload.toString(), qos, retain, dup, properties });
			this.#wake();
		});
		// Without a listener an error would end the test run; what it means shows in what does not come.
		client.on("error", () => {});
	}

	/** Connects, or rejects with the first error. Does not reconnect unless told to. */
	static async connect(t: Cleanup, url: string, options: IClientOptions = {}): Promise<MqttJsClient> {
		const client = MqttJsClient.open(t, url, options);
		await within(
			"CONNACK",
			new Promise<void>((resolve, reject) => {
				client.mqtt.once("connect", () => resolve());
				client.mqtt.once("error", reject);
				client.mqtt.once("close", () => reject(new Error("the connection was closed before the CONNACK")));
			}),
		);
		return client;
	}

	/** Begins to connect. */
	static open(t: Cleanup, url: string, options: IClientOptions = {}): MqttJsClient {
		const { protocolVersion } = options;
		const client = mqtt.connect(url, {
			clientId: freshId("mqttjs"),
			reconnectPeriod: 0,
			...(protocolVersion === 3 && { protocolId: "MQIsdp" }),
			...options,
		});
		t.after(() => new Promise<void>((resolve) => client.end(true, {}, () => resolve())));
		return new MqttJsClient(client);
	}

	/** The next message. Fails when none comes. */
	async next(): Promise<Received> {
		if (this.#received.length === 0) {
			await within(
				"a message",
				new Promise<void>((resolve) => {
					this.#wake = resolve;
				}),
			);
		}
		return this.#received.shift() as Received;
	}

	/** The next messages, as many as that. */
	async take(count: number): Promise<Received[]> {
		const messages: Received[] = [];
		while (messages.length < count) messages.push(await this.next());
		return messages;
	}

	/** Messages that came and were not asked for. */
	get waiting(): readonly Received[] {
		return this.#received;
	}

	/** The next event of this name, with its first argument. */
	event(name: string): Promise<unknown> {
		return within(`event "${name}"`, new Promise((resolve) => this.mqtt.once(name as "close", (first?: unknown) => resolve(first))));
	}

	/** Loses the connection as a broken network would. */
	async cut(): Promise<void> {
		const closed = this.event("close");
		this.mqtt.stream.destroy();
		await closed;
	}
}

/** Fails when something takes longer than anything in these tests should. */
async function within<T>(what: string, promise: Promise<T>): Promise<T> {
	let timer: ReturnType<typeof setTimeout> | undefined;
	const late = new Promise<never>((_, reject) => {
		timer = setTimeout(
			() => reject(new assert.AssertionError({ message: `${what} did not come within ${TIMEOUT_MS / 1000} s` })),
			TIMEOUT_MS,
		);
	});
	try {
		return await Promise.race([promise, late]);
	} finally {
		clearTimeout(timer);
	}
}
