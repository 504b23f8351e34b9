// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.

/**
 * What authentication and authorisation cost, without sockets: microseconds for each CONNECT that is judged, nanoseconds for the
 * right to each PUBLISH. Run: `bun bench/auth.ts`, `deno run -A bench/auth.ts`.
 */

import { exportJWK, generateKeyPair, SignJWT } from "jose";
import type { Authenticator, Credentials, Principal } from "../src/auth/auth.ts";
import { createAuthorizer } from "../src/auth/authorizer.ts";
import { createAuthenticationChain } from "../src/auth/chain.ts";
import type { Rule } from "../src/auth/grants.ts";
import { type JwtIssuer, jwtMember } from "../src/auth/jwt.ts";
import { jwkSource, type KeySource, secretSource } from "../src/auth/key_source.ts";
import { passwordMember } from "../src/auth/password.ts";
import { hashPassword, PasswordVerifier } from "../src/auth/password_hash.ts";
import { PublishRights } from "../src/auth/publish_rights.ts";
import { MemoryRevocations } from "../src/auth/revocations.ts";
import { LoginThrottle } from "../src/auth/throttle.ts";
import { systemClock as clock } from "../src/clock.ts";
import { log } from "../src/log.ts";
import { Topic } from "../src/mqtt/topic.ts";

const ROUNDS = 5;
const CONNECTS = 2000;
/** Of scrypt: each takes tens of milliseconds. */
const HASHES = 10;
const PUBLISHES = 200_000;
const RULES = [10, 100] as const;
const SECRET = new TextEncoder().encode("a secret of forty characters for tokens!");
const PASSWORD = new TextEncoder().encode("correct horse");
/** As a device's token has them. */
const CLAIMS = {
	sub: "device-17",
	iss: "https://issuer.example",
	aud: "shoal",
	jti: "4f1c",
	acl: { pub: ["devices/${clientid}/+"], sub: ["devices/${clientid}/#"] },
};

/** The whole chain, as a broker has it. @param rememberMs For how long a right password is known again. */
async function chain(keys: KeySource, rememberMs = 300_000): Promise<Authenticator> {
	const issuer: JwtIssuer = { keys, issuer: CLAIMS.iss, audience: [CLAIMS.aud], grants: {} };
	const passwordHash = await hashPassword(PASSWORD);
	const users = { find: (username: string) => ({ username, passwordHash }), costliestHash: passwordHash };
	const verifier = new PasswordVerifier({ clock, rememberMs });
	return createAuthenticationChain({
		members: [jwtMember({ issuers: [issuer], clock }), await passwordMember({ users, verifier })],
		throttle: new LoginThrottle({ clock }),
		revocations: new MemoryRevocations(clock),
		clock,
		log: log("bench"),
	});
}

function credentials(username: string, password: Uint8Array): Credentials {
	const peer = { transport: "wss", address: "192.0.2.1", port: 50_000 } as const;
	return { clientId: "device-17", username, password, authenticationMethod: undefined, authenticationData: undefined, peer };
}

/** Best of some rounds, in µs for each. */
async function measure(count: number, run: (index: number) => unknown, rounds = ROUNDS): Promise<number> {
	let best = Number.POSITIVE_INFINITY;
	for (let round = 0; round < rounds; round++) {
		const start = performance.now();
		for (let index = 0; index < count; index++) {
			const result = run(index);
			if (result instanceof Promise) await result;
		}
		best = Math.min(best, ((performance.now() - start) * 1000) / count);
	}
	return best;
}

