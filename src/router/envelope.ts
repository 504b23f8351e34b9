/**
 * What one replica sends another, as bytes: a parcel with a header and any number of envelopes. Knows the layout and its
 * version, and nothing of how it travels. Numbers are little-endian.
 *
 * Parcel: format (1), length of the sender's name (1), the name in ASCII, number of the parcel (6), envelopes.
 * Envelope: kind (1), length (4), content. A kind has one layout for ever.
 */

import type { Message } from "../mqtt/message.ts";
import { decodeText } from "../mqtt/utf8.ts";
import { decodeMessage, maxMessageRecordLength, read32, read48, write32, write48, writeMessage } from "../store/message_record.ts";
import { READS } from "../store/redis/format.ts";
import type { Appended, SessionRef } from "../store/store.ts";
import type { Forwarded } from "./router.ts";

const MESSAGE = 1;
const RING = 2;
const TAKEOVER = 3;
const TEST = 4;

const ENVELOPE_HEAD = 5;

/** What is in a parcel, told in its order. */
export interface ParcelReader {
	onMessage(forwarded: Forwarded, token: string | undefined): void;
	onGroup(group: string): void;
	onTakeover(session: SessionRef): void;
	onTest(nonce: string): void;
}

/** A parcel that this version cannot read. */
export class UnreadableParcel extends Error {
	override readonly name = "UnreadableParcel";
}

/** Whose parcel it is. One sender's numbers grow, and no parcel has the number of another. */
export interface ParcelHead {
	readonly sender: string;
	readonly number: number;
	/** Where the envelopes begin. */
	readonly end: number;
}

/** The head of a parcel. `sender` is ASCII of at most 255 characters. */
export function writeHead(sender: string, number: number, format: number): Buffer {
	const head = Buffer.allocUnsafe(8 + sender.length);
	head[0] = format;
	head[1] = sender.length;
	head.write(sender, 2, "latin1");
	write48(head, 2 + sender.length, number);
	return head;
}

/** Throws `UnreadableParcel` for a parcel of a newer format. */
export function readHead(parcel: Buffer): ParcelHead {
	if (parcel[0] === undefined || parcel[0] < 1 || parcel[0] > READS) {
		throw new UnreadableParcel(
			`Cannot read what another replica sends: its format is ${parcel[0]}, this version of Shoal reads up to ${READS}. Restart it with the version that the others have`,
		);
	}
	const nameEnd = 2 + (parcel[1] ?? parcel.length);
	if (parcel.length < nameEnd + 6) throw truncated();
	return { sender: parcel.toString("latin1", 2, nameEnd), number: read48(parcel, nameEnd), end: nameEnd + 6 };
}

/**
 * The envelope of a message. Its expiry travels as what remains of it: the clocks of replicas need not agree.
 * @param token The same for every repetition of one QoS 2 publication.
 */
export function messageEnvelope(
	{ message, appended, groups }: Forwarded,
	token: string | undefined,
	nowMs: number,
	format: number,
): Buffer {
	const travelling = message.expiresAtMs === Number.POSITIVE_INFINITY ? message : { ...message, expiresAtMs: message.expiresAtMs - nowMs };
	let room = ENVELOPE_HEAD + 12 + maxMessageRecordLength(message) + (token === undefined ? 0 : token.length * 3);
	for (const { log } of appended) room += 10 + log.length * 3;
	for (const group of groups) room += 4 + group.length * 3;
	const buffer = Buffer.allocUnsafe(room);
	buffer[0] = MESSAGE;
	let at = writeText(buffer, ENVELOPE_HEAD, token ?? "");
	at = write32(buffer, at, appended.length);
	for (const { log, seq } of appended) at = write48(buffer, writeText(buffer, at, log), seq);
	at = write32(buffer, at, groups.length);
	for (const group of groups) at = writeText(buffer, at, group);
	at = writeMessage(travelling, buffer, at, format);
	write32(buffer, 1, at - ENVELOPE_HEAD);
	return buffer.subarray(0, at);
}

export function ringEnvelope(group: string): Buffer {
	return textEnvelope(RING, group);
}

