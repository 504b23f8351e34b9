/**
 * Users that operators manage in the store. Asked for at each login rather than kept, so a change counts at once everywhere.
 * Knows how a password becomes hashes; nobody gets these, or a password, out of here again but those who verify.
 */

import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../clock.ts";
import type { Grants, Rule } from "./grants.ts";
import { type ManagedRecord, type ManagedRecords, type Page, pageOf } from "./managed.ts";
import { DEFAULT_SCRYPT_COST, hashCost, hashPassword, isPasswordHash, type ScryptCost } from "./password_hash.ts";
import { grantedRulesSchema } from "./rule_schema.ts";
import {
	DEFAULT_SCRAM_ROUNDS,
	formatScramVerifier,
	isPrepared,
	parseScramVerifier,
	SCRAM_HASHES,
	SCRAM_METHODS,
	type ScramVerifier,
	scramVerifier,
} from "./scram_verifier.ts";
import type { User, UserSource } from "./users.ts";

/** What an operator says of a user. What is absent is taken away, but for the password, which stays. */
export interface UserSettings {
	readonly password?: string;
	/** Whether SCRAM may be used as well. Default `true`, as far as name and password allow it. */
	readonly scram?: boolean;
	/** The only client id that it may use. */
	readonly clientId?: string;
	readonly tenant?: string;
	/** Its own rules; absent means that only the configured rules count. */
	readonly rules?: readonly Rule[];
	/** What happens where none of its own rules matches. Default `deny`. */
	readonly unmatched?: Grants["unmatched"];
}

/** What is shown of a user. */
export interface ManagedUser extends Omit<UserSettings, "password" | "scram"> {
	readonly username: string;
	/** How it can log in: `password`, `SCRAM-SHA-256` and the like. */
	readonly methods: readonly string[];
	readonly createdAtMs: number;
	readonly updatedAtMs: number;
}

export interface StoredUsersOptions {
	readonly records: ManagedRecords;
	readonly clock: Clock;
	readonly cost?: ScryptCost;
	readonly scramRounds?: number;
}

const KIND = "user";

const verifierText = z.string().transform((text, context): ScramVerifier => {
	const verifier = parseScramVerifier(text);
	if (verifier !== undefined) return verifier;
	context.addIssue({ code: "custom", message: "it is no verifier" });
	return z.NEVER;
});

/** Strict: a word that is not known may have been a restriction. */
const valueSchema = z.strictObject({
	passwordHash: z.string().refine(isPasswordHash),
	scram: z.strictObject({ sha256: verifierText.optional(), sha512: verifierText.optional() }),
	clientId: z.string().optional(),
	tenant: z.string().optional(),
	rules: grantedRulesSchema.optional(),
	unmatched: z.enum(["deny", "rules"]).optional(),
	createdAtMs: z.number(),
	updatedAtMs: z.number(),
});
type UserRecord = z.infer<typeof valueSchema>;

/** Users in the store. */
export class StoredUsers implements UserSource {
	readonly #records: ManagedRecords;
	readonly #clock: Clock;
	readonly #cost: ScryptCost;
	/** Nobody's, of the cost of all. */
	readonly costliestHash: string;
	readonly scramRounds: number;

	constructor({ records, clock, cost = DEFAULT_SCRYPT_COST, scramRounds = DEFAULT_SCRAM_ROUNDS }: StoredUsersOptions) {
		this.#records = records;
		this.#clock = clock;
		this.#cost = cost;
		this.costliestHash = hashOfNothing(cost);
		this.scramRounds = scramRounds;
	}

	/** Rejects when the store cannot be asked, and for a record that cannot be read. */
	async find(username: string): Promise<User | undefined> {
		// A name that was never taken is no reason to fail.
		if (username === "") return undefined;
		const record = await this.#records.get(KIND, username);
		return record === undefined ? undefined : userOf(username, parsed(record));
	}

	async get(username: string): Promise<ManagedUser | undefined> {
		const record = await this.#records.get(KIND, username);
		return record === undefined ? undefined : shownRecord(record);
	}

