/**
 * What one connection may publish, remembered: an answer that is known costs some nanoseconds and no allocation. Everything
 * is forgotten when the rules change or the client authenticates again.
 */

import type { QoS } from "../mqtt/packet.ts";
import type { Topic } from "../mqtt/topic.ts";
import { type Authorizer, type Principal, permitted } from "./auth.ts";
import { makeRoom } from "./make_room.ts";

/** Topics remembered for a connection. */
const DEFAULT_CAPACITY = 64;
/** Six bits for the kinds of publication that were decided, and six for those that are allowed. */
const ALLOWED_SHIFT = 6;

export class PublishRights {
	readonly #authorizer: Authorizer;
	readonly #capacity: number;
	#principal: Principal;
	#clientId: string;
	/** What is known of each topic by its name, the oldest first. */
	#known: Map<string, number> | undefined;
	#generation: number | undefined;
	/** The topic of the last publication that was decided. */
	#lastTopic: Topic | undefined;
	#lastKnown = 0;

	/** @param capacity Topics remembered: about 50 bytes each */
	constructor(authorizer: Authorizer, principal: Principal, clientId: string, capacity = DEFAULT_CAPACITY) {
		this.#authorizer = authorizer;
		this.#principal = principal;
		this.#clientId = clientId;
		this.#capacity = capacity;
		this.#generation = authorizer.generation;
	}

	/** The client authenticated again, or its rights changed: nothing that was decided before counts any more. */
	reset(principal: Principal, clientId: string): void {
		this.#principal = principal;
		this.#clientId = clientId;
		this.#forget();
	}

	/** Whether the client may publish this. The promise of an answer never rejects. */
	decide(topic: Topic, qos: QoS, retain: boolean): boolean | Promise<boolean> {
		const authorizer = this.#authorizer;
		if (authorizer.permitsAll === true) return true;
		if (authorizer.generation !== this.#generation) this.#forget();
		const bit = 1 << (retain ? qos + 3 : qos);
		const known = topic === this.#lastTopic ? this.#lastKnown : (this.#known?.get(topic.name) ?? 0);
		if ((known & bit) !== 0) {
			this.#lastTopic = topic;
			this.#lastKnown = known;
			return (known & (bit << ALLOWED_SHIFT)) !== 0;
		}
		return this.#ask(topic, qos, retain, known, bit);
	}

	#ask(topic: Topic, qos: QoS, retain: boolean, known: number, bit: number): boolean | Promise<boolean> {
		const access = { action: "publish", topic: topic.name, qos, retain } as const;
		const decision = permitted(this.#authorizer, this.#principal, this.#clientId, access);
		// A promise is not remembered: by the time it is kept, the rules may be others.
		if (typeof decision === "boolean" && this.#authorizer.volatile !== true) {
			this.#remember(topic, known | bit | (decision ? bit << ALLOWED_SHIFT : 0));
		}
		return decision;
	}

	/** The map is made for the second topic: most clients publish to one. */
	#remember(topic: Topic, known: number): void {
		const last = this.#lastTopic;
		if (last !== undefined && last.name !== topic.name) this.#known ??= new Map([[last.name, this.#lastKnown]]);
		if (this.#known !== undefined) {
			if (!this.#known.has(topic.name)) makeRoom(this.#known, this.#capacity);
			this.#known.set(topic.name, known);
		}
		this.#lastTopic = topic;
		this.#lastKnown = known;
	}

	#forget(): void {
		this.#known = undefined;
		this.#lastTopic = undefined;
		this.#lastKnown = 0;
		this.#generation = this.#authorizer.generation;
	}
}
