// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.
/** The operations of the admin API: what they store, what they answer, and what they refuse. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { decodeJwt } from "jose";
import { PasswordVerifier } from "../../../src/auth/password_hash.ts";
import { AdminBench, assertProblem } from "./admin_support.ts";

let bench: AdminBench;

beforeEach(async () => {
	bench = await AdminBench.open();
});

afterEach(() => bench.close());

/** Names of what is wrong. */
async function wrong(method: string, path: string, body?: unknown): Promise<string[]> {
	const answer = await bench.send(method, path, body);
	assertProblem(answer, 400);
	return (answer.body.errors ?? []).map(({ path: place }: { path: string }) => place);
}

describe("admin API: users", () => {
	it("a user is added, shown without secrets, listed, replaced and deleted", async () => {
		const rules = [{ permission: "allow", action: "pub", topic: "a/${username}", qos: 1 }];
		const added = await bench.expect(201, "PUT", "/users/bob", {
			password: "pa55",
			clientId: "c1",
			tenant: "acme",
			rules,
			unmatched: "rules",
		});
		const time = new Date(bench.clock.ms).toISOString();
		assert.deepEqual(added, {
			username: "bob",
			methods: ["password", "SCRAM-SHA-256", "SCRAM-SHA-512"],
			clientId: "c1",
			tenant: "acme",
			rules: [{ permission: "allow", action: "publish", topics: ["a/${username}"], qos: [1] }],
			unmatched: "rules",
			createdAt: time,
			updatedAt: time,
		});
		assert.deepEqual(await bench.expect(200, "GET", "/users/bob"), added);
		assert.deepEqual(await bench.expect(200, "GET", "/users"), { items: [added], next: null });
		bench.clock.ms += 1000;
		const replaced = await bench.expect(200, "PUT", "/users/bob", { scram: false });
		assert.deepEqual(replaced, {
			username: "bob",
			methods: ["password"],
			createdAt: time,
			updatedAt: new Date(bench.clock.ms).toISOString(),
		});
		await bench.expect(204, "DELETE", "/users/bob");
		assertProblem(await bench.send("GET", "/users/bob"), 404);
		assertProblem(await bench.send("DELETE", "/users/bob"), 404);
	});

	it("the password verifies, stays when it is not sent again, and changes when it is", async () => {
		const verifier = new PasswordVerifier({ clock: bench.clock, rememberMs: 0 });
		const verifies = async (password: string) =>
			verifier.verify(Buffer.from(password), (await bench.users.find("bob"))?.passwordHash ?? "");
		await bench.expect(201, "PUT", "/users/bob", { password: "pässword 1" });
		assert.deepEqual([await verifies("pässword 1"), await verifies("password 1")], [true, false]);
		await bench.expect(200, "PUT", "/users/bob", { tenant: "acme" });
		assert.equal(await verifies("pässword 1"), true);
		await bench.expect(200, "PUT", "/users/bob", { password: "second" });
		assert.deepEqual([await verifies("second"), await verifies("pässword 1")], [true, false]);
	});

	it("no hash and no password is in any answer", async () => {
		const answers = [
			await bench.expect(201, "PUT", "/users/bob", { password: "s3cret" }),
			await bench.expect(200, "GET", "/users/bob"),
			await bench.expect(200, "GET", "/users"),
			(await bench.send("PUT", "/users/bob", { password: "s3cret".repeat(500), other: "s3cret" })).body,
		];
		for (const answer of answers) assert.doesNotMatch(JSON.stringify(answer), /s3cret|scrypt|SCRAM-SHA-256\$/);
	});

	it("who is replaced is sent away, and who is deleted is revoked until there is such a user again", async () => {
		await bench.expect(201, "PUT", "/users/bob", { password: "a" });
		assert.deepEqual(bench.kicked, []);
		await bench.expect(200, "PUT", "/users/bob", { password: "b" });
		assert.deepEqual(bench.kicked, [{ kind: "user", value: "bob" }]);
		const principal = { name: "bob", username: "bob", method: "password", expiresAtMs: Number.POSITIVE_INFINITY };
		assert.equal(await bench.revocations.isRevoked(principal, "c"), false);
		await bench.expect(204, "DELETE", "/users/bob");
		assert.equal(await bench.revocations.isRevoked(principal, "c"), true);
		await bench.expect(201, "PUT", "/users/bob", { password: "c" });
		assert.equal(await bench.revocations.isRevoked(principal, "c"), false);
	});

	it("an operator's own revocation of a user outlives the user", async () => {
		await bench.expect(201, "PUT", "/users/bob", { password: "a" });
		await bench.expect(201, "POST", "/revocations", { kind: "user", value: "bob", reason: "stolen" });
		await bench.expect(204, "DELETE", "/users/bob");
		await bench.expect(201, "PUT", "/users/bob", { password: "a" });
		assert.equal(bench.revocations.revocation("user", "bob")?.reason, "stolen");
	});

	it("what is not valid is refused, with its places", async () => {
		assert.deepEqual(await wrong("PUT", "/users/bob", {}), ["body/password"]);
		assert.deepEqual(await wrong("PUT", "/users/bob", { password: "" }), ["body/password"]);
		assert.deepEqual(await wrong("PUT", "/users/bob", { password: "ü".repeat(513) }), ["body/password"]);
		assert.deepEqual(await wrong("PUT", "/users/bob", { password: "x", role: "admin" }), ["body/role"]);
		assert.deepEqual(await wrong("PUT", "/users/bob", { password: "x", tenant: "a/b", clientId: "\u0000" }), [
			"body/clientId",
			"body/tenant",
		]);
		const rules = [{ permission: "allow", action: "pub", topic: "a/#/b" }];
		assert.deepEqual(await wrong("PUT", "/users/bob", { password: "x", rules }), ["body/rules/0/topic"]);
		assert.deepEqual(await wrong("PUT", "/users/bob", { password: "x", rules: [{ ...rules[0], topic: "a", users: ["x"] }] }), [
			"body/rules/0/users",
		]);
		assert.deepEqual(await wrong("PUT", "/users/a%00b", { password: "x" }), ["param/username"]);
		assert.deepEqual(await wrong("GET", "/users?limit=0"), ["query/limit"]);
		assert.deepEqual(await wrong("GET", "/users?limit=x"), ["query/limit"]);
		assert.deepEqual((await bench.users.list(undefined, 10)).items, []);
	});

	it("a list comes page by page", async () => {
		for (const name of ["a", "b", "c", "d/e"]) await bench.expect(201, "PUT", `/users/${encodeURIComponent(name)}`, { password: "x" });
		const first = await bench.expect(200, "GET", "/users?limit=3");
		assert.deepEqual([first.items.map(({ username }: { username: string }) => username), first.next], [["a", "b", "c"], "c"]);
		const second = await bench.expect(200, "GET", "/users?limit=3&after=c");
		assert.deepEqual([second.items.map(({ username }: { username: string }) => username), second.next], [["d/e"], null]);
	});
});

