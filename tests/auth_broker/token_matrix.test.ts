/**
 * Tokens at the door, whichever way they come, against a key set on this machine (FAULTS 35–42): bad ones are told 0x86, and
 * whoever cannot be judged 0x88. That is said in the CONNACK also where the token came with the upgrade request, because only
 * there a client of MQTT can read it.
 */

import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { type Config, createBroker } from "../../src/shoal.ts";
import {
	CARRIERS,
	type Carrier,
	EVERYWHERE,
	freshSubject,
	inSeconds,
	knock,
	login,
	refusal,
	refusedWith,
} from "../support/auth_clients.ts";
import { assertServes } from "../support/canary.ts";
import {
	forgedToken,
	type IssuerKey,
	issuerKey,
	type JsonServer,
	json,
	signToken,
	startJsonServer,
	status,
} from "../support/jwks_server.ts";
import { RawClient } from "../support/raw_client.ts";
import { suiteCleanup } from "../support/server_process.ts";
import { startBroker, type TestBroker } from "../support/test_broker.ts";

const ISSUER = "https://issuer.example";
const AUDIENCE = "shoal-clients";
const BAD = 0x86;
const UNAVAILABLE = 0x88;
/** Of 3.1.1, in the same order. */
const BAD_V3 = 4;
const UNAVAILABLE_V3 = 3;
const UNKNOWN_KEYS = 1000;
const AT_A_TIME = 50;

type Claims = Readonly<Record<string, unknown>>;

/** Claims that are accepted. */
const claims = (changes: Claims = {}): Claims => ({
	iss: ISSUER,
	aud: ["another", AUDIENCE],
	sub: freshSubject(),
	exp: inSeconds(600),
	...changes,
});

