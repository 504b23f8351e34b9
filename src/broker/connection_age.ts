/**
 * Sends connections away that have become old, each at a time of its own: after more replicas have come, clients that stay
 * connected for weeks would never be spread over them. Knows only when each is old.
 */

import type { Clock } from "../clock.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Timed, TimerWheel } from "./timer_wheel.ts";

/** Ages differ by this part of the configured one, so that who came together does not go together. */
const JITTER = 0.2;

/** What becomes old. */
export interface Ageing {
	end(reasonCode: ReasonCode, reason: string): void;
}

class Age implements Timed {
	wheelTick = 0;
	readonly #ageing: Ageing;

	constructor(ageing: Ageing) {
		this.#ageing = ageing;
	}

	onTimer(): void {
		// As at a restart, which clients know how to take: they come back, and find any replica (P7).
		this.#ageing.end(ReasonCode.serverShuttingDown, "the connection is as old as it may get: connect again");
	}
}

export class ConnectionAge {
	readonly #wheel: TimerWheel;
	readonly #clock: Clock;
	readonly #maxMs: number;
	readonly #ages = new Map<Ageing, Age>();

	/** @param maxMs 0: nothing ever becomes old. */
	constructor(wheel: TimerWheel, clock: Clock, maxMs: number) {
		this.#wheel = wheel;
		this.#clock = clock;
		this.#maxMs = maxMs;
	}

	/** It is new. */
	begin(ageing: Ageing): void {
		if (this.#maxMs === 0) return;
		const age = new Age(ageing);
		this.#ages.set(ageing, age);
		this.#wheel.schedule(age, this.#clock.nowMs() + this.#maxMs * (1 - JITTER + 2 * JITTER * Math.random()));
	}

	/** It is gone. */
	end(ageing: Ageing): void {
		const age = this.#ages.get(ageing);
		if (age === undefined) return;
		this.#ages.delete(ageing);
		this.#wheel.cancel(age);
	}
}
