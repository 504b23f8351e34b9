/**
 * When the progress of sessions is stored. What somebody waits for goes with this event-loop turn; the rest is gathered for a
 * moment, because losing it in a crash only repeats QoS 1 deliveries, and because a moment's acks are one write.
 */

import type { Turn, TurnTask } from "./turn.ts";

/** Acks of this long are stored together. */
const GATHER_MS = 20;

/** A session with progress to store. */
export interface Checkpointed {
	checkpoint(): void;
}

export class Checkpoints implements TurnTask {
	inTurn = false;
	readonly #turn: Turn;
	readonly #urgent = new Set<Checkpointed>();
	readonly #gathered = new Set<Checkpointed>();
	#timer: ReturnType<typeof setTimeout> | undefined;

	constructor(turn: Turn) {
		this.#turn = turn;
	}

	/** @param urgent Something waits until it is stored. */
	add(session: Checkpointed, urgent: boolean): void {
		if (urgent) {
			this.#gathered.delete(session);
			this.#urgent.add(session);
			this.#turn.add(this);
		} else if (!this.#urgent.has(session)) {
			this.#gathered.add(session);
			this.#timer ??= setTimeout(this.#storeGathered, GATHER_MS);
		}
	}

	/** The session is closed, and stored its progress with that. */
	delete(session: Checkpointed): void {
		this.#urgent.delete(session);
		this.#gathered.delete(session);
	}

	endTurn(): void {
		for (const session of this.#urgent) session.checkpoint();
		this.#urgent.clear();
	}

	stop(): void {
		clearTimeout(this.#timer);
		this.#timer = undefined;
		this.#gathered.clear();
	}

	readonly #storeGathered = (): void => {
		this.#timer = undefined;
		for (const session of this.#gathered) session.checkpoint();
		this.#gathered.clear();
	};
}
