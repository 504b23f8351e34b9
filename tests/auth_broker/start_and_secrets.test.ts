/** The server as a process: what it refuses to start with (FAULTS 50), and that it tells no secret, whatever happens (FAULTS 49). */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { passwordLines } from "../../src/auth/password_file.ts";
import { type Config, createBroker } from "../../src/shoal.ts";
import {
	freshAddress,
	inSeconds,
	knock,
	type Login,
	login,
	METHOD,
	RENEWAL_TOPIC,
	reauthenticate,
	renew,
	SECRET,
	TOKEN_NAME,
	token,
} from "../support/auth_clients.ts";
import { forgedToken, type JsonServer, startJsonServer } from "../support/jwks_server.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { ScramClient } from "../support/scram_client.ts";
import { createFolder, runServer, type ServerProcess, startServer, suiteCleanup } from "../support/server_process.ts";

const CHEAP = { logN: 10, blockSize: 1, parallel: 1 };
const RULE = 'rules:\n  - { permission: allow, action: all, topics: ["#"] }\n';

describe("a server with settings about rights that cannot be used", () => {
	/** Setting, what is wrong, what stands in its file (`undefined`: there is none), and what is said. */
	const BROKEN: readonly (readonly [setting: keyof Config, what: string, text: string | undefined, said: RegExp])[] = [
		["aclFile", "a missing file", undefined, /rules:1: the file cannot be read/],
		["aclFile", "an empty file", "", /rules:1: /],
		["aclFile", "no rule", "rules: []\n", /rules:1: .*there is no rule/],
		[
			"aclFile",
			"a word that is not known",
			`${RULE}  - { permission: allow, action: all, topic: "a", client: "x" }\n`,
			/rules:3: .*client: unknown/,
		],
		[
			"aclFile",
			"a filter that is none",
			`${RULE}  - { permission: deny, action: all, topic: "a#" }\n`,
			/rules:3: .*the topic is not valid/,
		],
		["passwordFile", "a missing file", undefined, /password file .*rules cannot be read/],
		["passwordFile", "an empty file", "", /rules: there is no user/],
		["passwordFile", "a password in the clear", "alice:planted-secret\n", /rules:1: the hash is neither/],
		["jwtKeyFile", "a missing file", undefined, /JWT_KEY_FILE/],
		["jwtKeyFile", "no key", "planted-secret", /JWT_KEY_FILE/],
		["tokenKeyFile", "a public key", '{"kty":"OKP","crv":"Ed25519","x":"planted-secret"}', /TOKEN_KEY_FILE/],
	];

	for (const [setting, what, text, said] of BROKEN) {
		it(`fault 50: ${setting} with ${what} stops the start, with file and line and nothing that stands there`, async (t) => {
			const file = join(createFolder(t), "rules");
			if (text !== undefined) writeFileSync(file, text);
			const start = async () => createBroker({ store: "memory", [setting]: file }).start();
			await assert.rejects(start, (error: Error) => said.test(error.message) && !error.message.includes("planted-secret"));
		});
	}

	it("fault 50: the process ends with code 1 and says so", async (t) => {
		const file = join(createFolder(t), "rules");
		writeFileSync(file, "rules: []\n");
		const { code, stderr } = await runServer(t, [], { ACL_FILE: file });
		assert.equal(code, 1);
		assert.match(stderr, /^shoal: .*rules:1: .*there is no rule/m);
	});
});

