/** Clients that bring a user name and a password. Unknown user and wrong password get the same answer after the same time. */

import { randomBytes } from "node:crypto";
import { ReasonCode } from "../mqtt/reason_code.ts";
import { type ChainMember, IGNORED, refused } from "./member.ts";
import { hashPassword, type PasswordVerifier } from "./password_hash.ts";
import { principalOfUser, type UserSource } from "./users.ts";

export interface PasswordOptions {
	readonly users: UserSource;
	/** Shared by everybody who verifies passwords, so that its limits hold for all. */
	readonly verifier: PasswordVerifier;
}

/** Makes the member. Refuses with 0x86, and with 0x97 while too many passwords wait to be verified. */
export async function passwordMember({ users, verifier }: PasswordOptions): Promise<ChainMember> {
	const nobodysHash = await hashPassword(randomBytes(32));
	return {
		name: "password",
		async authenticate({ authenticationMethod, username, password }) {
			if (authenticationMethod !== undefined || username === undefined || password === undefined) return IGNORED;
			const user = await users.find(username);
			const hash = user?.passwordHash ?? users.costliestHash ?? nobodysHash;
			const matches = await verifier.verify(password, hash, user?.passwordHash === undefined);
			if (matches === undefined) return refused(ReasonCode.quotaExceeded, "too many passwords wait to be verified", false);
			// An unknown user's password is held against the hash of somebody else, which it may even match.
			if (!matches || user?.passwordHash === undefined) {
				return refused(ReasonCode.badUserNameOrPassword, "unknown user or wrong password");
			}
			return { kind: "granted", principal: principalOfUser(user, "password") };
		},
	};
}
