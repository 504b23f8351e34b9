/**
 * The small records of the Redis store, besides the messages: entries of logs, subscriptions, wills, tickets. Knows bytes
 * only. Each record begins with its version; the scripts read some fields at their places, which stand here.
 */

import type { Message } from "../../mqtt/message.ts";
import type { QoS } from "../../mqtt/packet.ts";
import { decodeText } from "../../mqtt/utf8.ts";
import { decodeMessage, maxMessageRecordLength, read32, read48, write32, write48, writeMessage } from "../message_record.ts";
import { StoreError, type SubscriptionOptions } from "../store.ts";

const VERSION = 1;

/** Version of 1 byte, id of 8. */
const ENTRY_HEADER = 9;
/** Version, options, Subscription Identifier of 4 bytes, cursor of 6; the join follows. */
const CURSOR_AT = 6;
const JOIN_AT = 12;
/** Version; time at which it is due (0 while its connection lives), delay, expiry (negative for none), 8 bytes each. */
const WILL_HEADER = 25;

/** The entry of a log: an id that all copies of the message have, and the message. */
export function encodeEntry(id: number, message: Message, format: number): Buffer {
	const buffer = Buffer.allocUnsafe(ENTRY_HEADER + maxMessageRecordLength(message));
	buffer[0] = VERSION;
	buffer.writeDoubleLE(id, 1);
	return buffer.subarray(0, writeMessage(message, buffer, ENTRY_HEADER, format));
}

/** The message is a view of `bytes`, see `decodeMessage`. */
export function decodeEntry(bytes: Buffer): { readonly id: number; readonly message: Message } {
	refuseOtherVersion(bytes, "log entry");
	return { id: bytes.readDoubleLE(1), message: decodeMessage(bytes.subarray(ENTRY_HEADER)) };
}

/** A subscription as it is stored. */
export interface SubscriptionRecord extends Omit<SubscriptionOptions, "filter"> {
	/** `undefined` while it is where the log has it: at the floor of the join. */
	readonly cursor: number | undefined;
	/** Its place in the log, see {@link Member}; empty without a log. */
	readonly join: string;
}

const CURSOR_UNSET = 2 ** 48 - 1;

export function encodeSubscription(options: SubscriptionOptions, join: string): Buffer {
	const { qos, noLocal, retainAsPublished, retainHandling, subscriptionId } = options;
	const buffer = Buffer.allocUnsafe(JOIN_AT + join.length);
	buffer[0] = VERSION;
	buffer[1] = qos | (noLocal ? 4 : 0) | (retainAsPublished ? 8 : 0) | (retainHandling << 4);
	write32(buffer, 2, subscriptionId);
	write48(buffer, CURSOR_AT, CURSOR_UNSET);
	buffer.write(join, JOIN_AT, "latin1");
	return buffer;
}

export function decodeSubscription(bytes: Buffer): SubscriptionRecord {
	refuseOtherVersion(bytes, "subscription");
	const options = bytes[1] as number;
	const cursor = read48(bytes, CURSOR_AT);
	return {
		qos: (options & 3) as QoS,
		noLocal: (options & 4) !== 0,
		retainAsPublished: (options & 8) !== 0,
		retainHandling: ((options >> 4) & 3) as 0 | 1 | 2,
		subscriptionId: read32(bytes, 2),
		cursor: cursor === CURSOR_UNSET ? undefined : cursor,
		join: bytes.toString("latin1", JOIN_AT),
	};
}

/** The bytes of a cursor as `session_checkpoint.lua` puts them into a subscription. */
export function encodeCursor(cursor: number): Buffer {
	const buffer = Buffer.allocUnsafe(JOIN_AT - CURSOR_AT);
	write48(buffer, 0, cursor);
	return buffer;
}

/** A will as it is stored. */
export interface WillRecord {
	/** In ms since 1970 by the server's clock; 0 while its connection lives. */
	readonly dueMs: number;
	readonly expirySeconds: number | undefined;
	readonly message: Message;
}

/** The will of a connection that lives. */
export function encodeWill(message: Message, delaySeconds: number, expirySeconds: number | undefined, format: number): Buffer {
	const buffer = Buffer.allocUnsafe(WILL_HEADER + maxMessageRecordLength(message));
	buffer[0] = VERSION;
	buffer.writeDoubleLE(0, 1);
	buffer.writeDoubleLE(delaySeconds * 1000, 9);
	buffer.writeDoubleLE(expirySeconds ?? -1, 17);
	return buffer.subarray(0, writeMessage(message, buffer, WILL_HEADER, format));
}

export function decodeWill(bytes: Buffer): WillRecord {
	refuseOtherVersion(bytes, "will");
	const expirySeconds = bytes.readDoubleLE(17);
	return {
		dueMs: bytes.readDoubleLE(1),
		expirySeconds: expirySeconds < 0 ? undefined : expirySeconds,
		message: decodeMessage(bytes.subarray(WILL_HEADER)),
	};
}

/** Something that a session has to give up in a log's slot. */
export interface Gone {
	/** A membership, or the entries that are bound to it. */
	readonly kind: "member" | "bound";
	/** The join, or the incarnation of the session. */
	readonly name: string;
	readonly log: string;
	/** As it stands in the set. */
	readonly text: Buffer;
}

/** Reads what the scripts write into `gone`. */
export function decodeGone(text: Buffer): Gone {
	const space = text.indexOf(0x20);
	return {
		kind: text[0] === 0x6d ? "member" : "bound",
		name: text.toString("latin1", 1, space),
		log: decodeText(text, space + 1, text.length),
		text,
	};
}

/** One connection of a client: names it in the sets of owners and of deadlines. */
export interface Ticket {
	readonly epoch: string;
	readonly clientId: string;
}

export function encodeTicket({ epoch, clientId }: Ticket): string {
	return `${epoch} ${clientId}`;
}

export function decodeTicket(bytes: Buffer): Ticket {
	const space = bytes.indexOf(0x20);
	return { epoch: bytes.toString("latin1", 0, space), clientId: decodeText(bytes, space + 1, bytes.length) };
}

/** One subscription's place in a log: names it among the members. */
export interface Member {
	/** As the subscription has it. */
	readonly join: string;
	readonly clientId: string;
}

export function encodeMember({ join, clientId }: Member): string {
	return `${join} ${clientId}`;
}

export function decodeMember(bytes: Buffer): Member {
	const { epoch: join, clientId } = decodeTicket(bytes);
	return { join, clientId };
}

function refuseOtherVersion(bytes: Buffer, kind: string): void {
	if (bytes[0] === VERSION) return;
	throw new StoreError(
		"newerVersion",
		`Cannot read a stored ${kind} of version ${bytes[0]}: this version of Shoal reads ${VERSION}, use the one that wrote it`,
	);
}
