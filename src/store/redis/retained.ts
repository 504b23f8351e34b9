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
import { scripts } from "./scripts.ts";

/** Topics that one page looks at, matching or not. */
const MAX_EXAMINED = 8192;
const SMALLEST_FETCH = 32;
const LARGEST_FETCH = 512;
/** Expired messages that one sweep removes. */
const EXPIRE_BATCH = 1000;
const TOKEN_SECONDS = 600;

export class Retained {
	readonly #context: Context;

	constructor(context: Context) {
		this.#context = context;
	}

	/** The record to store for a message, complete before the caller can change its bytes; empty to remove. */
	encode(message: Message): Buffer {
		if (message.payload.length === 0) return Buffer.alloc(0);
		const record = encodeMessage(message);
		return Buffer.from(record.buffer, record.byteOffset, record.byteLength);
	}

	/**
	 * Rejects with `StoreError` `full` if it would be one topic too many.
	 * @param token Makes a repetition with the same token change nothing.
	 */
	async set(message: Message, record: Buffer, token: string | undefined): Promise<void> {
		const { connection, keys, limits } = this.#context;
		const names = [keys.retained, keys.retainedIndex, keys.retainedExpiry];
		if (token !== undefined) names.push(keys.retainedBy(token));
		const expires = message.expiresAtMs === Number.POSITIVE_INFINITY ? "" : message.expiresAtMs;
		await connection.run(scripts.retainedSet, names, [message.topic.name, record, limits.maxRetained, expires, TOKEN_SECONDS]);
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
			const message = record === null ? undefined : decodeMessage(record);
			if (message !== undefined && message.expiresAtMs > nowMs) messages.push(message);
		}
	}

	/** Removes some of what has expired. */
	async expire(nowMs: number): Promise<void> {
		const { connection, keys, time } = this.#context;
		await connection.run(scripts.retainedExpire, [keys.retained, keys.retainedIndex, keys.retainedExpiry], [time(nowMs), EXPIRE_BATCH]);
	}

	async count(): Promise<number> {
		const { connection, keys } = this.#context;
		return Number(await connection.send("HLEN", [keys.retained]));
	}
}
