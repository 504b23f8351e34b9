/** `mosquitto_pub` and `mosquitto_sub` as programs that a test runs. */

import assert from "node:assert/strict";
import { type Ended, Program } from "./program.ts";
import type { Cleanup } from "./test_broker.ts";

/** A message as `mosquitto_sub` prints it. */
export interface MosquittoMessage {
	readonly topic: string;
	readonly qos: number;
	readonly retain: number;
	readonly payload: string;
	// biome-ignore lint/suspicious/noExplicitAny: every test looks at other ones
	readonly properties?: any;
}

const MESSAGE = "message ";

/** Runs `mosquitto_pub` to its end, whatever that is. */
export function publish(t: Cleanup, args: readonly string[], input?: string): Promise<Ended> {
	return Program.start(t, "mosquitto_pub", args, input === undefined ? {} : { input }).ended;
}

/** Runs `mosquitto_pub`, which must end well: with QoS 1 and 2 that means that the message was acknowledged. */
export async function publishWell(t: Cleanup, args: readonly string[], input?: string): Promise<void> {
	const { code, stdout, stderr } = await publish(t, args, input);
	assert.equal(code, 0, `mosquitto_pub: ${stdout}${stderr}`);
	assert.equal(stderr, "");
}

export class MosquittoSubscriber {
	readonly program: Program;
	#taken = 0;

	private constructor(t: Cleanup, args: readonly string[]) {
		// Line by line: the C library would keep what is no message until a buffer is full.
		this.program = Program.start(t, "stdbuf", ["-oL", "mosquitto_sub", "-d", "-F", `${MESSAGE}%j`, ...args]);
	}

	/** Starts `mosquitto_sub` and waits for its SUBACK. */
	static async start(t: Cleanup, args: readonly string[]): Promise<MosquittoSubscriber> {
		const subscriber = new MosquittoSubscriber(t, args);
		await subscriber.program.until("SUBACK", () => subscriber.granted);
		return subscriber;
	}

	/** QoS that the SUBACK granted, one for each filter. */
	get granted(): number[] | undefined {
		const line = /^Subscribed \(mid: \d+\): ([\d, ]+)$/m.exec(this.program.stdout);
		return line?.[1]?.split(", ").map(Number);
	}

	/** The next messages, as many as that. */
	take(count: number): Promise<MosquittoMessage[]> {
		return this.program.until(`${count} messages`, () => {
			const { messages } = this;
			if (messages.length < this.#taken + count) return undefined;
			this.#taken += count;
			return messages.slice(this.#taken - count, this.#taken);
		});
	}

	async next(): Promise<MosquittoMessage> {
		return (await this.take(1))[0] as MosquittoMessage;
	}

	/** All that it has got so far. */
	get messages(): MosquittoMessage[] {
		const lines = this.program.stdout.split("\n").slice(0, -1);
		return lines.filter((line) => line.startsWith(MESSAGE)).map((line) => JSON.parse(line.slice(MESSAGE.length)) as MosquittoMessage);
	}
}
