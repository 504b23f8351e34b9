/**
 * The binary records that stores keep: a message, and a session's deliveries under way. Knows bytes and the versions of
 * their layout, and nothing of tables, keys or transactions. The first byte of each record is its version: a record of an
 * unknown one is refused, never guessed at. Numbers are little-endian.
 */

import type { Author, Message } from "../mqtt/message.ts";
import { NO_PROPERTIES, type QoS } from "../mqtt/packet.ts";
import { TopicTable } from "../mqtt/topic.ts";
import { decodeText } from "../mqtt/utf8.ts";
import { type InflightRecord, StoreError } from "./store.ts";

/** The newest version that is read; it is written wherever no older one is asked for. */
export const RECORD_VERSION = 1;

const RETAIN = 0x04;
const EXPIRES = 0x08;
const REVISION = 0x10;
const AUTHOR = 0x20;

/** What of an author is there, besides the name. */
const USERNAME = 0x01;
const TOKEN_ID = 0x02;
const ISSUED_AT = 0x04;

const QOS_2 = 0x01;
const RECEIVED = 0x02;
const DELIVERED_RETAINED = 0x04;
const HAS_MESSAGE = 0x08;
const SAME_LOG = 0x10;

/** Version, flags, two lengths of 2 bytes, a length of 4, a deadline and a revision of 8. */
const MESSAGE_OVERHEAD = 26;
/** A byte for what is there, three lengths of 2 bytes, a time of 8. */
const AUTHOR_OVERHEAD = 15;
const INFLIGHT_OVERHEAD = 16;

const topics = new TopicTable(1024);

/** Bytes that {@link writeMessage} may need at most. */
export function maxMessageRecordLength(message: Message): number {
	const { topic, publisher, forwarded, payload, author } = message;
	const authorRoom = author === undefined ? 0 : maxAuthorLength(author);
	// One UTF-16 unit takes three bytes at most, and asking for the exact length would cost a pass over the string.
	return MESSAGE_OVERHEAD + topic.bytes.length + publisher.length * 3 + forwarded.length + payload.length + authorRoom;
}

/**
 * Writes the record of a message at `start` and returns where it ends. There must be room for {@link maxMessageRecordLength} bytes.
 * @param version For readers that know none newer.
 */
export function writeMessage(message: Message, buffer: Buffer, start: number, version = RECORD_VERSION): number {
	let at = start;
	const expires = message.expiresAtMs !== Number.POSITIVE_INFINITY;
	buffer[at++] = version;
	buffer[at++] = message.qos | (message.retain ? RETAIN : 0) | (expires ? EXPIRES : 0) | extras(message);
	if (expires) at = buffer.writeDoubleLE(message.expiresAtMs, at);
	if (message.revision !== undefined) at = buffer.writeDoubleLE(message.revision, at);
	if (message.author !== undefined) at = writeAuthor(message.author, buffer, at);
	const topic = message.topic.bytes;
	at = write16(buffer, at, topic.length);
	buffer.set(topic, at);
	at += topic.length;
	const publisherLength = buffer.write(message.publisher, at + 2);
	at = write16(buffer, at, publisherLength) + publisherLength;
	at = write32(buffer, at, message.forwarded.length);
	buffer.set(message.forwarded, at);
	at += message.forwarded.length;
	buffer.set(message.payload, at);
	return at + message.payload.length;
}

/** The record of a message, in bytes of its own. */
export function encodeMessage(message: Message, version = RECORD_VERSION): Uint8Array {
	const buffer = Buffer.allocUnsafe(maxMessageRecordLength(message));
	return buffer.subarray(0, writeMessage(message, buffer, 0, version));
}

/**
 * The message of a record. Payload and properties are views of `bytes`, which nobody may write to any more.
 * Throws `StoreError` `newerVersion` for a record of a version that is not known.
 */
