/**
 * Signs tokens of this server's own with Ed25519, and publishes the keys that verify them. Two keys live at a time: the one that
 * signs and the one before, whose tokens stay good. Stores nothing: whoever keeps the keys gives them in.
 */

import { randomUUID } from "node:crypto";
import { type CryptoKey, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from "jose";
import type { Clock } from "../clock.ts";
import { usableLevel, usableName } from "./identity.ts";
import { type KeySource, matching } from "./key_source.ts";
import { grantsFromClaims } from "./token_grants.ts";
import { publicKey, type VerificationKey } from "./verification_key.ts";

/** A private key as it is kept: a JWK with `d`. A secret. */
export type SigningJwk = JWK;

export interface TokenIssuerOptions {
	/** Value of `iss`: this server's own address, as clients know it. */
	readonly issuer: string;
	/** Value of `aud`; absent for none. */
	readonly audience?: string;
	/** The key that signs, and after it the one before, if any. */
	readonly keys: readonly SigningJwk[];
	readonly clock: Clock;
	/** Longest lifetime. Default a year. */
	readonly maxLifetimeSeconds?: number;
}

/** What a token is to say. */
export interface TokenRequest {
	/** `sub`: who it is for, and the client id unless `clientId` says another. */
	readonly subject: string;
	/** `client_id`: the client id, where it is another than the subject. */
	readonly clientId?: string;
	/** `username`. */
	readonly username?: string;
	/** `tenant`. */
	readonly tenant?: string;
	/** `acl`: rights, in the form that `token_grants.ts` reads. Absent: the configured rules alone decide. */
	readonly acl?: unknown;
	/** Seconds from now. */
	readonly lifetimeSeconds: number;
}

export interface IssuedToken {
	readonly token: string;
	/** By which it can be revoked. */
	readonly jti: string;
	readonly issuedAtMs: number;
	readonly expiresAtMs: number;
}

/** Claims in which {@link TokenIssuer.issue} puts what `jwtMember` is to read: its mapping for this server's own tokens. */
export const OWN_CLAIMS = { clientIdClaim: "client_id", usernameClaim: "username", tenantClaim: "tenant" } as const;

const ALGORITHM = "EdDSA";
const MAX_KEYS = 2;
const YEAR_SECONDS = 31_536_000;

interface Signer {
	readonly kid: string;
	readonly privateKey: CryptoKey;
	readonly publicJwk: JWK;
	readonly verification: VerificationKey;
}

/** Makes a new key, to be kept as a secret. Its id is its thumbprint (RFC 7638). */
export async function generateSigningKey(): Promise<SigningJwk> {
	const { privateKey } = await generateKeyPair(ALGORITHM, { crv: "Ed25519", extractable: true });
	const jwk = await exportJWK(privateKey);
	return { ...jwk, kid: await calculateJwkThumbprint(jwk), alg: ALGORITHM, use: "sig" };
}

export class TokenIssuer {
	readonly #options: TokenIssuerOptions;
	#signers: readonly Signer[];

	private constructor(options: TokenIssuerOptions, signers: readonly Signer[]) {
		this.#options = options;
		this.#signers = signers;
	}

	/** @throws {TypeError} without a key, with more than two, or with one that is not a private Ed25519 JWK. */
	static async open(options: TokenIssuerOptions): Promise<TokenIssuer> {
		if (options.keys.length === 0 || options.keys.length > MAX_KEYS)
			throw new TypeError(`Signing takes one key or two, not ${options.keys.length}`);
		return new TokenIssuer(options, await Promise.all(options.keys.map(signerOf)));
	}

	/**
	 * Signs a token.
	 * @throws {RangeError} for a lifetime that is not between 1 s and the longest; {TypeError} for a name that could not be used;
	 * {TokenGrantsError} for rights that could not be read.
	 */
	async issue({ subject, clientId, username, tenant, acl, lifetimeSeconds }: TokenRequest): Promise<IssuedToken> {
		const { issuer, audience, clock, maxLifetimeSeconds = YEAR_SECONDS } = this.#options;
		if (!(Number.isInteger(lifetimeSeconds) && lifetimeSeconds >= 1 && lifetimeSeconds <= maxLifetimeSeconds)) {
			throw new RangeError(`A lifetime of ${lifetimeSeconds} s: use 1 to ${maxLifetimeSeconds}`);
		}
		for (const [field, value] of Object.entries({ subject, clientId, username })) {
			if (value !== undefined && usableName(value) === undefined)
				throw new TypeError(`The ${field} is empty, too long or has control characters`);
		}
		if (tenant !== undefined && usableLevel(tenant) === undefined) throw new TypeError("The tenant cannot be a level of a topic");
		const claims = { sub: subject, client_id: clientId ?? subject, username, tenant, acl };
		grantsFromClaims({ acl });
		const [signer] = this.#signers;
		if (signer === undefined) throw new TypeError("There is no key to sign with");
		const issuedAt = Math.floor(clock.nowMs() / 1000);
		const jti = randomUUID();
		const token = new SignJWT(claims)
			.setProtectedHeader({ alg: ALGORITHM, kid: signer.kid, typ: "JWT" })
			.setIssuer(issuer)
			.setJti(jti)
			.setIssuedAt(issuedAt)
			.setExpirationTime(issuedAt + lifetimeSeconds);
		if (audience !== undefined) token.setAudience(audience);
		return {
			token: await token.sign(signer.privateKey),
			jti,
			issuedAtMs: issuedAt * 1000,
			expiresAtMs: (issuedAt + lifetimeSeconds) * 1000,
		};
	}

	/** Signs with another key from now on; the one so far still verifies, the one before it no more. */
	async rotate(key: SigningJwk): Promise<void> {
		const signer = await signerOf(key);
		this.#signers = [signer, ...this.#signers.filter(({ kid }) => kid !== signer.kid)].slice(0, MAX_KEYS);
	}

	/** The public keys, as the document of a JWKS endpoint. */
	jwks(): { readonly keys: readonly JWK[] } {
		return { keys: this.#signers.map(({ publicJwk }) => publicJwk) };
	}

	/** The same keys for `jwtMember`, rotation included, without a request. */
	get keys(): KeySource {
		return {
			find: (hint) =>
				matching(
					this.#signers.map(({ verification }) => verification),
					hint,
				),
		};
	}
}

async function signerOf(jwk: SigningJwk): Promise<Signer> {
	const { kty, crv, x, d } = jwk;
	if (kty !== "OKP" || crv !== "Ed25519" || typeof x !== "string" || typeof d !== "string") {
		throw new TypeError("A signing key is not a private Ed25519 key as JWK");
	}
	const kid = jwk.kid ?? (await calculateJwkThumbprint({ kty, crv, x }));
	const publicJwk = { kty, crv, x, kid, alg: ALGORITHM, use: "sig" };
	const verification = publicKey(publicJwk);
	const privateKey = await importJWK({ kty, crv, x, d }, ALGORITHM);
	if (verification === undefined || privateKey instanceof Uint8Array) throw new TypeError("A signing key cannot be used");
	return { kid, privateKey, publicJwk, verification };
}
