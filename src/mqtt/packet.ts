/**
 * The packets that a server receives and sends, decoded. Shapes only: `decoder.ts` and `encoder.ts` know the bytes.
 *
 * The properties of a message travel as the bytes that the publisher sent (`forwarded`): checked once on the way in,
 * never rebuilt, so that order and content of user properties cannot change [MQTT-3.3.2-17] [MQTT-3.3.2-18].
 */

import type { ReasonCode } from "./reason_code.ts";
import type { Topic } from "./topic.ts";

/** 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5.0: the protocol level on the wire. */
export type ProtocolVersion = 3 | 4 | 5;
export type QoS = 0 | 1 | 2;
export type UserProperty = readonly [name: string, value: string];

/** Absence of a number property. One number type keeps the packets' shapes constant. */
export const ABSENT = -1;

export interface ConnectPacket {
	readonly kind: "connect";
	readonly protocolVersion: ProtocolVersion;
	/** Clean Start (v5) or CleanSession (v3). */
	readonly cleanStart: boolean;
	readonly keepAliveSeconds: number;
	/** May be empty. */
	readonly clientId: string;
	readonly username: string | undefined;
	readonly password: Uint8Array | undefined;
	readonly will: WillFields | undefined;
	readonly properties: ConnectProperties;
}

/** CONNECT properties with the defaults of the specification filled in; a v3 CONNECT has the defaults. */
export interface ConnectProperties {
	/** 0xffffffff is never. Default 0; a v3 client without CleanSession is given `0xffffffff` by the decoder. */
	readonly sessionExpirySeconds: number;
	/** Default 65,535. */
	readonly receiveMaximum: number;
	/** Bytes; `Infinity` when absent. */
	readonly maximumPacketSize: number;
	/** Default 0: no aliases. */
	readonly topicAliasMaximum: number;
	readonly requestResponseInformation: boolean;
	/** Default true. */
	readonly requestProblemInformation: boolean;
	readonly userProperties: readonly UserProperty[];
	readonly authenticationMethod: string | undefined;
	readonly authenticationData: Uint8Array | undefined;
}

export interface WillFields {
	readonly topic: Topic;
	readonly payload: Uint8Array;
	readonly qos: QoS;
	readonly retain: boolean;
	/** Will Delay Interval, default 0. */
	readonly delaySeconds: number;
	/** Message Expiry Interval or `ABSENT`. */
	readonly expirySeconds: number;
	/** Property bytes to forward: payload format, content type, response topic, correlation data, user properties. */
	readonly forwarded: Uint8Array;
}

export interface PublishPacket {
	readonly kind: "publish";
	/** `undefined` when the packet carries a Topic Alias and an empty topic name. */
	readonly topic: Topic | undefined;
	readonly payload: Uint8Array;
	readonly qos: QoS;
	readonly retain: boolean;
	readonly dup: boolean;
	/** 0 for QoS 0. */
	readonly packetId: number;
	/** As on the wire, or `ABSENT`; 0 is passed on for the channel to refuse with 0x94. */
	readonly topicAlias: number;
	/** Message Expiry Interval or `ABSENT`. */
	readonly expirySeconds: number;
	/** Property bytes to forward, without property length, topic alias and message expiry; `NO_PROPERTIES` if none. */
	readonly forwarded: Uint8Array;
}

/** The four acknowledgements of PUBLISH. */
export interface AckPacket {
	readonly kind: "puback" | "pubrec" | "pubrel" | "pubcomp";
	readonly packetId: number;
	readonly reasonCode: number;
}

export interface SubscribePacket {
	readonly kind: "subscribe";
	readonly packetId: number;
	/** Subscription Identifier or `ABSENT`. */
	readonly subscriptionId: number;
	readonly requests: readonly SubscriptionRequest[];
}

export interface SubscriptionRequest {
	/** As received: well-formed UTF-8 without U+0000; its syntax is judged by the channel, entry by entry. */
	readonly filter: string;
	readonly qos: QoS;
	readonly noLocal: boolean;
	readonly retainAsPublished: boolean;
	/** 0 send, 1 send if new, 2 do not send. */
	readonly retainHandling: 0 | 1 | 2;
}

export interface UnsubscribePacket {
	readonly kind: "unsubscribe";
	readonly packetId: number;
	readonly filters: readonly string[];
}

export interface PingreqPacket {
	readonly kind: "pingreq";
}

export interface DisconnectPacket {
	readonly kind: "disconnect";
	readonly reasonCode: number;
	/** Session Expiry Interval or `ABSENT`. */
	readonly sessionExpirySeconds: number;
}

export interface AuthPacket {
	readonly kind: "auth";
	readonly reasonCode: number;
	readonly authenticationMethod: string | undefined;
	readonly authenticationData: Uint8Array | undefined;
}

/** What a client may send. Packets that only a server sends are refused by the decoder with 0x82. */
export type ClientPacket =
	| ConnectPacket
	| PublishPacket
	| AckPacket
	| SubscribePacket
	| UnsubscribePacket
	| PingreqPacket
	| DisconnectPacket
	| AuthPacket;

/** CONNACK. For v3 only `sessionPresent` and `reasonCode` (mapped) are sent. */
export interface ConnackPacket {
	readonly kind: "connack";
	readonly reasonCode: ReasonCode;
	readonly sessionPresent: boolean;
	readonly properties?: ConnackProperties;
}

export interface ConnackProperties {
	readonly sessionExpirySeconds?: number;
	readonly receiveMaximum?: number;
	readonly maximumPacketSize?: number;
	readonly assignedClientId?: string;
	readonly topicAliasMaximum?: number;
	readonly reasonString?: string;
	readonly serverKeepAliveSeconds?: number;
	readonly responseInformation?: string;
	readonly authenticationMethod?: string;
	readonly authenticationData?: Uint8Array;
}

export interface SubackPacket {
	readonly kind: "suback";
	readonly packetId: number;
	readonly reasonCodes: readonly ReasonCode[];
}

export interface UnsubackPacket {
	readonly kind: "unsuback";
	readonly packetId: number;
	readonly reasonCodes: readonly ReasonCode[];
}

export interface PingrespPacket {
	readonly kind: "pingresp";
}

/** DISCONNECT of the server; never sent to v3 clients, for which the socket is just closed. */
export interface ServerDisconnectPacket {
	readonly kind: "disconnect";
	readonly reasonCode: ReasonCode;
	readonly reasonString?: string;
}

export interface ServerAuthPacket {
	readonly kind: "auth";
	readonly reasonCode: ReasonCode;
	readonly authenticationMethod: string;
	readonly authenticationData?: Uint8Array;
}

/** What the server sends, apart from PUBLISH (see `publish_encoder.ts`). */
export type ServerPacket =
	| ConnackPacket
	| AckPacket
	| SubackPacket
	| UnsubackPacket
	| PingrespPacket
	| ServerDisconnectPacket
	| ServerAuthPacket;

/** No property bytes. */
export const NO_PROPERTIES: Uint8Array = new Uint8Array(0);
