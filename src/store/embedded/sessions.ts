/**
 * Sessions: their owners, deadlines, reserved packet ids and deliveries under way. Knows who may write (the epoch) and what
 * ends with a session. Connected sessions are known in memory, and one that keeps nothing has no row: since one process
 * owns the file, an epoch need not outlive it, and a connect storm of such clients costs two look-ups each.
 */

import { randomUUID } from "node:crypto";
import type { StatementSync } from "node:sqlite";
import { decodeInflight, encodeInflight } from "../message_record.ts";
import {
	type Checkpoint,
	type CloseSession,
	type InflightRecord,
	NEVER_EXPIRES,
	type OpenedSession,
	type OpenSession,
	type SessionRef,
	StoreError,
	type SubscriptionOptions,
} from "../store.ts";
import type { Context } from "./context.ts";
import { Query } from "./database.ts";
import type { LogReader } from "./log_reader.ts";
import type { SharedLogs } from "./shared_logs.ts";
import type { Subscribed, Subscriptions } from "./subscriptions.ts";
import type { Wills } from "./wills.ts";

/** Deadline of what never expires: an integer that SQLite and JavaScript both hold exactly. */
const NEVER_MS = Number.MAX_SAFE_INTEGER;
const NOT_STORED: Subscribed = { existed: false, cursor: 0 };

/** A connected session. */
export interface Owner {
	readonly clientId: string;
	readonly user: string;
	readonly epoch: string;
	readonly expirySeconds: number;
	/** All of it is stored, not only what others depend on. */
	readonly durable: boolean;
	/** Its row; 0 while it needs none. */
	row: number;
	/** Its will; 0 for none. */
	readonly will: number;
	/** Inbound QoS 2 packet ids that wait for PUBREL. */
	reserved: Set<number> | undefined;
}

type SessionRow = [
	id: number,
	expirySeconds: number,
	expiresAt: number | null,
	lastPacketId: number,
	inflight: Uint8Array | null,
	user: string | null,
];

export class Sessions {
	readonly #context: Context;
	readonly #subscriptions: Subscriptions;
	readonly #wills: Wills;
	readonly #shared: SharedLogs;
	readonly #reader: LogReader;
	readonly #owners = new Map<string, Owner>();
	readonly #epochPrefix = `${randomUUID()}:`;
	#epochs = 0;
	readonly #select: Query<SessionRow>;
	readonly #selectInflight: Query<[inflight: Uint8Array | null]>;
	readonly #selectExpired: Query<[id: number, client: string]>;
	readonly #selectReserved: Query<[packetId: number]>;
	readonly #insert: StatementSync;
	readonly #resume: StatementSync;
	readonly #disconnect: StatementSync;
	readonly #delete: StatementSync;
	readonly #setProgress: StatementSync;
	readonly #setInflight: StatementSync;
	readonly #insertReservation: StatementSync;
	readonly #deleteReservation: StatementSync;
	readonly #deleteReservations: StatementSync;

	constructor(context: Context, subscriptions: Subscriptions, wills: Wills, shared: SharedLogs, reader: LogReader) {
		const { db } = context;
		this.#context = context;
		this.#subscriptions = subscriptions;
		this.#wills = wills;
		this.#shared = shared;
		this.#reader = reader;
		this.#select = new Query(db, "SELECT id, expiry_seconds, expires_at, last_packet_id, inflight, user FROM session WHERE client = ?");
		this.#selectInflight = new Query(db, "SELECT inflight FROM session WHERE id = ?");
		this.#selectExpired = new Query(db, "SELECT id, client FROM session WHERE expires_at <= ? ORDER BY expires_at LIMIT ?");
		this.#selectReserved = new Query(db, "SELECT packet_id FROM reservation WHERE session = ?");
		this.#insert = db.prepare("INSERT INTO session (id, client, user, expiry_seconds) VALUES (?, ?, ?, ?)");
		this.#resume = db.prepare("UPDATE session SET user = ?, expiry_seconds = ?, expires_at = NULL WHERE id = ?");
		this.#disconnect = db.prepare("UPDATE session SET expiry_seconds = ?, expires_at = ? WHERE id = ?");
		this.#delete = db.prepare("DELETE FROM session WHERE id = ?");
		this.#setProgress = db.prepare("UPDATE session SET last_packet_id = ?, inflight = ? WHERE id = ?");
		this.#setInflight = db.prepare("UPDATE session SET inflight = ? WHERE id = ?");
		this.#insertReservation = db.prepare("INSERT INTO reservation (session, packet_id) VALUES (?, ?)");
		this.#deleteReservation = db.prepare("DELETE FROM reservation WHERE session = ? AND packet_id = ?");
		this.#deleteReservations = db.prepare("DELETE FROM reservation WHERE session = ?");
		context.counts.sessions = new Query<[number]>(db, "SELECT count(*) FROM session").get()?.[0] ?? 0;
	}

