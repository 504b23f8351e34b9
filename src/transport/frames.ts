/**
 * The frames of RFC 6455 from the side of a server, for connections whose bytes we read ourselves. No I/O and no messages:
 * MQTT is a byte stream in which frames mean nothing [MQTT-6.0.0-2], so payload is passed on as it arrives and neither a
 * large nor an endlessly fragmented message is ever held in memory.
 */

import type { CloseKind } from "./socket.ts";

/** Close codes of RFC 6455 section 7.4 and of the IANA registry. */
export const CLOSE_CODES: Readonly<Record<CloseKind, number>> = {
	normal: 1000,
	protocolError: 1002,
	unsupportedData: 1003,
	policy: 1008,
	tooLarge: 1009,
	restart: 1012,
	busy: 1013,
};

const CONTINUATION = 0;
const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

const FIN = 0x80;
const RESERVED_BITS = 0x70;
const OPCODE = 0x0f;
const MASKED = 0x80;
const LENGTH = 0x7f;
/** Stands for a close frame without a code. */
const NO_CODE = 1005;
const LARGEST_CONTROL = 125;
const LARGEST_HEADER = 14;
/** In place of a number of bytes to come: no frame is under way. */
const BETWEEN = -1;
/** From here on whole words are unmasked, which pays for the two views that it takes. */
const WORDWISE_BYTES = 128;

/** Makes a word of four bytes in the machine's own order. */
const wordBytes = new Uint8Array(4);
const wordOf = new Uint32Array(wordBytes.buffer);

/** What a `FrameDecoder` finds. */
interface FrameHandler {
	/** Payload of binary frames, in order: a part of the chunk that was pushed. Never empty. */
	onBinary(bytes: Uint8Array): void;
	/** A text message begins; its payload is skipped. */
	onText(): void;
	onPing(payload: Uint8Array): void;
	/** The peer's close frame: 1005 when it has no code. Nothing follows. */
	onClose(code: number): void;
	/** The peer broke RFC 6455. Nothing follows. */
	onViolation(message: string): void;
}

/** Reads the frames of a client from chunks of any size. */
export class FrameDecoder {
	readonly #handler: FrameHandler;
	/** A header of which not all bytes are here. Made when it is needed: most never are, and connections are many. */
	#header: Uint8Array | undefined;
	#headerLength = 0;
	readonly #mask = new Uint8Array(4);
	/** Payload bytes of the present frame still to come; `BETWEEN` when none is under way. */
	#remaining = BETWEEN;
	#opcode = BINARY;
	#control = new Uint8Array(0);
	/** Opcode of the message that continuation frames belong to, 0 for none. */
	#message = 0;
	#stopped = false;

	constructor(handler: FrameHandler) {
		this.#handler = handler;
	}

	/** Nothing more is passed on, not even what is left of the chunk at hand. */
	stop(): void {
		this.#stopped = true;
	}

