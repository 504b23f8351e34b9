/**
 * The publish use case: who is to get a message, what of it must be stored, and the handing out. Hot: for QoS 0 nothing is
 * allocated per receiver.
 */

import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { kept, type Message } from "../mqtt/message.ts";
import type { QoS } from "../mqtt/packet.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Topic } from "../mqtt/topic.ts";
import type { ReplicaId, Router } from "../router/router.ts";
import { type AppendedEntry, effectiveQos } from "../session/effects.ts";
import type { Subscription } from "../session/subscription.ts";
import { type Appended, type PublishResult, type SessionRef, type Store, StoreError } from "../store/store.ts";
import { Publication } from "./publication.ts";
import type { Overlap, Receiver } from "./receiver.ts";
import { ShareGroup, type ShareGroupContext } from "./share_group.ts";
import { type FilterEntry, type Subscriber, SubscriptionIndex } from "./subscription_index.ts";
import type { Turn } from "./turn.ts";

const NO_IDS: readonly number[] = [];
const NO_GROUPS: readonly ShareGroup[] = [];
const SHARE = "$share/";

/** What stands behind the filters that match a topic. */
export type Matched = readonly FilterEntry<Receiver>[];

/** What a publication needs beyond its message. */
export interface PublishContext {
	/** Inbound QoS 2 of a persistent session: the packet id to reserve with the message. */
	readonly reserve?: { readonly session: SessionRef; readonly packetId: number };
	/** The will that this publication settles. */
	readonly willId?: string;
}

/** How a message is published: on this replica alone, or on all of them. */
export type Publish = (message: Message, context?: PublishContext) => ReasonCode | Promise<ReasonCode>;

/** The store refused or failed: nothing of the message may be acknowledged. */
export class NotStored extends Error {
	override readonly name = "NotStored";
	/** `quotaExceeded` when a limit is reached, else `implementationSpecificError`. */
	readonly reasonCode: ReasonCode;

	constructor(reasonCode: ReasonCode, cause: unknown) {
		super("the message could not be stored", { cause });
		this.reasonCode = reasonCode;
	}

	/** Whether the session of the publisher is another connection's by now. */
	get fenced(): boolean {
		return this.cause instanceof StoreError && this.cause.code === "fenced";
	}
}

