/**
 * Bytes of one client to packets: framing over chunks of any size, fixed headers, and the hot packets PUBLISH and its
 * acknowledgements. Holds the bytes of at most one incomplete packet, and knows nothing of sessions or sockets.
 *
 * Our own, because mqtt-packet 9 loses the order of user properties, takes ill-formed UTF-8, over-long and repeated fields,
 * reads beyond a packet into the next one and has no size limit; `tests/mqtt/mqtt_packet_defects.test.ts` shows each.
 */

import { decodeConnect, decodeProtocol } from "./decode_connect.ts";
import { copyOf, FieldReader, malformed, protocolError, viewOf } from "./decode_fields.ts";
import { MessageProperties } from "./decode_message.ts";
import { decodeAuth, decodeDisconnect, decodeSubscribe, decodeUnsubscribe, skipProperties } from "./decode_request.ts";
import {
	ABSENT,
	type AckPacket,
	type ClientPacket,
	type ConnectPacket,
	NO_PROPERTIES,
	type PingreqPacket,
	type ProtocolVersion,
	type PublishPacket,
	type QoS,
} from "./packet.ts";
import { PropertyPlace } from "./properties.ts";
import { MqttError, ReasonCode } from "./reason_code.ts";
import type { Topic, TopicTable } from "./topic.ts";

export interface DecoderOptions {
	/** Bytes of a whole packet, fixed header included. */
	readonly maxPacketSize: number;
	readonly topics: TopicTable;
	/**
	 * Bytes up to which a payload is copied rather than viewed, none by default. What a view costs differs by a factor of ten
	 * between the engines.
	 */
	readonly copyPayloadsUpTo?: number;
}

const Type = {
	connect: 1,
	publish: 3,
	puback: 4,
	pubrec: 5,
	pubrel: 6,
	pubcomp: 7,
	subscribe: 8,
	unsubscribe: 10,
	pingreq: 12,
	disconnect: 14,
	auth: 15,
};
const NAMES: readonly string[] =
	"packet type 0,CONNECT,CONNACK,PUBLISH,PUBACK,PUBREC,PUBREL,PUBCOMP,SUBSCRIBE,SUBACK,UNSUBSCRIBE,UNSUBACK,PINGREQ,PINGRESP,DISCONNECT,AUTH".split(
		",",
	);
const ACK_KINDS: readonly AckPacket["kind"][] = ["puback", "puback", "puback", "puback", "puback", "pubrec", "pubrel", "pubcomp"];
/** Smallest buffer for an incomplete packet. */
const MIN_HELD = 64;
const PINGREQ: PingreqPacket = { kind: "pingreq" };
// One for all decoders: decoding one packet never waits, and ten thousand idle connections pin no chunk by these.
const reader = new FieldReader();
const message = new MessageProperties();

/**
 * What is wrong with a first byte: 0 for nothing, else the reason code, by the byte. `version` is 0 before CONNECT.
 * MQTT 3.1 let a client set DUP when it repeats PUBREL, SUBSCRIBE or UNSUBSCRIBE; 3.1.1 ended that.
 */
function headerTable(version: ProtocolVersion | 0): Uint8Array {
	return Uint8Array.from({ length: 256 }, (_, first) => {
		const type = first >> 4;
		const flags = first & 0x0f;
		if (version === 0) {
			if (type !== Type.connect) return ReasonCode.protocolError; // [MQTT-3.1.0-1]
			return flags === 0 ? 0 : ReasonCode.malformedPacket;
		}
		switch (type) {
			case Type.connect:
				return ReasonCode.protocolError; // [MQTT-3.1.0-2]
			case Type.publish: {
				const qos = (flags >> 1) & 3;
				if (qos === 3) return ReasonCode.malformedPacket; // [MQTT-3.3.1-4]
				return qos === 0 && (flags & 8) !== 0 ? ReasonCode.malformedPacket : 0; // [MQTT-3.3.1-2]
			}
			case Type.puback:
			case Type.pubrec:
			case Type.pubcomp:
			case Type.pingreq:
			case Type.disconnect:
				return flags === 0 ? 0 : ReasonCode.malformedPacket; // [MQTT-2.1.3-1] [MQTT-3.14.1-1] [v3 MQTT-2.2.2-2]
			case Type.pubrel:
			case Type.subscribe:
			case Type.unsubscribe:
				return (version === 3 ? flags & 7 : flags) === 2 ? 0 : ReasonCode.malformedPacket; // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
			case Type.auth:
				return version === 5 && flags === 0 ? 0 : ReasonCode.malformedPacket; // [MQTT-3.15.1-1]
			case 0:
				return ReasonCode.malformedPacket;
			default:
				return ReasonCode.protocolError;
		}
	});
}

const HEADERS_BEFORE_CONNECT = headerTable(0);
const HEADERS = { 3: headerTable(3), 4: headerTable(4), 5: headerTable(5) } as const;

/** Reason codes that a v5 acknowledgement may have, by packet type: 1 at the index of the code. */
const ACK_REASONS: readonly Uint8Array[] = NAMES.map((_, type) => {
	const codes = type === Type.puback || type === Type.pubrec ? [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] : [0x00, 0x92];
	return Uint8Array.from({ length: 256 }, (_, code) => (codes.includes(code) ? 1 : 0));
});

