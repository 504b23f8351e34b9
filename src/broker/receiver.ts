/** Whoever gets messages: a connection, or a subscriber within the process. What routing may ask of it, and nothing more. */

import type { Message } from "../mqtt/message.ts";
import type { AppendedEntry, Delivery } from "../session/effects.ts";
import type { Publication } from "./publication.ts";

export interface Receiver {
	readonly clientId: string;
	/** Whether it should be spared QoS 0 of share groups while others can take it. */
	readonly congested: boolean;
	/** How many more deliveries of QoS ≥ 1 it could take at once. */
	readonly room: number;
	/** Routing's own: the last routing step that reached this receiver, and what overlapping subscriptions add up to in it. */
	routeMark: number;
	overlap: Overlap | undefined;
	/** Takes a message with QoS 0, or drops it when it cannot keep up. */
	receiveQos0(publication: Publication, retain: boolean, subscriptionIds: readonly number[]): void;
	/** Takes a message with QoS 1 or 2 that it does not read from a log. */
	receive(delivery: Delivery): void;
	/** Hears of a message in logs that it reads. */
	appended(message: Message, entries: readonly AppendedEntry[]): void;
	/** The logs that it reads may have more than it has heard of. */
	lookAgain(): void;
}

/** What several matching subscriptions of one receiver amount to: one copy with all identifiers [MQTT-3.3.4-4]. */
export interface Overlap {
	qos: 0 | 1 | 2;
	retain: boolean;
	readonly subscriptionIds: number[];
}
