/**
 * Retained messages: one per topic, found by filter. Knows topics in the binary order of their UTF-8, which is that of a
 * lexical range: a filter is a walk with jumps, page by page, and never a scan of all.
 */

import type { Message } from "../../mqtt/message.ts";
import { retainedScan, scanStart } from "../../mqtt/topic.ts";
import { decodeText } from "../../mqtt/utf8.ts";
import { decodeMessage, encodeMessage } from "../message_record.ts";
import type { RetainedPage } from "../store.ts";
import type { Context } from "./context.ts";
import { NextDeadline, scoreOf } from "./deadlines.ts";
import { toLocalTime, toServerTime } from "./expiry.ts";
import { scripts } from "./scripts.ts";

/** Topics that one page looks at, matching or not. */
const MAX_EXAMINED = 8192;
const SMALLEST_FETCH = 32;
const LARGEST_FETCH = 512;
/** Expired messages that one sweep removes. */
const EXPIRE_BATCH = 1000;
/** What others have set is looked for so much less often than deadlines. */
const LOOKS_SKIPPED = 4;
const TOKEN_SECONDS = 600;
const REVISION_BYTES = 8;

export class Retained {
	readonly #context: Context;
	readonly #next: NextDeadline;

	constructor(context: Context) {
		this.#context = context;
		this.#next = new NextDeadline(LOOKS_SKIPPED * context.lookMs);
	}

	/** The record to store for a message, complete before the caller can change its bytes; empty to remove. */
	encode(message: Message): Buffer {
		if (message.payload.length === 0) return Buffer.alloc(0);
		const record = encodeMessage(toServerTime(message, this.#context), this.#context.format.writes);
		return Buffer.from(record.buffer, record.byteOffset, record.byteLength);
	}

	/**
	 * Answers the revision. Rejects with `StoreError` `full` if it would be one topic too many.
	 * @param token Makes a repetition with the same token change nothing.
	 */
	async set(message: Message, record: Buffer, token: string | undefined): Promise<number> {
		const { connection, keys, limits } = this.#context;
		const names = [keys.retained, keys.retainedIndex, keys.retainedExpiry, keys.retainedRevision];
		if (token !== undefined) names.push(keys.retainedBy(token));
		const { expiresAtMs } = toServerTime(message, this.#context);
		this.#next.make(expiresAtMs);
		const expires = expiresAtMs === Number.POSITIVE_INFINITY ? "" : expiresAtMs;
		const args = [message.topic.name, record, limits.maxRetained, expires, TOKEN_SECONDS];
		return Number(await connection.run(scripts.retainedSet, names, args));
	}

	/** The first command is sent before this returns. */
	async page(filter: string, after: string | undefined, limit: number, nowMs: number): Promise<RetainedPage> {
		const messages: Message[] = [];
		let from = after === undefined ? `[${scanStart(filter)}` : `(${after}`;
		let fetch = SMALLEST_FETCH;
		for (let examined = 0; ; ) {
			const topics = await this.#topics(from, fetch);
			const found: string[] = [];
			/** The walk is over at this topic, and whether more may come. */
			let end: { readonly next: string | undefined } | undefined;
			let seek: Buffer | undefined;
			let last = "";
			for (const bytes of topics) {
				if (seek !== undefined && Buffer.compare(bytes, seek) < 0) continue;
				last = decodeText(bytes, 0, bytes.length);
				const step = retainedScan(filter, last);
				seek = step.seek === undefined ? undefined : Buffer.from(step.seek);
				if (step.matches) found.push(last);
				if (step.done) end = { next: undefined };
				else if (messages.length + found.length >= limit || ++examined >= MAX_EXAMINED) end = { next: last };
				if (end !== undefined) break;
			}
			await this.#collect(found, nowMs, messages);
			// Expired ones leave room for what was not looked at yet.
			if (end?.next !== undefined && messages.length < limit && examined < MAX_EXAMINED) end = undefined;
			else if (end !== undefined) return { messages, next: end.next };
			else if (topics.length < fetch) return { messages, next: undefined };
			from = seek === undefined ? `(${last}` : `[${seek.toString()}`;
			fetch = Math.min(fetch * 4, LARGEST_FETCH);
		}
	}

	async #topics(from: string, count: number): Promise<Buffer[]> {
		const { connection, keys } = this.#context;
		const first = from === "[" ? "-" : from;
		return (await connection.send("ZRANGE", [keys.retainedIndex, first, "+", "BYLEX", "LIMIT", 0, count])) as Buffer[];
	}

	async #collect(topics: readonly string[], nowMs: number, messages: Message[]): Promise<void> {
		if (topics.length === 0) return;
		const { connection, keys } = this.#context;
		for (const record of (await connection.send("HMGET", [keys.retained, ...topics])) as (Buffer | null)[]) {
			const message = record === null ? undefined : toLocalTime(decodeRetained(record), this.#context);
			if (message !== undefined && message.expiresAtMs > nowMs) messages.push(message);
		}
	}

	/** Removes some of what has expired. Nobody is given that any more, so it need not be at once for what others have set. */
	async expire(nowMs: number): Promise<void> {
		const { connection, keys, time, serverMs } = this.#context;
		if (!this.#next.mayBeDue(serverMs(nowMs))) return;
		const answered = this.#next.ask();
		const first = await connection.run(
			scripts.retainedExpire,
			[keys.retained, keys.retainedIndex, keys.retainedExpiry],
			[time(nowMs), EXPIRE_BATCH],
		);
		answered(scoreOf(first as Buffer));
	}

	async count(): Promise<number> {
		const { connection, keys } = this.#context;
		return Number(await connection.send("HLEN", [keys.retained]));
	}
}

function decodeRetained(record: Buffer): Message {
	const end = record.length - REVISION_BYTES;
	return { ...decodeMessage(record.subarray(0, end)), revision: record.readDoubleLE(end) };
}
