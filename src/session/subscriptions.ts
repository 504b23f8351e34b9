/**
 * The subscriptions of one session, and the SUBSCRIBE and UNSUBSCRIBE packets that change them: one after the other, each
 * judged here as far as its own words go. Rights and storage are the broker's.
 */

import { ABSENT, type SubscribePacket, type SubscriptionRequest, type UnsubscribePacket } from "../mqtt/packet.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import { filterRefusal, type Tenancy } from "../mqtt/tenancy.ts";
import { filterProblem, parseShare } from "../mqtt/topic.ts";
import type { StoredSubscription } from "../store/store.ts";
import type { Problem } from "./connect.ts";
import type { Effect, SubscribeEntry, SubscribeResult } from "./effects.ts";
import type { Outbox } from "./outbox.ts";
import { Held, Subscription } from "./subscription.ts";

/** SUBSCRIBE and UNSUBSCRIBE packets without an answer: more is a flood. */
const MAX_WAITING = 1_024;

export interface SubscriptionsOptions {
	/** Whether the session outlives the connection. */
	readonly persistent: boolean;
	readonly maxTopicLevels: number;
	readonly maxSubscriptions: number;
	/** Where the filters are that the client names; `undefined` for a client of no tenant. */
	readonly tenancy: Tenancy | undefined;
}

export class Subscriptions {
	readonly #options: SubscriptionsOptions;
	readonly #outbox: Outbox;
	readonly #byFilter = new Map<string, Subscription>();
	/** `[0]` is under way, the others wait for it. */
	readonly #packets: (SubscribePacket | UnsubscribePacket)[] = [];

	/** @param outbox Reads the logs of the subscriptions. */
	constructor(options: SubscriptionsOptions, outbox: Outbox) {
		this.#options = options;
		this.#outbox = outbox;
	}

	get byFilter(): ReadonlyMap<string, Subscription> {
		return this.#byFilter;
	}

	/** Takes up what the store has of a resumed session. */
	resume(stored: readonly StoredSubscription[]): readonly Subscription[] {
		const subscriptions = stored.map((one) => Subscription.resumed(one));
		for (const subscription of subscriptions) this.#byFilter.set(subscription.options.filter, subscription);
		return subscriptions;
	}

	/** Carries out a packet, or lets it wait for those before it. Answers what ends the connection, if anything does. */
	change(packet: SubscribePacket | UnsubscribePacket, effects: Effect[]): Problem | undefined {
		if (this.#packets.length >= MAX_WAITING)
			return { reasonCode: ReasonCode.quotaExceeded, reason: "too many SUBSCRIBE packets at a time" };
		this.#packets.push(packet);
		return this.#packets.length === 1 ? this.#begin(packet, effects) : undefined;
	}

	/** The broker has carried out a SUBSCRIBE: SUBACK [MQTT-3.8.4-1], then the retained messages it is owed. */
	subscribed(packetId: number, results: readonly SubscribeResult[], effects: Effect[]): Problem | undefined {
		for (const { subscription, cursor } of results) {
			if (subscription === undefined) continue;
			subscription.cursor = cursor;
			subscription.floor = cursor;
			this.#byFilter.set(subscription.options.filter, subscription);
		}
		const reasonCodes = results.map((result) => result.reasonCode);
		effects.push({ kind: "send", packet: { kind: "suback", packetId, reasonCodes } });
		for (const { subscription } of results) {
			// The same filter twice in one packet: the later entry counts.
			if (subscription === undefined || this.#byFilter.get(subscription.options.filter) !== subscription) continue;
			this.#outbox.subscribed(subscription, effects);
			if (subscription.held !== undefined) effects.push({ kind: "sendRetained", subscription });
		}
		return this.#next(effects);
	}

	/** The broker has carried out an UNSUBSCRIBE [MQTT-3.10.4-4]. */
	unsubscribed(packetId: number, reasonCodes: readonly ReasonCode[], effects: Effect[]): Problem | undefined {
		effects.push({ kind: "send", packet: { kind: "unsuback", packetId, reasonCodes } });
		// What is still in flight is now stored by value, for its log may go [MQTT-3.10.4-3].
		if (this.#options.persistent) effects.push({ kind: "checkpoint", urgent: false });
		return this.#next(effects);
	}

	#next(effects: Effect[]): Problem | undefined {
		this.#packets.shift();
		const packet = this.#packets[0];
		return packet === undefined ? undefined : this.#begin(packet, effects);
	}

	#begin(packet: SubscribePacket | UnsubscribePacket, effects: Effect[]): Problem | undefined {
		if (packet.kind === "subscribe") return this.#subscribe(packet, effects);
		// One after the other: a filter that stands twice is gone when its turn comes again [MQTT-3.10.4-6].
		const { tenancy } = this.#options;
		const subscriptions = packet.filters.map((named) => {
			const filter = tenancy === undefined ? named : tenancy.filter(named);
			if (filter === undefined) return undefined;
			const subscription = this.#byFilter.get(filter); // [MQTT-3.10.4-1]
			this.#byFilter.delete(filter);
			this.#outbox.unsubscribed(filter);
			return subscription;
		});
		effects.push({ kind: "unsubscribe", packetId: packet.packetId, subscriptions });
		return undefined;
	}

	#subscribe(packet: SubscribePacket, effects: Effect[]): Problem | undefined {
		const subscriptionId = packet.subscriptionId === ABSENT ? 0 : packet.subscriptionId;
		const entries: SubscribeEntry[] = [];
		const added = new Map<string, Subscription>();
		const { maxTopicLevels, tenancy } = this.#options;
		for (const request of packet.requests) {
			const invalid = filterProblem(request.filter, maxTopicLevels) !== undefined;
			if (!invalid && request.noLocal && parseShare(request.filter) !== undefined) {
				return { reasonCode: ReasonCode.protocolError, reason: "No Local on a shared subscription" }; // [MQTT-3.8.3-4]
			}
			const problem = invalid ? ReasonCode.topicFilterInvalid : filterRefusal(request.filter, tenancy);
			const filter = (problem === ReasonCode.success ? tenancy?.filter(request.filter) : undefined) ?? request.filter;
			entries.push(this.#entry({ ...request, filter }, subscriptionId, problem, added));
		}
		effects.push({ kind: "subscribe", packetId: packet.packetId, entries });
		return undefined;
	}

	/** @param request With the filter as the broker knows it, unless there is a problem. */
	#entry(request: SubscriptionRequest, subscriptionId: number, problem: ReasonCode, added: Map<string, Subscription>): SubscribeEntry {
		const { filter, retainHandling } = request;
		const replaces = added.get(filter) ?? this.#byFilter.get(filter);
		const subscription = new Subscription({ ...request, subscriptionId }, this.#options.persistent && problem === ReasonCode.success);
		if (problem !== ReasonCode.success) return { subscription, replaces, problem };
		if (replaces === undefined && this.#byFilter.size + added.size >= this.#options.maxSubscriptions) {
			return { subscription, replaces, problem: ReasonCode.quotaExceeded };
		}
		added.set(filter, subscription);
		if (subscription.shareName === undefined) {
			const isNew = replaces === undefined || replaces.retainedDue;
			subscription.retainedDue = retainHandling === 0 || (retainHandling === 1 && isNew); // [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
			// What the replaced subscription still holds is not lost [MQTT-3.8.4-4].
			subscription.held = replaces?.held ?? (subscription.retainedDue ? new Held() : undefined);
		}
		return { subscription, replaces, problem: ReasonCode.success };
	}
}
