/**
 * Segments: the entries that one log gained in one group, packed into one row. Knows their bytes and how to walk them, and
 * nothing of rows and logs. An entry is its length (4 bytes), the id of its message (6) and the record of the message.
 */

import type { Message } from "../../mqtt/message.ts";
import { decodeMessage, maxMessageRecordLength, read32, read48, write32, write48, writeMessage } from "../message_record.ts";

const HEADER = 10;
const INITIAL_BYTES = 65_536;
/** A buffer that had to grow beyond this for a big message is not kept. */
const KEPT_BYTES = 4 * 1024 * 1024;

/** The entries of the open group, encoded once each however many logs they go to. Emptied with each group, never moved within. */
export class EntryBuffer {
	#bytes = Buffer.allocUnsafe(INITIAL_BYTES);
	#used = 0;

	/** Bytes in use. */
	get used(): number {
		return this.#used;
	}

	/** Encodes an entry and returns where it starts; it ends at `used`. */
	add(id: number, message: Message): number {
		const start = this.#used;
		const needed = start + HEADER + maxMessageRecordLength(message);
		if (needed > this.#bytes.length) {
			const grown = Buffer.allocUnsafe(Math.max(needed, this.#bytes.length * 2));
			grown.set(this.#bytes.subarray(0, start));
			this.#bytes = grown;
		}
		const end = writeMessage(message, this.#bytes, start + HEADER);
		write32(this.#bytes, start, end - start - HEADER);
		write48(this.#bytes, start + 4, id);
		this.#used = end;
		return start;
	}

	/** Bytes of the entries in `ranges[from, to)`, which has a start and an end for each. Valid until the next `add` or `clear`. */
	pack(ranges: readonly number[], from: number, to: number): Uint8Array {
		let length = 0;
		for (let at = from; at < to; at += 2) length += (ranges[at + 1] as number) - (ranges[at] as number);
		const start = ranges[from] as number;
		const end = ranges[to - 1] as number;
		if (end - start === length) return this.#bytes.subarray(start, end);
		const packed = Buffer.allocUnsafe(length);
		let used = 0;
		for (let at = from; at < to; at += 2) {
			packed.set(this.#bytes.subarray(ranges[at] as number, ranges[at + 1] as number), used);
			used += (ranges[at + 1] as number) - (ranges[at] as number);
		}
		return packed;
	}

	clear(): void {
		this.#used = 0;
		if (this.#bytes.length > KEPT_BYTES) this.#bytes = Buffer.allocUnsafe(INITIAL_BYTES);
	}
}

/** Walks the entries of a segment. */
export class SegmentCursor {
	readonly #body: Uint8Array;
	readonly #packed: boolean;
	#at = 0;
	/** Sequence number of the entry that it stands on. */
	seq: number;

	constructor(body: Uint8Array, last: number, entries: number) {
		this.#body = body;
		this.#packed = entries > 1;
		this.seq = last - entries + 1;
	}

	get atEnd(): boolean {
		return this.#at >= this.#body.length;
	}

	get id(): number {
		return read48(this.#body, this.#at + 4);
	}

	message(): Message {
		const start = this.#at + HEADER;
		const end = start + read32(this.#body, this.#at);
		// A copy, or one message of a slow receiver would hold the memory of all its neighbours.
		return decodeMessage(this.#packed ? this.#body.slice(start, end) : this.#body.subarray(start, end));
	}

	next(): void {
		this.#at += HEADER + read32(this.#body, this.#at);
		this.seq++;
	}

	skipTo(seq: number): void {
		while (this.seq < seq && !this.atEnd) this.next();
	}
}
