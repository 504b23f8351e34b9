/**
 * What an open session does: subscriptions, checkpoints, reserved packet ids, bound entries, and its end. Knows which part of
 * each is in the session's slot, where the epoch is checked, and which follows in the logs once that has said yes.
 */

import { isShared } from "../log_name.ts";
import { encodeInflight, encodeMessage } from "../message_record.ts";
import type { Checkpoint, CloseSession, InflightRecord, SessionRef, SubscriptionOptions } from "../store.ts";
import type { Cleaning } from "./cleaning.ts";
import type { Context } from "./context.ts";
import { settled } from "./context.ts";
import { toServerTime } from "./expiry.ts";
import type { Logs } from "./logs.ts";
import { keptName } from "./opening.ts";
import type { Owned, OwnedSessions } from "./owned.ts";
import { decodeSubscription, encodeCursor, encodeSubscription } from "./records.ts";
import type { Routes } from "./routes.ts";
import { scripts } from "./scripts.ts";
import type { SharedLogs } from "./shared_logs.ts";

/** What `subscribe` answers for one subscription. */
export interface Subscribed {
	readonly existed: boolean;
	readonly cursor: number;
}

/** Sessions looked at together. */
const AT_ONCE = 256;
const NOT_STORED: Subscribed = { existed: false, cursor: 0 };

/** A subscription on its way. */
interface Planned {
	readonly options: SubscriptionOptions;
	/** A session without expiry keeps only what others depend on. */
	readonly stored: boolean;
	readonly existed: boolean;
	/** Its place in the log; empty for QoS 0. */
	readonly join: string;
	/** Whether it is a new one. */
	readonly joins: boolean;
	/** The place that it gives up. */
	readonly leaves: string;
}

export class Sessions {
	readonly #context: Context;
	readonly #routes: Routes;
	readonly #logs: Logs;
	readonly #shared: SharedLogs;
	readonly #cleaning: Cleaning;
	readonly #owned: OwnedSessions;

	constructor(context: Context, routes: Routes, logs: Logs, shared: SharedLogs, cleaning: Cleaning, owned: OwnedSessions) {
		this.#context = context;
		this.#routes = routes;
		this.#logs = logs;
		this.#shared = shared;
		this.#cleaning = cleaning;
		this.#owned = owned;
	}

	/** The first commands are sent before this returns. */
	async close(session: SessionRef, request: CloseSession): Promise<void> {
		const owned = this.#owned.get(session);
		this.#owned.delete(owned);
		// DISCONNECT cannot give a lifetime to a session that CONNECT gave none.
		const expirySeconds = owned.expirySeconds === 0 ? 0 : (request.sessionExpirySeconds ?? owned.expirySeconds);
		const { epoch, clientId, willDelaySeconds } = owned;
		await this.#cleaning.close({ epoch, clientId, will: request.will, expirySeconds, willDelaySeconds }, expirySeconds, request.nowMs);
	}

