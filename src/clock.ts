/** Time as a parameter: the core gets it as an argument, everything else through this. */
export interface Clock {
	/** Wall-clock time in ms since 1970. */
	nowMs(): number;
}

export const systemClock: Clock = { nowMs: () => Date.now() };
