/** Users in the store: they log in by password and SCRAM with what was put last, and a broken record lets nobody in. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createAuthenticationChain } from "../../src/auth/chain.ts";
import { passwordMember } from "../../src/auth/password.ts";
import { hashCost, isPasswordHash, PasswordVerifier } from "../../src/auth/password_hash.ts";
import { StoredRevocations } from "../../src/auth/stored_revocations.ts";
import { StoredUsers, usersOf } from "../../src/auth/stored_users.ts";
import type { UserSource } from "../../src/auth/users.ts";
import { credentials, grantedTo, recordingLog, shown, TestClock } from "./auth_support.ts";
import { type RecordsView, SharedRecords } from "./managed_support.ts";

const COST = { logN: 10, blockSize: 1, parallel: 1 };
const clock = new TestClock();

function users(view: RecordsView): StoredUsers {
	return new StoredUsers({ records: view, clock, cost: COST, scramRounds: 4096 });
}

async function login(source: UserSource, username: string, password: string) {
	const member = await passwordMember({ users: source, verifier: new PasswordVerifier({ clock, rememberMs: 0 }) });
	return member.authenticate(credentials({ username, password }));
}

describe("stored users", () => {
	it("a user logs in at any replica with what was put last, and with its own client id, tenant and rules", async () => {
		const shared = new SharedRecords();
		const [a, b] = [users(shared.view()), users(shared.view())];
		await a.put("bob", { password: "first" });
		assert.equal(shown(await login(b, "bob", "first")), "granted");
		const rules = [{ permission: "allow", action: "all", topics: ["a"] }] as const;
		await a.put("bob", { password: "second", clientId: "c1", tenant: "acme", rules });
		assert.notEqual(shown(await login(b, "bob", "first")), "granted");
		const principal = grantedTo(await login(b, "bob", "second"));
		assert.deepEqual([principal.username, principal.boundClientId, principal.tenant], ["bob", "c1", "acme"]);
		assert.deepEqual(principal.grants, { rules, claims: {}, unmatched: "deny" });
		await a.delete("bob");
		assert.notEqual(shown(await login(b, "bob", "second")), "granted");
	});

	it("verifiers for SCRAM are made where name and password allow it, unless they are not wanted, and stay with the password", async () => {
		const source = users(new SharedRecords().view());
		const hashes = async (name: string) => Object.keys((await source.find(name))?.scram ?? {});
		await source.put("a", { password: "x" });
		await source.put("b", { password: "x", scram: false });
		await source.put("c", { password: "zero\u200bwidth" });
		assert.deepEqual([await hashes("a"), await hashes("b"), await hashes("c")], [["sha256", "sha512"], [], []]);
		await source.put("a", { tenant: "acme" });
		await source.put("b", { scram: true });
		assert.deepEqual([await hashes("a"), await hashes("b")], [["sha256", "sha512"], []], "without the password none can be made");
		assert.equal((await source.find("a"))?.scram?.sha256?.rounds, 4096);
		await source.put("a", { scram: false });
		assert.deepEqual(await hashes("a"), []);
	});

	it("a new user without password is not stored", async () => {
		const source = users(new SharedRecords().view());
		assert.equal(await source.put("bob", { tenant: "acme" }), undefined);
		assert.equal(await source.find("bob"), undefined);
		assert.equal(await source.find(""), undefined);
	});

	it("a record that cannot be read lets nobody in, is shown as one that cannot log in, and can be put again", async () => {
		const shared = new SharedRecords();
		const source = users(shared.view());
		await source.put("bob", { password: "x" });
		const record = shared.kind("user").get("bob");
		shared
			.kind("user")
			.set("bob", { key: "bob", value: { ...(record?.value as object), onlyFrom: "192.0.2.0/24" }, expiresAtMs: Number.POSITIVE_INFINITY });
		await assert.rejects(
			login(source, "bob", "x"),
			(error: Error) => /"bob" cannot be read/.test(error.message) && !error.message.includes("scrypt"),
		);
		assert.deepEqual((await source.list(undefined, 10)).items, [{ username: "bob", methods: [], createdAtMs: 0, updatedAtMs: 0 }]);
		assert.equal(await source.put("bob", { tenant: "acme" }), undefined);
		assert.equal((await source.put("bob", { password: "y" }))?.created, true);
		assert.equal(shown(await login(source, "bob", "y")), "granted");
	});

	it("while the store cannot be asked nobody is let in: the rejection is not an unknown user", async () => {
		const shared = new SharedRecords();
		const source = users(shared.view());
		await source.put("bob", { password: "x" });
		shared.failure = new Error("it is away");
		await assert.rejects(login(source, "bob", "x"), /it is away/);
	});

	it("several sources are one: the first that knows the name has it, and the costliest hash of all counts", async () => {
		const stored = users(new SharedRecords().view());
		await stored.put("bob", { password: "stored" });
		await stored.put("carol", { password: "stored" });
		const cheap = "$scrypt$ln=10,r=1,p=1$c2FsdHNhbHQ$".concat("A".repeat(43));
		const costly = cheap.replace("ln=10", "ln=12");
		const file: UserSource = {
			find: (name) => (name === "bob" ? { username: "bob", passwordHash: cheap } : undefined),
			costliestHash: cheap,
		};
		const other: UserSource = { find: () => undefined, costliestHash: costly, scramRounds: 9000 };
		const all = usersOf([file, stored, other]);
		assert.notEqual(shown(await login(all, "bob", "stored")), "granted");
		assert.equal(shown(await login(all, "carol", "stored")), "granted");
		assert.equal(await all.find("nobody"), undefined);
		assert.deepEqual([all.costliestHash, all.scramRounds], [costly, 4096]);
		// An unknown user must not cost less than one in the store, however cheap the file is.
		assert.equal(hashCost(usersOf([file, stored]).costliestHash ?? ""), 2 ** COST.logN * COST.blockSize * COST.parallel);
		assert.ok(isPasswordHash(stored.costliestHash));
	});

	it("through the chain: a revoked user is refused with the right password, until it is restored", async () => {
		const shared = new SharedRecords();
		const view = shared.view();
		const source = users(view);
		const { log } = recordingLog();
		const revocations = new StoredRevocations({ records: view, clock, log, networks: () => ({ has: () => false }) });
		const member = await passwordMember({ users: source, verifier: new PasswordVerifier({ clock, rememberMs: 0 }) });
		const chain = createAuthenticationChain({ members: [member], revocations, clock, log });
		const outcome = async () => shown(await chain.authenticate(credentials({ username: "bob", password: "x", clientId: "c" })));
		await source.put("bob", { password: "x" });
		assert.match(await outcome(), /^serverUnavailable/, "before the revocations are loaded");
		await revocations.start();
		assert.equal(await outcome(), "granted");
		await revocations.revoke({ kind: "user", value: "bob", revokedAtMs: clock.ms, expiresAtMs: clock.ms + 1000, reason: "" });
		assert.match(await outcome(), /^notAuthorized/);
		await revocations.restore("user", "bob");
		assert.equal(await outcome(), "granted");
		revocations.close();
	});
});