describe("admin API: rules", () => {
	const allow = (topic: string) => ({ permission: "allow", action: "all", topic });

	it("rules are added at the end or at a position, moved, listed in their order and deleted", async () => {
		const ids = async () => (await bench.expect(200, "GET", "/rules")).items.map(({ id }: { id: string }) => id);
		await bench.expect(201, "PUT", "/rules/b", { position: 20, rule: allow("b") });
		await bench.expect(201, "PUT", "/rules/a", { position: 10, rule: allow("a") });
		const last = await bench.expect(201, "PUT", "/rules/0", { rule: allow("last") });
		assert.deepEqual(last, { id: "0", position: 21, rule: { permission: "allow", action: "all", topics: ["last"] } });
		assert.deepEqual(await ids(), ["a", "b", "0"]);
		await bench.expect(200, "PUT", "/rules/b", { position: 5, rule: allow("b") });
		assert.deepEqual(await ids(), ["b", "a", "0"]);
		await bench.expect(200, "PUT", "/rules/b", { rule: { permission: "deny", action: "sub", topics: ["x", "y"], clientIds: ["c*"] } });
		assert.deepEqual(bench.rules.rules[0], { permission: "deny", action: "subscribe", topics: ["x", "y"], clientIds: ["c*"] });
		assert.deepEqual(await bench.expect(200, "GET", "/rules/a"), {
			id: "a",
			position: 10,
			rule: { permission: "allow", action: "all", topics: ["a"] },
		});
		await bench.expect(204, "DELETE", "/rules/a");
		assert.deepEqual(await ids(), ["b", "0"]);
		assertProblem(await bench.send("DELETE", "/rules/a"), 404);
		assertProblem(await bench.send("GET", "/rules/a"), 404);
	});

	it("what is no rule is refused, with its place", async () => {
		assert.deepEqual(await wrong("PUT", "/rules/r", { rule: { ...allow("a"), user: "x" } }), ["body/rule/user"]);
		assert.deepEqual(await wrong("PUT", "/rules/r", { rule: { permission: "allow", action: "all" } }), ["body/rule"]);
		assert.deepEqual(await wrong("PUT", "/rules/r", { rule: allow("${nobody}") }), ["body/rule/topic"]);
		assert.deepEqual(await wrong("PUT", "/rules/r", { position: 1.5, rule: allow("a") }), ["body/position"]);
		assert.deepEqual(bench.rules.list(), []);
	});
});

