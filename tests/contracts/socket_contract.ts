/**
 * What every transport owes the broker, whatever the runtime and whatever is below: a lossless byte stream with
 * backpressure [MQTT-4.2-1], and ends that are told once. One suite; `open` starts a real listener.
 */

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Accept, CloseKind, Listener, PeerInfo, Socket } from "../../src/transport/socket.ts";
import { assertPattern, pattern } from "../support/pattern.ts";
import { RecordingHandler, within } from "../support/recording_handler.ts";

/** The other end of a connection, seen as a byte stream. */
export interface ContractClient {
	/** Port of the client's end. */
	readonly localPort: number;
	/** Sends bytes, as one message where there are messages. */
	write(bytes: Uint8Array): void;
	/** Sends several messages in one piece, where there are messages. */
	writeTogether(messages: readonly Uint8Array[]): void;
	/** Sends bytes cut without regard to messages: byte by byte where the transport has frames. */
	writeInPieces(bytes: Uint8Array): void;
	/** Reads exactly so many bytes; fewer when the connection ends before. */
	read(length: number): Promise<Buffer>;
	/** Stops reading from the network. */
	pause(): void;
	resume(): void;
	/** Ends the connection in order. */
	end(): void;
	/** Drops the connection. */
	destroy(): void;
	/** Settles when the connection is gone. */
	readonly ended: Promise<void>;
	/** WebSocket close code that came, 1006 for none. */
	readonly closeCode?: number;
	sendText?(text: string): void;
}

export interface ContractSubject {
	readonly listener: Listener;
	connect(): Promise<ContractClient>;
}

/** What a transport is, and what it cannot do. */
export interface ContractTraits {
	readonly transport: PeerInfo["transport"];
	/** `pause` stops the reading. */
	readonly pauses: boolean;
	/** The listener is ours, so that `stop` leaves connections alone. */
	readonly stops: boolean;
	/** `terminate` frees the connection even when the peer reads nothing. */
	readonly terminates: boolean;
}

const CLOSE_CODES: readonly (readonly [CloseKind, number])[] = [
	["normal", 1000],
	["protocolError", 1002],
	["unsupportedData", 1003],
	["policy", 1008],
	["tooLarge", 1009],
	["restart", 1012],
	["busy", 1013],
];
/** More than the kernel's buffers of both ends take, with what the tests let wait. */
const MUCH_BYTES = 64 * 1024 * 1024;

/** One connection: both ends. */
interface Pair {
	readonly client: ContractClient;
	readonly socket: Socket;
	readonly handler: RecordingHandler;
}

