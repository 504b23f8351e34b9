/**
 * Who the verified claims of a token say a client is: name, client id, tenant, rights, deadline. Sees claims only after the
 * signature and the times were checked, and still takes no name from them that MQTT or topic filters could misread.
 */

import type { JWTPayload } from "jose";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { AuthOutcome, Credentials, Principal } from "./auth.ts";
import { usableLevel, usableName } from "./identity.ts";
import { refused } from "./member.ts";
import { grantsFromClaims, TokenGrantsError, type TokenGrantsOptions, textClaims } from "./token_grants.ts";

/** Which claims mean what. */
export interface ClaimMapping {
	/** Client id: assigned when the client sent none. Default `sub`. */
	readonly clientIdClaim?: string;
	/** Whether the token is good for that client id only; it must then have the claim. Default `false`. */
	readonly bindClientId?: boolean;
	/** User name for rules, revocation and `${username}`. Absent: the token proves no user name, whatever the client sent. */
	readonly usernameClaim?: string;
	/** Whether the user name in CONNECT must be that of the claim. Default `false`: it is ignored. */
	readonly bindUsername?: boolean;
	/** Tenant, which the token must then have. Absent: no tenants. */
	readonly tenantClaim?: string;
	/** Takes tokens without the claims of user name and tenant as well: for clients of no user name or no tenant. Default `false`. */
	readonly namesOptional?: boolean;
	/** How claims about rights are read. */
	readonly grants?: TokenGrantsOptions;
}

/** The outcome for well-signed claims in their time. None of the refusals is a guess. */
export function principalFromClaims(claims: JWTPayload, mapping: ClaimMapping, method: string, credentials: Credentials): AuthOutcome {
	const deny = (reasonCode: ReasonCode, why: string) => refused(reasonCode, why, false);
	const { clientIdClaim = "sub", bindClientId = false, usernameClaim, bindUsername = false, tenantClaim, namesOptional = false } = mapping;
	const mayLack = (claim: string) => namesOptional && claims[claim] === undefined;

	const claimedId = claims[clientIdClaim];
	const clientId = usableName(claimedId);
	if (clientId === undefined && (bindClientId || claimedId !== undefined)) {
		return deny(ReasonCode.badUserNameOrPassword, `the token has no usable "${clientIdClaim}"`);
	}
	if (bindClientId && credentials.clientId !== "" && credentials.clientId !== clientId) {
		return deny(ReasonCode.clientIdentifierNotValid, "the token is for another client id");
	}

	const username = usernameClaim === undefined ? undefined : usableName(claims[usernameClaim]);
	if (usernameClaim !== undefined && username === undefined && !mayLack(usernameClaim)) {
		return deny(ReasonCode.badUserNameOrPassword, `the token has no usable "${usernameClaim}"`);
	}
	if (bindUsername && credentials.username !== undefined && credentials.username !== username) {
		return deny(ReasonCode.badUserNameOrPassword, "the token is for another user name");
	}

	const tenant = tenantClaim === undefined ? undefined : usableLevel(claims[tenantClaim]);
	if (tenantClaim !== undefined && tenant === undefined && !mayLack(tenantClaim)) {
		return deny(ReasonCode.notAuthorized, `the token has no usable "${tenantClaim}"`);
	}

	const { sub, jti, exp = 0, iat } = claims;
	const tokenId = usableName(jti);
	if (jti !== undefined && tokenId === undefined) return deny(ReasonCode.badUserNameOrPassword, 'the token has no usable "jti"');

	let grants: Principal["grants"];
	try {
		grants = grantsFromClaims(claims, mapping.grants);
	} catch (error) {
		if (error instanceof TokenGrantsError) return deny(ReasonCode.badUserNameOrPassword, error.message);
		throw error;
	}
	const principal: Principal = {
		name: usableName(sub) ?? username ?? clientId ?? "",
		method,
		expiresAtMs: exp * 1000,
		...(clientId !== undefined && { clientId }),
		...(bindClientId && clientId !== undefined && { boundClientId: clientId }),
		...(username !== undefined && { username }),
		...(tenant !== undefined && { tenant }),
		...(tokenId !== undefined && { tokenId }),
		...(iat !== undefined && { issuedAtMs: iat * 1000 }),
		claims: textClaims(claims),
		...(grants !== undefined && { grants }),
	};
	return { kind: "granted", principal };
}
