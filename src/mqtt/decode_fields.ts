/**
 * Reads the fields of one packet: integers, strings, binary data and property blocks, each checked against the end of what
 * it stands in. Knows the data types of MQTT 5 section 1.5 and the property table, not what a packet consists of.
 */

import { NO_PROPERTIES } from "./packet.ts";
import { PROPERTY_NAMES, PROPERTY_ONCE_BITS, PROPERTY_PLACES, PROPERTY_TYPES, Property, PropertyType } from "./properties.ts";
import { MqttError, ReasonCode } from "./reason_code.ts";
import { decodeText, isText } from "./utf8.ts";

const PLUS = 0x2b;
const HASH = 0x23;

/** 0x81: the bytes cannot be read. `packet` and `problem` make one sentence for the log. */
export function malformed(packet: string, problem: string): MqttError {
	return new MqttError(ReasonCode.malformedPacket, `Cannot decode ${packet}: ${problem}`);
}

/** 0x82: the bytes can be read and say what must not be said. */
export function protocolError(packet: string, problem: string): MqttError {
	return new MqttError(ReasonCode.protocolError, `Cannot accept ${packet}: ${problem}`);
}

/** A view that is a plain `Uint8Array` also where the bytes are a `Buffer`, whose `slice` and `subarray` differ. */
export function viewOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
	return new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start);
}

/** A copy, byte by byte: for few bytes that is the fastest way on every engine. */
export function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
	const copy = new Uint8Array(end - start);
	for (let i = 0; i < copy.length; i++) copy[i] = bytes[start + i] as number;
	return copy;
}

/** A cursor over the body of one packet. One per decoder, opened anew for each packet. */
export class FieldReader {
	/** The bytes that the packet stands in. */
	bytes: Uint8Array = NO_PROPERTIES;
	/** Index of the next byte. */
	position = 0;
	/** Name of the packet in errors. */
	packet = "";
	/** Index after the last byte of the packet, or of the property block while one is open. */
	#end = 0;
	#packetEnd = 0;
	/** Index of the first byte of the string or binary data read last. */
	#fieldStart = 0;
	/** The properties of the open block that may stand only once. */
	#seen = 0;

	open(packet: string, bytes: Uint8Array, start: number, end: number): void {
		this.packet = packet;
		this.bytes = bytes;
		this.position = start;
		this.#end = end;
		this.#packetEnd = end;
	}

	/** Nothing is left in the packet, or in the open property block. */
	get atEnd(): boolean {
		return this.position >= this.#end;
	}

	/** Lets go of the bytes. Throws when some of them belong to no field. */
	close(): void {
		if (this.position !== this.#end) throw malformed(this.packet, `${this.#end - this.position} bytes follow its last field`);
		this.bytes = NO_PROPERTIES;
	}

	byte(field: string): number {
		const at = this.#take(1, field);
		return this.bytes[at] as number;
	}

	twoBytes(field: string): number {
		const at = this.#take(2, field);
		return ((this.bytes[at] as number) << 8) | (this.bytes[at + 1] as number);
	}

	fourBytes(field: string): number {
		const high = this.twoBytes(field);
		return high * 0x10000 + this.twoBytes(field);
	}

	/** A byte that is 0 or 1. */
	flag(field: string): boolean {
		const value = this.byte(field);
		if (value > 1) throw protocolError(this.packet, `${field} is ${value}, not 0 or 1`);
		return value === 1;
	}

	variableByteInteger(field: string): number {
		let value = 0;
		for (let shift = 0; shift < 28; shift += 7) {
			const byte = this.byte(field);
			value |= (byte & 0x7f) << shift;
			if (byte < 0x80) {
				if (byte === 0 && shift > 0) throw malformed(this.packet, `${field} has more bytes than it needs`); // [MQTT-1.5.5-1]
				return value;
			}
		}
		throw malformed(this.packet, `${field} has more than four bytes`);
	}

	/** Identifier of a packet that needs an acknowledgement. */
	packetId(): number {
		const id = this.twoBytes("its packet identifier");
		if (id === 0) throw malformed(this.packet, "its packet identifier is 0"); // [v3 MQTT-2.3.1-1]
		return id;
	}

	text(field: string): string {
		this.skipText(field);
		return decodeText(this.bytes, this.#fieldStart, this.position);
	}

	/** A view of the packet's bytes. */
	binary(field: string): Uint8Array {
		this.skipBinary(field);
		return viewOf(this.bytes, this.#fieldStart, this.position);
	}

	skipText(field: string): void {
		this.skipBinary(field);
		// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [v3 MQTT-1.5.3-1] [v3 MQTT-1.5.3-2]
		if (!isText(this.bytes, this.#fieldStart, this.position))
			throw malformed(this.packet, `${field} is not well-formed UTF-8 without U+0000`);
	}

	skipBinary(field: string): void {
		const length = this.twoBytes(field);
		this.#fieldStart = this.#take(length, field);
	}

	/** Goes on behind bytes that the caller reads itself. */
	skipBytes(length: number, field: string): void {
		this.#take(length, field);
	}

	/** Enters a property block; until `endProperties`, the end of the block is the end. Answers the index after its last byte. */
	beginProperties(): number {
		const length = this.variableByteInteger("its property length");
		if (length > this.#end - this.position) throw malformed(this.packet, "its property length points beyond its end");
		this.#end = this.position + length;
		this.#seen = 0;
		return this.#end;
	}

	/** Leaves the property block, of which the caller has read everything up to `atEnd`. */
	endProperties(): void {
		this.#end = this.#packetEnd;
	}

	/** Identifier of the next property, which may stand at `place` and stands there for the first time, or is a User Property. */
	property(place: number): number {
		const id = this.byte("a property");
		if (PROPERTY_TYPES[id] === 0) throw malformed(this.packet, `property 0x${id.toString(16)} does not exist`);
		if (((PROPERTY_PLACES[id] as number) & place) === 0) throw protocolError(this.packet, `it may not carry ${PROPERTY_NAMES[id]}`);
		const bit = PROPERTY_ONCE_BITS[id] as number;
		if ((this.#seen & bit) !== 0) throw protocolError(this.packet, `it carries ${PROPERTY_NAMES[id]} twice`);
		this.#seen |= bit;
		return id;
	}

	/** Checks the value of a property that nobody here wants to know and goes on behind it. The integers all have somebody who does. */
	skipValue(id: number): void {
		const name = PROPERTY_NAMES[id] as string;
		switch (PROPERTY_TYPES[id]) {
			case PropertyType.byte:
				// Every byte that a client may send as a property is a flag.
				this.flag(name);
				break;
			case PropertyType.text:
				this.skipText(name);
				// [MQTT-3.3.2-14]; a will's Response Topic becomes that of a PUBLISH.
				if (id === Property.responseTopic) this.#refuseWildcards();
				break;
			case PropertyType.textPair:
				// [MQTT-1.5.7-1]
				this.skipText("the name of a User Property");
				this.skipText("the value of a User Property");
				break;
			case PropertyType.binary:
				this.skipBinary(name);
				break;
		}
	}

	#refuseWildcards(): void {
		for (let at = this.#fieldStart; at < this.position; at++) {
			const byte = this.bytes[at];
			if (byte === PLUS || byte === HASH) throw protocolError(this.packet, "its Response Topic contains a wildcard");
		}
	}

	/** Index of the next `length` bytes, behind which it goes on. */
	#take(length: number, field: string): number {
		const at = this.position;
		if (length > this.#end - at) throw malformed(this.packet, `it ends inside ${field}`);
		this.position = at + length;
		return at;
	}
}
