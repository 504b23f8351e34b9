/**
 * Clients that bring a token (JWS): as the password beside any user name, as the data of an enhanced authentication, or with
 * the upgrade request. Everything that a token says is doubted until its signature and claims are verified; `jose` does the
 * cryptography, this file decides which key and which algorithm it may use. Never logs a token.
 */

import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, jwtVerify, type ProtectedHeaderParameters } from "jose";
import type { Clock } from "../clock.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Credentials } from "./auth.ts";
import type { KeySource } from "./key_source.ts";
import { type ChainMember, IGNORED, type MemberOutcome, refused } from "./member.ts";
import { type ClaimMapping, principalFromClaims } from "./token_principal.ts";
import type { VerificationKey } from "./verification_key.ts";

/** Authentication Method by which MQTT 5 clients bring a token and, in the session, the next one. */
export const JWT_METHOD = "OAUTH2-JWT";

/** Whose tokens are accepted, and how they are read. */
export interface JwtIssuer extends ClaimMapping {
	readonly keys: KeySource;
	/** Value that `iss` must have; tokens of other issuers go to their own entry. Absent: for tokens that no other entry names. */
	readonly issuer?: string;
	/** `aud` must hold one of these. Absent: `aud` is not looked at. */
	readonly audience?: readonly string[];
	/** Narrows the algorithms further than the type of the key does, such as `["ES256"]`. */
	readonly algorithms?: readonly string[];
	/** Values of which `typ` must have one. Default `JWT` and `at+jwt`, or no `typ`. */
	readonly types?: readonly string[];
}

export interface JwtOptions {
	readonly issuers: readonly JwtIssuer[];
	readonly clock: Clock;
	/** How far the issuer's clock may run ahead of ours (`nbf`, `iat`), 0–60. Default 5. `exp` is always taken as it is. */
	readonly clockSkewSeconds?: number;
	/** Longest time that a token may still be valid when it is shown. Default: any. */
	readonly maxLifetimeSeconds?: number;
}

const MAX_TOKEN_BYTES = 8192;
const MAX_KID = 256;
/** Keys without an id that one token is tried against. */
const MAX_CANDIDATES = 8;
const DEFAULT_TYPES = ["jwt", "at+jwt"];
const JWS = /^[\w-]+\.[\w-]+\.[\w-]+$/;

/** Why a token is not accepted. */
class TokenRefused extends Error {
	/** Whether the sender may have made the token itself. */
	readonly guess: boolean;

	constructor(why: string, guess = true) {
		super(why);
		this.guess = guess;
	}
}

/** @throws {RangeError} for a skew beyond 60 s; {TypeError} without issuers, or with two entries for one. */
export function jwtMember(options: JwtOptions): ChainMember {
	const { issuers, clock, clockSkewSeconds = 5, maxLifetimeSeconds = Number.POSITIVE_INFINITY } = options;
	if (!(clockSkewSeconds >= 0 && clockSkewSeconds <= 60)) throw new RangeError(`A clock skew of ${clockSkewSeconds} s: use 0 to 60`);
	if (issuers.length === 0) throw new TypeError("Tokens need at least one issuer");
	const names = issuers.map(({ issuer }) => issuer);
	if (new Set(names).size < names.length) throw new TypeError("Two entries for the same issuer of tokens: keep one");
	const methodOf = (issuer: JwtIssuer) => (issuers.length === 1 ? "jwt" : `jwt:${issuer.issuer ?? ""}`);

	const judge = async (token: string, credentials: Credentials): Promise<MemberOutcome> => {
		try {
			const header = checkedHeader(token);
			const issuer = issuerOf(token, issuers);
			const claims = await verified(token, header, issuer, { nowMs: clock.nowMs(), clockSkewSeconds });
			checkTimes(claims, clock.nowMs(), clockSkewSeconds, maxLifetimeSeconds);
			return principalFromClaims(claims, issuer, methodOf(issuer), credentials);
		} catch (error) {
			if (error instanceof TokenRefused) return refused(ReasonCode.badUserNameOrPassword, error.message, error.guess);
			throw error;
		}
	};

	return {
		name: "jwt",
		ignoresUsername: true,
		authenticate(credentials, current) {
			const { authenticationMethod, authenticationData, password, token } = credentials;
			if (authenticationMethod !== undefined) {
				if (authenticationMethod !== JWT_METHOD) return IGNORED;
				// A client that authenticates again must show a new token: those of its CONNECT prove nothing new.
				const data = authenticationData ?? (current === undefined ? (password ?? token) : undefined);
				if (data === undefined) return refused(ReasonCode.badUserNameOrPassword, "no token");
				return judge(textOf(data), credentials);
			}
			if (password !== undefined) {
				const text = textOf(password);
				return looksLikeToken(text) ? judge(text, credentials) : IGNORED;
			}
			// What a browser sends by itself, a cookie, stands back behind the password that the program put into CONNECT.
			return token === undefined ? IGNORED : judge(token, credentials);
		},
	};
}

const textOf = (data: Uint8Array | string): string =>
	typeof data === "string" ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("latin1");