export class PacketDecoder {
	/** As the CONNECT said; 4 until one says it. */
	protocolVersion: ProtocolVersion = 4;

	readonly #maxPacketSize: number;
	readonly #topics: TopicTable;
	readonly #copyPayloadsUpTo: number;
	#headers = HEADERS_BEFORE_CONNECT;
	/** Bytes of an incomplete packet; the capacity may be larger. Never reused: the packet's payload is a view of it. */
	#held: Uint8Array = NO_PROPERTIES;
	#heldLength = 0;
	/** Bytes of the whole incomplete packet; 0 while its fixed header is incomplete. */
	#heldNeed = 0;
	/** Index of the first byte after the fixed header that `#packetLength` read last. */
	#body = 0;
	#stopped = false;
	#error: MqttError | undefined;

	constructor(options: DecoderOptions) {
		this.#maxPacketSize = options.maxPacketSize;
		this.#topics = options.topics;
		this.#copyPayloadsUpTo = options.copyPayloadsUpTo ?? -1;
	}

	/** Bytes of an incomplete packet that are held. */
	get buffered(): number {
		return this.#heldLength;
	}

	/**
	 * Takes the next bytes and calls `onPacket` for every packet that they complete, in order. When it answers false, the
	 * rest and everything that follows is ignored. Payloads and other binary fields are views of `chunk`, which therefore
	 * must not be written again. Throws `MqttError` for what breaks MQTT's rules, and the same error at every further call.
	 */
	decode(chunk: Uint8Array, onPacket: (packet: ClientPacket) => boolean): void {
		if (this.#error !== undefined) throw this.#error;
		if (this.#stopped) return;
		try {
			let start = this.#heldLength > 0 ? this.#complete(chunk, onPacket) : 0;
			while (start < chunk.length) {
				const length = this.#packetLength(chunk, start, chunk.length);
				if (length === 0 || length > chunk.length - start) {
					this.#heldNeed = length;
					this.#hold(chunk, start, chunk.length);
					return;
				}
				const end = start + length;
				if (!onPacket(this.#packet(chunk, start, this.#body, end))) {
					this.#stopped = true;
					return;
				}
				start = end;
			}
		} catch (error) {
			this.#drop();
			if (error instanceof MqttError) this.#error = error;
			else this.#stopped = true;
			throw error;
		}
	}

	/** Goes on with the incomplete packet; answers how much of the chunk that used up. */
	#complete(chunk: Uint8Array, onPacket: (packet: ClientPacket) => boolean): number {
		let used = 0;
		while (this.#heldNeed === 0) {
			if (used === chunk.length) return used;
			this.#hold(chunk, used, used + 1);
			used++;
			this.#heldNeed = this.#packetLength(this.#held, 0, this.#heldLength);
		}
		const more = Math.min(this.#heldNeed - this.#heldLength, chunk.length - used);
		this.#hold(chunk, used, used + more);
		used += more;
		if (this.#heldLength < this.#heldNeed) return used;
		const held = this.#held;
		const length = this.#heldLength;
		this.#drop();
		this.#packetLength(held, 0, length);
		if (!onPacket(this.#packet(held, 0, this.#body, length))) {
			this.#stopped = true;
			return chunk.length;
		}
		return used;
	}

	/** Copies bytes behind those held. The buffer grows with what has come, never with what is announced. */
	#hold(bytes: Uint8Array, start: number, end: number): void {
		const length = this.#heldLength + end - start;
		if (length > this.#held.length) {
			const roomy = Math.max(MIN_HELD, length, 2 * this.#held.length);
			const grown = new Uint8Array(this.#heldNeed === 0 ? roomy : Math.min(roomy, this.#heldNeed));
			grown.set(this.#held.subarray(0, this.#heldLength));
			this.#held = grown;
		}
		this.#held.set(viewOf(bytes, start, end), this.#heldLength);
		this.#heldLength = length;
	}

	#drop(): void {
		this.#held = NO_PROPERTIES;
		this.#heldLength = 0;
		this.#heldNeed = 0;
	}

	/** Bytes of the whole packet at `start`, or 0 while its fixed header is incomplete. Throws as soon as a wrong header shows. */
	#packetLength(bytes: Uint8Array, start: number, end: number): number {
		const first = bytes[start] as number;
		const problem = this.#headers[first] as number;
		if (problem !== 0) throw this.#headerError(first, problem);
		let remaining = 0;
		let at = start + 1;
		for (let shift = 0; shift < 28; shift += 7) {
			if (at === end) return 0;
			const byte = bytes[at++] as number;
			remaining |= (byte & 0x7f) << shift;
			if (byte < 0x80) {
				if (byte === 0 && shift > 0) throw malformed(NAMES[first >> 4] as string, "its Remaining Length has more bytes than it needs"); // [MQTT-1.5.5-1]
				const length = at - start + remaining;
				if (length > this.#maxPacketSize) {
					throw new MqttError(
						ReasonCode.packetTooLarge,
						`Cannot accept ${NAMES[first >> 4]} of ${length} bytes: ${this.#maxPacketSize} is the limit`,
					);
				}
				this.#body = at;
				return length;
			}
		}
		throw malformed(NAMES[first >> 4] as string, "its Remaining Length has more than four bytes");
	}

	#headerError(first: number, problem: number): MqttError {
		const name = NAMES[first >> 4] as string;
		if (problem === ReasonCode.malformedPacket) return malformed(name, `flags ${first & 0x0f} are wrong for it in this protocol version`);
		return protocolError(
			name,
			this.#headers === HEADERS_BEFORE_CONNECT ? "the first packet must be CONNECT" : "a client may not send it now",
		);
	}

	#packet(bytes: Uint8Array, start: number, body: number, end: number): ClientPacket {
		const first = bytes[start] as number;
		const type = first >> 4;
		switch (type) {
			case Type.publish:
				return this.#publish(bytes, first, body, end);
			case Type.puback:
			case Type.pubrec:
			case Type.pubrel:
			case Type.pubcomp:
				return this.#ack(bytes, type, body, end);
		}
		reader.open(NAMES[type] as string, bytes, body, end);
		switch (type) {
			case Type.connect:
				return this.#connect();
			case Type.subscribe:
				return decodeSubscribe(reader, this.protocolVersion);
			case Type.unsubscribe:
				return decodeUnsubscribe(reader, this.protocolVersion);
			case Type.disconnect:
				return decodeDisconnect(reader, this.protocolVersion);
			case Type.auth:
				return decodeAuth(reader);
			default:
				reader.close();
				return PINGREQ;
		}
	}

	#connect(): ConnectPacket {
		this.protocolVersion = decodeProtocol(reader);
		this.#headers = HEADERS[this.protocolVersion];
		return decodeConnect(reader, this.protocolVersion, message, this.#topics);
	}

	#publish(bytes: Uint8Array, first: number, body: number, end: number): PublishPacket {
		const qos = ((first >> 1) & 3) as QoS;
		const nameStart = body + 2;
		const nameEnd = nameStart + (((bytes[body] as number) << 8) | (bytes[body + 1] as number));
		let at = qos === 0 ? nameEnd : nameEnd + 2;
		if (at > end) throw malformed("PUBLISH", "it ends inside its topic name or packet identifier");
		let packetId = 0;
		if (qos !== 0) {
			packetId = ((bytes[nameEnd] as number) << 8) | (bytes[nameEnd + 1] as number);
			if (packetId === 0) throw malformed("PUBLISH", "its packet identifier is 0"); // [v3 MQTT-2.3.1-1]
		}
		let topicAlias = ABSENT;
		let expirySeconds = ABSENT;
		let forwarded = NO_PROPERTIES;
		if (this.protocolVersion === 5) {
			if (at < end && bytes[at] === 0) {
				at++;
			} else {
				reader.open("PUBLISH", bytes, at, end);
				message.read(reader, PropertyPlace.publish);
				at = reader.position;
				({ topicAlias, expirySeconds, forwarded } = message);
			}
		}
		let topic: Topic | undefined;
		if (nameStart !== nameEnd) topic = this.#topics.intern(bytes, nameStart, nameEnd);
		else if (topicAlias === ABSENT) throw this.#noTopic();
		return {
			kind: "publish",
			topic,
			payload: end - at <= this.#copyPayloadsUpTo ? copyOf(bytes, at, end) : viewOf(bytes, at, end),
			qos,
			retain: (first & 1) !== 0,
			dup: (first & 8) !== 0,
			packetId,
			topicAlias,
			expirySeconds,
			forwarded,
		};
	}

	/** v5 calls it a protocol error; for v3, which closes without a word, it is an invalid topic name like any other. */
	#noTopic(): MqttError {
		if (this.protocolVersion === 5) return protocolError("PUBLISH", "it has neither a topic name nor a Topic Alias");
		return new MqttError(ReasonCode.topicNameInvalid, "Cannot accept PUBLISH: its topic name is empty"); // [v3 MQTT-4.7.3-1]
	}

	#ack(bytes: Uint8Array, type: number, body: number, end: number): AckPacket {
		let reasonCode = 0;
		if (end - body !== 2) {
			if (end - body < 2 || this.protocolVersion !== 5) throw malformed(NAMES[type] as string, "its length is wrong");
			reasonCode = bytes[body + 2] as number;
			// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
			if ((ACK_REASONS[type] as Uint8Array)[reasonCode] === 0)
				throw protocolError(NAMES[type] as string, `its reason code is 0x${reasonCode.toString(16)}`);
			if (end - body > 3) {
				reader.open(NAMES[type] as string, bytes, body + 3, end);
				skipProperties(reader, PropertyPlace.acknowledgement);
				reader.close();
			}
		}
		const packetId = ((bytes[body] as number) << 8) | (bytes[body + 1] as number);
		if (packetId === 0) throw malformed(NAMES[type] as string, "its packet identifier is 0");
		return { kind: ACK_KINDS[type] as AckPacket["kind"], packetId, reasonCode };
	}
}
