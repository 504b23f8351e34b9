/** Deadlines of many connections on one interval timer. Coarse by design: a deadline is met up to a quarter of a second late. */

import type { Clock } from "../clock.ts";

const TICK_MS = 250;

/** Something with a deadline. */
export interface Timed {
	/** Tick at which the wheel looks at it next, 0 for none. The wheel's own mark. */
	wheelTick: number;
	/** Called at or after the deadline; may be early by design of the caller, who then schedules again. */
	onTimer(nowMs: number): void;
}

export class TimerWheel {
	readonly #clock: Clock;
	readonly #buckets = new Map<number, Timed[]>();
	#tick = 0;
	#interval: ReturnType<typeof setInterval> | undefined;

	constructor(clock: Clock) {
		this.#clock = clock;
	}

	/** Makes sure that `timed.onTimer` is called soon after `atMs`. A later deadline than the one that stands costs nothing. */
	schedule(timed: Timed, atMs: number): void {
		if (atMs === Number.POSITIVE_INFINITY) return;
		if (this.#interval === undefined) {
			this.#tick = Math.floor(this.#clock.nowMs() / TICK_MS);
			this.#interval = setInterval(() => this.#advance(), TICK_MS);
		}
		const tick = Math.max(Math.ceil(atMs / TICK_MS), this.#tick + 1);
		if (timed.wheelTick !== 0 && timed.wheelTick <= tick) return;
		timed.wheelTick = tick;
		const bucket = this.#buckets.get(tick);
		if (bucket === undefined) this.#buckets.set(tick, [timed]);
		else bucket.push(timed);
	}

	/** Forgets a deadline. */
	cancel(timed: Timed): void {
		timed.wheelTick = 0;
	}

	stop(): void {
		clearInterval(this.#interval);
		this.#interval = undefined;
		this.#buckets.clear();
	}

	#advance(): void {
		const nowMs = this.#clock.nowMs();
		const last = Math.floor(nowMs / TICK_MS);
		// After a long pause it is cheaper to walk the buckets that exist than every tick since.
		const due = [...this.#buckets.keys()].filter((tick) => tick <= last).sort((a, b) => a - b);
		this.#tick = Math.max(this.#tick, last);
		for (const tick of due) {
			const bucket = this.#buckets.get(tick) ?? [];
			this.#buckets.delete(tick);
			for (const timed of bucket) {
				if (timed.wheelTick !== tick) continue;
				timed.wheelTick = 0;
				timed.onTimer(nowMs);
			}
		}
		if (this.#buckets.size === 0) {
			clearInterval(this.#interval);
			this.#interval = undefined;
		}
	}
}
