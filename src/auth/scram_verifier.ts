/**
 * What a server keeps of a password for SCRAM (RFC 5802, RFC 5803): salt, rounds, StoredKey and ServerKey, from which neither
 * the password nor a login can be made. Knows no users and no exchange.
 */

import { createHash, createHmac, pbkdf2, randomBytes } from "node:crypto";

/** Hash functions by the names of node:crypto. */
export const SCRAM_HASHES = ["sha256", "sha512"] as const;
export type ScramHash = (typeof SCRAM_HASHES)[number];

/** Names of the mechanisms, which are MQTT authentication methods as well. */
export const SCRAM_METHODS: Readonly<Record<ScramHash, string>> = { sha256: "SCRAM-SHA-256", sha512: "SCRAM-SHA-512" };

export interface ScramVerifier {
	readonly hash: ScramHash;
	readonly salt: Uint8Array;
	/** Of PBKDF2. */
	readonly rounds: number;
	readonly storedKey: Uint8Array;
	readonly serverKey: Uint8Array;
}

/** The client does the work, also on small devices. RFC 7677 asks for 4096 at least. */
export const DEFAULT_SCRAM_ROUNDS = 16_384;
const MIN_ROUNDS = 4096;
const MAX_ROUNDS = 1_000_000;
const SALT_BYTES = 16;
const FORM = /^SCRAM-SHA-(256|512)\$(\d{4,7}):([A-Za-z0-9+/]+={0,2})\$([A-Za-z0-9+/]+={0,2}):([A-Za-z0-9+/]+={0,2})$/;

/** Characters that SASLprep (RFC 4013) maps or forbids: every separator but the space, and everything invisible. */
const NOT_PREPARED = /(?! )\p{Z}|\p{C}|[\u034F\u180B-\u180D\uFE00-\uFE0F]/u;

/**
 * Whether SASLprep leaves a string as it is, so that clients that prepare it and those that do not send the same. Other
 * strings are not taken for SCRAM.
 */
export function isPrepared(text: string): boolean {
	return text.length > 0 && !NOT_PREPARED.test(text) && text.normalize("NFKC") === text;
}

/**
 * Makes a verifier for a new password.
 * @throws {TypeError} for a password that clients may prepare differently: see {@link isPrepared}.
 */
export async function scramVerifier(password: string, hash: ScramHash, rounds = DEFAULT_SCRAM_ROUNDS): Promise<ScramVerifier> {
	if (!isPrepared(password)) throw new TypeError("A password with unusual spaces, invisible or compatibility characters: use others");
	const salt = randomBytes(SALT_BYTES);
	const bytes = hash === "sha256" ? 32 : 64;
	const salted = await new Promise<Uint8Array>((resolve, reject) => {
		pbkdf2(password, salt, rounds, bytes, hash, (error, key) => (error ? reject(error) : resolve(key)));
	});
	const hmac = (text: string) => createHmac(hash, salted).update(text).digest();
	const storedKey = createHash(hash).update(hmac("Client Key")).digest();
	return { hash, salt, rounds, storedKey, serverKey: hmac("Server Key") };
}

/** One line, as in RFC 5803 but with the usual prefix: `SCRAM-SHA-256$16384:salt$StoredKey:ServerKey`. */
export function formatScramVerifier({ hash, salt, rounds, storedKey, serverKey }: ScramVerifier): string {
	const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
	return `${SCRAM_METHODS[hash]}$${rounds}:${text(salt)}$${text(storedKey)}:${text(serverKey)}`;
}

/** Reads what {@link formatScramVerifier} writes; `undefined` for anything else. */
export function parseScramVerifier(text: string): ScramVerifier | undefined {
	const [, size, count, salt, stored, server] = FORM.exec(text) ?? [];
	const rounds = Number(count);
	if (salt === undefined || stored === undefined || server === undefined || rounds < MIN_ROUNDS || rounds > MAX_ROUNDS) return undefined;
	const [storedKey, serverKey] = [Buffer.from(stored, "base64"), Buffer.from(server, "base64")];
	const bytes = Number(size) / 8;
	if (storedKey.length !== bytes || serverKey.length !== bytes) return undefined;
	return { hash: size === "256" ? "sha256" : "sha512", salt: Buffer.from(salt, "base64"), rounds, storedKey, serverKey };
}
