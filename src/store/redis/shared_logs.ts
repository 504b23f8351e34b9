/**
 * Share groups: who has taken which entry. The log of a group has one consumer group of Redis; its consumers are the replicas,
 * the sessions that entries are bound to, and `free`, which has what was given back.
 */

import { isShared } from "../log_name.ts";
import { type LogEntry, StoreError } from "../store.ts";
import type { Context } from "./context.ts";
import { settled } from "./context.ts";
import { type StreamEntry, seqOf, toEntry } from "./logs.ts";
import type { Routes } from "./routes.ts";
import { scripts } from "./scripts.ts";

/** Arguments of one script that are ids. */
const BATCH = 1000;

export class SharedLogs {
	readonly #context: Context;
	readonly #routes: Routes;
	readonly #consumer: string;
	/** What was taken and is not settled, returned or surely bound: log → sequence numbers. */
	readonly #held = new Map<string, Set<number>>();
	/** Logs that entries were taken from over this connection. */
	#used = new Set<string>();
	/** Logs with calls that failed: they may have been done, and entries may be this replica's that nobody here has. */
	readonly #doubtful = new Set<string>();
	/** What members have finished with, and the server may not have heard of: log → ids. */
	readonly #unsettled = new Map<string, Set<string>>();
	/** Takes under way: the server has done them before this replica knows. */
	readonly #taking = new Set<Promise<unknown>>();
	readonly #recovering = new Map<string, Promise<void>>();
	/** Entries that may be bound, and whose binding nobody has been told of: log → id → consumer. */
	readonly #binding = new Map<string, Map<string, string>>();

	constructor(context: Context, routes: Routes) {
		this.#context = context;
		this.#routes = routes;
		this.#consumer = replicaConsumer(context.replicaId);
	}