async function login(authenticator: Authenticator, given: Credentials): Promise<void> {
	const { kind } = await authenticator.authenticate(given);
	if (kind !== "granted") throw new Error(`not granted but ${kind}`);
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const rows: [what: string, cost: string][] = [];
const micro = (us: number): string => `${us.toFixed(us < 10 ? 2 : 0)} µs`;
const nano = (us: number): string => `${(us * 1000).toFixed(0)} ns`;

const secret = await chain(secretSource(SECRET));
const signed = await new SignJWT(CLAIMS).setProtectedHeader({ alg: "HS256", kid: "k" }).setExpirationTime("1h").sign(SECRET);
rows.push(["CONNECT with a token, HS256", micro(await measure(CONNECTS, () => login(secret, credentials("x", bytes(signed)))))]);
for (const algorithm of ["ES256", "EdDSA", "RS256"]) {
	const { publicKey, privateKey } = await generateKeyPair(algorithm, { extractable: true });
	const authenticator = await chain(jwkSource({ ...(await exportJWK(publicKey)), kid: "k" }));
	const token = await new SignJWT(CLAIMS).setProtectedHeader({ alg: algorithm, kid: "k" }).setExpirationTime("1h").sign(privateKey);
	rows.push([
		`CONNECT with a token, ${algorithm}`,
		micro(await measure(CONNECTS, () => login(authenticator, credentials("x", bytes(token))))),
	]);
}
const forgetful = await chain(secretSource(SECRET), 0);
const hashed = await measure(HASHES, () => login(forgetful, credentials("user", PASSWORD)), 1);
rows.push(["CONNECT with a password, hashed (scrypt, 32 MB, off the event loop)", micro(hashed)]);
await login(secret, credentials("user", PASSWORD));
rows.push([
	"CONNECT with a password that was right within five minutes",
	micro(await measure(CONNECTS, () => login(secret, credentials("user", PASSWORD)))),
]);

/** Rules of which the last one decides. */
function rules(count: number): readonly Rule[] {
	const others = Array.from(
		{ length: count - 1 },
		(_, n) => ({ permission: "allow", action: "all", topics: [`site/${n}/+/\${clientid}/#`] }) as const,
	);
	return [...others, { permission: "allow", action: "all", topics: ["devices/${clientid}/+"] }];
}

const principal: Principal = { name: "device-17", method: "jwt", expiresAtMs: Number.POSITIVE_INFINITY };
for (const count of RULES) {
	const list = rules(count);
	const authorizer = createAuthorizer({ sources: [{ rules: list, onChange: () => () => {} }] });
	const one = Topic.of("devices/device-17/temperature");
	const rights = new PublishRights(authorizer, principal, "device-17");
	const decide = (topic: Topic) => {
		if (rights.decide(topic, 0, false) !== true) throw new Error("not allowed");
	};
	if (count === RULES[0]) {
		rows.push(["PUBLISH to the topic of the last one", nano(await measure(PUBLISHES, () => decide(one)))]);
		const few = Array.from({ length: 16 }, (_, n) => Topic.of(`devices/device-17/${n}`));
		rows.push(["PUBLISH to one of sixteen topics in turn", nano(await measure(PUBLISHES, (n) => decide(few[n & 15] as Topic)))]);
	}
	// More topics than are remembered: each is decided anew.
	const many = Array.from({ length: 4096 }, (_, n) => Topic.of(`devices/device-17/${n}`));
	rows.push([
		`PUBLISH to a topic that is not remembered, ${count} rules`,
		nano(await measure(PUBLISHES, (n) => decide(many[n & 4095] as Topic))),
	]);
	const clients = Array.from({ length: 8192 }, (_, n) => `client-${n}`);
	const bind = (n: number) =>
		void authorizer.permits(principal, clients[n & 8191] as string, { action: "publish", topic: "a", qos: 0, retain: false });
	rows.push([`First PUBLISH of a client, ${count} rules with placeholders`, nano(await measure(20_000, bind))]);
	authorizer.close();
}

const runtime = process.versions.bun === undefined ? `Deno ${process.versions.deno}` : `Bun ${process.versions.bun}`;
console.log(`| who may (${runtime}) | cost |\n| --- | ---: |`);
for (const [what, cost] of rows) console.log(`| ${what} | ${cost} |`);
