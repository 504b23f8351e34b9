/**
 * The whole border of the protocol core: what may happen to a channel (`Input`) and what it may want done (`Effect`).
 *
 * An effect is a wish, performed by the broker in order; its result comes back as an input. No PUBACK, PUBREC, PUBCOMP or
 * SUBACK effect exists before the input that says that the store has it (P2).
 */

import type { Message } from "../mqtt/message.ts";
import type { ClientPacket, ProtocolVersion, QoS, ServerPacket, WillFields } from "../mqtt/packet.ts";
import type { ReasonCode } from "../mqtt/reason_code.ts";
import type { Tenancy } from "../mqtt/tenancy.ts";
import type { LogEntry, OpenedSession } from "../store/store.ts";
import type { CloseKind } from "../transport/socket.ts";
import type { Subscription } from "./subscription.ts";

/** One message on its way to this session with QoS 1 or 2. */
export interface Delivery {
	readonly message: Message;
	/** Effective QoS. */
	readonly qos: 1 | 2;
	/** RETAIN flag to send. */
	readonly retain: boolean;
	/** Subscription Identifiers to send; empty for none. */
	readonly subscriptionIds: readonly number[];
	/** Log and number of the entry that it came from; empty and 0 when it stands in no log. */
	readonly log: string;
	readonly seq: number;
	/** Whether `log` is a share group's, which wants to hear of the end of the delivery. */
	readonly shared: boolean;
}

/** The client may come in, or stay. */
export interface AuthenticatedEvent {
	readonly kind: "authenticated";
	/** Client id to use where the client sent none. */
	readonly assignedClientId: string;
	readonly authenticationData: Uint8Array | undefined;
	/** Space of names that the client lives in; absent for a client of no tenant. */
	readonly tenancy?: Tenancy | undefined;
}

/** What becomes of the connection. */
export type LifecycleEvent =
	/** The decoder met bytes that are not MQTT; nothing more will come from it. `version` is the decoder's. */
	| { readonly kind: "malformed"; readonly version: ProtocolVersion; readonly reasonCode: ReasonCode; readonly reason: string }
	/** A WebSocket text frame came [MQTT-6.0.0-1]. */
	| { readonly kind: "textFrame" }
	| AuthenticatedEvent
	| { readonly kind: "authenticationContinues"; readonly authenticationData: Uint8Array }
	| { readonly kind: "authenticationRefused"; readonly reasonCode: ReasonCode }
	| { readonly kind: "opened"; readonly session: OpenedSession }
	| { readonly kind: "openFailed"; readonly reasonCode: ReasonCode }
	/** The time of `setTimer` has come. */
	| { readonly kind: "timer" }
	/** Another connection has taken the session over. */
	| { readonly kind: "takenOver" }
	/** The server ends the connection. */
	| { readonly kind: "end"; readonly reasonCode: ReasonCode; readonly reason: string }
	/** The client may do nothing any more: the connection ends and its will is not published. */
	| { readonly kind: "revoked"; readonly reason: string }
	| { readonly kind: "socketClosed" };

/** What becomes of an open session's messages and subscriptions. */
export type SessionEvent =
	/** The oldest publication with this id that had no result yet is stored (or refused, by reason code). */
	| { readonly kind: "published"; readonly packetId: number; readonly reasonCode: ReasonCode }
	| { readonly kind: "released"; readonly packetId: number }
	| { readonly kind: "subscribed"; readonly packetId: number; readonly results: readonly SubscribeResult[] }
	| { readonly kind: "unsubscribed"; readonly packetId: number; readonly reasonCodes: readonly ReasonCode[] }
	/** A message that stands in no log this session reads: live ones of sessions that end with the connection, retained ones, shared ones. */
	| { readonly kind: "deliver"; readonly delivery: Delivery }
	/** A delivery turned out larger than the client's Maximum Packet Size: it counts as delivered [MQTT-3.1.2-25]. */
	| { readonly kind: "undeliverable"; readonly packetId: number }
	/** A message was appended to logs that this session reads. */
	| { readonly kind: "appended"; readonly message: Message; readonly entries: readonly AppendedEntry[] }
	/** Answer to `fetch`. */
	| { readonly kind: "fetched"; readonly entries: readonly LogEntry[] }
	| { readonly kind: "fetchFailed" }
	/** The checkpoint with this serial number is stored. */
	| { readonly kind: "recorded"; readonly serial: number }
	/** The retained messages of a new subscription are out: what its log holds may follow. */
	| { readonly kind: "retainedSent" }
	/** The logs that this session reads may have more than it has heard of. */
	| { readonly kind: "lookAgain" };

export type Input = ClientPacket | SessionEvent | LifecycleEvent;

export interface AppendedEntry {
	readonly subscription: Subscription;
	readonly seq: number;
}

/** Outcome of one entry of a SUBSCRIBE. */
export interface SubscribeResult {
	/** Granted QoS or a code ≥ 0x80. */
	readonly reasonCode: ReasonCode;
	/** The subscription that now stands, when granted. */
	readonly subscription: Subscription | undefined;
	/** Where it starts in its log. */
	readonly cursor: number;
}

