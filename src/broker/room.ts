/** Who waits until a client can take more. */

export class RoomWaiters {
	/** Made when somebody waits: most connections never have any. */
	#waiting: ((open: boolean) => void)[] | undefined;

	/** Resolves with what `tell` is called with next. */
	wait(): Promise<boolean> {
		return new Promise((resolve) => {
			this.#waiting ??= [];
			this.#waiting.push(resolve);
		});
	}

	/** @param open False: the connection is gone, and there will be no room. */
	tell(open: boolean): void {
		const waiting = this.#waiting;
		this.#waiting = undefined;
		for (const resolve of waiting ?? []) resolve(open);
	}
}
