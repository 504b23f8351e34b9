/**
 * A subscriber that takes what comes, whatever it is and for as long as it lasts, and completes every flow: for tests that
 * look at what has arrived in the end. QoS 2 is counted once for each packet id in use, as an application would see it.
 */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { type AnyPacket, type ConnectOptions, RawClient, type Target } from "./raw_client.ts";

const PATIENCE_MS = 20_000;

/** A message as it arrived. */
export interface Collected {
	readonly topic: string;
	readonly text: string;
	readonly qos: number;
	readonly retain: boolean;
	readonly dup: boolean;
}

export class Collector {
	readonly client: RawClient;
	/** All that has come, in its order. */
	readonly messages: Collected[] = [];
	/** Reason code of the DISCONNECT that came. */
	disconnected: number | undefined;
	readonly #inUse = new Set<number>();
	readonly #answers = new Map<number, (packet: AnyPacket) => void>();
	#packetId = 0;
	readonly #ended: Promise<void>;

	constructor(client: RawClient) {
		this.client = client;
		this.#ended = this.#run();
	}

	static async connect(target: Target, options: ConnectOptions = {}): Promise<Collector> {
		return new Collector(await RawClient.connect(target, options));
	}

	/** Subscribes and answers the SUBACK. */
	subscribe(topic: string, options: AnyPacket = {}): Promise<AnyPacket> {
		const messageId = ++this.#packetId;
		const subscription = { topic, qos: 0, nl: false, rap: false, rh: 0, ...options };
		this.client.send({ cmd: "subscribe", messageId, subscriptions: [subscription] });
		return this.#answer("SUBACK", messageId);
	}

	unsubscribe(topic: string): Promise<AnyPacket> {
		const messageId = ++this.#packetId;
		this.client.send({ cmd: "unsubscribe", messageId, unsubscriptions: [topic] });
		return this.#answer("UNSUBACK", messageId);
	}

	/** Texts of what has come, of one topic when it is given. */
	texts(topic?: string): string[] {
		return this.messages.filter((message) => topic === undefined || message.topic === topic).map(({ text }) => text);
	}

	/** Waits until so many messages have come. Fails when they do not come, or the connection goes. */
	async until(count: number): Promise<void> {
		await this.wait(`${count} messages, of which ${this.messages.length} are there`, () => this.messages.length >= count);
	}

	async wait(what: string, ready: () => boolean): Promise<void> {
		const deadline = Date.now() + PATIENCE_MS;
		while (!ready()) {
			assert.ok(!this.client.closed, `the connection was closed before ${what}`);
			assert.ok(Date.now() < deadline, `waited too long for ${what}; ${this.messages.length} messages came`);
			await sleep(5);
		}
	}

	/** Leaves without DISCONNECT. */
	async destroy(): Promise<void> {
		await this.client.destroy();
		await this.#ended;
	}

	/** Leaves in order. */
	async leave(): Promise<void> {
		await this.client.disconnect();
		await this.#ended;
	}

	async #answer(what: string, messageId: number): Promise<AnyPacket> {
		let answer: AnyPacket;
		this.#answers.set(messageId, (packet) => {
			answer = packet;
		});
		await this.wait(what, () => answer !== undefined);
		return answer;
	}

	async #run(): Promise<void> {
		for (;;) {
			let packet: AnyPacket;
			try {
				packet = await this.client.receive();
			} catch {
				// Either nothing came for some time, or nothing will.
				if (this.client.closed) return;
				continue;
			}
			this.#take(packet);
		}
	}

	#take({ cmd, messageId, ...packet }: AnyPacket): void {
		if (cmd === "publish") {
			const { topic, qos, retain, dup } = packet;
			if (qos < 2 || !this.#inUse.has(messageId)) this.messages.push({ topic, qos, retain, dup, text: packet.payload.toString() });
			if (qos === 2) this.#inUse.add(messageId);
			if (qos > 0) this.client.send({ cmd: qos === 1 ? "puback" : "pubrec", messageId });
		} else if (cmd === "pubrel") {
			this.#inUse.delete(messageId);
			this.client.send({ cmd: "pubcomp", messageId });
		} else if (cmd === "disconnect") this.disconnected = packet.reasonCode;
		else if (cmd === "suback" || cmd === "unsuback") {
			this.#answers.get(messageId)?.({ cmd, ...packet });
			this.#answers.delete(messageId);
		}
	}
}