/** `{"` in base64url and the dots of JWS or JWE; what is too long for a token is too long for a password as well. */
const looksLikeToken = (text: string): boolean =>
	text.startsWith("eyJ") && (text.length > MAX_TOKEN_BYTES || /^[\w-]+\.[\w-]*\./.test(text));

/** What can be said before any key is looked for: the form, and a header that asks for nothing unusual. */
function checkedHeader(token: string): ProtectedHeaderParameters & { readonly alg: string } {
	if (token.length > MAX_TOKEN_BYTES) throw new TokenRefused("the token is longer than 8 KB");
	if (token.split(".").length === 5) throw new TokenRefused("the token is encrypted");
	if (!JWS.test(token)) throw new TokenRefused("the token is not a signed JWT");
	let header: ProtectedHeaderParameters;
	try {
		header = decodeProtectedHeader(token);
	} catch {
		throw new TokenRefused("the token's header cannot be read");
	}
	const { alg, kid } = header;
	if (typeof alg !== "string") throw new TokenRefused("the token names no algorithm");
	if (header.crit !== undefined) throw new TokenRefused("the token has critical extensions");
	if (kid !== undefined && (typeof kid !== "string" || kid.length > MAX_KID || /\p{Cc}/u.test(kid))) {
		throw new TokenRefused("the token's key id cannot be used");
	}
	return { ...header, alg };
}

/** The entry for a token, by what it claims; the signature is checked with the keys of that entry only. */
function issuerOf(token: string, issuers: readonly JwtIssuer[]): JwtIssuer {
	let iss: unknown;
	try {
		iss = decodeJwt(token).iss;
	} catch {
		throw new TokenRefused("the token's claims cannot be read");
	}
	const issuer =
		issuers.find((entry) => entry.issuer !== undefined && entry.issuer === iss) ?? issuers.find((entry) => entry.issuer === undefined);
	if (issuer === undefined) throw new TokenRefused("the token's issuer is not known");
	return issuer;
}

async function verified(
	token: string,
	header: ProtectedHeaderParameters & { readonly alg: string },
	issuer: JwtIssuer,
	{ nowMs, clockSkewSeconds }: { readonly nowMs: number; readonly clockSkewSeconds: number },
): Promise<JWTPayload> {
	const { alg, kid, typ } = header;
	if (issuer.algorithms?.includes(alg) === false) throw new TokenRefused("the token's algorithm is not allowed");
	if (!typeAccepted(typ, issuer.types)) throw new TokenRefused("the token is of another type");
	const candidates = await issuer.keys.find({ algorithm: alg, kid });
	const options = {
		algorithms: [alg],
		requiredClaims: ["exp"],
		currentDate: new Date(nowMs),
		clockTolerance: clockSkewSeconds,
		...(issuer.issuer !== undefined && { issuer: issuer.issuer }),
		...(issuer.audience !== undefined && { audience: [...issuer.audience] }),
	};
	for (const key of candidates.slice(0, MAX_CANDIDATES)) {
		const payload = await verifiedBy(key, token, alg, options);
		if (payload !== undefined) return payload;
	}
	throw new TokenRefused(candidates.length === 0 ? "no key fits the token" : "the token's signature is wrong");
}

/** The claims, or `undefined` when another key may have made the signature. */
async function verifiedBy(
	key: VerificationKey,
	token: string,
	algorithm: string,
	options: Parameters<typeof jwtVerify>[2],
): Promise<JWTPayload | undefined> {
	try {
		return (await jwtVerify(token, await key.material(algorithm), options)).payload;
	} catch (error) {
		if (error instanceof errors.JWSSignatureVerificationFailed) return undefined;
		// The library looks at claims only after the signature: nobody but the issuer made these.
		if (error instanceof errors.JWTExpired) throw new TokenRefused("the token has expired", false);
		if (error instanceof errors.JWTClaimValidationFailed) throw new TokenRefused(`the token's "${error.claim}" is ${error.reason}`, false);
		if (error instanceof errors.JOSEError) throw new TokenRefused(`the token cannot be verified (${error.code})`);
		throw error;
	}
}

/** Times to the millisecond, where the library allows skew on `exp` and rounds to seconds. */
function checkTimes({ exp, iat }: JWTPayload, nowMs: number, skewSeconds: number, maxLifetimeSeconds: number): void {
	if (exp === undefined || exp * 1000 <= nowMs) throw new TokenRefused("the token has expired", false);
	if (iat !== undefined && iat * 1000 > nowMs + skewSeconds * 1000) throw new TokenRefused("the token is from the future", false);
	const lifetimeSeconds = exp - Math.min(iat ?? Number.POSITIVE_INFINITY, nowMs / 1000);
	if (lifetimeSeconds > maxLifetimeSeconds) throw new TokenRefused("the token is valid for too long", false);
}

function typeAccepted(typ: unknown, types: readonly string[] | undefined): boolean {
	if (typ === undefined) return types === undefined;
	if (typeof typ !== "string") return false;
	return (types?.map(bareType) ?? DEFAULT_TYPES).includes(bareType(typ));
}

/** Media types may leave out `application/` (RFC 7515 section 4.1.9). */
const bareType = (type: string): string => type.toLowerCase().replace(/^application\//, "");
