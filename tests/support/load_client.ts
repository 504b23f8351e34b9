/**
 * Clients for runs under faults: each keeps its session over any number of connections, comes back until it is told to stop,
 * sends again what is unacknowledged, and writes into a history what it sees. Packets are made and read by mqtt-packet.
 */

import { createHash } from "node:crypto";
import { connect as connectTcp } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { generate, type Packet, parser } from "mqtt-packet";
import type { HistoryEvent } from "./history.ts";
import type { AnyPacket } from "./raw_client.ts";
import { Opcode, RawWebSocket } from "./raw_websocket.ts";

/** Between two attempts to connect. */
const RETRY_MS = 20;
/** A connection attempt that hears nothing for so long is given up. */
const CONNACK_MS = 10_000;
const SESSION_SECONDS = 3600;
const MAX_PACKET_ID = 65_535;
/** Length of one payload in fifty; the others are small. */
const LARGE = 20_000;

export interface LoadOptions {
	readonly clientId: string;
	readonly version: 4 | 5;
	readonly transport: "ws" | "tcp";
	readonly ports: { readonly PORT: string; readonly MQTT_TCP_PORT: string };
	/** Where to write what happens. */
	readonly events: HistoryEvent[];
	/** A will below `load/will`: it is nobody's publication, so that whoever gets it breaks the history. */
	readonly will?: boolean;
}

interface Wire {
	send(bytes: Uint8Array): void;
	destroy(): void;
	readonly closed: Promise<void>;
}

/** A client with a session that outlives its connections. */
abstract class LoadClient {
	protected readonly options: LoadOptions;
	/** Counts the connections that had a CONNACK. */
	protected connection = 0;
	#wire: Wire | undefined;
	#established = false;
	#running = false;
	#ended: Promise<void> = Promise.resolve();

	constructor(options: LoadOptions) {
		this.options = options;
	}

	/** Whether packets can be sent. */
	get connected(): boolean {
		return this.#established;
	}

	/** Connects, and connects again whenever the connection is lost. */
	start(): void {
		this.#running = true;
		this.#ended = this.#run();
	}

	/** Loses the connection, to come back at once. */
	cut(): void {
		this.#wire?.destroy();
	}

