/**
 * The replicas: which ones live, by leases on the server's clock, and what becomes of the sessions of one that does not.
 * Knows tickets and leases; what is done for each session stands in `cleaning.ts`.
 */

import { StoreError } from "../store.ts";
import type { Cleaning } from "./cleaning.ts";
import type { Context } from "./context.ts";
import { decodeTicket } from "./records.ts";
import { scripts } from "./scripts.ts";
import type { SharedLogs } from "./shared_logs.ts";

/** Sessions finished at the same time. */
const AT_ONCE = 64;

export class Replicas {
	readonly #context: Context;
	readonly #cleaning: Cleaning;
	readonly #shared: SharedLogs;
	readonly #connectedSince: () => number;

	/** @param connectedSince When the connection to the server was made that is there now, by `performance.now()`; infinite while there is none. */
	constructor(context: Context, cleaning: Cleaning, shared: SharedLogs, connectedSince: () => number) {
		this.#context = context;
		this.#cleaning = cleaning;
		this.#shared = shared;
		this.#connectedSince = connectedSince;
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

	/** Renews the lease. False when others have taken this replica for dead. */
	renew(): Promise<boolean> {
		return this.#lease("renew");
	}

	async #lease(step: "join" | "renew" | "end", replicaId = this.#context.replicaId): Promise<boolean> {
		const { connection, keys, leaseMs } = this.#context;
		return Number(await connection.run(scripts.replicaLease, [keys.leases], [replicaId, leaseMs, step])) === 1;
	}

	/** Gives the lease up. What is still connected is for others to end. */
	async leave(): Promise<void> {
		const { connection, keys, replicaId } = this.#context;
		if (Number(await connection.send("SCARD", [keys.owned(replicaId)])) > 0) await connection.send("ZADD", [keys.leases, 0, replicaId]);
		else {
			await this.#shared.releaseAll(replicaId);
			await connection.send("ZREM", [keys.leases, replicaId]);
		}
	}

	/**
	 * Ends the sessions of replicas whose lease has lapsed: they become disconnected, their wills and expiries run from now.
	 * Does nothing before this replica has itself been connected for a whole lease: after an outage of the server all leases
	 * have lapsed, and those who live must have the time to say so.
	 */
	async reapDead(nowMs: number): Promise<void> {
		const { connection, keys, clock, replicaId, leaseMs } = this.#context;
		if (performance.now() - this.#connectedSince() < leaseMs) return;
		const serverMs = Math.floor((await clock.synchronise()) / 1000);
		const dead = (await connection.send("ZRANGE", [keys.leases, "-inf", serverMs, "BYSCORE"])) as Buffer[];
		for (const id of dead.map(String)) {
			if (id === replicaId) continue;
			await this.#endAll(id, nowMs);
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
					.map((ticket) => this.#cleaning.finish({ ...decodeTicket(ticket), will: "keep", expirySeconds: undefined }, replicaId, nowMs)),
			);
		}
		await this.#shared.releaseAll(replicaId);
	}

	/** Tickets of all replicas: sessions that are connected. */
	async countConnected(): Promise<number> {
		const { connection, keys } = this.#context;
		const ids = (await connection.send("ZRANGE", [keys.leases, 0, -1])) as Buffer[];
		const counts = await Promise.all(ids.map((id) => connection.send("SCARD", [keys.owned(String(id))])));
		return counts.reduce<number>((sum, count) => sum + Number(count), 0);
	}
}
