/**
 * A message while it is being handed out: encoded once per form that receivers need, not once per receiver. One object
 * serves all messages of a broker, one after the other; its buffers are reused, so receivers copy what they keep.
 */

import { type Message, remainingExpirySeconds } from "../mqtt/message.ts";
import type { ProtocolVersion } from "../mqtt/packet.ts";
import { type PublishFields, publishSize, writePublish } from "../mqtt/publish_encoder.ts";

type Encoded = Uint8Array | undefined;

export class Publication {
	#message: Message | undefined;
	#expirySeconds: number | undefined;
	#single = false;
	readonly #buffers: Uint8Array[] = [];
	/** Encodings with QoS 0 by form: bit 0 RETAIN, bit 1 MQTT 5. `undefined` until a receiver needs it. */
	readonly #encoded: [Encoded, Encoded, Encoded, Encoded] = [undefined, undefined, undefined, undefined];

	/**
	 * Starts with another message; what was encoded before is void.
	 * @param single There is one receiver: encoding for it alone spares a copy.
	 */
	begin(message: Message, nowMs: number, single = false): this {
		this.#message = message;
		this.#single = single;
		this.#expirySeconds = remainingExpirySeconds(message, nowMs);
		if (!single) this.#encoded.fill(undefined);
		return this;
	}

	/** Whether there is only one receiver. */
	get single(): boolean {
		return this.#single;
	}

	get message(): Message {
		return this.#message as Message;
	}

	/** Message Expiry Interval to send, see `remainingExpirySeconds`. */
	get expirySeconds(): number | undefined {
		return this.#expirySeconds;
	}

	/** The packet with QoS 0, without aliases and identifiers. Void as soon as the next message begins. */
	encoded(version: ProtocolVersion, retain: boolean): Uint8Array {
		const form = (version === 5 ? 2 : 0) | (retain ? 1 : 0);
		return this.#encoded[form] ?? this.#encode(form, version, retain);
	}

	#encode(form: number, version: ProtocolVersion, retain: boolean): Uint8Array {
		const message = this.#message as Message;
		const fields: PublishFields = {
			version,
			qos: 0,
			retain,
			dup: false,
			packetId: 0,
			subscriptionIds: undefined,
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
		const encoded = buffer.subarray(0, size);
		this.#encoded[form] = encoded;
		return encoded;
	}
}
