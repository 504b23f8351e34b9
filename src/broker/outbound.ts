/**
 * The outgoing bytes of one connection. Packets of one event-loop turn are collected and leave in one frame; while the
 * peer reads slowly nothing more is given to the runtime, so that what is buffered is buffered here, and bounded.
 */

import type { CloseKind, Socket } from "../transport/socket.ts";
import type { Turn, TurnTask } from "./turn.ts";

/** A frame is sent before the end of the turn when it has grown this large. */
const FRAME_BYTES = 262_144;
const SMALLEST_BUFFER = 2_048;
/** Buffers of up to this size are kept for reuse, so many of each size. */
const LARGEST_KEPT = 65_536;
const KEPT_PER_SIZE = 512;

const kept = new Map<number, Uint8Array[]>();

function takeBuffer(size: number): Uint8Array {
	let capacity = SMALLEST_BUFFER;
	while (capacity < size) capacity *= 2;
	return kept.get(capacity)?.pop() ?? new Uint8Array(capacity);
}

function giveBuffer(buffer: Uint8Array): void {
	if (buffer.length > LARGEST_KEPT) return;
	const list = kept.get(buffer.length);
	if (list === undefined) kept.set(buffer.length, [buffer]);
	else if (list.length < KEPT_PER_SIZE) list.push(buffer);
}

export class Outbound implements TurnTask {
	inTurn = false;
	readonly #socket: Socket;
	readonly #turn: Turn;
	/** Ends of the packets in the buffer, where each is to have a frame of its own. */
	readonly #ends: number[] | undefined;
	#buffer: Uint8Array | undefined;
	#length = 0;
	#congested = false;
	#broken = false;
	#held = false;
	readonly #onCongested: () => void;

	/**
	 * @param framePerPacket One packet per WebSocket frame, for clients that cannot take more.
	 * @param onCongested The peer reads too slowly (or the runtime dropped what it was given: then `broken` is true).
	 */
	constructor(socket: Socket, turn: Turn, framePerPacket: boolean, onCongested: () => void) {
		this.#socket = socket;
		this.#turn = turn;
		this.#ends = framePerPacket ? [] : undefined;
		this.#onCongested = onCongested;
	}

	/** Bytes collected here and not yet given to the runtime. */
	get pending(): number {
		return this.#length;
	}

	/** Whether the runtime still holds earlier bytes, so that new ones wait here. */
	get congested(): boolean {
		return this.#congested;
	}

	/** Whether the runtime has lost bytes: the stream cannot be mended. */
	get broken(): boolean {
		return this.#broken;
	}

	/** Makes room for a packet and answers where it starts in `buffer`; the caller writes exactly `size` bytes there at once. */
	reserve(size: number): number {
		if (this.#length >= FRAME_BYTES && !this.#congested) this.flush();
		const start = this.#length;
		const needed = start + size;
		const buffer = this.#buffer;
		if (buffer === undefined) this.#buffer = takeBuffer(needed);
		else if (buffer.length < needed) {
			const larger = takeBuffer(needed);
			larger.set(buffer.subarray(0, start));
			giveBuffer(buffer);
			this.#buffer = larger;
		}
		this.#length = needed;
		this.#ends?.push(needed);
		if (!this.inTurn) this.#turn.add(this);
		return start;
	}

	/** The buffer that `reserve` speaks of; another one after the next `reserve`. */
	get buffer(): Uint8Array {
		return this.#buffer as Uint8Array;
	}

	/** Appends an encoded packet. */
	append(packet: Uint8Array): void {
		const start = this.reserve(packet.length);
		(this.#buffer as Uint8Array).set(packet, start);
	}

	/** Gives the runtime what is left and closes, when this has settled. Nothing leaves before. */
	finish(how: CloseKind, after: Promise<void> | undefined): void {
		const close = () => {
			this.flush();
			this.#socket.close(how);
		};
		if (after === undefined) {
			close();
			return;
		}
		this.#held = true;
		void after.then(close);
	}

	endTurn(): void {
		if (!this.#congested && !this.#held) this.flush();
	}

	/** The runtime has taken everything: what waited here may follow. */
	drained(): void {
		this.#congested = false;
		this.flush();
	}

	/** Gives the runtime all that is collected. */
	flush(): void {
		const buffer = this.#buffer;
		if (buffer === undefined) return;
		const length = this.#length;
		this.#buffer = undefined;
		this.#length = 0;
		if (this.#ends === undefined) this.#send(buffer.subarray(0, length));
		else {
			let start = 0;
			for (const end of this.#ends) {
				this.#send(buffer.subarray(start, end));
				start = end;
			}
			this.#ends.length = 0;
		}
		giveBuffer(buffer);
	}

	#send(bytes: Uint8Array): void {
		const status = this.#socket.send(bytes);
		if (status === "sent") return;
		if (status === "dropped") this.#broken = true;
		const first = !this.#congested;
		this.#congested = true;
		if (first || this.#broken) this.#onCongested();
	}
}