	/** Goes, with its session kept, until the next `start`. */
	async stop(): Promise<void> {
		this.#running = false;
		if (this.#established) this.send({ cmd: "disconnect" });
		this.#wire?.destroy();
		await this.#ended;
	}

	protected record(event: HistoryEvent): void {
		this.options.events.push(event);
	}

	protected broken(rule: string): void {
		this.record({ kind: "broken", client: this.options.clientId, rule });
	}

	protected send(packet: AnyPacket): void {
		this.#wire?.send(generate(packet as Packet, { protocolVersion: this.options.version }));
	}

	/** Properties for the CONNECT, MQTT 5 only. */
	protected get properties(): AnyPacket {
		return { sessionExpiryInterval: SESSION_SECONDS };
	}

	/** CONNACK came. */
	protected abstract onConnected(sessionPresent: boolean): void;
	protected abstract onPacket(packet: AnyPacket): void;

	async #run(): Promise<void> {
		while (this.#running) {
			try {
				await this.#connect();
			} catch {
				// Nobody listens at the moment.
			}
			this.#wire = undefined;
			if (this.#established) this.record({ kind: "closed", client: this.options.clientId, connection: this.connection });
			this.#established = false;
			if (this.#running) await sleep(RETRY_MS);
		}
	}

	async #connect(): Promise<void> {
		const { clientId, version, transport, ports, will = false } = this.options;
		const decoder = parser({ protocolVersion: version });
		const wire = await openWire(transport, Number(transport === "ws" ? ports.PORT : ports.MQTT_TCP_PORT), (bytes) => decoder.parse(bytes));
		this.#wire = wire;
		// It may have been told to stop in the meantime, when there was nothing to destroy yet.
		if (!this.#running) wire.destroy();
		const timer = setTimeout(() => wire.destroy(), CONNACK_MS);
		decoder.on("error", (error) => this.broken(`a packet cannot be read: ${error.message}`));
		decoder.on("packet", (packet: AnyPacket) => {
			if (packet.cmd !== "connack") this.onPacket(packet);
			else if ((packet.reasonCode ?? packet.returnCode) !== 0) wire.destroy();
			else {
				clearTimeout(timer);
				this.#established = true;
				this.connection++;
				this.record({ kind: "connected", client: clientId, sessionPresent: packet.sessionPresent });
				this.onConnected(packet.sessionPresent);
			}
		});
		const properties = version === 5 ? { properties: this.properties } : {};
		this.send({
			cmd: "connect",
			protocolId: "MQTT",
			protocolVersion: version,
			clientId,
			clean: false,
			keepalive: 0,
			...properties,
			...(will && willOf(clientId)),
		});
		await wire.closed;
		clearTimeout(timer);
	}
}

interface OpenPublication {
	readonly seq: number;
	/** PUBREC came: only the PUBREL is sent again. */
	received: boolean;
}

/** Publishes numbered messages as fast as it is asked to and the broker acknowledges. */
export class LoadPublisher extends LoadClient {
	/** QoS of one message after the other. */
	readonly #pattern: readonly (1 | 2)[];
	readonly #window: number;
	/** By packet id, in the order in which they were first sent. */
	readonly #open = new Map<number, OpenPublication>();
	#seq = 0;
	#packetId = 0;

	constructor(options: LoadOptions, { pattern, window }: { readonly pattern: readonly (1 | 2)[]; readonly window: number }) {
		super(options);
		this.#pattern = pattern;
		this.#window = window;
	}

	/** Publications that are not done yet. */
	get open(): number {
		return this.#open.size;
	}

	/** Publishes so many more messages, fewer when that many are unacknowledged or there is no connection. */
	publish(count: number): void {
		for (let i = 0; i < count && this.connected && this.#open.size < this.#window; i++) {
			const packetId = this.#nextPacketId();
			this.#open.set(packetId, { seq: this.#seq++, received: false });
			this.#publish(packetId, this.#seq - 1, false);
		}
	}

	protected override onConnected(): void {
		for (const [packetId, { seq, received }] of this.#open) {
			if (received) this.send({ cmd: "pubrel", messageId: packetId });
			else this.#publish(packetId, seq, true);
		}
	}

	protected override onPacket({ cmd, messageId, reasonCode = 0 }: AnyPacket): void {
		const open = this.#open.get(messageId);
		if (cmd === "disconnect") return;
		if (open === undefined || (cmd === "pubcomp" && !open.received)) this.broken(`${cmd} for packet id ${messageId}, which is not open`);
		else if (cmd !== "pubcomp" && reasonCode >= 0x80) this.broken(`${cmd} with reason code ${reasonCode}`);
		else if (cmd === "puback" || cmd === "pubrec") {
			if (this.#qosOf(open.seq) !== (cmd === "puback" ? 1 : 2)) this.broken(`${cmd} for the wrong QoS`);
			if (!open.received) this.record({ kind: "acknowledged", client: this.options.clientId, seq: open.seq });
			open.received = true;
			if (cmd === "pubrec") this.send({ cmd: "pubrel", messageId });
			else this.#open.delete(messageId);
		} else if (cmd === "pubcomp") this.#open.delete(messageId);
		else this.broken(`a publisher got ${cmd}`);
	}

	#qosOf(seq: number): 1 | 2 {
		return this.#pattern[seq % this.#pattern.length] as 1 | 2;
	}

	#publish(messageId: number, seq: number, dup: boolean): void {
		const { clientId } = this.options;
		const topic = `load/${clientId}/${seq % 3}`;
		const payload = `${clientId} ${seq} ${"x".repeat(seq % 50 === 7 ? LARGE : seq % 100)}`;
		const qos = this.#qosOf(seq);
		this.record({ kind: "published", dup, client: clientId, seq, topic, qos, payload: shortened(payload) });
		this.send({ cmd: "publish", topic, payload, qos, messageId, dup, retain: false });
	}

	#nextPacketId(): number {
		do this.#packetId = (this.#packetId % MAX_PACKET_ID) + 1;
		while (this.#open.has(this.#packetId));
		return this.#packetId;
	}
}

export interface SubscriberOptions {
	readonly filter: string;
	readonly qos: 1 | 2;
	/** Acknowledgements wait for up to so long, and leave together. */
	readonly ackDelayMs: number;
	/** MQTT 5 only. */
	readonly receiveMaximum?: number;
}

/** Has one subscription and acknowledges what comes after a moment. */
export class LoadSubscriber extends LoadClient {
	readonly #subscription: SubscriberOptions;
	#subscribed = false;
	/** Message that a packet id stands for, for as long as the id is in use. That of QoS 2 outlives the connection. */
	readonly #inUse = new Map<number, { readonly qos: number; readonly payload: string }>();
	/** Packet ids of what came on this connection and is not acknowledged to its end. */
	readonly #open = new Set<number>();
	#acks: AnyPacket[] = [];
	#timer: ReturnType<typeof setTimeout> | undefined;

