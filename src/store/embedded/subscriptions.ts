/** Stored subscriptions and the cursors of those that read a log. Knows which log comes and goes with which subscription. */

import type { StatementSync } from "node:sqlite";
import type { QoS } from "../../mqtt/packet.ts";
import type { StoredSubscription, SubscriptionOptions } from "../store.ts";
import type { Context } from "./context.ts";
import { Query } from "./database.ts";
import type { LogTrimmer } from "./log_trimmer.ts";
import type { Log, Logs } from "./logs.ts";

/** What `subscribe` answers for one subscription. */
export interface Subscribed {
	readonly existed: boolean;
	readonly cursor: number;
}

export class Subscriptions {
	readonly #context: Context;
	readonly #logs: Logs;
	readonly #trimmer: LogTrimmer;
	readonly #select: Query<[log: number | null]>;
	readonly #selectAll: Query<[filter: string, options: number, subscriptionId: number, position: number | null]>;
	readonly #selectLogs: Query<[log: number]>;
	readonly #replace: StatementSync;
	readonly #delete: StatementSync;
	readonly #deleteAll: StatementSync;
	readonly #position: Query<[position: number]>;
	readonly #insertCursor: StatementSync;
	readonly #updateCursor: StatementSync;
	readonly #deleteCursor: StatementSync;

	constructor(context: Context, logs: Logs, trimmer: LogTrimmer) {
		const { db } = context;
		this.#context = context;
		this.#logs = logs;
		this.#trimmer = trimmer;
		this.#select = new Query(db, "SELECT log FROM subscription WHERE session = ? AND filter = ?");
		this.#selectAll = new Query(
			db,
			`SELECT filter, options, subscription_id, position FROM subscription
			LEFT JOIN cursor ON cursor.log = subscription.log AND cursor.session = subscription.session
			WHERE subscription.session = ?`,
		);
		this.#selectLogs = new Query(db, "SELECT log FROM subscription WHERE session = ? AND log IS NOT NULL");
		this.#replace = db.prepare(
			"INSERT OR REPLACE INTO subscription (session, filter, log, options, subscription_id) VALUES (?, ?, ?, ?, ?)",
		);
		this.#delete = db.prepare("DELETE FROM subscription WHERE session = ? AND filter = ?");
		this.#deleteAll = db.prepare("DELETE FROM subscription WHERE session = ?");
		this.#position = new Query(db, "SELECT position FROM cursor WHERE log = ? AND session = ?");
		this.#insertCursor = db.prepare("INSERT INTO cursor (log, session, position, floor) VALUES (?, ?, ?, ?)");
		this.#updateCursor = db.prepare("UPDATE cursor SET position = ?, floor = ? WHERE log = ? AND session = ?");
		this.#deleteCursor = db.prepare("DELETE FROM cursor WHERE log = ? AND session = ?");
		context.counts.subscriptions = new Query<[number]>(db, "SELECT count(*) FROM subscription").get()?.[0] ?? 0;
	}

	/** In an open group. */
	put(session: number, subscription: SubscriptionOptions): Subscribed {
		const { filter, qos } = subscription;
		const existing = this.#select.get(session, filter);
		let log = existing?.[0] == null ? undefined : this.#logs.byId(existing[0]);
		let cursor = 0;
		if (qos === 0) {
			if (log !== undefined) this.#leave(log, session);
			log = undefined;
		} else if (log === undefined) {
			log = this.#logs.get(filter) ?? this.#logs.create(filter);
			cursor = log.head;
			this.#insertCursor.run(log.id, session, cursor, cursor);
			this.#countSubscribers(log, 1);
		} else {
			cursor = this.#position.get(log.id, session)?.[0] ?? log.head;
		}
		this.#replace.run(session, filter, log?.id ?? null, packOptions(subscription), subscription.subscriptionId);
		if (existing === undefined) this.#context.counts.subscriptions++;
		return { existed: existing !== undefined, cursor: log?.share === undefined ? cursor : 0 };
	}

	/** In an open group. */
	remove(session: number, filter: string): void {
		const existing = this.#select.get(session, filter);
		if (existing === undefined) return;
		const log = existing[0] === null ? undefined : this.#logs.byId(existing[0]);
		if (log !== undefined) this.#leave(log, session);
		this.#delete.run(session, filter);
		this.#context.counts.subscriptions--;
	}

	/** In an open group. */
	removeAll(session: number): void {
		for (const [id] of this.#selectLogs.all(session)) {
			const log = this.#logs.byId(id);
			if (log !== undefined) this.#leave(log, session);
		}
		this.#context.counts.subscriptions -= Number(this.#deleteAll.run(session).changes);
	}

	list(session: number): StoredSubscription[] {
		return this.#selectAll.all(session).map(([filter, options, subscriptionId, position]) => ({
			filter,
			...unpackOptions(options),
			subscriptionId,
			cursor: filter.startsWith("$share/") ? 0 : (position ?? 0),
		}));
	}

	/** In an open group. Without effect for a log that the session does not read. */
	moveCursor(session: number, name: string, position: number, floor: number): void {
		const log = this.#logs.get(name);
		if (log === undefined) return;
		this.#updateCursor.run(position, Math.min(floor, position), log.id, session);
		this.#trimmer.floorMoved(log);
	}

	#leave(log: Log, session: number): void {
		this.#deleteCursor.run(log.id, session);
		this.#countSubscribers(log, -1);
		if (log.subscribers === 0) this.#logs.remove(log);
		else this.#trimmer.floorMoved(log);
	}

	#countSubscribers(log: Log, change: 1 | -1): void {
		log.subscribers += change;
		this.#context.group.onRollback(() => {
			log.subscribers -= change;
		});
	}
}

function packOptions({ qos, noLocal, retainAsPublished, retainHandling }: SubscriptionOptions): number {
	return qos | (noLocal ? 4 : 0) | (retainAsPublished ? 8 : 0) | (retainHandling << 4);
}

function unpackOptions(options: number): Omit<SubscriptionOptions, "filter" | "subscriptionId"> {
	return {
		qos: (options & 3) as QoS,
		noLocal: (options & 4) !== 0,
		retainAsPublished: (options & 8) !== 0,
		retainHandling: ((options >> 4) & 3) as 0 | 1 | 2,
	};
}
