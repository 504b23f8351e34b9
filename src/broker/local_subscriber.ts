/** A subscriber within the process: gets messages as calls of a function, without a connection. */

import { allowEverything } from "../auth/anonymous.ts";
import { NOBODY } from "../auth/auth.ts";
import { log } from "../log.ts";
import type { Message } from "../mqtt/message.ts";
import type { AppendedEntry, Delivery } from "../session/effects.ts";
import type { Subscription } from "../session/subscription.ts";
import type { SessionRef } from "../store/store.ts";
import { ClientRights } from "./client_rights.ts";
import type { Publication } from "./publication.ts";
import type { Overlap } from "./receiver.ts";
import type { SubscribingClient } from "./subscribing.ts";

/** @param retain Whether the message was retained before the subscription, rather than published since. */
export type MessageHandler = (message: Message, retain: boolean) => void | Promise<void>;

const logger = log("subscriber");

export class LocalSubscriber implements SubscribingClient {
	readonly clientId = "";
	readonly rights = new ClientRights(allowEverything, undefined, NOBODY, "");
	readonly session: SessionRef = { clientId: "", epoch: "" };
	readonly persistent = false;
	readonly congested = false;
	readonly full = false;
	readonly room = Number.POSITIVE_INFINITY;
	routeMark = 0;
	overlap: Overlap | undefined;
	open = true;
	readonly #handler: MessageHandler;

	constructor(handler: MessageHandler) {
		this.#handler = handler;
	}

	holds(_subscription: Subscription): boolean {
		return this.open;
	}

	async whenRoom(): Promise<boolean> {
		return this.open;
	}

	receiveQos0(publication: Publication, retain: boolean, _subscriptionIds: readonly number[]): void {
		this.#call(publication.message, retain);
	}

	receive({ message, retain }: Delivery): void {
		this.#call(message, retain);
	}

	appended(_message: Message, _entries: readonly AppendedEntry[]): void {
		throw new TypeError("a subscriber within the process reads no logs");
	}

	lookAgain(): void {
		// It reads none.
	}

	/** Not at once: the handler may publish, and routing is in the middle of handing out. What it throws must not end the broker. */
	#call(message: Message, retain: boolean): void {
		Promise.resolve()
			.then(() => (this.open ? this.#handler(message, retain) : undefined))
			.catch((error) => logger.error("A subscriber within the process failed with a message", { topic: message.topic.name, error }));
	}
}
