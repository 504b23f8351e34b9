/**
 * The order of calls. A call has up to four steps, each in another part of the data: the session, the retained messages, the
 * logs, and what follows from these elsewhere. A step begins when all earlier calls have begun theirs in that part, and results are told in the order of the calls.
 * So effects have that order everywhere, while the calls of many clients share their round trips.
 */

/** Does its work when called; gets the result of the step before. */
export type Step = (previous: unknown) => Promise<unknown>;

export interface Steps<T> {
	readonly session?: Step | undefined;
	readonly retained?: Step | undefined;
	readonly logs?: ((previous: unknown) => Promise<T>) | undefined;
	/** Gets what `logs` answered, and answers what the call does. */
	readonly after?: ((previous: T) => Promise<T>) | undefined;
}

/** The fifth makes the results as safe as configured. */
const STEPS = 5;

interface Call {
	readonly place: number;
	readonly steps: readonly (Step | undefined)[];
	/** Changes nothing: later calls need not wait for its result. */
	readonly reads: boolean;
	/** The step that is under way or to begin; `STEPS` when all are over. */
	step: number;
	failed: boolean;
	value: unknown;
	readonly resolve: (value: unknown) => void;
	readonly reject: (error: unknown) => void;
}

export class Calls {
	readonly #confirm: Step | undefined;
	/** Calls from place `#base` on. */
	#calls: Call[] = [];
	#base = 0;
	/** For each step, the place of the first call that has not begun it. */
	readonly #next: number[] = new Array(STEPS).fill(0);
	/** Place of the first call that has not been told its result, apart from reads that take longer. */
	#untold = 0;
	#underWay = 0;
	#idle: (() => void)[] = [];

	/** @param confirm Waits, before a result is told, until what was written is as safe as configured. */
	constructor(confirm: (() => Promise<void>) | undefined) {
		this.#confirm = confirm && ((value) => confirm().then(() => value));
	}

	/** Resolves with the result of the last step; rejects with the error of the first that failed, and skips the later ones. */
	run<T>({ session, retained, logs, after }: Steps<T>): Promise<T> {
		return this.#add<T>([session, retained, logs, after as Step | undefined, this.#confirm], false);
	}

	/** Runs one step, of a call that changes nothing. */
	read<T>(part: "retained" | "logs", step: () => Promise<T>): Promise<T> {
		return this.#add<T>(part === "retained" ? [undefined, step] : [undefined, undefined, step], true);
	}

	/** Resolves when no call is under way. */
	idle(): Promise<void> {
		if (this.#underWay === 0) return Promise.resolve();
		return new Promise((resolve) => this.#idle.push(resolve));
	}

	#add<T>(steps: readonly (Step | undefined)[], reads: boolean): Promise<T> {
		return new Promise<T>((resolve, reject) => {
			const place = this.#base + this.#calls.length;
			const call = { place, steps, reads, step: -1, failed: false, value: undefined, resolve: resolve as (value: unknown) => void, reject };
			toNextStep(call);
			this.#calls.push(call);
			this.#underWay++;
			this.#advance();
		});
	}

	#advance(): void {
		const end = this.#base + this.#calls.length;
		for (let step = 0; step < STEPS; step++) {
			let place = this.#next[step] as number;
			for (; place < end; place++) {
				const call = this.#calls[place - this.#base] as Call;
				if (call.steps[step] === undefined || call.step > step) continue;
				if (call.step < step) break;
				this.#begin(call, call.steps[step] as Step);
			}
			this.#next[step] = place;
		}
		this.#tell(end);
	}

	#begin(call: Call, work: Step): void {
		let done: Promise<unknown>;
		try {
			done = work(call.value);
		} catch (error) {
			done = Promise.reject(error);
		}
		done.then(
			(value) => {
				call.value = value;
				toNextStep(call);
				this.#over(call);
			},
			(error) => {
				call.value = error;
				call.failed = true;
				call.step = STEPS;
				this.#over(call);
			},
		);
	}

	/** A step is over. */
	#over(call: Call): void {
		if (call.place < this.#untold) this.#settle(call);
		else this.#advance();
	}

	#tell(end: number): void {
		while (this.#untold < end) {
			const call = this.#calls[this.#untold - this.#base] as Call;
			if (call.step === STEPS) this.#settle(call);
			else if (!call.reads) break;
			this.#untold++;
		}
		const told = this.#untold - this.#base;
		if (told === this.#calls.length || (told > 1024 && told * 2 > this.#calls.length)) {
			this.#calls = this.#calls.slice(told);
			this.#base = this.#untold;
		}
	}

	#settle(call: Call): void {
		if (call.failed) call.reject(call.value);
		else call.resolve(call.value);
		if (--this.#underWay === 0) for (const resolve of this.#idle.splice(0)) resolve();
	}
}

function toNextStep(call: Call): void {
	do call.step++;
	while (call.step < STEPS && call.steps[call.step] === undefined);
}
