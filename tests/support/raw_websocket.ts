/**
 * A WebSocket client for tests, byte by byte over `node:net` and `node:tls`: what browsers and libraries would never do
 * (split headers, odd frames, reserved bits, not reading) is an ordinary method here. Knows RFC 6455, nothing of MQTT.
 */

import { createHash, randomBytes } from "node:crypto";
import { connect as connectTcp, type Socket as TcpSocket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";

export const Opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** One frame as it came, or as it shall go. */
export interface RawFrame {
	readonly opcode: number;
	readonly fin: boolean;
	readonly rsv1: boolean;
	readonly payload: Buffer;
}

export interface RawConnectOptions {
	readonly port: number;
	/** Default `127.0.0.1`. */
	readonly host?: string;
	/** Default `/mqtt`. */
	readonly path?: string;
	/** Default `GET`. */
	readonly method?: string;
	/** Subprotocols to offer, default `["mqtt"]`; none when empty. */
	readonly protocols?: readonly string[];
	/** Added to the headers of an upgrade, or in their place; `undefined` leaves one out. Names in any case. */
	readonly headers?: Readonly<Record<string, string | undefined>>;
	/** Bytes sent right behind the request, in the same write. */
	readonly early?: Uint8Array;
	/** Called with the connection before the response is there. */
	readonly onConnected?: (stream: TcpSocket) => void;
	/** Present: TLS. */
	readonly tls?: ConnectionOptions;
}

export interface RawResponse {
	readonly status: number;
	readonly headers: Headers;
	/** Empty after a successful upgrade. */
	readonly body: string;
}

const HEADER_END = Buffer.from("\r\n\r\n");
const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);

/** Encodes one frame of a client. `rsv1` claims compression; an unmasked frame breaks RFC 6455 section 5.1. */
export function encodeFrame(
	payload: Uint8Array,
	options: { readonly opcode?: number; readonly fin?: boolean; readonly rsv1?: boolean; readonly masked?: boolean } = {},
): Buffer {
	const { opcode = Opcode.binary, fin = true, rsv1 = false, masked = true } = options;
	const first = (fin ? 0x80 : 0) | (rsv1 ? 0x40 : 0) | opcode;
	const maskBit = masked ? 0x80 : 0;
	let header: Buffer;
	if (payload.length < 126) {
		header = Buffer.from([first, maskBit | payload.length]);
	} else if (payload.length < 65_536) {
		header = Buffer.from([first, maskBit | 126, payload.length >> 8, payload.length & 0xff]);
	} else {
		header = Buffer.alloc(10);
		header[0] = first;
		header[1] = maskBit | 127;
		header.writeBigUInt64BE(BigInt(payload.length), 2);
	}
	if (!masked) return Buffer.concat([header, payload]);
	const body = Buffer.from(payload);
	for (let index = 0; index < body.length; index++) body[index] = (body[index] as number) ^ (MASK[index & 3] as number);
	return Buffer.concat([header, MASK, body]);
}

/** Sends one HTTP request, an upgrade unless `headers` say otherwise, and answers what the server said to it. */
export async function requestUpgrade(options: RawConnectOptions): Promise<RawResponse> {
	const socket = await RawWebSocket.open(options);
	socket.destroy();
	return socket.response;
}

export class RawWebSocket {
	/** The response to the upgrade request. */
	readonly response: RawResponse;
	/** The connection below, for whatever is missing here. */
	readonly stream: TcpSocket;
	/** Code of the close frame received; 1005 for one without code, 1006 when the connection ended without any. */
	closeCode = 1006;
	/** When false, pings and close frames are not answered. */
	answers = true;
	/** Called for each ping that comes. */
	onPing: () => void = () => {};
	#received: Buffer[] = [];
	#receivedBytes = 0;
	/** Bytes without which no frame is complete. */
	#needed = 0;
	#frames: RawFrame[] = [];
	#waiting: ((frame: RawFrame | undefined) => void)[] = [];
	#ended = false;
	#onEnd: () => void = () => {};
	/** Settles when the connection is gone in both directions. */
	readonly ended: Promise<void>;