describe("the token matrix", () => {
	const t = suiteCleanup();
	let keys: readonly IssuerKey[];
	let es256: IssuerKey;
	let rs256: IssuerKey;
	let stranger: IssuerKey;
	let jwks: JsonServer;
	/** Nobody has a reason to ask it anything. */
	let canary: JsonServer;
	let broker: TestBroker;

	const settings = (url: string): Partial<Config> => ({ ...EVERYWHERE, jwtJwksUrl: url, jwtIssuer: ISSUER, jwtAudience: [AUDIENCE] });

	before(async () => {
		keys = await Promise.all(["ES256", "RS256", "EdDSA"].map((algorithm) => issuerKey(algorithm)));
		[es256, rs256] = keys as [IssuerKey, IssuerKey];
		stranger = await issuerKey("ES256", es256.kid);
		jwks = await startJsonServer(t, { keys: keys.map(({ publicJwk }) => publicJwk) });
		canary = await startJsonServer(t);
		broker = await startBroker(t, settings(`${jwks.url}/keys`));
	});

	for (const carrier of CARRIERS) {
		it(`tokens of every algorithm in the ${carrier} are accepted`, async () => {
			for (const key of keys) {
				const client = await login(broker, { carrier, token: await signToken(key, claims({ aud: AUDIENCE })) });
				await client.disconnect();
			}
		});
	}

	const hmac = (secret: string | Uint8Array) =>
		signToken({ ...rs256, algorithm: "HS256", privateKey: (typeof secret === "string" ? Buffer.from(secret) : secret) as never }, claims());
	const forged = (header: Claims) => async () => signToken(stranger, claims(), header);

	/** Fault, what is wrong, and how it is made. */
	const MATRIX: readonly (readonly [fault: number, what: string, make: () => Promise<string> | string])[] = [
		[35, "alg none without a signature", () => forgedToken({ alg: "none" }, claims(), "")],
		[35, "alg none with a signature", () => forgedToken({ alg: "none" }, claims())],
		[35, "HS256 with the public key as the secret", () => hmac(rs256.publicPem)],
		[35, "HS256 with the modulus as the secret", () => hmac(Buffer.from(rs256.publicJwk.n ?? "", "base64url"))],
		[36, "a key id that is a path", forged({ kid: "../../../../dev/null" })],
		[36, "a key id that is SQL", forged({ kid: "x' UNION SELECT 'key" })],
		[36, "a key id that is a URL", () => forged({ kid: `${canary.url}/kid` })()],
		[36, "a key id with NUL", forged({ kid: `${"key-ES256"}\0` })],
		[36, "a key id of 6,000 characters", forged({ kid: "k".repeat(6000) })],
		[37, "a key set at the token's own address", () => forged({ jku: `${canary.url}/jku` })()],
		[37, "a certificate at the token's own address", () => forged({ x5u: `${canary.url}/x5u` })()],
		[37, "a key of its own", () => forged({ jwk: stranger.publicJwk })()],
		[41, "an end that has passed", () => signToken(es256, claims({ exp: inSeconds(-1) }))],
		[41, "no end", () => signToken(es256, claims({ exp: undefined }))],
		[41, "a beginning in two minutes", () => signToken(es256, claims({ nbf: inSeconds(120) }))],
		[41, "another audience", () => signToken(es256, claims({ aud: "another" }))],
		[41, "no audience", () => signToken(es256, claims({ aud: undefined }))],
		[41, "another issuer", () => signToken(es256, claims({ iss: `${ISSUER}.evil.example` }))],
		[41, "another type", () => signToken(es256, claims(), { typ: "dpop+jwt" })],
		[41, "more than 8 KB", () => signToken(es256, claims({ more: "x".repeat(7000) }))],
		[41, "a signature of somebody else", () => signToken(stranger, claims())],
		[42, "encryption", () => `${forgedToken({ alg: "RSA-OAEP", enc: "A256GCM" }, "key", "iv")}.text.tag`],
		[
			42,
			"encryption with a password and many rounds",
			() => `${forgedToken({ alg: "PBES2-HS512+A256KW", enc: "A256GCM", p2c: 2_000_000_000, p2s: "AAAA" }, "key", "iv")}.text.tag`,
		],
	];

	for (const [fault, what, make] of MATRIX) {
		it(`fault ${fault}: a token with ${what} is told 0x86, whichever way it comes`, async () => {
			const bad = await make();
			for (const carrier of CARRIERS) assert.equal(await refusedWith(broker, { carrier, token: bad }), BAD, carrier);
			for (const carrier of ["password", "cookie"] as const) {
				assert.equal(await refusedWith(broker, { version: 4, carrier, token: bad }), BAD_V3, carrier);
			}
			assert.deepEqual(canary.requests, []);
		});
	}

	it("fault 36: a key id that makes the password as long as MQTT allows is told 0x86", async () => {
		const bad = forgedToken({ alg: "ES256", kid: "k".repeat(45_000) }, claims());
		assert.equal(await refusedWith(broker, { token: bad }), BAD);
		assert.equal(await refusedWith(broker, { token: bad, carrier: "auth" }), BAD);
	});

	it("over TCP it is the same", async () => {
		const good = await signToken(es256, claims());
		const client = await RawClient.connect(broker, { username: "anything", password: good });
		await client.disconnect();
		for (const version of [3, 4, 5] as const) {
			const refused = await RawClient.open(broker, version);
			refused.sendConnect({ version, username: "anything", password: await signToken(stranger, claims()) });
			assert.equal((await refused.expect("connack"))[version === 5 ? "reasonCode" : "returnCode"], version === 5 ? BAD : BAD_V3);
			await refused.expectClosed();
		}
	});

	it("a client without any token is told 0x86, and one with an unknown method 0x8C", async () => {
		assert.equal(await refusedWith(broker), BAD);
		assert.equal(await refusedWith(broker, { username: "user", password: "password" }), BAD);
		assert.equal(await refusedWith(broker, { properties: { authenticationMethod: "GS2-KRB5" } }), 0x8c);
	});

	it("the password of CONNECT comes before the cookie, so that a program can choose", async () => {
		const [cookie, password] = await Promise.all(["cookie", "password"].map((sub) => signToken(es256, claims({ sub }))));
		const client = await login(broker, { carrier: "cookie", token: cookie ?? "", clientId: "", password: password ?? "" });
		assert.equal(client.connack.properties.assignedClientIdentifier, "password");
		await client.disconnect();
		const bad = await signToken(stranger, claims());
		assert.equal(await refusal(await knock(broker, { carrier: "cookie", token: cookie ?? "", password: bad })), BAD);
	});

	it(`fault 40: ${UNKNOWN_KEYS} tokens with unknown key ids cost one more question to the key set`, async () => {
		const bad = await Promise.all(Array.from({ length: UNKNOWN_KEYS }, (_, n) => signToken(stranger, claims(), { kid: `unknown-${n}` })));
		const asked = jwks.requests.length;
		for (let done = 0; done < bad.length; done += AT_A_TIME) {
			const codes = await Promise.all(bad.slice(done, done + AT_A_TIME).map((each) => refusedWith(broker, { token: each })));
			assert.ok(codes.every((code) => code === BAD));
		}
		assert.ok(jwks.requests.length <= asked + 1, `${jwks.requests.length - asked} questions`);
		await (await login(broker, { token: await signToken(es256, claims()) })).disconnect();
	});

	for (const [what, answer] of [
		["redirects", status(302, { location: "/elsewhere" })],
		["answers an error", status(500)],
		["answers more than 64 KB", json({ keys: [], more: "x".repeat(70_000) })],
		["has no key", json({ keys: [] })],
		["has only keys that cannot be used", json({ keys: [{ kty: "EC", crv: "P-256", x: "AA", y: "AA", kid: "key-ES256" }] })],
		["breaks off", (_request: unknown, response: { destroy(): unknown }) => void response.destroy()],
	] as const) {
		it(`faults 38 and 39: while the key set ${what}, everybody is told 0x88, and nothing else is asked`, async (t) => {
			const server = await startJsonServer(t);
			server.answer = answer;
			const own = await startBroker(t, settings(`${server.url}/keys`));
			const good = await signToken(es256, claims());
			for (const carrier of CARRIERS) assert.equal(await refusedWith(own, { carrier, token: good }), UNAVAILABLE, carrier);
			assert.equal(await refusedWith(own, { version: 4, token: good }), UNAVAILABLE_V3);
			assert.deepEqual(server.requests, ["/keys"]);
		});
	}

	it("fault 39: keys that are known count while the key set is down, and a token of an unknown key is told 0x88 or 0x86, never yes", async (t) => {
		const server = await startJsonServer(t, { keys: [es256.publicJwk] });
		const own = await startBroker(t, settings(server.url));
		await (await login(own, { token: await signToken(es256, claims()) })).disconnect();
		await server.stop();
		for (const carrier of CARRIERS) await (await login(own, { carrier, token: await signToken(es256, claims()) })).disconnect();
		assert.ok([BAD, UNAVAILABLE].includes(await refusedWith(own, { token: await signToken(rs256, claims()) })));
	});

	it("fault 38: a key set that could only be asked in the clear stops the start", async () => {
		const shoal = createBroker({ store: "memory", jwtJwksUrl: "http://192.0.2.1/keys" });
		await assert.rejects(shoal.start(), /http:\/\/192\.0\.2\.1\/keys is not https/);
	});

	it("an OpenID Connect issuer's keys are found by its discovery document", async (t) => {
		const server = await startJsonServer(t);
		server.answer = (request, response) => {
			const document = request.url?.startsWith("/.well-known")
				? { issuer: server.url, jwks_uri: `${server.url}/jwks` }
				: { keys: [es256.publicJwk] };
			json(document)(request, response);
		};
		const own = await startBroker(t, { ...EVERYWHERE, jwtOidcIssuer: server.url });
		await (await login(own, { token: await signToken(es256, claims({ iss: server.url })) })).disconnect();
		assert.equal(await refusedWith(own, { token: await signToken(es256, claims()) }), BAD, "another issuer");
	});

	it("after all that the broker serves", async (t) => {
		await assertServes(await startBroker(t));
		for (const carrier of CARRIERS satisfies readonly Carrier[]) {
			await (await login(broker, { carrier, token: await signToken(es256, claims()) })).disconnect();
		}
	});
});