	subscribe(session: SessionRef, subscriptions: readonly SubscriptionOptions[]): Promise<readonly Subscribed[]> {
		const owned = this.#owned.get(session);
		const planned = subscriptions.map((options) => this.#plan(owned, options));
		const records = planned
			.filter(({ stored }) => stored)
			.flatMap(({ options, join }) => [options.filter, encodeSubscription(options, join)]);
		const { connection, keys } = this.#context;
		const { meta, subscriptions: stored, gone } = keys.session(owned.clientId);
		return this.#context.calls.run({
			session: () => this.#fenced(owned, connection.run(scripts.sessionSubscribe, [meta, stored, gone], [owned.epoch, ...records])),
			logs: (replaced) => this.#joinAll(owned, planned, replaced as Buffer[]),
		});
	}

	/** Notes the subscription here, so that calls made before this one is over know of it. */
	#plan(owned: Owned, options: SubscriptionOptions): Planned {
		const { filter, qos } = options;
		if (!owned.durable && !isShared(filter)) return { options, stored: false, existed: false, join: "", joins: false, leaves: "" };
		const known = owned.joins.get(filter);
		const joins = qos > 0 && (known ?? "") === "";
		const join = qos === 0 ? "" : joins ? this.#context.names.next() : (known as string);
		owned.joins.set(filter, join);
		return { options, stored: true, existed: known !== undefined, join, joins, leaves: qos === 0 ? (known ?? "") : "" };
	}

	async #joinAll(owned: Owned, planned: readonly Planned[], replaced: readonly Buffer[]): Promise<Subscribed[]> {
		let n = 0;
		const joined = planned.map((each) => (each.stored ? this.#join(owned, each, replaced[n++] as Buffer) : Promise.resolve(NOT_STORED)));
		const counted = this.#cleaning.count(planned.filter(({ stored, existed }) => stored && !existed).length);
		await settled([...joined, counted]);
		return Promise.all(joined);
	}

	async #join(owned: Owned, { options, existed, join, joins, leaves }: Planned, replaced: Buffer): Promise<Subscribed> {
		const { filter } = options;
		if (leaves !== "") await this.#leave(owned, filter, leaves);
		if (join === "") return { existed, cursor: 0 };
		const stored = joins || replaced.length === 0 ? undefined : decodeSubscription(replaced).cursor;
		// Joining again what was joined before finds the place.
		const cursor = stored ?? (await this.#logs.join(filter, { join, clientId: owned.clientId })).floor;
		return { existed, cursor: isShared(filter) ? 0 : cursor };
	}

	unsubscribe(session: SessionRef, filters: readonly string[]): Promise<void> {
		const owned = this.#owned.get(session);
		const { connection, keys, calls } = this.#context;
		const { meta, subscriptions, gone } = keys.session(owned.clientId);
		const left: { readonly filter: string; readonly join: string }[] = [];
		for (const filter of filters) {
			const join = owned.joins.get(filter);
			if (join !== undefined && join !== "") left.push({ filter, join });
			owned.joins.delete(filter);
		}
		const { serial } = owned;
		const underWay = owned.inflight.filter(({ state, message, log }) => state === "sent" && message === undefined && filters.includes(log));
		return calls.run({
			session: () =>
				this.#fenced(owned, connection.run(scripts.sessionUnsubscribe, [meta, subscriptions, gone], [owned.epoch, ...filters])),
			logs: async (removed) => {
				await this.#keepMessages(owned, underWay, serial);
				await settled([...left.map(({ filter, join }) => this.#leave(owned, filter, join)), this.#cleaning.count(-Number(removed))]);
			},
		});
	}

	#leave({ clientId }: Owned, log: string, join: string): Promise<void> {
		return this.#cleaning.clean(clientId, [{ kind: "member", name: join, log, text: Buffer.from(`m${join} ${log}`) }], 0);
	}

	/** Deliveries that have begun go on after UNSUBSCRIBE [MQTT-3.10.4-3], when their log may be gone. */
	async #keepMessages(owned: Owned, records: readonly InflightRecord[], serial: string): Promise<void> {
		if (records.length === 0) return;
		const { connection, keys } = this.#context;
		const messages = await Promise.all(records.map(({ log, seq }) => this.#logs.message(log, seq)));
		const fields = records.flatMap((record, n) => {
			const message = messages[n];
			return message === undefined
				? []
				: [keptName(record), Buffer.from(encodeMessage(toServerTime(message, this.#context), this.#context.format.writes))];
		});
		if (fields.length === 0) return;
		const { meta, kept } = keys.session(owned.clientId);
		await this.#fenced(owned, connection.run(scripts.sessionKeep, [meta, kept], [owned.epoch, serial, ...fields]));
	}

	checkpoint(session: SessionRef, { cursors, inflight, lastPacketId }: Checkpoint): Promise<void> {
		const owned = this.#owned.get(session);
		const { connection, keys, calls, names, onError } = this.#context;
		const { meta, subscriptions, kept } = keys.session(owned.clientId);
		const read = owned.durable ? cursors.filter(({ log }) => owned.joins.get(log) && !isShared(log)) : [];
		owned.inflight = inflight;
		owned.serial = names.next();
		const byValue = inflight.map((each) =>
			each.message === undefined ? each : { ...each, message: toServerTime(each.message, this.#context) },
		);
		const record = inflight.length === 0 ? "" : Buffer.from(encodeInflight(byValue, this.#context.format.writes));
		const positions = read.flatMap(({ log, cursor }) => [log, encodeCursor(cursor)]);
		return calls.run<void>({
			session: () =>
				this.#fenced(
					owned,
					connection.run(
						scripts.sessionCheckpoint,
						[meta, subscriptions, kept],
						[owned.epoch, lastPacketId, record, owned.serial, ...positions],
					),
				),
			logs: async () => {
				// Nobody waits for these: they only make room.
				for (const { log, cursor, floor } of read) {
					const join = owned.joins.get(log) ?? "";
					this.#logs.moveFloor(log, { join, clientId: owned.clientId }, Math.min(floor, cursor)).catch(onError);
				}
			},
		});
	}

	release(session: SessionRef, packetId: number): Promise<void> {
		const owned = this.#owned.get(session);
		return this.#context.calls.run<void>({ session: () => this.reservation(owned, packetId, "free", "") as Promise<unknown> });
	}

	/** See `session_reservation.lua`. */
	async reservation(owned: Owned, packetId: number, step: "reserve" | "done" | "free", number: number | ""): Promise<number> {
		const { connection, keys } = this.#context;
		const { meta, reserved } = keys.session(owned.clientId);
		const reply = connection.run(scripts.sessionReservation, [meta, reserved], [owned.epoch, packetId, step, number]);
		return Number(await this.#fenced(owned, reply));
	}

	bindShared(log: string, seq: number, session: SessionRef): Promise<void> {
		const owned = this.#owned.get(session);
		const { connection, keys, calls } = this.#context;
		const { meta, bound } = keys.session(owned.clientId);
		const call = calls.run<void>({
			session: () => this.#fenced(owned, connection.run(scripts.sessionBind, [meta, bound], [owned.epoch, log])),
			logs: () => this.#shared.bind(log, seq, owned.incarnation),
		});
		call.then(
			() => this.#shared.bound(log, seq),
			(error) => {
				// Otherwise it is repeated: nobody else may get what it may have bound.
				if ((error as { code?: string }).code !== "away") this.#shared.notBound(log, seq);
			},
		);
		return call;
	}

	/** None of the sessions is this replica's to serve any more. */
	loseAll(): void {
		for (const owned of this.#owned.all()) {
			this.#owned.delete(owned);
			this.#context.onLost(owned);
		}
	}

	/**
	 * Finds the sessions that have moved on while this replica was taken for dead, or that the server has forgotten.
	 * @param logsToo Whether the server may have forgotten logs as well: a session without its logs is lost, and whole again
	 *   when it is opened anew.
	 */
	async findLost(logsToo: boolean): Promise<void> {
		const { connection, keys, onLost } = this.#context;
		const all = this.#owned.all();
		for (let at = 0; at < all.length; at += AT_ONCE) {
			const some = all.slice(at, at + AT_ONCE);
			const tokens = await Promise.all(some.map(({ clientId }) => connection.send("HGET", [keys.session(clientId).meta, "token"])));
			for (const [n, owned] of some.entries()) {
				const kept = tokens[n] !== null && String(tokens[n]) === owned.epoch;
				if (kept && !(logsToo && (await this.#missesLog(owned)))) continue;
				this.#owned.delete(owned);
				onLost(owned);
			}
		}
	}

	async #missesLog({ joins }: Owned): Promise<boolean> {
		const logs = [...joins].filter(([, join]) => join !== "").map(([log]) => log);
		return (await this.#routes.missing(logs)).size > 0;
	}

	/** What says that the session has moved on is remembered. */
	#fenced<T>(owned: Owned, reply: Promise<T>): Promise<T> {
		reply.catch((error) => {
			if ((error as { code?: string }).code === "fenced") this.#owned.delete(owned);
		});
		return reply;
	}
}
