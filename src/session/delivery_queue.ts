/** Deliveries that wait for the client's window, in memory: bounded in number and in bytes. */

import { kept } from "../mqtt/message.ts";
import type { Delivery } from "./effects.ts";

export class DeliveryQueue {
	readonly #maxLength: number;
	readonly #maxBytes: number;
	#deliveries: Delivery[] = [];
	/** Those before it have left. */
	#head = 0;
	#bytes = 0;

	constructor(maxLength: number, maxBytes: number) {
		this.#maxLength = maxLength;
		this.#maxBytes = maxBytes;
	}

	get length(): number {
		return this.#deliveries.length - this.#head;
	}

	get full(): boolean {
		return this.length >= this.#maxLength || this.#bytes >= this.#maxBytes;
	}

	/** Answers false when the queue is full: the delivery is not in it. */
	push(delivery: Delivery): boolean {
		if (this.full) return false;
		this.#deliveries.push({ ...delivery, message: kept(delivery.message) });
		this.#bytes += delivery.message.payload.length;
		return true;
	}

	/** The one that waits longest. */
	shift(): Delivery | undefined {
		const delivery = this.#deliveries[this.#head];
		if (delivery === undefined) return undefined;
		this.#head++;
		this.#bytes -= delivery.message.payload.length;
		if (this.#head * 2 >= this.#deliveries.length) {
			this.#deliveries = this.#deliveries.slice(this.#head);
			this.#head = 0;
		}
		return delivery;
	}
}