export function decodeMessage(bytes: Uint8Array): Message {
	refuseOtherVersion(bytes[0], "message");
	const flags = bytes[1] as number;
	let at = 2;
	let expiresAtMs = Number.POSITIVE_INFINITY;
	if ((flags & EXPIRES) !== 0) {
		expiresAtMs = readDouble(bytes, at);
		at += 8;
	}
	let revision: number | undefined;
	if ((flags & REVISION) !== 0) {
		revision = readDouble(bytes, at);
		at += 8;
	}
	let author: Author | undefined;
	if ((flags & AUTHOR) !== 0) [author, at] = readAuthor(bytes, at);
	const topicEnd = at + 2 + read16(bytes, at);
	const topic = topics.intern(bytes, at + 2, topicEnd);
	const publisherEnd = topicEnd + 2 + read16(bytes, topicEnd);
	const publisher = topicEnd + 2 === publisherEnd ? "" : decodeText(bytes, topicEnd + 2, publisherEnd);
	const forwardedEnd = publisherEnd + 4 + read32(bytes, publisherEnd);
	return {
		topic,
		payload: bytes.subarray(forwardedEnd),
		qos: (flags & 3) as QoS,
		retain: (flags & RETAIN) !== 0,
		forwarded: publisherEnd + 4 === forwardedEnd ? NO_PROPERTIES : bytes.subarray(publisherEnd + 4, forwardedEnd),
		expiresAtMs,
		publisher,
		...(revision !== undefined && { revision }),
		...(author !== undefined && { author }),
	};
}

/** Flags of what most messages do not have. */
function extras({ revision, author }: Message): number {
	return (revision === undefined ? 0 : REVISION) | (author === undefined ? 0 : AUTHOR);
}

function maxAuthorLength({ name, username = "", tokenId = "" }: Author): number {
	return AUTHOR_OVERHEAD + (name.length + username.length + tokenId.length) * 3;
}

function writeAuthor({ name, username, tokenId, issuedAtMs }: Author, buffer: Buffer, start: number): number {
	buffer[start] =
		(username === undefined ? 0 : USERNAME) | (tokenId === undefined ? 0 : TOKEN_ID) | (issuedAtMs === undefined ? 0 : ISSUED_AT);
	let at = writeText(name, buffer, start + 1);
	if (username !== undefined) at = writeText(username, buffer, at);
	if (tokenId !== undefined) at = writeText(tokenId, buffer, at);
	return issuedAtMs === undefined ? at : buffer.writeDoubleLE(issuedAtMs, at);
}

function readAuthor(bytes: Uint8Array, start: number): [author: Author, end: number] {
	const there = bytes[start] as number;
	let at = start + 1;
	const text = (): string => {
		const begin = at + 2;
		at = begin + read16(bytes, at);
		return begin === at ? "" : decodeText(bytes, begin, at);
	};
	const name = text();
	const username = (there & USERNAME) === 0 ? undefined : text();
	const tokenId = (there & TOKEN_ID) === 0 ? undefined : text();
	const issuedAtMs = (there & ISSUED_AT) === 0 ? undefined : readDouble(bytes, at);
	const author: Author = {
		name,
		...(username !== undefined && { username }),
		...(tokenId !== undefined && { tokenId }),
		...(issuedAtMs !== undefined && { issuedAtMs }),
	};
	return [author, issuedAtMs === undefined ? at : at + 8];
}

function writeText(text: string, buffer: Buffer, start: number): number {
	const length = buffer.write(text, start + 2);
	return write16(buffer, start, length) + length;
}

