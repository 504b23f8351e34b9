/** Where the keys of an issuer come from, and the sources that need no network. `jwks.ts` has the others. */

import { pemKey, publicKey, secretKey, type VerificationKey } from "./verification_key.ts";

/** What a token's header says of its key. */
export interface KeyHint {
	readonly algorithm: string;
	readonly kid: string | undefined;
}

export interface KeySource {
	/**
	 * Keys that may have signed such a token; none when there is no such key. Rejects with `Unavailable` when that cannot be
	 * known. MUST NOT let `kid` choose a file or an address (RFC 8725 section 3.10).
	 */
	find(hint: KeyHint): readonly VerificationKey[] | Promise<readonly VerificationKey[]>;
	/** Ends what it does in the background. */
	close?(): void;
}

/** Those of a list that fit. A key without an id fits every id; a token without an id fits every key. */
export function matching(keys: readonly VerificationKey[], { algorithm, kid }: KeyHint): readonly VerificationKey[] {
	return keys.filter((key) => key.algorithms.includes(algorithm) && (kid === undefined || key.kid === undefined || key.kid === kid));
}

/** A shared secret for HS256 and, as far as it is long enough, HS384 and HS512. @throws {RangeError} below 32 bytes. */
export function secretSource(secret: Uint8Array): KeySource {
	const keys = [secretKey(secret)];
	return { find: (hint) => matching(keys, hint) };
}

/** A public key or certificate as PEM. @throws {TypeError} when it cannot be used. */
export function pemSource(pem: string): KeySource {
	const keys = [pemKey(pem)];
	return { find: (hint) => matching(keys, hint) };
}

/** One JWK or a set of them. @throws {TypeError} when one of them cannot be used. */
export function jwkSource(document: unknown): KeySource {
	const listed: unknown = typeof document === "object" && document !== null && "keys" in document ? document.keys : [document];
	if (!Array.isArray(listed) || listed.length === 0) throw new TypeError("The key set for tokens has no keys");
	const keys = listed.map((jwk, index) => {
		const key = publicKey(jwk);
		if (key === undefined) throw new TypeError(`Key ${index + 1} for tokens is not a public key for signatures of a strong type`);
		return key;
	});
	return { find: (hint) => matching(keys, hint) };
}
