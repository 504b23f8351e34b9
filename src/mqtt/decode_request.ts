/** The packets by which a client asks for something else than delivery: SUBSCRIBE, UNSUBSCRIBE, DISCONNECT and AUTH. */

import { type FieldReader, malformed, protocolError } from "./decode_fields.ts";
import {
	ABSENT,
	type AuthPacket,
	type DisconnectPacket,
	type ProtocolVersion,
	type QoS,
	type SubscribePacket,
	type SubscriptionRequest,
	type UnsubscribePacket,
} from "./packet.ts";
import { Property, PropertyPlace } from "./properties.ts";
import { ReasonCode } from "./reason_code.ts";

const OPTION = { qos: 0x03, noLocal: 0x04, retainAsPublished: 0x08, retainHandling: 0x30, reserved: 0xc0, v3Reserved: 0xfc } as const;

/** Filters come as they are: their syntax is judged one by one above. */
export function decodeSubscribe(reader: FieldReader, version: ProtocolVersion): SubscribePacket {
	const packetId = reader.packetId();
	let subscriptionId = ABSENT;
	if (version === 5) {
		reader.beginProperties();
		while (!reader.atEnd) {
			const id = reader.property(PropertyPlace.subscribe);
			if (id === Property.subscriptionIdentifier) {
				subscriptionId = reader.variableByteInteger("Subscription Identifier");
				if (subscriptionId === 0) throw protocolError("SUBSCRIBE", "its Subscription Identifier is 0");
			} else {
				reader.skipValue(id);
			}
		}
		reader.endProperties();
	}
	if (reader.atEnd) throw protocolError("SUBSCRIBE", "it has no topic filter"); // [MQTT-3.8.3-2] [v3 MQTT-3.8.3-3]
	const requests: SubscriptionRequest[] = [];
	while (!reader.atEnd) requests.push(decodeSubscription(reader, version));
	reader.close();
	return { kind: "subscribe", packetId, subscriptionId, requests };
}

function decodeSubscription(reader: FieldReader, version: ProtocolVersion): SubscriptionRequest {
	const filter = reader.text("a topic filter"); // [MQTT-3.8.3-1]
	const options = reader.byte("subscription options");
	const qos = options & OPTION.qos;
	const retainHandling = (options & OPTION.retainHandling) >> 4;
	if (version < 5) {
		if ((options & OPTION.v3Reserved) !== 0 || qos === 3) throw malformed("SUBSCRIBE", "a requested QoS is not 0, 1 or 2"); // [v3 MQTT-3.8.3-4]
	} else {
		if ((options & OPTION.reserved) !== 0) throw malformed("SUBSCRIBE", "reserved subscription options are set"); // [MQTT-3.8.3-5]
		if (qos === 3) throw protocolError("SUBSCRIBE", "a requested QoS is 3");
		if (retainHandling === 3) throw protocolError("SUBSCRIBE", "a Retain Handling is 3");
	}
	return {
		filter,
		qos: qos as QoS,
		noLocal: (options & OPTION.noLocal) !== 0,
		retainAsPublished: (options & OPTION.retainAsPublished) !== 0,
		retainHandling: retainHandling as 0 | 1 | 2,
	};
}

export function decodeUnsubscribe(reader: FieldReader, version: ProtocolVersion): UnsubscribePacket {
	const packetId = reader.packetId();
	if (version === 5) skipProperties(reader, PropertyPlace.unsubscribe);
	if (reader.atEnd) throw protocolError("UNSUBSCRIBE", "it has no topic filter"); // [MQTT-3.10.3-2]
	const filters: string[] = [];
	while (!reader.atEnd) filters.push(reader.text("a topic filter")); // [MQTT-3.10.3-1]
	reader.close();
	return { kind: "unsubscribe", packetId, filters };
}

/** What MQTT 5 lets a client say at the end; the codes that only servers send are missing. */
const DISCONNECT_REASONS: ReadonlySet<number> = new Set([
	ReasonCode.success,
	ReasonCode.disconnectWithWill,
	ReasonCode.unspecifiedError,
	ReasonCode.malformedPacket,
	ReasonCode.protocolError,
	ReasonCode.implementationSpecificError,
	ReasonCode.topicNameInvalid,
	ReasonCode.receiveMaximumExceeded,
	ReasonCode.topicAliasInvalid,
	ReasonCode.packetTooLarge,
	ReasonCode.messageRateTooHigh,
	ReasonCode.quotaExceeded,
	ReasonCode.administrativeAction,
	ReasonCode.payloadFormatInvalid,
]);

/** A v3 DISCONNECT has no body. */
export function decodeDisconnect(reader: FieldReader, version: ProtocolVersion): DisconnectPacket {
	let reasonCode: number = ReasonCode.success;
	let sessionExpirySeconds = ABSENT;
	if (version === 5 && !reader.atEnd) {
		reasonCode = reader.byte("its reason code");
		if (!DISCONNECT_REASONS.has(reasonCode))
			throw protocolError("DISCONNECT", `a client may not send the reason code 0x${reasonCode.toString(16)}`); // [MQTT-3.14.2-1]
		if (!reader.atEnd) {
			reader.beginProperties();
			while (!reader.atEnd) {
				const id = reader.property(PropertyPlace.disconnect);
				if (id === Property.sessionExpiryInterval) sessionExpirySeconds = reader.fourBytes("Session Expiry Interval");
				else reader.skipValue(id);
			}
			reader.endProperties();
		}
	}
	reader.close();
	return { kind: "disconnect", reasonCode, sessionExpirySeconds };
}

/** AUTH exists in MQTT 5 only. */
export function decodeAuth(reader: FieldReader): AuthPacket {
	// A body is missing only where the reason is Success, which servers send [MQTT-3.15.2-1].
	const reasonCode = reader.atEnd ? ReasonCode.success : reader.byte("its reason code");
	if (reasonCode !== ReasonCode.continueAuthentication && reasonCode !== ReasonCode.reAuthenticate) {
		throw protocolError("AUTH", `a client may not send the reason code 0x${reasonCode.toString(16)}`); // [MQTT-3.15.2-1]
	}
	let authenticationMethod: string | undefined;
	let authenticationData: Uint8Array | undefined;
	if (!reader.atEnd) {
		reader.beginProperties();
		while (!reader.atEnd) {
			const id = reader.property(PropertyPlace.auth);
			if (id === Property.authenticationMethod) authenticationMethod = reader.text("Authentication Method");
			else if (id === Property.authenticationData) authenticationData = reader.binary("Authentication Data");
			else reader.skipValue(id);
		}
		reader.endProperties();
	}
	if (authenticationMethod === undefined) throw protocolError("AUTH", "it has no Authentication Method");
	reader.close();
	return { kind: "auth", reasonCode, authenticationMethod, authenticationData };
}

/** A property block of which nothing is of interest but that it is correct. */
export function skipProperties(reader: FieldReader, place: number): void {
	reader.beginProperties();
	while (!reader.atEnd) reader.skipValue(reader.property(place));
	reader.endProperties();
}