describe("admin API: tokens", () => {
	it("a token is issued with client id, topics and lifetime, listed without itself, and revoked", async () => {
		const request = { clientId: "d1", subject: "alice", acl: { pub: ["a/${clientid}"], sub: ["b/#"] }, lifetimeSeconds: 3600 };
		const issued = await bench.expect(201, "POST", "/tokens", request);
		const { sub, client_id, username, acl, jti, exp, iat } = decodeJwt<Record<"client_id" | "username" | "acl", unknown>>(issued.token);
		assert.equal(username, "alice");
		assert.deepEqual([sub, client_id, acl, jti, (exp ?? 0) - (iat ?? 0)], ["alice", "d1", request.acl, issued.jti, 3600]);
		const shown = await bench.expect(200, "GET", `/tokens/${jti}`);
		assert.deepEqual(shown, {
			jti,
			subject: "alice",
			clientId: "d1",
			username: "alice",
			issuedAt: new Date((iat ?? 0) * 1000).toISOString(),
			expiresAt: issued.expiresAt,
			revoked: false,
		});
		const listed = await bench.expect(200, "GET", "/tokens");
		assert.deepEqual(listed, { items: [shown], next: null });
		assert.ok(!JSON.stringify(listed).includes(issued.token));
		await bench.expect(204, "DELETE", `/tokens/${jti}`);
		assert.equal((await bench.expect(200, "GET", `/tokens/${jti}`)).revoked, true);
		const principal = { name: "alice", method: "jwt", expiresAtMs: Number.POSITIVE_INFINITY, tokenId: jti ?? "" };
		assert.equal(await bench.revocations.isRevoked(principal, "d1"), true);
		assertProblem(await bench.send("DELETE", "/tokens/unknown"), 404);
	});

	it("the token itself is nowhere in the store", async () => {
		const { token } = await bench.expect(201, "POST", "/tokens", { clientId: "d1", lifetimeSeconds: 60 });
		for (const kind of ["token", "user", "revocation"]) {
			const { records } = await bench.store.records.list(kind, undefined, 100);
			assert.ok(!JSON.stringify(records).includes(token));
			assert.ok(!JSON.stringify(records).includes(token.split(".")[2]));
		}
	});

	it("it is forgotten when it has expired", async () => {
		const { jti } = await bench.expect(201, "POST", "/tokens", { clientId: "d1", lifetimeSeconds: 60 });
		bench.clock.ms += 60_000;
		assertProblem(await bench.send("GET", `/tokens/${jti}`), 404);
		assert.deepEqual(await bench.expect(200, "GET", "/tokens"), { items: [], next: null });
	});

	it("what cannot be issued is refused, with its place", async () => {
		assert.deepEqual(await wrong("POST", "/tokens", { lifetimeSeconds: 60 }), ["body"]);
		assert.deepEqual(await wrong("POST", "/tokens", { clientId: "d1" }), ["body/lifetimeSeconds"]);
		assert.deepEqual(await wrong("POST", "/tokens", { clientId: "d1", lifetimeSeconds: 31_536_001 }), ["body/lifetimeSeconds"]);
		assert.deepEqual(await wrong("POST", "/tokens", { clientId: "d1", lifetimeSeconds: 60, tenant: "a/b" }), ["body/tenant"]);
		assert.deepEqual(await wrong("POST", "/tokens", { clientId: "d1", lifetimeSeconds: 60, acl: { pub: ["a/#/b"] } }), ["body/acl/pub/0"]);
		assert.deepEqual(await wrong("POST", "/tokens", { clientId: "d1", lifetimeSeconds: 60, acl: { pub: ["a/${claims.x}"] } }), [
			"body/acl",
		]);
		const many = Array.from({ length: 200 }, (_, n) => `t/${n}`);
		assert.deepEqual(await wrong("POST", "/tokens", { clientId: "d1", lifetimeSeconds: 60, acl: { pub: many, sub: many } }), ["body/acl"]);
	});

	it("the public keys are there for everybody, without private parts; without an issuer neither they nor operations are", async () => {
		const response = await bench.app.request("/.well-known/jwks.json");
		assert.equal(response.status, 200);
		const { keys } = (await response.json()) as { keys: object[] };
		assert.equal(keys.length, 1);
		assert.ok(!("d" in (keys[0] as object)));
		const without = await AdminBench.open(({ tokens: _tokens, ...options }) => options);
		assert.equal((await without.app.request("/.well-known/jwks.json")).status, 404);
		assertProblem(await without.send("GET", "/tokens"), 404);
		await without.close();
	});
});

