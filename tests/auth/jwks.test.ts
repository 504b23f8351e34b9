/** Keys from an issuer's endpoint: rotation, limits, and what happens while it is down. */

import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { createAuthenticationChain } from "../../src/auth/chain.ts";
import type { Fetch } from "../../src/auth/http_client.ts";
import { jwksSource, oidcSource, type RemoteKeyOptions } from "../../src/auth/jwks.ts";
import { jwtMember } from "../../src/auth/jwt.ts";
import type { KeySource } from "../../src/auth/key_source.ts";
import { eventually } from "../support/eventually.ts";
import { type IssuerKey, issuerKey, type JsonServer, json, signToken, startJsonServer, status } from "../support/jwks_server.ts";
import { credentials, recordingLog, shown, TestClock } from "./auth_support.ts";

const [first, second] = [await issuerKey("ES256", "first"), await issuerKey("EdDSA", "second")];
const HOUR_MS = 3_600_000;

interface Bench {
	readonly clock: TestClock;
	readonly server: JsonServer;
	readonly lines: string[];
	/** The outcome of a login with a token of that key, through the chain. */
	login(key: IssuerKey, header?: Readonly<Record<string, unknown>>): Promise<string>;
}

/** A JWKS server with the first key, and a chain that asks it. */
async function bench(
	t: TestContext,
	options: Partial<RemoteKeyOptions> = {},
	source?: (server: JsonServer, options: RemoteKeyOptions) => KeySource,
): Promise<Bench> {
	const clock = new TestClock();
	const { log, lines } = recordingLog();
	const server = await startJsonServer(t, { keys: [first.publicJwk] });
	const all = { clock, log, ...options };
	const keys = source?.(server, all) ?? jwksSource(`${server.url}/keys`, all);
	const chain = createAuthenticationChain({ members: [jwtMember({ clock, issuers: [{ keys }] })], clock, log });
	return {
		clock,
		server,
		lines,
		login: async (key, header) => {
			const token = await signToken(key, { sub: "alice", exp: clock.seconds + 60 }, header);
			return shown(await chain.authenticate(credentials({ password: token })));
		},
	};
}

describe("jwks: fetching", () => {
	it("keys are fetched once for many logins", async (t) => {
		const { login, server } = await bench(t);
		const outcomes = await Promise.all(Array.from({ length: 20 }, () => login(first)));
		assert.deepEqual(new Set(outcomes), new Set(["granted"]));
		assert.deepEqual(server.requests, ["/keys"]);
	});

	it("a token without a key id is tried against the keys of its algorithm", async (t) => {
		const { login, server } = await bench(t);
		server.answer = json({ keys: [(await issuerKey("ES256", "x")).publicJwk, second.publicJwk, first.publicJwk] });
		assert.equal(await login(first, { kid: undefined }), "granted");
	});

	it("a rotated key is found after the cool-down, and a removed one ends with the refresh", async (t) => {
		const { clock, login, server } = await bench(t);
		assert.equal(await login(first), "granted");
		server.answer = json({ keys: [second.publicJwk] });
		assert.equal(await login(second), "badUserNameOrPassword");
		clock.ms += 30_000;
		assert.equal(await login(second), "granted");
		assert.equal(await login(first), "badUserNameOrPassword");
		assert.equal(server.requests.length, 2);
	});

	it("keys older than the refresh age are fetched anew without anybody waiting", async (t) => {
		const { clock, login, server } = await bench(t);
		assert.equal(await login(first), "granted");
		server.answer = json({ keys: [second.publicJwk] });
		clock.ms += 300_000;
		assert.equal(await login(first), "granted");
		await eventually("the new keys have been asked for", () => server.requests.length === 2);
		assert.equal(await login(second), "granted");
		assert.equal(await login(first), "badUserNameOrPassword");
	});

	it("1,000 unknown key ids make one request per cool-down (FAULTS 40)", async (t) => {
		const { clock, login, server } = await bench(t);
		assert.equal(await login(first), "granted");
		const storm = async () => {
			const outcomes = await Promise.all(Array.from({ length: 500 }, (_, index) => login(first, { kid: `unknown-${index}` })));
			assert.deepEqual(new Set(outcomes), new Set(["badUserNameOrPassword"]));
		};
		await storm();
		assert.equal(server.requests.length, 1);
		clock.ms += 30_000;
		await storm();
		assert.equal(server.requests.length, 2);
	});

	it("nothing of a token reaches the request (FAULTS 36, 37)", async (t) => {
		const { clock, login, server } = await bench(t);
		const canary = await startJsonServer(t, { keys: [second.publicJwk] });
		for (const kid of ["../../etc/passwd", "http://evil.example/", "a' OR 1=1", "%2e%2e"]) {
			clock.ms += 30_000;
			const header = { kid, jku: `${canary.url}/jku`, x5u: `${canary.url}/x5u`, x5c: ["AAAA"], jwk: second.publicJwk };
			assert.equal(await login(second, header), "badUserNameOrPassword");
		}
		assert.deepEqual(new Set(server.requests), new Set(["/keys"]));
		assert.deepEqual(canary.requests, []);
	});
});

