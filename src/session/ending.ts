/**
 * In which words a connection ends: which reason codes CONNACK and DISCONNECT of MQTT 5 have, and how the socket is closed.
 * Reasons come from everywhere (a rule of the protocol, an authenticator, the server's shutdown); no packet has them all.
 */

import { ReasonCode } from "../mqtt/reason_code.ts";
import type { CloseKind } from "../transport/socket.ts";

/** What a v5 client whose CONNECT is refused for this reason is told: a code that CONNACK has [MQTT-3.2.2-8]. */
export function refusalCode(reasonCode: ReasonCode): ReasonCode {
	if (reasonCode === ReasonCode.serverShuttingDown) return ReasonCode.serverUnavailable;
	if (reasonCode === ReasonCode.administrativeAction) return ReasonCode.banned;
	return REFUSALS.has(reasonCode) ? reasonCode : ReasonCode.unspecifiedError;
}

/** What a v5 client is told whose connection ends for this reason: a code that a server's DISCONNECT has [MQTT-3.14.2-1]. */
export function disconnectCode(reasonCode: ReasonCode): ReasonCode {
	switch (reasonCode) {
		case ReasonCode.badUserNameOrPassword:
		case ReasonCode.banned:
		case ReasonCode.badAuthenticationMethod:
		case ReasonCode.clientIdentifierNotValid:
			return ReasonCode.notAuthorized;
		case ReasonCode.serverUnavailable:
			return ReasonCode.serverBusy;
		default:
			return reasonCode;
	}
}

/** How the socket is closed for this reason. */
export function closeKind(reasonCode: ReasonCode): CloseKind {
	switch (reasonCode) {
		case ReasonCode.packetTooLarge:
			return "tooLarge";
		case ReasonCode.serverShuttingDown:
		case ReasonCode.useAnotherServer:
			return "restart";
		case ReasonCode.serverBusy:
		case ReasonCode.serverUnavailable:
		case ReasonCode.connectionRateExceeded:
			return "busy";
		case ReasonCode.malformedPacket:
		case ReasonCode.protocolError:
		case ReasonCode.unsupportedProtocolVersion:
		case ReasonCode.topicAliasInvalid:
		case ReasonCode.topicNameInvalid:
		case ReasonCode.receiveMaximumExceeded:
			return "protocolError";
		default:
			return "policy";
	}
}

const REFUSALS: ReadonlySet<ReasonCode> = new Set([
	ReasonCode.unspecifiedError,
	ReasonCode.malformedPacket,
	ReasonCode.protocolError,
	ReasonCode.implementationSpecificError,
	ReasonCode.unsupportedProtocolVersion,
	ReasonCode.clientIdentifierNotValid,
	ReasonCode.badUserNameOrPassword,
	ReasonCode.notAuthorized,
	ReasonCode.serverUnavailable,
	ReasonCode.serverBusy,
	ReasonCode.banned,
	ReasonCode.badAuthenticationMethod,
	ReasonCode.topicNameInvalid,
	ReasonCode.packetTooLarge,
	ReasonCode.quotaExceeded,
	ReasonCode.payloadFormatInvalid,
	ReasonCode.retainNotSupported,
	ReasonCode.qosNotSupported,
	ReasonCode.useAnotherServer,
	ReasonCode.serverMoved,
	ReasonCode.connectionRateExceeded,
]);
