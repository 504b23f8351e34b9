/** One subscription of one session: its options as granted, and how far the session has come in its log. */

import type { Message } from "../mqtt/message.ts";
import { parseShare } from "../mqtt/topic.ts";
import type { StoredSubscription, SubscriptionOptions } from "../store/store.ts";

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
	/** Live messages that have to wait, because the retained ones are not out yet (P8); `undefined` when nothing waits. */
	held: Message[] | undefined;
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

	/** A subscription as the store knew it. */
	static resumed(stored: StoredSubscription): Subscription {
		const subscription = new Subscription(stored, true);
		subscription.cursor = stored.cursor;
		subscription.floor = stored.cursor;
		return subscription;
	}
}
