/**
 * Deadlines that any replica can keep, because the one that set them may be gone: wills and the expiry of sessions. A deadline
 * is a hint to look at a session, which itself says what is due; so hints may be early, late or for nothing, but never missing.
 */

import type { Due, DueWill } from "../store.ts";
import type { Context } from "./context.ts";
import { decodeGone, decodeTicket, decodeWill, encodeTicket, type Gone } from "./records.ts";
import { scripts } from "./scripts.ts";

/** How long others leave what a replica has taken up. */
const CLAIM_MS = 10_000;
/** Until a hint is looked at again that came before what it is about. */
const RECHECK_MS = 5000;

/** When the next deadline comes, as far as this replica knows: so that nothing is asked while nothing is due. */
export class NextDeadline {
	readonly #lookMs: number;
	/** As the server said, and the first of those that were made here since it was asked. */
	#told = 0;
	#made = Number.POSITIVE_INFINITY;
	#toldAt = Number.NEGATIVE_INFINITY;

	constructor(lookMs: number) {
		this.#lookMs = lookMs;
	}

	/** Whether the server has to be asked. */
	mayBeDue(serverMs: number): boolean {
		return Math.min(this.#told, this.#made) <= serverMs || performance.now() - this.#toldAt >= this.#lookMs;
	}

	/** One is being made here. */
	make(serverMs: number): void {
		this.#made = Math.min(this.#made, serverMs);
	}

	/** The server is being asked. Call the answer with what it said. */
	ask(): (firstMs: number) => void {
		const made = this.#made;
		this.#made = Number.POSITIVE_INFINITY;
		// Until it has answered, and if it does not.
		this.#told = Math.min(this.#told, made);
		return (firstMs) => {
			this.#told = firstMs;
			this.#toldAt = performance.now();
		};
	}
}

/** What has to be given up for a client. */
type Clean = (clientId: string, gone: readonly Gone[], endedSubscriptions: number) => Promise<void>;

export class Deadlines {
	readonly #context: Context;

	/** Of wills and expiries. */
	readonly next: NextDeadline;

	constructor(context: Context) {
		this.#context = context;
		this.next = new NextDeadline(context.lookMs);
	}

	/** Says when somebody has to look: after so many ms, `undefined` for never. */
	async announce(ticket: string, nowMs: number, willMs: number | undefined, expiryMs: number | undefined): Promise<void> {
		const { connection, keys, time, serverMs } = this.#context;
		this.next.make(serverMs(nowMs) + Math.min(willMs ?? Number.POSITIVE_INFINITY, expiryMs ?? Number.POSITIVE_INFINITY));
		await connection.run(scripts.timeHint, [keys.wills, keys.expiries], [ticket, time(nowMs), willMs ?? "", expiryMs ?? ""]);
	}

	forgetWill(ticket: string): Promise<void> {
		const { keys } = this.#context;
		return this.#forget(keys.wills, keys.willClaims, ticket);
	}

	forgetExpiry(ticket: string): Promise<void> {
		const { keys } = this.#context;
		return this.#forget(keys.expiries, keys.expiryClaims, ticket);
	}

	async #forget(deadlines: string, claims: string, ticket: string): Promise<void> {
		const { connection } = this.#context;
		await Promise.all([connection.send("ZREM", [deadlines, ticket]), connection.send("HDEL", [claims, ticket])]);
	}

