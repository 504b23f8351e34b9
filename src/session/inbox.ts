/**
 * The receiving side of a session for QoS 1 and 2: which publications await their result, in which order they are
 * acknowledged, and which packet ids of QoS 2 wait for PUBREL.
 */

import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Effect } from "./effects.ts";

interface PendingPublication {
	readonly packetId: number;
	readonly qos: 1 | 2;
	/** `undefined` until the result is there. */
	result: ReasonCode | undefined;
}

export class Inbox {
	/** Publications whose acknowledgement has not been sent, oldest first, from `#head` on. */
	#pending: PendingPublication[] = [];
	#head = 0;
	/** QoS 2 ids between PUBLISH and PUBCOMP. */
	#reserved: Set<number> | undefined;

	/** QoS 1 publications without PUBACK. */
	#unacknowledged = 0;

	/** Publications of the client that count against the server's Receive Maximum [MQTT-3.3.4-7]. */
	get inflight(): number {
		return (this.#reserved?.size ?? 0) + this.#unacknowledged;
	}

	resume(reservedIds: readonly number[]): void {
		if (reservedIds.length > 0) this.#reserved = new Set(reservedIds);
	}

	/**
	 * Takes note of a PUBLISH. Answers false for a QoS 2 id that is in use: the message was sent before and must not be
	 * published again [MQTT-4.3.3-10]; its PUBREC is sent again when the first one is due or was sent.
	 */
	begin(packetId: number, qos: 1 | 2, effects: Effect[]): boolean {
		if (qos === 2) {
			if (this.#reserved?.has(packetId)) {
				if (!this.#pendingHas(packetId)) this.#acknowledge({ packetId, qos, result: ReasonCode.success }, effects);
				return false;
			}
			this.#reserved ??= new Set();
			this.#reserved.add(packetId);
		} else this.#unacknowledged++;
		this.#pending.push({ packetId, qos, result: undefined });
		return true;
	}

	/** A result came. Acknowledgements leave in the order of the PUBLISH packets [MQTT-4.6.0-2] [MQTT-4.6.0-3]. */
	published(packetId: number, reasonCode: ReasonCode, effects: Effect[]): void {
		for (let i = this.#head; i < this.#pending.length; i++) {
			const pending = this.#pending[i] as PendingPublication;
			if (pending.packetId !== packetId || pending.result !== undefined) continue;
			pending.result = reasonCode;
			break;
		}
		while (this.#head < this.#pending.length) {
			const pending = this.#pending[this.#head] as PendingPublication;
			if (pending.result === undefined) break;
			this.#head++;
			this.#acknowledge(pending, effects);
		}
		if (this.#head === this.#pending.length) {
			this.#pending.length = 0;
			this.#head = 0;
		} else if (this.#head > 64 && this.#head * 2 > this.#pending.length) {
			this.#pending = this.#pending.slice(this.#head);
			this.#head = 0;
		}
	}

	/** PUBREL came: the id is to be released in the store first; an unknown one is answered at once. */
	pubrel(packetId: number, effects: Effect[]): void {
		if (this.#reserved?.has(packetId) && !this.#pendingHas(packetId)) effects.push({ kind: "release", packetId });
		else effects.push({ kind: "send", packet: { kind: "pubcomp", packetId, reasonCode: ReasonCode.packetIdentifierNotFound } });
	}

	/** The id is free in the store: PUBCOMP [MQTT-4.3.3-11], and the next PUBLISH with it is a new message [MQTT-4.3.3-12]. */
	released(packetId: number, effects: Effect[]): void {
		this.#reserved?.delete(packetId);
		effects.push({ kind: "send", packet: { kind: "pubcomp", packetId, reasonCode: ReasonCode.success } });
	}

	#pendingHas(packetId: number): boolean {
		for (let i = this.#head; i < this.#pending.length; i++) {
			const pending = this.#pending[i] as PendingPublication;
			if (pending.packetId === packetId && pending.qos === 2) return true;
		}
		return false;
	}

	#acknowledge({ packetId, qos, result }: PendingPublication, effects: Effect[]): void {
		const reasonCode = result ?? ReasonCode.success;
		// A refused QoS 2 publication ends here: its id is free again [MQTT-4.3.3-9].
		if (qos === 2 && reasonCode >= 0x80) this.#reserved?.delete(packetId);
		if (qos === 1) this.#unacknowledged--;
		effects.push({ kind: "send", packet: { kind: qos === 1 ? "puback" : "pubrec", packetId, reasonCode } });
	}
}
