/**
 * The end of the event-loop turn: what every connection collected in it leaves then, all at once. One `setImmediate` for
 * all connections, because it runs after the socket events of one poll, and so adds no latency when little happens.
 */

import type { Clock } from "../clock.ts";

/** Something with work to do at the end of the turn. */
export interface TurnTask {
	/** Whether it is on the list already. The turn's own mark. */
	inTurn: boolean;
	endTurn(): void;
}

export class Turn implements Clock {
	readonly #clock: Clock;
	/** Time of this turn, 0 until somebody asks. */
	#nowMs = 0;
	#tasks: TurnTask[] = [];
	#running: TurnTask[] = [];
	#scheduled = false;

	constructor(clock: Clock) {
		this.#clock = clock;
	}

	/** The time when it was first asked for in this turn: asking the system for every packet would cost more than the packet's routing. */
	nowMs(): number {
		if (this.#nowMs === 0) {
			this.#nowMs = this.#clock.nowMs();
			this.#schedule();
		}
		return this.#nowMs;
	}

	/** Calls `task.endTurn()` once at the end of this turn. */
	add(task: TurnTask): void {
		if (task.inTurn) return;
		task.inTurn = true;
		this.#tasks.push(task);
		this.#schedule();
	}

	#schedule(): void {
		if (this.#scheduled) return;
		this.#scheduled = true;
		setImmediate(this.#end);
	}

	readonly #end = (): void => {
		this.#scheduled = false;
		this.#nowMs = 0;
		const tasks = this.#tasks;
		this.#tasks = this.#running;
		this.#running = tasks;
		for (const task of tasks) {
			task.inTurn = false;
			task.endTurn();
		}
		tasks.length = 0;
	};
}