	/** Disconnects what was connected when the process ended. In an open group, before anybody connects. */
	recover(nowMs: number): void {
		const { db } = this.#context;
		this.#wills.recover(nowMs);
		for (const [id] of new Query<[number]>(db, "SELECT id FROM session WHERE expires_at IS NULL AND expiry_seconds = 0").all())
			this.#end(id);
		db.prepare(
			`UPDATE session SET expires_at = CASE expiry_seconds WHEN ${NEVER_EXPIRES} THEN ${NEVER_MS} ELSE ? + expiry_seconds * 1000 END
			WHERE expires_at IS NULL`,
		).run(nowMs);
	}

	/** The present owner. Throws `StoreError` `fenced` for anybody else. */
	owner(session: SessionRef): Owner {
		const owner = this.#owners.get(session.clientId);
		if (owner === undefined || owner.epoch !== session.epoch) {
			throw new StoreError("fenced", `Cannot change the session of "${session.clientId}": another connection has it, or it was closed`);
		}
		return owner;
	}

	/** Begins a group if there is something to write. Throws `StoreError` `notOwner` for the session of another user. */
	open(request: OpenSession): OpenedSession {
		const { clientId, user, sessionExpirySeconds, will, nowMs } = request;
		const { group, ids, counts } = this.#context;
		const previous = this.#owners.get(clientId);
		const row = this.#select.get(clientId);
		const present = row !== undefined && row[1] > 0 && (row[2] === null || row[2] > nowMs);
		const belongsTo = previous?.user ?? (present ? row[5] : null) ?? user;
		if (belongsTo !== user) {
			throw new StoreError("notOwner", `Cannot open the session of "${clientId}": it is another user's`);
		}
		const resumed = present && !request.cleanStart;
		this.#wills.connected(clientId, resumed ? "resumed" : row === undefined ? "none" : "ended", nowMs);
		let id = 0;
		if (row !== undefined && resumed) {
			group.begin();
			id = row[0];
			this.#resume.run(user, sessionExpirySeconds, id);
		} else {
			if (row !== undefined) {
				group.begin();
				this.#end(row[0]);
			}
			if (sessionExpirySeconds > 0) {
				group.begin();
				id = ids.next();
				this.#insert.run(id, clientId, user, sessionExpirySeconds);
			}
		}
		let willId = 0;
		if (will !== undefined) {
			group.begin();
			willId = this.#wills.arm(clientId, will);
		}
		if (!resumed) counts.sessions += row === undefined && previous !== undefined ? 0 : 1;
		const reservedIds = resumed ? this.#selectReserved.all(id).map(([packetId]) => packetId) : [];
		const owner: Owner = {
			clientId,
			user,
			epoch: this.#epochPrefix + ++this.#epochs,
			expirySeconds: sessionExpirySeconds,
			durable: id !== 0,
			row: id,
			will: willId,
			reserved: reservedIds.length === 0 ? undefined : new Set(reservedIds),
		};
		this.#owners.set(clientId, owner);
		if (group.isOpen) group.onRollback(() => this.#restoreOwner(clientId, previous));
		return {
			epoch: owner.epoch,
			sessionPresent: resumed,
			subscriptions: resumed ? this.#subscriptions.list(id) : [],
			inflight: resumed && row[4] !== null ? this.#findMessages(decodeInflight(row[4])).filter(canGoOn) : [],
			reservedIds,
			lastPacketId: resumed ? row[3] : 0,
		};
	}

	#restoreOwner(clientId: string, previous: Owner | undefined): void {
		if (previous === undefined) this.#owners.delete(clientId);
		else this.#owners.set(clientId, previous);
	}

	/** Begins a group if there is something to write. */
	close(session: SessionRef, request: CloseSession): void {
		const owner = this.owner(session);
		const { group, counts } = this.#context;
		// DISCONNECT cannot give a lifetime to a session that CONNECT gave none.
		const expirySeconds = owner.expirySeconds === 0 ? 0 : (request.sessionExpirySeconds ?? owner.expirySeconds);
		const endMs = expirySeconds === NEVER_EXPIRES ? NEVER_MS : request.nowMs + expirySeconds * 1000;
		if (owner.will !== 0 || owner.row !== 0) group.begin();
		if (owner.will !== 0) {
			if (request.will === "discard") this.#wills.remove(owner.will);
			else this.#wills.fire(owner.will, request.nowMs, endMs);
		}
		if (owner.row === 0) counts.sessions--;
		else if (expirySeconds === 0) this.#end(owner.row);
		else this.#disconnect.run(expirySeconds, endMs, owner.row);
		this.#owners.delete(owner.clientId);
		if (group.isOpen) group.onRollback(() => this.#owners.set(owner.clientId, owner));
	}

	/** Ends sessions whose time is over, and answers their client ids. Begins a group if there are any. */
	expire(nowMs: number, limit: number): string[] {
		const expired = this.#selectExpired.all(nowMs, limit);
		if (expired.length > 0) this.#context.group.begin();
		for (const [id] of expired) this.#end(id);
		return expired.map(([, client]) => client);
	}

	#end(id: number): void {
		this.#shared.dropBound(id);
		this.#subscriptions.removeAll(id);
		this.#deleteReservations.run(id);
		this.#delete.run(id);
		this.#context.counts.sessions--;
	}

