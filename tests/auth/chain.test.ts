/** All ways to log in together: order, failures, throttling, revocation, authenticating again, and what the log says. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { anonymousAuthenticator } from "../../src/auth/anonymous.ts";
import type { AuthOutcome, Principal } from "../../src/auth/auth.ts";
import { type ChainOptions, createAuthenticationChain } from "../../src/auth/chain.ts";
import { JWT_METHOD, jwtMember } from "../../src/auth/jwt.ts";
import { jwkSource } from "../../src/auth/key_source.ts";
import { type ChainMember, IGNORED, type MemberOutcome, refused, Unavailable } from "../../src/auth/member.ts";
import { passwordMember } from "../../src/auth/password.ts";
import { hashPassword, PasswordVerifier } from "../../src/auth/password_hash.ts";
import { MemoryRevocations } from "../../src/auth/revocations.ts";
import { scramMember } from "../../src/auth/scram.ts";
import { scramVerifier } from "../../src/auth/scram_verifier.ts";
import { LoginThrottle } from "../../src/auth/throttle.ts";
import type { UserSource } from "../../src/auth/users.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { issuerKey, signToken } from "../support/jwks_server.ts";
import { ScramClient } from "../support/scram_client.ts";
import { credentials, grantedTo, recordingLog, shown, TestClock } from "./auth_support.ts";

const principal: Principal = { name: "alice", method: "test", expiresAtMs: Number.POSITIVE_INFINITY };
const grant = (fields: Partial<Principal> = {}): MemberOutcome => ({ kind: "granted", principal: { ...principal, ...fields } });
const answering = (answer: () => MemberOutcome | Promise<MemberOutcome>): ChainMember => ({ name: "test", authenticate: answer });

function chainOf(members: readonly ChainMember[], options: Partial<ChainOptions> = {}) {
	const clock = new TestClock();
	const { log, lines } = recordingLog();
	const chain = createAuthenticationChain({ members, clock, log, ...options });
	return { clock, lines, authenticate: async (...args: Parameters<typeof chain.authenticate>) => chain.authenticate(...args) };
}

const key = await issuerKey("EdDSA");
const hash = await hashPassword("secret", { logN: 10, blockSize: 1, parallel: 1 });
const verifier = new PasswordVerifier({ clock: new TestClock() });
const users: UserSource = await (async () => {
	const alice = { username: "alice", passwordHash: hash, scram: { sha256: await scramVerifier("secret", "sha256", 4096) } };
	return { find: (name: string) => (name === "alice" ? alice : undefined), costliestHash: hash, scramRounds: 4096 };
})();

describe("chain: order", () => {
	it("the first that does not ignore decides, and nobody after it is asked", async () => {
		for (const [answer, expected] of [
			[() => grant(), "granted"],
			[() => refused(ReasonCode.badUserNameOrPassword, "no"), "badUserNameOrPassword"],
			[() => refused(ReasonCode.notAuthorized, "no"), "notAuthorized"],
		] as const) {
			const { authenticate } = chainOf([answering(() => IGNORED), answering(answer), answering(() => assert.fail("asked"))]);
			assert.equal(shown(await authenticate(credentials())), expected);
		}
	});

	it("whoever no member knows is refused: 0x86, or 0x8C for an unknown method", async () => {
		const { authenticate } = chainOf([answering(() => IGNORED)]);
		assert.equal(shown(await authenticate(credentials())), "badUserNameOrPassword");
		assert.equal(shown(await authenticate(credentials({ authenticationMethod: "GSSAPI" }))), "badAuthenticationMethod");
		assert.equal(shown(await chainOf([]).authenticate(credentials())), "badUserNameOrPassword");
	});

	it("a member that throws or rejects refuses everybody with 0x88, however many come after it (FAULTS 45)", async () => {
		const failures: readonly (() => Promise<MemberOutcome>)[] = [
			() => Promise.reject(new Unavailable("down")),
			() => Promise.reject(new Error("bug")),
			() => {
				throw new TypeError("bug");
			},
		];
		for (const failure of failures) {
			const { authenticate, lines } = chainOf([answering(failure), answering(() => grant())]);
			assert.equal(shown(await authenticate(credentials())), "serverUnavailable");
			assert.equal(lines.length, 1);
		}
	});

	it("anonymous clients are let in only when they bring nothing at all", async () => {
		const anonymous = anonymousAuthenticator({ allowAll: true, onRefused: () => {} });
		const { authenticate } = chainOf([answering(() => IGNORED)], { anonymous });
		assert.equal(shown(await authenticate(credentials())), "granted");
		const certificate = { commonName: "x", subject: "CN=x", fingerprint256: "00", subjectAltName: undefined };
		for (const fields of [
			{ username: "" },
			{ username: "x" },
			{ password: "" },
			{ token: "x" },
			{ certificate },
			{ authenticationMethod: "x" },
		]) {
			assert.notEqual(shown(await authenticate(credentials(fields))), "granted", JSON.stringify(fields));
		}
	});
});

describe("chain: what holds for every member", () => {
	it("a bound client id and a deadline hold even where the member forgot them", async () => {
		const bound = chainOf([answering(() => grant({ boundClientId: "d1" }))]);
		assert.equal(shown(await bound.authenticate(credentials({ clientId: "d2" }))), "clientIdentifierNotValid");
		assert.equal(shown(await bound.authenticate(credentials({ clientId: "d1" }))), "granted");
		const late = chainOf([answering(() => grant({ expiresAtMs: 1000 }))]);
		assert.equal(shown(await late.authenticate(credentials())), "badUserNameOrPassword");
	});

	it("what is revoked is refused, and a list that cannot be asked refuses with 0x88 (FAULTS 44)", async () => {
		const clock = new TestClock();
		const revocations = new MemoryRevocations(clock);
		const { authenticate } = chainOf([answering(() => grant({ tokenId: "t1", clientId: "d1" }))], { revocations });
		assert.equal(shown(await authenticate(credentials())), "granted");
		revocations.revoke({ kind: "token", value: "t1", revokedAtMs: clock.ms, expiresAtMs: Number.POSITIVE_INFINITY });
		assert.equal(shown(await authenticate(credentials())), "notAuthorized");
		revocations.restore("token", "t1");
		revocations.revoke({ kind: "clientId", value: "d1", revokedAtMs: clock.ms, expiresAtMs: Number.POSITIVE_INFINITY });
		assert.equal(shown(await authenticate(credentials())), "notAuthorized", "an assigned client id counts");
		assert.equal(shown(await authenticate(credentials({ clientId: "d2" }))), "granted");
		const broken = { isRevoked: () => Promise.reject(new Error("store")), onRevoked: () => () => {} };
		assert.equal(
			shown(await chainOf([answering(() => grant())], { revocations: broken }).authenticate(credentials())),
			"serverUnavailable",
		);
	});

	it("whoever authenticates again must be the same, whatever else its new rights say", async () => {
		const current: Principal = { ...principal, username: "a", tenant: "t", boundClientId: "d1" };
		const again = (fields: Partial<Principal>) =>
			chainOf([answering(() => grant({ ...current, ...fields }))]).authenticate(credentials({ clientId: "d1" }), current);
		assert.equal(shown(await again({ expiresAtMs: 2_000_000_000_000, tokenId: "new" })), "granted");
		for (const fields of [{ name: "bob" }, { method: "other" }, { username: "b" }, { tenant: "u" }]) {
			assert.equal(shown(await again(fields)), "notAuthorized", JSON.stringify(fields));
		}
	});

	it("a token of another subject does not renew a session, a new one of the same does", async () => {
		const clock = new TestClock();
		const { authenticate } = chainOf([jwtMember({ clock, issuers: [{ keys: jwkSource(key.publicJwk) }] })]);
		const token = async (sub: string, seconds: number) => ({
			clientId: "d1",
			authenticationMethod: JWT_METHOD,
			authenticationData: Buffer.from(await signToken(key, { sub, exp: clock.seconds + seconds })),
		});
		const current = grantedTo(await authenticate(credentials(await token("alice", 60))));
		const renewed = grantedTo(await authenticate(credentials(await token("alice", 120)), current));
		assert.equal(renewed.expiresAtMs, clock.ms + 120_000);
		assert.equal(shown(await authenticate(credentials(await token("bob", 120)), current)), "notAuthorized");
		assert.equal(shown(await authenticate(credentials({ ...(await token("alice", -1)) }), current)), "badUserNameOrPassword");
	});
});

describe("chain: exchanges", () => {
	const scram = scramMember({ users });
	const login = async ({ authenticate }: ReturnType<typeof chainOf>, name: string, password: string): Promise<AuthOutcome> => {
		const client = new ScramClient(name, password);
		const first = await authenticate(credentials({ authenticationMethod: "SCRAM-SHA-256", authenticationData: client.first() }));
		return first.kind === "continue" ? first.exchange.next(client.final(first.authenticationData)) : first;
	};

	it("what the last step grants is judged like everything else", async () => {
		const clock = new TestClock();
		const revocations = new MemoryRevocations(clock);
		const chain = chainOf([scram], { revocations });
		assert.equal(shown(await login(chain, "alice", "secret")), "granted");
		revocations.revoke({ kind: "user", value: "alice", revokedAtMs: clock.ms, expiresAtMs: Number.POSITIVE_INFINITY });
		assert.equal(shown(await login(chain, "alice", "secret")), "notAuthorized");
	});

	it("failed exchanges count against the address and the name in them", async () => {
		const clock = new TestClock();
		const throttle = new LoginThrottle({ clock, perAddress: { burst: 100, perMinute: 1 }, perUsername: { burst: 2, perMinute: 1 } });
		const chain = chainOf([scram], { throttle });
		for (const name of ["alice", "nobody"]) {
			assert.equal(shown(await login(chain, name, "wrong")), "badUserNameOrPassword");
			assert.equal(shown(await login(chain, name, "wrong")), "badUserNameOrPassword");
			assert.equal(shown(await login(chain, name, "secret")), "banned");
		}
	});

	it("an exchange that throws is refused with 0x88", async () => {
		const broken: MemberOutcome = {
			kind: "continue",
			authenticationData: Buffer.of(1),
			exchange: { next: () => Promise.reject(new Error("store")) },
		};
		const started = await chainOf([answering(() => broken)]).authenticate(credentials({ authenticationMethod: "X" }));
		assert.equal(started.kind === "continue" && shown(await started.exchange.next(undefined)), "serverUnavailable");
	});
});

describe("chain: throttling (FAULTS 48)", () => {
	const attempt = (chain: ReturnType<typeof chainOf>, username: string, password: string, address?: string) =>
		chain.authenticate(credentials({ username, password, ...(address !== undefined && { address }) }));

	it("an address that fails too often is banned, with known and unknown names alike, and let in again later", async () => {
		for (const name of ["alice", "nobody"]) {
			const clock = new TestClock();
			const throttle = new LoginThrottle({ clock, perAddress: { burst: 3, perMinute: 6 } });
			const chain = chainOf([await passwordMember({ users, verifier })], { throttle });
			for (let failure = 0; failure < 3; failure++) assert.equal(shown(await attempt(chain, name, "wrong")), "badUserNameOrPassword");
			assert.equal(shown(await attempt(chain, name, "wrong")), "banned");
			assert.equal(shown(await attempt(chain, "alice", "secret")), "banned");
			assert.equal(shown(await attempt(chain, "alice", "secret", "192.0.2.2")), "granted");
			clock.ms += 10_000;
			assert.equal(shown(await attempt(chain, "alice", "secret")), "granted");
		}
	});

	it("a name that fails too often from many addresses is banned, known or not", async () => {
		for (const name of ["alice", "nobody"]) {
			const throttle = new LoginThrottle({ clock: new TestClock(), perUsername: { burst: 3, perMinute: 6 } });
			const chain = chainOf([await passwordMember({ users, verifier })], { throttle });
			for (let host = 0; host < 3; host++)
				assert.equal(shown(await attempt(chain, name, "wrong", `198.51.100.${host}`)), "badUserNameOrPassword");
			assert.equal(shown(await attempt(chain, name, "secret", "198.51.100.9")), "banned");
		}
	});

	it("a name beside a token keeps nobody out: many clients send the same one", async () => {
		const clock = new TestClock();
		const throttle = new LoginThrottle({ clock, perUsername: { burst: 1, perMinute: 1 } });
		const jwt = jwtMember({ clock, issuers: [{ keys: jwkSource(key.publicJwk) }] });
		const chain = chainOf([jwt, await passwordMember({ users, verifier })], { throttle });
		const good = await signToken(key, { sub: "a", exp: clock.seconds + 60 });
		for (const [host, wrong] of [`${good}x`, "no token", "no token"].entries()) {
			const outcome = shown(await attempt(chain, "alice", wrong, `198.51.100.${host}`));
			assert.equal(outcome, host < 2 ? "badUserNameOrPassword" : "banned", "the token did not count, the password did");
		}
		assert.equal(shown(await attempt(chain, "alice", good, "198.51.100.9")), "granted");
		assert.equal(shown(await attempt(chain, "alice", "secret", "198.51.100.9")), "banned");
	});

	it("expired tokens, unreachable services and full queues ban nobody", async () => {
		const clock = new TestClock();
		const throttle = new LoginThrottle({ clock, perAddress: { burst: 1, perMinute: 1 } });
		const jwt = jwtMember({ clock, issuers: [{ keys: jwkSource(key.publicJwk) }] });
		const down = answering(() => Promise.reject(new Unavailable("down")));
		const full = answering(() => refused(ReasonCode.quotaExceeded, "full"));
		const password = await signToken(key, { sub: "a", exp: clock.seconds - 1 });
		for (const member of [jwt, down, full]) {
			const chain = chainOf([member], { throttle });
			for (let failure = 0; failure < 5; failure++) assert.notEqual(shown(await attempt(chain, "x", password)), "banned");
		}
	});

	it("attempts under way when the allowance ends run up a debt", async () => {
		const clock = new TestClock();
		const throttle = new LoginThrottle({ clock, perAddress: { burst: 2, perMinute: 60 } });
		for (let failure = 0; failure < 50; failure++) throttle.failed("192.0.2.1", "x");
		clock.ms += 10_000;
		assert.equal(throttle.blocks("192.0.2.1", undefined), true);
		clock.ms += 1_000;
		assert.equal(throttle.blocks("192.0.2.1", undefined), false);
	});

	it("addresses of one IPv6 network count as one, however they are written; other networks do not", () => {
		const throttle = new LoginThrottle({ clock: new TestClock(), perAddress: { burst: 1, perMinute: 1 } });
		throttle.failed("2001:db8:0:1::5", undefined);
		for (const address of ["2001:db8:0:1::6", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:0db8:0000:0001::"])
			assert.ok(throttle.blocks(address, undefined), address);
		for (const address of ["2001:db8:0:2::5", "2001:db8::1", "::1", "192.0.2.1"])
			assert.equal(throttle.blocks(address, undefined), false, address);
	});

	it("memory is bounded, however many addresses and names fail, and however long the names are", () => {
		const throttle = new LoginThrottle({ clock: new TestClock(), maxEntries: 100 });
		for (let index = 0; index < 1000; index++) throttle.failed(`10.0.${index >> 8}.${index & 255}`, `${index}${"x".repeat(60_000)}`);
		assert.equal(throttle.size, 200);
	});
});

describe("chain: the log (FAULTS 49)", () => {
	it("neither passwords nor tokens are in any line, whatever fails", async () => {
		const clock = new TestClock();
		const token = await signToken(key, { sub: "planted-subject-secret", exp: clock.seconds - 1 });
		const members = [
			jwtMember({ clock, issuers: [{ keys: { find: () => Promise.reject(new Unavailable("keys are down")) } }] }),
			await passwordMember({ users, verifier }),
		];
		const { authenticate, lines } = chainOf(members);
		for (const fields of [
			{ username: "alice", password: "planted-password" },
			{ username: "x", password: token },
			{ username: token, password: "planted-password" },
			{ token },
			{ authenticationMethod: JWT_METHOD, authenticationData: Buffer.from(token) },
			{ authenticationMethod: "planted", authenticationData: Buffer.from("planted-password") },
		]) {
			assert.notEqual(shown(await authenticate(credentials(fields))), "granted");
		}
		assert.equal(lines.length, 6);
		for (const line of lines)
			assert.ok(!line.includes("planted-") && !line.includes(token.slice(0, 40)) && !line.includes(token.slice(-20)), line);
	});
});

describe("revocations", () => {
	it("a client id or user loses what is older, and what has no date; what is issued later is good", () => {
		const clock = new TestClock();
		const list = new MemoryRevocations(clock);
		for (const kind of ["clientId", "user"] as const) {
			list.revoke({ kind, value: "alice", revokedAtMs: clock.ms, expiresAtMs: Number.POSITIVE_INFINITY });
			const revoked = (issuedAtMs?: number) => list.isRevoked(issuedAtMs === undefined ? principal : { ...principal, issuedAtMs }, "alice");
			assert.deepEqual([revoked(), revoked(clock.ms - 1), revoked(clock.ms), revoked(clock.ms + 1)], [true, true, true, false]);
			assert.equal(list.restore(kind, "alice"), true);
			assert.equal(revoked(), false);
		}
	});

	it("user means the user name or the name; one kind is not taken for another", () => {
		const clock = new TestClock();
		const list = new MemoryRevocations(clock);
		list.revoke({ kind: "user", value: "u", revokedAtMs: clock.ms, expiresAtMs: Number.POSITIVE_INFINITY });
		assert.equal(list.isRevoked({ ...principal, username: "u" }, "c"), true);
		assert.equal(list.isRevoked({ ...principal, name: "u" }, "c"), true);
		assert.equal(list.isRevoked({ ...principal, tokenId: "u" }, "u"), false);
	});

	it("an entry is forgotten when it has expired", () => {
		const clock = new TestClock();
		const list = new MemoryRevocations(clock);
		list.revoke({ kind: "token", value: "t", revokedAtMs: clock.ms, expiresAtMs: clock.ms + 1000 });
		assert.equal(list.list().length, 1);
		clock.ms += 1000;
		assert.equal(list.isRevoked({ ...principal, tokenId: "t" }, ""), false);
		assert.equal(list.list().length, 0);
	});

	it("listeners hear of each, until they stop", () => {
		const list = new MemoryRevocations(new TestClock());
		const heard: string[] = [];
		const stop = list.onRevoked(({ value }) => heard.push(value));
		list.revoke({ kind: "token", value: "t1", revokedAtMs: 0, expiresAtMs: 1 });
		stop();
		list.revoke({ kind: "token", value: "t2", revokedAtMs: 0, expiresAtMs: 1 });
		assert.deepEqual(heard, ["t1"]);
	});
});
