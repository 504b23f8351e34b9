/** One subscription of one session: its options as granted, and how far the session has come in its log. */

import type { Message } from "../mqtt/message.ts";
import { parseShare } from "../mqtt/topic.ts";
import type { StoredSubscription, SubscriptionOptions } from "../store/store.ts";

/** Retained messages of one subscription that are remembered, because older ones may follow them. */
const MAX_REMEMBERED = 1000;

/** What waits for the retained messages of a new subscription (P8). A replaced subscription passes it on as it is. */
export class Held {
	/** Live messages that are not read from a log, in order. */
	readonly messages: Message[] = [];
	/** Payload bytes of these messages. */
	bytes = 0;
	/**
	 * Topics whose retained message changed meanwhile, with the latest revision; `Infinity` for one that nobody has set later, as
	 * far as this replica knows. The change comes as a live message: as a retained one it would precede older ones.
	 */
	readonly changed = new Map<string, number>();

	/** A live message that is the retained one of its topic has come. */
	change({ topic, revision = Number.POSITIVE_INFINITY }: Message): void {
		this.changed.set(topic.name, Math.max(revision, this.changed.get(topic.name) ?? 0));
	}

	/** Ends the waiting, also for a subscription that took this over. */
	release(): readonly Message[] {
		this.changed.clear();
		this.bytes = 0;
		return this.messages.splice(0);
	}
}

export class Subscription {
	readonly options: SubscriptionOptions;
	/** Filter to match topics with: without `$share/{name}/`. */
	readonly matchFilter: string;
	/** ShareName, or `undefined` for a subscription of one's own. */
	readonly shareName: string | undefined;
	/**
	 * Whether its QoS ≥ 1 messages come from the log of the filter, by cursor: that of a persistent session with granted
	 * QoS ≥ 1 that is not shared.
	 */
	readonly logged: boolean;
	/** There while live messages have to wait, because the retained ones are not out yet. */
	held: Held | undefined;
	/** Whether the retained messages are to be sent before what is held. */
	retainedDue = false;
	/** Revisions of the retained messages that were sent, by topic; see `sentRetained`. */
	#sent: Map<string, number> | undefined;
	/** Last log entry taken. */
	cursor = 0;
	/** No entry up to this one is in flight. */
	floor = 0;
	/** Place in the list of its filter: the subscription index keeps it here. */
	slot = -1;
	/** Whether `cursor` or `floor` differ from what is stored. */
	moved = false;

	constructor(options: SubscriptionOptions, persistentSession: boolean) {
		const share = parseShare(options.filter);
		this.options = options;
		this.matchFilter = share?.filter ?? options.filter;
		this.shareName = share?.shareName;
		this.logged = persistentSession && share === undefined && options.qos > 0;
	}

	/** A retained message was sent: on other ways, older ones may still be under way (P8). */
	sentRetained({ topic, revision }: Message): void {
		if (revision === undefined) return;
		this.#sent ??= new Map();
		if (this.#sent.size < MAX_REMEMBERED) this.#sent.set(topic.name, revision);
	}

	/** Whether a message comes too late: the retained message of its topic that was sent is this one, or one that was set after it. */
	supersedes({ topic, revision }: Message): boolean {
		return revision !== undefined && this.#sent !== undefined && revision <= (this.#sent.get(topic.name) ?? -1);
	}

	/** A subscription as the store knew it. */
	static resumed(stored: StoredSubscription): Subscription {
		const subscription = new Subscription(stored, true);
		subscription.cursor = stored.cursor;
		subscription.floor = stored.cursor;
		return subscription;
	}
}