describe("jwks: an endpoint that is down or wrong (FAULTS 38, 39)", () => {
	const wrong: Readonly<Record<string, JsonServer["answer"]>> = {
		"status 500": status(500),
		"status 404": status(404),
		"status 204": status(204),
		"no JSON": (_, response) => void response.end("<html>"),
		"an empty key set": json({ keys: [] }),
		"no key set": json({ error: "x" }),
		null: json(null),
		"keys as an object": json({ keys: { first: first.publicJwk } }),
		"keys that cannot be used": json({
			keys: [null, 7, { kty: "oct", k: "AAAA", kid: "first" }, { kty: "EC", crv: "P-256", x: "AAAA", y: "AAAA", kid: "first" }],
		}),
		"a broken body": (_, response) => {
			response.writeHead(200, { "content-length": "1000" });
			response.write('{"keys":[');
			setTimeout(() => response.destroy(), 10);
		},
		"more than 64 KB": json({ keys: [first.publicJwk], padding: "x".repeat(65_536) }),
	};
	for (const [title, answer] of Object.entries(wrong)) {
		it(`${title}: nobody is let in while no key is known, and known keys stay until 24 h`, async (t) => {
			const { clock, login, server, lines } = await bench(t);
			const good = server.answer;
			server.answer = answer;
			assert.equal(await login(first), "serverUnavailable");
			server.answer = good;
			assert.equal(await login(first), "serverUnavailable", "the cool-down holds after a failure too");
			clock.ms += 30_000;
			assert.equal(await login(first), "granted");
			server.answer = answer;
			clock.ms += 24 * HOUR_MS - 1;
			assert.equal(await login(first), "granted");
			await eventually("the background request has failed", () => lines.length === 4);
			clock.ms += 30_001;
			assert.equal(await login(first), "serverUnavailable");
			server.answer = good;
			clock.ms += 30_000;
			assert.equal(await login(first), "granted");
		});
	}

	it("an unknown key id while the endpoint is down is nobody's fault: 0x88", async (t) => {
		const { clock, login, server } = await bench(t);
		assert.equal(await login(first), "granted");
		await server.stop();
		clock.ms += 30_000;
		assert.equal(await login(second), "serverUnavailable");
		assert.equal(await login(first), "granted");
	});

	it("a redirect is not followed", async (t) => {
		const canary = await startJsonServer(t, { keys: [first.publicJwk] });
		for (const code of [301, 302, 303, 307, 308]) {
			const { login, server } = await bench(t);
			server.answer = status(code, { location: `${canary.url}/keys` });
			assert.equal(await login(first), "serverUnavailable");
		}
		assert.deepEqual(canary.requests, []);
	});

	it("an endless body is cut at 64 KB", async (t) => {
		const { login, server } = await bench(t);
		let sent = 0;
		server.answer = (_, response) => {
			const more = () => {
				while (!response.destroyed && response.write("x".repeat(16_384))) sent += 16_384;
			};
			response.on("drain", more);
			more();
		};
		assert.equal(await login(first), "serverUnavailable");
		const atEnd = sent;
		await server.stop();
		assert.ok(atEnd < 50_000_000);
	});

	it("a bomb that unpacks to more than 64 KB is cut", async (t) => {
		const { gzipSync } = await import("node:zlib");
		const { login, server } = await bench(t);
		const bomb = gzipSync(JSON.stringify({ keys: [first.publicJwk], padding: "x".repeat(1_000_000) }));
		server.answer = (_, response) => void response.writeHead(200, { "content-encoding": "gzip" }).end(bomb);
		assert.equal(await login(first), "serverUnavailable");
	});

	it("silence ends with the timeout, before the headers and in the body", async (t) => {
		for (const answer of [() => {}, (_: unknown, response: { write(text: string): void }) => response.write("{")]) {
			const { login, server, lines } = await bench(t, { timeoutMs: 50 });
			server.answer = answer as JsonServer["answer"];
			assert.equal(await login(first), "serverUnavailable");
			assert.match(lines.join("\n"), /did not answer within 50 ms/);
		}
	});

	it("only https, or http to the loopback interface, is asked, and no secrets in the address", () => {
		const options = { clock: new TestClock(), log: recordingLog().log };
		for (const address of [
			"http://keys.example/",
			"http://127.0.0.1.evil.example/",
			"http://10.0.0.1/",
			"http://[::2]/",
			"ftp://a/",
			"file:///etc/passwd",
			"data:,{}",
			"keys",
			"https://u:p@keys.example/",
			"https://a/#b",
		]) {
			assert.throws(() => jwksSource(address, options), TypeError, address);
		}
		for (const address of ["https://keys.example/a?b=c", "http://127.0.0.1:8080/", "http://localhost/", "http://[::1]/"])
			jwksSource(address, options);
	});
});

