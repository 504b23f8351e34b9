/** A WebSocket with the look of a TCP socket: the payload of binary frames is data. What `RawClient` runs on over WebSocket. */

import { EventEmitter } from "node:events";
import { Opcode, type RawConnectOptions, RawWebSocket } from "./raw_websocket.ts";

export class WebSocketStream extends EventEmitter {
	readonly socket: RawWebSocket;

	private constructor(socket: RawWebSocket) {
		super();
		this.socket = socket;
	}

	/** Opens a WebSocket with this subprotocol. */
	static async connect(port: number, protocol: string, options: Partial<RawConnectOptions> = {}): Promise<WebSocketStream> {
		const stream = new WebSocketStream(await RawWebSocket.connect({ port, protocols: [protocol], ...options }));
		void stream.#read();
		return stream;
	}

	/** Close code that came; 1006 when the connection ended without any. */
	get closeCode(): number {
		return this.socket.closeCode;
	}

	/** Sends one binary frame. */
	write(bytes: Uint8Array): void {
		this.socket.send(bytes);
	}

	pause(): void {
		this.socket.pause();
	}

	resume(): void {
		this.socket.resume();
	}

	/** Sends a close frame. */
	end(): void {
		this.socket.close();
	}

	resetAndDestroy(): void {
		this.socket.stream.resetAndDestroy();
	}

	async #read(): Promise<void> {
		for (let frame = await this.socket.next(); frame; frame = await this.socket.next()) {
			if (frame.opcode === Opcode.binary) this.emit("data", frame.payload);
		}
		this.emit("close");
	}
}
