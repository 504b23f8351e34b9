/**
 * Keys that tokens are verified with, each pinned to the algorithms of its type: a public key never verifies an HMAC, and a
 * secret nothing else (RFC 8725 section 3.1). Knows where a key came from as little as what a token says.
 */

import { createPublicKey } from "node:crypto";
import { type CryptoKey, importJWK, type JWK } from "jose";

export interface VerificationKey {
	/** Key id, for keys that have one. */
	readonly kid: string | undefined;
	/** The `alg` values that it may verify. */
	readonly algorithms: readonly string[];
	/** The key for one of them. Rejects when the key is not valid. */
	material(algorithm: string): Promise<CryptoKey | Uint8Array>;
}

const MIN_SECRET_BYTES = 32;
const MIN_RSA_BITS = 2048;

/** HMAC algorithms with the length of their output: a shorter secret would be their weakest part (RFC 7518 section 3.2). */
const HMACS: readonly (readonly [string, number])[] = [
	["HS256", 32],
	["HS384", 48],
	["HS512", 64],
];
const RSA_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
/** By curve, with the length of a coordinate. */
const EC_CURVES = new Map<unknown, readonly [algorithm: string, bytes: number]>([
	["P-256", ["ES256", 32]],
	["P-384", ["ES384", 48]],
	["P-521", ["ES512", 66]],
]);
const ED25519_BYTES = 32;
const ED25519_ALGORITHMS = ["EdDSA", "Ed25519"];

/**
 * A shared secret.
 * @throws {RangeError} when it is shorter than 32 bytes.
 */
export function secretKey(secret: Uint8Array): VerificationKey {
	if (secret.length < MIN_SECRET_BYTES) {
		throw new RangeError(`The secret for tokens has ${secret.length} bytes: use at least ${MIN_SECRET_BYTES} random ones`);
	}
	const own = Uint8Array.from(secret);
	const algorithms = HMACS.filter(([, bytes]) => own.length >= bytes).map(([name]) => name);
	const imported = new Map<string, Promise<CryptoKey>>();
	return {
		kid: undefined,
		algorithms,
		// Once: as bytes the library would import it again for every token.
		material: (algorithm) => {
			const hash = `SHA-${algorithm.slice(2)}`;
			const known = imported.get(algorithm) ?? crypto.subtle.importKey("raw", own, { name: "HMAC", hash }, false, ["verify"]);
			imported.set(algorithm, known);
			return known;
		},
	};
}

/**
 * A public key, or a certificate with one, as PEM.
 * @throws {TypeError} when it is a private key, not PEM, or of a type that signs no tokens.
 */
export function pemKey(pem: string): VerificationKey {
	if (pem.includes("PRIVATE KEY")) throw new TypeError("The key for tokens is private: give its public half, and change the key");
	let jwk: unknown;
	try {
		jwk = createPublicKey(pem).export({ format: "jwk" });
	} catch (error) {
		throw new TypeError("The public key for tokens is not PEM that can be read", { cause: error });
	}
	const key = publicKey(jwk);
	if (key === undefined) throw new TypeError("The public key for tokens is not RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519");
	return key;
}

/** A public key from a JWK; `undefined` for private and secret keys, those not for signatures, and unknown or weak types. */
export function publicKey(jwk: unknown): VerificationKey | undefined {
	if (typeof jwk !== "object" || jwk === null) return undefined;
	const { kty, kid, use, key_ops: operations, alg, ...rest } = jwk as JWK;
	if ("d" in rest || "k" in rest) return undefined;
	if (use !== undefined && use !== "sig") return undefined;
	if (operations !== undefined && !(Array.isArray(operations) && operations.includes("verify"))) return undefined;
	const algorithms = algorithmsOf({ ...rest, kty } as JWK).filter((name) => alg === undefined || name === alg);
	if (algorithms.length === 0) return undefined;
	// Only what makes the key: nothing else of the document reaches the library.
	const { crv, x, y, n, e } = rest;
	const material = Object.fromEntries(Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => typeof value === "string")) as JWK;
	const imported = new Map<string, Promise<CryptoKey | Uint8Array>>();
	return {
		kid: typeof kid === "string" ? kid : undefined,
		algorithms,
		material: (algorithm) => {
			const known = imported.get(algorithm) ?? importJWK(material, algorithm);
			imported.set(algorithm, known);
			return known;
		},
	};
}

/** What a key can verify. Checks the lengths itself: Deno imports points of any length and fails only when they are used. */
function algorithmsOf({ kty, crv, n, x, y }: JWK): readonly string[] {
	if (kty === "RSA") return bytesIn(n) * 8 >= MIN_RSA_BITS ? RSA_ALGORITHMS : [];
	if (kty === "OKP") return crv === "Ed25519" && bytesIn(x) === ED25519_BYTES ? ED25519_ALGORITHMS : [];
	const [algorithm, bytes] = (kty === "EC" ? EC_CURVES.get(crv) : undefined) ?? [];
	return algorithm !== undefined && bytesIn(x) === bytes && bytesIn(y) === bytes ? [algorithm] : [];
}

const bytesIn = (text: unknown): number => (typeof text === "string" ? Buffer.from(text, "base64url").length : 0);
