/**
 * The publish use case: who is to get a message, what of it must be stored, and the handing out. Hot: for QoS 0 nothing is
 * allocated per receiver.
 */

import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { kept, type Message } from "../mqtt/message.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import { type AppendedEntry, effectiveQos } from "../session/effects.ts";
import type { Subscription } from "../session/subscription.ts";
import { type PublishResult, type SessionRef, type Store, StoreError } from "../store/store.ts";
import { Publication } from "./publication.ts";
import type { Overlap, Receiver } from "./receiver.ts";
import { ShareGroup, type ShareGroupContext } from "./share_group.ts";
import { type FilterEntry, type Subscriber, SubscriptionIndex } from "./subscription_index.ts";
import type { Turn } from "./turn.ts";

const NO_IDS: readonly number[] = [];

/** What a publication needs beyond its message. */
export interface PublishContext {
	/** Inbound QoS 2 of a persistent session: the packet id to reserve with the message. */
	readonly reserve?: { readonly session: SessionRef; readonly packetId: number };
	/** The will that this publication settles. */
	readonly willId?: string;
}

/** The store refused or failed: nothing of the message may be acknowledged. */
export class NotStored extends Error {
	override readonly name = "NotStored";
	/** `quotaExceeded` when a limit is reached, else `implementationSpecificError`. */
	readonly reasonCode: ReasonCode;

	constructor(reasonCode: ReasonCode, cause: unknown) {
		super("the message could not be stored", { cause });
		this.reasonCode = reasonCode;
	}
}

export interface RoutingOptions {
	readonly store: Store;
	readonly metrics: Metrics;
	readonly clock: Clock;
	readonly turn: Turn;
	readonly log: Logger;
	/** Live messages that may wait for the retained ones of a new subscription. */
	readonly maxHeldMessages: number;
	/** Their payload bytes; one message is always held. */
	readonly maxHeldBytes: number;
}

export class Routing {
	readonly #options: RoutingOptions;
	readonly #index = new SubscriptionIndex<Receiver>();
	readonly #groups = new Map<string, ShareGroup>();
	readonly #publication = new Publication();
	readonly #groupContext: ShareGroupContext;
	#serial = 0;

