/**
 * The replicas: which ones live, by leases on the server's clock, and what becomes of the sessions of one that does not.
 * Knows tickets and leases; what is done for each session stands in `cleaning.ts`.
 */

import { StoreError } from "../store.ts";
import type { Cleaning } from "./cleaning.ts";
import type { Context } from "./context.ts";
import { type Deadlines, scoreOf } from "./deadlines.ts";
import { READS } from "./format.ts";
import type { Logs } from "./logs.ts";
import { decodeTicket } from "./records.ts";
import { scripts } from "./scripts.ts";
import type { SharedLogs } from "./shared_logs.ts";

/** Sessions finished at the same time. */
const AT_ONCE = 64;

/** The parts that replicas need. */
export interface ReplicaParts {
	readonly cleaning: Cleaning;
	readonly shared: SharedLogs;
	readonly deadlines: Deadlines;
	readonly logs: Logs;
	/** When the connection to the server was made that is there now, by `performance.now()`; infinite while there is none. */
	connectedSince(): number;
	/** Others have taken this replica for dead: the lease is to be renewed now. */
	onEnded(): void;
}

export class Replicas {
	/** Replicas with a lease, this one included, when that was asked last. */
	count = 0;
	readonly #context: Context;
	readonly #parts: ReplicaParts;
	/** When the first lease of another lapses unless it is renewed, by the server's clock. */
	#nextLapse = 0;
	/** Others have taken this replica for dead, and nobody here was told yet. */
	#wasEnded = false;
	/** When the server said so, by `performance.now()`. */
	#lookedAt = Number.NEGATIVE_INFINITY;

	constructor(context: Context, parts: ReplicaParts) {
		this.#context = context;
		this.#parts = parts;
	}

	/** Throws `StoreError` `newerVersion` when there is data that this version cannot read. */
	async checkFormat(): Promise<void> {
		const { connection, keys, format } = this.#context;
		format.heard(Number((await connection.send("GET", [keys.format])) ?? 1));
	}

	/** Takes the lease, and ends what an earlier process of the same name has left. */
	async join(nowMs: number): Promise<void> {
		const { replicaId, leaseMs } = this.#context;
		if (!(await this.#lease("join"))) {
			throw new StoreError(
				"unavailable",
				`Cannot start as replica "${replicaId}": one of that name is alive. Give each its own REPLICA_ID, or wait ${leaseMs / 1000} s after a crash`,
			);
		}
		await this.#endAll(replicaId, nowMs);
	}

	/**
	 * Renews the lease, and learns the server's time and when there is something to do. False when others have taken this replica for dead.
	 * Rejects with `newerVersion` when they write what this version cannot read by now.
	 */
	async renew(): Promise<boolean> {
		const kept = (await this.#lease("renew")) && !this.#wasEnded;
		this.#wasEnded = false;
		return kept;
	}

	async #lease(step: "join" | "renew" | "end", replicaId = this.#context.replicaId): Promise<boolean> {
		const { connection, keys, leaseMs, clock, format, roundTrip } = this.#context;
		const answered = this.#parts.deadlines.next.ask();
		const askedAt = performance.now();
		const reply = await connection.run(
			scripts.replicaLease,
			[keys.leases, keys.wills, keys.expiries, keys.format, keys.reads],
			[replicaId, leaseMs, step, READS, format.writes],
		);
		const [outcome, time, lapse, deadline, written, leases] = reply as [number, Buffer, Buffer, Buffer, number, number];
		roundTrip.observe((performance.now() - askedAt) / 1000);
		this.count = leases;
		format.heard(written);
		clock.set(Number(time.toString("latin1")), askedAt);
		if (step !== "end") this.#nextLapse = scoreOf(lapse);
		this.#lookedAt = performance.now();
		answered(scoreOf(deadline));
		return outcome === 1;
	}

	/** Gives the lease up. What is still connected is for others to end. */
	async leave(): Promise<void> {
		const { connection, keys, replicaId } = this.#context;
		const left = Number(await connection.send("SCARD", [keys.owned(replicaId)]));
		if (left === 0) await this.#parts.shared.releaseAll(replicaId);
		await connection.send("ZADD", [keys.leases, 0, replicaId]);
		if (left === 0) await this.#lease("end");
	}

	/**
	 * Ends the sessions of replicas whose lease has lapsed: they become disconnected, their wills and expiries run from now.
	 * Does nothing before this replica has itself been connected for a whole lease: after an outage of the server all leases
	 * have lapsed, and those who live must have the time to say so.
	 */
	async reapDead(nowMs: number): Promise<void> {
		const { connection, keys, clock, replicaId, leaseMs, lookMs, onDead } = this.#context;
		if (performance.now() - this.#parts.connectedSince() < leaseMs) return;
		if (clock.nowMs() < this.#nextLapse && performance.now() - this.#lookedAt < lookMs) return;
		if (!(await this.#lease("renew"))) {
			// It was paused itself, and has a lease again: whoever renews it next is to know that there was none.
			this.#wasEnded = true;
			this.#parts.onEnded();
			return;
		}
		const serverMs = Math.floor(clock.nowMs());
		const dead = (await connection.send("ZRANGE", [keys.leases, "-inf", serverMs, "BYSCORE"])) as Buffer[];
		for (const id of dead.map(String)) {
			if (id === replicaId) continue;
			await this.#endAll(id, nowMs);
			await onDead(id);
			await this.#lease("end", id);
		}
	}

	async #endAll(replicaId: string, nowMs: number): Promise<void> {
		const { connection, keys } = this.#context;
		const tickets = (await connection.send("SMEMBERS", [keys.owned(replicaId)])) as Buffer[];
		for (let at = 0; at < tickets.length; at += AT_ONCE) {
			await Promise.all(
				tickets
					.slice(at, at + AT_ONCE)
					.map((ticket) =>
						this.#parts.cleaning.finish({ ...decodeTicket(ticket), will: "keep", expirySeconds: undefined }, replicaId, nowMs),
					),
			);
		}
		if (tickets.length > 0) this.#parts.logs.auditAll();
		await this.#parts.shared.releaseAll(replicaId);
	}

	/** Tickets of all replicas: sessions that are connected. */
	async countConnected(): Promise<number> {
		const { connection, keys } = this.#context;
		const ids = (await connection.send("ZRANGE", [keys.leases, 0, -1])) as Buffer[];
		const counts = await Promise.all(ids.map((id) => connection.send("SCARD", [keys.owned(String(id))])));
		return counts.reduce<number>((sum, count) => sum + Number(count), 0);
	}
}
