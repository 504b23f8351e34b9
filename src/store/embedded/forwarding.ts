/**
 * Publications to which something belongs that is outside the file (`PublishRequest.forward`): stored first, then forwarded,
 * then done. Knows which are between these steps, so that a repetition goes on where the first has failed, and nothing of
 * what is stored. What a crash leaves between the steps is published again by whoever has no answer yet.
 */

import type { PublishRequest, PublishResult } from "../store.ts";
import type { GroupCommit } from "./group_commit.ts";

const DUPLICATE: PublishResult = { appended: [], duplicate: true };

/** A publication that is stored and not forwarded yet. */
interface Unfinished {
	readonly token: string;
	readonly result: PublishResult;
	underWay: Promise<PublishResult> | undefined;
}

/** What the store does of it. */
export interface ForwardedSteps {
	/** Stores the message where it belongs, in the group at hand. */
	store(): PublishResult;
	/** All of it has happened: notes that it is not to happen again. */
	end(): Promise<void>;
}

export class Forwarding {
	readonly #group: GroupCommit;
	readonly #unfinished = new Map<string, Unfinished>();
	#count = 0;

	constructor(group: GroupCommit) {
		this.#group = group;
	}

	/** @param key Names a publication that is to happen once. */
	publish(key: string | undefined, forward: NonNullable<PublishRequest["forward"]>, steps: ForwardedSteps): Promise<PublishResult> {
		const known = key === undefined ? undefined : this.#unfinished.get(key);
		if (known?.underWay !== undefined) return known.underWay.then(() => DUPLICATE);
		const result = known?.result ?? steps.store();
		// Also for what is committed already: what was called before is to be forwarded before.
		const stored = this.#group.join(result);
		if (key === undefined) return stored.then(() => forward(result.appended, undefined, undefined)).then(() => result);
		const unfinished = known ?? { token: `${++this.#count} ${key}`, result, underWay: undefined };
		this.#unfinished.set(key, unfinished);
		const published = this.#finish(key, unfinished, stored, forward, steps);
		unfinished.underWay = published;
		return published;
	}

	async #finish(
		key: string,
		unfinished: Unfinished,
		stored: Promise<PublishResult>,
		forward: NonNullable<PublishRequest["forward"]>,
		{ end }: ForwardedSteps,
	): Promise<PublishResult> {
		try {
			await stored;
		} catch (error) {
			this.#unfinished.delete(key);
			throw error;
		}
		try {
			await forward(unfinished.result.appended, unfinished.token, undefined);
			await end();
		} catch (error) {
			unfinished.underWay = undefined;
			throw error;
		}
		this.#unfinished.delete(key);
		return unfinished.result;
	}
}
