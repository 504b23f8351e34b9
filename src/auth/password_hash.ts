/**
 * Hashes of passwords: scrypt in the PHC string format, computed off the event loop, and only so many at a time, because each
 * takes tens of milliseconds and as many megabytes. Knows no users.
 */

import { createHmac, randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { availableParallelism } from "node:os";
import type { Clock } from "../clock.ts";
import { makeRoom } from "./make_room.ts";

/** What a hash costs: 128 · 2^`logN` · `blockSize` bytes of memory, and time in proportion, `parallel` times. */
export interface ScryptCost {
	/** 10–17. */
	readonly logN: number;
	/** 1–16. */
	readonly blockSize: number;
	/** 1–4. */
	readonly parallel: number;
}

/** 32 MB. */
export const DEFAULT_SCRYPT_COST: ScryptCost = { logN: 15, blockSize: 8, parallel: 1 };

const SALT_BYTES = 16;
const HASH_BYTES = 32;
/** Beyond this nobody types or generates one; MQTT allows 65 535. */
const MAX_PASSWORD_BYTES = 1024;
const PHC = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d)\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{43,86})$/;

interface ParsedHash {
	readonly cost: ScryptCost;
	readonly salt: Uint8Array;
	readonly hash: Uint8Array;
}

/** Hashes a new password: `$scrypt$ln=15,r=8,p=1$salt$hash`. @throws {RangeError} for an empty password, or one over 1 KB. */
export async function hashPassword(password: string | Uint8Array, cost: ScryptCost = DEFAULT_SCRYPT_COST): Promise<string> {
	const bytes = Buffer.from(password);
	if (bytes.length === 0 || bytes.length > MAX_PASSWORD_BYTES) throw new RangeError(`A password of ${bytes.length} bytes: use 1 to 1024`);
	const salt = randomBytes(SALT_BYTES);
	const hash = await derived(bytes, salt, HASH_BYTES, cost);
	return `$scrypt$ln=${cost.logN},r=${cost.blockSize},p=${cost.parallel}$${unpadded(salt)}$${unpadded(hash)}`;
}

/** Whether a text is a hash that this server verifies: the right form, and neither too weak nor too costly. */
export function isPasswordHash(text: string): boolean {
	return parsed(text) !== undefined;
}

/** What a hash costs relative to others; 0 for what is no hash. */
export function hashCost(text: string): number {
	const cost = parsed(text)?.cost;
	return cost === undefined ? 0 : 2 ** cost.logN * cost.blockSize * cost.parallel;
}

function parsed(text: string): ParsedHash | undefined {
	const [, ln, r, p, salt = "", hash = ""] = PHC.exec(text) ?? [];
	const cost = { logN: Number(ln), blockSize: Number(r), parallel: Number(p) };
	const { logN, blockSize, parallel } = cost;
	const usable = logN >= 10 && logN <= 17 && blockSize >= 1 && blockSize <= 16 && parallel >= 1 && parallel <= 4;
	return usable ? { cost, salt: Buffer.from(salt, "base64"), hash: Buffer.from(hash, "base64") } : undefined;
}

function derived(password: Uint8Array, salt: Uint8Array, length: number, { logN, blockSize, parallel }: ScryptCost): Promise<Uint8Array> {
	const options = { N: 2 ** logN, r: blockSize, p: parallel, maxmem: 256 * 2 ** logN * blockSize + 1_048_576 };
	return new Promise((resolve, reject) => {
		scrypt(password, salt, length, options, (error, key) => (error ? reject(error) : resolve(key)));
	});
}

const unpadded = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64").replaceAll("=", "");

export interface HashLimits {
	readonly clock: Clock;
	/** Hashes computed at the same time. Default one less than there are processors, 1 to 4, so that the event loop keeps one. */
	readonly concurrency?: number;
	/** Hashes that wait. Default 200. */
	readonly maxWaiting?: number;
	/**
	 * How long a right password is known again without hashing it, from when it was hashed, so that clients that all come back at
	 * once do not wait for each other. Kept under a key that lives in memory only. Default 300 000; 0 for never.
	 */
	readonly rememberMs?: number;
	/** Right passwords that are remembered; the oldest makes room. Default 20 000. */
	readonly maxRemembered?: number;
}

/** Verifies passwords, a few at a time. One for all who verify. */
export class PasswordVerifier {
	readonly #clock: Clock;
	readonly #concurrency: number;
	readonly #maxWaiting: number;
	readonly #rememberMs: number;
	readonly #maxRemembered: number;
	readonly #waiting: (() => void)[] = [];
	/** When to forget a right pair of password and hash, the oldest first. */
	readonly #remembered = new Map<string, number>();
	readonly #secret = randomBytes(32);
	#running = 0;

	constructor(limits: HashLimits) {
		const spare = Math.min(4, Math.max(1, availableParallelism() - 1));
		this.#clock = limits.clock;
		this.#concurrency = limits.concurrency ?? spare;
		this.#maxWaiting = limits.maxWaiting ?? 200;
		this.#rememberMs = limits.rememberMs ?? 300_000;
		this.#maxRemembered = limits.maxRemembered ?? 20_000;
	}

	/**
	 * Whether a password is that of a hash. A wrong one takes time that depends on the cost of the hash only. Answers `undefined`
	 * when too many are waiting. With `unknown`, for a hash that stands for an unknown user's, nothing is remembered: a fast answer
	 * would tell that the hash is somebody else's. @throws {TypeError} when the hash is none.
	 */
	async verify(password: Uint8Array, text: string, unknown = false): Promise<boolean | undefined> {
		const expected = parsed(text);
		if (expected === undefined) throw new TypeError("The hash of a password is not in the form $scrypt$ln=..,r=..,p=..$salt$hash");
		const key = createHmac("sha256", this.#secret).update(text).update("\0").update(password).digest("base64");
		if (!unknown && (this.#remembered.get(key) ?? 0) > this.#clock.nowMs()) return true;
		if (this.#running >= this.#concurrency && this.#waiting.length >= this.#maxWaiting) return undefined;
		await this.#turn();
		try {
			// What is too long is hashed all the same, cut: its length is no secret, but the answer must take as long.
			const hash = await derived(password.subarray(0, MAX_PASSWORD_BYTES), expected.salt, expected.hash.length, expected.cost);
			const right = timingSafeEqual(hash, expected.hash) && password.length <= MAX_PASSWORD_BYTES;
			if (right && !unknown) this.#remember(key);
			return right;
		} finally {
			const next = this.#waiting.shift();
			if (next === undefined) this.#running--;
			else next();
		}
	}

	#remember(key: string): void {
		if (this.#rememberMs <= 0) return;
		this.#remembered.delete(key);
		makeRoom(this.#remembered, this.#maxRemembered);
		this.#remembered.set(key, this.#clock.nowMs() + this.#rememberMs);
	}

	/** Waits for a place, which whoever ends hands on. */
	#turn(): Promise<void> | undefined {
		if (this.#running < this.#concurrency) {
			this.#running++;
			return undefined;
		}
		return new Promise((resolve) => {
			this.#waiting.push(resolve);
		});
	}
}