export function takeoverEnvelope({ clientId, epoch }: SessionRef): Buffer {
	const buffer = Buffer.allocUnsafe(ENVELOPE_HEAD + 8 + (clientId.length + epoch.length) * 3);
	buffer[0] = TAKEOVER;
	const end = writeText(buffer, writeText(buffer, ENVELOPE_HEAD, clientId), epoch);
	write32(buffer, 1, end - ENVELOPE_HEAD);
	return buffer.subarray(0, end);
}

/** A replica's word to itself. */
export function testEnvelope(nonce: string): Buffer {
	return textEnvelope(TEST, nonce);
}

/**
 * Reads the envelopes of a parcel. Payloads are views of it, which nobody may write to any more.
 * Throws `UnreadableParcel` or a `StoreError` `newerVersion` at the first envelope that it cannot read.
 */
export function readEnvelopes(parcel: Buffer, start: number, nowMs: number, reader: ParcelReader): void {
	let at = start;
	while (at < parcel.length) {
		if (at + ENVELOPE_HEAD > parcel.length) throw truncated();
		const content = at + ENVELOPE_HEAD;
		const end = content + read32(parcel, at + 1);
		if (end > parcel.length) throw truncated();
		const kind = parcel[at];
		if (kind === MESSAGE) readMessage(parcel.subarray(content, end), nowMs, reader);
		else if (kind === RING) reader.onGroup(decodeText(parcel, content, end));
		else if (kind === TAKEOVER) readTakeover(parcel.subarray(content, end), reader);
		else if (kind === TEST) reader.onTest(decodeText(parcel, content, end));
		else throw new UnreadableParcel(`Cannot read what another replica sends: envelope of kind ${kind}. Run one version on all replicas`);
		at = end;
	}
}

function readMessage(content: Buffer, nowMs: number, reader: ParcelReader): void {
	const cursor = new Cursor(content);
	const token = cursor.text();
	const appended: Appended[] = [];
	for (let left = cursor.number(); left > 0; left--) appended.push({ log: cursor.text(), seq: cursor.seq() });
	const groups: string[] = [];
	for (let left = cursor.number(); left > 0; left--) groups.push(cursor.text());
	const message: Message = decodeMessage(content.subarray(cursor.at));
	const here = message.expiresAtMs === Number.POSITIVE_INFINITY ? message : { ...message, expiresAtMs: message.expiresAtMs + nowMs };
	reader.onMessage({ message: here, appended, groups }, token === "" ? undefined : token);
}

function readTakeover(content: Buffer, reader: ParcelReader): void {
	const cursor = new Cursor(content);
	reader.onTakeover({ clientId: cursor.text(), epoch: cursor.text() });
}

/** Reads one field after the other. */
class Cursor {
	readonly #bytes: Buffer;
	at = 0;

	constructor(bytes: Buffer) {
		this.#bytes = bytes;
	}

	number(): number {
		const start = this.#take(4);
		return read32(this.#bytes, start);
	}

	seq(): number {
		const start = this.#take(6);
		return read48(this.#bytes, start);
	}

	text(): string {
		const length = this.number();
		if (length === 0) return "";
		const start = this.#take(length);
		return decodeText(this.#bytes, start, this.at);
	}

	#take(length: number): number {
		const start = this.at;
		this.at += length;
		if (this.at > this.#bytes.length) throw truncated();
		return start;
	}
}

function textEnvelope(kind: number, text: string): Buffer {
	const buffer = Buffer.allocUnsafe(ENVELOPE_HEAD + text.length * 3);
	buffer[0] = kind;
	const length = buffer.write(text, ENVELOPE_HEAD);
	write32(buffer, 1, length);
	return buffer.subarray(0, ENVELOPE_HEAD + length);
}

function writeText(buffer: Buffer, start: number, text: string): number {
	if (text === "") return write32(buffer, start, 0);
	const length = buffer.write(text, start + 4);
	write32(buffer, start, length);
	return start + 4 + length;
}

function truncated(): UnreadableParcel {
	return new UnreadableParcel("Cannot read what another replica sends: it ends too early. Look for others who write to these keys");
}
