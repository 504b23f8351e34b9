/** How long publications take, of a sample: until their acknowledgement, and until they have left for the receivers here. */

import { type Histogram, Sampler } from "../metrics.ts";
import type { Turn, TurnTask } from "./turn.ts";

/** One publication of so many is measured: reading the clock for each would cost more than its routing. */
const SAMPLED = 16;

export class Latencies implements TurnTask {
	inTurn = false;
	readonly #turn: Turn;
	readonly #toAck: Histogram;
	readonly #toDeliver: Histogram;
	readonly #sampler = new Sampler(SAMPLED);
	/** Publications whose deliveries leave with the end of this turn. */
	#leaving: number[] = [];

	constructor(turn: Turn, toAck: Histogram, toDeliver: Histogram) {
		this.#turn = turn;
		this.#toAck = toAck;
		this.#toDeliver = toDeliver;
	}

	/** When a publication began, for the other methods; 0 for one that is not of the sample. */
	begin(): number {
		return this.#sampler.take() ? performance.now() : 0;
	}

	/** Its receivers here have it in their buffers: after those the turn comes to this. */
	delivered(sinceMs: number): void {
		if (sinceMs === 0) return;
		this.#leaving.push(sinceMs);
		this.#turn.add(this);
	}

	acknowledged(sinceMs: number): void {
		if (sinceMs !== 0) this.#toAck.observe((performance.now() - sinceMs) / 1000);
	}

	endTurn(): void {
		const nowMs = performance.now();
		for (const sinceMs of this.#leaving) this.#toDeliver.observe((nowMs - sinceMs) / 1000);
		this.#leaving.length = 0;
	}
}
