/**
 * When messages expire: what is stored has the server's time, so that replicas whose clocks differ mean the same moment, and
 * what callers give and get has this replica's.
 */

import type { Message } from "../../mqtt/message.ts";
import type { Context } from "./context.ts";

/** The message as it is stored. */
export function toServerTime(message: Message, { aheadMs }: Context): Message {
	return message.expiresAtMs === Number.POSITIVE_INFINITY ? message : { ...message, expiresAtMs: message.expiresAtMs + aheadMs() };
}

/** A stored message as callers see it. */
export function toLocalTime(message: Message, { aheadMs }: Context): Message {
	return message.expiresAtMs === Number.POSITIVE_INFINITY ? message : { ...message, expiresAtMs: message.expiresAtMs - aheadMs() };
}
