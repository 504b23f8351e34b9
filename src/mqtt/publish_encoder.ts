/**
 * PUBLISH and its acknowledgements as bytes, written into a buffer of the caller: the hot half of the encoder. Byte for
 * byte what mqtt-packet makes of the same packets. Checks nothing: fields come from the core, not from the network.
 */

import type { Message } from "./message.ts";
import type { ProtocolVersion, QoS } from "./packet.ts";
import { Property } from "./properties.ts";

/** What one delivery of a message adds to it. */
export interface PublishFields {
	readonly version: ProtocolVersion;
	readonly qos: QoS;
	readonly retain: boolean;
	readonly dup: boolean;
	/** Not looked at for QoS 0. */
	readonly packetId: number;
	/** Of the subscriptions that match [MQTT-3.3.4-4], in the order to send; v5 only. */
	readonly subscriptionIds: readonly number[] | undefined;
	/** 0 for none; v5 only. */
	readonly topicAlias: number;
	/** The client knows the alias already: the topic name is sent empty. */
	readonly omitTopic: boolean;
	/** Message Expiry Interval; v5 only. */
	readonly expirySeconds: number | undefined;
}

/** The largest Remaining Length that four bytes can say. */
const MAX_REMAINING_LENGTH = 268_435_455;

/** Bytes of the whole packet; `Infinity` for one that no PUBLISH can hold, which is too large for every receiver. */
export function publishSize(message: Message, fields: PublishFields): number {
	const remaining = remainingLength(message, fields, fields.version === 5 ? propertiesLength(message, fields) : -1);
	return remaining > MAX_REMAINING_LENGTH ? Number.POSITIVE_INFINITY : 1 + variableByteLength(remaining) + remaining;
}

/** Writes the packet at `offset`, where `target` must have room for its {@link publishSize}. Answers the index behind it. */
export function writePublish(target: Uint8Array, offset: number, message: Message, fields: PublishFields): number {
	const properties = fields.version === 5 ? propertiesLength(message, fields) : -1;
	target[offset] = 0x30 | (fields.dup ? 8 : 0) | (fields.qos << 1) | (fields.retain ? 1 : 0);
	let at = writeVariableByteInteger(target, offset + 1, remainingLength(message, fields, properties));
	const name = message.topic.wire;
	const nameLength = fields.omitTopic ? 0 : name.length;
	target[at] = nameLength >> 8;
	target[at + 1] = nameLength;
	at += 2;
	if (nameLength > 0) {
		target.set(name, at);
		at += nameLength;
	}
	// [MQTT-2.2.1-2] [v3 MQTT-2.3.1-5]
	if (fields.qos > 0) {
		target[at] = fields.packetId >> 8;
		target[at + 1] = fields.packetId;
		at += 2;
	}
	if (properties === 0)
		target[at++] = 0; // [MQTT-2.2.2-1]
	else if (properties > 0) at = writeProperties(target, at, message, fields, properties);
	target.set(message.payload, at);
	return at + message.payload.length;
}

/**
 * Where the packet identifier of the QoS > 0 PUBLISH that begins at `offset` stands: to send one encoded packet to many,
 * copy it and write each one's identifier there, high byte first.
 */
export function packetIdOffset(packet: Uint8Array, offset: number): number {
	let at = offset + 1;
	while ((packet[at] as number) >= 0x80) at++;
	return at + 3 + (((packet[at + 1] as number) << 8) | (packet[at + 2] as number));
}

/**
 * Writes PUBACK (4), PUBREC (5), PUBREL (6) or PUBCOMP (7) at `offset`: 4 bytes, or 6 for v5 with a reason code other than
 * 0. Answers the index behind it. v3 has no reason codes: there it only says that the packet id is done.
 */
export function writeAck(
	target: Uint8Array,
	offset: number,
	type: 4 | 5 | 6 | 7,
	packetId: number,
	reasonCode: number,
	version: ProtocolVersion,
): number {
	const explained = version === 5 && reasonCode !== 0;
	target[offset] = type === 6 ? 0x62 : type << 4; // [MQTT-3.6.1-1]
	target[offset + 1] = explained ? 4 : 2;
	target[offset + 2] = packetId >> 8;
	target[offset + 3] = packetId;
	if (!explained) return offset + 4;
	target[offset + 4] = reasonCode;
	target[offset + 5] = 0;
	return offset + 6;
}

function remainingLength(message: Message, fields: PublishFields, properties: number): number {
	const header = 2 + (fields.omitTopic ? 0 : message.topic.wire.length) + (fields.qos > 0 ? 2 : 0);
	return header + (properties === -1 ? 0 : variableByteLength(properties) + properties) + message.payload.length;
}

/** Bytes of the properties without the property length. */
function propertiesLength(message: Message, fields: PublishFields): number {
	let length = message.forwarded.length;
	if (fields.expirySeconds !== undefined) length += 5;
	if (fields.topicAlias !== 0) length += 3;
	const ids = fields.subscriptionIds;
	if (ids !== undefined) {
		for (let i = 0; i < ids.length; i++) length += 1 + variableByteLength(ids[i] as number);
	}
	return length;
}

function writeProperties(target: Uint8Array, offset: number, message: Message, fields: PublishFields, length: number): number {
	let at = writeVariableByteInteger(target, offset, length);
	const seconds = fields.expirySeconds;
	if (seconds !== undefined) {
		target[at] = Property.messageExpiryInterval;
		target[at + 1] = seconds >>> 24;
		target[at + 2] = seconds >>> 16;
		target[at + 3] = seconds >>> 8;
		target[at + 4] = seconds;
		at += 5;
	}
	if (fields.topicAlias !== 0) {
		target[at] = Property.topicAlias;
		target[at + 1] = fields.topicAlias >> 8;
		target[at + 2] = fields.topicAlias;
		at += 3;
	}
	target.set(message.forwarded, at);
	at += message.forwarded.length;
	const ids = fields.subscriptionIds;
	if (ids !== undefined) {
		for (let i = 0; i < ids.length; i++) {
			target[at] = Property.subscriptionIdentifier;
			at = writeVariableByteInteger(target, at + 1, ids[i] as number);
		}
	}
	return at;
}

function variableByteLength(value: number): number {
	return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x200000 ? 3 : 4;
}

function writeVariableByteInteger(target: Uint8Array, offset: number, value: number): number {
	let at = offset;
	let rest = value;
	while (rest >= 0x80) {
		target[at++] = rest | 0x80;
		rest >>>= 7;
	}
	target[at] = rest;
	return at + 1;
}
