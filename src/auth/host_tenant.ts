/**
 * Tenants by host name: a client that came to `acme.mqtt.example.com` is of the tenant `acme`, whatever proves who it is. A
 * host name proves nothing: it says which space is meant, and a tenant that is proven must be the same.
 */

import { ReasonCode } from "../mqtt/reason_code.ts";
import type { AuthOutcome, Credentials, Principal } from "./auth.ts";
import { type MemberOutcome, refused } from "./member.ts";

/** How an authenticator, or a member of the chain, is asked. */
type Ask<Outcome> = (credentials: Credentials, current?: Principal) => Outcome | Promise<Outcome>;

/** One label of a host name. */
const LABEL = /^[a-z\d]([a-z\d-]{0,61}[a-z\d])?$/;

/** @param suffix Of the host names, from the dot behind the tenant on, such as `.mqtt.example.com`. Other host names have no tenant. */
export function withHostTenant<Outcome extends MemberOutcome>(ask: Ask<Outcome>, suffix: string): Ask<Outcome | AuthOutcome> {
	const end = suffix.toLowerCase();
	return (credentials, current) => {
		const host = hostName(credentials.peer.host ?? "");
		if (!host.endsWith(end)) return ask(credentials, current);
		const tenant = host.slice(0, -end.length);
		if (!LABEL.test(tenant)) return refused(ReasonCode.notAuthorized, "its host name names no tenant", false);
		const outcome = ask(credentials, current);
		return outcome instanceof Promise ? outcome.then((later) => ofTenant(later, tenant)) : ofTenant(outcome, tenant);
	};
}

function ofTenant<Outcome extends MemberOutcome>(outcome: Outcome, tenant: string): Outcome | AuthOutcome {
	if (outcome.kind === "granted") {
		const { principal } = outcome;
		if (principal.tenant === undefined) return { ...outcome, principal: { ...principal, tenant } };
		if (principal.tenant === tenant) return outcome;
		return refused(ReasonCode.notAuthorized, "it is of another tenant than its host name", false);
	}
	if (outcome.kind !== "continue") return outcome;
	const { exchange } = outcome;
	return { ...outcome, exchange: { next: async (data) => ofTenant(await exchange.next(data), tenant) } };
}

/** In lower case, without port and without the dot that may end a full name. */
function hostName(host: string): string {
	return host.toLowerCase().replace(/:\d+$/, "").replace(/\.$/, "");
}
