/** Paho for Python as a process that `paho_client.py` makes steerable: commands go in, events come out in order. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Program } from "./program.ts";
import type { AnyPacket } from "./raw_client.ts";
import type { Cleanup } from "./test_broker.ts";

const SCRIPT = fileURLToPath(new URL("../clients/paho_client.py", import.meta.url));
/** Debian's own Python sees Debian's packages; another one that comes first on PATH does not. */
const PYTHON = "/usr/bin/python3";

/** One client of Paho. */
export class PahoClient {
	readonly #program: Program;
	#read = 0;

	constructor(t: Cleanup) {
		this.#program = Program.start(t, PYTHON, [SCRIPT], { interactive: true });
	}

	/** Gives a command of `paho_client.py`; its events are for `expect`. */
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
