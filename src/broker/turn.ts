/**
 * The end of the event-loop turn: what every connection collected in it leaves then, all at once. One `setImmediate` for
 * all connections, because it runs after the socket events of one poll, and so adds no latency when little happens.
 */

/** Something with work to do at the end of the turn. */
export interface TurnTask {
	/** Whether it is on the list already. The turn's own mark. */
	inTurn: boolean;
	endTurn(): void;
}

export class Turn {
	#tasks: TurnTask[] = [];
	#running: TurnTask[] = [];
	#scheduled = false;

	/** Calls `task.endTurn()` once at the end of this turn. */
	add(task: TurnTask): void {
		if (task.inTurn) return;
		task.inTurn = true;
		this.#tasks.push(task);
		if (this.#scheduled) return;
		this.#scheduled = true;
		setImmediate(this.#end);
	}

	readonly #end = (): void => {
		this.#scheduled = false;
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
