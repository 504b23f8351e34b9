/**
 * The router: what replicas tell one another so that many are one broker. Knows which other replicas want which messages and
 * brings messages there. It decides nothing: who is to get a message is asked of it and of the subscriptions here, and what
 * it brings is handed out by the broker.
 *
 * Routes are per filter, never per subscription. Wildcard filters and share groups are known by name; the exact filters of
 * other replicas only as hashes of a fixed size, so that a million of them cost this replica a few megabytes (P13): a wrong
 * guess costs one needless send.
 */

import type { Message } from "../mqtt/message.ts";
import type { Topic } from "../mqtt/topic.ts";
import type { Appended, SessionRef } from "../store/store.ts";

/** Name of a replica: what `RouterHandlers` and `Router` call another process of the same broker. */
export type ReplicaId = string;

/** A message that came from another replica. */
export interface Forwarded {
	readonly message: Message;
	/** The logs that it was appended to: their readers here may go on. Empty for QoS 0. */
	readonly appended: readonly Appended[];
	/** Share groups without a log (or QoS 0) of which this replica was picked to serve one member. */
	readonly groups: readonly string[];
}

/** What the router tells the broker. Handlers must not throw; they are called in the order in which things happened. */
export interface RouterHandlers {
	/** Another replica has so many subscribers behind a wildcard filter (1 or 0), or members in a share group (`$share/…`); 0: none any more. */
	onRoute(replica: ReplicaId, filter: string, members: number): void;
	onMessage(forwarded: Forwarded): void;
	/** Entries were appended to the log of a share group: members here may take them. */
	onGroup(group: string): void;
	/** Another replica has taken the session over. */
	onTakeover(session: SessionRef): void;
	/**
	 * The routes of this replica are stored again after they may have been gone: what was appended to logs meanwhile, nobody has
	 * told of. Also called at the start.
	 */
	onRoutesStored(): void;
	/** Messages for this replica may have been lost: what can be read again should be, and who cannot is to be told. */
	onGap(): void;
	/**
	 * Another replica has announced this. `undefined`: any notices may have been missed, so everything that notices are about
	 * is to be looked at again. That is told once all routes were loaded, at the start too, and whenever another replica has
	 * begun, ended or was away from the medium, since its last notice may not have left it.
	 */
	onNotice?(notice: string | undefined): void;
}

export interface Router {
	/** Loads the routes and begins to listen. Rejects with a `StoreError` that says what to do. */
	start(handlers: RouterHandlers): Promise<void>;
	/** Takes this replica's routes back and stops. */
	close(): Promise<void>;

	/**
	 * One more subscriber is connected here. `filter` is a whole filter, with `$share/{name}/` for a group. `undefined` when
	 * the others know already; else resolves when every `catchUp` that begins from then on sees it (P3). While the router's
	 * medium is away the promise waits; it rejects only when the router is closed.
	 */
	advertise(filter: string): Promise<void> | undefined;
	/** One less. The others hear of the last one soon. */
	withdraw(filter: string): void;

	/**
	 * Resolves when all routes are known that were stored before the call. One question for all calls of one event-loop turn.
	 * Rejects with a `StoreError` `away` while that cannot be known.
	 */
	catchUp(): Promise<void>;

	/** Other replicas that may have a subscriber whose filter is exactly this topic. The list is the router's own: read it at once. */
	exact(topic: Topic): readonly ReplicaId[];

	/** Brings a message to another replica at most once: QoS 0. Never waits; drops it, counted, when it cannot. */
	publish(replica: ReplicaId, message: Message, groups: readonly string[]): void;
	/**
	 * Brings a message to other replicas at least once, in the order of the calls: QoS 1 and 2. Resolves when it is stored for
	 * each of them; one that has ceased to exist is skipped. Rejects with `away` when that is unknown: repeat it then.
	 * @param token The same for every repetition of one QoS 2 publication: a replica hands it out once.
	 */
	forward(replicas: Iterable<ReplicaId>, forwarded: Forwarded, token: string | undefined): Promise<void>;
	/**
	 * Whether the publication of this token is still to be handed out here: not when another replica has brought it. From then on
	 * it counts as handed out, and is not brought again.
	 */
	claim(token: string): boolean;
	/** Tells other replicas that a share group's log has new entries. Many calls of one turn are one. */
	ring(replicas: Iterable<ReplicaId>, group: string): void;
	/** Tells another replica that a session of its has been taken over. */
	notifyTakeover(replica: ReplicaId, session: SessionRef): void;
	/**
	 * Tells all other replicas something small that is true already wherever they would look it up; this one is not told.
	 * Notices of one replica arrive in their order, within a second or so. Resolves when everybody will hear it; rejects with
	 * `away` when that is unknown: whoever could have missed it is told `undefined` as soon as they are reached again.
	 */
	announce(notice: string): Promise<void>;

	/** Removes all that a dead replica has left. */
	forget(replica: ReplicaId): Promise<void>;
}
