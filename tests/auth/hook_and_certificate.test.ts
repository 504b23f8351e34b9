/** Clients judged by a service of the operator, and clients known by their certificate. */

import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, it, type TestContext } from "node:test";
import type { VerifiedCertificate } from "../../src/auth/auth.ts";
import { certificateFromHeader, certificateMember } from "../../src/auth/certificate.ts";
import { type HttpHookOptions, httpHookMember } from "../../src/auth/http_hook.ts";
import { Unavailable } from "../../src/auth/member.ts";
import { createAuthority } from "../support/certificates.ts";
import { json, startJsonServer, status } from "../support/jwks_server.ts";
import { credentials, grantedTo, shown, TestClock } from "./auth_support.ts";

async function hook(t: TestContext, answer: unknown, options: Partial<HttpHookOptions> = {}) {
	const clock = new TestClock();
	const server = await startJsonServer(t, answer);
	const member = httpHookMember({ url: `${server.url}/auth`, clock, ...options });
	const login = async (fields: Parameters<typeof credentials>[0] = { username: "alice", password: "secret" }) =>
		member.authenticate(credentials(fields));
	return { clock, server, login };
}

describe("http hook: answers", () => {
	it("the service sees what the client brought, and no more", async (t) => {
		const { login, server } = await hook(t, { result: "allow" });
		await login({ clientId: "d1", username: "alice", password: "secret" });
		await login({ password: Uint8Array.of(0xff, 0xfe) });
		assert.deepEqual(
			server.bodies.map((body) => JSON.parse(body)),
			[
				{ clientId: "d1", username: "alice", password: "secret", address: "192.0.2.1", transport: "wss" },
				{ clientId: "", passwordBase64: "//4=", address: "192.0.2.1", transport: "wss" },
			],
		);
	});

	it("allow may name client id, user name, tenant, rights and deadline", async (t) => {
		const { login, clock } = await hook(t, {
			result: "allow",
			clientId: "d1",
			username: "u",
			tenant: "t",
			acl: { sub: ["a/#"] },
			expiresAt: 2_000_000_000,
		});
		const principal = grantedTo(await login());
		assert.deepEqual(
			{ ...principal, grants: principal.grants?.rules.length },
			{
				name: "u",
				method: "http",
				expiresAtMs: 2_000_000_000_000,
				clientId: "d1",
				boundClientId: "d1",
				username: "u",
				tenant: "t",
				grants: 1,
			},
		);
		assert.equal(shown(await login({ clientId: "d2", username: "x" })), "clientIdentifierNotValid: the hook allows another client id");
		assert.ok(clock.ms < principal.expiresAtMs);
	});

	it("deny refuses and ignore leaves the client to others", async (t) => {
		assert.equal(shown(await (await hook(t, { result: "deny" })).login()), "badUserNameOrPassword: the hook denies it");
		assert.equal(shown(await (await hook(t, { result: "ignore" })).login()), "ignored");
	});

	it("enhanced authentication is left to others, unasked", async (t) => {
		const { login, server } = await hook(t, { result: "allow" });
		assert.equal(shown(await login({ authenticationMethod: "X" })), "ignored");
		assert.equal(server.requests.length, 0);
	});

	it("configured headers are sent", async (t) => {
		const { login, server } = await hook(t, {}, { headers: { authorization: "Bearer shared" } });
		let seen: string | undefined;
		server.answer = (request, response) => {
			seen = request.headers.authorization;
			json({ result: "allow" })(request, response);
		};
		await login();
		assert.equal(seen, "Bearer shared");
	});
});

describe("http hook: everything unclear fails closed (FAULTS 45)", () => {
	const unclear: readonly unknown[] = [
		null,
		[],
		{},
		"allow",
		{ result: true },
		{ result: "ALLOW" },
		{ result: "allow", clientId: 7 },
		{ result: "allow", clientId: "" },
		{ result: "allow", username: null },
		{ result: "allow", tenant: "a/b" },
		{ result: "allow", expiresAt: "soon" },
		{ result: "allow", acl: 7 },
		{ result: "allow", acl: { publish: [] } },
	];
	for (const answer of unclear) {
		it(`the answer ${JSON.stringify(answer)}`, async (t) => {
			const { login } = await hook(t, answer);
			await assert.rejects(login(), Unavailable);
		});
	}

	it("a status other than 200, a redirect, no JSON, too much, silence, and nobody there", async (t) => {
		const { login, server } = await hook(t, {}, { timeoutMs: 100 });
		const allow = { result: "allow" };
		for (const answer of [
			...[201, 204, 401, 403, 404, 500].map((code) => status(code)),
			status(307, { location: "/auth2" }),
			(_: unknown, response: { end(text: string): void }) => response.end("allow"),
			json({ ...allow, padding: "x".repeat(65_536) }),
			() => {},
		]) {
			server.answer = answer as typeof server.answer;
			await assert.rejects(login(), Unavailable);
		}
		await server.stop();
		await assert.rejects(login(), Unavailable);
	});

	it("only https or the loopback interface is asked", () => {
		assert.throws(() => httpHookMember({ url: "http://auth.example/", clock: new TestClock() }), TypeError);
		assert.throws(() => httpHookMember({ url: "https://u:p@auth.example/", clock: new TestClock() }), TypeError);
	});
});