	private constructor(stream: TcpSocket, response: RawResponse, rest: Buffer) {
		this.stream = stream;
		this.response = response;
		this.ended = new Promise((resolve) => {
			this.#onEnd = resolve;
		});
		stream.on("data", (chunk: Buffer) => this.#take(chunk));
		stream.on("close", () => this.#end());
		this.#take(rest);
	}

	/** Connects and upgrades; rejects with the status when the server refuses. */
	static async connect(options: RawConnectOptions): Promise<RawWebSocket> {
		const socket = await RawWebSocket.open(options);
		if (socket.response.status === 101) return socket;
		socket.destroy();
		throw new Error(`upgrade refused with ${socket.response.status}: ${socket.response.body}`);
	}

	/** Connects and sends the request; whatever the response is, it is in `response`. */
	static async open(options: RawConnectOptions): Promise<RawWebSocket> {
		const { port, host = "127.0.0.1", path = "/mqtt", method = "GET", protocols = ["mqtt"] } = options;
		const stream = options.tls ? connectTls({ host, port, ...options.tls }) : connectTcp({ host, port });
		stream.setNoDelay(true);
		await new Promise<void>((resolve, reject) => {
			stream.once("error", reject);
			stream.once(options.tls ? "secureConnect" : "connect", () => resolve());
		});
		stream.on("error", () => {});
		const key = randomBytes(16).toString("base64");
		const headers = new Map<string, string | undefined>([
			["host", `${host}:${port}`],
			["upgrade", "websocket"],
			["connection", "Upgrade"],
			["sec-websocket-version", "13"],
			["sec-websocket-key", key],
			["sec-websocket-protocol", protocols.length > 0 ? protocols.join(", ") : undefined],
		]);
		for (const [name, value] of Object.entries(options.headers ?? {})) headers.set(name.toLowerCase(), value);
		const lines = [...headers].filter(([, value]) => value !== undefined).map(([name, value]) => `${name}: ${value}`);
		const head = Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`, "latin1");
		stream.write(Buffer.concat([head, options.early ?? new Uint8Array(0)]));
		options.onConnected?.(stream);
		const { response, rest } = await readResponse(stream, method);
		if (response.status === 101) {
			const expected = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
			const accepted = response.headers.get("sec-websocket-accept");
			if (accepted !== expected) throw new Error(`wrong Sec-WebSocket-Accept "${accepted}", expected "${expected}"`);
		}
		return new RawWebSocket(stream, response, rest);
	}

	/** Subprotocol that the server chose; `undefined` for none. */
	get protocol(): string | undefined {
		return this.response.headers.get("sec-websocket-protocol") ?? undefined;
	}

	/** Sends a binary message in one frame. */
	send(payload: Uint8Array): void {
		this.stream.write(encodeFrame(payload));
	}

	sendText(text: string): void {
		this.stream.write(encodeFrame(Buffer.from(text), { opcode: Opcode.text }));
	}

	/** Sends one binary message in several frames of the given sizes and one more with the rest. */
	sendFragmented(payload: Uint8Array, sizes: readonly number[]): void {
		let offset = 0;
		for (const size of sizes) {
			const opcode = offset === 0 ? Opcode.binary : Opcode.continuation;
			this.stream.write(encodeFrame(payload.subarray(offset, offset + size), { opcode, fin: false }));
			offset += size;
		}
		this.stream.write(encodeFrame(payload.subarray(offset), { opcode: Opcode.continuation }));
	}

	/** Sends bytes as they are: halves of frames, several frames at once, rubbish. */
	sendRaw(bytes: Uint8Array): void {
		this.stream.write(bytes);
	}

	/** The next frame of any kind but ping; `undefined` when the connection ended. */
	next(): Promise<RawFrame | undefined> {
		const frame = this.#frames.shift();
		if (frame || this.#ended) return Promise.resolve(frame);
		return new Promise((resolve) => this.#waiting.push(resolve));
	}

	/** Stops reading from the network, so that the server's sends pile up. */
	pause(): void {
		this.stream.pause();
	}

	resume(): void {
		this.stream.resume();
	}

	/** Sends a close frame. The server answers it and ends the connection. */
	close(code = 1000): void {
		this.stream.write(encodeFrame(Buffer.from([code >> 8, code & 0xff]), { opcode: Opcode.close }));
	}

	/** Drops the connection without a close frame. */
	destroy(): void {
		this.stream.destroy();
	}

	#take(chunk: Buffer): void {
		this.#received.push(chunk);
		this.#receivedBytes += chunk.length;
		// A stalled reader finds megabytes at once: joining them only when a frame is complete keeps this linear.
		if (this.#receivedBytes < this.#needed) return;
		const bytes = this.#received.length === 1 ? (this.#received[0] as Buffer) : Buffer.concat(this.#received);
		let offset = 0;
		for (;;) {
			const size = frameSize(bytes, offset);
			this.#needed = size;
			if (bytes.length - offset < size) break;
			this.#frame(bytes, offset, size);
			offset += size;
		}
		this.#received = [bytes.subarray(offset)];
		this.#receivedBytes = bytes.length - offset;
	}

	#frame(bytes: Buffer, offset: number, size: number): void {
		const first = bytes[offset] as number;
		const short = (bytes[offset + 1] as number) & 0x7f;
		const payload = bytes.subarray(offset + (short < 126 ? 2 : short === 126 ? 4 : 10), offset + size);
		const frame: RawFrame = { opcode: first & 0x0f, fin: (first & 0x80) !== 0, rsv1: (first & 0x40) !== 0, payload };
		if (frame.opcode === Opcode.ping) {
			this.onPing();
			if (this.answers) this.stream.write(encodeFrame(payload, { opcode: Opcode.pong }));
			return;
		}
		if (frame.opcode === Opcode.close) {
			this.closeCode = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
			if (this.answers) this.stream.write(encodeFrame(payload.subarray(0, 2), { opcode: Opcode.close }));
		}
		const waiter = this.#waiting.shift();
		if (waiter) waiter(frame);
		else this.#frames.push(frame);
	}

	#end(): void {
		this.#ended = true;
		for (const waiter of this.#waiting.splice(0)) waiter(undefined);
		this.#onEnd();
	}
}

/** Bytes of the frame that begins at `offset`; with an incomplete header, the least that it can be. */
function frameSize(bytes: Buffer, offset: number): number {
	const available = bytes.length - offset;
	if (available < 2) return 2;
	const short = (bytes[offset + 1] as number) & 0x7f;
	if (short < 126) return 2 + short;
	if (short === 126) return available < 4 ? 4 : 4 + bytes.readUInt16BE(offset + 2);
	return available < 10 ? 10 : 10 + Number(bytes.readBigUInt64BE(offset + 2));
}

/** Reads an HTTP response: up to its end where it has a body, up to the header's end after an upgrade. */
function readResponse(stream: TcpSocket, method: string): Promise<{ response: RawResponse; rest: Buffer }> {
	return new Promise((resolve, reject) => {
		let bytes = Buffer.alloc(0);
		const done = (status: number, headers: Headers, body: string, rest: Buffer) => {
			stream.off("data", onData);
			stream.off("close", onClose);
			resolve({ response: { status, headers, body }, rest });
		};
		const onData = (chunk: Buffer) => {
			bytes = Buffer.concat([bytes, chunk]);
			const end = bytes.indexOf(HEADER_END);
			if (end < 0) return;
			const [statusLine = "", ...lines] = bytes.subarray(0, end).toString("latin1").split("\r\n");
			const status = Number(statusLine.split(" ")[1]);
			const headers = new Headers(lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]));
			const rest = bytes.subarray(end + HEADER_END.length);
			const length = status === 101 || method === "HEAD" ? 0 : Number(headers.get("content-length") ?? 0);
			if (status === 101) done(status, headers, "", rest);
			else if (rest.length >= length) done(status, headers, rest.subarray(0, length).toString(), rest.subarray(length));
		};
		const onClose = () => reject(new Error(`connection ended after ${bytes.length} bytes of a response`));
		stream.on("data", onData);
		stream.on("close", onClose);
	});
}
