/** Paho for Python, over its own WebSocket and over TCP: each client is a Python process that `paho_client.py` makes steerable. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Program } from "../support/program.ts";
import { type AnyPacket, freshId } from "../support/raw_client.ts";
import { suiteServer } from "../support/server_process.ts";
import type { Cleanup } from "../support/test_broker.ts";
import { freshTopic } from "../support/traffic.ts";

const SCRIPT = fileURLToPath(new URL("paho_client.py", import.meta.url));
/** Debian's own Python sees Debian's packages; another one that comes first on PATH does not. */
const PYTHON = "/usr/bin/python3";

class PahoClient {
	readonly #program: Program;
	#read = 0;

	constructor(t: Cleanup) {
		this.#program = Program.start(t, PYTHON, [SCRIPT], { interactive: true });
	}

	do(command: string, fields: AnyPacket = {}): void {
		this.#program.write(`${JSON.stringify({ command, ...fields })}\n`);
	}

	/** Waits for the next event, which must be of this kind. */
	async expect(event: string): Promise<AnyPacket> {
		const next = await this.#program.until(`event "${event}"`, () => {
			const end = this.#program.stdout.indexOf("\n", this.#read);
			if (end < 0) return undefined;
			const line = this.#program.stdout.slice(this.#read, end);
			this.#read = end + 1;
			return JSON.parse(line) as AnyPacket;
		});
		assert.equal(next.event, event, JSON.stringify(next));
		return next;
	}

	/** The next event, which must be a message. */
	async message(): Promise<AnyPacket> {
		const { payload, ...message } = await this.expect("message");
		return { ...message, payload: Buffer.from(payload, "hex").toString() };
	}

	async subscribe(topic: string, qos: number): Promise<void> {
		this.do("subscribe", { topic, qos });
		assert.deepEqual((await this.expect("subscribed")).granted, [qos]);
	}

	/** Publishes and waits until Paho says that it is done: for QoS 1 and 2 that is the PUBACK or PUBCOMP. */
	async publish(topic: string, payload: string, qos: number, fields: AnyPacket = {}): Promise<void> {
		this.do("publish", { topic, payload: Buffer.from(payload).toString("hex"), qos, ...fields });
		await this.expect("published");
	}

	async disconnect(): Promise<void> {
		this.do("disconnect");
		await this.expect("disconnected");
	}

	/** Ends the process, and with it the connection, without DISCONNECT. */
	async kill(): Promise<void> {
		await this.#program.kill("SIGKILL");
	}
}

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
