/**
 * One `node:net` or `node:tls` connection with an orderly end: bounded in time, reported once, and never an uncaught error.
 * What `tcp.ts` and `framed_socket.ts` have in common. Knows neither MQTT nor WebSocket.
 */

import type { Socket as NodeSocket } from "node:net";

/** How long a peer may take to read what was sent before the close, and to close its own side. */
export const LINGER_MS = 5_000;
/** A connection without traffic is probed, so that a peer that vanished without a word does not stay for ever. */
const KEEP_ALIVE_PROBE_MS = 60_000;

/** What happens on a `ByteStream`. No call follows `onClose`. */
interface ByteStreamHandler {
	/** A chunk that is the receiver's to keep and to write to: neither runtime uses its memory again. */
	onData(chunk: Uint8Array): void;
	onDrain(): void;
	onClose(): void;
}

export class ByteStream {
	readonly #stream: NodeSocket;
	readonly #handler: ByteStreamHandler;
	#state: "open" | "ending" | "closed" = "open";
	#linger: ReturnType<typeof setTimeout> | undefined;

	constructor(stream: NodeSocket, handler: ByteStreamHandler) {
		this.#stream = stream;
		this.#handler = handler;
		stream.setNoDelay(true);
		stream.setKeepAlive(true, KEEP_ALIVE_PROBE_MS);
		// "close" follows every error, and is what counts.
		stream.on("error", () => {});
		stream.on("data", (chunk: Uint8Array) => {
			if (this.#state === "open") handler.onData(chunk);
		});
		stream.on("drain", () => {
			if (this.#state === "open") handler.onDrain();
		});
		stream.on("end", () => this.end());
		stream.on("close", () => this.#closed());
		// What happened before anybody listened is not told again.
		if (stream.destroyed) queueMicrotask(() => this.#closed());
		else if (stream.readableEnded) this.end();
	}

	/**
	 * Sends bytes. They are NOT copied: nobody may write to them any more.
	 *
	 * @param onWritten Called later, when they are with the operating system or lost.
	 */
	write(bytes: Uint8Array, onWritten?: () => void): "sent" | "queued" | "dropped" {
		if (this.#state !== "open" || !this.#stream.writable) return "dropped";
		return this.#stream.write(bytes, onWritten) ? "sent" : "queued";
	}

	get bufferedAmount(): number {
		return this.#state === "closed" ? 0 : this.#stream.writableLength;
	}

	pause(): void {
		if (this.#state === "open") this.#stream.pause();
	}

	resume(): void {
		if (this.#state === "open") this.#stream.resume();
	}

	/** Sends what is queued and `last`, then FIN; what still comes in is thrown away. Gives up after `LINGER_MS`. */
	end(last?: Uint8Array): void {
		if (this.#state !== "open") return;
		this.#state = "ending";
		this.#linger = setTimeout(() => this.#reset(), LINGER_MS);
		// Unread input would turn our FIN into an RST, which takes what we just sent from the peer.
		this.#stream.resume();
		if (last) this.#stream.end(last);
		else this.#stream.end();
	}

	/** Drops the connection at once. */
	terminate(): void {
		if (this.#state === "closed") return;
		this.#state = "ending";
		this.#reset();
	}

	#reset(): void {
		// A plain destroy leaves what the peer does not read in the kernel's buffer, megabytes of it, for minutes.
		this.#stream.resetAndDestroy();
	}

	#closed(): void {
		if (this.#state === "closed") return;
		this.#state = "closed";
		clearTimeout(this.#linger);
		this.#handler.onClose();
	}
}