/** The record of a session's deliveries under way, in their order. `message` is kept by value where it is given. */
export function encodeInflight(records: readonly InflightRecord[], version = RECORD_VERSION): Uint8Array {
	let room = 1;
	for (const record of records) {
		room += INFLIGHT_OVERHEAD + record.log.length * 3 + record.subscriptionIds.length * 4;
		if (record.message !== undefined) room += 4 + maxMessageRecordLength(record.message);
	}
	const buffer = Buffer.allocUnsafe(room);
	let at = 0;
	let previousLog: string | undefined;
	buffer[at++] = version;
	for (const record of records) {
		const sameLog = record.log === previousLog;
		previousLog = record.log;
		at = write16(buffer, at, record.packetId);
		buffer[at++] =
			(record.qos === 2 ? QOS_2 : 0) |
			(record.state === "received" ? RECEIVED : 0) |
			(record.retain ? DELIVERED_RETAINED : 0) |
			(record.message === undefined ? 0 : HAS_MESSAGE) |
			(sameLog ? SAME_LOG : 0);
		if (!sameLog) {
			const length = buffer.write(record.log, at + 4);
			at = write32(buffer, at, length) + length;
		}
		at = write48(buffer, at, record.seq);
		at = write16(buffer, at, record.subscriptionIds.length);
		for (const id of record.subscriptionIds) at = write32(buffer, at, id);
		if (record.message !== undefined) {
			const end = writeMessage(record.message, buffer, at + 4, version);
			write32(buffer, at, end - at - 4);
			at = end;
		}
	}
	return buffer.subarray(0, at);
}

/** The deliveries of a record, with `message` only where it was kept by value. Throws like {@link decodeMessage}. */
export function decodeInflight(bytes: Uint8Array): InflightRecord[] {
	refuseOtherVersion(bytes[0], "in-flight");
	const records: InflightRecord[] = [];
	let at = 1;
	let log = "";
	while (at < bytes.length) {
		const packetId = read16(bytes, at);
		const flags = bytes[at + 2] as number;
		at += 3;
		if ((flags & SAME_LOG) === 0) {
			const end = at + 4 + read32(bytes, at);
			log = decodeText(bytes, at + 4, end);
			at = end;
		}
		const seq = read48(bytes, at);
		const subscriptionIds = new Array<number>(read16(bytes, at + 6));
		at += 8;
		for (let n = 0; n < subscriptionIds.length; n++, at += 4) subscriptionIds[n] = read32(bytes, at);
		let message: Message | undefined;
		if ((flags & HAS_MESSAGE) !== 0) {
			const end = at + 4 + read32(bytes, at);
			message = decodeMessage(bytes.subarray(at + 4, end));
			at = end;
		}
		records.push({
			packetId,
			qos: (flags & QOS_2) === 0 ? 1 : 2,
			state: (flags & RECEIVED) === 0 ? "sent" : "received",
			log,
			seq,
			retain: (flags & DELIVERED_RETAINED) !== 0,
			subscriptionIds,
			message,
		});
	}
	return records;
}

function readDouble(bytes: Uint8Array, at: number): number {
	return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getFloat64(at, true);
}

function refuseOtherVersion(version: number | undefined, kind: string): void {
	if (version !== undefined && version >= 1 && version <= RECORD_VERSION) return;
	throw new StoreError(
		"newerVersion",
		`Cannot read a stored ${kind} record of version ${version}: this version of Shoal reads up to ${RECORD_VERSION}, use the one that wrote it`,
	);
}

function write16(buffer: Uint8Array, at: number, value: number): number {
	buffer[at] = value;
	buffer[at + 1] = value >>> 8;
	return at + 2;
}

export function write32(buffer: Uint8Array, at: number, value: number): number {
	buffer[at] = value;
	buffer[at + 1] = value >>> 8;
	buffer[at + 2] = value >>> 16;
	buffer[at + 3] = value >>> 24;
	return at + 4;
}

/** Sequence numbers and ids have 48 bits: at a million a second they last for nine years, at a thousand for nine thousand. */
export function write48(buffer: Uint8Array, at: number, value: number): number {
	return write16(buffer, write32(buffer, at, value), Math.floor(value / 0x1_0000_0000));
}

function read16(bytes: Uint8Array, at: number): number {
	return (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
}

export function read32(bytes: Uint8Array, at: number): number {
	return (read16(bytes, at) | (read16(bytes, at + 2) << 16)) >>> 0;
}

export function read48(bytes: Uint8Array, at: number): number {
	return read32(bytes, at) + read16(bytes, at + 4) * 0x1_0000_0000;
}