	/** In the order of their names. */
	list(after: string | undefined, limit: number): Promise<Page<ManagedUser>> {
		return pageOf(this.#records, KIND, after, limit, shownRecord);
	}

	/**
	 * Stores a user, in the place of one with its name. Answers `undefined`, having stored nothing, for a new one without password.
	 * @throws {RangeError} for a password that cannot be hashed: empty, or over 1 KB
	 */
	async put(username: string, settings: UserSettings): Promise<{ readonly user: ManagedUser; readonly created: boolean } | undefined> {
		const record = await this.#records.get(KIND, username);
		const before = record === undefined ? undefined : valueSchema.safeParse(record.value).data;
		const { password, scram, ...rest } = settings;
		if (password === undefined && before === undefined) return undefined;
		const secrets = password === undefined ? secretsOf(before as UserRecord, scram) : await this.#secrets(username, password, scram);
		const nowMs = this.#clock.nowMs();
		const value = { ...secrets, ...rest, createdAtMs: before?.createdAtMs ?? nowMs, updatedAtMs: nowMs };
		await this.#records.put(KIND, username, value);
		return { user: shown(username, valueSchema.parse(value)), created: before === undefined };
	}

	/** Answers whether there was one. Its connections are not ended by that. */
	delete(username: string): Promise<boolean> {
		return this.#records.delete(KIND, username);
	}

	async #secrets(username: string, password: string, scram = true): Promise<Secrets> {
		const hashes = scram && isPrepared(username) && isPrepared(password) ? SCRAM_HASHES : [];
		const [passwordHash, ...verifiers] = await Promise.all([
			hashPassword(password, this.#cost),
			...hashes.map(async (hash) => [hash, formatScramVerifier(await scramVerifier(password, hash, this.scramRounds))] as const),
		]);
		return { passwordHash, scram: Object.fromEntries(verifiers) };
	}
}

/** A hash in the right form that no password has. */
function hashOfNothing({ logN, blockSize, parallel }: ScryptCost): string {
	const unpadded = (bytes: number): string => randomBytes(bytes).toString("base64").replaceAll("=", "");
	return `$scrypt$ln=${logN},r=${blockSize},p=${parallel}$${unpadded(16)}$${unpadded(32)}`;
}

/** Several sources as one: the first that knows a name has it. */
export function usersOf(sources: readonly UserSource[]): UserSource {
	return {
		async find(username) {
			for (const source of sources) {
				const user = await source.find(username);
				if (user !== undefined) return user;
			}
			return undefined;
		},
		get costliestHash() {
			const hashes = sources.map((source) => source.costliestHash).filter((hash) => hash !== undefined);
			return hashes.sort((a, b) => hashCost(b) - hashCost(a))[0];
		},
		get scramRounds() {
			return sources.map((source) => source.scramRounds).find((rounds) => rounds !== undefined);
		},
	};
}

/** As they are stored. */
interface Secrets {
	readonly passwordHash: string;
	readonly scram: Readonly<Record<string, string>>;
}

/** Those that were stored: SCRAM cannot be added without the password. */
function secretsOf({ passwordHash, scram }: UserRecord, keepScram = true): Secrets {
	const verifiers = keepScram ? Object.values(scram).filter((verifier) => verifier !== undefined) : [];
	return { passwordHash, scram: Object.fromEntries(verifiers.map((verifier) => [verifier.hash, formatScramVerifier(verifier)])) };
}

/** One that cannot be read is shown as a user that cannot log in: it can be put again, with a password, or deleted. */
function shownRecord({ key, value }: ManagedRecord): ManagedUser {
	const result = valueSchema.safeParse(value);
	return result.success ? shown(key, result.data) : { username: key, methods: [], createdAtMs: 0, updatedAtMs: 0 };
}

/** The message says nothing of what the record holds. */
function parsed({ key, value }: ManagedRecord): UserRecord {
	const result = valueSchema.safeParse(value);
	if (result.success) return result.data;
	throw new TypeError(`The stored user "${key}" cannot be read. Was it written by a newer version? Put it again, or delete it`);
}

function userOf(username: string, { passwordHash, scram, clientId, tenant, rules, unmatched = "deny" }: UserRecord): User {
	const { sha256, sha512 } = scram;
	return {
		username,
		passwordHash,
		scram: { ...(sha256 !== undefined && { sha256 }), ...(sha512 !== undefined && { sha512 }) },
		...(clientId !== undefined && { clientId }),
		...(tenant !== undefined && { tenant }),
		...(rules !== undefined && { grants: { rules, claims: {}, unmatched } }),
	};
}

function shown(username: string, { scram, clientId, tenant, rules, unmatched, createdAtMs, updatedAtMs }: UserRecord): ManagedUser {
	const methods = ["password", ...SCRAM_HASHES.filter((hash) => scram[hash] !== undefined).map((hash) => SCRAM_METHODS[hash])];
	return {
		username,
		methods,
		...(clientId !== undefined && { clientId }),
		...(tenant !== undefined && { tenant }),
		...(rules !== undefined && { rules }),
		...(unmatched !== undefined && { unmatched }),
		createdAtMs,
		updatedAtMs,
	};
}