	constructor(options: LoadOptions, subscription: SubscriberOptions) {
		super(options);
		this.#subscription = subscription;
	}

	/** Whether the SUBACK has come. */
	get subscribed(): boolean {
		return this.#subscribed;
	}

	protected override get properties(): AnyPacket {
		const { receiveMaximum } = this.#subscription;
		return { ...super.properties, ...(receiveMaximum !== undefined && { receiveMaximum }) };
	}

	protected override onConnected(sessionPresent: boolean): void {
		clearTimeout(this.#timer);
		this.#timer = undefined;
		this.#open.clear();
		this.#acks = [];
		for (const [packetId, { qos }] of this.#inUse) if (qos === 1 || !sessionPresent) this.#inUse.delete(packetId);
		if (this.#subscribed) return;
		const { filter, qos } = this.#subscription;
		this.record({ kind: "subscribing", client: this.options.clientId, filter, qos });
		this.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: filter, qos, nl: false, rap: false, rh: 0 }] });
	}

	protected override onPacket(packet: AnyPacket): void {
		const { filter, qos } = this.#subscription;
		switch (packet.cmd) {
			case "suback":
				if (packet.granted[0] !== qos) this.broken(`SUBACK with ${packet.granted}`);
				this.#subscribed = true;
				this.record({ kind: "subscribed", client: this.options.clientId, filter, qos });
				break;
			case "publish":
				this.#publish(packet);
				break;
			case "pubrel":
				this.#inUse.delete(packet.messageId);
				this.#acknowledge({ cmd: "pubcomp", messageId: packet.messageId });
				break;
			case "disconnect":
				break;
			default:
				this.broken(`a subscriber got ${packet.cmd}`);
		}
	}

	#publish({ topic, qos, messageId, dup, ...packet }: AnyPacket): void {
		const text = packet.payload.toString();
		const payload = shortened(text);
		this.#open.add(messageId);
		if (this.#open.size > (this.#subscription.receiveMaximum ?? MAX_PACKET_ID))
			this.broken(`${this.#open.size} messages are open at a time`);
		const known = this.#inUse.get(messageId);
		if (known !== undefined && (known.payload !== payload || known.qos !== qos))
			this.broken(`packet id ${messageId} came with another message while in use`);
		else if (known !== undefined && !dup) this.broken(`packet id ${messageId} came again without DUP`);
		if (known === undefined) {
			this.#inUse.set(messageId, { qos, payload });
			const [client = "", seq] = text.split(" ", 2);
			const { clientId: subscriber } = this.options;
			this.record({ kind: "delivered", subscriber, connection: this.connection, client, seq: Number(seq), topic, qos, payload });
		}
		this.#acknowledge({ cmd: qos === 1 ? "puback" : "pubrec", messageId });
	}

	#acknowledge(packet: AnyPacket): void {
		this.#acks.push(packet);
		this.#timer ??= setTimeout(() => this.#sendAcks(), Math.random() * this.#subscription.ackDelayMs);
	}

	#sendAcks(): void {
		this.#timer = undefined;
		for (const packet of this.#acks) {
			if (packet.cmd === "puback") this.#inUse.delete(packet.messageId);
			if (packet.cmd !== "pubrec") this.#open.delete(packet.messageId);
			this.send(packet);
		}
		this.#acks = [];
	}
}

function willOf(clientId: string): AnyPacket {
	return { will: { topic: `load/will/${clientId}`, payload: `the-will-of-${clientId} 0`, qos: 1, retain: false } };
}

/** A payload for the history: what is too long to be kept for every delivery is told by its hash. */
function shortened(payload: string): string {
	return payload.length < LARGE ? payload : `${payload.length} ${createHash("sha1").update(payload).digest("hex")}`;
}

async function openWire(transport: "ws" | "tcp", port: number, onBytes: (bytes: Buffer) => void): Promise<Wire> {
	if (transport === "ws") {
		const socket = await RawWebSocket.connect({ port });
		const read = async () => {
			for (let frame = await socket.next(); frame; frame = await socket.next()) if (frame.opcode === Opcode.binary) onBytes(frame.payload);
		};
		return { send: (bytes) => socket.send(bytes), destroy: () => socket.destroy(), closed: read() };
	}
	const socket = connectTcp({ host: "127.0.0.1", port, noDelay: true });
	await new Promise<void>((resolve, reject) => {
		socket.once("connect", resolve);
		socket.once("error", reject);
	});
	socket.on("error", () => {});
	socket.on("data", onBytes);
	const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
	return { send: (bytes) => void socket.write(bytes), destroy: () => void socket.destroy(), closed };
}
