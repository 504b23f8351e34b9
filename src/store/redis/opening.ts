/** How a session comes to a connection: what `session_open.lua` answers, and what follows from it elsewhere. */

import type { Message } from "../../mqtt/message.ts";
import { decodeText } from "../../mqtt/utf8.ts";
import { isShared } from "../log_name.ts";
import { decodeInflight, decodeMessage } from "../message_record.ts";
import { type InflightRecord, type OpenedSession, type OpenSession, type StoredSubscription, StoreError } from "../store.ts";
import type { Cleaning } from "./cleaning.ts";
import type { Context } from "./context.ts";
import { settled } from "./context.ts";
import type { Deadlines } from "./deadlines.ts";
import { toLocalTime } from "./expiry.ts";
import type { Logs } from "./logs.ts";
import type { Owned, OwnedSessions } from "./owned.ts";
import { decodeGone, decodeSubscription, encodeTicket, encodeWill, type SubscriptionRecord } from "./records.ts";
import type { Routes } from "./routes.ts";
import { scripts } from "./scripts.ts";
import type { SharedLogs } from "./shared_logs.ts";

type Reply = [
	last: Buffer,
	token: Buffer,
	owner: Buffer,
	resumed: number | null,
	incarnation: Buffer,
	durable: Buffer,
	lastPacketId: Buffer,
	serial: Buffer,
	inflight: Buffer,
	subscriptions: Buffer[],
	reserved: Buffer[],
	kept: Buffer[],
	gone: Buffer[],
	fired: Buffer[],
	cancelled: Buffer[],
	ended: number,
];

/** The parts that opening a session needs. */
export interface OpeningParts {
	readonly routes: Routes;
	readonly logs: Logs;
	readonly deadlines: Deadlines;
	readonly cleaning: Cleaning;
	readonly owned: OwnedSessions;
	readonly shared: SharedLogs;
}

export class Opening {
	readonly #context: Context;
	readonly #parts: OpeningParts;

	constructor(context: Context, parts: OpeningParts) {
		this.#context = context;
		this.#parts = parts;
	}

