/** Limits how many publications a client makes per second, with a burst. Time comes as an argument. */

export class TokenBucket {
	readonly #perMs: number;
	readonly #burst: number;
	#tokens: number;
	#filledAtMs: number;

	/** @param rate Tokens per second. @param burst Tokens at most; 0 means as many as one second brings. */
	constructor(rate: number, burst: number, nowMs: number) {
		this.#perMs = rate / 1000;
		this.#burst = burst > 0 ? burst : Math.max(1, rate);
		this.#tokens = this.#burst;
		this.#filledAtMs = nowMs;
	}

	/** Takes one token; false when there is none. */
	take(nowMs: number): boolean {
		if (nowMs > this.#filledAtMs) {
			this.#tokens = Math.min(this.#burst, this.#tokens + (nowMs - this.#filledAtMs) * this.#perMs);
			this.#filledAtMs = nowMs;
		}
		if (this.#tokens < 1) return false;
		this.#tokens--;
		return true;
	}
}
