/** The publications of one client: its rights, its order, and the result of each. */

import { countByCode } from "../metrics.ts";
import type { Message } from "../mqtt/message.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Input } from "../session/effects.ts";
import type { SessionRef } from "../store/store.ts";
import type { ClientRights } from "./client_rights.ts";
import type { ConnectionContext } from "./context.ts";
import { NotStored, type PublishContext } from "./routing.ts";

/** What a waiting message takes besides its payload, roughly. */
const PER_MESSAGE_BYTES = 256;

/** The client that publishes. */
export interface Publisher {
	readonly clientId: string;
	readonly rights: ClientRights;
	readonly persistent: boolean;
	readonly session: SessionRef;
	/** Whether it can be told a reason code: MQTT 5. */
	readonly hearsReasons: boolean;
	handle(input: Input): void;
	/** Takes a new token for the rest of the session; answers the result of the publication that brought it. */
	renew(token: Uint8Array): Promise<ReasonCode>;
}

/** Where a client without enhanced authentication publishes its next token. Never routed, stored or logged. */
const RENEWAL_TOPIC = "$SYS/auth/renew";

export class Publishing {
	readonly #context: ConnectionContext;
	readonly #publisher: Publisher;
	/** Publications behind one whose right is still being decided, in order; `undefined` while none is. */
	#waiting: { readonly message: Message; readonly packetId: number }[] | undefined;
	/** Payload bytes of these. */
	#waitingBytes = 0;
	/** Payload bytes of publications without a result. */
	#unsettledBytes = 0;

	constructor(context: ConnectionContext, publisher: Publisher) {
		this.#context = context;
		this.#publisher = publisher;
	}

	/** Publishes if the client may. For QoS ≥ 1 `published` follows when the message is stored, in any case. */
	publish(message: Message, packetId: number): void {
		if (message.topic.name === RENEWAL_TOPIC) {
			this.#settleLater(this.#publisher.renew(message.payload.slice()), packetId, message.payload.length, 0);
			return;
		}
		if (this.#waiting !== undefined) {
			this.#wait(this.#waiting, message, packetId);
			return;
		}
		const decision = this.#permits(message);
		if (typeof decision === "boolean") {
			this.#decided(message, packetId, decision);
			return;
		}
		this.#waiting = [];
		const decide = (yes: boolean) => {
			const waiting = this.#waiting ?? [];
			this.#waiting = undefined;
			this.#waitingBytes = 0;
			this.#decided(message, packetId, yes);
			for (const next of waiting) this.publish(next.message, next.packetId);
		};
		void decision.then(decide);
	}

	/** Whoever floods faster than its rights are decided is cut off. */
	#wait(waiting: { readonly message: Message; readonly packetId: number }[], message: Message, packetId: number): void {
		this.#waitingBytes += message.payload.length + PER_MESSAGE_BYTES;
		if (this.#waitingBytes <= this.#context.maxBufferedBytes) waiting.push({ message, packetId });
		else
			this.#publisher.handle({ kind: "end", reasonCode: ReasonCode.quotaExceeded, reason: "too much waits for a decision on its rights" });
	}

	#permits(message: Message): boolean | Promise<boolean> {
		const { topic, qos, retain } = message;
		// Topics that begin with $ are the broker's own ($SYS) or reserved.
		if (topic.bytes[0] === 0x24) return false;
		return this.#publisher.rights.mayPublish(topic, qos, retain);
	}

	#decided(message: Message, packetId: number, yes: boolean): void {
		if (!yes) {
			this.#context.metrics.dropped.notAuthorized++;
			this.#result(packetId, ReasonCode.notAuthorized);
			return;
		}
		const { rights } = this.#publisher;
		const { tenancy } = rights;
		const author = message.retain ? rights.author : undefined;
		const written = author === undefined ? message : { ...message, author };
		if (tenancy === undefined) {
			this.#publish(written, packetId);
			return;
		}
		const topic = tenancy.topic(message.topic);
		if (topic === undefined) this.#result(packetId, ReasonCode.topicNameInvalid);
		else this.#publish({ ...written, topic }, packetId);
	}

	/** @param message With the topic as the broker has it. */
	#publish(message: Message, packetId: number): void {
		const { publish } = this.#context;
		const publisher = this.#publisher;
		let context: PublishContext | undefined;
		if (message.qos === 2 && publisher.persistent) context = { reserve: { session: publisher.session, packetId } };
		const { latencies } = this.#context;
		const sinceMs = latencies.begin();
		const result = publish(message, context);
		latencies.delivered(sinceMs);
		if (typeof result === "number") {
			if (packetId > 0) latencies.acknowledged(sinceMs);
			this.#result(packetId, result);
		} else this.#settleLater(result, packetId, message.payload.length + PER_MESSAGE_BYTES, sinceMs);
	}

	#settleLater(result: Promise<ReasonCode>, packetId: number, bytes: number, sinceMs: number): void {
		this.#unsettledBytes += bytes;
		result.then(
			(reasonCode) => {
				this.#unsettledBytes -= bytes;
				if (packetId > 0) this.#context.latencies.acknowledged(sinceMs);
				this.#result(packetId, reasonCode);
			},
			(error) => {
				this.#unsettledBytes -= bytes;
				this.#notStored(error, packetId);
			},
		);
		// Whoever goes on sending while nothing can be stored is cut off before it fills the memory (P10, P11).
		if (this.#unsettledBytes > this.#context.maxBufferedBytes && this.#context.away()) {
			this.#publisher.handle({ kind: "end", reasonCode: ReasonCode.quotaExceeded, reason: "too much waits for the store" });
		}
	}

	#result(packetId: number, reasonCode: ReasonCode): void {
		if (reasonCode >= 0x80) countByCode(this.#context.metrics.publishesRefused, reasonCode);
		if (packetId > 0) this.#publisher.handle({ kind: "published", packetId, reasonCode });
	}

	/** Never acknowledged as stored: MQTT 5 can say so, an older client is cut off and sends again. */
	#notStored(error: unknown, packetId: number): void {
		const { metrics, log } = this.#context;
		// Another connection has the session, and the client sends it again there.
		if (error instanceof NotStored && error.fenced) {
			this.#publisher.handle({ kind: "takenOver" });
			return;
		}
		metrics.dropped.storeFailed++;
		const reasonCode = error instanceof NotStored ? error.reasonCode : ReasonCode.implementationSpecificError;
		if (reasonCode !== ReasonCode.quotaExceeded) log.error("A message could not be stored", { error });
		if (packetId === 0) return;
		if (this.#publisher.hearsReasons && reasonCode === ReasonCode.quotaExceeded) this.#result(packetId, reasonCode);
		else this.#publisher.handle({ kind: "end", reasonCode, reason: "the message could not be stored" });
	}
}
