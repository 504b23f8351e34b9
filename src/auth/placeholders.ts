/**
 * Topic filters of rules with placeholders: `${clientid}`, `${username}`, `${tenant}` and `${claims.name}`. A value is text
 * that a client may have chosen, so one that would change the structure of the topic is never put in.
 */

import { filterProblem } from "../mqtt/topic.ts";

/** What placeholders stand for. Whatever is `undefined` or empty has no value. */
export interface Identity {
	/** The client's own choice, unless its authentication bound it to one. */
	readonly clientId: string;
	/** Verified: a name that was only sent is none. */
	readonly username: string | undefined;
	readonly tenant: string | undefined;
	readonly claims: Readonly<Record<string, string>> | undefined;
}

/** A filter between whose texts the values go: one text more than names. */
export interface Template {
	readonly texts: readonly string[];
	readonly names: readonly string[];
	/** Matches its text only: no wildcards. Written with `eq ` before it. */
	readonly literal: boolean;
}

/** Why a template has no filter for an identity: it has no value, or one that may not stand there. */
export type Unresolved = { readonly problem: "absent" | "unfit" };

const LITERAL = "eq ";
const PLACEHOLDER = /\$\{([^}]*)\}?/g;
const NAMES = /^(?:clientid|username|tenant|claims\.[\w.:/-]{1,64})$/;
/** Wildcards, level separators and U+0000 in a value would reach other topics. */
const UNFIT = /[+#/\0]/;
const MAX_LEVELS = 32_768;
const MAX_BYTES = 65_535;

/** Why a text is no template, as a short clause such as `it is empty`; `undefined` if it is one. */
export function templateProblem(text: string): string | undefined {
	if (text.startsWith(LITERAL)) return filterProblem(text.slice(LITERAL.length), MAX_LEVELS);
	if (text.startsWith("$share/")) return "rules are about the filter behind $share/{name}/";
	for (const [placeholder, name = ""] of text.matchAll(PLACEHOLDER)) {
		if (!placeholder.endsWith("}") || !NAMES.test(name)) {
			return `it has an unknown placeholder: \${clientid}, \${username}, \${tenant} and \${claims.name} are known`;
		}
	}
	return filterProblem(text.replace(PLACEHOLDER, "x"), MAX_LEVELS);
}

/**
 * The template that a text is.
 * @throws {RangeError} when it is none
 */
export function parseTemplate(text: string): Template {
	const problem = templateProblem(text);
	if (problem !== undefined) throw new RangeError(`Cannot use ${JSON.stringify(text)} in a rule: ${problem}`);
	if (text.startsWith(LITERAL)) return { texts: [text.slice(LITERAL.length)], names: [], literal: true };
	const parts = text.split(PLACEHOLDER);
	return { texts: parts.filter((_part, at) => at % 2 === 0), names: parts.filter((_part, at) => at % 2 === 1), literal: false };
}

/** The filter with the values of one client put in. */
export function resolve({ texts, names }: Template, identity: Identity): string | Unresolved {
	let filter = texts[0] ?? "";
	for (const [at, name] of names.entries()) {
		const value = placeholderValue(name, identity);
		if (value === undefined || value === "") return { problem: "absent" };
		// A leading `$` would make the broker's own topics of it.
		if (UNFIT.test(value) || !value.isWellFormed() || (filter === "" && value.startsWith("$"))) return { problem: "unfit" };
		filter += value + (texts[at + 1] ?? "");
	}
	// Three bytes are the most that a character of a well-formed string takes.
	if (filter.length > MAX_BYTES / 3 && filterProblem(filter, MAX_LEVELS) !== undefined) return { problem: "unfit" };
	return filter;
}

function placeholderValue(name: string, { clientId, username, tenant, claims }: Identity): string | undefined {
	if (name === "clientid") return clientId;
	if (name === "username") return username;
	if (name === "tenant") return tenant;
	const claim = name.slice("claims.".length);
	return claims !== undefined && Object.hasOwn(claims, claim) ? claims[claim] : undefined;
}
