/**
 * Everything that one client is sent: packets into the bytes of its protocol version, within its Maximum Packet Size and
 * its topic aliases, and into the outbound buffer. What does not fit is dropped here, and counted.
 */

import { type Metrics, PACKET_TYPES } from "../metrics.ts";
import { encodePacket } from "../mqtt/encoder.ts";
import { type Message, remainingExpirySeconds } from "../mqtt/message.ts";
import type { ConnectPacket, ProtocolVersion, ServerPacket } from "../mqtt/packet.ts";
import { type PublishFields, publishSize, writeAck, writePublish } from "../mqtt/publish_encoder.ts";
import type { Delivery } from "../session/effects.ts";
import { OutboundAliases } from "../session/topic_alias.ts";
import type { Outbound } from "./outbound.ts";
import type { Publication } from "./publication.ts";

const ACK_BYTES = 4;
const ACK_WITH_REASON_BYTES = 6;

export class PacketWriter {
	readonly #outbound: Outbound;
	readonly #metrics: Metrics;
	/** Bytes that QoS 0 messages may wait for a slow reader. */
	readonly #maxBufferedBytes: number;
	#version: ProtocolVersion = 4;
	#maximumPacketSize = Number.POSITIVE_INFINITY;
	#aliases: OutboundAliases | undefined;

	constructor(outbound: Outbound, metrics: Metrics, maxBufferedBytes: number) {
		this.#outbound = outbound;
		this.#metrics = metrics;
		this.#maxBufferedBytes = maxBufferedBytes;
	}

	/** Writes for this version from now on: what a CONNECT that cannot be read is answered with. */
	setVersion(version: ProtocolVersion): void {
		this.#version = version;
	}

	/** Takes over what the client's CONNECT says of itself. */
	configure({ protocolVersion, properties }: ConnectPacket, topicAliasMaximum: number): void {
		this.#version = protocolVersion;
		this.#maximumPacketSize = properties.maximumPacketSize;
		const aliases = Math.min(properties.topicAliasMaximum, topicAliasMaximum);
		if (aliases > 0) this.#aliases = new OutboundAliases(aliases);
	}

	/**
	 * Sends any packet but PUBLISH.
	 * @returns False when the packet is too large for the client: then it is not sent [MQTT-3.1.2-24].
	 */
	send(packet: ServerPacket): boolean {
		const outbound = this.#outbound;
		const type = PACKET_TYPES[packet.kind];
		let size: number;
		if (packet.kind === "puback" || packet.kind === "pubrec" || packet.kind === "pubrel" || packet.kind === "pubcomp") {
			size = this.#version === 5 && packet.reasonCode !== 0 ? ACK_WITH_REASON_BYTES : ACK_BYTES;
			if (size > this.#maximumPacketSize) return false;
			const start = outbound.reserve(size);
			writeAck(outbound.buffer, start, type as 4 | 5 | 6 | 7, packet.packetId, packet.reasonCode, this.#version);
		} else {
			const bytes = encodePacket(packet, this.#version, this.#maximumPacketSize);
			size = bytes.length;
			if (size > this.#maximumPacketSize) return false;
			outbound.append(bytes);
		}
		this.#count(type, size);
		return true;
	}

	/**
	 * Sends PUBLISH with QoS 1 or 2.
	 * @returns False when the packet is too large for the client, which is then as good as delivered [MQTT-3.1.2-25].
	 */
	sendDelivery(delivery: Delivery, packetId: number, dup: boolean, nowMs: number): boolean {
		const { message, qos, retain, subscriptionIds } = delivery;
		const expirySeconds = this.#version === 5 ? remainingExpirySeconds(message, nowMs) : undefined;
		const fields = { version: this.#version, qos, retain, dup, packetId, subscriptionIds, topicAlias: 0, omitTopic: false, expirySeconds };
		return this.#writePublish(message, fields);
	}

	/** Sends PUBLISH with QoS 0, unless the client reads too slowly. */
	sendQos0(publication: Publication, retain: boolean, subscriptionIds: readonly number[]): void {
		const outbound = this.#outbound;
		const version = this.#version;
		if (publication.single || subscriptionIds.length > 0 || this.#aliases !== undefined) {
			const { message, expirySeconds } = publication;
			if (outbound.congested && outbound.pending + message.payload.length > this.#maxBufferedBytes) {
				this.#metrics.dropped.slowReader++;
				return;
			}
			this.#writePublish(message, {
				version,
				qos: 0,
				retain,
				dup: false,
				packetId: 0,
				subscriptionIds,
				topicAlias: 0,
				omitTopic: false,
				expirySeconds,
			});
			return;
		}
		const packet = publication.encoded(version, retain);
		if (packet.length > this.#maximumPacketSize) this.#metrics.dropped.tooLargeForClient++;
		else if (outbound.congested && outbound.pending + packet.length > this.#maxBufferedBytes) this.#metrics.dropped.slowReader++;
		else {
			outbound.append(packet);
			this.#metrics.messagesSent[0]++;
			this.#count(PACKET_TYPES.publish, packet.length);
		}
	}

	#writePublish(message: Message, plain: PublishFields): boolean {
		const outbound = this.#outbound;
		let fields = plain;
		if (this.#aliases !== undefined) {
			const { alias, known } = this.#aliases.assign(message.topic);
			if (alias > 0) fields = { ...plain, topicAlias: alias, omitTopic: known };
		}
		const size = publishSize(message, fields);
		if (size > this.#maximumPacketSize) {
			if (fields.topicAlias > 0 && !fields.omitTopic) this.#aliases?.forget(message.topic);
			this.#metrics.dropped.tooLargeForClient++;
			return false;
		}
		const start = outbound.reserve(size);
		writePublish(outbound.buffer, start, message, fields);
		this.#metrics.messagesSent[fields.qos]++;
		this.#count(PACKET_TYPES.publish, size);
		return true;
	}

	#count(type: number, size: number): void {
		const { packetsSent } = this.#metrics;
		packetsSent[type] = (packetsSent[type] as number) + 1;
		this.#metrics.bytesSent += size;
	}
}
