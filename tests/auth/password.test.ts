/** User names with passwords, from a file. */

import assert from "node:assert/strict";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { passwordMember } from "../../src/auth/password.ts";
import { PasswordFile, PasswordFileError, passwordLines } from "../../src/auth/password_file.ts";
import { type HashLimits, hashCost, hashPassword, isPasswordHash, PasswordVerifier } from "../../src/auth/password_hash.ts";
import type { UserSource } from "../../src/auth/users.ts";
import { credentials, grantedTo, recordingLog, shown, TestClock } from "./auth_support.ts";

/** Cheap, for tests. */
const COST = { logN: 10, blockSize: 1, parallel: 1 };
const WRONG = "badUserNameOrPassword: unknown user or wrong password";

const aliceHash = await hashPassword("secret", COST);
const users: UserSource = {
	find: (name) => (name === "alice" ? { username: "alice", passwordHash: aliceHash } : undefined),
	costliestHash: aliceHash,
};

/** A verifier that remembers nothing unless it is told to. */
const verifierOf = (limits: Partial<HashLimits> = {}) => new PasswordVerifier({ clock: new TestClock(), rememberMs: 0, ...limits });

/** A directory that ends with the test, with a file of these lines. */
function fileOf(t: TestContext, text: string): string {
	const directory = mkdtempSync(join(tmpdir(), "shoal-passwords-"));
	t.after(() => rmSync(directory, { recursive: true }));
	const path = join(directory, "users");
	writeFileSync(path, text);
	return path;
}

describe("password: hashes", () => {
	it("a hash is scrypt in PHC form with a salt of its own, and verifies that password only", async () => {
		const verifier = verifierOf();
		const other = await hashPassword("secret", COST);
		assert.match(other, /^\$scrypt\$ln=10,r=1,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/);
		assert.notEqual(other, aliceHash);
		assert.equal(await verifier.verify(Buffer.from("secret"), other), true);
		for (const wrong of ["", "Secret", "secret ", "secre"]) assert.equal(await verifier.verify(Buffer.from(wrong), other), false);
	});

	it("the test vector of RFC 7914 section 12 verifies", async () => {
		const key =
			"7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887";
		const text = (bytes: Buffer) => bytes.toString("base64").replaceAll("=", "");
		const hash = `$scrypt$ln=14,r=8,p=1$${text(Buffer.from("SodiumChloride"))}$${text(Buffer.from(key, "hex"))}`;
		assert.equal(await verifierOf().verify(Buffer.from("pleaseletmein"), hash), true);
	});

	it("weak, costly and foreign forms are no hashes", () => {
		for (const change of ["ln=9", "ln=18", "ln=99", "ln=1"]) assert.equal(isPasswordHash(aliceHash.replace("ln=10", change)), false);
		for (const change of ["r=0", "r=17"]) assert.equal(isPasswordHash(aliceHash.replace("r=1", change)), false);
		for (const change of ["p=0", "p=5"]) assert.equal(isPasswordHash(aliceHash.replace("p=1", change)), false);
		for (const text of [
			"",
			"secret",
			"$2b$10$abcdefghijklmnopqrstuv",
			aliceHash.slice(0, -30),
			`${aliceHash}\n`,
			aliceHash.replace("scrypt", "argon2id"),
		]) {
			assert.equal(isPasswordHash(text), false, text);
		}
		assert.equal(hashCost("secret"), 0);
	});

	it("an empty password and one over 1 KB are not hashed, and never match", async () => {
		await assert.rejects(hashPassword("", COST), RangeError);
		await assert.rejects(hashPassword("x".repeat(1025), COST), RangeError);
		const long = await hashPassword("x".repeat(1024), COST);
		assert.equal(await verifierOf().verify(Buffer.from("x".repeat(1024)), long), true);
		assert.equal(await verifierOf().verify(Buffer.from("x".repeat(1025)), long), false);
	});

	it("only so many are computed at a time, only so many wait, and the places come free again", async () => {
		const verifier = verifierOf({ concurrency: 1, maxWaiting: 2 });
		const outcomes = await Promise.all(Array.from({ length: 5 }, () => verifier.verify(Buffer.from("secret"), aliceHash)));
		assert.deepEqual(outcomes, [true, true, true, undefined, undefined]);
		assert.equal(await verifier.verify(Buffer.from("secret"), aliceHash), true);
		await assert.rejects(verifier.verify(Buffer.from("secret"), "nonsense"), TypeError);
		assert.equal(await verifier.verify(Buffer.from("secret"), aliceHash), true);
	});

	it("a right password is known again for a while, a wrong one never, and a new hash is another", async () => {
		const clock = new TestClock();
		const verifier = verifierOf({ clock, rememberMs: 1000, concurrency: 1, maxWaiting: 0 });
		const [right, wrong] = [Buffer.from("secret"), Buffer.from("wrong")];
		const other = await hashPassword("secret", COST);
		/** Whether an answer takes no place: while another hash is computed, there is none. */
		const known = async (password: Uint8Array, hash: string) => {
			const busy = verifier.verify(wrong, aliceHash);
			const answer = await verifier.verify(password, hash);
			await busy;
			return answer;
		};
		assert.equal(await known(right, aliceHash), undefined);
		assert.equal(await verifier.verify(right, aliceHash), true);
		assert.deepEqual(
			[await known(right, aliceHash), await known(wrong, aliceHash), await known(right, other)],
			[true, undefined, undefined],
		);
		assert.equal(await verifier.verify(right, aliceHash, true), true);
		const busy = verifier.verify(wrong, aliceHash);
		assert.equal(await verifier.verify(right, aliceHash, true), undefined, "not for unknown users");
		await busy;
		clock.ms += 1000;
		assert.equal(await known(right, aliceHash), undefined);
	});

	it("the event loop turns while passwords are hashed", async () => {
		const hash = await hashPassword("secret");
		let turns = 0;
		const timer = setInterval(() => turns++, 1);
		await verifierOf().verify(Buffer.from("secret"), hash);
		clearInterval(timer);
		assert.ok(turns >= 3, `${turns} turns`);
	});
});

