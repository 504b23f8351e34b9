/**
 * SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677) as MQTT 5 enhanced authentication, without channel binding: client-first
 * comes with CONNECT (or AUTH 0x19), server-first and client-final go in AUTH, server-final with the success. An unknown user is
 * led through the same messages with a salt of its own and fails where a wrong password fails.
 */

import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { AuthOutcome, Refusal } from "./auth.ts";
import { type ChainMember, IGNORED, refused } from "./member.ts";
import { DEFAULT_SCRAM_ROUNDS, isPrepared, SCRAM_HASHES, SCRAM_METHODS, type ScramHash, type ScramVerifier } from "./scram_verifier.ts";
import { principalOfUser, type User, type UserSource } from "./users.ts";

export interface ScramOptions {
	readonly users: UserSource;
	/**
	 * Makes the salts of unknown users. MUST be the same in all replicas and after a restart, or those salts change where real
	 * ones do not. Default random.
	 */
	readonly saltSecret?: Uint8Array;
	/** Default both. */
	readonly hashes?: readonly ScramHash[];
	/** The server's part of a nonce. Default 18 random bytes. */
	readonly nonce?: () => string;
}

const MAX_MESSAGE_BYTES = 4096;
const NONCE_BYTES = 18;
const DECOY_SALT_BYTES = 16;
/** `n,,` or `y,,`: no channel binding; no other identity to act for. Then the user name and the client's nonce. */
const CLIENT_FIRST = /^([ny],(?:a=([^,]*))?,)(n=([^,]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,]*)*)$/;
const CLIENT_FINAL = /^(c=([A-Za-z0-9+/=]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,]*)*),p=([A-Za-z0-9+/]+={0,2})$/;

/** Makes the member, which answers 0x86 to whatever goes wrong. */
export function scramMember({
	users,
	saltSecret = randomBytes(32),
	hashes = SCRAM_HASHES,
	nonce: serverNonce = () => randomBytes(NONCE_BYTES).toString("base64"),
}: ScramOptions): ChainMember {
	const secret = Uint8Array.from(saltSecret);
	return {
		name: "scram",
		async authenticate({ authenticationMethod, authenticationData }) {
			const hash = hashes.find((name) => SCRAM_METHODS[name] === authenticationMethod);
			if (hash === undefined) return IGNORED;
			const first = clientFirst(authenticationData);
			if (first === undefined) return malformed("client-first");
			const user = await users.find(first.username);
			const verifier = user?.scram?.[hash] ?? decoy(first.username, hash, secret, users.scramRounds ?? DEFAULT_SCRAM_ROUNDS);
			const nonce = first.nonce + serverNonce();
			const serverFirst = `r=${nonce},s=${Buffer.from(verifier.salt).toString("base64")},i=${verifier.rounds}`;
			const real = user?.scram?.[hash] === undefined ? undefined : user;
			return {
				kind: "continue",
				authenticationData: Buffer.from(serverFirst),
				username: first.username,
				exchange: { next: (data) => finished(data, { first, nonce, serverFirst, verifier, user: real }) },
			};
		},
	};
}

interface ClientFirst {
	/** The GS2 header, which client-final repeats. */
	readonly header: string;
	/** The message without it. */
	readonly bare: string;
	readonly username: string;
	readonly nonce: string;
}

interface Exchange {
	readonly first: ClientFirst;
	readonly nonce: string;
	readonly serverFirst: string;
	readonly verifier: ScramVerifier;
	/** Absent when nobody can succeed. */
	readonly user: User | undefined;
}

function clientFirst(data: Uint8Array | undefined): ClientFirst | undefined {
	const [, header, authorizationName = "", bare, saslName, nonce] = CLIENT_FIRST.exec(messageOf(data) ?? "") ?? [];
	if (header === undefined || bare === undefined || saslName === undefined || nonce === undefined) return undefined;
	if (/=(?!2C|3D)/.test(saslName)) return undefined;
	const username = saslName.replaceAll("=2C", ",").replaceAll("=3D", "=");
	const actsForItself = authorizationName === "" || authorizationName === saslName;
	return actsForItself && isPrepared(username) ? { header, bare, username, nonce } : undefined;
}

/** Checks the proof in client-final and makes server-final. */
function finished(data: Uint8Array | undefined, { first, nonce, serverFirst, verifier, user }: Exchange): AuthOutcome {
	const [, bare, binding, repeatedNonce, proofText = ""] = CLIENT_FINAL.exec(messageOf(data) ?? "") ?? [];
	if (bare === undefined) return malformed("client-final");
	if (binding !== Buffer.from(first.header).toString("base64")) return malformed("channel binding");
	if (repeatedNonce !== nonce) return malformed("nonce");
	const { hash, storedKey, serverKey } = verifier;
	const proof = Buffer.from(proofText, "base64");
	if (proof.length !== storedKey.length) return malformed("proof");
	const message = `${first.bare},${serverFirst},${bare}`;
	const signature = createHmac(hash, storedKey).update(message).digest();
	const clientKey = proof.map((byte, index) => byte ^ (signature[index] ?? 0));
	const proven = timingSafeEqual(createHash(hash).update(clientKey).digest(), storedKey);
	const serverSignature = createHmac(hash, serverKey).update(message).digest("base64");
	if (!proven || user === undefined) return refused(ReasonCode.badUserNameOrPassword, "unknown user or wrong password");
	return { kind: "granted", principal: principalOfUser(user, "scram"), authenticationData: Buffer.from(`v=${serverSignature}`) };
}

/** What an unknown user seems to have: always the same salt, and keys that nothing proves. */
function decoy(username: string, hash: ScramHash, secret: Uint8Array, rounds: number): ScramVerifier {
	const derive = (what: string) => createHmac(hash, secret).update(`${what} ${hash} ${username}`).digest();
	return { hash, salt: derive("salt").subarray(0, DECOY_SALT_BYTES), rounds, storedKey: derive("stored"), serverKey: derive("server") };
}

function messageOf(data: Uint8Array | undefined): string | undefined {
	if (data === undefined || data.length > MAX_MESSAGE_BYTES) return undefined;
	try {
		return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
	} catch {
		return undefined;
	}
}

const malformed = (part: string): Refusal => refused(ReasonCode.badUserNameOrPassword, `the ${part} of the SCRAM exchange is wrong`);
