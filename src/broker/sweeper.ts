/** Does what has fallen due: publishes wills and lets sessions expire. Looks once a second, and at once when told of a will. */

import { isTakenBack, type RevocationList } from "../auth/revocations.ts";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { DueWill, Store } from "../store/store.ts";
import { NotStored, type Publish } from "./routing.ts";
import { isAway } from "./until_back.ts";

const INTERVAL_MS = 1000;
/** Wills published at a time: ten thousand at once must not hold up everybody else. */
const BATCH = 100;

export interface SweeperOptions {
	readonly store: Store;
	readonly publish: Publish;
	readonly revocations: RevocationList | undefined;
	readonly clock: Clock;
	readonly log: Logger;
}

export class Sweeper {
	readonly #store: Store;
	readonly #publishMessage: Publish;
	readonly #revocations: RevocationList | undefined;
	readonly #clock: Clock;
	readonly #log: Logger;
	#interval: ReturnType<typeof setInterval> | undefined;
	#sweeping = false;
	#again = false;

	constructor({ store, publish, revocations, clock, log }: SweeperOptions) {
		this.#store = store;
		this.#publishMessage = publish;
		this.#revocations = revocations;
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
			.catch((error) => {
				if (!isAway(error)) this.#log.error("Wills and expired sessions could not be handled", { error });
			})
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
		// Of somebody who may not publish any more the will is not done (P12).
		if (await isTakenBack(this.#revocations, message)) {
			const nothing = { logs: [], retain: false, reserve: undefined, name: undefined, forward: undefined };
			await this.#store.publish({ message, willId: id, ...nothing });
			return;
		}
		try {
			await this.#publishMessage(message, { willId: id });
		} catch (error) {
			if (!(error instanceof NotStored) || error.reasonCode !== ReasonCode.quotaExceeded || !message.retain) throw error;
			// There is no room to retain it; those who listen are to hear it all the same.
			this.#log.warn("A will could not be retained", { clientId });
			await this.#publishMessage({ ...message, retain: false }, { willId: id });
		}
	}
}
