/**
 * What is left to do for a session whose connection is over: closing it, giving up its places in logs, and all of that again
 * when it could not be finished. Everything here may be repeated. Until it is done, the connection's ticket stays among those
 * of its replica (or among the expiries), where whoever comes after finds it.
 */

import type { CloseSession } from "../store.ts";
import { StoreError } from "../store.ts";
import type { Context } from "./context.ts";
import { settled } from "./context.ts";
import type { Deadlines } from "./deadlines.ts";
import type { Logs } from "./logs.ts";
import { decodeGone, decodeWill, encodeTicket, type Gone, type Ticket } from "./records.ts";
import { scripts } from "./scripts.ts";
import type { SharedLogs } from "./shared_logs.ts";

/** A connection that has ended, as far as it is known. */
export interface Ending extends Ticket {
	readonly will: CloseSession["will"];
	/** `undefined`: what the session says. */
	readonly expirySeconds: number | undefined;
	/** Delay of its will in seconds; 0 when it is not known, `undefined` without a will. */
	readonly willDelaySeconds?: number | undefined;
}

/** `0xffffffff` seconds never pass: a distance of time that ends behind every number of milliseconds. */
const NEVER_MS = 2 ** 53;
const NEVER_SECONDS = 0xffffffff;

export class Cleaning {
	readonly #context: Context;
	readonly #logs: Logs;
	readonly #shared: SharedLogs;
	readonly #deadlines: Deadlines;
	/** By ticket. */
	readonly #unfinished = new Map<string, Ending>();

	constructor(context: Context, logs: Logs, shared: SharedLogs, deadlines: Deadlines) {
		this.#context = context;
		this.#logs = logs;
		this.#shared = shared;
		this.#deadlines = deadlines;
	}

	/** Gives up places in logs, and forgets what was to be given up. */
	async clean(clientId: string, gone: readonly Gone[], endedSubscriptions: number): Promise<void> {
		const { connection, keys } = this.#context;
		const cleaned = gone.map(({ kind, name, log }) =>
			kind === "member" ? this.#logs.leave(log, { join: name, clientId }) : this.#shared.dropBound(log, name),
		);
		if (endedSubscriptions > 0) cleaned.push(this.count(-endedSubscriptions));
		await settled(cleaned);
		if (gone.length > 0) await connection.send("SREM", [keys.session(clientId).gone, ...gone.map(({ text }) => text)]);
	}

	/** Counts stored subscriptions. */
	async count(change: number): Promise<void> {
		const { connection, keys } = this.#context;
		if (change !== 0) await connection.run(scripts.subscriptionsCount, [keys.subscriptionCount], [change]);
	}

	/**
	 * Closes a session on behalf of the connection that had it. The first commands are sent before this returns.
	 * Rejects with `fenced` when it has another one by now.
	 */
	async close(ending: Ending, expirySeconds: number, nowMs: number): Promise<void> {
		const { connection, keys, time, replicaId } = this.#context;
		const { clientId, epoch, will, willDelaySeconds } = ending;
		const ticket = encodeTicket(ending);
		const expiryMs = expirySeconds === NEVER_SECONDS ? NEVER_MS : expirySeconds * 1000;
		const hasWill = will === "keep" && willDelaySeconds !== undefined;
		const sent: Promise<unknown>[] = [];
		// Announced first: whatever happens after that, somebody looks in time.
		if (hasWill || expirySeconds > 0) {
			const willMs = hasWill ? Math.min(willDelaySeconds * 1000, expiryMs) : undefined;
			sent.push(this.#deadlines.announce(ticket, nowMs, willMs, expirySeconds > 0 ? expiryMs : undefined));
		}
		const { meta, subscriptions, reserved, wills, bound, gone, kept } = keys.session(clientId);
		let ended: Promise<unknown> | undefined;
		if (expirySeconds > 0) {
			sent.push(connection.run(scripts.sessionClose, [meta, wills], [epoch, time(nowMs), expirySeconds, expiryMs, will]));
		} else {
			ended = connection.run(
				scripts.sessionEnd,
				[meta, subscriptions, reserved, wills, bound, gone, kept],
				[epoch, time(nowMs), will, "connected"],
			);
			sent.push(ended);
		}
		try {
			await settled(sent);
			if (ended !== undefined) {
				const [, count, left] = (await ended) as [number, number, Buffer[]];
				if (left.length > 0 || count > 0) await this.clean(clientId, left.map(decodeGone), count);
			}
			await connection.send("SREM", [keys.owned(replicaId), ticket]);
		} catch (error) {
			if (error instanceof StoreError && error.code === "fenced") this.#deadlines.forgetExpiry(ticket).catch(this.#context.onError);
			else this.later(ending);
			throw error;
		}
	}

	/** It could not be finished: {@link retry} does it. */
	later(ending: Ending): void {
		this.#unfinished.set(encodeTicket(ending), ending);
	}

	/** Finishes what could not be finished before. */
	async retry(nowMs: number): Promise<void> {
		for (const [ticket, ending] of [...this.#unfinished]) {
			await this.finish(ending, this.#context.replicaId, nowMs);
			this.#unfinished.delete(ticket);
		}
	}

	/** Finishes with a connection, at whatever point it stopped, and takes its ticket from the replica that had it. */
	async finish(ending: Ending, replicaId: string, nowMs: number): Promise<void> {
		const { connection, keys } = this.#context;
		const { clientId, epoch } = ending;
		const { meta, wills, gone } = keys.session(clientId);
		const [token, expiry] = (await connection.send("HMGET", [meta, "token", "expiry"])) as (Buffer | null)[];
		if (token?.toString("latin1") === epoch) {
			try {
				await this.close({ willDelaySeconds: 0, ...ending }, ending.expirySeconds ?? Number(expiry), nowMs);
			} catch (error) {
				if (!(error instanceof StoreError && error.code === "fenced")) throw error;
			}
		}
		const left = (await connection.send("SMEMBERS", [gone])) as Buffer[];
		if (left.length > 0) await this.clean(clientId, left.map(decodeGone), 0);
		const armed = (await connection.send("HGETALL", [wills])) as Buffer[];
		for (let n = 0; n < armed.length; n += 2) {
			if (decodeWill(armed[n + 1] as Buffer).dueMs === 0) continue;
			const of = encodeTicket({ epoch: (armed[n] as Buffer).toString("latin1"), clientId });
			await this.#deadlines.announce(of, nowMs, 0, undefined);
		}
		await connection.send("SREM", [keys.owned(replicaId), encodeTicket(ending)]);
	}
}
