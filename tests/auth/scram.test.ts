/** SCRAM as enhanced authentication: the RFC's own example, both hashes, and everything that must fail alike. */

import assert from "node:assert/strict";
import { createHash, createHmac, pbkdf2Sync } from "node:crypto";
import { describe, it } from "node:test";
import type { AuthOutcome } from "../../src/auth/auth.ts";
import type { ChainMember, MemberOutcome } from "../../src/auth/member.ts";
import { scramMember } from "../../src/auth/scram.ts";
import { formatScramVerifier, isPrepared, parseScramVerifier, SCRAM_METHODS, scramVerifier } from "../../src/auth/scram_verifier.ts";
import type { User, UserSource } from "../../src/auth/users.ts";
import { ScramClient } from "../support/scram_client.ts";
import { credentials, grantedTo, shown } from "./auth_support.ts";

const WRONG = "badUserNameOrPassword: unknown user or wrong password";

function usersOf(...users: User[]): UserSource {
	return { find: (name) => users.find(({ username }) => username === name), scramRounds: 4096 };
}

const alice: User = {
	username: "alice",
	scram: { sha256: await scramVerifier("secret", "sha256", 4096), sha512: await scramVerifier("secret", "sha512", 4096) },
};
const saltSecret = Buffer.alloc(32, 1);
const member = (...users: User[]) => scramMember({ users: usersOf(alice, ...users), saltSecret });

const begin = (to: ChainMember, data: Uint8Array | undefined, method = "SCRAM-SHA-256") =>
	to.authenticate(credentials({ authenticationMethod: method, authenticationData: data }));

/** The whole exchange; answers its outcome and what the server said first. */
async function run(to: ChainMember, client: ScramClient, method?: string): Promise<{ outcome: MemberOutcome; serverFirst: string }> {
	const started = await begin(to, client.first(), method);
	if (started.kind !== "continue") return { outcome: started, serverFirst: "" };
	const outcome = await started.exchange.next(client.final(started.authenticationData));
	return { outcome, serverFirst: Buffer.from(started.authenticationData).toString() };
}