/** Defines the suite. `open` is called once; the listener ends with the suite. */
export function socketContract(name: string, traits: ContractTraits, open: (accept: Accept) => Promise<ContractSubject>): void {
	describe(`socket over ${name}`, () => {
		const accepted: { resolve: (end: Omit<Pair, "client">) => void; refuse: boolean }[] = [];
		const clients: ContractClient[] = [];
		const subject = open((socket) => {
			const next = accepted.shift();
			const handler = new RecordingHandler();
			next?.resolve({ socket, handler });
			return next?.refuse ? undefined : handler;
		});
		after(async () => {
			for (const client of clients) client.destroy();
			await (await subject).listener.stop();
		});

		const connect = async (refuse = false): Promise<Pair> => {
			const { connect: dial } = await subject;
			const end = new Promise<Omit<Pair, "client">>((resolve) => accepted.push({ resolve, refuse }));
			const client = await dial();
			clients.push(client);
			return { client, ...(await within(end, "the connection to be accepted")) };
		};
		/** Sends until the peer's not reading shows. Answers the bytes taken. */
		const sendUntil = async (socket: Socket, enough: () => boolean): Promise<number> => {
			const chunk = Buffer.alloc(65_536);
			let total = 0;
			while (!enough()) {
				assert.ok(total < MUCH_BYTES, "the stalled reader was never noticed");
				chunk.set(pattern(chunk.length, total));
				assert.notEqual(socket.send(chunk), "dropped");
				total += chunk.length;
				chunk.fill(0xee);
				await new Promise((resolve) => setImmediate(resolve));
			}
			return total;
		};

		test("10,000 chunks of a client arrive whole, in order, and stay as they are [MQTT-4.2-1]", async () => {
			const { client, handler } = await connect();
			let total = 0;
			for (let index = 0; index < 10_000; index++) {
				const length = 1 + ((index * 37) % 400);
				client.write(pattern(length, total));
				total += length;
				if (index % 500 === 0) await new Promise((resolve) => setImmediate(resolve));
			}
			await handler.until("all bytes", () => handler.bytes >= total);
			assert.equal(handler.bytes, total);
			assertPattern(handler.data());
			assert.ok(handler.chunks.every((chunk) => chunk.length > 0));
		});

		test("10,000 chunks of the server arrive whole and in order [MQTT-4.2-1]", async () => {
			const { client, socket } = await connect();
			let total = 0;
			for (let index = 0; index < 10_000; index++) {
				const length = 1 + ((index * 53) % 400);
				assert.notEqual(socket.send(pattern(length, total)), "dropped");
				total += length;
				if (index % 500 === 0) await new Promise((resolve) => setImmediate(resolve));
			}
			const received = await within(client.read(total), "all bytes");
			assert.equal(received.length, total);
			assertPattern(received);
		});

		test("bytes that come in pieces, and chunks larger than any buffer, are the same stream [MQTT-6.0.0-2]", async () => {
			const { client, handler } = await connect();
			client.writeInPieces(pattern(300));
			client.write(pattern(2_000_000, 300));
			client.write(new Uint8Array(0));
			client.write(pattern(1, 2_000_300));
			await handler.until("all bytes", () => handler.bytes >= 2_000_301);
			assert.equal(handler.bytes, 2_000_301);
			assertPattern(handler.data());
		});

		test("send: chunks of every header size arrive whole", async () => {
			const { client, socket } = await connect();
			let total = 0;
			for (const length of [1, 125, 126, 127, 65_535, 65_536, 1_000_000]) {
				assert.notEqual(socket.send(pattern(length, total)), "dropped");
				total += length;
			}
			const received = await within(client.read(total), "all bytes");
			assert.equal(received.length, total);
			assertPattern(received);
		});

		test("send: answers queued for a stalled reader, tells what waits, drains after it reads, and loses nothing", async () => {
			const { client, socket, handler } = await connect();
			client.pause();
			const waiting = 16 * 1024 * 1024;
			const total = await sendUntil(socket, () => socket.bufferedAmount >= waiting);
			assert.equal(socket.send(pattern(1, total)), "queued");
			assert.ok(socket.bufferedAmount >= waiting);
			// While the kernel still took everything, TLS may have drained a few times.
			const drained = handler.count("drain");
			let waitingAtDrain = -1;
			handler.onDrain = () => {
				waitingAtDrain = socket.bufferedAmount;
				RecordingHandler.prototype.onDrain.call(handler);
			};
			client.resume();
			const received = await within(client.read(total + 1), "all bytes");
			assert.equal(received.length, total + 1);
			assertPattern(received);
			await handler.until("onDrain", () => handler.count("drain") > drained);
			assert.equal(handler.count("drain"), drained + 1);
			assert.equal(waitingAtDrain, 0);
			assert.equal(socket.bufferedAmount, 0);
			assert.equal(socket.send(pattern(1, 0)), "sent");
		});

		test("send: the caller may reuse its buffer at once, also while the peer reads nothing", async () => {
			const { client, socket } = await connect();
			client.pause();
			const buffer = new Uint8Array(300_000);
			for (let round = 0; round < 40; round++) {
				buffer.set(pattern(buffer.length, round * buffer.length));
				assert.notEqual(socket.send(buffer), "dropped");
			}
			buffer.fill(0xee);
			client.resume();
			const received = await within(client.read(40 * buffer.length), "all bytes");
			assert.equal(received.length, 40 * buffer.length);
			assertPattern(received);
		});

		test("peer: transport, address and port are those of the client", async () => {
			const { client, socket } = await connect();
			assert.equal(socket.peer.transport, traits.transport);
			assert.equal(socket.peer.address, "127.0.0.1");
			assert.equal(socket.peer.port, client.localPort);
			assert.equal(socket.peer.certificate, undefined);
		});

		test("close: what was sent before arrives first, then the end, and onClose comes once", async () => {
			const { client, socket, handler } = await connect();
			client.pause();
			const total = await sendUntil(socket, () => socket.bufferedAmount >= 1024 * 1024);
			const drained = handler.events.length;
			socket.close("restart");
			socket.close("normal");
			assert.equal(socket.send(pattern(1)), "dropped");
			client.resume();
			const received = await within(client.read(total + 1), "all bytes and the end");
			assert.equal(received.length, total);
			assertPattern(received);
			await within(client.ended, "the end");
			if (client.closeCode !== undefined) assert.equal(client.closeCode, 1012);
			await handler.until("onClose", () => handler.count("close") > 0);
			socket.close("normal");
			socket.terminate();
			await new Promise((resolve) => setTimeout(resolve, 50));
			assert.deepEqual(handler.events.slice(drained), ["close"]);
			assert.equal(socket.bufferedAmount, 0);
		});

		test("close: onClose does not come within the call", async () => {
			const { socket, handler } = await connect();
			socket.close("normal");
			assert.equal(handler.count("close"), 0);
			await handler.until("onClose", () => handler.count("close") === 1);
		});

		test("close: a client that goes on sending is told nothing more of, and learns of the close", async () => {
			const { client, socket, handler } = await connect();
			client.write(pattern(10));
			await handler.until("data", () => handler.bytes === 10);
			socket.close("policy");
			for (let index = 0; index < 50; index++) client.write(pattern(10_000));
			await within(client.ended, "the end");
			await handler.until("onClose", () => handler.count("close") === 1);
			if (client.closeCode !== undefined) assert.equal(client.closeCode, 1008);
			assert.deepEqual(handler.events, ["data", "close"]);
		});

		test("close: while a stalled reader keeps it waiting, what the client sends is not told", async () => {
			const { client, socket, handler } = await connect();
			client.pause();
			await sendUntil(socket, () => socket.bufferedAmount >= 1024 * 1024);
			const before = handler.events.length;
			socket.close("normal");
			client.write(pattern(10));
			await new Promise((resolve) => setTimeout(resolve, 50));
			socket.terminate();
			await handler.until("onClose", () => handler.count("close") === 1);
			assert.deepEqual(handler.events.slice(before), ["close"]);
		});

		test("close: ends a paused connection, too", async () => {
			const { client, socket, handler } = await connect();
			socket.pause();
			client.write(pattern(100_000));
			socket.close("normal");
			await within(client.ended, "the end");
			await handler.until("onClose", () => handler.count("close") === 1);
			if (client.closeCode !== undefined) assert.equal(client.closeCode, 1000);
		});

		for (const end of ["close", "terminate"] as const) {
			test(`${end}: from within onData, nothing more comes of what arrived together`, async () => {
				const { client, socket, handler } = await connect();
				handler.onData = (bytes) => {
					RecordingHandler.prototype.onData.call(handler, bytes);
					if (end === "close") socket.close("normal");
					else socket.terminate();
				};
				client.writeTogether([pattern(10), pattern(10), pattern(10)]);
				await handler.until("onClose", () => handler.count("close") === 1);
				assert.deepEqual(handler.events, ["data", "close"]);
			});
		}

		test("terminate: onClose comes once and nothing follows", async () => {
			const { client, socket, handler } = await connect();
			socket.terminate();
			socket.terminate();
			assert.equal(socket.send(pattern(1)), "dropped");
			await handler.until("onClose", () => handler.count("close") === 1);
			await within(client.ended, "the end");
			socket.close("normal");
			await new Promise((resolve) => setTimeout(resolve, 50));
			assert.deepEqual(handler.events, ["close"]);
			assert.equal(socket.send(pattern(1)), "dropped");
			assert.equal(socket.bufferedAmount, 0);
		});

		test("terminate: a stalled reader is dropped with what waits for it", async () => {
			const { client, socket, handler } = await connect();
			client.pause();
			const total = await sendUntil(socket, () => socket.bufferedAmount >= 8 * 1024 * 1024);
			socket.terminate();
			await handler.until("onClose", () => handler.count("close") === 1);
			if (!traits.terminates) return;
			client.resume();
			const received = await within(client.read(total), "the end");
			assert.ok(received.length < total, `all ${total} bytes arrived`);
			await within(client.ended, "the end");
		});

		test("close: a peer that reads nothing is given up after a while", async (context) => {
			const { client, socket, handler } = await connect();
			client.pause();
			await sendUntil(socket, () => socket.bufferedAmount >= 1024 * 1024);
			context.mock.timers.enable({ apis: ["setTimeout"] });
			socket.close("busy");
			await new Promise((resolve) => setImmediate(resolve));
			const early = handler.count("close");
			context.mock.timers.tick(60_000);
			context.mock.timers.reset();
			await handler.until("onClose", () => handler.count("close") === 1);
			if (traits.terminates) assert.equal(early, 0);
		});

		test("terminate: cuts a close that the peer does not let end", async () => {
			const { client, socket, handler } = await connect();
			client.pause();
			const total = await sendUntil(socket, () => socket.bufferedAmount >= 8 * 1024 * 1024);
			socket.close("busy");
			socket.terminate();
			await handler.until("onClose", () => handler.count("close") === 1);
			if (!traits.terminates) return;
			client.resume();
			const received = await within(client.read(total), "the end");
			assert.ok(received.length < total, `all ${total} bytes arrived`);
		});

		test("onClose: comes once when the client ends in order, after all its data", async () => {
			const { client, handler } = await connect();
			client.write(pattern(70_000));
			client.end();
			await handler.until("onClose", () => handler.count("close") === 1);
			await within(client.ended, "the end");
			assert.equal(handler.bytes, 70_000);
			assertPattern(handler.data());
			assert.equal(handler.events.at(-1), "close");
			assert.equal(handler.count("close"), 1);
		});

		test("onClose: comes once when the client vanishes", async () => {
			const { client, socket, handler } = await connect();
			client.destroy();
			await handler.until("onClose", () => handler.count("close") === 1);
			socket.terminate();
			socket.close("normal");
			assert.equal(socket.send(pattern(1)), "dropped");
			await new Promise((resolve) => setTimeout(resolve, 50));
			assert.deepEqual(handler.events, ["close"]);
		});

		test("accept: a connection without a handler is closed", async () => {
			const { client, handler } = await connect(true);
			await within(client.ended, "the end");
			if (client.closeCode !== undefined) assert.equal(client.closeCode, 1013);
			assert.deepEqual(handler.events, []);
		});

		// A foreign listener has its own way.
		if (traits.stops) {
			test("stop: connections stay, new ones find no listener", async () => {
				const opened = Promise.withResolvers<Omit<Pair, "client">>();
				const own = await open((socket) => {
					const handler = new RecordingHandler();
					opened.resolve({ socket, handler });
					return handler;
				});
				const client = await own.connect();
				clients.push(client);
				const { socket, handler } = await within(opened.promise, "the connection to be accepted");
				await own.listener.stop();
				await assert.rejects(async () => clients.push(await within(own.connect(), "the refusal")), /ECONNREFUSED|refused/i);
				client.write(pattern(10));
				await handler.until("data", () => handler.bytes === 10);
				socket.send(pattern(10));
				assertPattern(await within(client.read(10), "data"));
				assert.equal(handler.count("close"), 0);
			});
		}

		test("pause: nothing arrives until resume, where the runtime can stop reading, and in the end everything does", async () => {
			const { client, socket, handler } = await connect();
			client.write(pattern(10));
			await handler.until("data", () => handler.bytes === 10);
			socket.pause();
			const before = handler.bytes;
			client.write(pattern(100_000, 10));
			await new Promise((resolve) => setTimeout(resolve, 100));
			if (traits.pauses) assert.equal(handler.bytes, before);
			socket.resume();
			await handler.until("all bytes", () => handler.bytes === 100_010);
			assertPattern(handler.data());
		});

		if (traits.transport !== "ws" && traits.transport !== "wss") return;

		for (const [kind, code] of CLOSE_CODES) {
			test(`close: "${kind}" is close code ${code}`, async () => {
				const { client, socket, handler } = await connect();
				socket.close(kind);
				await within(client.ended, "the end");
				assert.equal(client.closeCode, code);
				await handler.until("onClose", () => handler.count("close") === 1);
			});
		}

		test("terminate: no close frame is sent, unless closing is all that the runtime can do", async () => {
			const { client, socket } = await connect();
			socket.terminate();
			await within(client.ended, "the end");
			if (traits.terminates) assert.equal(client.closeCode, 1006);
		});

		test("onText: a text frame is told as such and is no data [MQTT-6.0.0-1]", async () => {
			const { client, socket, handler } = await connect();
			client.write(pattern(10));
			client.sendText?.("hello");
			await handler.until("onText", () => handler.count("text") === 1);
			assert.deepEqual(handler.events, ["data", "text"]);
			assert.equal(handler.bytes, 10);
			socket.close("unsupportedData");
			await within(client.ended, "the end");
			assert.equal(client.closeCode, 1003);
		});

		test("peer: URL and headers of the upgrade stay readable", async () => {
			const { socket } = await connect();
			await new Promise((resolve) => setTimeout(resolve, 20));
			assert.match(socket.peer.request?.url ?? "", /\/mqtt\?who=me$/);
			assert.equal(socket.peer.request?.headers.get("X-Who"), "me");
		});
	});
}
