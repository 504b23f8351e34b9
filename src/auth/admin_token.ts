/**
 * Tokens with which operators come: those that the configured issuers have signed and that have the scope for it. Everything that
 * holds for the tokens of clients holds for these, revocation included.
 */

import { decodeJwt } from "jose";
import type { ChainMember } from "./member.ts";
import type { RevocationList } from "./revocations.ts";

/** Scope of tokens for operators. */
const ADMIN_SCOPE = "shoal:admin";

/** Who an operator is; `forbidden` for a good token without the scope, `undefined` for what is no good token. */
export type OperatorJudgement = { readonly name: string } | "forbidden" | undefined;

/**
 * Makes the judgement of tokens. Its promise rejects when keys or revocations cannot be asked.
 * @param member That of the clients' tokens, see `jwtMember`.
 */
export function operatorTokens(
	member: ChainMember,
	revocations?: RevocationList,
): (token: string, address: string) => Promise<OperatorJudgement> {
	return async (token, address) => {
		const outcome = await member.authenticate({
			clientId: "",
			username: undefined,
			password: undefined,
			authenticationMethod: undefined,
			authenticationData: undefined,
			peer: { transport: "ws", address, port: 0 },
			token,
		});
		if (outcome.kind !== "granted") return undefined;
		const { principal } = outcome;
		if ((await revocations?.isRevoked(principal, principal.clientId ?? "")) === true) return undefined;
		return scopesOf(token).includes(ADMIN_SCOPE) ? { name: principal.name } : "forbidden";
	};
}

/** Of a token whose signature was checked. */
function scopesOf(token: string): readonly unknown[] {
	const { scope, scp } = decodeJwt(token);
	return [scope, scp].flatMap((claim) => (typeof claim === "string" ? claim.split(" ") : Array.isArray(claim) ? claim : []));
}
