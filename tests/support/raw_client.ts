/**
 * A client that sends exactly what a test says and shows exactly what comes, packet by packet. Bytes are made and read by
 * mqtt-packet, so that the broker's own codec is not its own judge. Does nothing by itself: no acks, no pings.
 */

import assert from "node:assert/strict";
import { connect as connectSocket } from "node:net";
import { generate, type IConnectPacket, type Packet, parser } from "mqtt-packet";
import { WebSocketStream } from "./websocket_stream.ts";

const TIMEOUT_MS = 10_000;

/** A packet as mqtt-packet shows it, loosely typed: tests look at what they name. */
// biome-ignore lint/suspicious/noExplicitAny: every test asserts on other fields
export type AnyPacket = any;

export type Version = 3 | 4 | 5;
export type Transport = "tcp" | "ws";

/** Ports of a broker; `wsPort` is needed for `ws` only. */
export interface Target {
	readonly tcpPort: number;
	readonly wsPort?: number;
}

/** What a client runs on: a TCP socket, or a WebSocket that looks like one. */
export interface ByteSocket {
	/** WebSocket only. */
	readonly closeCode?: number;
	write(bytes: Uint8Array): unknown;
	pause(): unknown;
	resume(): unknown;
	end(): unknown;
	resetAndDestroy(): unknown;
	on(event: "data" | "error" | "close", listener: (data: Buffer) => void): unknown;
}

export interface ConnectOptions {
	readonly version?: Version;
	/** Default `tcp`. */
	readonly transport?: Transport;
	readonly clientId?: string;
	readonly clean?: boolean;
	readonly keepalive?: number;
	readonly username?: string;
	readonly password?: Buffer | string;
	readonly will?: AnyPacket;
	readonly properties?: AnyPacket;
}

let counter = 0;

/** Client id that no other test has. */
export function freshId(prefix = "client"): string {
	return `${prefix}-${process.pid}-${++counter}`;
}

export class RawClient {
	readonly #socket: ByteSocket;
	readonly #received: AnyPacket[] = [];
	/** Called with every packet and with the end. */
	readonly #waiting = new Set<() => void>();
	#closed = false;
	#version: Version;
	/** All bytes that came. */
	readonly bytes: Buffer[] = [];

