/**
 * What other replicas must get: parcels at the end of their inboxes, in the order of the calls. Knows when they are stored
 * there, and repeats only what nobody else would: rings and notices of takeovers.
 */

import type { SessionRef } from "../../store/store.ts";
import { messageEnvelope, ringEnvelope, takeoverEnvelope } from "../envelope.ts";
import type { Forwarded, ReplicaId } from "../router.ts";
import type { Context } from "./context.ts";
import { type Parcel, Parcels } from "./parcels.ts";

/** Notices for one replica that wait until Redis is back; the oldest goes when there are more. */
const MAX_WAITING = 10_000;
const DONE = Promise.resolve();

export class Outbox {
	readonly #context: Context;
	readonly #inboxMax: number;
	readonly #parcels: Parcels;
	/** Notices that may not have been stored. */
	readonly #waiting = new Map<ReplicaId, Map<string, Buffer>>();

	/** @param inboxMax Entries that an inbox keeps, about. */
	constructor(context: Context, inboxMax: number) {
		this.#context = context;
		this.#inboxMax = inboxMax;
		this.#parcels = new Parcels(context, (replica, parcel, bytes) => this.#send(replica, parcel, bytes));
	}

	/** See `Router.forward`. */
	forward(replicas: Iterable<ReplicaId>, forwarded: Forwarded, token: string | undefined): Promise<void> {
		let envelope: Buffer | undefined;
		let only: Promise<void> | undefined;
		let all: Promise<void>[] | undefined;
		for (const replica of replicas) {
			envelope ??= messageEnvelope(forwarded, token, this.#context.clock.nowMs(), this.#context.format.writes);
			const parcel = this.#parcels.open(replica);
			const { sent } = parcel;
			this.#parcels.add(replica, parcel, envelope);
			if (only === undefined) only = sent;
			else if (all === undefined) all = [only, sent];
			else all.push(sent);
		}
		return all === undefined ? (only ?? DONE) : Promise.all(all).then(() => {});
	}

	/** See `Router.ring`. */
	ring(replicas: Iterable<ReplicaId>, group: string): void {
		const key = `ring ${group}`;
		let envelope: Buffer | undefined;
		for (const replica of replicas) {
			if (this.#parcels.open(replica).notices?.has(key) === true) continue;
			envelope ??= ringEnvelope(group);
			this.#notify(replica, key, envelope);
		}
	}

	/** See `Router.notifyTakeover`. */
	notifyTakeover(replica: ReplicaId, session: SessionRef): void {
		this.#notify(replica, `takeover ${session.epoch} ${session.clientId}`, takeoverEnvelope(session));
	}

	/** Sends the notices again that may not have been stored. */
	sendWaiting(): void {
		for (const [replica, notices] of this.#waiting) {
			this.#waiting.delete(replica);
			for (const [key, envelope] of notices) this.#notify(replica, key, envelope);
		}
	}

	/** Nothing waits for this replica any more. */
	forget(replica: ReplicaId): void {
		this.#waiting.delete(replica);
	}

	#notify(replica: ReplicaId, key: string, envelope: Buffer): void {
		const parcel = this.#parcels.open(replica);
		parcel.notices ??= new Map();
		parcel.notices.set(key, envelope);
		this.#parcels.add(replica, parcel, envelope);
	}

	#send(replica: ReplicaId, parcel: Parcel, bytes: Buffer): void {
		const { connection, keys, replicated } = this.#context;
		// Without an inbox there is no replica: nothing is made, and nobody misses it.
		const added = connection.send("XADD", [keys.inbox(replica), "NOMKSTREAM", "MAXLEN", "~", this.#inboxMax, "0-*", "b", bytes]);
		const stored = replicated ? Promise.all([added, connection.confirm()]) : added;
		parcel.settle(stored);
		const { notices } = parcel;
		if (notices !== undefined) stored.catch(() => this.#keep(replica, notices));
	}

	#keep(replica: ReplicaId, notices: ReadonlyMap<string, Buffer>): void {
		const waiting = this.#waiting.get(replica) ?? new Map<string, Buffer>();
		this.#waiting.set(replica, waiting);
		for (const [key, envelope] of notices) waiting.set(key, envelope);
		for (const key of waiting.keys()) {
			if (waiting.size <= MAX_WAITING) break;
			waiting.delete(key);
		}
	}
}
