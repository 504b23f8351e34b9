/**
 * The store: everything that outlives a connection or a process. Sessions, subscriptions, logs of messages with cursors,
 * reserved packet ids, retained messages, wills and deadlines.
 *
 * Each method is one promise of atomicity: when its promise resolves, all that it says is stored (P2) and will be there
 * after a crash; when it rejects, the caller must assume nothing and must not acknowledge. Calls take effect in the order
 * in which they are made. Time is always an argument. No connection, transaction or key of an implementation shows here.
 *
 * **Logs.** A QoS ≥ 1 message is appended once to each *log* that it matches, however many sessions read it. A log exists
 * for every filter with at least one persistent subscription of granted QoS ≥ 1 (the log's name is the filter), and for
 * every share group (its name is the whole `$share/{name}/{filter}`). Entries of a log are numbered densely from 1: a
 * reader that sees a jump knows how many entries were trimmed before it came.
 * A session is a set of *cursors*, one per log it subscribes to, and a few in-flight records.
 */

import type { Histogram } from "../metrics.ts";
import type { Message } from "../mqtt/message.ts";
import type { QoS } from "../mqtt/packet.ts";
import type { RecordStore, SharedRecordStore } from "./records.ts";

/** `0xffffffff`: the session never expires. */
export const NEVER_EXPIRES = 0xffffffff;

/** A session as its present owner names it. `epoch` is the fencing token: a write with an old one is refused as `fenced`. */
export interface SessionRef {
	readonly clientId: string;
	readonly epoch: string;
}

/** What the options of a subscription are, as granted. */
export interface SubscriptionOptions {
	/** As the client wrote it, with `$share/{name}/` where shared. */
	readonly filter: string;
	/** Granted QoS. */
	readonly qos: QoS;
	readonly noLocal: boolean;
	readonly retainAsPublished: boolean;
	readonly retainHandling: 0 | 1 | 2;
	/** Subscription Identifier; 0 for none. */
	readonly subscriptionId: number;
}

/** A stored subscription: its options and how far its session has come in the log. */
export interface StoredSubscription extends SubscriptionOptions {
	/** Last sequence number that the session has taken from the log; 0 where there is no log (QoS 0) or for a share group. */
	readonly cursor: number;
}

/** A delivery under way: its packet id is in use, and after a reconnect it is sent again under the same id [MQTT-4.4.0-1]. */
export interface InflightRecord {
	readonly packetId: number;
	readonly qos: 1 | 2;
	/** `sent`: PUBLISH was or will be sent; `received`: PUBREC came, only PUBREL may be sent [MQTT-4.3.3-6]. */
	readonly state: "sent" | "received";
	/** Where the message stands in the store; empty string when it is in `message` alone. */
	readonly log: string;
	readonly seq: number;
	/** RETAIN flag of the delivery. */
	readonly retain: boolean;
	readonly subscriptionIds: readonly number[];
	/**
	 * The message by value. Given to `checkpoint` for what stands in no log that the session still reads (a retained
	 * message, a subscription since removed), and only for that: it is written with each checkpoint. Given back by
	 * `openSession` with every record whose `state` is `sent`; one whose message could not be found any more is left out.
	 */
	readonly message: Message | undefined;
}

export interface OpenSession {
	readonly clientId: string;
	/** Whose session it is to be; empty for anybody whom nobody knows. */
	readonly user: string;
	/** Clean Start: an existing session ends. */
	readonly cleanStart: boolean;
	/** Session Expiry Interval; 0: the session ends with the connection. */
	readonly sessionExpirySeconds: number;
	readonly will: { readonly message: Message; readonly delaySeconds: number; readonly expirySeconds: number | undefined } | undefined;
	readonly nowMs: number;
}

export interface OpenedSession {
	readonly epoch: string;
	/** Whether a session was resumed [MQTT-3.2.2-3]. */
	readonly sessionPresent: boolean;
	readonly subscriptions: readonly StoredSubscription[];
	/** In the order in which they were first sent. */
	readonly inflight: readonly InflightRecord[];
	/** Inbound QoS 2 packet ids that wait for PUBREL. */
	readonly reservedIds: readonly number[];
	/** Packet id after which to look for a free one. */
	readonly lastPacketId: number;
}

export interface CloseSession {
	readonly nowMs: number;
	/** From DISCONNECT; `undefined` keeps what CONNECT said. */
	readonly sessionExpirySeconds: number | undefined;
	/** `discard` after DISCONNECT 0x00; `keep` makes it due after its delay, or when the session ends if that is sooner [MQTT-3.1.2-8]. */
	readonly will: "discard" | "keep";
}