describe("admin API: revocations and bans", () => {
	it("a revocation is made, listed and taken back", async () => {
		const made = await bench.expect(201, "POST", "/revocations", { kind: "clientId", value: "d/1", expiresInSeconds: 60, reason: "lost" });
		const times = [bench.clock.ms, bench.clock.ms + 60_000].map((ms) => new Date(ms).toISOString());
		assert.deepEqual(made, { kind: "clientId", value: "d/1", reason: "lost", revokedAt: times[0], expiresAt: times[1] });
		assert.deepEqual(await bench.expect(200, "GET", "/revocations"), { items: [made], next: null });
		await bench.expect(204, "DELETE", "/revocations/clientId/d%2F1");
		assertProblem(await bench.send("DELETE", "/revocations/clientId/d%2F1"), 404);
		assert.deepEqual(await bench.expect(200, "GET", "/revocations"), { items: [], next: null });
		assert.deepEqual(await wrong("POST", "/revocations", { kind: "all", value: "x" }), ["body/kind"]);
		assert.deepEqual(await wrong("POST", "/revocations", { kind: "user" }), ["body/value"]);
	});

	it("bans of client ids, users, addresses and networks count at once, end in time, and are lifted", async () => {
		const principal = { name: "", method: "anonymous", expiresAtMs: Number.POSITIVE_INFINITY };
		await bench.expect(200, "PUT", "/bans/clientId/evil", { reason: "flood" });
		assert.deepEqual(
			[await bench.revocations.isRevoked(principal, "evil"), await bench.revocations.isRevoked(principal, "good")],
			[true, false],
		);
		await bench.expect(200, "PUT", "/bans/user/bob", {});
		assert.equal(await bench.revocations.isRevoked({ ...principal, username: "bob" }, "good"), true);
		const banned = await bench.expect(200, "PUT", "/bans/address/2001%3ADB8%3A0%3A0%3A%3A1", { expiresInSeconds: 60 });
		assert.equal(banned.value, "2001:db8::1");
		await bench.expect(200, "PUT", "/bans/address/198.51.100.0%2F24", {});
		assert.deepEqual(
			["2001:db8::1", "2001:db8::2", "198.51.100.200", "198.51.101.1"].map((address) => bench.revocations.isBanned(address)),
			[true, false, true, false],
		);
		bench.clock.ms += 60_000;
		assert.equal(bench.revocations.isBanned("2001:db8::1"), false);
		const { items } = await bench.expect(200, "GET", "/bans");
		assert.deepEqual(
			items.map(({ kind, value, expiresAt }: Record<string, unknown>) => [kind, value, expiresAt]),
			[
				["address", "198.51.100.0/24", null],
				["clientId", "evil", null],
				["user", "bob", null],
			],
		);
		await bench.expect(204, "DELETE", "/bans/address/198.51.100.0%2F24");
		assert.equal(bench.revocations.isBanned("198.51.100.200"), false);
		assertProblem(await bench.send("DELETE", "/bans/user/carol"), 404);
	});

	it("what is no address is not banned", async () => {
		for (const value of ["localhost", "192.0.2.256", "192.0.2.0/33", "::ffff:192.0.2.1/120", "192.0.2.1/24/1", "/24", "192.0.2.1/"]) {
			assert.deepEqual(await wrong("PUT", `/bans/address/${encodeURIComponent(value)}`, {}), ["param/value"], value);
		}
		assert.deepEqual(await wrong("PUT", "/bans/host/x", {}), ["param/kind"]);
		assert.deepEqual((await bench.revocations.bans(undefined, 10)).items, []);
	});

	it("beyond the limit a ban is refused with what to do, and those that have expired make room", async () => {
		for (let n = 0; n < 50; n++) await bench.expect(200, "PUT", `/bans/clientId/c${n}`, { expiresInSeconds: 60 });
		const full = await bench.send("PUT", "/bans/clientId/more", {});
		assertProblem(full, 409);
		assert.match(full.body.detail, /50 .*remove/);
		await bench.expect(200, "PUT", "/bans/clientId/c1", {});
		bench.clock.ms += 60_000;
		await bench.expect(200, "PUT", "/bans/clientId/more", {});
	});
});

