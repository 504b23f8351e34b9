/**
 * A WebSocket whose frames we read and write ourselves, on a connection of `node:net` or `node:tls` after its upgrade.
 * Used on Deno, whose own WebSocket holds fragmented messages of any size in memory and cannot drop a peer that stopped
 * reading (both measured with 2.9.6, see `deno.ts`), and on Bun for clients with certificates, which `Bun.serve` does not tell.
 */

import { createHash } from "node:crypto";
import type { Socket as NodeSocket } from "node:net";
import { ByteStream } from "./byte_stream.ts";
import { CLOSE_CODES, encodeBinary, encodeClose, encodePing, encodePong, FrameDecoder } from "./frames.ts";
import type { Upgradable } from "./http_server.ts";
import type { Accept, CloseKind, PeerInfo, Socket, SocketHandler } from "./socket.ts";
import { withoutRequest } from "./upgrade.ts";

const ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** Makes a WebSocket of the connection of an upgrade request. The answer is for the listener alone, which sends nothing of it. */
export function takeOver(upgradable: Upgradable, key: string, protocol: string | undefined, peer: PeerInfo, accept: Accept): Response {
	upgradable.taken = true;
	upgradable.stream.write(switchingProtocols(key, protocol));
	new FramedSocket(upgradable.stream, upgradable.head, peer, accept);
	return new Response(null);
}

/** The response that turns an HTTP connection into a WebSocket. */
function switchingProtocols(key: string, protocol: string | undefined): string {
	const accept = createHash("sha1").update(`${key}${ACCEPT_GUID}`).digest("base64");
	const lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", `Sec-WebSocket-Accept: ${accept}`];
	if (protocol !== undefined) lines.push(`Sec-WebSocket-Protocol: ${protocol}`);
	return `${lines.join("\r\n")}\r\n\r\n`;
}

class FramedSocket implements Socket {
	peer: PeerInfo;
	readonly #stream: ByteStream;
	readonly #decoder: FrameDecoder;
	readonly #handler: SocketHandler | undefined;
	#pongUnderWay = false;
	#unansweredPing: Uint8Array | undefined;

	/**
	 * Takes a connection over, right after the upgrade response was written to it.
	 *
	 * @param head What came behind the request already.
	 */
	constructor(stream: NodeSocket, head: Uint8Array, peer: PeerInfo, accept: Accept) {
		this.peer = peer;
		// A copy, for it lies in the memory of the HTTP parser, and frames are unmasked in place.
		if (head.length > 0) stream.unshift(Buffer.from(head));
		this.#stream = new ByteStream(stream, {
			onData: (chunk) => this.#decoder.push(chunk),
			onDrain: () => this.#handler?.onDrain(),
			onClose: () => this.#handler?.onClose(),
		});
		this.#decoder = new FrameDecoder({
			onBinary: (bytes) => this.#handler?.onData(bytes),
			onText: () => this.#handler?.onText(),
			onPing: (payload) => this.#answerPing(payload),
			onClose: (code) => this.#end(code),
			onViolation: () => this.#end(CLOSE_CODES.protocolError),
		});
		this.#handler = accept(this);
		if (!this.#handler) this.close("busy");
	}

	send(bytes: Uint8Array): "sent" | "queued" | "dropped" {
		return this.#stream.write(encodeBinary(bytes));
	}

	get bufferedAmount(): number {
		return this.#stream.bufferedAmount;
	}

	pause(): void {
		this.#stream.pause();
	}

	resume(): void {
		this.#stream.resume();
	}

	forgetRequest(): void {
		this.peer = withoutRequest(this.peer);
	}

	ping(): void {
		this.#stream.write(encodePing());
	}

	close(kind: CloseKind): void {
		this.#end(CLOSE_CODES[kind]);
	}

	terminate(): void {
		this.#decoder.stop();
		this.#stream.terminate();
	}

	#end(code: number): void {
		this.#decoder.stop();
		this.#stream.end(encodeClose(code));
	}

	/** One pong waits at most, then only the latest ping is answered [RFC 6455 5.5.3]: they cannot pile up for a peer that reads nothing. */
	#answerPing(payload: Uint8Array): void {
		if (this.#pongUnderWay) {
			this.#unansweredPing = payload;
			return;
		}
		this.#pongUnderWay = true;
		this.#stream.write(encodePong(payload), () => {
			this.#pongUnderWay = false;
			const next = this.#unansweredPing;
			this.#unansweredPing = undefined;
			if (next) this.#answerPing(next);
		});
	}
}
