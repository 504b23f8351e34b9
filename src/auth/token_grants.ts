/**
 * Reads rights from the claims of a token whose signature was checked. A claim that is there but cannot be understood is an
 * error, never "no rules": whoever wrote it meant to restrict.
 *
 * Four forms, which add up when a token has several, in this order:
 * - `acl`, a list of rules: `[{ "permission": "allow", "action": "publish", "topic": "a/${clientid}", "qos": [0, 1], "retain": false }]`
 * - `acl`, lists of topics: `{ "pub": ["a"], "sub": ["b/#"], "all": [] }`
 * - `scope` (words in a text) or `scp` (the same, or a list), as OAuth issuers write: `mqtt:pub:a/b`, `mqtt:sub:a/#`,
 *   `mqtt:all:a`. Where a topic needs a character that scopes cannot hold, such as a space, it is percent-encoded, and so is
 *   `%`. Words that do not begin with `mqtt:` are somebody else's.
 * - `topicAcl`, a topic or a list of topics to publish and subscribe to, as Cloudflare's Pub/Sub had it.
 */

import type { z } from "zod";
import type { Grants, Rule } from "./grants.ts";
import { parseTemplate, resolve } from "./placeholders.ts";
import { grantedRulesSchema, grantedTopicsSchema, problemsOf } from "./rule_schema.ts";

/** A claim about rights that cannot be used: the token is refused. The message names the claim and never quotes its value. */
export class TokenGrantsError extends Error {
	override readonly name = "TokenGrantsError";
}

/** How claims are read. */
export interface TokenGrantsOptions {
	/** Claim with rules or lists of topics; `acl` by default. */
	readonly aclClaim?: string;
	/** See {@link Grants.unmatched}; `deny` by default. */
	readonly unmatched?: Grants["unmatched"];
}

/** Rules and topics of one token together. */
const MAX_TOPICS = 256;
const MAX_CLAIM_LENGTH = 256;
const MAX_CLAIMS = 32;
const ACL_LISTS = { pub: "publish", sub: "subscribe", all: "all" } as const;
const SCOPE = /^mqtt:(pub|sub|all):(.+)$/s;

/**
 * The rights that claims grant; `undefined` when they say nothing about topics, so that only the configured rules count.
 * Client id, user name and tenant stay placeholders until a decision is made: the client id may still have to be assigned.
 * @throws {TokenGrantsError} when a claim about rights is malformed or over the limits
 */
export function grantsFromClaims(claims: Readonly<Record<string, unknown>>, options: TokenGrantsOptions = {}): Grants | undefined {
	const { aclClaim = "acl", unmatched = "deny" } = options;
	const parts = [aclRules(claims[aclClaim], aclClaim), scopeRules(claims), topicRules(claims.topicAcl)];
	const given = parts.filter((part) => part !== undefined);
	if (given.length === 0) return undefined;
	const rules = given.flat();
	const topics = rules.reduce((sum, rule) => sum + rule.topics.length, 0);
	if (topics > MAX_TOPICS) throw new TokenGrantsError(`Cannot use the rights of the token: ${topics} topics, ${MAX_TOPICS} is the limit`);
	return { rules, claims: claimsNamedBy(rules, claims), unmatched };
}

/** The claims that configured rules may name as `${claims.…}`: short texts, the first 32 of them. */
export function textClaims(claims: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> {
	const texts = Object.entries(claims).filter(
		(entry): entry is [string, string] => typeof entry[1] === "string" && entry[1].length <= MAX_CLAIM_LENGTH,
	);
	return Object.fromEntries(texts.slice(0, MAX_CLAIMS));
}

function aclRules(acl: unknown, claim: string): readonly Rule[] | undefined {
	if (acl === undefined) return undefined;
	if (Array.isArray(acl)) return parsed(grantedRulesSchema, acl, claim);
	if (typeof acl !== "object" || acl === null) throw malformed(claim, "expected a list of rules, or lists of topics");
	return Object.entries(acl).flatMap(([name, topics]) => {
		if (!isAclList(name)) throw malformed(claim, "expected no other lists than pub, sub and all");
		return allowed(ACL_LISTS[name], parsed(grantedTopicsSchema, topics, `${claim}.${name}`));
	});
}

function isAclList(name: string): name is keyof typeof ACL_LISTS {
	return Object.hasOwn(ACL_LISTS, name);
}

/** `undefined` when no scope is about MQTT. */
function scopeRules({ scope, scp }: Readonly<Record<string, unknown>>): readonly Rule[] | undefined {
	if (scope !== undefined && typeof scope !== "string") throw malformed("scope", "expected a text");
	const words = [...wordsOf(scope, "scope"), ...wordsOf(scp, "scp")].filter((word) => word.startsWith("mqtt:"));
	if (words.length === 0) return undefined;
	return words.map((word) => {
		const [, name = "", encoded = ""] = SCOPE.exec(word) ?? [];
		if (!isAclList(name)) throw malformed("scope", "expected mqtt:pub:, mqtt:sub: or mqtt:all: before a topic");
		return { permission: "allow", action: ACL_LISTS[name], topics: parsed(grantedTopicsSchema, [decoded(encoded)], "scope") };
	});
}

function wordsOf(value: unknown, claim: string): readonly string[] {
	if (value === undefined) return [];
	if (typeof value === "string") return value.split(" ");
	if (Array.isArray(value) && value.every((word) => typeof word === "string")) return value;
	throw malformed(claim, "expected a text or a list of texts");
}

function decoded(encoded: string): string {
	try {
		return decodeURIComponent(encoded);
	} catch (error) {
		throw malformed("scope", "a % is not followed by two hex digits of UTF-8", error);
	}
}

function topicRules(topicAcl: unknown): readonly Rule[] | undefined {
	if (topicAcl === undefined) return undefined;
	return allowed("all", parsed(grantedTopicsSchema, typeof topicAcl === "string" ? [topicAcl] : topicAcl, "topicAcl"));
}

function allowed(action: Rule["action"], topics: readonly string[]): readonly Rule[] {
	return topics.length === 0 ? [] : [{ permission: "allow", action, topics }];
}

function parsed<T>(schema: z.ZodType<T>, value: unknown, claim: string): T {
	const result = schema.safeParse(value);
	if (result.success) return result.data;
	const [first] = problemsOf(result.error);
	throw malformed([claim, ...(first?.path ?? [])].join("."), first?.problem ?? "it is not valid");
}

function malformed(claim: string, problem: string, cause?: unknown): TokenGrantsError {
	return new TokenGrantsError(`Cannot use the claim ${claim} of the token: ${problem}`, { cause });
}

/** Only what the rules name. A name without a usable value makes the token useless: it is refused now rather than at each decision. */
function claimsNamedBy(rules: readonly Rule[], claims: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> {
	const templates = rules.flatMap(({ topics }) => topics.map(parseTemplate));
	const names = new Set(templates.flatMap((template) => template.names).filter((name) => name.startsWith("claims.")));
	const found: Record<string, string> = {};
	for (const name of names) {
		const claim = name.slice("claims.".length);
		const value = Object.hasOwn(claims, claim) ? claims[claim] : undefined;
		if (typeof value !== "string") throw malformed(claim, "a topic needs it, and it is not a text");
		found[claim] = value;
	}
	// Whatever the other values will be, only the claims can be judged now.
	const identity = { clientId: "x", username: "x", tenant: "x", claims: found };
	for (const template of templates) {
		if (typeof resolve(template, identity) !== "string")
			throw malformed("acl", "a topic names a claim whose value cannot stand in a topic");
	}
	return found;
}
