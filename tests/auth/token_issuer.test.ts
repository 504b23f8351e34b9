/** Tokens that this server signs itself. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decodeJwt, decodeProtectedHeader } from "jose";
import { jwtMember } from "../../src/auth/jwt.ts";
import { jwkSource, type KeySource } from "../../src/auth/key_source.ts";
import { generateSigningKey, OWN_CLAIMS, TokenIssuer } from "../../src/auth/token_issuer.ts";
import { issuerKey } from "../support/jwks_server.ts";
import { credentials, grantedTo, shown, TestClock } from "./auth_support.ts";

const clock = new TestClock();
const [first, second, third] = [await generateSigningKey(), await generateSigningKey(), await generateSigningKey()];
const open = (...keys: Parameters<typeof TokenIssuer.open>[0]["keys"]) =>
	TokenIssuer.open({ issuer: "https://shoal.example", audience: "shoal", keys, clock });

function login(token: string, keys: KeySource, fields: Parameters<typeof credentials>[0] = {}) {
	const member = jwtMember({
		clock,
		issuers: [{ keys, issuer: "https://shoal.example", audience: ["shoal"], clientIdClaim: OWN_CLAIMS.clientIdClaim, bindClientId: true }],
	});
	return member.authenticate(credentials({ username: "x", password: token, ...fields }));
}

describe("token issuer", () => {
	it("a token logs in with its own keys and with the published ones, bound to its client id, until its end", async () => {
		const issuer = await open(first);
		const issued = await issuer.issue({ subject: "alice", clientId: "d1", acl: { pub: ["a/b"] }, lifetimeSeconds: 60 });
		for (const keys of [issuer.keys, jwkSource(issuer.jwks())]) {
			const principal = grantedTo(await login(issued.token, keys));
			assert.deepEqual([principal.name, principal.boundClientId, principal.tokenId], ["alice", "d1", issued.jti]);
			assert.deepEqual([principal.issuedAtMs, principal.expiresAtMs], [clock.ms, clock.ms + 60_000]);
			assert.equal(principal.grants?.rules.length, 1);
			assert.equal(
				shown(await login(issued.token, keys, { clientId: "d2" })),
				"clientIdentifierNotValid: the token is for another client id",
			);
		}
		assert.deepEqual([issued.issuedAtMs, issued.expiresAtMs], [clock.ms, clock.ms + 60_000]);
	});

	it("the subject is the client id unless another is named, and every token has its own id", async () => {
		const issuer = await open(first);
		const [one, two] = [
			await issuer.issue({ subject: "d1", lifetimeSeconds: 1 }),
			await issuer.issue({ subject: "d1", lifetimeSeconds: 1 }),
		];
		assert.notEqual(one.jti, two.jti);
		assert.equal(decodeJwt(one.token).client_id, "d1");
		assert.deepEqual(decodeProtectedHeader(one.token), { alg: "EdDSA", kid: first.kid, typ: "JWT" });
	});

	it("after a rotation the tokens of the key before are good, those of the one before that no more", async () => {
		const issuer = await open(first);
		const old = await issuer.issue({ subject: "d1", lifetimeSeconds: 60 });
		await issuer.rotate(second);
		const newer = await issuer.issue({ subject: "d1", lifetimeSeconds: 60 });
		assert.equal(decodeProtectedHeader(newer.token).kid, second.kid);
		assert.equal(shown(await login(old.token, issuer.keys)), "granted");
		assert.equal(shown(await login(newer.token, issuer.keys)), "granted");
		assert.deepEqual(
			issuer.jwks().keys.map(({ kid }) => kid),
			[second.kid, first.kid],
		);
		await issuer.rotate(third);
		assert.equal(shown(await login(old.token, issuer.keys)), "badUserNameOrPassword: no key fits the token");
		assert.equal(shown(await login(newer.token, issuer.keys)), "granted");
	});

	it("two replicas with the same keys verify each other's tokens, also when one rotated first", async () => {
		const [one, two] = [await open(first), await open(second, first)];
		assert.equal(shown(await login((await one.issue({ subject: "a", lifetimeSeconds: 9 })).token, two.keys)), "granted");
	});

	it("the published keys have no private part", async () => {
		for (const key of (await open(first, second)).jwks().keys)
			assert.deepEqual(Object.keys(key).sort(), ["alg", "crv", "kid", "kty", "use", "x"]);
	});

	it("what could not be used is not signed", async () => {
		const issuer = await open(first);
		for (const lifetimeSeconds of [0, -1, 0.5, Number.NaN, 31_536_001])
			await assert.rejects(issuer.issue({ subject: "a", lifetimeSeconds }), RangeError);
		for (const fields of [{ subject: "" }, { subject: "a\0" }, { clientId: "" }, { username: "" }, { tenant: "a/b" }]) {
			await assert.rejects(issuer.issue({ subject: "a", lifetimeSeconds: 1, ...fields }), TypeError);
		}
		await assert.rejects(issuer.issue({ subject: "a", lifetimeSeconds: 1, acl: 7 }), { name: "TokenGrantsError" });
	});

	it("a key that is not a private Ed25519 key does not open it", async () => {
		const { publicJwk } = await issuerKey("EdDSA");
		await assert.rejects(open(), TypeError);
		await assert.rejects(open(first, second, third), TypeError);
		await assert.rejects(open(publicJwk), TypeError);
		await assert.rejects(open({ ...first, crv: "X25519" }), TypeError);
	});
});
