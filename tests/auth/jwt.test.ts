/** Tokens: which are accepted, which are refused and why, and what their claims make of a client. */

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { describe, it } from "node:test";
import { EncryptJWT } from "jose";
import { JWT_METHOD, type JwtIssuer, type JwtOptions, jwtMember } from "../../src/auth/jwt.ts";
import { jwkSource, pemSource, secretSource } from "../../src/auth/key_source.ts";
import type { MemberOutcome } from "../../src/auth/member.ts";
import { forgedToken, type IssuerKey, issuerKey, signToken } from "../support/jwks_server.ts";
import { credentials, grantedTo, shown, TestClock } from "./auth_support.ts";

const clock = new TestClock();
const exp = clock.seconds + 60;
const es256 = await issuerKey("ES256");
const claims = { iss: "https://issuer.example", aud: "mqtt", sub: "alice", exp };
const expected = { issuer: "https://issuer.example", audience: ["mqtt"] };
const ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"];

function member(issuer: Partial<JwtIssuer> = {}, options: Partial<JwtOptions> = {}) {
	return jwtMember({ clock, issuers: [{ keys: jwkSource(es256.publicJwk), ...expected, ...issuer }], ...options });
}

async function login(
	token: string,
	issuer: Partial<JwtIssuer> = {},
	fields: Parameters<typeof credentials>[0] = {},
	options: Partial<JwtOptions> = {},
): Promise<MemberOutcome> {
	return member(issuer, options).authenticate(credentials({ username: "anything", password: token, ...fields }));
}

const hmacToken = (secret: string | Uint8Array, header: Readonly<Record<string, unknown>>, payload: unknown = claims, hash = "sha256") => {
	const unsigned = forgedToken(header, payload, "");
	return unsigned + createHmac(hash, secret).update(unsigned.slice(0, -1)).digest("base64url");
};