describe("jwks: OIDC discovery", () => {
	const discovered = (server: JsonServer, options: RemoteKeyOptions) => oidcSource(`${server.url}/realm`, options);
	const routes =
		(document: unknown, keys: unknown): JsonServer["answer"] =>
		(request, response) =>
			(request.url === "/realm/.well-known/openid-configuration" ? json(document) : json(keys))(request, response);

	it("the key set is found through the issuer's document", async (t) => {
		const { login, server } = await bench(t, {}, discovered);
		server.answer = routes({ issuer: `${server.url}/realm`, jwks_uri: `${server.url}/jwks` }, { keys: [first.publicJwk] });
		assert.equal(await login(first), "granted");
		assert.deepEqual(server.requests, ["/realm/.well-known/openid-configuration", "/jwks"]);
	});

	it("a document of another issuer, or with a key set that may not be asked, is not believed", async (t) => {
		const documents = (base: string) => [
			{ issuer: `${base}/other`, jwks_uri: `${base}/jwks` },
			{ issuer: `${base}/realm/`, jwks_uri: `${base}/jwks` },
			{ issuer: `${base}/realm` },
			{ issuer: `${base}/realm`, jwks_uri: "http://keys.example/jwks" },
			{ issuer: `${base}/realm`, jwks_uri: "file:///etc/passwd" },
			{ jwks_uri: `${base}/jwks` },
			[],
			null,
		];
		for (let index = 0; index < documents("").length; index++) {
			const { login, server } = await bench(t, {}, discovered);
			server.answer = routes(documents(server.url)[index], { keys: [first.publicJwk] });
			assert.equal(await login(first), "serverUnavailable");
			assert.equal(server.requests.length, 1);
		}
	});

	it("a key set in a private network is asked only where the issuer is", async () => {
		const asked: string[] = [];
		for (const host of [
			"10.1.2.3",
			"192.168.0.1",
			"172.31.0.1",
			"169.254.169.254",
			"127.0.0.1",
			"[fd00::1]",
			"[fe80::1]",
			"[::ffff:a00:1]",
			"100.64.0.1",
			"localhost",
		]) {
			const fetch: Fetch = async (url) => {
				asked.push(url);
				return Response.json({ issuer: "https://issuer.example", jwks_uri: `https://${host}/jwks` });
			};
			const keys = oidcSource("https://issuer.example", { clock: new TestClock(), log: recordingLog().log, fetch });
			await assert.rejects(async () => keys.find({ algorithm: "ES256", kid: "first" }), /private network/);
		}
		assert.deepEqual(new Set(asked), new Set(["https://issuer.example/.well-known/openid-configuration"]));
	});
});
