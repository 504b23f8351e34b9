/**
 * The property block of a message, as PUBLISH and the will of CONNECT carry it: what concerns the delivery is taken out,
 * the rest is checked and kept as bytes to forward.
 */

import { type FieldReader, viewOf } from "./decode_fields.ts";
import { ABSENT, NO_PROPERTIES } from "./packet.ts";
import { Property } from "./properties.ts";

/** What the block read last said. One per decoder: the packet takes the values over. */
export class MessageProperties {
	/** As on the wire, or `ABSENT`. */
	topicAlias: number = ABSENT;
	/** Message Expiry Interval or `ABSENT`. */
	expirySeconds: number = ABSENT;
	/** Will Delay Interval; 0 when absent. */
	delaySeconds = 0;
	/** The other properties in their order [MQTT-3.3.2-18] [MQTT-3.1.3-10]: a view of the packet if they stand together, else a copy. */
	forwarded: Uint8Array = NO_PROPERTIES;

	clear(): void {
		this.topicAlias = ABSENT;
		this.expirySeconds = ABSENT;
		this.delaySeconds = 0;
		this.forwarded = NO_PROPERTIES;
	}

	/** Reads the block that begins at the reader's position. */
	read(reader: FieldReader, place: number): void {
		this.clear();
		const end = reader.beginProperties();
		// At most two properties are taken out, so that at most three pieces stay: before, between and behind them.
		const start = reader.position;
		let firstCut = end;
		let firstCutEnd = end;
		let secondCut = end;
		let secondCutEnd = end;
		while (!reader.atEnd) {
			const at = reader.position;
			const id = reader.property(place);
			if (id === Property.messageExpiryInterval) {
				this.expirySeconds = reader.fourBytes("Message Expiry Interval");
			} else if (id === Property.topicAlias) {
				this.topicAlias = reader.twoBytes("Topic Alias");
			} else if (id === Property.willDelayInterval) {
				this.delaySeconds = reader.fourBytes("Will Delay Interval");
			} else {
				reader.skipValue(id);
				continue;
			}
			if (firstCut === end) {
				firstCut = at;
				firstCutEnd = reader.position;
			} else {
				secondCut = at;
				secondCutEnd = reader.position;
			}
		}
		reader.endProperties();
		this.forwarded = keep(reader.bytes, start, firstCut, firstCutEnd, secondCut, secondCutEnd, end);
	}
}

function keep(
	bytes: Uint8Array,
	start: number,
	firstCut: number,
	firstCutEnd: number,
	secondCut: number,
	secondCutEnd: number,
	end: number,
): Uint8Array {
	const before = firstCut - start;
	const between = secondCut - firstCutEnd;
	const behind = end - secondCutEnd;
	const length = before + between + behind;
	if (length === 0) return NO_PROPERTIES;
	if (length === before) return viewOf(bytes, start, firstCut);
	if (length === between) return viewOf(bytes, firstCutEnd, secondCut);
	if (length === behind) return viewOf(bytes, secondCutEnd, end);
	const kept = new Uint8Array(length);
	kept.set(viewOf(bytes, start, firstCut), 0);
	kept.set(viewOf(bytes, firstCutEnd, secondCut), before);
	kept.set(viewOf(bytes, secondCutEnd, end), before + between);
	return kept;
}
