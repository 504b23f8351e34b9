/** Plain counters for everything that is received, sent, dropped and refused. Incremented on the hot path: no labels, no maps of strings made per event. */

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
	readonly dropped: Record<DropReason, number> = Object.fromEntries(DROP_REASONS.map((reason) => [reason, 0])) as Record<
		DropReason,
		number
	>;
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
}

/** Adds one to a counter that is kept by code. The codes are few and fixed, so the map stays small. */
export function countByCode(counter: Map<number, number>, code: number): void {
	counter.set(code, (counter.get(code) ?? 0) + 1);
}