	constructor(options: RoutingOptions) {
		this.#options = options;
		const { store, turn, clock, metrics, log } = options;
		this.#groupContext = {
			store,
			turn,
			nowMs: () => clock.nowMs(),
			publicationOf: (message) => this.#publication.begin(message, clock.nowMs()),
			dropped: (reason) => metrics.dropped[reason]++,
			failed: (what, error) => log.error("A share group met an error", { what, error }),
		};
	}

	/** Number of different filters that are matched against. */
	get filters(): number {
		return this.#index.size;
	}

	/** The store's word on which logs exist. */
	setLog(name: string, exists: boolean): void {
		if (name.startsWith("$share/")) {
			const group = this.#ensureGroup(name);
			group.stored = exists;
			if (exists) group.pump();
			else this.#pruneGroup(group);
			return;
		}
		const entry = this.#index.ensure(name);
		entry.logged = exists;
		this.#index.prune(entry);
	}

	/** From now on the subscription takes part in matching. */
	attach(receiver: Receiver, subscription: Subscription): void {
		if (subscription.shareName === undefined) this.#index.add(receiver, subscription);
		else this.#ensureGroup(subscription.options.filter).join({ receiver, subscription });
	}

	detach(receiver: Receiver, subscription: Subscription): void {
		if (subscription.shareName === undefined) {
			this.#index.remove(subscription);
			return;
		}
		const group = this.#groups.get(subscription.options.filter);
		group?.leave(receiver);
		if (group !== undefined) this.#pruneGroup(group);
	}

	/** The share group of that name, if anybody is or was in it. */
	group(name: string): ShareGroup | undefined {
		return this.#groups.get(name);
	}

	/**
	 * Publishes a message. Answers at once when nothing of it has to be stored, else when it is.
	 * @returns `success`, or `noMatchingSubscribers` when nobody wants it.
	 * @throws NotStored (as a rejection).
	 */
	publish(message: Message, context?: PublishContext): ReasonCode | Promise<ReasonCode> {
		const entries = this.#index.match(message.topic.name);
		const { qos } = message;
		let logs: string[] | undefined;
		let wanted = entries.length > 0;
		let qos0Groups = false;
		if (wanted) {
			for (const entry of entries) {
				if (entry.groups !== undefined) {
					for (const group of entry.groups) {
						if (qos > 0 && group.stored) {
							logs ??= [];
							logs.push(group.name);
						} else qos0Groups = true;
					}
				}
				if (qos > 0 && entry.logged) {
					logs ??= [];
					logs.push(entry.filter);
				}
			}
		} else wanted = message.retain;
		// The store is asked before the live receivers get the message, so that a new subscription's retained read, which
		// comes after its attach, cannot miss both (P8). It answers later; the live receivers do not wait for that.
		let stored: Promise<PublishResult> | undefined;
		if (logs !== undefined || message.retain || context !== undefined) {
			stored = this.#options.store.publish({
				message,
				logs: logs ?? [],
				retain: message.retain,
				reserve: context?.reserve,
				willId: context?.willId,
			});
		}
		if (entries.length > 0) this.#deliverLive(message, entries, qos0Groups);
		if (stored === undefined) return wanted ? ReasonCode.success : ReasonCode.noMatchingSubscribers;
		return stored.then((result) => {
			for (const { log } of result.appended) if (log.startsWith("$share/")) this.#groups.get(log)?.pump();
			this.#notifyReaders(message, result);
			return wanted ? ReasonCode.success : ReasonCode.noMatchingSubscribers;
		}, notStored);
	}

	/** Hands what waited for the retained messages to a subscription's receiver, in order. */
	deliverHeld(receiver: Receiver, subscription: Subscription): void {
		const held = subscription.held?.release() ?? [];
		subscription.held = undefined;
		const nowMs = this.#options.clock.nowMs();
		for (const message of held) this.#hand({ receiver, subscription }, this.#publication.begin(message, nowMs));
	}

	/** Hands out a retained message because of a new subscription [MQTT-3.3.1-8 v3]. */
	deliverRetained(receiver: Receiver, subscription: Subscription, message: Message): void {
		if (subscription.held?.changed.has(message.topic.name)) return;
		const { options } = subscription;
		const qos = effectiveQos(message.qos, options.qos);
		const subscriptionIds = options.subscriptionId > 0 ? [options.subscriptionId] : NO_IDS;
		if (qos === 0) receiver.receiveQos0(this.#publication.begin(message, this.#options.clock.nowMs()), true, subscriptionIds);
		else receiver.receive({ message, qos, retain: true, subscriptionIds, log: "", seq: 0, shared: false });
	}

	#deliverLive(message: Message, entries: readonly FilterEntry<Receiver>[], qos0Groups: boolean): void {
		const { subscribers } = entries[0] as FilterEntry<Receiver>;
		const single = entries.length === 1 && subscribers.length === 1 && !qos0Groups;
		const publication = this.#publication.begin(message, this.#options.clock.nowMs(), single);
		if (entries.length === 1) {
			// A receiver may leave while it is served (its buffer is full), which moves the last one into its place.
			for (let i = subscribers.length - 1; i >= 0; i--) {
				const subscriber = subscribers[i];
				if (subscriber !== undefined) this.#hand(subscriber, publication);
			}
		} else this.#deliverOverlapping(entries, publication);
		if (!qos0Groups) return;
		for (const entry of entries) {
			for (const group of entry.groups ?? []) if (message.qos === 0 || !group.stored) group.deliverQos0(publication);
		}
	}

	/** Whether a live delivery to this subscriber is due now, and with which QoS; -1 for none. */
	#liveQos({ receiver, subscription }: Subscriber<Receiver>, message: Message): 0 | 1 | 2 | -1 {
		const { options } = subscription;
		if (options.noLocal && message.publisher === receiver.clientId) return -1; // [MQTT-3.8.3-3]
		const qos = effectiveQos(message.qos, options.qos);
		const { maxHeldMessages, maxHeldBytes } = this.#options;
		const { held } = subscription;
		if (held !== undefined && message.retain && held.changed.size < maxHeldMessages) held.changed.add(message.topic.name);
		if (qos > 0 && subscription.logged) return -1;
		if (held === undefined) return qos;
		if (held.messages.length < maxHeldMessages && held.bytes < maxHeldBytes) {
			held.messages.push(kept(message));
			held.bytes += message.payload.length;
		} else this.#options.metrics.dropped.queueFull++;
		return -1;
	}

	#hand(subscriber: Subscriber<Receiver>, publication: Publication): void {
		const { message } = publication;
		const qos = this.#liveQos(subscriber, message);
		if (qos < 0) return;
		const { receiver, subscription } = subscriber;
		const { options } = subscription;
		const retain = options.retainAsPublished && message.retain; // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
		const subscriptionIds = options.subscriptionId > 0 ? [options.subscriptionId] : NO_IDS;
		if (qos === 0) receiver.receiveQos0(publication, retain, subscriptionIds);
		else receiver.receive({ message, qos: qos as 1 | 2, retain, subscriptionIds, log: "", seq: 0, shared: false });
	}

	/** Several filters match: a receiver behind more than one gets one copy at the highest QoS [MQTT-3.3.4-2]. */
	#deliverOverlapping(entries: readonly FilterEntry<Receiver>[], publication: Publication): void {
		const { message } = publication;
		const serial = ++this.#serial;
		const reached: Receiver[] = [];
		for (const entry of entries) {
			for (const subscriber of entry.subscribers) {
				const qos = this.#liveQos(subscriber, message);
				if (qos < 0) continue;
				const { receiver, subscription } = subscriber;
				const { retainAsPublished, subscriptionId } = subscription.options;
				const retain = retainAsPublished && message.retain;
				if (receiver.routeMark === serial) {
					const overlap = receiver.overlap as Overlap;
					if (qos > overlap.qos) overlap.qos = qos as 1 | 2;
					overlap.retain ||= retain;
					if (subscriptionId > 0) overlap.subscriptionIds.push(subscriptionId);
				} else {
					receiver.routeMark = serial;
					receiver.overlap = { qos: qos as 0 | 1 | 2, retain, subscriptionIds: subscriptionId > 0 ? [subscriptionId] : [] };
					reached.push(receiver);
				}
			}
		}
		for (const receiver of reached) {
			const { qos, retain, subscriptionIds } = receiver.overlap as Overlap;
			receiver.overlap = undefined;
			if (qos === 0) receiver.receiveQos0(publication, retain, subscriptionIds);
			else receiver.receive({ message, qos, retain, subscriptionIds, log: "", seq: 0, shared: false });
		}
	}

	/** The message is in the logs: their readers that are connected here may go on. */
	#notifyReaders(message: Message, { appended }: PublishResult): void {
		if (appended.length === 1) {
			const { log, seq } = appended[0] as { log: string; seq: number };
			const subscribers = this.#index.find(log)?.subscribers;
			if (subscribers === undefined) return;
			for (let i = subscribers.length - 1; i >= 0; i--) {
				const subscriber = subscribers[i];
				if (subscriber?.subscription.logged) subscriber.receiver.appended(message, [{ subscription: subscriber.subscription, seq }]);
			}
			return;
		}
		const byReceiver = new Map<Receiver, AppendedEntry[]>();
		for (const { log, seq } of appended) {
			for (const { receiver, subscription } of this.#index.find(log)?.subscribers ?? []) {
				if (!subscription.logged) continue;
				const entries = byReceiver.get(receiver);
				if (entries === undefined) byReceiver.set(receiver, [{ subscription, seq }]);
				else entries.push({ subscription, seq });
			}
		}
		for (const [receiver, entries] of byReceiver) receiver.appended(message, entries);
	}

	#ensureGroup(name: string): ShareGroup {
		const known = this.#groups.get(name);
		if (known !== undefined) return known;
		const filter = name.slice(name.indexOf("/", "$share/".length) + 1);
		const group = new ShareGroup(name, filter, this.#groupContext);
		this.#groups.set(name, group);
		const entry = this.#index.ensure(filter);
		entry.groups = [...(entry.groups ?? []), group];
		return group;
	}

	#pruneGroup(group: ShareGroup): void {
		if (!group.empty) return;
		this.#groups.delete(group.name);
		const entry = this.#index.find(group.filter);
		if (entry === undefined) return;
		const left = entry.groups?.filter((other) => other !== group) ?? [];
		entry.groups = left.length > 0 ? left : undefined;
		this.#index.prune(entry);
	}
}

function notStored(error: unknown): never {
	const full = error instanceof StoreError && error.code === "full";
	throw new NotStored(full ? ReasonCode.quotaExceeded : ReasonCode.implementationSpecificError, error);
}
