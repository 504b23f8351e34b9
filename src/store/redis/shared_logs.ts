/**
 * Share groups: who has taken which entry. The log of a group has one consumer group of Redis; its consumers are the replicas,
 * the sessions that entries are bound to, and `free`, which has what was given back.
 */

import type { LogEntry } from "../store.ts";
import type { Context } from "./context.ts";
import { settled } from "./context.ts";
import { isShared, type StreamEntry, seqOf, toEntry } from "./logs.ts";
import type { Routes } from "./routes.ts";
import { scripts } from "./scripts.ts";

/** Arguments of one script that are ids. */
const BATCH = 1000;

export class SharedLogs {
	readonly #context: Context;
	readonly #routes: Routes;
	readonly #consumer: string;
	/** What was taken and is not settled, returned or bound: log → sequence numbers. */
	readonly #held = new Map<string, Set<number>>();
	/** Logs with calls that failed: they may have been done, and entries may be this replica's that nobody here has. */
	readonly #doubtful = new Set<string>();
	/** Takes under way: the server has done them before this replica knows. */
	readonly #taking = new Set<Promise<unknown>>();
	readonly #recovering = new Map<string, Promise<void>>();
	/** Entries that may be bound though their session was told that they are not: log → id → consumer. */
	readonly #doubtfulBounds = new Map<string, Map<string, string>>();

	constructor(context: Context, routes: Routes) {
		this.#context = context;
		this.#routes = routes;
		this.#consumer = replicaConsumer(context.replicaId);
	}

	async take(log: string, limit: number): Promise<LogEntry[]> {
		if (this.#doubtful.has(log) || this.#recovering.has(log)) await this.#recover(log);
		const taking = this.#take(log, limit);
		this.#taking.add(taking);
		const over = () => this.#taking.delete(taking);
		taking.then(over, over);
		return this.#noteFailure(log, taking);
	}

	async #take(log: string, limit: number): Promise<LogEntry[]> {
		const { connection, keys } = this.#context;
		const reply = await connection.run(scripts.sharedTake, [keys.entries(log)], [this.#consumer, Math.min(limit, BATCH)]);
		const entries = (reply as StreamEntry[]).map((entry) => toEntry(log, entry));
		for (const { seq } of entries) this.#hold(log, seq);
		return entries;
	}

	settle(log: string, seqs: readonly number[]): Promise<void> {
		const { connection, keys } = this.#context;
		this.#letGo(log, seqs);
		const settling = batches(seqs).map((ids) => connection.run(scripts.sharedSettle, [keys.entries(log)], ids));
		return this.#noteFailure(log, settled(settling));
	}

	giveBack(log: string, seqs: readonly number[]): Promise<void> {
		this.#letGo(log, seqs);
		return this.#noteFailure(log, settled(batches(seqs).map((ids) => this.#move(log, this.#consumer, "free", ids))));
	}

	/** From now on the entry is that session's. */
	async bind(log: string, seq: number, incarnation: string): Promise<void> {
		this.#letGo(log, [seq]);
		const id = idOf(seq);
		const consumer = sessionConsumer(incarnation);
		try {
			await this.#noteFailure(log, this.#move(log, this.#consumer, consumer, [id]));
		} catch (error) {
			const bounds = this.#doubtfulBounds.get(log) ?? new Map<string, string>();
			this.#doubtfulBounds.set(log, bounds.set(id, consumer));
			throw error;
		}
	}

	/** The binding of an entry was refused, or nobody knows: it is not delivered, and goes back to the group. */
	notBound(log: string, seq: number): void {
		this.#letGo(log, [seq]);
		this.#doubtful.add(log);
	}

	#move(log: string, from: string, to: string, ids: readonly string[]): Promise<unknown> {
		const { connection, keys } = this.#context;
		return connection.run(scripts.sharedMove, [keys.entries(log)], [from, to, ...ids]);
	}

	#hold(log: string, seq: number): void {
		const held = this.#held.get(log);
		if (held === undefined) this.#held.set(log, new Set([seq]));
		else held.add(seq);
	}

	#letGo(log: string, seqs: readonly number[]): void {
		const held = this.#held.get(log);
		if (held === undefined) return;
		for (const seq of seqs) held.delete(seq);
		if (held.size === 0) this.#held.delete(log);
	}

	#noteFailure<T>(log: string, done: Promise<T>): Promise<T> {
		done.catch(() => this.#doubtful.add(log));
		return done;
	}

	/** Finds out what failed calls have done. */
	async recoverAll(): Promise<void> {
		for (const log of [...this.#doubtful]) await this.#recover(log);
	}

	/** Gives back what this replica has and nobody here knows of, so that somebody gets it. */
	#recover(log: string): Promise<void> {
		const known = this.#recovering.get(log);
		if (known !== undefined) return known;
		this.#doubtful.delete(log);
		const over = () => this.#recovering.delete(log);
		const recovering = this.#noteFailure(log, this.#giveBackUnknown(log));
		this.#recovering.set(log, recovering);
		recovering.then(over, over);
		return recovering;
	}

	async #giveBackUnknown(log: string): Promise<void> {
		const { connection, keys } = this.#context;
		const bounds = this.#doubtfulBounds.get(log) ?? new Map<string, string>();
		for (const [id, consumer] of bounds) {
			await this.#move(log, consumer, "free", [id]);
			bounds.delete(id);
		}
		const taking = [...this.#taking];
		const pending = (await connection.run(scripts.sharedPending, [keys.entries(log)], [this.#consumer])) as Buffer[];
		await Promise.allSettled(taking);
		const held = this.#held.get(log);
		const unknown = pending.filter((id) => held?.has(seqOf(id)) !== true).map(String);
		for (let at = 0; at < unknown.length; at += BATCH) await this.#move(log, this.#consumer, "free", unknown.slice(at, at + BATCH));
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

function idOf(seq: number): string {
	return `0-${seq}`;
}

function batches(seqs: readonly number[]): string[][] {
	const ids = seqs.map(idOf);
	const all: string[][] = [];
	for (let at = 0; at < ids.length; at += BATCH) all.push(ids.slice(at, at + BATCH));
	return all;
}