describe("password: logging in", () => {
	it("the right password is granted, with the user name as identity", async () => {
		const member = await passwordMember({ users, verifier: verifierOf() });
		const principal = grantedTo(await member.authenticate(credentials({ username: "alice", password: "secret" })));
		assert.deepEqual(principal, { name: "alice", method: "password", expiresAtMs: Number.POSITIVE_INFINITY, username: "alice" });
	});

	it("an unknown user and a wrong password get the same answer after the same work (FAULTS 48)", async () => {
		const work: string[] = [];
		let asked = "";
		class Recording extends PasswordVerifier {
			override verify(password: Uint8Array, hash: string, unknown?: boolean) {
				work.push(hash);
				assert.equal(unknown, asked !== "alice");
				return super.verify(password, hash, unknown);
			}
		}
		const member = await passwordMember({ users, verifier: new Recording({ clock: new TestClock() }) });
		for (const [username, password] of [
			["alice", "wrong"],
			["nobody", "wrong"],
			["nobody", "secret"],
			["", "secret"],
			["__proto__", "secret"],
		] as const) {
			asked = username;
			assert.equal(shown(await member.authenticate(credentials({ username, password }))), WRONG);
		}
		assert.deepEqual(
			work,
			Array.from({ length: 5 }, () => aliceHash),
		);
	});

	it("without any user the work is that of the usual hash", async () => {
		const member = await passwordMember({ users: { find: () => undefined }, verifier: verifierOf() });
		assert.equal(shown(await member.authenticate(credentials({ username: "alice", password: "secret" }))), WRONG);
	});

	it("a client without name or password, or with a method, is left to others", async () => {
		const member = await passwordMember({ users, verifier: verifierOf() });
		for (const fields of [
			{},
			{ username: "alice" },
			{ password: "secret" },
			{ username: "alice", password: "secret", authenticationMethod: "X" },
		]) {
			assert.equal(shown(await member.authenticate(credentials(fields))), "ignored");
		}
	});

	it("too many at a time are refused with 0x97, and nobody's guess is counted", async () => {
		const member = await passwordMember({ users, verifier: verifierOf({ concurrency: 1, maxWaiting: 0 }) });
		const attempt = () => member.authenticate(credentials({ username: "alice", password: "secret" }));
		const outcomes = (await Promise.all([attempt(), attempt()])).map(shown);
		assert.deepEqual(outcomes, ["granted", "quotaExceeded: too many passwords wait to be verified"]);
	});

	it("a user may be bound to a client id and belong to a tenant", async () => {
		const bound: UserSource = { find: (username) => ({ username, passwordHash: aliceHash, clientId: "d1", tenant: "acme" }) };
		const principal = grantedTo(
			await (await passwordMember({ users: bound, verifier: verifierOf() })).authenticate(
				credentials({ username: "alice", password: "secret" }),
			),
		);
		assert.equal(principal.boundClientId, "d1");
		assert.equal(principal.clientId, "d1");
		assert.equal(principal.tenant, "acme");
	});
});

