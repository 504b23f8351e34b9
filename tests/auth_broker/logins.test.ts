/** Logins that fail, by whatever way: they leave nothing behind, disturb nobody, tell nothing, and cannot be tried for ever (FAULTS 45–48). */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { passwordLines } from "../../src/auth/password_file.ts";
import {
	authProperties,
	EVERYWHERE,
	freshAddress,
	granted,
	knock,
	type Login,
	login,
	refusal,
	refusedWith,
	SECRET,
	token,
} from "../support/auth_clients.ts";
import { assertServes } from "../support/canary.ts";
import { type JsonServer, json, startJsonServer, status } from "../support/jwks_server.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { ScramClient } from "../support/scram_client.ts";
import { createFolder, suiteCleanup } from "../support/server_process.ts";
import { startBroker, type TestBroker } from "../support/test_broker.ts";

const BAD = 0x86;
const BANNED = 0x8a;
const NOT_AUTHORIZED = 0x87;
const UNAVAILABLE = 0x88;
const PASSWORD = "correct horse";
/** Failures in a row that an address has, and a user name. */
const ADDRESS_BURST = 20;
const NAME_BURST = 100;
const CHEAP = { logN: 10, blockSize: 1, parallel: 1 };
const METHOD = "SCRAM-SHA-256";

const scram = (data: Buffer) => ({ authenticationMethod: METHOD, authenticationData: data });

/** A client in the middle of a SCRAM exchange, with its answer to the server's question. */
async function asked(broker: TestBroker, username: string, password: string, options: Login = {}) {
	const exchange = new ScramClient(username, password);
	const client = await knock(broker, { ...options, properties: { ...options.properties, ...scram(exchange.first()) } });
	const { properties } = await client.expect("auth", { reasonCode: 0x18 });
	const answer = { cmd: "auth", reasonCode: 0x18, properties: scram(exchange.final(properties.authenticationData)) };
	return { client, answer, exchange };
}

