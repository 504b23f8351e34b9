/**
 * Clients that can be stopped between any two packets of their QoS 1 and 2 flows, and that go on over another connection as a
 * client with its session kept must. Each step is one packet sent or received. They know the flows and no broker.
 */

import assert from "node:assert/strict";
import { type AnyPacket, freshId, type RawClient } from "./raw_client.ts";
import { numbers, text } from "./traffic.ts";

/** Publications of one flow. */
export const MESSAGES = 3;

/** One client with {@link MESSAGES} messages to send or to receive. */
export abstract class Flow {
	readonly clientId = freshId("steps");
	/** Of its messages, and its filter. */
	readonly topic: string = `steps/${this.clientId}`;
	readonly qos: 1 | 2;
	/** What is to be sent next. */
	protected readonly outgoing: AnyPacket[] = [];

	constructor(qos: 1 | 2) {
		this.qos = qos;
	}

	/** Packets from the beginning to the end, when nothing happens between. */
	get steps(): number {
		return MESSAGES * (this.qos === 1 ? 2 : 4);
	}

	abstract get done(): boolean;
	/** The connection was lost, and this client is back with its session. */
	abstract resume(): void;
	protected abstract take(packet: AnyPacket): void;
	/** Whether to hear more before it sends what it has to send. */
	protected get waits(): boolean {
		return false;
	}

	/** Does so many steps, or all there are. */
	async run(client: RawClient, steps = Number.POSITIVE_INFINITY): Promise<void> {
		for (let step = 0; step < steps && !this.done; step++) {
			if (this.outgoing.length > 0 && !this.waits) client.send(this.outgoing.shift());
			else this.take(await client.receive());
		}
	}

	/** Makes sure that the broker has heard what was sent. What comes meanwhile is taken; answers whether anything came. */
	async ping(client: RawClient): Promise<boolean> {
		client.send({ cmd: "pingreq" });
		let heard = false;
		for (let packet = await client.receive(); packet.cmd !== "pingresp"; packet = await client.receive()) {
			heard = true;
			this.take(packet);
		}
		return heard;
	}

	/** After the end: answers until nothing more comes. */
	async settle(client: RawClient): Promise<void> {
		do for (const packet of this.outgoing.splice(0)) client.send(packet);
		while (await this.ping(client));
	}
}

/** Sends `0`, `1` and `2`, and again what is not acknowledged, when it has to. */
export class Sender extends Flow {
	readonly #states: ("new" | "sent" | "received" | "done")[] = Array.from({ length: MESSAGES }, () => "new" as const);

	constructor(qos: 1 | 2) {
		super(qos);
		for (const index of this.#states.keys()) this.#publish(index, false);
	}

	override get done(): boolean {
		return this.#states.every((state) => state === "done");
	}

	override resume(): void {
		const unsent = this.outgoing.filter(({ cmd, dup }) => cmd === "publish" && !dup).map(({ messageId }) => messageId - 1);
		this.outgoing.length = 0;
		for (const [index, state] of this.#states.entries()) {
			if (state === "received") this.outgoing.push({ cmd: "pubrel", messageId: index + 1 });
			else if (state !== "done") this.#publish(index, !unsent.includes(index));
		}
	}

	protected override take({ cmd, messageId, reasonCode = 0 }: AnyPacket): void {
		// A PUBREL that is repeated finds that its packet id is free: 0x92 says so, and ends the flow.
		assert.ok(cmd === "pubcomp" || reasonCode < 0x80, `${cmd} with reason code ${reasonCode}`);
		const expected = this.qos === 1 ? ["puback"] : ["pubrec", "pubcomp"];
		assert.ok(expected.includes(cmd), `${this.clientId} expected ${expected}, got ${cmd}`);
		if (cmd === "pubrec") {
			this.#states[messageId - 1] = "received";
			this.outgoing.push({ cmd: "pubrel", messageId });
		} else this.#states[messageId - 1] = "done";
	}

	#publish(index: number, dup: boolean): void {
		const { topic, qos } = this;
		this.#states[index] = "sent";
		this.outgoing.push({ cmd: "publish", topic, payload: `${index}`, qos, messageId: index + 1, dup, retain: false });
	}
}

/** Receives `0`, `1` and `2`, and hands each to its application: with QoS 2 once for each packet id in use. */
export class Receiver extends Flow {
	/** What its application got. */
	readonly delivered: string[] = [];
	readonly #inUse = new Map<number, string>();
	readonly #late: boolean;

	/** @param late Hears all messages before it answers the first one, and hears all PUBRELs before it answers one. */
	constructor(qos: 1 | 2, late: boolean) {
		super(qos);
		this.#late = late;
	}

	override get done(): boolean {
		return new Set(this.delivered).size >= MESSAGES && this.outgoing.length === 0 && this.#inUse.size === 0;
	}

	override resume(): void {
		this.outgoing.length = 0;
	}

	/** Takes what comes until this message is there, and answers all of it. */
	async until(client: RawClient, payload: string): Promise<void> {
		while (!this.delivered.includes(payload)) this.take(await client.receive());
		await this.settle(client);
	}

	/** One after the other, and each once; with QoS 1 some again. */
	assertDelivered(expected: readonly string[] = numbers(MESSAGES)): void {
		const got = this.qos === 2 ? this.delivered : [...new Set(this.delivered)];
		assert.deepEqual(got, expected, `${this.clientId} got ${this.delivered}`);
	}

	protected override get waits(): boolean {
		if (!this.#late || new Set(this.delivered).size >= MESSAGES) return false;
		return this.outgoing.every(({ cmd }) => cmd !== "pubcomp");
	}

	protected override take(packet: AnyPacket): void {
		const { cmd, messageId, qos } = packet;
		if (cmd === "pubrel") {
			this.#inUse.delete(messageId);
			this.outgoing.push({ cmd: "pubcomp", messageId });
			return;
		}
		assert.equal(cmd, "publish", `${this.clientId} got ${cmd}`);
		assert.equal(qos, this.qos);
		const payload = text(packet);
		const known = this.#inUse.get(messageId);
		assert.ok(known === undefined || known === payload, `packet id ${messageId} stands for "${known}" and for "${payload}"`);
		if (known === undefined) this.delivered.push(payload);
		if (qos === 2) this.#inUse.set(messageId, payload);
		this.outgoing.push({ cmd: qos === 1 ? "puback" : "pubrec", messageId });
	}
}