describe("a server that is told secrets", () => {
	const t = suiteCleanup();
	/** What must never be said. Each is planted in a place of its own. */
	const planted = new Map<string, string>();
	let server: ServerProcess;
	let hook: JsonServer;

	/** A secret for a place; the same each time. */
	function plant(place: string): string {
		const secret = planted.get(place) ?? `planted${planted.size}x${Math.random().toString(36).slice(2)}`;
		planted.set(place, secret);
		return secret;
	}

	before(async () => {
		const folder = createFolder(t);
		const files = { PASSWORD_FILE: join(folder, "passwords"), ACL_FILE: join(folder, "rules.yaml") };
		const lines = await passwordLines("alice", plant("the right password"), CHEAP);
		for (const [n, line] of lines.entries()) planted.set(`hash ${n}`, line.slice(line.lastIndexOf("$") + 1));
		writeFileSync(files.PASSWORD_FILE, lines.join("\n"));
		writeFileSync(files.ACL_FILE, RULE);
		planted.set("the secret of tokens", SECRET);
		const [keys, asked] = [await startJsonServer(t), await startJsonServer(t)];
		hook = asked;
		hook.answer = (_request, response) => void response.end(`{"result": ${plant("the hook's answer")}`);
		keys.answer = (_request, response) => void response.end(plant("the key set's answer"));
		server = await startServer(t, {
			...files,
			LOG_LEVEL: "debug",
			JWT_SECRET: SECRET,
			JWT_JWKS_URL: `${keys.url}/keys?secret=${plant("the key set's address")}`,
			JWT_ISSUER: "",
			AUTH_HTTP_URL: `${hook.url}/login?secret=${plant("the hook's address")}`,
			AUTH_HTTP_TOKEN: plant("the hook's token"),
			ACL_HTTP_URL: `${hook.url}/rights?secret=${plant("the rights' address")}`,
			ADMIN_TOKEN: plant("the admin's token"),
			METRICS_TOKEN: plant("the token of metrics"),
			TOKEN_HEADER: "true",
			TOKEN_COOKIE: TOKEN_NAME,
			TOKEN_QUERY: TOKEN_NAME,
			TRUSTED_PROXIES: "1",
		});
	});

	/** A token, whose signature and claims are secrets, too. */
	async function secretToken(place: string, claims: object = {}): Promise<string> {
		const made = await token({ jti: freshId("jti"), note: plant(`${place}, a claim`), ...claims });
		planted.set(place, made);
		planted.set(`${place}, the signature`, made.slice(made.lastIndexOf(".") + 1));
		return made;
	}

	it("fault 49: passwords, tokens, keys, hashes, addresses with secrets and payloads are in no line of the log at level debug, nor in any answer", async () => {
		const address = () => freshAddress();
		const refused = async (options: Login): Promise<void> => {
			const client = await knock(server, { address: address(), ...options });
			assert.ok((await client.receive()).reasonCode >= 0x80);
			await client.expectClosed();
		};
		await refused({ username: "alice", password: plant("a wrong password") });
		await refused({ username: "nobody", password: plant("the password of nobody") });
		// Users do put it into the wrong field.
		await refused({ username: await secretToken("a token as the user name"), password: "" });
		for (const carrier of ["password", "header", "cookie", "query", "auth"] as const) {
			await refused({ carrier, token: `${await secretToken(`a bad token in the ${carrier}`)}x` });
			await refused({ carrier, token: await secretToken(`an expired token in the ${carrier}`, { exp: 1 }) });
			await refused({
				carrier,
				token: await secretToken(`unreadable rights in the ${carrier}`, { acl: [plant(`a right in the ${carrier}`)] }),
			});
			const good = await login(server, { carrier, token: await secretToken(`a good token in the ${carrier}`) });
			await good.disconnect();
		}
		await refused({ token: forgedToken({ alg: "ES256", kid: plant("a key id") }, { exp: inSeconds(60), note: plant("a forged claim") }) });
		await refused({ properties: { authenticationMethod: METHOD } });
		const exchange = new ScramClient("alice", plant("a wrong password in SCRAM"));
		const scram = (data: Buffer) => ({ authenticationMethod: "SCRAM-SHA-256", authenticationData: data });
		const asked = await knock(server, { properties: scram(exchange.first()) });
		const { properties } = await asked.expect("auth");
		planted.set("the proof of SCRAM", exchange.final(properties.authenticationData).toString().split("p=").at(-1) ?? "");
		asked.send({ cmd: "auth", reasonCode: 0x18, properties: scram(exchange.final(properties.authenticationData)) });
		await asked.expect("connack");
		// The hook answers rubbish: it is asked about a password that is no user's, and about rights that no rule knows.
		await refused({ password: plant("a password for the hook"), username: "" });

		const sub = freshId();
		const client = await login(server, { carrier: "auth", token: await secretToken("the first token", { sub }) });
		const watcher = await login(server, { token: await secretToken("a watcher's token") });
		await watcher.subscribe("secrets/#", { qos: 1 });
		for (const qos of [0, 1, 2] as const) {
			const fields = { retain: true, properties: { correlationData: Buffer.from(plant("correlation data")) } };
			if (qos === 0) client.publish("secrets/a", plant("a payload of QoS 0"), fields);
			else await client.publishAcked("secrets/a", plant(`a payload of QoS ${qos}`), { ...fields, qos });
		}
		await renew(client, await secretToken("the second token", { sub }));
		reauthenticate(client, await secretToken("a token of somebody else", { sub: freshId() }));
		await client.receiveUntilClosed();
		const will = { topic: "secrets/will", payload: plant("a will"), qos: 1, retain: true };
		const clientId = freshId("no-secret");
		const renewing = await login(server, { version: 4, clientId, will, token: await secretToken("a token to renew", { sub }) });
		await renewing.publishAcked(RENEWAL_TOPIC, await secretToken("a token that is published", { sub }));
		await renewing.publishAcked(RENEWAL_TOPIC, `${await secretToken("a bad token that is published", { sub })}x`);
		await renewing.destroy();

		// A password in packets that cannot be read.
		const bytes = Buffer.from(`100f00044d51545405c2003c0000000000${Buffer.from(plant("a malformed CONNECT")).toString("hex")}`, "hex");
		for (const first of [bytes, Buffer.from(plant("no MQTT at all")), Buffer.from(`GET /?${plant("HTTP")} HTTP/1.1\r\n\r\n`)]) {
			const raw = await RawClient.open(server);
			raw.sendBytes(first);
			raw.end();
			await raw.receiveUntilClosed();
		}
		const answers: string[] = [];
		for (const path of [
			"/",
			"/metrics",
			"/healthz",
			"/readyz",
			`/mqtt?${TOKEN_NAME}=${plant("a query")}`,
			"/api/v1/users",
			"/api/v1/rules",
			"/api/v1/tokens",
		]) {
			for (const bearer of [plant("a wrong admin token"), plant("the admin's token"), plant("the token of metrics")]) {
				const response = await fetch(`http://127.0.0.1:${server.wsPort}${path}`, { headers: { authorization: `Bearer ${bearer}` } });
				answers.push(await response.text());
			}
		}
		const { stdout, stderr } = await server.kill("SIGTERM");
		assert.ok(stderr.includes("Login refused"), "logins are logged");
		const said = [stdout, stderr, ...answers].join("\n");
		const told = [...planted].filter(([, secret]) => said.includes(secret)).map(([place]) => place);
		assert.deepEqual(told, []);
		assert.ok(said.includes(clientId), "what is no secret is found");
	});
});