	/** Nothing is due for so many ms. Unlike a plain ZADD this works on a full server too. */
	async #postpone(which: "wills" | "expiries", ticket: string, serverMs: number, byMs: number): Promise<void> {
		const { connection, keys } = this.#context;
		const [claims, waits] = which === "wills" ? [keys.willClaims, [byMs, ""]] : [keys.expiryClaims, ["", byMs]];
		this.next.make(serverMs + byMs);
		const postponed = connection.run(scripts.timeHint, [keys.wills, keys.expiries], [ticket, serverMs, ...waits]);
		await Promise.all([postponed, connection.send("HDEL", [claims, ticket])]);
	}

	/** Wills to publish, and sessions that have ended with this call; `clean` gives up what those leave. */
	async due(nowMs: number, limit: number, clean: Clean): Promise<Due> {
		const { connection, keys, replicaId, time, serverMs } = this.#context;
		if (!this.next.mayBeDue(serverMs(nowMs))) return { wills: [], expiredSessions: [] };
		const answered = this.next.ask();
		const reply = await connection.run(
			scripts.timeClaim,
			[keys.wills, keys.willClaims, keys.expiries, keys.expiryClaims],
			[replicaId, time(nowMs), CLAIM_MS, limit],
		);
		const [now, first, wills, expiries] = reply as [Buffer, Buffer, Buffer[], Buffer[]];
		answered(scoreOf(first));
		const claimedMs = Number(now.toString("latin1"));
		const ended = await Promise.all(expiries.map((ticket) => this.#expire(ticket, claimedMs, nowMs, clean)));
		const found = await Promise.all(wills.map((ticket) => this.#will(ticket, claimedMs, nowMs)));
		return { wills: found.filter((will) => will !== undefined), expiredSessions: ended.filter((clientId) => clientId !== undefined) };
	}

	/** @param nowMs The caller's time, from which the message's own expiry runs. */
	async #will(bytes: Buffer, serverMs: number, nowMs: number): Promise<DueWill | undefined> {
		const { connection, keys } = this.#context;
		const { epoch, clientId } = decodeTicket(bytes);
		const id = encodeTicket({ epoch, clientId });
		const record = (await connection.send("HGET", [keys.session(clientId).wills, epoch])) as Buffer | null;
		if (record === null) {
			await this.forgetWill(id);
			return undefined;
		}
		const { dueMs, expirySeconds, message } = decodeWill(record);
		if (dueMs === 0 || dueMs > serverMs) {
			// While its connection seems to live, the close that announced it may still come.
			await this.#postpone("wills", id, serverMs, dueMs === 0 ? RECHECK_MS : dueMs - serverMs);
			return undefined;
		}
		return { id, clientId, message: expirySeconds === undefined ? message : { ...message, expiresAtMs: nowMs + expirySeconds * 1000 } };
	}

	async #expire(bytes: Buffer, serverMs: number, nowMs: number, clean: Clean): Promise<string | undefined> {
		const { connection, keys, time } = this.#context;
		const { epoch, clientId } = decodeTicket(bytes);
		const ticket = encodeTicket({ epoch, clientId });
		const { meta, subscriptions, reserved, wills, bound, gone, kept } = keys.session(clientId);
		const reply = await connection.run(
			scripts.sessionEnd,
			[meta, subscriptions, reserved, wills, bound, gone, kept],
			[epoch, time(nowMs), "keep", "expired"],
		);
		const [outcome, ended, left] = reply as [number, number, Buffer[]];
		if (outcome < 0) {
			await this.#postpone("expiries", ticket, serverMs, -outcome - serverMs);
			return undefined;
		}
		if (left.length > 0 || ended > 0) await clean(clientId, left.map(decodeGone), ended);
		await this.forgetExpiry(ticket);
		return outcome === 1 ? clientId : undefined;
	}

	/** Whether a will is still to be published. */
	async hasWill(id: string): Promise<boolean> {
		const { connection, keys } = this.#context;
		const { epoch, clientId } = decodeTicket(Buffer.from(id));
		return Number(await connection.send("HEXISTS", [keys.session(clientId).wills, epoch])) === 1;
	}

	/** A will was published. */
	async settleWill(id: string): Promise<void> {
		const { connection, keys } = this.#context;
		const { epoch, clientId } = decodeTicket(Buffer.from(id));
		await Promise.all([connection.send("HDEL", [keys.session(clientId).wills, epoch]), this.forgetWill(id)]);
	}
}

/** The number that a sorted set answers. */
export function scoreOf(reply: Buffer): number {
	const text = reply.toString("latin1");
	return text === "inf" ? Number.POSITIVE_INFINITY : Number(text);
}
