/**
 * A message while it is being handed out: encoded once per form that receivers need, not once per receiver. One object
 * serves all messages of a broker, one after the other; its buffers are reused, so receivers copy what they keep.
 */

import { type Message, remainingExpirySeconds } from "../mqtt/message.ts";
import type { ProtocolVersion } from "../mqtt/packet.ts";
import { type PublishFields, publishSize, writePublish } from "../mqtt/publish_encoder.ts";

const NO_IDS: readonly number[] = [];

export class Publication {
	#message: Message | undefined;
	#expirySeconds: number | undefined;
	/** Encodings with QoS 0 by [v5][RETAIN]: bit 0 RETAIN, bit 1 MQTT 5. */
	readonly #buffers: Uint8Array[] = [];
	readonly #lengths: [number, number, number, number] = [0, 0, 0, 0];

	/** Starts with another message; what was encoded before is void. */
	begin(message: Message, nowMs: number): this {
		this.#message = message;
		this.#expirySeconds = remainingExpirySeconds(message, nowMs);
		this.#lengths.fill(0);
		return this;
	}

	get message(): Message {
		return this.#message as Message;
	}

	/** Message Expiry Interval to send, see `remainingExpirySeconds`. */
	get expirySeconds(): number | undefined {
		return this.#expirySeconds;
	}

	/** Length of the QoS 0 packet in bytes; its bytes are then at the start of `encoded` for the same arguments. */
	encode(version: ProtocolVersion, retain: boolean): number {
		const form = (version === 5 ? 2 : 0) | (retain ? 1 : 0);
		const known = this.#lengths[form] as number;
		if (known > 0) return known;
		const message = this.#message as Message;
		const fields: PublishFields = {
			version,
			qos: 0,
			retain,
			dup: false,
			packetId: 0,
			subscriptionIds: NO_IDS,
			topicAlias: 0,
			omitTopic: false,
			expirySeconds: this.#expirySeconds,
		};
		const size = publishSize(message, fields);
		let buffer = this.#buffers[form];
		if (buffer === undefined || buffer.length < size) {
			buffer = new Uint8Array(Math.max(4096, size));
			this.#buffers[form] = buffer;
		}
		writePublish(buffer, 0, message, fields);
		this.#lengths[form] = size;
		return size;
	}

	/** Buffer whose start holds what `encode` made. */
	encoded(version: ProtocolVersion, retain: boolean): Uint8Array {
		return this.#buffers[(version === 5 ? 2 : 0) | (retain ? 1 : 0)] as Uint8Array;
	}
}
