/**
 * The server's clock as this process knows it. Deadlines are set by the server itself, so that no replica's clock matters;
 * this is for the ids of messages, which need not be exact but must grow, and for telling times that are stored.
 */

import type { Connection } from "./connection.ts";

export class ServerClock {
	readonly #connection: Connection;
	/** Server's µs since 1970 minus µs of this process. */
	#offset = 0;
	#lastId = 0;
	/** What the server said last, in µs since 1970. */
	toldMicros = 0;

	constructor(connection: Connection) {
		this.#connection = connection;
	}

	/** Asks the server for its time; answers it in µs since 1970. */
	async synchronise(): Promise<number> {
		const askedAt = performance.now();
		const [seconds, micros] = (await this.#connection.send("TIME", [])) as [Buffer, Buffer];
		const time = Number(seconds) * 1e6 + Number(micros);
		this.set(time, askedAt);
		return time;
	}

	/** The server has just said its time in µs since 1970. @param askedAt When it was asked, by `performance.now()`. */
	set(time: number, askedAt: number): void {
		this.toldMicros = time;
		this.#offset = time - ((askedAt + performance.now()) / 2) * 1000;
	}

	/** The server's time in ms since 1970, as far as it is known here. */
	nowMs(): number {
		return performance.now() + this.#offset / 1000;
	}

	/** An id for a message: µs since 1970 by the server's clock, greater than every one given before. */
	nextId(): number {
		this.#lastId = Math.max(this.#lastId + 1, Math.floor(performance.now() * 1000 + this.#offset));
		return this.#lastId;
	}
}
