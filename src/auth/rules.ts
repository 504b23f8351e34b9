/**
 * Judges by a list of rules: the first that matches decides. A list is compiled once, and bound to a client when that first
 * asks: what is left then are plain filters. Knows no file, no token and no network.
 *
 * A rule whose placeholder has no usable value fails closed: allow grants nothing, deny denies all of its actions.
 */

import type { QoS } from "../mqtt/packet.ts";
import { matches } from "../mqtt/topic.ts";
import { contains, overlaps } from "./containment.ts";
import type { Rule } from "./grants.ts";
import { type Identity, parseTemplate, resolve, type Template } from "./placeholders.ts";

/** Whom rules are bound to. */
export interface Subject extends Identity {
	readonly method: string;
}

/** `undefined` when no rule matched. */
export type Verdict = "allow" | "deny" | undefined;

interface CompiledRule {
	readonly allow: boolean;
	readonly publish: boolean;
	readonly subscribe: boolean;
	readonly qosBits: number;
	readonly retain: boolean | undefined;
	readonly templates: readonly Template[];
	readonly conditions: readonly ((subject: Subject) => boolean)[];
	/** The same for everybody: without conditions and placeholders. */
	readonly shared: BoundRule | undefined;
}

/** A rule for one client. */
interface BoundRule {
	readonly allow: boolean;
	readonly qosBits: number;
	readonly retain: boolean | undefined;
	readonly filters: readonly string[];
	readonly literals: readonly string[];
	/** Instead of its filters: a denial that cannot be resolved. */
	readonly everything: boolean;
}

const ANY_QOS = 0b111;

/** Rules, checked and ready for any client. */
export class RuleSet {
	readonly #rules: readonly CompiledRule[];
	/** For everybody, where no rule depends on the client. */
	readonly #shared: BoundRules | undefined;

	/** @throws {RangeError} when a topic of a rule is no filter */
	constructor(rules: readonly Rule[]) {
		this.#rules = rules.map(compile);
		if (this.#rules.every(({ shared }) => shared !== undefined)) this.#shared = this.#bound(({ shared }) => shared);
	}

	/** The rules as they are for one client. Costs about a microsecond for tens of rules, so the answer is worth keeping. */
	bind(subject: Subject): BoundRules {
		return this.#shared ?? this.#bound((rule) => rule.shared ?? bindRule(rule, subject));
	}

	/** Whether every value that these rules would put into a topic for this client may stand there. */
	admits(subject: Subject): boolean {
		return this.#rules.every(
			({ templates, conditions }) => !concerns(conditions, subject) || templates.every((template) => !isUnfit(template, subject)),
		);
	}

	#bound(bind: (rule: CompiledRule) => BoundRule | undefined): BoundRules {
		const publish: BoundRule[] = [];
		const subscribe: BoundRule[] = [];
		for (const rule of this.#rules) {
			const bound = bind(rule);
			if (bound === undefined) continue;
			if (rule.publish) publish.push(bound);
			if (rule.subscribe) subscribe.push(bound);
		}
		return new BoundRules(publish, subscribe);
	}
}

/** The rules of one client. */
export class BoundRules {
	readonly #publish: readonly BoundRule[];
	readonly #subscribe: readonly BoundRule[];

	constructor(publish: readonly BoundRule[], subscribe: readonly BoundRule[]) {
		this.#publish = publish;
		this.#subscribe = subscribe;
	}

	/** Judges a publication to a topic. */
	publish(topic: string, qos: QoS, retain: boolean): Verdict {
		for (const rule of this.#publish) {
			if ((rule.qosBits & (1 << qos)) === 0 || (rule.retain !== undefined && rule.retain !== retain)) continue;
			if (rule.everything || matchesAny(rule, topic)) return rule.allow ? "allow" : "deny";
		}
		return undefined;
	}

	/**
	 * Judges a subscription to a filter without `$share`. It is allowed by a rule that covers all of it, and denied by one that
	 * covers any of it.
	 */
	subscribe(filter: string, qos: QoS): Verdict {
		for (const rule of this.#subscribe) {
			if ((rule.qosBits & (1 << qos)) === 0) continue;
			if (rule.everything || rule.literals.includes(filter)) return rule.allow ? "allow" : "deny";
			if (rule.allow && rule.filters.some((grant) => contains(grant, filter))) return "allow";
			if (!rule.allow && rule.filters.some((denied) => overlaps(denied, filter))) return "deny";
		}
		return undefined;
	}
}

function matchesAny({ filters, literals }: BoundRule, topic: string): boolean {
	for (const filter of filters) {
		if (matches(filter, topic)) return true;
	}
	return literals.includes(topic);
}

function compile({ permission, action, topics, qos, retain, users, clientIds, tenants, methods }: Rule): CompiledRule {
	const allow = permission === "allow";
	const qosBits = qos === undefined ? ANY_QOS : qos.reduce((bits: number, level) => bits | (1 << level), 0);
	const templates = topics.map(parseTemplate);
	const conditions: ((subject: Subject) => boolean)[] = [];
	if (users !== undefined) conditions.push(({ username }) => isAmong(users, username));
	if (clientIds !== undefined) conditions.push(({ clientId }) => isAmong(clientIds, clientId));
	if (tenants !== undefined) conditions.push(({ tenant }) => isAmong(tenants, tenant));
	if (methods !== undefined) conditions.push(({ method }) => isAmong(methods, method));
	const isShared = conditions.length === 0 && templates.every(({ names }) => names.length === 0);
	const shared = isShared ? bound(allow, qosBits, retain, templates, (template) => template.texts[0]) : undefined;
	return { allow, publish: action !== "subscribe", subscribe: action !== "publish", qosBits, retain, templates, conditions, shared };
}

function isAmong(values: readonly string[], value: string | undefined): boolean {
	if (value === undefined) return false;
	return values.some((each) => (each.endsWith("*") ? value.startsWith(each.slice(0, -1)) : each === value));
}

function concerns(conditions: CompiledRule["conditions"], subject: Subject): boolean {
	return conditions.every((holds) => holds(subject));
}

function isUnfit(template: Template, subject: Subject): boolean {
	const filter = resolve(template, subject);
	return typeof filter !== "string" && filter.problem === "unfit";
}

function bindRule({ allow, qosBits, retain, templates, conditions }: CompiledRule, subject: Subject): BoundRule | undefined {
	if (!concerns(conditions, subject)) return undefined;
	const rule = bound(allow, qosBits, retain, templates, (template) => {
		const filter = resolve(template, subject);
		return typeof filter === "string" ? filter : undefined;
	});
	return rule.everything || rule.filters.length + rule.literals.length > 0 ? rule : undefined;
}

function bound(
	allow: boolean,
	qosBits: number,
	retain: boolean | undefined,
	templates: readonly Template[],
	filterOf: (template: Template) => string | undefined,
): BoundRule {
	const filters: string[] = [];
	const literals: string[] = [];
	let everything = false;
	for (const template of templates) {
		const filter = filterOf(template);
		if (filter !== undefined) (template.literal ? literals : filters).push(filter);
		else everything ||= !allow;
	}
	return { allow, qosBits, retain, filters, literals, everything };
}
