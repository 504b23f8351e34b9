/**
 * Publishing: the order in which a message reaches the session that sent it, the retained messages and the logs. A publication
 * that must not happen twice (QoS 2, a will) carries a token into every slot, so that it can be repeated after a failure.
 */

import type { PublishRequest, PublishResult } from "../store.ts";
import { StoreError } from "../store.ts";
import type { Context } from "./context.ts";
import type { Deadlines } from "./deadlines.ts";
import type { Logs } from "./logs.ts";
import type { Owned, OwnedSessions } from "./owned.ts";
import type { Retained } from "./retained.ts";
import type { Sessions } from "./sessions.ts";

const DUPLICATE: PublishResult = { appended: [], duplicate: true };

/** How a publication is kept from happening twice. */
interface Once {
	/** Answers the token, or `undefined` when it has happened already. */
	begin(): Promise<string | undefined>;
	/** It has happened everywhere. */
	end(): Promise<unknown>;
	/** It was refused. */
	undo(): Promise<unknown>;
}

export class Publishing {
	readonly #context: Context;
	readonly #logs: Logs;
	readonly #retained: Retained;
	readonly #sessions: Sessions;
	readonly #owned: OwnedSessions;
	readonly #deadlines: Deadlines;
	/** Wills that are being published. */
	readonly #wills = new Map<string, Promise<unknown>>();

	constructor(context: Context, logs: Logs, retained: Retained, sessions: Sessions, owned: OwnedSessions, deadlines: Deadlines) {
		this.#context = context;
		this.#logs = logs;
		this.#retained = retained;
		this.#sessions = sessions;
		this.#owned = owned;
		this.#deadlines = deadlines;
	}

	publish(request: PublishRequest): Promise<PublishResult> {
		const { reserve, willId, name } = request;
		if (reserve !== undefined) {
			const owned = this.#owned.get(reserve.session);
			return this.#alone(owned.reserving, reserve.packetId, () => this.#publish(request, this.#reserving(owned, reserve.packetId)));
		}
		if (willId !== undefined) return this.#alone(this.#wills, willId, () => this.#publish(request, this.#settling(willId)));
		return this.#publish(request, name === undefined ? undefined : named(name));
	}

	/** A repetition that comes while the first is under way shares its fate. */
	#alone<K>(underWay: Map<K, Promise<unknown>>, key: K, publish: () => Promise<PublishResult>): Promise<PublishResult> {
		const first = underWay.get(key);
		if (first !== undefined) return this.#context.calls.run({ logs: () => first.then(() => DUPLICATE) });
		const published = publish();
		const forget = () => underWay.delete(key);
		underWay.set(key, published);
		published.then(forget, forget);
		return published;
	}

	#publish({ message, logs, retain, forward }: PublishRequest, once: Once | undefined): Promise<PublishResult> {
		const record = retain ? this.#retained.encode(message) : undefined;
		let token: string | undefined;
		let revision: number | undefined;
		const set = async (content: Buffer) => {
			if (!repeated()) revision = await refusable(this.#retained.set(message, content, token), once);
		};
		const repeated = () => once !== undefined && token === undefined;
		const early = logs.length === 0 || retain ? undefined : this.#logs.encode(message);
		const entry = () => early ?? this.#logs.encode(revision === undefined ? message : { ...message, revision });
		const append = async (): Promise<PublishResult> => {
			if (repeated()) return DUPLICATE;
			const appended = logs.length === 0 ? [] : await refusable(this.#logs.append(entry(), logs, token), once);
			if (forward === undefined) await once?.end();
			return { appended, duplicate: false, ...(revision !== undefined && { revision }) };
		};
		const goOn = async (result: PublishResult): Promise<PublishResult> => {
			if (result.duplicate) return result;
			await forward?.(result.appended, token, revision);
			await once?.end();
			return result;
		};
		return this.#context.calls.run({
			session:
				once &&
				(async () => {
					token = await once.begin();
				}),
			retained: record && (() => set(record)),
			logs: append,
			after: forward && goOn,
		});
	}

	#reserving(owned: Owned, packetId: number): Once {
		let number = 0;
		return {
			begin: async () => {
				number = await this.#sessions.reservation(owned, packetId, "reserve", "");
				return number === 0 ? undefined : `${owned.incarnation}:${number}`;
			},
			end: () => this.#sessions.reservation(owned, packetId, "done", number),
			undo: () => this.#sessions.reservation(owned, packetId, "free", number),
		};
	}

	#settling(willId: string): Once {
		return {
			begin: async () => ((await this.#deadlines.hasWill(willId)) ? `will:${willId}` : undefined),
			end: () => this.#deadlines.settleWill(willId),
			undo: () => Promise.resolve(),
		};
	}
}

/** It is not noted that it has happened: a repetition does all again, which changes nothing as long as the token is known. */
function named(name: string): Once {
	const token = Promise.resolve(`name:${name}`);
	return { begin: () => token, end: () => token, undo: () => token };
}

/** A refusal is told to the client, which may then use the packet id for another message. */
async function refusable<T>(stored: Promise<T>, once: Once | undefined): Promise<T> {
	try {
		return await stored;
	} catch (error) {
		if (once !== undefined && error instanceof StoreError && error.code === "full") await once.undo();
		throw error;
	}
}
