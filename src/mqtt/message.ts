/** An application message: what a publisher said, independent of any connection. Immutable and shared by all receivers. */

import type { QoS } from "./packet.ts";
import type { Topic } from "./topic.ts";

/** Who published a message, as far as that is needed to know later whether its rights were taken back. */
export interface Author {
	/** See `Principal`, also for the others. */
	readonly name: string;
	readonly username?: string;
	readonly tokenId?: string;
	readonly issuedAtMs?: number;
}

export interface Message {
	readonly topic: Topic;
	/** Owned by the message: nobody writes to it. */
	readonly payload: Uint8Array;
	/** QoS of the publication; each delivery has the minimum of this and the granted QoS [MQTT-3.8.4-8]. */
	readonly qos: QoS;
	/** RETAIN of the publication. */
	readonly retain: boolean;
	/** Property bytes to forward as they are, see `packet.ts`. */
	readonly forwarded: Uint8Array;
	/** Wall-clock deadline of the Message Expiry Interval in ms since 1970; `Infinity` when there is none. */
	readonly expiresAtMs: number;
	/** Client id of the publisher (for No Local); empty for messages of the broker itself. */
	readonly publisher: string;
	/**
	 * Place in the order in which the retained messages of the whole broker were set, where that is known: of those that are
	 * read from the store and of those that come from other replicas.
	 */
	readonly revision?: number;
	/** Of what stays behind when its publisher is gone: of wills and of what is to be retained, unless an anonymous client's. */
	readonly author?: Author;
}

/** Message Expiry Interval to forward, in seconds, reduced by the waiting time [MQTT-3.3.2-6]; `undefined` when there is none. */
export function remainingExpirySeconds(message: Message, nowMs: number): number | undefined {
	if (message.expiresAtMs === Number.POSITIVE_INFINITY) return undefined;
	return Math.max(0, Math.ceil((message.expiresAtMs - nowMs) / 1000));
}

/**
 * The message with bytes of its own, for whoever keeps it: a payload is a view of what came from the network, and a small
 * one would hold on to a large chunk.
 */
export function kept(message: Message): Message {
	const { payload, forwarded } = message;
	if (payload.buffer.byteLength <= 2 * payload.length + 1024) return message;
	return { ...message, payload: payload.slice(), forwarded: forwarded.slice() };
}