	/** The first commands are sent before this returns. */
	async open(request: OpenSession): Promise<OpenedSession> {
		const { connection, keys, names, replicaId, time, format } = this.#context;
		const { clientId, user, cleanStart, sessionExpirySeconds, will, nowMs } = request;
		const epoch = names.next();
		const ticket = encodeTicket({ epoch, clientId });
		const { meta, subscriptions, reserved, wills, bound, gone, kept } = keys.session(clientId);
		const willRecord = will === undefined ? "" : encodeWill(will.message, will.delaySeconds, will.expirySeconds, format.writes);
		let reply: Reply;
		try {
			// The ticket comes first: whoever finds this replica dead looks after all that it may have opened.
			const noted = connection.send("SADD", [keys.owned(replicaId), ticket]);
			const opened = connection.run(
				scripts.sessionOpen,
				[meta, subscriptions, reserved, wills, bound, gone, kept],
				[epoch, replicaId, time(nowMs), cleanStart ? 1 : 0, sessionExpirySeconds, willRecord, user],
			);
			await settled([noted, opened]);
			reply = (await opened) as Reply;
		} catch (error) {
			const notOpened = { epoch, clientId, will: "discard", expirySeconds: undefined } as const;
			const refused = error instanceof StoreError && error.code === "notOwner";
			const noteGone = refused ? connection.send("SREM", [keys.owned(replicaId), ticket]) : Promise.reject(error);
			await noteGone.catch(() => this.#parts.cleaning.later(notOpened));
			throw error;
		}
		const owned: Owned = {
			clientId,
			epoch,
			incarnation: reply[4].toString("latin1"),
			durable: reply[5].toString("latin1") === "1",
			expirySeconds: sessionExpirySeconds,
			willDelaySeconds: will?.delaySeconds,
			joins: new Map(),
			inflight: [],
			serial: reply[7].toString("latin1"),
			reserving: new Map(),
		};
		this.#parts.owned.set(owned);
		try {
			return await this.#resume(owned, reply, nowMs);
		} catch (error) {
			this.#parts.owned.delete(owned);
			this.#parts.cleaning.later({ epoch, clientId, will: "discard", expirySeconds: undefined });
			throw error;
		}
	}

	async #resume(owned: Owned, reply: Reply, nowMs: number): Promise<OpenedSession> {
		const [, , owner, resumed, , , lastPacketId, , inflight, subscriptions, reserved, kept] = reply;
		const following = this.#follow(owned, reply, nowMs);
		const stored = resumed === 1 ? await this.#subscriptions(owned, subscriptions) : [];
		const records = inflight.length === 0 ? [] : decodeInflight(inflight);
		owned.inflight = records;
		const found = await Promise.all(records.map((record) => this.#findMessage(record, kept, owned.incarnation, owner.toString())));
		await following;
		return {
			epoch: owned.epoch,
			sessionPresent: resumed === 1,
			subscriptions: stored,
			inflight: found.filter((record) => record.state === "received" || record.message !== undefined),
			reservedIds: reservedIds(reserved),
			lastPacketId: Number(lastPacketId.toString("latin1")),
		};
	}

	/** What the opening changes in other slots. */
	async #follow(owned: Owned, reply: Reply, nowMs: number): Promise<void> {
		const [last, token, owner, , , , , , , , , , gone, fired, cancelled, ended] = reply;
		const { connection, keys, replicaId, onTakeover } = this.#context;
		const { deadlines, cleaning } = this.#parts;
		const { clientId } = owned;
		const ticketOf = (epoch: Buffer) => encodeTicket({ epoch: epoch.toString("latin1"), clientId });
		const following: Promise<unknown>[] = [];
		if (token.length > 0) {
			following.push(connection.send("SREM", [keys.owned(owner.toString()), ticketOf(token)]));
			if (owner.toString() !== replicaId) onTakeover(owner.toString(), { clientId, epoch: token.toString("latin1") });
		}
		if (last.length > 0) following.push(deadlines.forgetExpiry(ticketOf(last)));
		for (const epoch of fired) following.push(deadlines.announce(ticketOf(epoch), nowMs, 0, undefined));
		for (const epoch of cancelled) following.push(deadlines.forgetWill(ticketOf(epoch)));
		if (gone.length > 0 || ended > 0) following.push(cleaning.clean(clientId, gone.map(decodeGone), ended));
		await settled(following);
	}

	async #subscriptions(owned: Owned, fields: readonly Buffer[]): Promise<StoredSubscription[]> {
		const records: [filter: string, record: SubscriptionRecord][] = [];
		for (let n = 0; n < fields.length; n += 2) {
			const record = decodeSubscription(fields[n + 1] as Buffer);
			const filter = text(fields[n] as Buffer);
			owned.joins.set(filter, record.join);
			records.push([filter, record]);
		}
		const joined = records.filter(([, { join, cursor }]) => join !== "" && cursor !== undefined).map(([filter]) => filter);
		const lost = joined.length === 0 ? new Set<string>() : await this.#parts.routes.missing(joined);
		return Promise.all(records.map(([filter, record]) => this.#subscription(owned, filter, record, lost.has(filter))));
	}

	/** A subscription whose log was never joined, or is lost, joins it now. */
	async #subscription({ clientId }: Owned, filter: string, record: SubscriptionRecord, isLost: boolean): Promise<StoredSubscription> {
		const { join, cursor, ...options } = record;
		let position = cursor ?? 0;
		if (join !== "" && (cursor === undefined || isLost)) {
			const { floor, existed } = await this.#parts.logs.join(filter, { join, clientId });
			if (!existed || cursor === undefined) position = floor;
		}
		return { filter, ...options, cursor: isShared(filter) ? 0 : position };
	}

	async #findMessage(record: InflightRecord, kept: readonly Buffer[], incarnation: string, owner: string): Promise<InflightRecord> {
		if (record.state === "received") return record;
		if (record.message !== undefined) return { ...record, message: toLocalTime(record.message, this.#context) };
		const name = keptName(record);
		let message: Message | undefined;
		for (let n = 0; n < kept.length; n += 2)
			if (text(kept[n] as Buffer) === name) message = toLocalTime(decodeMessage(kept[n + 1] as Buffer), this.#context);
		if (message !== undefined) return { ...record, message };
		const { logs, shared } = this.#parts;
		if (isShared(record.log) && !(await shared.keeps(record.log, record.seq, incarnation, owner))) return record;
		return { ...record, message: await logs.message(record.log, record.seq) };
	}
}

/** Name of a delivery's message among those that are kept by value. */
export function keptName({ log, seq }: InflightRecord): string {
	return `${seq} ${log}`;
}

/** Those whose message is not stored yet come again as publications. */
function reservedIds(fields: readonly Buffer[]): number[] {
	const ids: number[] = [];
	for (let n = 0; n < fields.length; n += 2) {
		if ((fields[n + 1] as Buffer).toString("latin1") === "done") ids.push(Number((fields[n] as Buffer).toString("latin1")));
	}
	return ids;
}

function text(bytes: Buffer): string {
	return decodeText(bytes, 0, bytes.length);
}