describe("admin API: clients", () => {
	it("the clients of this replica are listed page by page", async () => {
		bench.clients = ["a", "b", "c"].map((clientId) => ({
			clientId,
			username: clientId === "a" ? "alice" : "",
			method: "password",
			address: "192.0.2.7",
			transport: "wss",
			protocolVersion: 5,
			connectedAtMs: bench.clock.ms,
		}));
		const first = await bench.expect(200, "GET", "/clients?limit=2");
		assert.deepEqual(first.items[0], {
			clientId: "a",
			username: "alice",
			method: "password",
			address: "192.0.2.7",
			transport: "wss",
			protocolVersion: 5,
			connectedAt: new Date(bench.clock.ms).toISOString(),
		});
		assert.equal(first.next, "b");
		const second = await bench.expect(200, "GET", "/clients?limit=2&after=b");
		assert.deepEqual([second.items.length, second.next], [1, null]);
	});

	it("a client is sent away by its id, wherever it is", async () => {
		await bench.expect(202, "DELETE", "/clients/a%2Fb%20c");
		assert.deepEqual(bench.kicked, [{ kind: "clientId", value: "a/b c" }]);
	});
});

describe("admin API: OpenAPI document", () => {
	it("it has every operation, with the schemas that validate", async () => {
		const document = await bench.expect(200, "GET", "/openapi.json");
		assert.equal(document.openapi, "3.1.0");
		assert.equal(document.info.version, "1.2.3");
		assert.deepEqual(document.servers, [{ url: "/api/v1" }]);
		const operations = Object.entries(document.paths as Record<string, object>).flatMap(([path, methods]) =>
			Object.keys(methods).map((method) => `${method} ${path}`),
		);
		assert.deepEqual(operations.sort(), [
			"delete /bans/{kind}/{value}",
			"delete /clients/{clientId}",
			"delete /revocations/{kind}/{value}",
			"delete /rules/{id}",
			"delete /tokens/{jti}",
			"delete /users/{username}",
			"get /bans",
			"get /clients",
			"get /revocations",
			"get /rules",
			"get /rules/{id}",
			"get /tokens",
			"get /tokens/{jti}",
			"get /users",
			"get /users/{username}",
			"post /revocations",
			"post /tokens",
			"put /bans/{kind}/{value}",
			"put /rules/{id}",
			"put /users/{username}",
		]);
		const { schemas, securitySchemes } = document.components;
		assert.equal(securitySchemes.operator.scheme, "bearer");
		assert.equal(schemas.UserSettings.additionalProperties, false);
		assert.deepEqual(schemas.RuleInput.properties.rule.properties.permission.enum, ["allow", "deny"]);
		assert.deepEqual(schemas.TokenRequest.required, ["lifetimeSeconds"]);
		const references = JSON.stringify(document).match(/#\/components\/schemas\/\w+/g) ?? [];
		for (const reference of references) assert.ok((reference.split("/").at(-1) as string) in schemas, reference);
	});
});

describe("admin API: the store", () => {
	it("when it cannot be reached: 503 that says to repeat, and nothing of its inside", async () => {
		await bench.store.close();
		const answer = await bench.send("PUT", "/users/bob", { password: "x" });
		assertProblem(answer, 503);
		assert.doesNotMatch(JSON.stringify(answer.body), /memory|sqlite/i);
		await bench.store.start(bench.clock.ms, () => {});
	});
});
