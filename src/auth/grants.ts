/**
 * What a rule is, and what rights come with an identity. Data only: `rules.ts` judges by it, `rule_schema.ts` reads it from
 * what operators and tokens say.
 */

import type { QoS } from "../mqtt/packet.ts";

/** One line of a list of rights. In a list, the first rule that matches decides. */
export interface Rule {
	readonly permission: "allow" | "deny";
	readonly action: "publish" | "subscribe" | "all";
	/**
	 * Topic filters, at least one. They may contain the placeholders of `placeholders.ts`; `eq ` before a filter takes the
	 * rest literally: it then matches this very text, with neither wildcards nor placeholders.
	 */
	readonly topics: readonly string[];
	/** QoS of the publication or the subscription; absent for any. */
	readonly qos?: readonly QoS[];
	/** `true` matches publications to be retained only, `false` the others only; absent for both. Says nothing about subscribing. */
	readonly retain?: boolean;
	/** Verified user names that it is for, as all conditions: exact, or a beginning before a final `*`. Absent for everybody. */
	readonly users?: readonly string[];
	readonly clientIds?: readonly string[];
	readonly tenants?: readonly string[];
	/** How the client was authenticated: {@link Principal.method} in `auth.ts`. */
	readonly methods?: readonly string[];
}

/** Rights that came with a token, or belong to a user. */
export interface Grants {
	/** In order. An empty list grants nothing. */
	readonly rules: readonly Rule[];
	/** Values of the placeholders `${claims.…}` in these rules. */
	readonly claims: Readonly<Record<string, string>>;
	/** What happens where no rule of these matches: nothing is allowed, or the configured rules are asked. */
	readonly unmatched: "deny" | "rules";
}
