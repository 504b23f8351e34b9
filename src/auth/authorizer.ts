/**
 * Decides what a client may do, from its own grants, the configured rules and a hook:
 *
 * 1. a denial by its grants or by the configured rules is final;
 * 2. a client with grants may do what they allow, and, unless they leave the rest to the rules, nothing else;
 * 3. for everybody else the configured rules decide;
 * 4. what is still undecided the hook decides, and else the default. A hook that fails has not said yes.
 *
 * A list of rules therefore needs no "deny everything" at its end, and would with one forbid what tokens grant.
 */

import { clientIdOf } from "../mqtt/tenancy.ts";
import type { Access, Authorizer, Principal } from "./auth.ts";
import type { Rule } from "./grants.ts";
import { makeRoom } from "./make_room.ts";
import { type BoundRules, RuleSet, type Subject, type Verdict } from "./rules.ts";

/** Rules that may change. `RuleFile` is one. */
export interface RuleSource {
	/** The rules as they are now: another array after a change. */
	readonly rules: readonly Rule[];
	/** Calls the listener after each change, until the answered function is called. */
	onChange(listener: () => void): () => void;
}

/** Decides what rules left undecided. A rejection counts as no. */
export interface AccessHook {
	decide(principal: Principal, clientId: string, access: Access): Verdict | Promise<Verdict>;
	/** Calls the listener when earlier decisions may have become wrong, until the answered function is called. */
	onChange(listener: () => void): () => void;
}

/** What {@link createAuthorizer} is made of. */
export interface AuthorizerOptions {
	/** Configured rules, one list after the other; none by default. */
	readonly sources?: readonly RuleSource[];
	readonly hook?: AccessHook;
	/** For what nobody decided; `deny` by default. */
	readonly defaultDecision?: "allow" | "deny";
}

/** An authorizer that follows its sources until it is closed. */
export interface RuleAuthorizer extends Authorizer {
	readonly generation: number;
	admits(principal: Principal, clientId: string): boolean;
	onChange(listener: () => void): () => void;
	/** Stops following the sources, which it does not close. */
	close(): void;
}

/** Clients whose bound rules are kept: a kilobyte or two each, made again within microseconds. */
const MAX_BOUND = 4096;
const NO_RULES: readonly RuleSource[] = [];

interface Bound {
	readonly principal: Principal;
	readonly grants: BoundRules | undefined;
	readonly rules: BoundRules;
}

/**
 * An authorizer by rules.
 * @throws {RangeError} when a rule of a source is not valid
 */
export function createAuthorizer(options: AuthorizerOptions): RuleAuthorizer {
	return new Rights(options);
}

class Rights implements RuleAuthorizer {
	readonly volatile: boolean;
	readonly #sources: readonly RuleSource[];
	readonly #hook: AccessHook | undefined;
	readonly #fallback: boolean;
	readonly #listeners = new Set<() => void>();
	readonly #stops: readonly (() => void)[];
	/** By client id as the broker has it, the oldest first. */
	readonly #bound = new Map<string, Bound>();
	#rules: RuleSet;
	#generation = 0;

	constructor({ sources = NO_RULES, hook, defaultDecision = "deny" }: AuthorizerOptions) {
		this.#sources = sources;
		this.#hook = hook;
		this.#fallback = defaultDecision === "allow";
		this.volatile = hook !== undefined;
		this.#rules = this.#compile();
		this.#stops = [...sources, ...(hook === undefined ? [] : [hook])].map((source) => source.onChange(() => this.#changed()));
	}

	get generation(): number {
		return this.#generation;
	}

	permits(principal: Principal, clientId: string, access: Access): boolean | Promise<boolean> {
		const { grants, rules } = this.#boundTo(principal, clientId);
		const granted = grants === undefined ? undefined : judge(grants, access);
		if (granted === "deny") return false;
		const ruled = judge(rules, access);
		if (ruled === "deny") return false;
		if (granted === "allow") return true;
		if (principal.grants?.unmatched === "deny") return false;
		if (ruled === "allow") return true;
		return this.#hook === undefined ? this.#fallback : this.#ask(this.#hook, principal, clientId, access);
	}

	admits(principal: Principal, clientId: string): boolean {
		if (!this.#rules.admits(subjectOf(principal, clientId))) return false;
		const { grants } = principal;
		return grants === undefined || new RuleSet(grants.rules).admits(grantsSubject(principal, clientId));
	}

	onChange(listener: () => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	close(): void {
		for (const stop of this.#stops) stop();
		this.#listeners.clear();
	}

	/** A hook that cannot be asked is a rejection in either way, so that a CONNECT hears 0x88 rather than 0x87. */
	#ask(hook: AccessHook, principal: Principal, clientId: string, access: Access): boolean | Promise<boolean> {
		let verdict: Verdict | Promise<Verdict>;
		try {
			verdict = hook.decide(principal, clientId, access);
		} catch (error) {
			return Promise.reject(error);
		}
		return verdict instanceof Promise ? verdict.then((later) => this.#conclude(later)) : this.#conclude(verdict);
	}

	#conclude(verdict: Verdict): boolean {
		return verdict === undefined ? this.#fallback : verdict === "allow";
	}

	/** A client that authenticated again is another principal, and its old rules go. */
	#boundTo(principal: Principal, clientId: string): Bound {
		const key = clientIdOf(principal.tenant, clientId);
		const known = this.#bound.get(key);
		if (known?.principal === principal) return known;
		this.#bound.delete(key);
		makeRoom(this.#bound, MAX_BOUND);
		const { grants } = principal;
		const bound: Bound = {
			principal,
			grants: grants === undefined ? undefined : new RuleSet(grants.rules).bind(grantsSubject(principal, clientId)),
			rules: this.#rules.bind(subjectOf(principal, clientId)),
		};
		this.#bound.set(key, bound);
		return bound;
	}

	#compile(): RuleSet {
		return new RuleSet(this.#sources.flatMap((source) => source.rules));
	}

	#changed(): void {
		this.#rules = this.#compile();
		this.#bound.clear();
		this.#generation++;
		for (const listener of this.#listeners) listener();
	}
}

function judge(rules: BoundRules, access: Access): Verdict {
	return access.action === "publish" ? rules.publish(access.topic, access.qos, access.retain) : rules.subscribe(access.filter, access.qos);
}

function subjectOf({ username, tenant, claims, method }: Principal, clientId: string): Subject {
	return { clientId, username, tenant, claims, method };
}

/** The claims of a token's rules are its own. */
function grantsSubject(principal: Principal, clientId: string): Subject {
	return { ...subjectOf(principal, clientId), claims: principal.grants?.claims };
}
