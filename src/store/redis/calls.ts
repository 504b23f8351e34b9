/**
 * The order of calls. A call is up to three steps, each a round trip to another part of the data: the session, the retained
 * messages, the logs. A step begins when all earlier calls have begun theirs, and results are told in the order of the calls.
 * So effects have that order in every part, while the calls of many clients share their round trips.
 */

/** Does its work when called; gets the result of the step before. `undefined` at once when there is nothing to do. */
export type Step = (previous: unknown) => Promise<unknown>;

export interface Steps<T> {
	readonly session?: Step | undefined;
	readonly retained?: Step | undefined;
	readonly logs?: ((previous: unknown) => Promise<T>) | undefined;
}

/** The fourth makes the results as safe as configured. */
const STEPS = 4;

interface Call {
	readonly steps: readonly (Step | undefined)[];
	/** Steps that are over. */
	over: number;
	failed: boolean;
	value: unknown;
	readonly resolve: (value: unknown) => void;
	readonly reject: (error: unknown) => void;
}

export class Calls {
	readonly #confirm: Step | undefined;
	#calls: (Call | undefined)[] = [];
	/** Place of the first call that has not been told its result. */
	#head = 0;
	/** For each step, the place of the first call that has not begun it. */
	readonly #next: number[] = new Array(STEPS).fill(0);
	#idle: (() => void)[] = [];

	/** @param confirm Waits, before a result is told, until what was written is as safe as configured. */
	constructor(confirm: (() => Promise<void>) | undefined) {
		this.#confirm = confirm && ((value) => confirm().then(() => value));
	}

	/** Resolves with the result of the last step; rejects with the error of the first that failed, and skips the later ones. */
	run<T>({ session, retained, logs }: Steps<T>): Promise<T> {
		return new Promise<T>((resolve, reject) => {
			const steps = [session, retained, logs, this.#confirm];
			this.#calls.push({ steps, over: 0, failed: false, value: undefined, resolve: resolve as (value: unknown) => void, reject });
			this.#advance();
		});
	}

	/** Resolves when no call is under way. */
	idle(): Promise<void> {
		if (this.#head === this.#calls.length) return Promise.resolve();
		return new Promise((resolve) => this.#idle.push(resolve));
	}

	#advance(): void {
		for (let step = 0; step < STEPS; step++) {
			for (let place = this.#next[step] as number; place < this.#calls.length; place++) {
				const call = this.#calls[place] as Call;
				if (call.over < step) break;
				this.#next[step] = place + 1;
				this.#begin(call, step);
			}
		}
		this.#settle();
	}

	#begin(call: Call, step: number): void {
		const work = call.steps[step];
		if (work === undefined || call.failed) {
			call.over = step + 1;
			return;
		}
		let done: Promise<unknown>;
		try {
			done = work(call.value);
		} catch (error) {
			done = Promise.reject(error);
		}
		done.then(
			(value) => {
				call.value = value;
				call.over = step + 1;
				this.#advance();
			},
			(error) => {
				call.failed = true;
				call.value = error;
				call.over = step + 1;
				this.#advance();
			},
		);
	}

	#settle(): void {
		const calls = this.#calls;
		while (this.#head < calls.length) {
			const call = calls[this.#head] as Call;
			if (call.over < STEPS) break;
			calls[this.#head++] = undefined;
			if (call.failed) call.reject(call.value);
			else call.resolve(call.value);
		}
		if (this.#head === calls.length) {
			this.#forget();
			for (const resolve of this.#idle.splice(0)) resolve();
		} else if (this.#head > 1024 && this.#head * 2 > calls.length) this.#forget();
	}

	/** Places move down by the calls that are over. */
	#forget(): void {
		this.#calls = this.#calls.slice(this.#head);
		for (let step = 0; step < STEPS; step++) this.#next[step] = (this.#next[step] as number) - this.#head;
		this.#head = 0;
	}
}
