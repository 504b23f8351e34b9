// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.

/** Who a client is, and what follows from that alone: names that rules could misread, client ids of others, and nothing granted unless somebody granted it (FAULTS 50, 55, 64, 66). */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { passwordLines } from "../../src/auth/password_file.ts";
import { CARRIERS, EVERYWHERE, granted, type Login, login, refusedWith, SECRET, token } from "../support/auth_clients.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { createFolder, suiteCleanup } from "../support/server_process.ts";
import { startBroker, type TestBroker } from "../support/test_broker.ts";

const NOT_VALID = 0x85;
const NOT_AUTHORIZED = 0x87;
const PASSWORD = "correct horse";
const CHEAP = { logN: 10, blockSize: 1, parallel: 1 };
const durable = { clean: false, properties: { sessionExpiryInterval: 300 } };

const RULES = `rules:
  - { permission: allow, action: all, topics: ["own/\${clientid}/#"] }
  - { permission: allow, action: all, topics: ["users/\${username}/#"] }
  - { permission: allow, action: all, topics: ["group/\${claims.group}/#"] }
`;

describe("identities in rules", () => {
	const t = suiteCleanup();
	let broker: TestBroker;

	before(async () => {
		const folder = createFolder(t);
		const [aclFile, passwordFile] = [join(folder, "rules.yaml"), join(folder, "passwords")];
		writeFileSync(aclFile, RULES);
		const names = ["alice", "+", "a/b"];
		writeFileSync(passwordFile, (await Promise.all(names.map((name) => passwordLines(name, PASSWORD, CHEAP)))).flat().join("\n"));
		broker = await startBroker(t, { ...EVERYWHERE, aclFile, passwordFile, jwtSecret: SECRET, jwtUsernameClaim: "name" });
	});

	const codes = async (client: RawClient, ...filters: string[]): Promise<number[]> => {
		const all: number[] = [];
		for (const filter of filters) all.push(...granted(await client.subscribe(filter)));
		return all;
	};
	const plain = (claims: object = {}) => token({ acl: undefined, name: "bob", group: "g", ...claims });

	it("placeholders stand for the client's own id, name and claims, and for nobody else's", async () => {
		const clientId = freshId();
		const client = await login(broker, { clientId, token: await plain({ group: "blue" }) });
		const own = [`own/${clientId}/#`, "users/bob/x", "group/blue/+"];
		assert.deepEqual(await codes(client, ...own), [0, 0, 0]);
		const others = ["own/other/#", "own/+/x", "users/alice/x", "users/+/x", "group/red/+", "own/#", "#"];
		assert.deepEqual(
			await codes(client, ...others),
			others.map(() => NOT_AUTHORIZED),
		);
		const alice = await login(broker, { username: "alice", password: PASSWORD });
		assert.deepEqual(await codes(alice, "users/alice/#", "users/bob/x", "group/blue/x", "group//x"), [
			0,
			...new Array(3).fill(NOT_AUTHORIZED),
		]);
		for (const one of [client, alice]) await one.disconnect();
	});

	for (const id of ["+", "#", "a/b", "a+b", "dev#", "/", "a/../b"]) {
		it(`fault 55: the client id ${id}, which rules could misread, is told 0x85, whatever it brings and whichever way`, async () => {
			assert.equal(await refusedWith(broker, { clientId: id, username: "alice", password: PASSWORD }), NOT_VALID);
			assert.equal(await refusedWith(broker, { clientId: id, username: "alice", password: PASSWORD, version: 4 }), 2);
			for (const carrier of CARRIERS)
				assert.equal(await refusedWith(broker, { clientId: id, carrier, token: await plain() }), NOT_VALID, carrier);
		});
	}

	it("fault 55: a user name, a claim, and an id that is assigned from a claim are judged alike", async () => {
		for (const username of ["+", "a/b"]) assert.equal(await refusedWith(broker, { username, password: PASSWORD }), NOT_VALID, username);
		for (const claims of [{ name: "+" }, { name: "a/b" }, { group: "#" }]) {
			assert.equal(await refusedWith(broker, { token: await plain(claims) }), NOT_VALID, JSON.stringify(claims));
		}
		assert.equal(await refusedWith(broker, { clientId: "", token: await plain({ sub: "a/b" }) }), NOT_VALID);
		assert.equal(await refusedWith(broker, { clientId: "", token: await plain({ sub: "#" }) }), NOT_VALID);
	});

	it("fault 55: a user name that is sent beside a token proves nothing", async () => {
		for (const username of ["alice", "+"]) {
			const client = await login(broker, { username, password: await plain() });
			assert.deepEqual(await codes(client, "users/alice/x", "users/bob/x"), [NOT_AUTHORIZED, 0]);
			await client.disconnect();
		}
	});

	it("fault 64: a topic alias is judged by the topic that it stands for", async () => {
		const clientId = freshId();
		const watcher = await login(broker, { token: await token({ name: "x", group: "g", acl: { all: ["#"] } }) });
		await watcher.subscribe("#");
		const client = await login(broker, { clientId, token: await plain() });
		const publish = (topic: string, topicAlias: number) =>
			client.publishAcked(topic, topic, { properties: { topicAlias } }).then(({ reasonCode }: AnyPacket) => reasonCode ?? 0);
		assert.equal(await publish(`own/${clientId}/a`, 1), 0);
		assert.equal(await publish("own/other/a", 1), NOT_AUTHORIZED);
		assert.equal(await publish("", 1), NOT_AUTHORIZED);
		assert.equal(await publish(`own/${clientId}/b`, 1), 0);
		assert.equal(await publish("", 1), 0);
		for (const topic of ["a", "b", "b"]) await watcher.expect("publish", { topic: `own/${clientId}/${topic}` });
		await watcher.expectNothing();
	});
});

