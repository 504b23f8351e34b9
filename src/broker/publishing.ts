/** The publications of one client: its rights, its order, and the result of each. */

import { type Principal, permitted } from "../auth/auth.ts";
import { countByCode } from "../metrics.ts";
import type { Message } from "../mqtt/message.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Input } from "../session/effects.ts";
import type { SessionRef } from "../store/store.ts";
import type { ConnectionContext } from "./context.ts";
import { NotStored, type PublishContext } from "./routing.ts";

/** What a waiting message takes besides its payload, roughly. */
const PER_MESSAGE_BYTES = 256;

/** The client that publishes. */
export interface Publisher {
	readonly clientId: string;
	readonly principal: Principal;
	readonly persistent: boolean;
	readonly session: SessionRef;
	/** Whether it can be told a reason code: MQTT 5. */
	readonly hearsReasons: boolean;
	handle(input: Input): void;
}

export class Publishing {
	readonly #context: ConnectionContext;
	readonly #publisher: Publisher;
	/** Publications behind one whose right is still being decided, in order; `undefined` while none is. */
	#waiting: { readonly message: Message; readonly packetId: number }[] | undefined;
	/** Payload bytes of these. */
	#waitingBytes = 0;

	constructor(context: ConnectionContext, publisher: Publisher) {
		this.#context = context;
		this.#publisher = publisher;
	}

	/** Publishes if the client may. For QoS ≥ 1 `published` follows when the message is stored, in any case. */
	publish(message: Message, packetId: number): void {
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
		const topic = message.topic.name;
		// Topics that begin with $ are the broker's own ($SYS) or reserved.
		if (topic.charCodeAt(0) === 0x24) return false;
		const { principal, clientId } = this.#publisher;
		const access = { action: "publish", topic, qos: message.qos, retain: message.retain } as const;
		return permitted(this.#context.authorizer, principal, clientId, access);
	}

	#decided(message: Message, packetId: number, yes: boolean): void {
		const { metrics, routing } = this.#context;
		const publisher = this.#publisher;
		if (!yes) {
			metrics.dropped.notAuthorized++;
			this.#result(packetId, ReasonCode.notAuthorized);
			return;
		}
		let context: PublishContext | undefined;
		if (message.qos === 2 && publisher.persistent) context = { reserve: { session: publisher.session, packetId } };
		const result = routing.publish(message, context);
		if (typeof result === "number") this.#result(packetId, result);
		else {
			result.then(
				(reasonCode) => this.#result(packetId, reasonCode),
				(error) => this.#notStored(error, packetId),
			);
		}
	}

	#result(packetId: number, reasonCode: ReasonCode): void {
		if (reasonCode >= 0x80) countByCode(this.#context.metrics.publishesRefused, reasonCode);
		if (packetId > 0) this.#publisher.handle({ kind: "published", packetId, reasonCode });
	}

	/** Never acknowledged as stored: MQTT 5 can say so, an older client is cut off and sends again. */
	#notStored(error: unknown, packetId: number): void {
		const { metrics, log } = this.#context;
		metrics.dropped.storeFailed++;
		const reasonCode = error instanceof NotStored ? error.reasonCode : ReasonCode.implementationSpecificError;
		if (reasonCode !== ReasonCode.quotaExceeded) log.error("A message could not be stored", { error });
		if (packetId === 0) return;
		if (this.#publisher.hearsReasons && reasonCode === ReasonCode.quotaExceeded) this.#result(packetId, reasonCode);
		else this.#publisher.handle({ kind: "end", reasonCode, reason: "the message could not be stored" });
	}
}
