/** What becomes of a CONNECT whose credentials, client id or will somebody has to judge: what is asked, and what a refusal does. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Authenticator, AuthOutcome, Authorizer, Credentials } from "../../src/shoal.ts";
import { field, packet, u16 } from "../mqtt/wire.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { type Cleanup, startBroker } from "../support/test_broker.ts";

const GRANTED: AuthOutcome = { kind: "granted", principal: { name: "somebody", method: "test", expiresAtMs: Number.POSITIVE_INFINITY } };

/** CONNACK reason codes of MQTT 5 section 3.2.2.2. */
const CONNACK_CODES = new Set([
	...[0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a, 0x9b],
	...[0x9c, 0x9d, 0x9f],
]);

/** An authenticator that lets in whoever has the password "right", after a turn of the event loop. */
const passwordAuthenticator: Authenticator = {
	async authenticate({ password }) {
		await new Promise((resolve) => setTimeout(resolve, 1));
		return password !== undefined && Buffer.from(password).equals(Buffer.from("right")) ? GRANTED : { kind: "refused", reasonCode: 0x86 };
	},
};

/** A broker that gives its answer to every CONNECT, and the credentials that it has seen. */
async function startAnswering(t: Cleanup, outcome: AuthOutcome) {
	const seen: Credentials[] = [];
	const authenticator: Authenticator = {
		authenticate(credentials) {
			seen.push(credentials);
			return outcome;
		},
	};
	return { broker: await startBroker(t, {}, { authenticator }), seen };
}