describe("scram: logging in", () => {
	for (const hash of ["sha256", "sha512"] as const) {
		it(`${SCRAM_METHODS[hash]}: the right password is granted and the server proves that it knows it`, async () => {
			const client = new ScramClient("alice", "secret", { hash });
			const { outcome } = await run(member(), client, SCRAM_METHODS[hash]);
			assert.equal(grantedTo(outcome).username, "alice");
			assert.ok(client.accepts((outcome as Extract<AuthOutcome, { kind: "granted" }>).authenticationData));
		});
	}

	it("the example of RFC 7677 section 3 passes, byte for byte", async () => {
		const salt = Buffer.from("W22ZaJ0SNY7soEsUEjb6gQ==", "base64");
		const salted = pbkdf2Sync("pencil", salt, 4096, 32, "sha256");
		const hmac = (text: string) => createHmac("sha256", salted).update(text).digest();
		const verifier = {
			hash: "sha256",
			salt,
			rounds: 4096,
			storedKey: createHash("sha256").update(hmac("Client Key")).digest(),
			serverKey: hmac("Server Key"),
		} as const;
		const users = usersOf({ username: "user", scram: { sha256: verifier } });
		const server = scramMember({ users, nonce: () => "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" });
		const started = await begin(server, Buffer.from("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"));
		assert.equal(started.kind, "continue");
		if (started.kind !== "continue") return;
		const nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
		assert.equal(Buffer.from(started.authenticationData).toString(), `r=${nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`);
		const outcome = await started.exchange.next(Buffer.from(`c=biws,r=${nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=`));
		assert.equal(outcome.kind, "granted");
		if (outcome.kind === "granted")
			assert.equal(Buffer.from(outcome.authenticationData ?? []).toString(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
	});

	it("a name with comma and equals sign is unescaped", async () => {
		const odd: User = { ...alice, username: "a,b=c" };
		assert.equal(grantedTo((await run(member(odd), new ScramClient("a,b=c", "secret"))).outcome).username, "a,b=c");
	});

	it("a client that could bind to a channel (y) and one that names itself twice are taken", async () => {
		for (const header of ["y,,", "n,a=alice,"]) {
			assert.equal(shown((await run(member(), new ScramClient("alice", "secret", { header }))).outcome), "granted");
		}
	});

	it("every exchange has a nonce of its own, and the proof of one is worth nothing in another", async () => {
		const client = new ScramClient("alice", "secret");
		const [one, two] = [await begin(member(), client.first()), await begin(member(), client.first())];
		if (one.kind !== "continue" || two.kind !== "continue") assert.fail("the exchange did not begin");
		assert.notDeepEqual(one.authenticationData, two.authenticationData);
		const proof = client.final(one.authenticationData);
		assert.equal(shown(await two.exchange.next(proof)), "badUserNameOrPassword: the nonce of the SCRAM exchange is wrong");
		assert.equal(shown(await one.exchange.next(proof)), "granted");
	});
});

describe("scram: who is refused", () => {
	it("a wrong password, an unknown user and a user without a verifier fail at the same place with the same words (FAULTS 48)", async () => {
		const without: User = { username: "carol" };
		for (const [name, password] of [
			["alice", "wrong"],
			["nobody", "secret"],
			["carol", "secret"],
		] as const) {
			const { outcome, serverFirst } = await run(member(without), new ScramClient(name, password));
			assert.equal(shown(outcome), WRONG);
			assert.match(serverFirst, /^r=client-nonce[A-Za-z0-9+/]{24},s=[A-Za-z0-9+/]{22}==,i=4096$/);
		}
	});

	it("an unknown user has the same salt every time and in every replica, and another than the next one", async () => {
		const saltOf = async (name: string) => /s=([^,]+)/.exec((await run(member(), new ScramClient(name, "x"))).serverFirst)?.[1];
		assert.equal(await saltOf("nobody"), await saltOf("nobody"));
		assert.notEqual(await saltOf("nobody"), await saltOf("somebody"));
	});

	it("other methods are left to others", async () => {
		for (const method of ["SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "scram-sha-256", ""]) {
			assert.equal(shown(await begin(member(), new ScramClient("alice", "secret").first(), method)), "ignored");
		}
		assert.equal(
			shown(
				await scramMember({ users: usersOf(alice), hashes: ["sha256"] }).authenticate(
					credentials({ authenticationMethod: "SCRAM-SHA-512" }),
				),
			),
			"ignored",
		);
	});

	it("a malformed client-first is refused", async () => {
		const messages = [
			"",
			"n=alice,r=x",
			"n,,r=x,n=alice",
			"n,,n=,r=x",
			"n,,n=alice,r=",
			"p=tls-unique,,n=alice,r=x",
			"n,,m=x,n=alice,r=x",
			"n,a=bob,n=alice,r=x",
			"n,,n=al=ice,r=x",
			"n,,n=alice,r=a b",
			"n,,n=ali\u00adce,r=x",
			"N,,n=alice,r=x",
			`n,,n=alice,r=${"x".repeat(5000)}`,
		];
		for (const message of messages) {
			assert.equal(
				shown(await begin(member(), Buffer.from(message))),
				"badUserNameOrPassword: the client-first of the SCRAM exchange is wrong",
				message,
			);
		}
		for (const data of [undefined, Uint8Array.of(0x6e, 0x2c, 0x2c, 0xff)]) {
			assert.equal(shown(await begin(member(), data)), "badUserNameOrPassword: the client-first of the SCRAM exchange is wrong");
		}
	});

	it("a client-final that is proven but says another GS2 header than client-first had is refused", async () => {
		const { outcome } = await run(member(), new ScramClient("alice", "secret", { header: "n,,", binding: "y,," }));
		assert.equal(shown(outcome), "badUserNameOrPassword: the channel binding of the SCRAM exchange is wrong");
	});

	it("a malformed client-final is refused, also with a proof that would be right", async () => {
		const changes: readonly ((text: string) => string)[] = [
			() => "",
			(text) => text.replace("c=biws", "c=eSws"),
			(text) => text.replace("c=biws", "c=cD10bHMtdW5pcXVlLCw="),
			(text) => text.replace(/,p=.*/, ""),
			(text) => text.replace(/,p=.*/, ",p=AAAA"),
			(text) => text.replace("client-nonce", "client-Nonce"),
			(text) => text.replace(/p=./, (match) => (match === "p=A" ? "p=B" : "p=A")),
			(text) => `${text},x=1`,
		];
		for (const change of changes) {
			const client = new ScramClient("alice", "secret");
			const started = await begin(member(), client.first());
			if (started.kind !== "continue") assert.fail("the exchange did not begin");
			const outcome = await started.exchange.next(Buffer.from(change(client.final(started.authenticationData).toString())));
			assert.match(shown(outcome), /^badUserNameOrPassword: /);
		}
	});
});

describe("scram: verifiers", () => {
	it("a verifier survives its text form", async () => {
		for (const hash of ["sha256", "sha512"] as const) {
			const verifier = await scramVerifier("p", hash, 4096);
			assert.deepEqual(parseScramVerifier(formatScramVerifier(verifier)), verifier);
		}
	});

	it("other texts, few rounds and keys of another length are no verifiers", async () => {
		const text = formatScramVerifier(await scramVerifier("p", "sha256", 4096));
		for (const other of [
			"",
			"secret",
			text.replace("4096", "1000"),
			text.replace("4096", "9999999"),
			text.replace("256", "512"),
			text.slice(0, -8),
			`${text} `,
		]) {
			assert.equal(parseScramVerifier(other), undefined, other);
		}
	});

	it("names and passwords that SASLprep would change are not taken", async () => {
		for (const text of ["secret", "pass word", "Grüße", "пароль", "密码"]) assert.ok(isPrepared(text), text);
		for (const text of ["", "a\u00a0b", "a\u00adb", "ﬁ", "a\u0000", "a\u200bb", "ª", "A\u030a", "\u212b"]) {
			assert.equal(isPrepared(text), false, text);
			await assert.rejects(scramVerifier(text, "sha256"), TypeError);
		}
	});
});