export interface PublishRequest {
	readonly message: Message;
	/** Names of the logs to append to. One that has ceased to exist is skipped. */
	readonly logs: readonly string[];
	/** Sets the retained message of the topic; an empty payload removes it [MQTT-3.3.1-6]. */
	readonly retain: boolean;
	/** Inbound QoS 2: reserves the packet id in the same step. */
	readonly reserve: { readonly session: SessionRef; readonly packetId: number } | undefined;
	/** The will that this publication settles, see `due`. Nothing is stored when it is settled already: `duplicate` says so. */
	readonly willId: string | undefined;
	/**
	 * Name of a publication that is to happen once and has neither of the two above: when it is repeated under this name after
	 * `away`, nothing is stored twice. A store that always knows what it has done has no use for it.
	 */
	readonly name: string | undefined;
	/**
	 * Called in the order of the calls when the message is in its logs, before the result is told and before a reserved packet
	 * id or a will counts as done: what it does belongs to the publication, and is repeated with it. Not called for a duplicate.
	 * `token` is the same for every repetition; `undefined` for a publication that may happen twice. `revision` is that of a
	 * retained message, see `Message`. It must not wait for another call of the store, which may wait for this one.
	 */
	readonly forward: ((appended: readonly Appended[], token: string | undefined, revision: number | undefined) => Promise<void>) | undefined;
}

export interface Appended {
	readonly log: string;
	readonly seq: number;
}

export interface PublishResult {
	readonly appended: readonly Appended[];
	/** The packet id was reserved already, or the will settled: nothing was changed, `appended` is empty. */
	readonly duplicate: boolean;
	/** Of a retained message, where replicas share the store: see `Message`. */
	readonly revision?: number;
}

export interface LogEntry {
	readonly log: string;
	readonly seq: number;
	/** Grows with every message appended to the store; the copies of one message in several logs have the same id. */
	readonly id: number;
	readonly message: Message;
}

export interface Position {
	readonly log: string;
	/** Sequence number after which to read. */
	readonly after: number;
}

export interface Checkpoint {
	/** Logs whose position has changed since the last checkpoint. */
	readonly cursors: readonly {
		readonly log: string;
		/** Last entry taken (sent or skipped). */
		readonly cursor: number;
		/** Nothing up to and including it is in flight: the log may be trimmed up to here. At most `cursor`. */
		readonly floor: number;
	}[];
	/** All deliveries under way: replaces the stored list. Those of share groups at QoS 1 are left out. */
	readonly inflight: readonly InflightRecord[];
	readonly lastPacketId: number;
}

export interface RetainedPage {
	readonly messages: readonly Message[];
	/** Pass to the next call; `undefined` after the last page. A page may be shorter than `limit`, or empty, and have a next one. */
	readonly next: string | undefined;
}

export interface DueWill {
	/** For `PublishRequest.willId`. */
	readonly id: string;
	readonly clientId: string;
	readonly message: Message;
}

export interface Due {
	/** Wills whose time has come, those that wait longest first; each comes again until a `publish` settles it. */
	readonly wills: readonly DueWill[];
	/** Client ids of sessions that expired: they are removed by this call. */
	readonly expiredSessions: readonly string[];
}

export interface StoreStats {
	readonly sessions: number;
	readonly subscriptions: number;
	readonly retained: number;
	readonly logs: number;
	readonly logEntries: number;
}

export interface StoreLimits {
	/** Entries per log; beyond it the oldest is dropped. */
	readonly logMaxMessages: number;
	/** Retained messages; beyond it a new topic is refused with `full`. */
	readonly maxRetained: number;
}

export interface Store {
	/** What operators manage. Can be used from `start` on. */
	readonly records: RecordStore;

	/**
	 * Opens the store. Sessions that an earlier process left connected become disconnected at `nowMs` (their wills due after
	 * their delay, those without expiry ended). `onLog` MUST be called for every log of a wildcard filter or a share group that
	 * exists, and from then on for each one that comes or goes, before the call that caused it resolves. See `hasLog` for others.
	 */
	start(nowMs: number, onLog: (name: string, exists: boolean) => void): Promise<void>;
	/** Stores what is pending and closes. */
	close(): Promise<void>;
	/**
	 * Whether there is a log for the filter that is exactly this topic name. Answers at once, from memory of a bounded size
	 * (P13): true may be wrong, and costs a skipped append; false is right as far as this replica knows.
	 */
	hasLog(topic: string): boolean;