describe("jwt: keys and algorithms (FAULTS 35)", () => {
	for (const algorithm of ASYMMETRIC) {
		it(`a token signed with ${algorithm} is accepted with its public key as JWK and as PEM`, async () => {
			const key = await issuerKey(algorithm);
			const token = await signToken(key, claims);
			assert.equal(grantedTo(await login(token, { keys: jwkSource({ keys: [key.publicJwk] }) })).name, "alice");
			assert.equal(grantedTo(await login(token, { keys: pemSource(key.publicPem) })).name, "alice");
		});
	}

	for (const [algorithm, hash, bytes] of [
		["HS256", "sha256", 32],
		["HS384", "sha384", 48],
		["HS512", "sha512", 64],
	] as const) {
		it(`a token signed with ${algorithm} is accepted with a secret of ${bytes} bytes, and with one byte less it is not`, async () => {
			const secret = Buffer.alloc(64, 7);
			const sign = (length: number) => hmacToken(secret.subarray(0, length), { alg: algorithm }, claims, hash);
			assert.equal(grantedTo(await login(sign(bytes), { keys: secretSource(secret.subarray(0, bytes)) })).name, "alice");
			if (bytes === 32) assert.throws(() => secretSource(secret.subarray(0, 31)), RangeError);
			else {
				const outcome = await login(sign(bytes - 1), { keys: secretSource(secret.subarray(0, bytes - 1)) });
				assert.equal(shown(outcome), "badUserNameOrPassword: no key fits the token");
			}
		});
	}

	it("alg none is refused, in every spelling and with and without a signature", async () => {
		for (const alg of ["none", "None", "NONE", "nOnE", ""]) {
			for (const signature of ["", "AAAA"]) {
				assert.match(shown(await login(forgedToken({ alg }, claims, signature))), /^badUserNameOrPassword: /);
			}
		}
	});

	it("an HMAC with a public key as its secret is refused, whatever text of the key was the secret", async () => {
		for (const algorithm of ["RS256", "ES256", "EdDSA"]) {
			const key = await issuerKey(algorithm);
			for (const secret of [
				key.publicPem,
				key.publicPem.trim(),
				JSON.stringify(key.publicJwk),
				Buffer.from(String(key.publicJwk.x ?? key.publicJwk.n), "base64url"),
			]) {
				for (const keys of [pemSource(key.publicPem), jwkSource(key.publicJwk)]) {
					const outcome = await login(hmacToken(secret, { alg: "HS256", kid: key.kid }), { keys });
					assert.equal(shown(outcome), "badUserNameOrPassword: no key fits the token");
				}
			}
		}
	});

	it("an algorithm of another key type is refused", async () => {
		for (const alg of ASYMMETRIC.filter((name) => name !== "ES256")) {
			const token = (await signToken(es256, claims)).replace(/^[^.]+/, forgedToken({ alg }, {}).split(".")[0] ?? "");
			assert.equal(shown(await login(token)), "badUserNameOrPassword: no key fits the token");
		}
	});

	it("a list of algorithms narrows what the key could verify", async () => {
		const key = await issuerKey("RS256");
		const token = await signToken(key, claims);
		const keys = jwkSource(key.publicJwk);
		assert.equal(shown(await login(token, { keys, algorithms: ["RS256"] })), "granted");
		assert.equal(shown(await login(token, { keys, algorithms: ["PS256"] })), "badUserNameOrPassword: the token's algorithm is not allowed");
	});

	it("private, secret, weak and unknown keys are not taken as public keys", async () => {
		const { privateKey } = await (await import("jose")).generateKeyPair("ES256", { extractable: true });
		const { exportJWK, exportPKCS8 } = await import("jose");
		assert.throws(() => jwkSource({ kty: "oct", k: "AAAA" }), TypeError);
		assert.throws(() => jwkSource({ keys: [] }), TypeError);
		assert.throws(() => jwkSource({ ...es256.publicJwk, use: "enc" }), TypeError);
		assert.throws(() => jwkSource({ ...es256.publicJwk, alg: "RS256" }), TypeError);
		assert.throws(() => jwkSource({ kty: "RSA", n: Buffer.alloc(128, 255).toString("base64url"), e: "AQAB" }), TypeError);
		const own = await exportJWK(privateKey);
		assert.throws(() => jwkSource(own), TypeError);
		const pem = await exportPKCS8(privateKey);
		assert.throws(() => pemSource(pem), /private/);
		assert.throws(() => pemSource("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), TypeError);
	});
});

describe("jwt: headers (FAULTS 36, 37)", () => {
	it("a key id with a path, SQL, a URL, NUL or 1 MB finds no key", async () => {
		for (const kid of [
			"../../dev/null",
			"' OR 1=1 --",
			"https://evil.example/key",
			"a\0b",
			"x".repeat(5000),
			"x".repeat(1_000_000),
			7,
			{ a: 1 },
		]) {
			const outcome = await login(hmacToken(Buffer.alloc(32), { alg: "ES256", kid }));
			assert.match(
				shown(outcome),
				/^badUserNameOrPassword: (no key fits the token|the token's key id cannot be used|the token is longer than 8 KB)$/,
			);
		}
	});

	it("a key id over 256 characters, with control characters, or not a text is refused before any key is looked for", async () => {
		const keys = { find: () => assert.fail("looked for a key") };
		for (const kid of ["x".repeat(257), "a\0b", "a\nb", 7, null, {}]) {
			const outcome = await login(forgedToken({ alg: "ES256", kid }, claims), { keys });
			assert.equal(shown(outcome), "badUserNameOrPassword: the token's key id cannot be used");
		}
	});

	it("a key inside the token is not used", async () => {
		const mine = await issuerKey("ES256", "mine");
		const token = await signToken(mine, claims, { kid: undefined, jwk: mine.publicJwk });
		assert.equal(shown(await login(token)), "badUserNameOrPassword: the token's signature is wrong");
	});

	it("crit is refused, and so is a payload that is not encoded", async () => {
		assert.equal(
			shown(await login(forgedToken({ alg: "ES256", crit: ["exp"], exp }, claims))),
			"badUserNameOrPassword: the token has critical extensions",
		);
		const token = await signToken(es256, claims, { b64: true, crit: ["b64"] });
		assert.equal(shown(await login(token)), "badUserNameOrPassword: the token has critical extensions");
	});

	it("typ may be JWT or at+jwt or missing, and nothing else", async () => {
		for (const typ of ["JWT", "jwt", "at+jwt", "application/at+JWT", undefined]) {
			assert.equal(shown(await login(await signToken(es256, claims, { typ }))), "granted", String(typ));
		}
		for (const typ of ["dpop+jwt", "logout+jwt", "", 7, null]) {
			assert.equal(shown(await login(await signToken(es256, claims, { typ }))), "badUserNameOrPassword: the token is of another type");
		}
	});

	it("configured types are the only ones, and then a token must have one", async () => {
		const types = ["at+jwt"];
		assert.equal(shown(await login(await signToken(es256, claims, { typ: "application/at+jwt" }), { types })), "granted");
		for (const typ of ["JWT", undefined]) {
			assert.equal(
				shown(await login(await signToken(es256, claims, { typ }), { types })),
				"badUserNameOrPassword: the token is of another type",
			);
		}
	});

	it("members named __proto__ do nothing (FAULTS 14)", async () => {
		const token = await signToken(
			es256,
			JSON.parse(`{"__proto__":{"tenant":"evil"},"iss":"https://issuer.example","aud":"mqtt","sub":"a","exp":${exp}}`),
		);
		assert.equal(shown(await login(token, { tenantClaim: "tenant" })), 'notAuthorized: the token has no usable "tenant"');
		assert.equal(Object.hasOwn(Object.prototype, "tenant"), false);
	});
});

describe("jwt: claims (FAULTS 41)", () => {
	const now = clock.seconds;
	const matrix: readonly (readonly [title: string, change: Readonly<Record<string, unknown>>, outcome: string])[] = [
		["as it should be", {}, "granted"],
		["aud is a list that holds ours", { aud: ["other", "mqtt"] }, "granted"],
		["times with fractions", { exp: now + 0.5, nbf: now - 0.5, iat: now - 0.5 }, "granted"],
		["expired now", { exp: now }, "the token has expired"],
		["expired a millisecond ago, within the skew", { exp: now - 0.001 }, "the token has expired"],
		["expired long ago", { exp: 1 }, "the token has expired"],
		["no exp", { exp: undefined }, `the token's "exp" is missing`],
		["exp as text", { exp: String(exp) }, `the token's "exp" is invalid`],
		["exp null", { exp: null }, `the token's "exp" is invalid`],
		["nbf within the skew", { nbf: now + 5 }, "granted"],
		["nbf beyond the skew", { nbf: now + 7 }, `the token's "nbf" is check_failed`],
		["iat beyond the skew", { iat: now + 7 }, "the token is from the future"],
		["wrong aud", { aud: "other" }, `the token's "aud" is check_failed`],
		["no aud", { aud: undefined }, `the token's "aud" is missing`],
		["aud an empty list", { aud: [] }, `the token's "aud" is check_failed`],
		["aud as a part of ours", { aud: "mqt" }, `the token's "aud" is check_failed`],
		["wrong iss", { iss: "https://issuer.example.evil" }, "the token's issuer is not known"],
		["iss with a slash more", { iss: "https://issuer.example/" }, "the token's issuer is not known"],
		["no iss", { iss: undefined }, "the token's issuer is not known"],
		["iss a list", { iss: ["https://issuer.example"] }, "the token's issuer is not known"],
	];
	for (const [title, change, outcome] of matrix) {
		it(`${title}: ${outcome}`, async () => {
			const token = await signToken(
				es256,
				Object.fromEntries(Object.entries({ ...claims, ...change }).filter(([, value]) => value !== undefined)),
			);
			assert.equal(shown(await login(token)), outcome === "granted" ? outcome : `badUserNameOrPassword: ${outcome}`);
		});
	}

	it("claims that are no object are refused", async () => {
		for (const text of ["[]", "7", "null", "{", '"x"']) {
			assert.match(shown(await login(forgedToken({ alg: "ES256" }, text))), /^badUserNameOrPassword: the token/);
		}
	});

	it("a token of 8 KB is accepted, one byte more is refused", async () => {
		const sized = async (length: number) => {
			let token = "";
			for (let padding = length - 600; token.length < length; padding++)
				token = await signToken(es256, { ...claims, padding: "x".repeat(Math.floor(padding * 0.74)) });
			return token;
		};
		const fits = await sized(8000);
		assert.ok(fits.length <= 8192);
		assert.equal(shown(await login(fits)), "granted");
		assert.equal(shown(await login(await sized(8193))), "badUserNameOrPassword: the token is longer than 8 KB");
	});

	it("a lifetime over the longest allowed is refused, counted from iat or from now", async () => {
		const limits = { maxLifetimeSeconds: 60 };
		assert.equal(shown(await login(await signToken(es256, claims), {}, {}, limits)), "granted");
		assert.equal(
			shown(await login(await signToken(es256, { ...claims, exp: exp + 1 }), {}, {}, limits)),
			"badUserNameOrPassword: the token is valid for too long",
		);
		assert.equal(
			shown(await login(await signToken(es256, { ...claims, iat: now - 1 }), {}, {}, limits)),
			"badUserNameOrPassword: the token is valid for too long",
		);
	});

	it("a changed claim or signature is refused", async () => {
		const [header = "", , signature = ""] = (await signToken(es256, claims)).split(".");
		const payload = Buffer.from(JSON.stringify({ ...claims, sub: "bob" })).toString("base64url");
		assert.equal(shown(await login(`${header}.${payload}.${signature}`)), "badUserNameOrPassword: the token's signature is wrong");
	});

	it("only refusals that prove no key count as guesses", async () => {
		const guessed = async (token: string) => {
			const outcome = await login(token);
			return outcome.kind === "refused" ? outcome.guess : undefined;
		};
		assert.equal(await guessed(await signToken(es256, { ...claims, exp: 1 })), false);
		assert.equal(await guessed(await signToken(await issuerKey("ES256"), claims)), true);
		assert.equal(await guessed(await signToken(await issuerKey("ES256"), { ...claims, exp: 1 })), true);
	});

	it("a skew over 60 s is not configured", () => {
		assert.throws(() => member({}, { clockSkewSeconds: 61 }), RangeError);
	});
});

describe("jwt: encrypted tokens (FAULTS 42)", () => {
	it("JWE is refused before any cryptography, PBES2 with a huge count included", async () => {
		const encrypted = await new EncryptJWT(claims).setProtectedHeader({ alg: "dir", enc: "A256GCM" }).encrypt(Buffer.alloc(32));
		assert.equal(shown(await login(encrypted)), "badUserNameOrPassword: the token is encrypted");
		const [header = ""] = forgedToken({ alg: "PBES2-HS512+A256KW", enc: "A256GCM", p2c: 2_000_000_000, p2s: "AAAA" }, {}).split(".");
		assert.equal(shown(await login(`${header}.AAAA.AAAA.AAAA.AAAA`)), "badUserNameOrPassword: the token is encrypted");
	});
});

describe("jwt: where the token comes from", () => {
	it("the Cloudflare example logs in: any user name, the token as password, an empty client id that becomes sub (CF14)", async () => {
		const principal = grantedTo(await login(await signToken(es256, claims), {}, { username: "anything", clientId: "" }));
		assert.equal(principal.clientId, "alice");
		assert.equal(principal.username, undefined);
		assert.equal(principal.expiresAtMs, exp * 1000);
	});

	it("a password that is no token is left to others, and so is a client without one", async () => {
		for (const password of ["secret", "a.b.c", "eyJhbGciOi", ""]) assert.equal(shown(await login(password)), "ignored");
		assert.equal(shown(await member().authenticate(credentials({ username: "alice" }))), "ignored");
		assert.equal(shown(await member().authenticate(credentials())), "ignored");
	});

	it("the token of the upgrade counts where CONNECT brings no password", async () => {
		const token = await signToken(es256, claims);
		assert.equal(shown(await member().authenticate(credentials({ token }))), "granted");
		assert.equal(shown(await member().authenticate(credentials({ token, username: "anything" }))), "granted");
		assert.equal(shown(await member().authenticate(credentials({ token, username: "bob", password: "secret" }))), "ignored");
		assert.equal(
			shown(await member().authenticate(credentials({ token: "nonsense" }))),
			"badUserNameOrPassword: the token is not a signed JWT",
		);
	});

	it("enhanced authentication takes the token as its data, else from the password, and only as data when it is done again", async () => {
		const token = await signToken(es256, claims);
		const authenticate = member().authenticate;
		const method = { authenticationMethod: JWT_METHOD } as const;
		const principal = grantedTo(await authenticate(credentials({ ...method, authenticationData: Buffer.from(token) })));
		assert.equal(shown(await authenticate(credentials({ ...method, password: token }))), "granted");
		assert.equal(shown(await authenticate(credentials({ ...method, authenticationData: Buffer.from(token) }), principal)), "granted");
		assert.equal(
			shown(await authenticate(credentials({ ...method, password: token, token }), principal)),
			"badUserNameOrPassword: no token",
		);
		assert.equal(
			shown(await authenticate(credentials({ authenticationMethod: "OTHER", authenticationData: Buffer.from(token) }))),
			"ignored",
		);
	});
});

describe("jwt: who the client is", () => {
	const login2 = async (
		extra: Readonly<Record<string, unknown>>,
		issuer: Partial<JwtIssuer>,
		fields: Parameters<typeof credentials>[0] = {},
	) => login(await signToken(es256, { ...claims, ...extra }), issuer, fields);

	it("a bound client id is the only one: another is refused with 0x85, an empty one is assigned (FAULTS 66)", async () => {
		const bound = { bindClientId: true };
		assert.equal(grantedTo(await login2({}, bound, { clientId: "alice" })).boundClientId, "alice");
		assert.equal(grantedTo(await login2({}, bound, { clientId: "" })).clientId, "alice");
		assert.equal(shown(await login2({}, bound, { clientId: "bob" })), "clientIdentifierNotValid: the token is for another client id");
		assert.equal(grantedTo(await login2({ dev: "d1" }, { ...bound, clientIdClaim: "dev" }, { clientId: "d1" })).boundClientId, "d1");
		assert.equal(
			shown(await login2({}, { ...bound, clientIdClaim: "dev" }, { clientId: "d1" })),
			'badUserNameOrPassword: the token has no usable "dev"',
		);
	});

	it("without binding any client id goes, and sub is assigned only where there is none", async () => {
		assert.equal(grantedTo(await login2({}, {}, { clientId: "bob" })).boundClientId, undefined);
	});

	it("a client id that MQTT could misread is not taken from a claim", async () => {
		for (const sub of ["a\0b", "", 7, "x".repeat(600), "\ud800", ["a"]]) {
			assert.equal(shown(await login2({ sub }, {})), 'badUserNameOrPassword: the token has no usable "sub"');
		}
	});

	it("a user name comes from its claim, and CONNECT must agree when it is bound", async () => {
		const named = { usernameClaim: "user" };
		assert.equal(grantedTo(await login2({ user: "u" }, named, { username: "anything" })).username, "u");
		assert.equal(shown(await login2({}, named)), 'badUserNameOrPassword: the token has no usable "user"');
		assert.equal(
			shown(await login2({ user: "u" }, { ...named, bindUsername: true }, { username: "anything" })),
			"badUserNameOrPassword: the token is for another user name",
		);
		assert.equal(shown(await login2({ user: "u" }, { ...named, bindUsername: true }, { username: "u" })), "granted");
	});

	it("a tenant must be there and be one level of a topic (FAULTS 63)", async () => {
		assert.equal(grantedTo(await login2({ org: "acme" }, { tenantClaim: "org" })).tenant, "acme");
		for (const org of [undefined, "", "a/b", "+", "#", "$SYS", 7, ["acme"]]) {
			assert.equal(
				shown(await login2(org === undefined ? {} : { org }, { tenantClaim: "org" })),
				'notAuthorized: the token has no usable "org"',
			);
		}
	});

	it("jti and iat are kept for revocation", async () => {
		const principal = grantedTo(await login2({ jti: "t1", iat: clock.seconds - 10 }, {}));
		assert.equal(principal.tokenId, "t1");
		assert.equal(principal.issuedAtMs, clock.ms - 10_000);
		assert.equal(shown(await login2({ jti: 7 }, {})), 'badUserNameOrPassword: the token has no usable "jti"');
	});

	it("rights in the token become grants, and rights that cannot be read refuse the token", async () => {
		assert.equal(grantedTo(await login2({ acl: { pub: ["a/b"] } }, {})).grants?.rules.length, 1);
		assert.equal(grantedTo(await login2({}, {})).grants, undefined);
		assert.match(shown(await login2({ acl: { pub: 7 } }, {})), /^badUserNameOrPassword: /);
	});

	it("each issuer has its keys: a token of one is not verified with those of another", async () => {
		const other: IssuerKey = await issuerKey("ES256", es256.kid);
		const both = jwtMember({
			clock,
			issuers: [
				{ issuer: "one", keys: jwkSource(es256.publicJwk) },
				{ issuer: "two", keys: jwkSource(other.publicJwk) },
			],
		});
		const as = async (key: IssuerKey, iss: string) =>
			both.authenticate(credentials({ password: await signToken(key, { ...claims, iss }) }));
		assert.equal(grantedTo(await as(es256, "one")).method, "jwt:one");
		assert.equal(grantedTo(await as(other, "two")).method, "jwt:two");
		assert.equal(shown(await as(es256, "two")), "badUserNameOrPassword: the token's signature is wrong");
		assert.equal(shown(await as(es256, "three")), "badUserNameOrPassword: the token's issuer is not known");
		assert.throws(
			() => jwtMember({ clock, issuers: [{ keys: jwkSource(es256.publicJwk) }, { keys: jwkSource(es256.publicJwk) }] }),
			TypeError,
		);
	});
});
