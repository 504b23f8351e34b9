/** The client ends of the socket contract: a WebSocket client byte by byte, and plain TCP or TLS. */

import { connect as connectTcp, type Socket as TcpSocket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import type { ContractClient } from "../contracts/socket_contract.ts";
import { encodeFrame, Opcode, type RawConnectOptions, RawWebSocket } from "./raw_websocket.ts";

/** Collects bytes for `read`. */
class Inbox {
	#chunks: Uint8Array[] = [];
	#length = 0;
	#ended = false;
	#wakeUp: () => void = () => {};

	push(chunk: Uint8Array): void {
		this.#chunks.push(chunk);
		this.#length += chunk.length;
		this.#wakeUp();
	}

	end(): void {
		this.#ended = true;
		this.#wakeUp();
	}

	async read(length: number): Promise<Buffer> {
		while (this.#length < length && !this.#ended) {
			await new Promise<void>((resolve) => {
				this.#wakeUp = resolve;
			});
		}
		const all = Buffer.concat(this.#chunks);
		const taken = all.subarray(0, length);
		this.#chunks = [all.subarray(taken.length)];
		this.#length = all.length - taken.length;
		return taken;
	}
}

/** Connects over a WebSocket. */
export async function webSocketClient(options: RawConnectOptions): Promise<ContractClient> {
	const socket = await RawWebSocket.connect({ path: "/mqtt?who=me", ...options, headers: { "X-Who": "me", ...options.headers } });
	const inbox = new Inbox();
	const readAll = async () => {
		for (let frame = await socket.next(); frame; frame = await socket.next()) {
			if (frame.opcode === Opcode.binary) inbox.push(frame.payload);
		}
		inbox.end();
	};
	void readAll();
	return {
		localPort: socket.stream.localPort ?? 0,
		write: (bytes) => socket.send(bytes),
		writeTogether: (messages) => socket.sendRaw(Buffer.concat(messages.map((message) => encodeFrame(message)))),
		writeInPieces: (bytes) => {
			// A frame byte by byte, then one message in fragments, one of them empty, around a ping.
			for (const byte of encodeFrame(bytes.subarray(0, 150))) socket.sendRaw(Buffer.of(byte));
			const rest = bytes.subarray(150);
			socket.sendRaw(encodeFrame(rest.subarray(0, 50), { fin: false }));
			socket.sendRaw(encodeFrame(Buffer.from("are you there"), { opcode: Opcode.ping }));
			socket.sendRaw(encodeFrame(new Uint8Array(0), { opcode: Opcode.continuation, fin: false }));
			socket.sendRaw(encodeFrame(rest.subarray(50), { opcode: Opcode.continuation }));
		},
		read: (length) => inbox.read(length),
		pause: () => socket.pause(),
		resume: () => socket.resume(),
		end: () => socket.close(),
		destroy: () => socket.destroy(),
		ended: socket.ended,
		get closeCode() {
			return socket.closeCode;
		},
		sendText: (text) => socket.sendText(text),
	};
}

export interface StreamOptions {
	readonly port: number;
	/** Present: TLS. */
	readonly tls?: ConnectionOptions;
	/** What a proxy in between would write first, before TLS; it gets the port of the client's end. */
	readonly preamble?: (localPort: number) => string | Uint8Array;
}

/** Connects over TCP, or TLS with `tls`. */
export async function streamClient({ port, tls, preamble }: StreamOptions): Promise<ContractClient> {
	const plain = tls && !preamble ? undefined : connectTcp({ host: "127.0.0.1", port });
	if (plain && preamble) {
		await new Promise<void>((resolve, reject) => void plain.once("error", reject).once("connect", () => resolve()));
		plain.write(preamble(plain.localPort ?? 0));
	}
	const stream: TcpSocket = tls ? connectTls({ host: "127.0.0.1", port, ...tls, ...(plain && { socket: plain }) }) : (plain as TcpSocket);
	stream.setNoDelay(true);
	await new Promise<void>((resolve, reject) => {
		stream.once("error", reject);
		if (preamble && !tls) resolve();
		else stream.once(tls ? "secureConnect" : "connect", () => resolve());
	});
	const inbox = new Inbox();
	stream.on("error", () => {});
	stream.on("data", (chunk: Buffer) => inbox.push(chunk));
	const ended = new Promise<void>((resolve) => {
		stream.on("close", () => {
			inbox.end();
			resolve();
		});
	});
	return {
		localPort: (plain ?? stream).localPort ?? 0,
		write: (bytes) => void stream.write(bytes),
		writeTogether: (messages) => void stream.write(Buffer.concat(messages)),
		writeInPieces: (bytes) => {
			for (const byte of bytes) stream.write(Buffer.of(byte));
		},
		read: (length) => inbox.read(length),
		pause: () => void stream.pause(),
		resume: () => void stream.resume(),
		end: () => void stream.end(),
		destroy: () => void stream.destroy(),
		ended,
	};
}
