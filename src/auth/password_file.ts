/**
 * Users from a text file: a line `name:hash` for each way to log in, where the hash is scrypt or a SCRAM verifier; blank lines
 * and lines that begin with `#` count for nothing. Read again when it has changed; a broken file changes nothing.
 */

import { readFileSync, statSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import type { Logger } from "../log.ts";
import { usableName } from "./identity.ts";
import { DEFAULT_SCRYPT_COST, hashCost, hashPassword, isPasswordHash, type ScryptCost } from "./password_hash.ts";
import { formatScramVerifier, isPrepared, parseScramVerifier, SCRAM_HASHES, scramVerifier } from "./scram_verifier.ts";
import type { User, UserSource } from "./users.ts";

export interface PasswordFileOptions {
	readonly log: Logger;
	/** Between two looks at the file. Default 3 000; 0 for never. */
	readonly checkEveryMs?: number;
}

const MAX_FILE_BYTES = 67_108_864;

/** A password file that cannot be used. The message has file and line, and never what stands there. */
export class PasswordFileError extends Error {
	override readonly name = "PasswordFileError";
}

/** Lines for a new user or a new password: scrypt for `password.ts`, and verifiers for SCRAM where the password allows them. */
export async function passwordLines(username: string, password: string, cost: ScryptCost = DEFAULT_SCRYPT_COST): Promise<string[]> {
	if (!nameFitsFile(username))
		throw new TypeError("A user name for the password file has no colon, no # or space at its ends and no control characters");
	const lines = [`${username}:${await hashPassword(password, cost)}`];
	if (isPrepared(username) && isPrepared(password)) {
		const verifiers = await Promise.all(SCRAM_HASHES.map((hash) => scramVerifier(password, hash)));
		lines.push(...verifiers.map((verifier) => `${username}:${formatScramVerifier(verifier)}`));
	}
	return lines;
}

/** Reads the file, and again whenever it changes. @throws {PasswordFileError} when it is missing, broken or without users. */
export class PasswordFile implements UserSource {
	readonly #path: string;
	readonly #log: Logger;
	readonly #timer: ReturnType<typeof setInterval> | undefined;
	#content: Content;
	/** What the file looked like when it was read last, well or badly. */
	#seen: string;

	constructor(path: string, { log, checkEveryMs = 3_000 }: PasswordFileOptions) {
		this.#path = path;
		this.#log = log;
		try {
			this.#seen = versionOf(statSync(path));
			this.#content = parsed(readFileSync(path, "utf8"), path);
		} catch (error) {
			if (error instanceof PasswordFileError) throw error;
			throw new PasswordFileError(`The password file ${path} cannot be read`, { cause: error });
		}
		if (checkEveryMs > 0) {
			this.#timer = setInterval(() => void this.check(), checkEveryMs);
			this.#timer.unref();
		}
	}

	find(username: string): User | undefined {
		return this.#content.users.get(username);
	}

	get costliestHash(): string | undefined {
		return this.#content.costliestHash;
	}

	get scramRounds(): number | undefined {
		return this.#content.scramRounds;
	}

	/** Reads the file if it is another than last time. Trouble is logged, and the users stay. */
	async check(): Promise<void> {
		try {
			const version = versionOf(await stat(this.#path));
			if (version === this.#seen) return;
			this.#seen = version;
			this.#content = parsed(await readFile(this.#path, "utf8"), this.#path);
			this.#log.info("The password file has changed", { file: this.#path, users: this.#content.users.size });
		} catch (error) {
			this.#log.error("The password file cannot be read; the users stay as they were", { file: this.#path, error });
		}
	}

	/** Stops looking at the file. */
	close(): void {
		clearInterval(this.#timer);
	}
}

interface Content {
	readonly users: ReadonlyMap<string, User>;
	readonly costliestHash: string | undefined;
	readonly scramRounds: number | undefined;
}

/** A file that is replaced has another inode, one that is written another time or size. */
function versionOf({ ino, mtimeMs, size }: { readonly ino: number; readonly mtimeMs: number; readonly size: number }): string {
	if (size > MAX_FILE_BYTES) throw new RangeError(`The file has ${size} bytes: at most ${MAX_FILE_BYTES} are read`);
	return `${ino} ${mtimeMs} ${size}`;
}

function parsed(text: string, path: string): Content {
	const users = new Map<string, User>();
	let costliestHash: string | undefined;
	let scramRounds: number | undefined;
	for (const [index, line] of text
		.replace(/^\uFEFF/, "")
		.split(/\r?\n/)
		.entries()) {
		if (line.trim() === "" || line.startsWith("#")) continue;
		const fail = (problem: string) => new PasswordFileError(`${path}:${index + 1}: ${problem}`);
		const colon = line.indexOf(":");
		if (colon < 0) throw fail("there is no colon: write name:hash");
		const username = line.slice(0, colon);
		const hash = line.slice(colon + 1).trim();
		if (!nameFitsFile(username)) throw fail("the user name is empty, too long, or has spaces at its ends or control characters");
		const user = users.get(username) ?? { username };
		const scram = parseScramVerifier(hash);
		if (scram !== undefined) {
			if (user.scram?.[scram.hash] !== undefined) throw fail("this user has a verifier of that kind already");
			users.set(username, { ...user, scram: { ...user.scram, [scram.hash]: scram } });
			scramRounds ??= scram.rounds;
		} else if (isPasswordHash(hash)) {
			if (user.passwordHash !== undefined) throw fail("this user has a password already");
			users.set(username, { ...user, passwordHash: hash });
			if (costliestHash === undefined || hashCost(hash) > hashCost(costliestHash)) costliestHash = hash;
		} else throw fail("the hash is neither $scrypt$… nor SCRAM-SHA-256$… in the form and strength that is taken");
	}
	if (users.size === 0) throw new PasswordFileError(`${path}: there is no user; without authentication, leave the setting away`);
	return { users, costliestHash, scramRounds };
}

function nameFitsFile(username: string): boolean {
	return usableName(username) !== undefined && username.trim() === username && !username.includes(":") && !username.startsWith("#");
}