export interface RoutingOptions {
	readonly store: Store;
	readonly router: Router;
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
		const { store, router, turn, clock, metrics, log } = options;
		this.#groupContext = {
			store,
			turn,
			nowMs: () => clock.nowMs(),
			publicationOf: (message) => this.#publication.begin(message, clock.nowMs()),
			dropped: (reason) => metrics.dropped[reason]++,
			failed: (what, error) => log.error("A share group met an error", { what, error }),
			returned: (group) => {
				group.pump();
				router.ring(group.replicas, group.name);
			},
		};
	}

	/** Number of different filters that are matched against. */
	get filters(): number {
		return this.#index.size;
	}

	/** The store's word on which logs of wildcard filters and share groups exist. */
	setLog(name: string, exists: boolean): void {
		if (name.startsWith(SHARE)) {
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

	/** The router's word on which other replica has subscribers behind a wildcard filter, or members in a share group. */
	setRoute(replica: ReplicaId, filter: string, members: number): void {
		if (filter.startsWith(SHARE)) {
			const group = this.#ensureGroup(filter);
			group.setElsewhere(replica, members);
			this.#pruneGroup(group);
			return;
		}
		const entry = this.#index.ensure(filter);
		if (members > 0) {
			entry.replicas ??= new Set();
			entry.replicas.add(replica);
		} else {
			entry.replicas?.delete(replica);
			if (entry.replicas?.size === 0) entry.replicas = undefined;
		}
		this.#index.prune(entry);
	}

	/**
	 * From now on the subscription takes part in matching here.
	 * @returns When it does everywhere; `undefined` when it does already.
	 */
	attach(receiver: Receiver, subscription: Subscription): Promise<void> | undefined {
		const { filter } = subscription.options;
		if (subscription.shareName === undefined) this.#index.add(receiver, subscription);
		else if (!this.#ensureGroup(filter).join({ receiver, subscription })) return undefined;
		return isOwn(filter) ? undefined : this.#options.router.advertise(filter);
	}

	detach(receiver: Receiver, subscription: Subscription): void {
		const { filter } = subscription.options;
		if (subscription.shareName === undefined) {
			if (!this.#index.remove(subscription)) return;
		} else {
			const group = this.#groups.get(filter);
			if (group?.leave(receiver) !== true) return;
			this.#pruneGroup(group);
		}
		if (!isOwn(filter)) this.#options.router.withdraw(filter);
	}

	/** The share group of that name, if anybody is or was in it. */
	group(name: string): ShareGroup | undefined {
		return this.#groups.get(name);
	}

	/** A log has new entries that nobody brings: whoever reads it here looks. */
	lookAgain(log: string): void {
		this.#groups.get(log)?.pump();
		for (const { receiver } of [...(this.#index.find(log)?.subscribers ?? [])]) receiver.lookAgain();
	}

	/** Lets all share groups take what their members have room for. */
	pumpGroups(): void {
		for (const group of this.#groups.values()) group.pump();
	}

	/** All that stands behind filters that match the topic. To be read before anything is attached or detached. */
	match(topic: Topic): Matched {
		return this.#index.match(topic.name);
	}

	/** Names of the logs that a message with QoS ≥ 1 belongs in; `undefined` for none. */
	logsOf(topic: Topic, matched: Matched): string[] | undefined {
		let logs: string[] | undefined;
		for (const entry of matched) {
			for (const group of entry.groups ?? []) if (group.stored) logs = append(logs, group.name);
			if (entry.logged) logs = append(logs, entry.filter);
		}
		if (this.#options.store.hasLog(topic.name)) logs = append(logs, topic.name);
		return logs;
	}

	/** Share groups that serve the message at once, since no log keeps it for them. */
	unstoredGroups(qos: QoS, matched: Matched): readonly ShareGroup[] {
		let found: ShareGroup[] | undefined;
		for (const entry of matched) {
			for (const group of entry.groups ?? []) if (qos === 0 || !group.stored) found = append(found, group);
		}
		return found ?? NO_GROUPS;
	}

	/**
	 * Publishes a message to what is here, whatever other replicas there are. Answers at once when nothing of it has to be
	 * stored, else when it is.
	 * @returns `success`, or `noMatchingSubscribers` when nobody wants it.
	 * @throws NotStored (as a rejection).
	 */
	publish(message: Message, context?: PublishContext): ReasonCode | Promise<ReasonCode> {
		const { topic, qos, retain } = message;
		const matched = this.match(topic);
		const logs = qos > 0 ? this.logsOf(topic, matched) : undefined;
		const wanted = matched.length > 0 || retain || logs !== undefined;
		// The store is asked before the live receivers get the message, so that a new subscription's retained read, which
		// comes after its attach, cannot miss both (P8). It answers later; the live receivers do not wait for that.
		let stored: Promise<PublishResult> | undefined;
		if (logs !== undefined || retain || context !== undefined) {
			stored = this.#options.store.publish({
				message,
				logs: logs ?? [],
				retain,
				reserve: context?.reserve,
				willId: context?.willId,
				name: undefined,
				forward: undefined,
			});
		}
		if (matched.length > 0) this.deliverLive(message, matched, this.unstoredGroups(qos, matched));
		const reasonCode = wanted ? ReasonCode.success : ReasonCode.noMatchingSubscribers;
		if (stored === undefined) return reasonCode;
		return stored.then(
			({ appended }) => {
				this.deliverAppended(message, appended);
				return reasonCode;
			},
			(error) => {
				throw notStored(error);
			},
		);
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
		const { revision = -1, topic } = message;
		if ((subscription.held?.changed.get(topic.name) ?? -1) > revision) return;
		subscription.sentRetained(message);
		const { options } = subscription;
		const qos = effectiveQos(message.qos, options.qos);
		const subscriptionIds = options.subscriptionId > 0 ? [options.subscriptionId] : NO_IDS;
		if (qos === 0) receiver.receiveQos0(this.#publication.begin(message, this.#options.clock.nowMs()), true, subscriptionIds);
		else receiver.receive({ message, qos, retain: true, subscriptionIds, log: "", seq: 0, shared: false });
	}

	/** Hands a message to the subscribers here that read it from no log, and to one member of each of these groups. */
	deliverLive(message: Message, matched: Matched, groups: readonly ShareGroup[]): void {
		if (matched.length === 0 && groups.length === 0) return;
		const single = matched.length === 1 && matched[0]?.subscribers.length === 1 && groups.length === 0;
		const publication = this.#publication.begin(message, this.#options.clock.nowMs(), single);
		if (matched.length === 1) {
			const { subscribers } = matched[0] as FilterEntry<Receiver>;
			// A receiver may leave while it is served (its buffer is full), which moves the last one into its place.
			for (let i = subscribers.length - 1; i >= 0; i--) {
				const subscriber = subscribers[i];
				if (subscriber !== undefined) this.#hand(subscriber, publication);
			}
		} else this.#deliverOverlapping(matched, publication);
		for (const group of groups) group.deliverQos0(publication);
	}

	/** Whether a live delivery to this subscriber is due now, and with which QoS; -1 for none. */
	#liveQos({ receiver, subscription }: Subscriber<Receiver>, message: Message): 0 | 1 | 2 | -1 {
		const { options } = subscription;
		if (options.noLocal && message.publisher === receiver.clientId) return -1; // [MQTT-3.8.3-3]
		const qos = effectiveQos(message.qos, options.qos);
		const { maxHeldMessages, maxHeldBytes } = this.#options;
		const { held } = subscription;
		if (held !== undefined && message.retain && held.changed.size < maxHeldMessages) held.change(message);
		if (message.revision !== undefined && subscription.supersedes(message)) return -1;
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
	#deliverOverlapping(matched: Matched, publication: Publication): void {
		const { message } = publication;
		const serial = ++this.#serial;
		const reached: Receiver[] = [];
		for (const entry of matched) {
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

	/** The message is in these logs: their readers that are connected here may go on. */
	deliverAppended(message: Message, appended: readonly Appended[]): void {
		for (const { log } of appended) if (log.startsWith(SHARE)) this.#groups.get(log)?.pump();
		if (appended.length === 1) {
			const { log, seq } = appended[0] as Appended;
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

function append<T>(list: T[] | undefined, item: T): T[] {
	if (list === undefined) return [item];
	list.push(item);
	return list;
}

/** The broker's own topics concern this replica alone. */
function isOwn(filter: string): boolean {
	return filter.startsWith("$SYS/");
}

/** What a caller of `publish` is told of a failure of the store. */
export function notStored(error: unknown): NotStored {
	const full = error instanceof StoreError && error.code === "full";
	return new NotStored(full ? ReasonCode.quotaExceeded : ReasonCode.implementationSpecificError, error);
}