/** One entry of a SUBSCRIBE as the channel passes it on: what it found wrong itself is settled already. */
export interface SubscribeEntry {
	readonly subscription: Subscription;
	/** The subscription with the same filter that it replaces. */
	readonly replaces: Subscription | undefined;
	/** `success` while nothing is wrong. */
	readonly problem: ReasonCode;
}

/** Client id and will topic are those of the broker, where a tenant's client has others. */
export interface OpenSessionEffect {
	readonly kind: "openSession";
	readonly clientId: string;
	readonly cleanStart: boolean;
	readonly sessionExpirySeconds: number;
	readonly will: WillFields | undefined;
}

export type Effect =
	| { readonly kind: "send"; readonly packet: ServerPacket }
	/** Send PUBLISH with QoS 1 or 2. */
	| { readonly kind: "sendPublish"; readonly delivery: Delivery; readonly packetId: number; readonly dup: boolean }
	| {
			readonly kind: "authenticate";
			readonly clientId: string;
			readonly username: string | undefined;
			readonly password: Uint8Array | undefined;
			readonly authenticationMethod: string | undefined;
			readonly authenticationData: Uint8Array | undefined;
			readonly will: WillFields | undefined;
			/** `connect`: first packet; `next`: answer within an exchange; `again`: re-authentication begins. */
			readonly step: "connect" | "next" | "again";
	  }
	| OpenSessionEffect
	/** The session is open: these (resumed) subscriptions take part in matching from now on. */
	| { readonly kind: "attach"; readonly subscriptions: readonly Subscription[] }
	| { readonly kind: "publish"; readonly message: Message; readonly packetId: number }
	| { readonly kind: "release"; readonly packetId: number }
	| { readonly kind: "subscribe"; readonly packetId: number; readonly entries: readonly SubscribeEntry[] }
	/** SUBACK is out: the retained messages of this subscription may be sent, then `retainedSent` is to come. */
	| { readonly kind: "sendRetained"; readonly subscription: Subscription }
	| { readonly kind: "unsubscribe"; readonly packetId: number; readonly subscriptions: readonly (Subscription | undefined)[] }
	/** Read the logs behind the cursors; `fetched` is to come. */
	| { readonly kind: "fetch"; readonly limit: number }
	/** What `takeCheckpoint` answers is to be stored: `urgent` means that something waits for `recorded`. */
	| { readonly kind: "checkpoint"; readonly urgent: boolean }
	/** A share group's message has found its end with this session. */
	| { readonly kind: "settleShared"; readonly log: string; readonly seq: number; readonly outcome: "settled" | "returned" | "bound" }
	/** Deliveries were dropped. */
	| { readonly kind: "dropped"; readonly reason: "expired" | "queueFull" | "logTrimmed" | "tooLargeForClient"; readonly count: number }
	/** There is room for more deliveries again, after there was none. */
	| { readonly kind: "room" }
	/** Replaces the channel's one timer. */
	| { readonly kind: "setTimer"; readonly atMs: number }
	/** Another connection has the session now: only the last progress of this one is to be stored. */
	| { readonly kind: "handOver" }
	/** The session's connection ends. `sentAway`: for the server's own reasons, so that the client is expected back at once. */
	| {
			readonly kind: "closeSession";
			readonly sessionExpirySeconds: number | undefined;
			readonly will: "discard" | "keep";
			readonly sentAway: boolean;
	  }
	/** Close the socket after what was sent before. Always the last effect of a channel. */
	| { readonly kind: "close"; readonly how: CloseKind; readonly reasonCode: ReasonCode; readonly reason: string };

/** What a channel must know of the server's configuration. */
export interface ChannelLimits {
	readonly connectTimeoutSeconds: number;
	readonly maxPacketSize: number;
	readonly maxTopicLevels: number;
	readonly maxSubscriptions: number;
	/** Server's Receive Maximum. */
	readonly receiveMaximum: number;
	/** Deliveries of QoS 1 and 2 unacknowledged at a time. */
	readonly maxInflight: number;
	/** Payload bytes of such deliveries; one delivery is always allowed. */
	readonly maxInflightBytes: number;
	readonly maxQueuedMessages: number;
	/** Server Keep Alive; 0 leaves it to the client. */
	readonly maxKeepAliveSeconds: number;
	readonly maxSessionExpirySeconds: number;
	/** Server's Topic Alias Maximum. */
	readonly topicAliasMaximum: number;
	/** PUBLISH per second, and how many at once; 0 for no limit. */
	readonly publishRate: number;
	readonly publishBurst: number;
	/** Response Information, empty for none. */
	readonly responseInformation: string;
}

/** Effective QoS of a delivery [MQTT-3.8.4-8]. */
export function effectiveQos(published: QoS, granted: QoS): QoS {
	return published < granted ? published : granted;
}
