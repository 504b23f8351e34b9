/** What operators manage while the broker runs, and the API by which they do: kept in the broker's store, known to all replicas. */

import type { Hono } from "hono";
import { operatorTokens } from "../auth/admin_token.ts";
import { IssuedTokens } from "../auth/issued_tokens.ts";
import { StoredRevocations } from "../auth/stored_revocations.ts";
import { StoredRules } from "../auth/stored_rules.ts";
import { StoredUsers } from "../auth/stored_users.ts";
import { LoginThrottle } from "../auth/throttle.ts";
import type { Broker } from "../broker/broker.ts";
import { systemClock } from "../clock.ts";
import type { Config } from "../config.ts";
import { createAdminApi } from "../http/admin/api.ts";
import { log } from "../log.ts";
import type { RecordStore } from "../store/records.ts";
import { AddressList } from "../transport/address.ts";
import type { ConfiguredAuth } from "./auth.ts";

/** Users, rules, revocations and bans in the store. */
export interface Managed {
	readonly records: RecordStore;
	readonly users: StoredUsers;
	readonly rules: StoredRules;
	readonly revocations: StoredRevocations;
	/** Loads what is in the store, which is open. */
	start(): Promise<void>;
	stop(): void;
}

/** Nothing is read before `start`. */
export function managedAuth(records: RecordStore): Managed {
	const clock = systemClock;
	const logger = log("managed");
	const users = new StoredUsers({ records, clock });
	const rules = new StoredRules({ records, log: logger });
	const networks = (entries: readonly string[]) => new AddressList(entries);
	const revocations = new StoredRevocations({ records, clock, log: logger, networks });
	return {
		records,
		users,
		rules,
		revocations,
		start: async () => void (await Promise.all([rules.start(), revocations.start()])),
		stop() {
			rules.close();
			revocations.close();
		},
	};
}

/** What the API needs beside these. */
export interface AdminParts {
	readonly broker: Broker;
	readonly auth: ConfiguredAuth;
	readonly version: string;
	readonly addressOf: (request: Request, env: unknown) => string;
}

/** The admin API; `undefined` where nobody could use it. `auth` is started. */
export function adminApi(config: Config, { records, users, rules, revocations }: Managed, parts: AdminParts): Hono | undefined {
	const { broker, auth, version, addressOf } = parts;
	const { adminToken: token } = config;
	if (token === undefined && auth.tokens === undefined) return undefined;
	return createAdminApi({
		access: {
			...(token !== undefined && { token }),
			...(auth.tokens !== undefined && { judge: operatorTokens(auth.tokens, revocations) }),
			throttle: new LoginThrottle({ clock: systemClock }),
			addressOf,
			log: log("admin"),
		},
		users,
		rules,
		revocations,
		...(auth.issuer !== undefined && { tokens: new IssuedTokens(records, auth.issuer) }),
		clients: { list: (after, limit) => broker.clients(after, limit), kick: (whom) => broker.kick(whom) },
		clock: systemClock,
		version,
	});
}
