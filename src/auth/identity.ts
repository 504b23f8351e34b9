/** Which strings may name a client: what claims, certificates and hooks say is checked here before anything is built from it. */

import type { Author } from "../mqtt/message.ts";
import { clientIdOf } from "../mqtt/tenancy.ts";
import type { Principal } from "./auth.ts";

/** In UTF-16 units. Longer than any identifier that issuers use. */
const MAX_NAME = 512;

/** Control characters, unpaired surrogates and non-characters, which MQTT forbids or discourages in strings [MQTT-1.5.4-1]. */
const UNUSABLE = /[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}]/u;

/** Characters that mean something in topic filters. */
const TOPIC_SYNTAX = /[+#/]/;

/** A name as it is, or `undefined` for what is not a string, empty, too long or not fit for MQTT. */
export function usableName(value: unknown): string | undefined {
	return typeof value === "string" && value.length > 0 && value.length <= MAX_NAME && !UNUSABLE.test(value) ? value : undefined;
}

/** Like {@link usableName}, for what becomes one level of topics. */
export function usableLevel(value: unknown): string | undefined {
	const name = usableName(value);
	return name === undefined || TOPIC_SYNTAX.test(name) || name.startsWith("$") ? undefined : name;
}

/** Whose session a client's is: the same for all its logins, whatever the method, and empty for anonymous clients. */
export function sessionUser({ name, tenant }: Principal): string {
	return clientIdOf(tenant, name);
}

/** What is remembered of a client with what it leaves behind; `undefined` when there is nothing to know it by. */
export function authorOf({ name, username, tokenId, issuedAtMs }: Principal): Author | undefined {
	if (name === "" && username === undefined && tokenId === undefined && issuedAtMs === undefined) return undefined;
	return {
		name,
		...(username !== undefined && { username }),
		...(tokenId !== undefined && { tokenId }),
		...(issuedAtMs !== undefined && { issuedAtMs }),
	};
}

/** Whether a client that authenticated again is still who it was. Rights, token and deadline may differ. */
export function sameIdentity(before: Principal, after: Principal): boolean {
	return (
		before.name === after.name &&
		before.method === after.method &&
		before.username === after.username &&
		before.tenant === after.tenant &&
		before.boundClientId === after.boundClientId
	);
}