	/** What is taken counts when the call is told: what was taken and is not known to be safe nobody has got. */
	take(log: string, limit: number): Promise<readonly LogEntry[]> {
		let taken: readonly LogEntry[] = [];
		const call = this.#context.calls.run<readonly LogEntry[]>({
			logs: async () => {
				taken = await this.#takeNow(log, limit);
				return taken;
			},
		});
		call.catch(() => {
			this.#letGo(
				log,
				taken.map(({ seq }) => seq),
			);
		});
		return this.#noteFailure(log, call);
	}

	async #takeNow(log: string, limit: number): Promise<LogEntry[]> {
		if (this.#doubtful.has(log) || this.#recovering.has(log)) await this.#recover(log);
		this.#used.add(log);
		const taking = this.#take(log, limit);
		this.#taking.add(taking);
		const over = () => this.#taking.delete(taking);
		taking.then(over, over);
		return taking;
	}

	async #take(log: string, limit: number): Promise<LogEntry[]> {
		const { connection, keys } = this.#context;
		const reply = await connection.run(scripts.sharedTake, [keys.entries(log)], [this.#consumer, Math.min(limit, BATCH)]);
		const entries = (reply as StreamEntry[]).map((entry) => toEntry(log, entry, this.#context));
		for (const { seq } of entries) this.#hold(log, seq);
		return entries;
	}

	settle(log: string, seqs: readonly number[]): Promise<void> {
		const call = this.#context.calls.run<void>({
			logs: () => {
				this.#letGo(log, seqs);
				return this.#settle(log, seqs.map(idOf));
			},
		});
		call.catch(() => {
			const unsettled = this.#unsettled.get(log) ?? new Set();
			this.#unsettled.set(log, unsettled);
			for (const seq of seqs) if (this.#held.get(log)?.has(seq) !== true) unsettled.add(idOf(seq));
		});
		return this.#noteFailure(log, call);
	}

	#settle(log: string, ids: readonly string[]): Promise<void> {
		const { connection, keys } = this.#context;
		return settled(batches(ids).map((some) => connection.run(scripts.sharedSettle, [keys.entries(log)], some)));
	}

	giveBack(log: string, seqs: readonly number[]): Promise<void> {
		return this.#noteFailure(
			log,
			this.#context.calls.run({
				logs: () => {
					const binding = this.#binding.get(log);
					const moves = batches(seqs.map(idOf)).map((ids) => this.#move(log, this.#consumer, "free", ids));
					for (const id of seqs.map(idOf)) {
						const consumer = binding?.get(id);
						if (consumer !== undefined) moves.push(this.#move(log, consumer, "free", [id]));
					}
					this.#letGo(log, seqs);
					return settled(moves);
				},
			}),
		);
	}

	/** The entry becomes that session's: call `bound` when that is sure. Until then it is this replica's, for who repeats the binding. */
	async bind(log: string, seq: number, incarnation: string): Promise<void> {
		// A repetition, of what is bound already or what the member has finished with by now.
		if (this.#held.get(log)?.has(seq) !== true) return;
		const id = idOf(seq);
		const consumer = sessionConsumer(incarnation);
		const binding = this.#binding.get(log) ?? new Map<string, string>();
		this.#binding.set(log, binding.set(id, consumer));
		const moved = await this.#move(log, this.#consumer, consumer, [id]);
		if (Number(moved) > 0 || (await this.#has(log, id, consumer))) return;
		throw new StoreError("fenced", "Cannot bind an entry: this replica was taken for dead, and others may have got it");
	}

	/**
	 * Whether the entry is bound to the session. One that its last replica was about to bind is from now on; with any other the
	 * replica was too late, and somebody else gets it.
	 */
	async keeps(log: string, seq: number, incarnation: string, lastReplica: string): Promise<boolean> {
		const id = idOf(seq);
		const consumer = sessionConsumer(incarnation);
		const moved = lastReplica === "" ? 0 : await this.#move(log, replicaConsumer(lastReplica), consumer, [id]);
		return Number(moved) > 0 || this.#has(log, id, consumer);
	}

	async #has(log: string, id: string, consumer: string): Promise<boolean> {
		const { connection, keys } = this.#context;
		const pending = (await connection.run(scripts.sharedPending, [keys.entries(log)], [consumer])) as Buffer[];
		return pending.some((each) => each.toString("latin1") === id);
	}

	/** The entry is the session's for sure. */
	bound(log: string, seq: number): void {
		this.#letGo(log, [seq]);
	}

	/** The session is not this replica's any more, and the entry was not bound: it goes back to the group. */
	notBound(log: string, seq: number): void {
		this.#letGo(log, [seq]);
		this.#doubtful.add(log);
	}

	#move(log: string, from: string, to: string, ids: readonly string[]): Promise<unknown> {
		const { connection, keys } = this.#context;
		return connection.run(scripts.sharedMove, [keys.entries(log)], [from, to, ...ids]);
	}

	#hold(log: string, seq: number): void {
		this.#unsettled.get(log)?.delete(idOf(seq));
		const held = this.#held.get(log);
		if (held === undefined) this.#held.set(log, new Set([seq]));
		else held.add(seq);
	}

	#letGo(log: string, seqs: readonly number[]): void {
		const binding = this.#binding.get(log);
		if (binding !== undefined) {
			for (const seq of seqs) binding.delete(idOf(seq));
			if (binding.size === 0) this.#binding.delete(log);
		}
		const held = this.#held.get(log);
		if (held === undefined) return;
		for (const seq of seqs) held.delete(seq);
		if (held.size === 0) this.#held.delete(log);
	}

	#noteFailure<T>(log: string, done: Promise<T>): Promise<T> {
		done.catch(() => this.#doubtful.add(log));
		return done;
	}

	/** The server may be another one now, which has not heard of all that was done. */
	doubtAll(): void {
		for (const log of this.#used) this.#doubtful.add(log);
		this.#used = new Set();
	}

	/** The server has lost some of what it was given: other entries may have the numbers of those. */
	wentBack(): void {
		this.#unsettled.clear();
		this.doubtAll();
	}

	/** Finds out what failed calls have done. */
	async recoverAll(): Promise<void> {
		for (const log of [...this.#doubtful]) await this.#recover(log);
	}

	/** Settles what could not be settled, and gives back what this replica has and nobody here knows of, so that somebody gets it. */
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
		const unsettled = this.#unsettled.get(log);
		if (unsettled !== undefined) {
			// Their members have had them, with QoS 2 too: they are nobody else's.
			const ids = [...unsettled];
			await this.#settle(log, ids);
			for (const id of ids) unsettled.delete(id);
			if (unsettled.size === 0) this.#unsettled.delete(log);
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
		for (const log of [...this.#routes.named()].filter(isShared)) await this.#end(log, replicaConsumer(replicaId), "return");
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

function batches(ids: readonly string[]): string[][] {
	const all: string[][] = [];
	for (let at = 0; at < ids.length; at += BATCH) all.push(ids.slice(at, at + BATCH));
	return all;
}