describe("credentials", () => {
	test("user name and password reach the authenticator as they were sent [MQTT-3.1.2-17] [MQTT-3.1.2-19]", async (t) => {
		const { broker, seen } = await startAnswering(t, GRANTED);
		const clientId = freshId();
		await RawClient.connect(broker, { clientId, username: "zoë", password: Buffer.from([0, 255, 1]) });
		assert.equal(seen[0]?.clientId, clientId);
		assert.equal(seen[0]?.username, "zoë");
		assert.deepEqual([...(seen[0]?.password ?? [])], [0, 255, 1]);
		assert.equal(seen[0]?.authenticationMethod, undefined);
		assert.equal(seen[0]?.peer.address, "127.0.0.1");
	});

	test("without their flags there is neither user name nor password [MQTT-3.1.2-16] [MQTT-3.1.2-18]", async (t) => {
		const { broker, seen } = await startAnswering(t, GRANTED);
		await RawClient.connect(broker);
		assert.equal(seen[0]?.username, undefined);
		assert.equal(seen[0]?.password, undefined);
	});

	test("a password without a user name, and both empty, are allowed in MQTT 5", async (t) => {
		const { broker, seen } = await startAnswering(t, GRANTED);
		for (const [flags, ...payload] of [
			[0x42, field("a"), field("p")],
			[0xc2, field("a"), field(""), field("")],
		] as const) {
			const client = await RawClient.open(broker);
			client.sendBytes(packet(0x10, field("MQTT"), [5, flags], u16(0), [0], ...payload));
			await client.expect("connack", { reasonCode: 0 });
		}
		assert.deepEqual(
			seen.map(({ username, password }) => [username, password && Buffer.from(password).toString()]),
			[
				[undefined, "p"],
				["", ""],
			],
		);
	});

	test("refused credentials: CONNACK 0x86, session present 0 even where a session is, close [MQTT-3.1.4-2] [MQTT-3.2.2-6] [MQTT-3.2.2-7]", async (t) => {
		const broker = await startBroker(t, {}, { authenticator: passwordAuthenticator });
		const topic = freshId("kept");
		const session = { clientId: freshId(), clean: false, properties: { sessionExpiryInterval: 100 } };
		const owner = await RawClient.connect(broker, { ...session, username: "u", password: "right" });
		await owner.subscribe(topic, { qos: 1 });
		await owner.disconnect();
		const stranger = await RawClient.open(broker);
		stranger.sendConnect({ ...session, clean: true, username: "u", password: "wrong" });
		await stranger.expect("connack", { reasonCode: 0x86, sessionPresent: false });
		await stranger.expectClosed();
		const back = await RawClient.connect(broker, { ...session, username: "u", password: "right" });
		assert.equal(back.connack.sessionPresent, true, "the stranger's Clean Start has changed nothing");
	});

	test("a refused CONNECT does not disturb the connection that has the client id [MQTT-3.1.4-2]", async (t) => {
		const broker = await startBroker(t, {}, { authenticator: passwordAuthenticator });
		const clientId = freshId();
		const owner = await RawClient.connect(broker, { clientId, username: "u", password: "right" });
		const stranger = await RawClient.open(broker);
		stranger.sendConnect({ clientId, username: "u", password: "wrong" });
		await stranger.expect("connack", { reasonCode: 0x86 });
		await stranger.expectClosed();
		await owner.expectNothing();
	});

	test("a refused CONNECT's will is never published", async (t) => {
		const broker = await startBroker(t, {}, { authenticator: passwordAuthenticator });
		const topic = freshId("will");
		const watcher = await RawClient.connect(broker, { username: "u", password: "right" });
		await watcher.subscribe(`${topic}/#`, { qos: 1 });
		const stranger = await RawClient.open(broker);
		stranger.sendConnect({ username: "u", password: "wrong", will: { topic: `${topic}/no`, payload: "no", qos: 1, retain: true } });
		await stranger.expect("connack", { reasonCode: 0x86 });
		await stranger.expectClosed();
		// Wills go out in the order in which they fall due: this one would come second.
		const next = await RawClient.connect(broker, {
			username: "u",
			password: "right",
			will: { topic: `${topic}/yes`, payload: "yes", qos: 1, retain: false },
		});
		await next.destroy();
		await watcher.expect("publish", { payload: "yes" });
		await watcher.expectNothing();
		const late = await RawClient.connect(broker, { username: "u", password: "right" });
		await late.subscribe(`${topic}/#`);
		await late.expectNothing();
	});

	test("what follows a refused CONNECT is not processed [MQTT-3.1.4-6]", async (t) => {
		const broker = await startBroker(t, {}, { authenticator: passwordAuthenticator });
		const topic = freshId("behind");
		const watcher = await RawClient.connect(broker, { username: "u", password: "right" });
		await watcher.subscribe(topic, { qos: 1 });
		const stranger = await RawClient.open(broker);
		stranger.sendTogether(
			{ cmd: "connect", protocolId: "MQTT", protocolVersion: 5, clientId: freshId(), clean: true, keepalive: 0 },
			{ cmd: "publish", topic, payload: "no", qos: 0, retain: true },
			{ cmd: "publish", topic, payload: "no", qos: 1, messageId: 1 },
			{ cmd: "subscribe", messageId: 2, subscriptions: [{ topic, qos: 0 }] },
			{ cmd: "pingreq" },
		);
		await stranger.expect("connack", { reasonCode: 0x86 });
		await stranger.expectClosed();
		await broker.shoal.publish(topic, "yes", { qos: 1 });
		await watcher.expect("publish", { payload: "yes", retain: false });
		await watcher.expectNothing();
	});

	test("a rejected client id: CONNACK 0x85, close [MQTT-3.1.3-8]", async (t) => {
		const { broker } = await startAnswering(t, { kind: "refused", reasonCode: 0x85 });
		const client = await RawClient.open(broker);
		client.sendConnect();
		await client.expect("connack", { reasonCode: 0x85, sessionPresent: false });
		await client.expectClosed();
	});

	for (const reasonCode of [0x80, 0x83, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8d, 0x97, 0x98, 0x9c, 0x9f, 0xa0] as const) {
		const code = `0x${reasonCode.toString(16)}`;
		test(`a CONNECT refused with ${code} is answered by a code that CONNACK has, then closed [MQTT-3.2.2-8] [MQTT-4.13.2-1]`, async (t) => {
			const { broker } = await startAnswering(t, { kind: "refused", reasonCode });
			const client = await RawClient.open(broker);
			client.sendConnect();
			const connack = await client.expect("connack", { sessionPresent: false });
			assert.ok(CONNACK_CODES.has(connack.reasonCode) && connack.reasonCode >= 0x80, `got 0x${connack.reasonCode.toString(16)}`);
			if (CONNACK_CODES.has(reasonCode)) assert.equal(connack.reasonCode, reasonCode);
			await client.expectClosed();
		});
	}

	for (const [how, authenticate] of [
		["throws", () => assert.fail("broken")],
		["rejects", () => Promise.reject(new Error("broken"))],
	] as const) {
		test(`an authenticator that ${how}: CONNACK 0x88, close [MQTT-3.1.4-2]`, async (t) => {
			const broker = await startBroker(t, {}, { authenticator: { authenticate } });
			const client = await RawClient.open(broker);
			client.sendConnect();
			await client.expect("connack", { reasonCode: 0x88, sessionPresent: false });
			await client.expectClosed();
		});
	}

	test("an authenticator that never answers: CONNACK 0x80 when the time for the CONNECT is over", async (t) => {
		const authenticator: Authenticator = { authenticate: () => new Promise<AuthOutcome>(() => {}) };
		const broker = await startBroker(t, { connectTimeoutSeconds: 1 }, { authenticator });
		const client = await RawClient.open(broker);
		client.sendConnect();
		await client.expect("connack", { reasonCode: 0x80, sessionPresent: false });
		await client.expectClosed();
	});

	test("the authenticator may choose the client id to assign [MQTT-3.2.2-16]", async (t) => {
		const clientId = freshId("chosen");
		const { broker } = await startAnswering(t, { ...GRANTED, principal: { ...GRANTED.principal, clientId } });
		const client = await RawClient.connect(broker, { clientId: "" });
		assert.equal(client.connack.properties.assignedClientIdentifier, clientId);
		const named = await RawClient.connect(broker, { clientId: freshId() });
		assert.equal(named.connack.properties.assignedClientIdentifier, undefined);
		await client.expectNothing();
	});

	test("a will that the client may not publish: CONNACK 0x87, close, and no will [MQTT-3.1.4-2]", async (t) => {
		const topic = freshId("forbidden");
		const no = [() => false, async () => false, () => Promise.reject(new Error("broken"))];
		for (const answer of no) {
			const authorizer: Authorizer = { permits: (_principal, _clientId, access) => (access.action === "publish" ? answer() : true) };
			const broker = await startBroker(t, {}, { authorizer });
			const watcher = await RawClient.connect(broker);
			await watcher.subscribe(`${topic}/#`, { qos: 1 });
			const client = await RawClient.open(broker);
			client.sendConnect({ will: { topic: `${topic}/x`, payload: "no", qos: 1, retain: false } });
			const { reasonCode } = await client.expect("connack", { sessionPresent: false });
			assert.ok(reasonCode === 0x87 || reasonCode === 0x88, "refused, or nobody could say");
			await client.expectClosed();
			await broker.shoal.publish(`${topic}/next`, "next", { qos: 1 });
			await watcher.expect("publish", { payload: "next" });
		}
	});

	test("a will to a topic that begins with $: CONNACK 0x87, close [MQTT-3.1.4-2]", async (t) => {
		const broker = await startBroker(t);
		const client = await RawClient.open(broker);
		client.sendConnect({ will: { topic: "$SYS/broker/uptime", payload: "no", qos: 0, retain: false } });
		await client.expect("connack", { reasonCode: 0x87, sessionPresent: false });
		await client.expectClosed();
	});

	test("too many clients: the one that is too many is closed, the others stay [MQTT-3.1.4-2]", async (t) => {
		const broker = await startBroker(t, { maxConnections: 2 });
		const first = await RawClient.connect(broker);
		const second = await RawClient.connect(broker);
		const third = await RawClient.open(broker);
		third.sendConnect();
		await third.expectClosed();
		await first.expectNothing();
		await second.disconnect();
		await (await RawClient.connect(broker)).expectNothing();
	});
});
