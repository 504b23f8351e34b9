/**
 * Plain counters and histograms for everything that is received, sent, dropped and refused. Changed on the hot path: no
 * labels, no maps of strings made per event, nothing allocated. Knows no format in which they are shown.
 */

/** Why a message was not delivered to somebody who was to have it. */
export const DROP_REASONS = [
	/** Message Expiry Interval passed before delivery. */
	"expired",
	/** The receiver's in-memory queue (QoS ≥ 1, live session) is full. */
	"queueFull",
	/** The receiver reads too slowly for QoS 0: its buffer is full. */
	"slowReader",
	/** Larger than the client's Maximum Packet Size [MQTT-3.1.2-25]. */
	"tooLargeForClient",
	/** Trimmed from a durable log before this session read it. */
	"logTrimmed",
	/** QoS 0 for a shared subscription without a connected member. */
	"noMemberOnline",
	/** The publisher was not allowed to publish to the topic. */
	"notAuthorized",
	/** The store could not take it. */
	"storeFailed",
] as const;
export type DropReason = (typeof DROP_REASONS)[number];

/** Why a connection was refused before MQTT had a word. */
export const DOOR_REASONS = [
	/** Too many connections of one address, see `ConnectRate`. */
	"rateAddress",
	/** Too many connections in total. */
	"rateTotal",
	/** A web page of an origin that is not allowed. */
	"origin",
	/** An address that operators have banned. */
	"banned",
	/** No header of the PROXY protocol where one must be. */
	"proxyHeader",
	/** Not one of the proxies that may use the PROXY protocol. */
	"proxySource",
] as const;
export type DoorReason = (typeof DOOR_REASONS)[number];

/** Upper bounds in seconds, from what a packet takes in memory to what a client gives up after. */
const LATENCY_BOUNDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];

/** How often values in seconds were up to each of some bounds. */
export class Histogram {
	/** Upper bounds, growing; above the last one is one more bucket. */
	readonly bounds: Float64Array;
	/** By bucket, not cumulative. Doubles: more than 32 bits of events come together in a few weeks. */
	readonly counts: Float64Array;
	#sum = 0;

	/** @param bounds Upper bounds in seconds, growing. */
	constructor(bounds: readonly number[] = LATENCY_BOUNDS) {
		this.bounds = Float64Array.from(bounds);
		this.counts = new Float64Array(bounds.length + 1);
	}

	/** Sum of all values. */
	get sum(): number {
		return this.#sum;
	}

	/** Counts a value. Values below 0, which a clock that is set back makes, are 0. */
	observe(seconds: number): void {
		const { bounds, counts } = this;
		let index = 0;
		while (index < bounds.length && seconds > (bounds[index] as number)) index++;
		counts[index] = (counts[index] as number) + 1;
		if (seconds > 0) this.#sum += seconds;
	}
}

/** Picks every n-th of many events, for what would cost too much to do for all. */
export class Sampler {
	readonly #every: number;
	#left = 1;

	/** @param every 1 picks all; the first one is always picked. */
	constructor(every: number) {
		this.#every = every;
	}

	/** Whether this event is one. */
	take(): boolean {
		if (--this.#left > 0) return false;
		this.#left = this.#every;
		return true;
	}
}

/** How late timers are, since something else kept the event loop busy: what every client waits for besides all else. */
export class EventLoopLag {
	readonly histogram = new Histogram();
	readonly #intervalMs: number;
	#timer: ReturnType<typeof setInterval> | undefined;

	constructor(intervalMs = 100) {
		this.#intervalMs = intervalMs;
	}

	/** Measures until `stop`. Keeps no process alive. */
	start(): void {
		if (this.#timer !== undefined) return;
		let lastMs = performance.now();
		this.#timer = setInterval(() => {
			const nowMs = performance.now();
			this.histogram.observe((nowMs - lastMs - this.#intervalMs) / 1000);
			lastMs = nowMs;
		}, this.#intervalMs);
		this.#timer.unref();
	}

	stop(): void {
		clearInterval(this.#timer);
		this.#timer = undefined;
	}
}

/** MQTT control packet types by name, the places in the counters of packets. */
export const PACKET_TYPES = {
	connect: 1,
	connack: 2,
	publish: 3,
	puback: 4,
	pubrec: 5,
	pubrel: 6,
	pubcomp: 7,
	subscribe: 8,
	suback: 9,
	unsubscribe: 10,
	unsuback: 11,
	pingreq: 12,
	pingresp: 13,
	disconnect: 14,
	auth: 15,
} as const;

export class Metrics {
	connectionsOpened = 0;
	connectionsClosed = 0;
	bytesReceived = 0;
	bytesSent = 0;
	/** Packets by MQTT control packet type (index 1 CONNECT … 15 AUTH). */
	readonly packetsReceived: number[] = new Array(16).fill(0);
	readonly packetsSent: number[] = new Array(16).fill(0);
	/** PUBLISH by QoS. */
	readonly messagesReceived: [number, number, number] = [0, 0, 0];
	readonly messagesSent: [number, number, number] = [0, 0, 0];
	readonly dropped: Record<DropReason, number> = zeros(DROP_REASONS);
	/** Connections refused before MQTT had a word; those with HTTP count in `upgradesRefused`, too. */
	readonly doorRefused: Record<DoorReason, number> = zeros(DOOR_REASONS);
	/** CONNECTs refused, by MQTT 5 reason code. */
	readonly connectsRefused = new Map<number, number>();
	/** Connections that the server ended, by MQTT 5 reason code. */
	readonly disconnectsSent = new Map<number, number>();
	/** Publications refused with a reason code. */
	readonly publishesRefused = new Map<number, number>();
	/** Subscriptions refused with a reason code. */
	readonly subscriptionsRefused = new Map<number, number>();
	/** WebSocket upgrades refused, by HTTP status. */
	readonly upgradesRefused = new Map<number, number>();
	/** From a PUBLISH of QoS 1 or 2 read to its PUBACK or PUBREC written, of a sample. */
	readonly publishToAck = new Histogram();
	/** From a PUBLISH read to its delivery written to a connected subscriber, of a sample, within one process. */
	readonly publishToDeliver = new Histogram();
}

function zeros<const T extends string>(names: readonly T[]): Record<T, number> {
	return Object.fromEntries(names.map((name) => [name, 0])) as Record<T, number>;
}

/** Adds one to a counter that is kept by code. The codes are few and fixed, so the map stays small. */
export function countByCode(counter: Map<number, number>, code: number): void {
	counter.set(code, (counter.get(code) ?? 0) + 1);
}
