/** What the parts of the Redis router share. Knows none of the parts. */

import type { Clock } from "../../clock.ts";
import type { Connection } from "../../store/redis/connection.ts";
import type { Format } from "../../store/redis/format.ts";
import type { ReplicaId } from "../router.ts";
import type { RouterKeys } from "./keys.ts";

export interface Context {
	/** For everything that does not wait in Redis: its commands are done in the order in which they are sent. */
	readonly connection: Connection;
	readonly keys: RouterKeys;
	readonly replicaId: ReplicaId;
	/** Name of this start of this process, ASCII without spaces: nobody else has it. */
	readonly process: string;
	readonly clock: Clock;
	readonly format: Format;
	/** Whether what is written must be on another server of Redis too. */
	readonly replicated: boolean;
	/** Something failed that no caller waits for. */
	onError(error: Error): void;
}

/** Calls a task once at the end of the event-loop turn, however often it is asked to. */
export class TurnEnd {
	readonly #task: () => void;
	#scheduled = false;

	constructor(task: () => void) {
		this.#task = task;
	}

	schedule(): void {
		if (this.#scheduled) return;
		this.#scheduled = true;
		setImmediate(this.#run);
	}

	readonly #run = (): void => {
		this.#scheduled = false;
		this.#task();
	};
}
