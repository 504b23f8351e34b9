/** Who gets into the admin API, and how everybody else is refused. */

import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { SignJWT } from "jose";
import { operatorTokens } from "../../../src/auth/admin_token.ts";
import { jwtMember } from "../../../src/auth/jwt.ts";
import { secretSource } from "../../../src/auth/key_source.ts";
import { createAdminApi } from "../../../src/http/admin/api.ts";
import { createRuntimeAdapter } from "../../../src/transport/runtime.ts";
import { ADMIN_TOKEN, AdminBench, assertProblem, OPERATOR } from "./admin_support.ts";

const SECRET = new TextEncoder().encode("a secret of more than thirty-two bytes");

const open: AdminBench[] = [];
afterEach(() => Promise.all(open.splice(0).map((bench) => bench.close())));

async function bench(...args: Parameters<typeof AdminBench.open>): Promise<AdminBench> {
	const opened = await AdminBench.open(...args);
	open.push(opened);
	return opened;
}

/** One that takes tokens signed with the secret. */
function withTokens(): Promise<AdminBench> {
	return bench((options) => {
		const member = jwtMember({ clock: options.clock, issuers: [{ keys: secretSource(SECRET) }] });
		return { ...options, access: { ...options.access, judge: operatorTokens(member, options.revocations) } };
	});
}

