/** What a socket tells its handler, kept for tests to look at and to wait for. */

import type { SocketHandler } from "../../src/transport/socket.ts";

const HANG_MS = 20_000;

/** Records what a socket tells, and lets tests wait for it. */
export class RecordingHandler implements SocketHandler {
	readonly chunks: Uint8Array[] = [];
	readonly events: ("data" | "text" | "drain" | "close")[] = [];
	bytes = 0;
	#wakeUp: (() => void)[] = [];

	onData(bytes: Uint8Array): void {
		this.chunks.push(bytes);
		this.bytes += bytes.length;
		this.#happened("data");
	}

	onText(): void {
		this.#happened("text");
	}

	onDrain(): void {
		this.#happened("drain");
	}

	onClose(): void {
		this.#happened("close");
	}

	count(event: "data" | "text" | "drain" | "close"): number {
		return this.events.filter((one) => one === event).length;
	}

	/** All data in one. */
	data(): Buffer {
		return Buffer.concat(this.chunks);
	}

	/** Settles when the condition holds; looks again after each event. */
	until(what: string, condition: () => boolean): Promise<void> {
		const wait = async () => {
			while (!condition()) await new Promise<void>((resolve) => this.#wakeUp.push(resolve));
		};
		return within(wait(), what);
	}

	#happened(event: "data" | "text" | "drain" | "close"): void {
		this.events.push(event);
		for (const wake of this.#wakeUp.splice(0)) wake();
	}
}

/** Fails with a sentence instead of hanging for ever. */
export async function within<T>(promise: Promise<T>, what: string): Promise<T> {
	let timer: ReturnType<typeof setTimeout> | undefined;
	const hung = new Promise<never>((_, reject) => {
		timer = setTimeout(() => reject(new Error(`waited too long for: ${what}`)), HANG_MS);
	});
	try {
		return await Promise.race([promise, hung]);
	} finally {
		clearTimeout(timer);
	}
}