	/** Takes what came from the network. The chunk becomes the decoder's: it is unmasked in place and passed on in parts. */
	push(chunk: Uint8Array): void {
		let offset = 0;
		while (!this.#stopped) {
			if (this.#remaining === BETWEEN) {
				if (offset >= chunk.length) return;
				offset = this.#readHeader(chunk, offset);
			} else {
				const length = Math.min(this.#remaining, chunk.length - offset);
				// An empty frame is complete without any byte of the chunk.
				if (length === 0 && this.#remaining > 0) return;
				this.#readPayload(chunk, offset, length);
				offset += length;
			}
		}
	}

	/** Answers where the payload begins, or the chunk's end when the header is not complete. */
	#readHeader(chunk: Uint8Array, offset: number): number {
		if (this.#headerLength === 0) {
			const size = headerSize(chunk, offset, chunk.length - offset);
			if (size <= chunk.length - offset) {
				this.#beginFrame(chunk, offset, size);
				return offset + size;
			}
		}
		this.#header ??= new Uint8Array(LARGEST_HEADER);
		const header = this.#header;
		let next = offset;
		while (next < chunk.length) {
			header[this.#headerLength++] = chunk[next++] as number;
			if (this.#headerLength === headerSize(header, 0, this.#headerLength)) {
				this.#beginFrame(header, 0, this.#headerLength);
				this.#headerLength = 0;
				break;
			}
		}
		return next;
	}

	#beginFrame(bytes: Uint8Array, offset: number, size: number): void {
		const first = bytes[offset] as number;
		const second = bytes[offset + 1] as number;
		const wrong = violation(first, second, this.#message);
		if (wrong !== undefined) {
			this.#violation(wrong);
			return;
		}
		const final = (first & FIN) !== 0;
		const opcode = first & OPCODE;
		if (opcode >= CLOSE) {
			this.#control = new Uint8Array(second & LENGTH);
			this.#opcode = opcode;
		} else {
			this.#opcode = opcode === CONTINUATION ? this.#message : opcode;
			this.#message = final ? 0 : this.#opcode;
			if (opcode === TEXT) this.#handler.onText();
		}
		for (let index = 0; index < 4; index++) this.#mask[index] = bytes[offset + size - 4 + index] as number;
		this.#remaining = payloadLength(bytes, offset, second & LENGTH);
	}

	#readPayload(chunk: Uint8Array, offset: number, length: number): void {
		const end = offset + length;
		if (this.#opcode !== TEXT) this.#unmask(chunk, offset, end);
		if (this.#opcode >= CLOSE) this.#control.set(chunk.subarray(offset, end), this.#control.length - this.#remaining);
		const complete = this.#remaining === length;
		this.#remaining = complete ? BETWEEN : this.#remaining - length;
		if (this.#opcode === BINARY && length > 0) this.#handler.onBinary(chunk.subarray(offset, end));
		else if (this.#opcode >= CLOSE && complete) this.#controlFrame(this.#control);
	}

	#controlFrame(payload: Uint8Array): void {
		if (this.#opcode === PING) this.#handler.onPing(payload);
		if (this.#opcode !== CLOSE) return;
		const [high, low] = payload;
		const code = high === undefined ? NO_CODE : (high << 8) | (low ?? 0);
		if (payload.length === 1 || (payload.length > 1 && !mayBeSent(code))) {
			this.#violation("close frame without a code that may be sent");
			return;
		}
		this.#stopped = true;
		this.#handler.onClose(code);
	}

	/** Unmasks in place, and turns the mask so that its first byte is for the next byte of the payload. */
	#unmask(bytes: Uint8Array, start: number, end: number): void {
		const mask = this.#mask;
		let index = start;
		let phase = 0;
		if (end - start >= WORDWISE_BYTES) {
			while (((bytes.byteOffset + index) & 3) !== 0) bytes[index] = (bytes[index++] as number) ^ (mask[phase++ & 3] as number);
			turn(mask, phase);
			phase = 0;
			const words = new Uint32Array(bytes.buffer, bytes.byteOffset + index, (end - index) >> 2);
			wordBytes.set(mask);
			const word = wordOf[0] as number;
			for (let at = 0; at < words.length; at++) words[at] = (words[at] as number) ^ word;
			index += words.length * 4;
		}
		for (; index < end; index++) bytes[index] = (bytes[index] as number) ^ (mask[phase++ & 3] as number);
		turn(mask, phase);
	}

	#violation(message: string): void {
		this.#stopped = true;
		this.#handler.onViolation(message);
	}
}

/** What is wrong with the first two bytes of a frame; `message` is the opcode of a fragmented message under way, or 0. */
function violation(first: number, second: number, message: number): string | undefined {
	const opcode = first & OPCODE;
	if ((first & RESERVED_BITS) !== 0) return "reserved bits are set though no extension was negotiated";
	if ((second & MASKED) === 0) return "frame of a client is not masked";
	if (opcode > PONG || (opcode > BINARY && opcode < CLOSE)) return `opcode ${opcode} does not exist`;
	if (opcode >= CLOSE) {
		const whole = (first & FIN) !== 0 && (second & LENGTH) <= LARGEST_CONTROL;
		return whole ? undefined : "control frame is fragmented or longer than 125 bytes";
	}
	if (opcode === CONTINUATION && message === 0) return "continuation frame without a message to continue";
	if (opcode !== CONTINUATION && message !== 0) return "a message begins before the fragmented one has ended";
	return undefined;
}

/** Whether a close frame may carry the code [RFC 6455 7.4]. */
function mayBeSent(code: number): boolean {
	return code >= 1000 && code < 5000 && code !== 1004 && code !== NO_CODE && code !== 1006 && code !== 1015;
}

/** Turns the mask by a number of bytes. */
function turn(mask: Uint8Array, by: number): void {
	for (let times = by & 3; times > 0; times--) {
		const first = mask[0] as number;
		mask.copyWithin(0, 1);
		mask[3] = first;
	}
}

/** Size of the header that begins at `offset`, or more than `available` while that cannot be told. */
function headerSize(bytes: Uint8Array, offset: number, available: number): number {
	if (available < 2) return LARGEST_HEADER;
	const second = bytes[offset + 1] as number;
	const short = second & LENGTH;
	return 2 + (short === 127 ? 8 : short === 126 ? 2 : 0) + ((second & MASKED) === 0 ? 0 : 4);
}

function payloadLength(bytes: Uint8Array, offset: number, short: number): number {
	if (short < 126) return short;
	const size = short === 126 ? 2 : 8;
	let length = 0;
	for (let index = 0; index < size; index++) length = length * 256 + (bytes[offset + 2 + index] as number);
	return length;
}

/** A whole binary message in one frame. The payload is copied. */
export function encodeBinary(payload: Uint8Array): Uint8Array {
	return encode(BINARY, payload);
}

export function encodePing(): Uint8Array {
	return encode(PING, new Uint8Array(0));
}

/** @param payload That of the ping it answers. */
export function encodePong(payload: Uint8Array): Uint8Array {
	return encode(PONG, payload);
}

/** @param code A close code; 1005 makes a frame without one. */
export function encodeClose(code: number): Uint8Array {
	return encode(CLOSE, code === NO_CODE ? new Uint8Array(0) : new Uint8Array([code >> 8, code & 0xff]));
}

function encode(opcode: number, payload: Uint8Array): Uint8Array {
	const length = payload.length;
	const headerLength = length < 126 ? 2 : length < 65_536 ? 4 : 10;
	const frame = Buffer.allocUnsafe(headerLength + length);
	frame[0] = FIN | opcode;
	if (headerLength === 2) {
		frame[1] = length;
	} else if (headerLength === 4) {
		frame[1] = 126;
		frame.writeUInt16BE(length, 2);
	} else {
		frame[1] = 127;
		frame.writeUIntBE(Math.floor(length / 0x1_0000_0000), 2, 4);
		frame.writeUInt32BE(length % 0x1_0000_0000, 6);
	}
	frame.set(payload, headerLength);
	return frame;
}