	/**
	 * Takes over the session of a client id: bumps the epoch and ends the old session on Clean Start. A session that has
	 * expired, or had no expiry and lived with its connection, counts as absent. Rejects with `notOwner`, having changed nothing,
	 * when there is a session of another user.
	 * An earlier will that is not due yet is cancelled by a resumption [MQTT-3.1.3-9], unless it has no delay and its
	 * connection is only now ended by this one; when the old session does not go on it is due at once [MQTT-3.1.2-8].
	 */
	openSession(request: OpenSession): Promise<OpenedSession>;
	/** The connection has ended. A session without expiry ends with it, also one that was resumed. */
	closeSession(session: SessionRef, request: CloseSession): Promise<void>;

	/**
	 * Adds or replaces subscriptions: all of a session that was opened with an expiry or was resumed, only the shared ones of
	 * others (the rest is answered as new, at 0, and not stored). Answers the position of each: entries after it are the
	 * subscription's. A replaced one keeps its position when its granted QoS stays ≥ 1.
	 */
	subscribe(
		session: SessionRef,
		subscriptions: readonly SubscriptionOptions[],
	): Promise<readonly { readonly existed: boolean; readonly cursor: number }[]>;
	/** Removes subscriptions. What is in flight of them in the stored list keeps its message there, by value [MQTT-3.10.4-3]. */
	unsubscribe(session: SessionRef, filters: readonly string[]): Promise<void>;

	/**
	 * Stores a message everywhere it belongs, in one step. Rejects with `full`, having stored nothing, when one retained topic
	 * would be too many; a will that is refused so is still due, and can be settled without `retain`.
	 */
	publish(request: PublishRequest): Promise<PublishResult>;
	/** PUBREL came: the packet id is free again. */
	release(session: SessionRef, packetId: number): Promise<void>;

	/** Reads entries after the given positions, merged in the order of `id`, at most `limit`. Waits for those that are being stored. */
	read(positions: readonly Position[], limit: number): Promise<readonly LogEntry[]>;
	/** Stores how far a session has come. Without effect for one that keeps nothing. */
	checkpoint(session: SessionRef, checkpoint: Checkpoint): Promise<void>;

	/** Takes the next entries of a share group's log, each to be settled, returned or bound. Nobody else gets them meanwhile. */
	takeShared(log: string, limit: number): Promise<readonly LogEntry[]>;
	/** They were delivered, or were refused by the receiver [MQTT-4.8.2-6]. */
	settleShared(log: string, seqs: readonly number[]): Promise<void>;
	/** They were not delivered: the next `takeShared` gets them first. Without effect for what is not taken, or is bound. */
	returnShared(log: string, seqs: readonly number[]): Promise<void>;
	/**
	 * A QoS 2 delivery of a taken entry is about to begin: it stays with this session [MQTT-4.8.2-4] and goes to nobody else
	 * when that ends [MQTT-4.8.2-5]. What the session finds again of it is what `checkpoint` lists: call both in one go.
	 */
	bindShared(log: string, seq: number, session: SessionRef): Promise<void>;

	/** Retained messages whose topic matches, in topic order, without expired ones. `after` is a page's `next`. */
	retained(filter: string, after: string | undefined, limit: number, nowMs: number): Promise<RetainedPage>;

	/** What has fallen due at `nowMs`, at most `limit` of each. To be called every second or so: stores clean up meanwhile. */
	due(nowMs: number, limit: number): Promise<Due>;
	stats(): Promise<StoreStats>;
}

/** A store that several replicas share. */
export interface SharedStore extends Store {
	/**
	 * Resolves when all logs are known here that were made before the call (P3). One question for all calls of one event-loop
	 * turn. Rejects with `away` while that cannot be known.
	 */
	catchUp(): Promise<void>;
	/** Ends what dead replicas have left. To be called every few seconds. */
	reapDead(): Promise<void>;
	/** With the word of other replicas, which has to be passed on. */
	readonly records: SharedRecordStore;
	/** How long the store has been away, in ms; 0 while it is there. */
	readonly awayMs: number;
	/** How long it takes to answer, in seconds; connections that were made again; replicas that live, with this one. */
	readonly roundTrip: Histogram;
	readonly reconnects: number;
	readonly replicas: number;
}

export type StoreErrorCode =
	/** Another connection has taken the session over. */
	| "fenced"
	/** The session is another user's. */
	| "notOwner"
	/** A limit is reached. */
	| "full"
	/** The data were written by a newer version. */
	| "newerVersion"
	/** It cannot be reached now, and will be again: whether the call took effect is unknown. To be tried again. */
	| "away"
	/** It cannot be read or written. */
	| "unavailable";

export class StoreError extends Error {
	override readonly name = "StoreError";
	readonly code: StoreErrorCode;

	constructor(code: StoreErrorCode, message: string, options?: ErrorOptions) {
		super(message, options);
		this.code = code;
	}
}
