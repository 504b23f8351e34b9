/** Clients of two tenants and of none, on one broker or on two replicas of it, that speak any version. */

import assert from "node:assert/strict";
import { type Login, login, SECRET, token } from "./auth_clients.ts";
import type { AnyPacket, RawClient } from "./raw_client.ts";

/** Settings of a broker whose tokens name a tenant, and that lets anonymous clients in, which have none. */
export const TENANTS = {
	jwtSecret: SECRET,
	jwtTenantClaim: "tenant",
	allowAnonymous: true,
	aclDefault: "allow",
	trustedProxies: "1",
} as const;
/** The same for processes. */
export const TENANTS_ENV = {
	JWT_SECRET: SECRET,
	JWT_TENANT_CLAIM: "tenant",
	ALLOW_ANONYMOUS: "true",
	ACL_DEFAULT: "allow",
	TRUSTED_PROXIES: "1",
} as const;

export type Tenant = "acme" | "bolt" | undefined;
/** Two tenants, and those that are of none. */
export const SPACES: readonly Tenant[] = ["acme", "bolt", undefined];

/** What a test connects to: publishers to `a` and everybody else to `b`, which may be the same. */
export interface Places {
	readonly a: { readonly wsPort: number };
	readonly b: { readonly wsPort: number };
}

/** What a client of a tenant brings. */
export async function credentials(tenant: Tenant): Promise<Login> {
	return tenant === undefined ? {} : { token: await token({ tenant }) };
}

/** Connects as a client of a tenant; fails unless it is let in. */
export async function member(place: { readonly wsPort: number }, tenant: Tenant, options: Login = {}): Promise<RawClient> {
	return login(place, { ...(await credentials(tenant)), ...options });
}

/** The next message, which must be this one. QoS ≥ 1 is acknowledged. */
export async function takes(client: RawClient, topic: string, payload: string, fields: AnyPacket = {}): Promise<AnyPacket> {
	const message = await client.expect("publish", { topic, payload, ...fields });
	if (message.qos === 1) client.send({ cmd: "puback", messageId: message.messageId });
	if (message.qos === 2) {
		client.send({ cmd: "pubrec", messageId: message.messageId });
		await client.expect("pubrel", { messageId: message.messageId });
		client.send({ cmd: "pubcomp", messageId: message.messageId });
	}
	return message;
}

/** Subscribes and says what was granted. */
export async function subscribes(client: RawClient, filter: string, qos: 0 | 1 | 2 = 1, options: AnyPacket = {}): Promise<void> {
	const suback = await client.subscribe(filter, { qos, ...options });
	assert.deepEqual([...suback.granted], [qos], `SUBACK for ${filter}`);
}
