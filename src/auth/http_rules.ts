/**
 * Asks a web service what the rules left undecided. It is asked once for the same question at a time, its answers are kept for
 * a while, and when it cannot be asked the answer is no.
 */

import { z } from "zod";
import { type Clock, systemClock } from "../clock.ts";
import { type Logger, log } from "../log.ts";
import type { Access, Principal } from "./auth.ts";
import type { AccessHook } from "./authorizer.ts";
import { checkedUrl, type Fetch, requestJson } from "./http_client.ts";
import { makeRoom } from "./make_room.ts";
import { Unavailable } from "./member.ts";
import type { Verdict } from "./rules.ts";

/** How the service is asked. */
export interface HttpRulesOptions {
	/** https, or http to the loopback interface. */
	readonly url: string;
	/** Sent along, such as `authorization` for the service to know the broker. */
	readonly headers?: Readonly<Record<string, string>>;
	/** 3,000 by default. */
	readonly timeoutMs?: number;
	/** How long an answer counts that says nothing of it; 10 by default, 0 asks every time. */
	readonly cacheSeconds?: number;
	/** Answers kept; 10,000 by default. */
	readonly maxCached?: number;
	/** Questions open at a time, above which the answer is no; 256 by default. */
	readonly maxPending?: number;
	readonly fetch?: Fetch;
	readonly clock?: Clock;
	readonly log?: Logger;
}

const MAX_BYTES = 65_536;

const answerSchema = z.object({
	/** `ignore` leaves it to the default decision. */
	result: z.enum(["allow", "deny", "ignore"]),
	/** How long this answer counts. */
	cacheSeconds: z.number().int().min(0).max(86_400).optional(),
});

interface Kept {
	readonly verdict: Verdict;
	readonly untilMs: number;
}

/** A hook that POSTs `{ action, topic | filter, qos, retain, clientId, … }` and reads `{ result: "allow" | "deny" | "ignore" }`. */
export class HttpRules implements AccessHook {
	readonly #url: URL;
	readonly #headers: Readonly<Record<string, string>>;
	readonly #timeoutMs: number;
	readonly #cacheMs: number;
	readonly #maxCached: number;
	readonly #maxPending: number;
	readonly #fetch: Fetch;
	readonly #clock: Clock;
	readonly #log: Logger;
	readonly #listeners = new Set<() => void>();
	/** A short name for each principal: one that authenticated again has none of the old answers. */
	#numbers = new WeakMap<Principal, number>();
	#lastNumber = 0;
	/** The oldest first. */
	readonly #kept = new Map<string, Kept>();
	readonly #pending = new Map<string, Promise<Verdict>>();
	#failing = false;

	/** @throws {TypeError} when the URL is none that may be asked */
	constructor(options: HttpRulesOptions) {
		this.#url = checkedUrl(options.url, "The address of the rules service");
		this.#headers = { ...options.headers, "content-type": "application/json" };
		this.#timeoutMs = options.timeoutMs ?? 3000;
		this.#cacheMs = (options.cacheSeconds ?? 10) * 1000;
		this.#maxCached = options.maxCached ?? 10_000;
		this.#maxPending = options.maxPending ?? 256;
		this.#fetch = options.fetch ?? fetch;
		this.#clock = options.clock ?? systemClock;
		this.#log = options.log ?? log("rules");
	}

	decide(principal: Principal, clientId: string, access: Access): Verdict | Promise<Verdict> {
		const key = this.#keyOf(principal, clientId, access);
		const kept = this.#kept.get(key);
		if (kept !== undefined && kept.untilMs > this.#clock.nowMs()) return kept.verdict;
		const pending = this.#pending.get(key);
		if (pending !== undefined) return pending;
		if (this.#pending.size >= this.#maxPending) throw new Unavailable(`${this.#pending.size} questions wait for ${this.#url.host}`);
		const asked = this.#ask(key, questionOf(principal, clientId, access)).finally(() => {
			if (this.#pending.get(key) === asked) this.#pending.delete(key);
		});
		this.#pending.set(key, asked);
		return asked;
	}

	/** Rights have changed: no answer that was given so far counts any more, and what is live is judged again. */
	forget(): void {
		this.#numbers = new WeakMap();
		this.#kept.clear();
		for (const listener of this.#listeners) listener();
	}

	onChange(listener: () => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	/** MQTT strings have no U+0000, so two different questions have different keys. */
	#keyOf(principal: Principal, clientId: string, access: Access): string {
		let number = this.#numbers.get(principal);
		if (number === undefined) {
			number = ++this.#lastNumber;
			this.#numbers.set(principal, number);
		}
		if (access.action === "subscribe") return `${number}s${access.qos}${clientId}\0${access.filter}`;
		return `${number}${access.retain ? "r" : "p"}${access.qos}${clientId}\0${access.topic}`;
	}

	async #ask(key: string, body: string): Promise<Verdict> {
		const answer = await this.#answer(body);
		const verdict = answer.result === "ignore" ? undefined : answer.result;
		const cacheMs = answer.cacheSeconds === undefined ? this.#cacheMs : answer.cacheSeconds * 1000;
		if (cacheMs > 0) this.#keep(key, { verdict, untilMs: this.#clock.nowMs() + cacheMs });
		return verdict;
	}

	/** Says once that the service fails, and once that it works again: not for every question. */
	async #answer(body: string): Promise<z.infer<typeof answerSchema>> {
		try {
			const limits = { timeoutMs: this.#timeoutMs, maxBytes: MAX_BYTES };
			const json = await requestJson(this.#fetch, this.#url, { method: "POST", headers: this.#headers, body }, limits);
			const answer = answerSchema.safeParse(json);
			if (!answer.success) throw new Unavailable(`${this.#url.host} answered something else than a decision`);
			if (this.#failing) this.#log.info("The rules service answers again");
			this.#failing = false;
			return answer.data;
		} catch (error) {
			if (!this.#failing) this.#log.error("The rules service fails, so what it should decide is refused", { error });
			this.#failing = true;
			throw error;
		}
	}

	#keep(key: string, kept: Kept): void {
		this.#kept.delete(key);
		makeRoom(this.#kept, this.#maxCached);
		this.#kept.set(key, kept);
	}
}

function questionOf({ name, method, username, tenant }: Principal, clientId: string, access: Access): string {
	return JSON.stringify({ ...access, clientId, name, method, username, tenant });
}