describe("client ids that are bound", () => {
	const t = suiteCleanup();
	let broker: TestBroker;

	before(async () => {
		broker = await startBroker(t, { ...EVERYWHERE, jwtSecret: SECRET, jwtBindClientId: true });
	});

	it("fault 66: another identity that uses a client id is told 0x85; connection, session and queue stay its owner's", async () => {
		const [owner, thief, topic] = [freshId(), freshId(), freshId("topic")];
		const own = await token({ sub: owner });
		const options: Login = { clientId: owner, ...durable };
		const first = await login(broker, { ...options, token: own });
		await first.subscribe(topic, { qos: 1 });
		const stolen = await token({ sub: thief });
		const tryAll = async (): Promise<void> => {
			for (const carrier of CARRIERS) {
				for (const clean of [true, false]) {
					assert.equal(await refusedWith(broker, { ...options, clean, carrier, token: stolen }), NOT_VALID, carrier);
				}
			}
			assert.equal(await refusedWith(broker, { clientId: owner, version: 4, token: stolen }), 2);
		};
		await tryAll();
		await broker.shoal.publish(topic, "live", { qos: 1 });
		const { messageId } = await first.expect("publish", { payload: "live" });
		first.send({ cmd: "puback", messageId });
		await first.disconnect();
		await broker.shoal.publish(topic, "queued", { qos: 1 });
		await tryAll();
		const back = await login(broker, { ...options, token: own });
		assert.equal(back.connack.sessionPresent, true);
		await back.expect("publish", { payload: "queued" });
		await back.destroy();
	});

	it("fault 66: the id of a token is assigned where none was sent; a token without one is told 0x86", async () => {
		const sub = freshId();
		for (const carrier of CARRIERS) {
			const client = await login(broker, { clientId: "", carrier, token: await token({ sub }) });
			assert.equal(client.connack.properties.assignedClientIdentifier, sub);
			await client.disconnect();
			assert.equal(await refusedWith(broker, { clientId: "", carrier, token: await token() }), 0x86);
		}
	});
});

describe("client ids that are not bound", () => {
	const t = suiteCleanup();
	let broker: TestBroker;

	before(async () => {
		const passwordFile = join(createFolder(t), "passwords");
		writeFileSync(
			passwordFile,
			(await Promise.all(["alice", "bob"].map((name) => passwordLines(name, PASSWORD, CHEAP)))).flat().join("\n"),
		);
		broker = await startBroker(t, { ...EVERYWHERE, passwordFile, aclDefault: "allow" });
	});

	it("fault 66: a session that one user has left cannot be taken up by another one, nor its queue be read", async () => {
		const [clientId, topic] = [freshId(), freshId("topic")];
		const alice: Login = { clientId, ...durable, username: "alice", password: PASSWORD };
		const first = await login(broker, alice);
		await first.subscribe(topic, { qos: 1 });
		await first.disconnect();
		await broker.shoal.publish(topic, "for alice", { qos: 1 });
		assert.ok([NOT_VALID, NOT_AUTHORIZED].includes(await refusedWith(broker, { ...alice, username: "bob" })));
		const back = await login(broker, alice);
		await back.expect("publish", { payload: "for alice" });
		await back.destroy();
	});
});

describe("fault 50: rights that nobody has configured", () => {
	const t = suiteCleanup();
	let broker: TestBroker;

	before(async () => {
		broker = await startBroker(t, { ...EVERYWHERE, jwtSecret: SECRET, allowAnonymous: true });
	});

	for (const [what, options] of [
		["a token without rights", async () => ({ token: await token({ acl: undefined }) })],
		["a token with an empty list", async () => ({ token: await token({ acl: [] }) })],
		["a token with empty lists", async () => ({ token: await token({ acl: { pub: [], sub: [], all: [] } }) })],
		["a client that is let in without any credentials", async () => ({})],
	] as const) {
		it(`${what} may do nothing, also on the machine of the broker`, async () => {
			const client = await login(broker, await options());
			for (const filter of ["#", "a", "+", "$SYS/#", "$share/g/a"])
				assert.deepEqual(granted(await client.subscribe(filter)), [NOT_AUTHORIZED], filter);
			for (const retain of [false, true]) assert.equal((await client.publishAcked("a", "x", { retain })).reasonCode, NOT_AUTHORIZED);
			await client.disconnect();
			const will = { topic: "a", payload: "x", qos: 0, retain: false };
			assert.equal(await refusedWith(broker, { ...(await options()), will }), NOT_AUTHORIZED);
		});
	}

	for (const acl of [
		"all",
		{ pub: "a" },
		{ pub: ["a"], other: [] },
		[{ permission: "allow" }],
		[{ permission: "allow", action: "all", topic: "a", clientid: "x" }],
		null,
		1,
	]) {
		it(`a token whose rights cannot be read is told 0x86: ${JSON.stringify(acl)}`, async () => {
			assert.equal(await refusedWith(broker, { token: await token({ acl }) }), 0x86);
		});
	}

	it("whoever brings something is not let in without credentials", async () => {
		assert.equal(await refusedWith(broker, { username: "user", password: "password" }), 0x86);
		const client = await RawClient.open(broker);
		client.sendConnect({ username: "user" });
		await client.expect("connack", { reasonCode: 0x86 });
	});
});
