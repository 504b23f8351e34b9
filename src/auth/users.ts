/** Users as those see them who check passwords: by name, with hashes. Knows no file and no store. */

import type { Principal } from "./auth.ts";
import type { ScramHash, ScramVerifier } from "./scram_verifier.ts";

export interface User {
	readonly username: string;
	/** Of the password, as `password_hash.ts` writes it; absent when it logs in otherwise only. */
	readonly passwordHash?: string;
	/** For SCRAM, by hash. */
	readonly scram?: Partial<Readonly<Record<ScramHash, ScramVerifier>>>;
	/** The only client id that it may use. */
	readonly clientId?: string;
	readonly tenant?: string;
	readonly grants?: Principal["grants"];
}

export interface UserSource {
	/** The user of that very name. A rejection means that nobody knows: the client gets 0x88. */
	find(username: string): User | undefined | Promise<User | undefined>;
	/** The most costly hash in use, so that an unknown user costs as much as a known one. */
	readonly costliestHash?: string | undefined;
	/** Rounds of the SCRAM verifiers in use, for the same reason. */
	readonly scramRounds?: number | undefined;
}

/** Who a user is once it has proven that it is. */
export function principalOfUser(user: User, method: string): Principal {
	const { username, clientId, tenant, grants } = user;
	return {
		name: username,
		method,
		expiresAtMs: Number.POSITIVE_INFINITY,
		username,
		...(clientId !== undefined && { clientId, boundClientId: clientId }),
		...(tenant !== undefined && { tenant }),
		...(grants !== undefined && { grants }),
	};
}