function signed(subject: AdminBench, claims: Record<string, unknown>, lifetimeSeconds = 60): Promise<string> {
	const now = Math.floor(subject.clock.ms / 1000);
	return new SignJWT(claims)
		.setProtectedHeader({ alg: "HS256" })
		.setSubject("olga")
		.setJti("j1")
		.setIssuedAt(now)
		.setExpirationTime(now + lifetimeSeconds)
		.sign(SECRET);
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe("admin API: access", () => {
	it("without a token and without a judge there is no API", async () => {
		const subject = await bench((options) => {
			const { token: _token, judge: _judge, ...access } = options.access;
			return { ...options, access };
		});
		assert.equal((await subject.app.request("/api/v1/users", { headers: OPERATOR })).status, 404);
		assert.equal((await subject.app.request("/api/v1/openapi.json")).status, 404);
	});

	it("without, or with a wrong token: 401 with a challenge, for operations that are there and others", async () => {
		for (const path of ["/users", "/nowhere", "/openapi.json"]) {
			const subject = await bench();
			for (const headers of [{}, bearer("wrong"), { authorization: `Basic ${ADMIN_TOKEN}` }]) {
				const answer = await subject.send("GET", path, undefined, headers);
				assertProblem(answer, 401);
				assert.match(answer.headers.get("www-authenticate") ?? "", /^Bearer/);
			}
		}
	});

	it("with the configured token: in, and the answer is for nobody's cache", async () => {
		const subject = await bench();
		const answer = await subject.send("GET", "/users");
		assert.equal(answer.status, 200);
		assert.deepEqual([answer.headers.get("cache-control"), answer.headers.get("x-content-type-options")], ["no-store", "nosniff"]);
		assert.equal(answer.headers.get("access-control-allow-origin"), null);
		assert.equal(answer.headers.get("set-cookie"), null);
	});

	it("a token of a configured issuer with the scope shoal:admin: in, whichever claim has it", async () => {
		const subject = await withTokens();
		for (const claims of [{ scope: "openid shoal:admin" }, { scp: ["shoal:admin"] }, { scp: "shoal:admin" }]) {
			assert.equal(
				(await subject.send("GET", "/users", undefined, bearer(await signed(subject, claims)))).status,
				200,
				JSON.stringify(claims),
			);
		}
	});

	it("a good token without the scope: 403, and it is no guess", async () => {
		const subject = await withTokens();
		for (const claims of [
			{},
			{ scope: "shoal:administrator" },
			{ scope: "shoal:admin2 xshoal:admin" },
			{ scp: ["a", "shoal"] },
			{ "shoal:admin": true },
		]) {
			assertProblem(await subject.send("GET", "/users", undefined, bearer(await signed(subject, claims))), 403);
		}
		assert.equal((await subject.send("GET", "/users")).status, 200);
	});

	it("a token that has expired, was signed by somebody else or was revoked: 401", async () => {
		const subject = await withTokens();
		const good = await signed(subject, { scope: "shoal:admin" });
		const other = await new SignJWT({ scope: "shoal:admin" })
			.setProtectedHeader({ alg: "HS256" })
			.setExpirationTime("1y")
			.sign(new TextEncoder().encode("another secret of more than thirty-two bytes"));
		assertProblem(await subject.send("GET", "/users", undefined, bearer(other)), 401);
		await subject.expect(201, "POST", "/revocations", { kind: "token", value: "j1" });
		assertProblem(await subject.send("GET", "/users", undefined, bearer(good)), 401);
		const later = await withTokens();
		const short = await signed(later, { scope: "shoal:admin" }, 60);
		later.clock.ms += 60_000;
		assertProblem(await later.send("GET", "/users", undefined, bearer(short)), 401);
	});

	it("when tokens cannot be judged: 503, and nothing is done", async () => {
		const subject = await bench((options) => ({
			...options,
			access: { ...options.access, judge: () => Promise.reject(new Error("away")) },
		}));
		assertProblem(await subject.send("PUT", "/users/bob", { password: "x" }, bearer("a.b.c")), 503);
		assert.equal(await subject.users.get("bob"), undefined);
	});

	it("after failures in a row an address gets 429, even with the right token; other addresses do not, and it ends", async () => {
		const subject = await bench();
		for (let n = 0; n < 3; n++) assertProblem(await subject.send("GET", "/users", undefined, bearer(`wrong${n}`)), 401);
		const refused = await subject.send("GET", "/users");
		assertProblem(refused, 429);
		assert.ok(Number(refused.headers.get("retry-after")) > 0);
		subject.address = "192.0.2.2";
		assert.equal((await subject.send("GET", "/users")).status, 200);
		subject.address = "192.0.2.1";
		subject.clock.ms += 120_000;
		assert.equal((await subject.send("GET", "/users")).status, 200);
	});

	it("a request of another site's page: 403, even with the right token; the site's own and those of no page: in", async () => {
		const subject = await bench();
		const foreign = [
			{ "sec-fetch-site": "cross-site" },
			{ "sec-fetch-site": "same-site" },
			{ origin: "https://evil.example" },
			{ origin: "null" },
			{ origin: "http://localhost.evil.example" },
			{ origin: "https://localhost:8443" },
			{ "sec-fetch-site": "cross-site", origin: "http://localhost" },
		];
		for (const headers of foreign) assertProblem(await subject.send("GET", "/users", undefined, { ...OPERATOR, ...headers }), 403);
		for (const headers of [
			{ "sec-fetch-site": "same-origin", origin: "https://public.example" },
			{ "sec-fetch-site": "none" },
			{ origin: "https://localhost" },
		]) {
			assert.equal((await subject.send("GET", "/users", undefined, { ...OPERATOR, ...headers })).status, 200, JSON.stringify(headers));
		}
	});

	it("a preflight is not answered with leave", async () => {
		const subject = await bench();
		const response = await subject.app.request("/api/v1/users", {
			method: "OPTIONS",
			headers: { origin: "https://evil.example", "access-control-request-method": "GET" },
		});
		assert.equal(response.status, 403);
		assert.deepEqual(
			[...response.headers.keys()].filter((name) => name.startsWith("access-control")),
			[],
		);
	});

	it("a body over 64 KB: 413; one that is no JSON: 415 by its type, 400 by its content; a missing one: 415", async () => {
		const subject = await bench();
		const large = JSON.stringify({ password: "x", clientId: "y".repeat(70_000) });
		assertProblem(await subject.send("PUT", "/users/bob", large), 413);
		assertProblem(
			await subject.send("PUT", "/users/bob", "password=x", { ...OPERATOR, "content-type": "application/x-www-form-urlencoded" }),
			415,
		);
		assertProblem(await subject.send("PUT", "/users/bob", '{"password":"x"}', { ...OPERATOR, "content-type": "text/plain" }), 415);
		assertProblem(await subject.send("PUT", "/users/bob", "{"), 400);
		assertProblem(await subject.send("PUT", "/users/bob"), 415);
		assert.equal(await subject.users.get("bob"), undefined);
	});

	it("an operation that is not there: 404 as a problem", async () => {
		const subject = await bench();
		assertProblem(await subject.send("GET", "/nowhere"), 404);
		assertProblem(await subject.send("POST", "/users", {}), 404);
	});

	it("changes are logged with the operator and without secrets, and so are refusals", async () => {
		const subject = await withTokens();
		const token = await signed(subject, { scope: "shoal:admin" });
		await subject.send("PUT", "/users/bob", { password: "pa55word" }, bearer(token));
		await subject.send("GET", "/users", undefined, bearer("guessed-token"));
		const { body } = await subject.send("POST", "/tokens", { clientId: "d1", lifetimeSeconds: 60 });
		const lines = subject.lines.join("\n");
		assert.match(lines, /operator="olga".*"PUT".*\/api\/v1\/users\/bob/);
		assert.match(lines, /refused.*192\.0\.2\.1/);
		for (const secret of ["pa55word", token, "guessed-token", ADMIN_TOKEN, body.token]) assert.ok(!lines.includes(secret));
	});

	it("on a real server: an operator is let in, anybody else is not, and a body over the limit is refused while it comes", async () => {
		const subject = await bench();
		const adapter = createRuntimeAdapter({
			maxPacketSize: 1000,
			maxBufferedBytes: 10_000,
			pingSeconds: 0,
			compression: false,
			requireSubprotocol: true,
		});
		const app = createAdminApi(subject.options);
		const listener = await adapter.serve({ hostname: "127.0.0.1", port: 0, fetch: (request, env) => app.fetch(request, env as object) });
		try {
			const url = `http://127.0.0.1:${listener.port}/api/v1/users`;
			const put = (body: NonNullable<RequestInit["body"]>, headers: Record<string, string> = OPERATOR) =>
				fetch(`${url}/b%2Fo%20b%C3%BC`, {
					method: "PUT",
					headers: { ...headers, "content-type": "application/json" },
					body,
					...(body instanceof ReadableStream && { duplex: "half" }),
				} as RequestInit);
			const refused = await put('{"password":"x"}', {});
			assert.deepEqual([refused.status, refused.headers.get("content-type")], [401, "application/problem+json"]);
			await refused.body?.cancel();
			const added = await put('{"password":"x"}');
			assert.equal(added.status, 201);
			assert.equal((await added.json()).username, "b/o bü");
			const shown = await fetch(`${url}/b%2Fo%20b%C3%BC`, { headers: OPERATOR });
			assert.equal((await shown.json()).username, "b/o bü");
			const chunks = new ReadableStream({
				start(controller) {
					for (let n = 0; n < 100; n++) controller.enqueue(new TextEncoder().encode(" ".repeat(1000)));
					controller.close();
				},
			});
			const large = await put(chunks);
			assert.equal(large.status, 413);
			await large.body?.cancel();
		} finally {
			await listener.stop();
		}
	});
});