	private constructor(socket: ByteSocket, version: Version) {
		this.#socket = socket;
		this.#version = version;
		const decoder = parser({ protocolVersion: version });
		decoder.on("packet", (packet) => this.#push(packet));
		decoder.on("error", (error) => this.#push({ cmd: "undecodable", error }));
		socket.on("data", (data: Buffer) => {
			this.bytes.push(data);
			decoder.parse(data);
		});
		socket.on("error", () => {});
		socket.on("close", () => {
			this.#closed = true;
			for (const wake of this.#waiting) wake();
		});
	}

	/** Opens a connection and sends nothing. `version` is how packets are made and read. */
	static async open(target: Target, version: Version = 5, transport: Transport = "tcp"): Promise<RawClient> {
		if (transport === "ws") {
			return new RawClient(await WebSocketStream.connect(target.wsPort ?? 0, version === 3 ? "mqttv3.1" : "mqtt"), version);
		}
		const socket = connectSocket({ host: "127.0.0.1", port: target.tcpPort });
		socket.setNoDelay(true);
		await new Promise<void>((resolve, reject) => {
			socket.once("connect", resolve);
			socket.once("error", reject);
		});
		return new RawClient(socket, version);
	}

	/** Speaks over a connection that is open already, such as a TLS socket or a `WebSocketStream`. Sends nothing. */
	static over(socket: ByteSocket, version: Version = 5): RawClient {
		return new RawClient(socket, version);
	}

	/** Opens a connection and connects; fails unless the CONNACK says success. The CONNACK is `client.connack`. */
	static async connect(target: Target, options: ConnectOptions = {}): Promise<RawClient> {
		const client = await RawClient.open(target, options.version ?? 5, options.transport);
		client.sendConnect(options);
		const connack = await client.expect("connack");
		assert.equal(connack.reasonCode ?? connack.returnCode, 0, "CONNACK says success");
		client.connack = connack;
		return client;
	}

	connack: AnyPacket;

	get closed(): boolean {
		return this.#closed;
	}

	/** WebSocket close code that came, 1006 for none; `undefined` over TCP. */
	get closeCode(): number | undefined {
		return this.#socket.closeCode;
	}

	sendConnect(options: ConnectOptions = {}): void {
		const { clientId = freshId(), clean = true, keepalive = 0, username, password, will, properties } = options;
		this.send({
			cmd: "connect",
			protocolId: this.#version === 3 ? "MQIsdp" : "MQTT",
			protocolVersion: this.#version,
			clientId,
			clean,
			keepalive,
			...(username !== undefined && { username }),
			...(password !== undefined && { password }),
			...(will !== undefined && { will }),
			...(properties !== undefined && { properties }),
		} as IConnectPacket);
	}

	send(packet: AnyPacket): void {
		this.#socket.write(generate(packet as Packet, { protocolVersion: this.#version }));
	}

	/** Sends several packets in one write. */
	sendTogether(...packets: AnyPacket[]): void {
		this.#socket.write(Buffer.concat(packets.map((packet) => generate(packet as Packet, { protocolVersion: this.#version }))));
	}

	/** Sends bytes as they are; a string is hex, blanks ignored. */
	sendBytes(bytes: string | Uint8Array): void {
		this.#socket.write(typeof bytes === "string" ? Buffer.from(bytes.replaceAll(/\s/g, ""), "hex") : bytes);
	}

	/** Next packet, whatever it is. Fails when the connection closes or nothing comes for ten seconds. */
	async receive(): Promise<AnyPacket> {
		await this.#wait(() => this.#received.length > 0 || this.#closed);
		const packet = this.#received.shift();
		assert.ok(packet !== undefined, this.#closed ? "the connection was closed instead of a packet" : "no packet came within 10 s");
		return packet;
	}

	/** Next packet, which must be of this kind and have these fields. */
	async expect(cmd: string, fields: AnyPacket = {}): Promise<AnyPacket> {
		const packet = await this.receive();
		assert.equal(packet.cmd, cmd, `expected ${cmd}, got ${JSON.stringify(packet)}`);
		for (const [name, value] of Object.entries(fields)) assert.deepEqual(plain(packet[name]), value, `${cmd}.${name}`);
		return packet;
	}

	/** Waits until the broker has closed the connection; fails if a packet comes first. */
	async expectClosed(): Promise<void> {
		await this.#wait(() => this.#received.length > 0 || this.#closed);
		assert.deepEqual(this.#received, [], "no packet before the close");
		assert.ok(this.#closed, "the connection is closed within 10 s");
	}

	/** DISCONNECT with this reason code (v5), then the close; for older versions just the close. */
	async expectDisconnect(reasonCode: number): Promise<void> {
		if (this.#version === 5) await this.expect("disconnect", { reasonCode });
		await this.expectClosed();
	}

	/** All packets that come until the broker closes the connection. */
	async receiveUntilClosed(): Promise<AnyPacket[]> {
		await this.#wait(() => this.#closed);
		assert.ok(this.#closed, "the connection is closed within 10 s");
		return this.#received.splice(0);
	}

	/**
	 * Makes sure that nothing is on its way: a PINGREQ is answered by PINGRESP and by nothing before it.
	 * (The broker answers in order, so what it had sent would come first.)
	 */
	async expectNothing(): Promise<void> {
		this.send({ cmd: "pingreq" });
		const packet = await this.receive();
		assert.equal(packet.cmd, "pingresp", `expected nothing, got ${JSON.stringify(packet)}`);
	}

	/** Subscribes and answers the SUBACK. Retained messages come after it. */
	async subscribe(topic: string, options: AnyPacket = {}, properties?: AnyPacket): Promise<AnyPacket> {
		const messageId = ++counter % 60_000 || 1;
		const subscription = { topic, qos: 0, nl: false, rap: false, rh: 0, ...options };
		this.send({ cmd: "subscribe", messageId, subscriptions: [subscription], ...(properties !== undefined && { properties }) });
		return this.expect("suback", { messageId });
	}

	publish(topic: string, payload: string | Buffer, fields: AnyPacket = {}): void {
		this.send({ cmd: "publish", topic, payload, qos: 0, retain: false, dup: false, ...fields });
	}

	/** Publishes with QoS 1 and waits for the PUBACK, or with QoS 2 and completes the flow. */
	async publishAcked(topic: string, payload: string | Buffer, fields: AnyPacket = {}): Promise<AnyPacket> {
		const qos = fields.qos ?? 1;
		const messageId = fields.messageId ?? (++counter % 60_000 || 1);
		this.publish(topic, payload, { ...fields, qos, messageId });
		if (qos === 1) return this.expect("puback", { messageId });
		await this.expect("pubrec", { messageId });
		this.send({ cmd: "pubrel", messageId });
		return this.expect("pubcomp", { messageId });
	}

	/** Ends in order, so that no will is published. */
	async disconnect(fields: AnyPacket = {}): Promise<void> {
		this.send({ cmd: "disconnect", ...fields });
		await this.#wait(() => this.#closed);
	}

	/** Ends its side of the connection in order (FIN) after what was sent, without DISCONNECT. */
	end(): void {
		this.#socket.end();
	}

	/** Breaks the connection without DISCONNECT. */
	async destroy(): Promise<void> {
		this.#socket.resetAndDestroy();
		await this.#wait(() => this.#closed);
	}

	/** Stops or goes on reading from the socket. */
	pause(): void {
		this.#socket.pause();
	}

	resume(): void {
		this.#socket.resume();
	}

	#push(packet: AnyPacket): void {
		this.#received.push(packet);
		for (const wake of this.#waiting) wake();
	}

	async #wait(ready: () => boolean): Promise<void> {
		const deadline = Date.now() + TIMEOUT_MS;
		while (!ready() && Date.now() < deadline) {
			await new Promise<void>((resolve) => {
				const wake = () => {
					clearTimeout(timer);
					this.#waiting.delete(wake);
					resolve();
				};
				const timer = setTimeout(wake, deadline - Date.now());
				this.#waiting.add(wake);
			});
		}
	}
}

/** Buffers as text, so that `deepEqual` reads well. */
function plain(value: unknown): unknown {
	return value instanceof Uint8Array ? Buffer.from(value).toString() : value;
}
