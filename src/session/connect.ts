/** What a CONNECT must satisfy before anybody is asked about it, and what the CONNACK says. */

import type { ConnackProperties, ConnectPacket } from "../mqtt/packet.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import { isReserved } from "../mqtt/tenancy.ts";
import { levelCount } from "../mqtt/topic.ts";
import type { AuthenticatedEvent, ChannelLimits, OpenSessionEffect } from "./effects.ts";

export interface Problem {
	readonly reasonCode: ReasonCode;
	readonly reason: string;
}

/** What is wrong with a well-formed CONNECT, if anything. */
export function connectProblem(packet: ConnectPacket, limits: ChannelLimits): Problem | undefined {
	// 3.1 asks for at least one character; 3.1.1 lets the server name the client, but only for a clean session [v3 MQTT-3.1.3-8].
	if (packet.clientId === "" && (packet.protocolVersion === 3 || (packet.protocolVersion === 4 && !packet.cleanStart))) {
		return { reasonCode: ReasonCode.clientIdentifierNotValid, reason: "a session to keep needs a client id" };
	}
	const will = packet.will;
	if (will !== undefined) {
		if (will.topic.name.startsWith("$"))
			return { reasonCode: ReasonCode.notAuthorized, reason: "will topics that begin with $ belong to the server" };
		if (levelCount(will.topic.name) > limits.maxTopicLevels) {
			return { reasonCode: ReasonCode.topicNameInvalid, reason: `the will topic has more than ${limits.maxTopicLevels} levels` };
		}
	}
	return undefined;
}

/** Keep alive that is in force, in seconds, 0 for none: the server's maximum also binds clients that asked for none. */
export function grantedKeepAlive(packet: ConnectPacket, limits: ChannelLimits): number {
	const maximum = limits.maxKeepAliveSeconds;
	if (maximum === 0 || packet.protocolVersion !== 5) return packet.keepAliveSeconds;
	return packet.keepAliveSeconds === 0 ? maximum : Math.min(packet.keepAliveSeconds, maximum);
}

/** Session Expiry Interval that is in force, in seconds. A v3 session without CleanSession is kept as long as the server keeps any. */
export function grantedSessionExpiry(requestedSeconds: number, limits: ChannelLimits): number {
	return Math.min(requestedSeconds, limits.maxSessionExpirySeconds);
}

/** The session to open for a client that was let in, with the names that the broker has for it; or what is wrong with its own. */
export function sessionToOpen(
	packet: ConnectPacket,
	{ assignedClientId, tenancy }: AuthenticatedEvent,
	limits: ChannelLimits,
): OpenSessionEffect | Problem {
	const ownId = packet.clientId === "" ? assignedClientId : packet.clientId;
	const clientId = tenancy === undefined ? ownId : tenancy.clientId(ownId);
	if (clientId === undefined || isReserved(ownId)) {
		return { reasonCode: ReasonCode.clientIdentifierNotValid, reason: "the client id is too long, or in the space of tenants" };
	}
	let { will } = packet;
	if (will !== undefined && tenancy !== undefined) {
		const topic = tenancy.topic(will.topic);
		if (topic === undefined) return { reasonCode: ReasonCode.topicNameInvalid, reason: "the will topic is too long" };
		will = { ...will, topic };
	}
	const sessionExpirySeconds = grantedSessionExpiry(packet.properties.sessionExpirySeconds, limits);
	return { kind: "openSession", clientId, cleanStart: packet.cleanStart, sessionExpirySeconds, will };
}

/** CONNACK properties of an accepted v5 CONNECT: whatever differs from the default of the specification. */
export function connackProperties(
	packet: ConnectPacket,
	assignedClientId: string | undefined,
	authenticationData: Uint8Array | undefined,
	limits: ChannelLimits,
): ConnackProperties {
	const requested = packet.properties;
	const sessionExpirySeconds = grantedSessionExpiry(requested.sessionExpirySeconds, limits);
	const keepAlive = grantedKeepAlive(packet, limits);
	return {
		...(sessionExpirySeconds !== requested.sessionExpirySeconds && { sessionExpirySeconds }),
		...(limits.receiveMaximum < 65_535 && { receiveMaximum: limits.receiveMaximum }),
		maximumPacketSize: limits.maxPacketSize,
		...(assignedClientId !== undefined && { assignedClientId }),
		...(limits.topicAliasMaximum > 0 && { topicAliasMaximum: limits.topicAliasMaximum }),
		...(keepAlive !== packet.keepAliveSeconds && { serverKeepAliveSeconds: keepAlive }),
		...(requested.requestResponseInformation && limits.responseInformation !== "" && { responseInformation: limits.responseInformation }),
		// [MQTT-4.12.0-5] [MQTT-4.12.0-6]
		...(requested.authenticationMethod !== undefined && {
			authenticationMethod: requested.authenticationMethod,
			...(authenticationData !== undefined && { authenticationData }),
		}),
	};
}