describe("logins", () => {
	const t = suiteCleanup();
	let passwordFile: string;
	let hook: JsonServer;
	let broker: TestBroker;
	/** Asks a service instead of a file. */
	let asking: TestBroker;

	before(async () => {
		passwordFile = join(createFolder(t), "passwords");
		writeFileSync(
			passwordFile,
			(await Promise.all(["alice", "bob"].map((name) => passwordLines(name, PASSWORD, CHEAP)))).flat().join("\n"),
		);
		hook = await startJsonServer(t, { result: "deny" });
		const common = { ...EVERYWHERE, jwtSecret: SECRET, aclDefault: "allow" } as const;
		broker = await startBroker(t, { ...common, passwordFile });
		asking = await startBroker(t, { ...common, authHttpUrl: hook.url });
	});

	/** Of a client that the service is asked about. */
	const whenItAnswers = (answer: JsonServer["answer"]) => (options: Login) => {
		hook.answer = answer;
		return refusedWith(asking, { ...options, username: "dave", password: freshId("hook") });
	};

	/** Every way to fail, with the code that tells it. */
	const FAILURES: readonly (readonly [way: string, code: number, fail: (options: Login) => Promise<number>, on?: () => TestBroker])[] = [
		["a wrong password", BAD, (options) => refusedWith(broker, { ...options, username: "alice", password: "wrong" })],
		["an unknown user", BAD, (options) => refusedWith(broker, { ...options, username: "nobody", password: PASSWORD })],
		["a wrong token", BAD, async (options) => refusedWith(broker, { ...options, token: `${await token()}x` })],
		["a wrong token in AUTH", BAD, async (options) => refusedWith(broker, { ...options, carrier: "auth", token: `${await token()}x` })],
		[
			"a wrong token in a cookie",
			BAD,
			async (options) => refusedWith(broker, { ...options, carrier: "cookie", token: `${await token()}x` }),
		],
		[
			"an unknown method",
			0x8c,
			(options) => refusedWith(broker, { ...options, properties: { ...options.properties, authenticationMethod: "X" } }),
		],
		[
			"a wrong password in SCRAM",
			BAD,
			async (options) => {
				const { client, answer } = await asked(broker, "alice", "wrong", options);
				client.send(answer);
				return refusal(client);
			},
		],
		["a service that denies", BAD, whenItAnswers(json({ result: "deny" })), () => asking],
		["a service that is broken", UNAVAILABLE, whenItAnswers(status(500)), () => asking],
		["a service that breaks off", UNAVAILABLE, whenItAnswers((_request, response) => void response.destroy()), () => asking],
	];

	it("the right password is let in, in CONNECT and by SCRAM, in which the server proves that it knows it, too", async () => {
		for (const version of [3, 4, 5] as const) {
			await (await login(broker, { version, username: "alice", password: PASSWORD })).disconnect();
		}
		const { client, answer, exchange } = await asked(broker, "alice", PASSWORD);
		client.send(answer);
		const { properties } = await client.expect("connack", { reasonCode: 0 });
		assert.ok(exchange.accepts(properties.authenticationData));
		await client.disconnect();
	});

	for (const [way, code, fail, on = () => broker] of FAILURES) {
		it(`faults 45 to 47: ${way} is told 0x${code.toString(16)}, has no will, and a victim whose client id it used keeps its connection, session and queue`, async () => {
			const watcher = await login(on(), { token: await token() });
			const topic = freshId("topic");
			await watcher.subscribe(`${topic}/will`, { qos: 1 });
			const will = { topic: `${topic}/will`, payload: "no", qos: 1, retain: true };
			const clientId = freshId("victim");
			const session = { clientId, clean: false, properties: { sessionExpiryInterval: 300 } };
			const attack = () => fail({ clientId, clean: true, will });

			const victim = await login(on(), { ...session, token: await token() });
			await victim.subscribe(topic, { qos: 1 });
			assert.equal(await attack(), code);
			await on().shoal.publish(topic, "online", { qos: 1 });
			const { messageId } = await victim.expect("publish", { payload: "online" });
			victim.send({ cmd: "puback", messageId });
			await victim.disconnect();

			await on().shoal.publish(topic, "queued", { qos: 1 });
			assert.equal(await attack(), code);
			const back = await login(on(), { ...session, token: await token() });
			assert.equal(back.connack.sessionPresent, true);
			const queued = await back.expect("publish", { payload: "queued" });
			back.send({ cmd: "puback", messageId: queued.messageId });
			await watcher.expectNothing();
			await watcher.subscribe(`${topic}/#`);
			await watcher.expectNothing();
			for (const client of [watcher, back]) await client.disconnect();
		});
	}

	it("fault 46: of a SCRAM exchange that is left in the middle no will is published", async () => {
		const watcher = await login(broker, { token: await token() });
		const topic = freshId("will");
		await watcher.subscribe(topic);
		const { client } = await asked(broker, "alice", PASSWORD, { will: { topic, payload: "no", qos: 0, retain: false } });
		await client.destroy();
		await watcher.expectNothing();
		await watcher.disconnect();
	});

	for (const [what, username] of [
		["a known", "alice"],
		["an unknown", "mallory"],
	] as const) {
		it(`fault 48: after ${ADDRESS_BURST} wrong passwords of ${what} user an address is told 0x8A, whatever it brings; others are not`, async () => {
			const address = freshAddress();
			const answers: number[] = [];
			for (let n = 0; n < ADDRESS_BURST + 2; n++) answers.push(await refusedWith(broker, { address, username, password: `guess ${n}` }));
			assert.deepEqual(answers, [...new Array(ADDRESS_BURST).fill(BAD), BANNED, BANNED]);
			assert.equal(await refusedWith(broker, { address, username: "bob", password: PASSWORD }), BANNED);
			assert.equal(await refusedWith(broker, { address, token: await token() }), BANNED);
			assert.equal(await refusedWith(broker, { address, version: 4, username: "bob", password: PASSWORD }), 5);
			assert.equal(await refusedWith(broker, { address, properties: scram(new ScramClient("bob", PASSWORD).first()) }), BANNED);
			await (await login(broker, { username: "bob", password: PASSWORD })).disconnect();
		});
	}

	it("fault 48: SCRAM exchanges that fail count, too", async () => {
		const address = freshAddress();
		for (let n = 0; n < ADDRESS_BURST; n++) {
			const { client, answer } = await asked(broker, "alice", `guess ${n}`, { address });
			client.send(answer);
			assert.equal(await refusal(client), BAD);
		}
		assert.equal(await refusedWith(broker, { address, username: "alice", password: PASSWORD }), BANNED);
	});

	it("fault 48: a user name that is tried from many addresses is told 0x8A; a token beside that name is let in", async () => {
		const tried = async (username: string) => {
			const codes: number[] = [];
			for (let n = 0; n < NAME_BURST; n++) codes.push(await refusedWith(broker, { username, password: `guess ${n}` }));
			return codes.every((code) => code === BAD);
		};
		assert.ok(await tried("carol"));
		assert.equal(await refusedWith(broker, { username: "carol", password: PASSWORD }), BANNED);
		const address = freshAddress();
		await (await login(broker, { address, username: "carol", password: await token() })).disconnect();
	});

	it("fault 48: an address that somebody only says to have does not count where no proxy is believed", async (t) => {
		const own = await startBroker(t, { passwordFile });
		for (let n = 0; n < ADDRESS_BURST; n++) assert.equal(await refusedWith(own, { username: "alice", password: "wrong" }), BAD);
		assert.equal(await refusedWith(own, { username: "alice", password: PASSWORD }), BANNED);
	});

	it("fault 45: a service that is asked for rights and fails allows nothing, and a CONNECT with a will is told 0x88", async (t) => {
		const rights = await startJsonServer(t);
		const own = await startBroker(t, { passwordFile, aclHttpUrl: rights.url, aclDefault: "allow" });
		for (const answer of [
			status(500),
			json({ result: "perhaps" }),
			(_: unknown, response: { destroy(): unknown }) => void response.destroy(),
		]) {
			rights.answer = answer;
			const client = await RawClient.connect(own, { username: "alice", password: PASSWORD });
			assert.deepEqual(granted(await client.subscribe(freshId("a"))), [NOT_AUTHORIZED]);
			assert.equal((await client.publishAcked(freshId("a"), "x")).reasonCode, NOT_AUTHORIZED);
			await client.disconnect();
			const refused = await RawClient.open(own);
			refused.sendConnect({ username: "alice", password: PASSWORD, will: { topic: freshId("a"), payload: "x", qos: 0, retain: false } });
			assert.equal(await refusal(refused), UNAVAILABLE);
		}
	});

	it("a service that allows says who it is, for which client id, with which rights and until when", async (t) => {
		const own = await startBroker(t, { ...EVERYWHERE, authHttpUrl: hook.url });
		const expiresAt = Date.now() / 1000 + 1.5;
		hook.answer = json({ result: "allow", clientId: "named", username: "eve", acl: { sub: ["a/#"] }, expiresAt });
		assert.equal(await refusedWith(own, { clientId: "other", username: "x", password: "y" }), 0x85);
		const client = await login(own, { clientId: "", username: "x", password: "y" });
		assert.equal(client.connack.properties.assignedClientIdentifier, "named");
		assert.deepEqual(granted(await client.subscribe("a/b")), [0]);
		assert.deepEqual(granted(await client.subscribe("b")), [NOT_AUTHORIZED]);
		await client.expectDisconnect(NOT_AUTHORIZED);
		assert.equal(JSON.parse(hook.bodies.at(-1) ?? "{}").password, "y");
	});

	it("after all that the broker serves", async (t) => {
		await assertServes(await startBroker(t));
		await (await login(broker, { token: await token(), properties: authProperties(await token()) })).disconnect();
	});
});
