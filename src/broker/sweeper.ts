/** Does what has fallen due: publishes wills and lets sessions expire. Looks once a second, and at once when told of a will. */

import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { DueWill, Store } from "../store/store.ts";
import { NotStored, type Routing } from "./routing.ts";

const INTERVAL_MS = 1000;
/** Wills published at a time: ten thousand at once must not hold up everybody else. */
const BATCH = 100;

export class Sweeper {
	readonly #store: Store;
	readonly #routing: Routing;
	readonly #clock: Clock;
	readonly #log: Logger;
	#interval: ReturnType<typeof setInterval> | undefined;
	#sweeping = false;
	#again = false;

	constructor(store: Store, routing: Routing, clock: Clock, log: Logger) {
		this.#store = store;
		this.#routing = routing;
		this.#clock = clock;
		this.#log = log;
	}

	start(): void {
		this.#interval = setInterval(this.wake, INTERVAL_MS);
	}

	stop(): void {
		clearInterval(this.#interval);
		this.#interval = undefined;
	}

	/** Looks now. */
	readonly wake = (): void => {
		if (this.#interval === undefined) return;
		this.#again = true;
		if (this.#sweeping) return;
		this.#sweeping = true;
		this.#sweep()
			.catch((error) => this.#log.error("Wills and expired sessions could not be handled", { error }))
			.finally(() => {
				this.#sweeping = false;
			});
	};

	async #sweep(): Promise<void> {
		while (this.#again && this.#interval !== undefined) {
			this.#again = false;
			const { wills, expiredSessions } = await this.#store.due(this.#clock.nowMs(), BATCH);
			await Promise.all(wills.map((will) => this.#publish(will)));
			if (expiredSessions.length > 0) this.#log.debug("Sessions have expired", { count: expiredSessions.length });
			if (wills.length === BATCH || expiredSessions.length === BATCH) this.#again = true;
		}
	}

	async #publish({ id, clientId, message }: DueWill): Promise<void> {
		try {
			await this.#routing.publish(message, { willId: id });
		} catch (error) {
			if (!(error instanceof NotStored) || error.reasonCode !== ReasonCode.quotaExceeded || !message.retain) throw error;
			// There is no room to retain it; those who listen are to hear it all the same.
			this.#log.warn("A will could not be retained", { clientId });
			await this.#routing.publish({ ...message, retain: false }, { willId: id });
		}
	}
}
