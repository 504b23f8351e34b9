/** The subscribe and unsubscribe use cases: rights, store, matching, and the retained messages that a new subscription is owed. */

import type { Clock } from "../clock.ts";
import { countByCode, type Metrics } from "../metrics.ts";
import type { Message } from "../mqtt/message.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { SubscribeEntry, SubscribeResult } from "../session/effects.ts";
import type { Subscription } from "../session/subscription.ts";
import type { SessionRef, Store } from "../store/store.ts";
import type { ClientRights } from "./client_rights.ts";
import type { Receiver } from "./receiver.ts";
import type { Routing } from "./routing.ts";
import { untilBack } from "./until_back.ts";

/** Retained messages read at a time. */
const PAGE = 100;

/** Retained messages that are not in the store: the broker's own statistics. */
export interface RetainedSource {
	retained(filter: string): readonly Message[];
}

/** The connection, as far as subscribing needs it. */
export interface SubscribingClient extends Receiver {
	readonly rights: ClientRights;
	readonly session: SessionRef;
	readonly persistent: boolean;
	/** Whether the connection is still there. */
	readonly open: boolean;
	/** Whether this is the subscription that stands for its filter now. */
	holds(subscription: Subscription): boolean;
	/** Whether it cannot even keep another message of QoS ≥ 1 until there is room. */
	readonly full: boolean;
	/** Resolves when it can take another page of messages; false when the connection is gone. */
	whenRoom(): Promise<boolean>;
}

export class Subscribing {
	readonly #store: Store;
	readonly #routing: Routing;
	readonly #metrics: Metrics;
	readonly #clock: Clock;
	readonly #ownRetained: RetainedSource;

	constructor(store: Store, routing: Routing, metrics: Metrics, clock: Clock, ownRetained: RetainedSource) {
		this.#store = store;
		this.#routing = routing;
		this.#metrics = metrics;
		this.#clock = clock;
		this.#ownRetained = ownRetained;
	}

	/** Carries out one SUBSCRIBE, entry by entry like a sequence [MQTT-3.8.4-5]. Rejects when the store fails: then no SUBACK may be sent. */
	async subscribe(client: SubscribingClient, entries: readonly SubscribeEntry[]): Promise<readonly SubscribeResult[]> {
		const decisions = entries.map((entry) => this.#judge(client, entry));
		// No await without need: a client that publishes right behind its SUBSCRIBE is to receive that too.
		const immediate = decisions.every((decision) => typeof decision === "number");
		const problems = immediate ? (decisions as ReasonCode[]) : await Promise.all(decisions);
		const granted = entries.filter((_entry, i) => problems[i] === ReasonCode.success);
		const stored = granted.filter(({ subscription }) => belongsToStore(client, subscription));
		const known: (Promise<void> | undefined)[] = [];
		if (client.open) {
			for (const { subscription, replaces } of granted) {
				if (replaces !== undefined) this.#routing.detach(client, replaces);
				known.push(this.#routing.attach(client, subscription));
			}
		}
		const options = stored.map((entry) => entry.subscription.options);
		const store = () => this.#store.subscribe(client.session, options);
		const positions = stored.length === 0 ? [] : await untilBack(store, () => client.open);
		// SUBACK means subscribed everywhere (P3).
		if (known.some((promise) => promise !== undefined)) await Promise.all(known);
		const cursors = new Map(stored.map((entry, i) => [entry, positions[i]?.cursor ?? 0]));
		// The connection ended meanwhile, and its channel has not heard of these subscriptions.
		if (!client.open) for (const { subscription } of granted) this.#routing.detach(client, subscription);
		return entries.map((entry, i) => {
			const problem = problems[i] as ReasonCode;
			if (problem !== ReasonCode.success) {
				countByCode(this.#metrics.subscriptionsRefused, problem);
				return { reasonCode: problem, subscription: undefined, cursor: 0 };
			}
			return { reasonCode: entry.subscription.options.qos, subscription: entry.subscription, cursor: cursors.get(entry) ?? 0 };
		});
	}

	/** @returns A reason code for each; `undefined` in the list means that there was no such subscription [MQTT-3.10.4-5]. */
	async unsubscribe(client: SubscribingClient, subscriptions: readonly (Subscription | undefined)[]): Promise<readonly ReasonCode[]> {
		const known = subscriptions.filter((subscription) => subscription !== undefined);
		for (const subscription of known) this.#routing.detach(client, subscription);
		const stored = known.filter((subscription) => belongsToStore(client, subscription));
		if (stored.length > 0) {
			const filters = stored.map((subscription) => subscription.options.filter);
			await untilBack(
				() => this.#store.unsubscribe(client.session, filters),
				() => client.open,
			);
		}
		return subscriptions.map((subscription) => (subscription === undefined ? ReasonCode.noSubscriptionExisted : ReasonCode.success));
	}

	/** Sends the retained messages that a new subscription is owed, page by page as the client can take them, then what was held back. */
	async sendRetained(client: SubscribingClient, subscription: Subscription): Promise<void> {
		if (subscription.retainedDue && !(await this.#sendPages(client, subscription))) return;
		subscription.retainedDue = false;
		this.#routing.deliverHeld(client, subscription);
	}

	/** Answers false when the subscription has ended meanwhile. */
	async #sendPages(client: SubscribingClient, subscription: Subscription): Promise<boolean> {
		const filter = subscription.matchFilter;
		for (const message of this.#ownRetained.retained(filter)) this.#routing.deliverRetained(client, subscription, message);
		let next: string | undefined;
		do {
			const read = () => this.#store.retained(filter, next, PAGE, this.#clock.nowMs());
			const page = await untilBack(read, () => client.holds(subscription));
			if (!client.holds(subscription)) return false;
			for (const message of page.messages) {
				if (subscription.options.noLocal && message.publisher === client.clientId) continue;
				const given = client.rights.mayBeGiven(message);
				// Awaited where need be only: there may be many.
				if (!(typeof given === "boolean" ? given : await given)) continue;
				// A page can be more than the client has room for, and what finds no room is dropped.
				const full = subscription.options.qos === 0 ? client.congested : client.full;
				if (full && !((await client.whenRoom()) && client.holds(subscription))) return false;
				this.#routing.deliverRetained(client, subscription, message);
			}
			next = page.next;
			if (next !== undefined && !(await client.whenRoom())) return false;
		} while (next !== undefined);
		return true;
	}

	#judge(client: SubscribingClient, entry: SubscribeEntry): ReasonCode | Promise<ReasonCode> {
		if (entry.problem !== ReasonCode.success) return entry.problem;
		const { matchFilter: filter, options } = entry.subscription;
		const decision = client.rights.maySubscribe(filter, options.qos);
		const code = (yes: boolean) => (yes ? ReasonCode.success : ReasonCode.notAuthorized);
		return typeof decision === "boolean" ? code(decision) : decision.then(code);
	}
}

/** Persistent sessions have all their subscriptions stored; of the others, share groups concern more than the session. */
function belongsToStore(client: SubscribingClient, subscription: Subscription): boolean {
	return client.persistent || subscription.shareName !== undefined;
}
