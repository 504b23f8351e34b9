/** The publications of one client: its rights, its order, and the result of each. */

import type { Principal } from "../auth/auth.ts";
import { countByCode } from "../metrics.ts";
import type { Message } from "../mqtt/message.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Input } from "../session/effects.ts";
import type { SessionRef } from "../store/store.ts";
import type { ConnectionContext } from "./context.ts";
import { NotStored, type PublishContext } from "./routing.ts";

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

	constructor(context: ConnectionContext, publisher: Publisher) {
		this.#context = context;
		this.#publisher = publisher;
	}

	/** Publishes if the client may. For QoS ≥ 1 `published` follows when the message is stored, in any case. */
	publish(message: Message, packetId: number): void {
		if (this.#waiting !== undefined) {
			this.#waiting.push({ message, packetId });
			return;
		}
		const permitted = this.#permits(message);
		if (typeof permitted === "boolean") {
			this.#decided(message, packetId, permitted);
			return;
		}
		this.#waiting = [];
		const decide = (yes: boolean) => {
			const waiting = this.#waiting ?? [];
			this.#waiting = undefined;
			this.#decided(message, packetId, yes);
			for (const next of waiting) this.publish(next.message, next.packetId);
		};
		permitted.then(decide, () => decide(false));
	}

	#permits(message: Message): boolean | Promise<boolean> {
		const topic = message.topic.name;
		// Topics that begin with $ are the broker's own ($SYS) or reserved.
		if (topic.charCodeAt(0) === 0x24) return false;
		const { principal, clientId } = this.#publisher;
		return this.#context.authorizer.permits(principal, clientId, { action: "publish", topic, qos: message.qos, retain: message.retain });
	}

	#decided(message: Message, packetId: number, permitted: boolean): void {
		const { metrics, routing } = this.#context;
		const publisher = this.#publisher;
		if (!permitted) {
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