describe("http hook: cache and limits", () => {
	it("an answer counts for its time and for the same credentials only", async (t) => {
		const { login, server, clock } = await hook(t, { result: "allow" });
		await login();
		await login();
		assert.equal(server.requests.length, 1);
		for (const fields of [
			{ username: "alice", password: "other" },
			{ username: "bob", password: "secret" },
			{ username: "alice", password: "secret", clientId: "x" },
			{ username: "alice", password: "secret", address: "192.0.2.9" },
		])
			await login(fields);
		assert.equal(server.requests.length, 5);
		server.answer = json({ result: "deny" });
		clock.ms += 29_999;
		assert.equal(shown(await login()), "granted");
		clock.ms += 1;
		assert.equal(shown(await login()), "badUserNameOrPassword: the hook denies it");
	});

	it("failures are not kept, and without a cache every login is a question", async (t) => {
		const { login, server } = await hook(t, { result: "allow" });
		const good = server.answer;
		server.answer = status(500);
		await assert.rejects(login(), Unavailable);
		server.answer = good;
		assert.equal(shown(await login()), "granted");
		const uncached = await hook(t, { result: "allow" }, { cacheMs: 0 });
		await uncached.login();
		await uncached.login();
		assert.equal(uncached.server.requests.length, 2);
	});

	it("the same question is asked once at a time, and only so many different ones", async (t) => {
		const { login, server } = await hook(t, {}, { maxConcurrent: 1, cacheMs: 0 });
		let answerNow = () => {};
		server.answer = (request, response) => {
			answerNow = () => json({ result: "allow" })(request, response);
		};
		const same = [login(), login()];
		assert.equal(shown(await login({ username: "bob", password: "x" })), "quotaExceeded: too many questions to the hook");
		const { eventually } = await import("../support/eventually.ts");
		await eventually("the question has arrived", () => server.bodies.length === 1);
		answerNow();
		assert.deepEqual((await Promise.all(same)).map(shown), ["granted", "granted"]);
		assert.equal(server.requests.length, 1);
	});

	it("only so many answers are kept: the oldest makes room", async (t) => {
		const { login, server } = await hook(t, { result: "allow" }, { maxCached: 2 });
		for (const username of ["a", "b", "c", "c", "b", "a"]) await login({ username, password: "x" });
		assert.equal(server.requests.length, 4);
	});
});

const certificate: VerifiedCertificate = {
	commonName: "device-1",
	subject: "CN=device-1",
	fingerprint256: "ab".repeat(32),
	subjectAltName: "DNS:d1.example, URI:urn:d:1, email:d1@example, IP Address:10.0.0.1",
};

describe("certificate", () => {
	const login = (options: Parameters<typeof certificateMember>[0], fields: Parameters<typeof credentials>[0] = { certificate }) =>
		certificateMember(options).authenticate(credentials(fields));

	it("the configured part of the certificate is the identity", async () => {
		for (const [name, expected] of [
			["commonName", "device-1"],
			["dns", "d1.example"],
			["uri", "urn:d:1"],
			["email", "d1@example"],
			["fingerprint", "ab".repeat(32)],
		] as const) {
			const principal = grantedTo(await login({ name }));
			assert.deepEqual(
				[principal.name, principal.username, principal.clientId, principal.boundClientId],
				[expected, expected, expected, undefined],
			);
		}
	});

	it("a bound client id is the only one (FAULTS 66)", async () => {
		assert.equal(grantedTo(await login({ bindClientId: true })).boundClientId, "device-1");
		assert.equal(
			shown(await login({ bindClientId: true }, { certificate, clientId: "device-2" })),
			"clientIdentifierNotValid: the certificate is for another client id",
		);
	});

	it("without a certificate, with a method, or where passwords go first, it is left to others", async () => {
		assert.equal(shown(await login({}, {})), "ignored");
		assert.equal(shown(await login({}, { certificate, authenticationMethod: "X" })), "ignored");
		assert.equal(shown(await login({ yieldToPassword: true }, { certificate, username: "a", password: "b" })), "ignored");
		assert.equal(shown(await login({ yieldToPassword: true }, { certificate })), "granted");
	});

	it("a name that is missing, not single, or could be read in two ways is refused", async () => {
		const named = (fields: Partial<VerifiedCertificate>, name?: "dns" | "uri") =>
			login(name === undefined ? {} : { name }, { certificate: { ...certificate, ...fields } });
		for (const commonName of [undefined, "", "a\0b", "a\nb"]) assert.match(shown(await named({ commonName })), /^badUserNameOrPassword/);
		for (const subjectAltName of [undefined, "DNS:a, DNS:b", "IP Address:10.0.0.1", 'URI:"urn:x, DNS:admin"'])
			assert.match(shown(await named({ subjectAltName }, "dns")), /^badUserNameOrPassword/, String(subjectAltName));
		assert.equal(grantedTo(await named({ subjectAltName: 'URI:"urn:x, DNS:admin", DNS:real' }, "dns")).name, "real");
		assert.equal(grantedTo(await named({ subjectAltName: 'URI:"urn:x, DNS:admin"' }, "uri")).name, "urn:x, DNS:admin");
	});

	it("a trusted proxy's header is read in the forms of RFC 9440, nginx and Envoy; anything else is nobody", () => {
		const { cert } = createAuthority().client("/O=Example/CN=device-1", { subjectAltName: "DNS:d1.example" });
		const x509 = new X509Certificate(cert);
		const escaped = encodeURIComponent(cert);
		for (const value of [`:${x509.raw.toString("base64")}:`, escaped, `By=spiffe://a;Hash=00;Cert="${escaped}";Subject="CN=device-1"`]) {
			const read = certificateFromHeader(value);
			assert.equal(read?.commonName, "device-1");
			assert.equal(read?.fingerprint256, x509.fingerprint256.replaceAll(":", "").toLowerCase());
			assert.match(read?.subjectAltName ?? "", /DNS:d1\.example/);
		}
		for (const value of ["", "CN=admin", ":AAAA:", "%", "%ZZ", escaped.slice(0, 300), "x".repeat(20_000)])
			assert.equal(certificateFromHeader(value), undefined);
	});
});