	/** Begins a group if there is something to write. */
	subscribe(session: SessionRef, subscriptions: readonly SubscriptionOptions[]): Subscribed[] {
		const owner = this.owner(session);
		return subscriptions.map((subscription) => {
			if (!owner.durable && !subscription.filter.startsWith("$share/")) return NOT_STORED;
			this.#context.group.begin();
			return this.#subscriptions.put(this.#rowOf(owner), subscription);
		});
	}

	/** Begins a group if there is something to write. */
	unsubscribe(session: SessionRef, filters: readonly string[]): void {
		const owner = this.owner(session);
		if (owner.row === 0) return;
		this.#context.group.begin();
		this.#keepMessages(owner.row, filters);
		for (const filter of filters) this.#subscriptions.remove(owner.row, filter);
	}

	/** Deliveries that have begun go on after UNSUBSCRIBE [MQTT-3.10.4-3], when their log may be gone. */
	#keepMessages(row: number, filters: readonly string[]): void {
		const inflight = this.#selectInflight.get(row)?.[0] ?? null;
		if (inflight === null) return;
		const records = decodeInflight(inflight);
		if (!records.some(({ log }) => filters.includes(log))) return;
		this.#setInflight.run(encodeInflight(this.#findMessages(records, filters)), row);
	}

	/** The records with the messages of those that wait for PUBACK or PUBREC, as far as they can be found. */
	#findMessages(records: readonly InflightRecord[], logs?: readonly string[]): InflightRecord[] {
		return records.map((record) => {
			if (record.state === "received" || record.message !== undefined || logs?.includes(record.log) === false) return record;
			return { ...record, message: this.#reader.message(record.log, record.seq) };
		});
	}

	/** A session without a row gets one. In an open group. */
	#rowOf(owner: Owner): number {
		if (owner.row !== 0) return owner.row;
		owner.row = this.#context.ids.next();
		this.#insert.run(owner.row, owner.clientId, owner.user, 0);
		this.#context.group.onRollback(() => {
			owner.row = 0;
		});
		return owner.row;
	}

	isReserved(owner: Owner, packetId: number): boolean {
		return owner.reserved?.has(packetId) === true;
	}

	/** Begins a group if the session outlives its connection. */
	reserve(owner: Owner, packetId: number): void {
		const { group } = this.#context;
		if (owner.durable) {
			group.begin();
			this.#insertReservation.run(owner.row, packetId);
		}
		owner.reserved ??= new Set();
		owner.reserved.add(packetId);
		if (group.isOpen) group.onRollback(() => owner.reserved?.delete(packetId));
	}

	/** Begins a group if the session outlives its connection. */
	release(session: SessionRef, packetId: number): void {
		const owner = this.owner(session);
		const { group } = this.#context;
		if (owner.reserved?.has(packetId) !== true) return;
		if (owner.durable) {
			group.begin();
			this.#deleteReservation.run(owner.row, packetId);
		}
		owner.reserved.delete(packetId);
		if (group.isOpen) group.onRollback(() => owner.reserved?.add(packetId));
	}

	/** Begins a group if the session outlives its connection. */
	checkpoint(session: SessionRef, { cursors, inflight, lastPacketId }: Checkpoint): void {
		const owner = this.owner(session);
		if (!owner.durable) return;
		const record = inflight.length === 0 ? null : encodeInflight(inflight);
		this.#context.group.begin();
		this.#setProgress.run(lastPacketId, record, owner.row);
		for (const { log, cursor, floor } of cursors) this.#subscriptions.moveCursor(owner.row, log, cursor, floor);
	}

	/** Begins a group. */
	bindShared(log: string, seq: number, session: SessionRef): void {
		const owner = this.owner(session);
		this.#context.group.begin();
		this.#shared.bind(log, seq, this.#rowOf(owner));
	}
}

function canGoOn(record: InflightRecord): boolean {
	return record.state === "received" || record.message !== undefined;
}
