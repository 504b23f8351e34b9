/**
 * The rules that operators manage in the store, in the order of their positions. The same list in every replica; a change counts
 * everywhere within two seconds. A rule that cannot be read denies everything in its place, since it may have been a denial.
 */

import { z } from "zod";
import type { Logger } from "../log.ts";
import type { RuleSource } from "./authorizer.ts";
import type { Rule } from "./grants.ts";
import { type ManagedRecord, type ManagedRecords, Mirror } from "./managed.ts";
import { ruleSchema } from "./rule_schema.ts";

/** A rule and its place. */
export interface StoredRule {
	readonly id: string;
	/** Lower ones come first; those of one position in the order of their ids. */
	readonly position: number;
	readonly rule: Rule;
}

export interface StoredRulesOptions {
	readonly records: ManagedRecords;
	readonly log: Logger;
}

const KIND = "rule";
const MAX_RULES = 10_000;
const DENY_ALL: Rule = { permission: "deny", action: "all", topics: ["#", "$SYS/#"] };

const valueSchema = z.object({ position: z.number(), rule: ruleSchema });

/** A list of rules in the store. Until it is loaded everything is denied. */
export class StoredRules implements RuleSource {
	readonly #mirror: Mirror<StoredRule>;
	readonly #listeners = new Set<() => void>();
	#rules: readonly Rule[] = [DENY_ALL];
	#changed = true;

	constructor({ records, log }: StoredRulesOptions) {
		this.#mirror = new Mirror<StoredRule>({
			records,
			kind: KIND,
			read: (record) => read(record, log),
			onChange: (_key, after, before) => {
				this.#changed ||= JSON.stringify(after) !== JSON.stringify(before);
			},
			onSettled: () => this.#settled(),
			maxEntries: MAX_RULES,
			log,
		});
	}

	/** Loads the rules and follows their changes. The store is open by then. Rejects when it cannot be read. */
	start(): Promise<void> {
		return this.#mirror.start();
	}

	/** Stops following. */
	close(): void {
		this.#mirror.close();
		this.#listeners.clear();
	}

	get rules(): readonly Rule[] {
		return this.#rules;
	}

	onChange(listener: () => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	/** All rules, in their order. */
	list(): readonly StoredRule[] {
		return [...this.#mirror.entries.values()].sort((a, b) => a.position - b.position || (a.id < b.id ? -1 : 1));
	}

	get(id: string): StoredRule | undefined {
		return this.#mirror.entries.get(id);
	}

	/**
	 * Stores a rule, in the place of one with its id.
	 * @param position Where it belongs; without it, where it was, or else behind all others.
	 * @throws {TooManyRecords} beyond 10,000 rules
	 */
	async put(id: string, rule: Rule, position?: number): Promise<StoredRule> {
		const place = position ?? this.get(id)?.position ?? (this.list().at(-1)?.position ?? 0) + 1;
		await this.#mirror.put(id, { position: place, rule });
		return { id, position: place, rule };
	}

	/** Answers whether there was one. */
	delete(id: string): Promise<boolean> {
		return this.#mirror.delete(id);
	}

	#settled(): void {
		if (!this.#changed || !this.#mirror.loaded) return;
		this.#changed = false;
		this.#rules = this.list().map(({ rule }) => rule);
		for (const listener of this.#listeners) listener();
	}
}

function read({ key, value }: ManagedRecord, log: Logger): StoredRule {
	const result = valueSchema.safeParse(value);
	if (result.success) return { id: key, position: result.data.position, rule: result.data.rule };
	log.error("A stored rule cannot be read, and denies everything in its place until it is removed or put again", { id: key });
	const position = z.object({ position: z.number() }).safeParse(value);
	return { id: key, position: position.success ? position.data.position : Number.MIN_SAFE_INTEGER, rule: DENY_ALL };
}