describe("password file", () => {
	it("lines that are made for a user are read, with comments and blank lines between them", async (t) => {
		const lines = await passwordLines("alice", "secret", COST);
		const path = fileOf(t, `# users\n\n${lines.join("\r\n")}\n  \nbob:${aliceHash}`);
		const file = new PasswordFile(path, { log: recordingLog().log, checkEveryMs: 0 });
		assert.equal(lines.length, 3);
		assert.equal(file.find("bob")?.passwordHash, aliceHash);
		assert.deepEqual(Object.keys(file.find("alice")?.scram ?? {}), ["sha256", "sha512"]);
		assert.equal(file.find("carol"), undefined);
		assert.equal(file.find("__proto__"), undefined);
		assert.equal(file.scramRounds, 16_384);
	});

	it("a password that SCRAM could not agree on gets no verifier", async () => {
		assert.equal((await passwordLines("alice", "pass\u00a0word", COST)).length, 1);
		for (const name of ["", "a:b", "#a", " a", "a\n"]) await assert.rejects(passwordLines(name, "secret", COST), TypeError);
	});

	it("the costliest hash stands for unknown users", async (t) => {
		const costly = await hashPassword("x", { ...COST, logN: 11 });
		const path = fileOf(t, `a:${aliceHash}\nb:${costly}\nc:${aliceHash}\n`);
		assert.equal(new PasswordFile(path, { log: recordingLog().log, checkEveryMs: 0 }).costliestHash, costly);
	});

	it("a missing, empty or broken file stops the start, with file and line and without what stands there", (t) => {
		const open = (path: string) => new PasswordFile(path, { log: recordingLog().log, checkEveryMs: 0 });
		assert.throws(() => open("/does/not/exist"), {
			name: "PasswordFileError",
			message: "The password file /does/not/exist cannot be read",
		});
		assert.throws(() => open(fileOf(t, "# nobody\n")), PasswordFileError);
		const broken: readonly (readonly [string, number])[] = [
			["alice\n", 1],
			[`# x\nalice:${aliceHash}\nbob:planted-secret\n`, 3],
			[`:${aliceHash}\n`, 1],
			[`alice:${aliceHash}\nalice:${aliceHash}\n`, 2],
			["alice:$2b$10$planted-secret\n", 1],
			[` alice:${aliceHash}\n`, 1],
		];
		for (const [text, line] of broken) {
			const path = fileOf(t, text);
			assert.throws(
				() => open(path),
				(error: Error) =>
					error instanceof PasswordFileError && error.message.startsWith(`${path}:${line}: `) && !error.message.includes("planted"),
				text,
			);
		}
	});

	it("a changed file counts, a broken or missing one changes nothing and is logged once, and a mended one counts again", async (t) => {
		const { log, lines } = recordingLog();
		const path = fileOf(t, `alice:${aliceHash}\n`);
		const file = new PasswordFile(path, { log, checkEveryMs: 0 });
		const replace = (text: string) => {
			writeFileSync(`${path}.new`, text);
			renameSync(`${path}.new`, path);
		};
		replace(`bob:${aliceHash}\n`);
		await file.check();
		assert.equal(file.find("alice"), undefined);
		assert.equal(file.find("bob")?.username, "bob");
		replace("bob:nonsense\n");
		await file.check();
		await file.check();
		assert.equal(file.find("bob")?.username, "bob");
		assert.equal(lines.length, 2);
		assert.match(lines[1] ?? "", /the users stay as they were .*users:1: /);
		replace(`carol:${aliceHash}\n`);
		await file.check();
		assert.equal(file.find("carol")?.username, "carol");
		assert.equal(file.find("bob"), undefined);
	});

	it("the file is looked at by itself, and no more after close", async (t) => {
		const { eventually } = await import("../support/eventually.ts");
		const path = fileOf(t, `alice:${aliceHash}\n`);
		const file = new PasswordFile(path, { log: recordingLog().log, checkEveryMs: 5 });
		t.after(() => file.close());
		writeFileSync(path, `bob:${aliceHash}\n# longer\n`);
		await eventually("the change was seen", () => file.find("bob") !== undefined);
	});
});
