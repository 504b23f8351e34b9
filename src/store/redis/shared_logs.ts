/**
 * Share groups: who has taken which entry. The log of a group has one consumer group of Redis; its consumers are the replicas,
 * the sessions that entries are bound to, and `free`, which has what was given back.
 */

import type { LogEntry } from "../store.ts";
import type { Context } from "./context.ts";
import { isShared, type StreamEntry, toEntry } from "./logs.ts";
import type { Routes } from "./routes.ts";
import { scripts } from "./scripts.ts";

/** Arguments of one script that are ids. */
const BATCH = 1000;

export class SharedLogs {
	readonly #context: Context;
	readonly #routes: Routes;
	readonly #consumer: string;

	constructor(context: Context, routes: Routes) {
		this.#context = context;
		this.#routes = routes;
		this.#consumer = replicaConsumer(context.replicaId);
	}

	async take(log: string, limit: number): Promise<LogEntry[]> {
		const { connection, keys } = this.#context;
		const reply = await connection.run(scripts.sharedTake, [keys.entries(log)], [this.#consumer, Math.min(limit, BATCH)]);
		return (reply as StreamEntry[]).map((entry) => toEntry(log, entry));
	}

	async settle(log: string, seqs: readonly number[]): Promise<void> {
		const { connection, keys } = this.#context;
		await Promise.all(batches(seqs).map((ids) => connection.run(scripts.sharedSettle, [keys.entries(log)], ids)));
	}

	async giveBack(log: string, seqs: readonly number[]): Promise<void> {
		const { connection, keys } = this.#context;
		await Promise.all(
			batches(seqs).map((ids) => connection.run(scripts.sharedMove, [keys.entries(log)], [this.#consumer, "free", ...ids])),
		);
	}

	/** From now on the entry is that session's. */
	async bind(log: string, seq: number, incarnation: string): Promise<void> {
		const { connection, keys } = this.#context;
		await connection.run(scripts.sharedMove, [keys.entries(log)], [this.#consumer, sessionConsumer(incarnation), `0-${seq}`]);
	}

	/** The session has ended: what is bound to it goes with it [MQTT-4.8.2-5]. */
	dropBound(log: string, incarnation: string): Promise<void> {
		return this.#end(log, sessionConsumer(incarnation), "drop");
	}

	/** The replica is dead: others may take what it had, in every group. */
	async releaseAll(replicaId: string): Promise<void> {
		for (const log of [...this.#routes.names()].filter(isShared)) await this.#end(log, replicaConsumer(replicaId), "return");
	}

	async #end(log: string, consumer: string, fate: "drop" | "return"): Promise<void> {
		const { connection, keys } = this.#context;
		while (Number(await connection.run(scripts.sharedEnd, [keys.entries(log)], [consumer, fate, BATCH])) > 0);
	}
}

function replicaConsumer(replicaId: string): string {
	return `replica:${replicaId}`;
}

function sessionConsumer(incarnation: string): string {
	return `session:${incarnation}`;
}

function batches(seqs: readonly number[]): string[][] {
	const ids = seqs.map((seq) => `0-${seq}`);
	const all: string[][] = [];
	for (let at = 0; at < ids.length; at += BATCH) all.push(ids.slice(at, at + BATCH));
	return all;
}
