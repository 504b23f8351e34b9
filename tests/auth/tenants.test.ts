/** What the tenant changes in authentication: whom a revocation of a client id hits, and which tokens need a tenant. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { allowEverything } from "../../src/auth/anonymous.ts";
import type { AuthOutcome, Principal } from "../../src/auth/auth.ts";
import { createAuthenticationChain } from "../../src/auth/chain.ts";
import { withHostTenant } from "../../src/auth/host_tenant.ts";
import { IGNORED, type MemberOutcome } from "../../src/auth/member.ts";
import { MemoryRevocations } from "../../src/auth/revocations.ts";
import { principalFromClaims } from "../../src/auth/token_principal.ts";
import { ClientRights } from "../../src/broker/client_rights.ts";
import { Tenancy } from "../../src/mqtt/tenancy.ts";
import { TopicTable } from "../../src/mqtt/topic.ts";
import { credentials, recordingLog, shown, TestClock } from "./auth_support.ts";

const principalOf = (tenant: string | undefined): Principal => ({
	name: "alice",
	method: "test",
	expiresAtMs: Number.POSITIVE_INFINITY,
	...(tenant !== undefined && { tenant }),
});

describe("chain: revoked client ids of tenants", () => {
	it("are named as in the broker: that of one tenant hits neither another tenant's client nor one of none", async () => {
		const clock = new TestClock();
		const refusedOnes = async (value: string): Promise<(string | undefined)[]> => {
			const revocations = new MemoryRevocations(clock);
			revocations.revoke({ kind: "clientId", value, revokedAtMs: clock.ms, expiresAtMs: Number.POSITIVE_INFINITY });
			const found: (string | undefined)[] = [];
			for (const tenant of ["acme", "bolt", undefined]) {
				const authenticate = (): MemberOutcome => ({ kind: "granted", principal: principalOf(tenant) });
				const { log } = recordingLog();
				const chain = createAuthenticationChain({ members: [{ name: "test", authenticate }], clock, log, revocations });
				if (shown(await chain.authenticate(credentials({ clientId: "x" }))) === "notAuthorized") found.push(tenant);
			}
			return found;
		};
		assert.deepEqual(await refusedOnes("$tenant/acme/x"), ["acme"]);
		assert.deepEqual(await refusedOnes("x"), [undefined]);
	});
});

describe("ClientRights: revoked client ids of tenants", () => {
	it("a live client of the tenant loses its rights, and one of another tenant does not", async () => {
		const clock = new TestClock();
		const revocations = new MemoryRevocations(clock);
		revocations.revoke({ kind: "clientId", value: "$tenant/acme/x", revokedAtMs: clock.ms, expiresAtMs: Number.POSITIVE_INFINITY });
		for (const [tenant, expected] of [
			["acme", "revoked"],
			["bolt", "unchanged"],
		] as const) {
			const tenancy = new Tenancy(tenant, new TopicTable());
			const rights = new ClientRights(allowEverything, revocations, principalOf(tenant), "x", tenancy);
			assert.equal(await rights.judge({ subscriptions: [], will: undefined }), expected);
		}
	});
});

describe("principalFromClaims: tenants", () => {
	it("a tenant or user name that is optional may be missing, and is still refused when it is not fit to be one", () => {
		const tenantOf = (claims: Record<string, unknown>, namesOptional: boolean): string | undefined => {
			const outcome = principalFromClaims({ sub: "x", exp: 1, ...claims }, { tenantClaim: "tenant", namesOptional }, "jwt", credentials());
			return outcome.kind === "granted" ? (outcome.principal.tenant ?? "none") : shown(outcome);
		};
		assert.equal(tenantOf({ tenant: "acme" }, true), "acme");
		assert.equal(tenantOf({}, true), "none");
		assert.match(`${tenantOf({}, false)}`, /^notAuthorized/);
		const named = (claims: Record<string, unknown>, namesOptional: boolean) =>
			shown(principalFromClaims({ sub: "x", exp: 1, ...claims }, { usernameClaim: "username", namesOptional }, "jwt", credentials()));
		assert.equal(named({}, true), "granted");
		assert.match(named({}, false), /^badUserNameOrPassword/);
		assert.match(named({ username: "" }, true), /^badUserNameOrPassword/);
		for (const tenant of ["", "a/b", null]) assert.match(`${tenantOf({ tenant }, true)}`, /^notAuthorized/);
	});
});

describe("withHostTenant", () => {
	const peer = (host: string | undefined) =>
		({ transport: "ws", address: "192.0.2.1", port: 1, ...(host !== undefined && { host }) }) as const;
	const ask = (host: string | undefined, outcome: MemberOutcome) =>
		withHostTenant<MemberOutcome>(() => outcome, ".example.com")(credentials({ peer: peer(host) })) as MemberOutcome;

	it("adds the tenant of the host name, and refuses a principal of another one", () => {
		const tenantOf = (outcome: MemberOutcome) => (outcome.kind === "granted" ? outcome.principal.tenant : outcome.kind);
		const granted = (tenant?: string): AuthOutcome => ({ kind: "granted", principal: principalOf(tenant) });
		assert.equal(tenantOf(ask("acme.example.com", granted())), "acme");
		assert.equal(tenantOf(ask("acme.example.com", granted("acme"))), "acme");
		assert.equal(tenantOf(ask("acme.example.com", granted("bolt"))), "refused");
		assert.equal(tenantOf(ask("acme.example.com", granted("ACME"))), "refused");
		assert.equal(tenantOf(ask("localhost", granted("bolt"))), "bolt");
		for (const host of [undefined, "", "example.com", "acme.example.com.evil"])
			assert.equal(tenantOf(ask(host, granted())), undefined, `${host}`);
		assert.equal(tenantOf(ask("acme.example.com", IGNORED)), "ignored");
	});

	it("does so at the end of an exchange, too", async () => {
		const next = (): AuthOutcome => ({ kind: "granted", principal: principalOf(undefined) });
		const outcome = ask("acme.example.com", { kind: "continue", authenticationData: new Uint8Array(), exchange: { next } });
		assert.equal(outcome.kind, "continue");
		const last = outcome.kind === "continue" ? await outcome.exchange.next(undefined) : outcome;
		assert.equal(last.kind === "granted" && last.principal.tenant, "acme");
	});
});
