/**
 * The server's packets other than PUBLISH as bytes, by mqtt-packet (the acknowledgements by our own few lines). Knows what
 * each protocol version cannot say and leaves that out; whether a packet may be sent at all is the core's business.
 */

import { Buffer } from "node:buffer";
import { generate, type IConnackPacket, type Packet, writeToStream } from "mqtt-packet";
import type { AckPacket, ConnackPacket, ProtocolVersion, ServerAuthPacket, ServerPacket } from "./packet.ts";
import { writeAck } from "./publish_encoder.ts";
import { connackReturnCode, reasonName } from "./reason_code.ts";

// Otherwise mqtt-packet makes a Buffer for each of the 65,536 two-byte integers when it encodes for the first time.
writeToStream.cacheNumbers = false;

const ACK_TYPES = { puback: 4, pubrec: 5, pubrel: 6, pubcomp: 7 } as const;
const PINGRESP = new Uint8Array([0xd0, 0]);

/**
 * The bytes of a packet; whoever gets them may not write to them. A Reason String is left out when it would make the packet
 * larger than `maximumPacketSize`, which is the client's [MQTT-3.2.2-19] [MQTT-3.14.2-3]; a packet that is too large all
 * the same is answered too, and the caller must not send it [MQTT-3.1.2-24]. Throws `RangeError` for a packet or reason code
 * that the protocol version does not have.
 */
export function encodePacket(packet: ServerPacket, version: ProtocolVersion, maximumPacketSize: number): Uint8Array {
	switch (packet.kind) {
		case "puback":
		case "pubrec":
		case "pubrel":
		case "pubcomp":
			return encodeAck(packet, version);
		case "suback": {
			// [MQTT-3.9.3-1] [v3 MQTT-3.9.3-2]
			const granted = version === 5 ? [...packet.reasonCodes] : packet.reasonCodes.map((code) => Math.min(code, 0x80));
			return encode({ cmd: "suback", messageId: packet.packetId, granted }, version);
		}
		case "unsuback":
			// The list is not sent to v3 clients.
			return encode({ cmd: "unsuback", messageId: packet.packetId, granted: [...packet.reasonCodes] }, version);
		case "pingresp":
			return PINGRESP;
		case "connack":
			return encodeConnack(packet, version, maximumPacketSize);
		case "disconnect": {
			refuseBefore5("DISCONNECT", version);
			const { reasonCode, reasonString } = packet;
			const bare = encode({ cmd: "disconnect", reasonCode }, version);
			if (reasonString === undefined) return bare;
			return within(maximumPacketSize, encode({ cmd: "disconnect", reasonCode, properties: { reasonString } }, version)) ?? bare;
		}
		case "auth":
			refuseBefore5("AUTH", version);
			return encodeAuth(packet, version);
	}
}

function encodeAck(packet: AckPacket, version: ProtocolVersion): Uint8Array {
	const bytes = new Uint8Array(6);
	return bytes.subarray(0, writeAck(bytes, 0, ACK_TYPES[packet.kind], packet.packetId, packet.reasonCode, version));
}

function encodeConnack(packet: ConnackPacket, version: ProtocolVersion, maximumPacketSize: number): Uint8Array {
	if (version < 5) {
		const returnCode = connackReturnCode(packet.reasonCode);
		if (returnCode === undefined)
			throw new RangeError(`Cannot encode a v${version} CONNACK for ${reasonName(packet.reasonCode)}: close without one`);
		// What is Session Present since 3.1.1 was a reserved byte in 3.1.
		return encode({ cmd: "connack", sessionPresent: packet.sessionPresent && version === 4, returnCode }, version);
	}
	const full = encode(connack(packet, packet.properties?.reasonString), version);
	if (packet.properties?.reasonString === undefined) return full;
	return within(maximumPacketSize, full) ?? encode(connack(packet, undefined), version);
}

function connack(packet: ConnackPacket, reasonString: string | undefined): IConnackPacket {
	const from = packet.properties ?? {};
	const properties: NonNullable<IConnackPacket["properties"]> = {};
	if (from.sessionExpirySeconds !== undefined) properties.sessionExpiryInterval = from.sessionExpirySeconds;
	if (from.receiveMaximum !== undefined) properties.receiveMaximum = from.receiveMaximum;
	if (from.maximumPacketSize !== undefined) properties.maximumPacketSize = from.maximumPacketSize;
	if (from.assignedClientId !== undefined) properties.assignedClientIdentifier = from.assignedClientId;
	if (from.topicAliasMaximum !== undefined) properties.topicAliasMaximum = from.topicAliasMaximum;
	if (reasonString !== undefined) properties.reasonString = reasonString;
	if (from.serverKeepAliveSeconds !== undefined) properties.serverKeepAlive = from.serverKeepAliveSeconds;
	if (from.responseInformation !== undefined) properties.responseInformation = from.responseInformation;
	if (from.authenticationMethod !== undefined) properties.authenticationMethod = from.authenticationMethod;
	if (from.authenticationData !== undefined) properties.authenticationData = Buffer.from(from.authenticationData);
	return { cmd: "connack", sessionPresent: packet.sessionPresent, reasonCode: packet.reasonCode, properties };
}

function encodeAuth(packet: ServerAuthPacket, version: ProtocolVersion): Uint8Array {
	const { reasonCode, authenticationMethod, authenticationData } = packet;
	const data = authenticationData === undefined ? {} : { authenticationData: Buffer.from(authenticationData) };
	return encode({ cmd: "auth", reasonCode, properties: { authenticationMethod, ...data } }, version);
}

function refuseBefore5(name: string, version: ProtocolVersion): void {
	if (version < 5) throw new RangeError(`Cannot encode ${name} for a v${version} client: close the connection`);
}

function within(maximumPacketSize: number, bytes: Uint8Array): Uint8Array | undefined {
	return bytes.length <= maximumPacketSize ? bytes : undefined;
}

function encode(packet: Packet, protocolVersion: ProtocolVersion): Uint8Array {
	return generate(packet, { protocolVersion });
}
