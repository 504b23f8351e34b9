/**
 * Retained messages: one per topic, found by filter. Knows topics in the binary order of their UTF-8, in which a filter is
 * a walk with jumps: a page costs about what it answers, and never more than some thousand topics.
 */

import type { StatementSync } from "node:sqlite";
import type { Message } from "../../mqtt/message.ts";
import { retainedScan, scanStart } from "../../mqtt/topic.ts";
import { decodeMessage, encodeMessage } from "../message_record.ts";
import { type RetainedPage, StoreError } from "../store.ts";
import type { Context } from "./context.ts";
import { Query } from "./database.ts";

/** Topics that one page looks at, matching or not. */
const MAX_EXAMINED = 8192;
const SMALLEST_FETCH = 4;
const LARGEST_FETCH = 256;
/** Expired messages that one sweep removes. */
const EXPIRE_BATCH = 1000;

export class Retained {
	readonly #context: Context;
	readonly #max: number;
	readonly #from: Query<[topic: string, id: number]>;
	readonly #after: Query<[topic: string, id: number]>;
	readonly #byId: Query<[expiresAt: number | null, message: Uint8Array]>;
	readonly #exists: Query<[id: number]>;
	readonly #update: StatementSync;
	readonly #insert: StatementSync;
	readonly #delete: StatementSync;
	readonly #anyExpired: Query<[id: number]>;
	readonly #deleteExpired: StatementSync;
	#written = false;

	constructor(context: Context, max: number) {
		const { db } = context;
		this.#context = context;
		this.#max = max;
		this.#from = new Query(db, "SELECT topic, id FROM retained WHERE topic >= ? ORDER BY topic LIMIT ?");
		this.#after = new Query(db, "SELECT topic, id FROM retained WHERE topic > ? ORDER BY topic LIMIT ?");
		this.#byId = new Query(db, "SELECT expires_at, message FROM retained WHERE id = ?");
		this.#exists = new Query(db, "SELECT id FROM retained WHERE topic = ?");
		this.#update = db.prepare("UPDATE retained SET expires_at = ?, message = ? WHERE topic = ?");
		this.#insert = db.prepare("INSERT INTO retained (expires_at, message, topic) VALUES (?, ?, ?)");
		this.#delete = db.prepare("DELETE FROM retained WHERE topic = ?");
		this.#anyExpired = new Query(db, "SELECT id FROM retained WHERE expires_at <= ? LIMIT 1");
		this.#deleteExpired = db.prepare(
			`DELETE FROM retained WHERE id IN (SELECT id FROM retained WHERE expires_at <= ? LIMIT ${EXPIRE_BATCH})`,
		);
		context.counts.retained = new Query<[number]>(db, "SELECT count(*) FROM retained").get()?.[0] ?? 0;
	}

	/** Whether something is written that is not committed yet. */
	get isUncommitted(): boolean {
		return this.#written;
	}

	/** Throws `StoreError` `full` if this would be one topic too many. */
	refuseSurplus(message: Message): void {
		if (this.#context.counts.retained < this.#max || message.payload.length === 0) return;
		if (this.#exists.get(message.topic.name) !== undefined) return;
		throw new StoreError(
			"full",
			`Cannot retain a message for "${message.topic.name}": ${this.#max} topics have one, which is the limit. Remove some or raise it`,
		);
	}

	/** In an open group. */
	set(message: Message): void {
		this.#written = true;
		const { counts } = this.#context;
		const topic = message.topic.name;
		if (message.payload.length === 0) {
			counts.retained -= Number(this.#delete.run(topic).changes); // [MQTT-3.3.1-6]
			return;
		}
		const expiresAt = message.expiresAtMs === Number.POSITIVE_INFINITY ? null : message.expiresAtMs;
		const record = encodeMessage(message);
		if (Number(this.#update.run(expiresAt, record, topic).changes) > 0) return;
		this.#insert.run(expiresAt, record, topic);
		counts.retained++;
	}

	page(filter: string, after: string | undefined, limit: number, nowMs: number): RetainedPage {
		const messages: Message[] = [];
		let from = after ?? scanStart(filter);
		let query = after === undefined ? this.#from : this.#after;
		let fetch = SMALLEST_FETCH;
		for (let examined = 0; ; ) {
			const rows = query.all(from, fetch);
			let seek: string | undefined;
			for (const [topic, id] of rows) {
				const step = retainedScan(filter, topic);
				const message = step.matches ? this.#live(id, nowMs) : undefined;
				if (message !== undefined) messages.push(message);
				if (step.done) return { messages, next: undefined };
				if (messages.length >= limit || ++examined >= MAX_EXAMINED) return { messages, next: topic };
				from = topic;
				seek = step.seek;
				if (seek !== undefined) break;
			}
			if (seek !== undefined) {
				from = seek;
				query = this.#from;
				fetch = SMALLEST_FETCH;
				continue;
			}
			if (rows.length < fetch) return { messages, next: undefined };
			query = this.#after;
			fetch = Math.min(fetch * 4, LARGEST_FETCH);
		}
	}

	/** Removes some of what has expired. Begins a group if there is something. */
	expire(nowMs: number): void {
		if (this.#anyExpired.get(nowMs) === undefined) return;
		this.#context.group.begin();
		this.#written = true;
		this.#context.counts.retained -= Number(this.#deleteExpired.run(nowMs).changes);
	}

	groupEnded(): void {
		this.#written = false;
	}

	#live(id: number, nowMs: number): Message | undefined {
		const row = this.#byId.get(id);
		if (row === undefined || (row[0] !== null && row[0] <= nowMs)) return undefined;
		return decodeMessage(row[1]);
	}
}
