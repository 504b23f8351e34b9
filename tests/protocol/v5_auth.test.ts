/** Enhanced authentication of MQTT 5: the exchange before CONNACK, and authenticating again on an open connection. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { AuthExchange, Authenticator, AuthOutcome, Principal } from "../../src/shoal.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker } from "../support/test_broker.ts";

const METHOD = "RIDDLE";
/** What the client says, and what the server asks next. */
const DIALOGUE: readonly (readonly [said: string, asked: string])[] = [
	["hello", "first riddle"],
	["first answer", "second riddle"],
	["second answer", ""],
];

function principal(name: string): Principal {
	return { name, method: METHOD, expiresAtMs: Number.POSITIVE_INFINITY };
}

/** Judges the next words of a client, in the same turn or (at the last riddle) later. */
function judge(step: number, data: Uint8Array | undefined, name: string): AuthOutcome | Promise<AuthOutcome> {
	const words = data === undefined ? "" : Buffer.from(data).toString();
	const [said, asked] = DIALOGUE[step] ?? ["", ""];
	if (words !== said) return { kind: "refused", reasonCode: 0x87 };
	if (asked === "") return Promise.resolve({ kind: "granted", principal: principal(name), authenticationData: Buffer.from("welcome") });
	const exchange: AuthExchange = { next: (answer) => judge(step + 1, answer, name) };
	return { kind: "continue", authenticationData: Buffer.from(asked), exchange };
}

/** Asks riddles by method; without a method everybody is let in. "down" stands for a service that cannot be asked. */
const riddler: Authenticator = {
	authenticate({ authenticationMethod, authenticationData, clientId }, current) {
		if (authenticationMethod === undefined)
			return { kind: "granted", principal: principal(""), authenticationData: Buffer.from("unasked") };
		if (authenticationMethod !== METHOD) return { kind: "refused", reasonCode: 0x8c };
		const words = authenticationData === undefined ? "" : Buffer.from(authenticationData).toString();
		if (words === "down") return Promise.reject(new Error("the riddle service is down"));
		if (words === "password") return { kind: "refused", reasonCode: 0x86 };
		// Whoever is known already may prove it in one step.
		if (current !== undefined && words === `again ${current.name}`) {
			return { kind: "granted", principal: current, authenticationData: Buffer.from("still you") };
		}
		return judge(0, authenticationData, clientId);
	},
};

function method(data?: string, name = METHOD): AnyPacket {
	return { authenticationMethod: name, ...(data !== undefined && { authenticationData: Buffer.from(data) }) };
}

function auth(reasonCode: number, data?: string, name = METHOD): AnyPacket {
	return { cmd: "auth", reasonCode, properties: method(data, name) };
}

function assertMethod(packet: AnyPacket, data: string): void {
	assert.equal(packet.properties.authenticationMethod, METHOD);
	assert.equal(packet.properties.authenticationData.toString(), data);
}

describe("AUTH", () => {
	const broker = suiteBroker({}, { authenticator: riddler });

	/** A connection that has said hello and been asked the first riddle. */
	async function asked(options: AnyPacket = {}): Promise<RawClient> {
		const client = await RawClient.open(broker);
		client.sendConnect({ ...options, properties: { ...method("hello"), ...options.properties } });
		assertMethod(await client.expect("auth", { reasonCode: 0x18 }), "first riddle");
		return client;
	}

	/** A connection that has answered everything. */
	async function known(options: AnyPacket = {}): Promise<RawClient> {
		const client = await asked(options);
		client.send(auth(0x18, "first answer"));
		await client.expect("auth", { reasonCode: 0x18 });
		client.send(auth(0x18, "second answer"));
		client.connack = await client.expect("connack", { reasonCode: 0 });
		return client;
	}

	test("an exchange of several steps: AUTH 0x18 each, CONNACK at the end, all with the method [MQTT-4.12.0-2] [MQTT-4.12.0-5] [MQTT-3.2.0-1]", async () => {
		const client = await asked();
		client.send(auth(0x18, "first answer"));
		assertMethod(await client.expect("auth", { reasonCode: 0x18 }), "second riddle");
		client.send(auth(0x18, "second answer"));
		assertMethod(await client.expect("connack", { reasonCode: 0, sessionPresent: false }), "welcome");
		await client.expectNothing();
	});

	test("a wrong answer in the exchange: CONNACK with the reason, close [MQTT-4.12.0-4]", async () => {
		const client = await asked();
		client.send(auth(0x18, "I do not know"));
		await client.expect("connack", { reasonCode: 0x87, sessionPresent: false });
		await client.expectClosed();
	});

	test("wrong data in CONNECT: CONNACK with the reason, close [MQTT-4.12.0-4]", async () => {
		const client = await RawClient.open(broker);
		client.sendConnect({ properties: method("good morning") });
		await client.expect("connack", { reasonCode: 0x87, sessionPresent: false });
		await client.expectClosed();
	});

	test("a method that the server does not have: CONNACK 0x8C, close [MQTT-4.12.0-1]", async (t) => {
		const anonymous = await startBroker(t);
		for (const target of [broker, anonymous]) {
			const client = await RawClient.open(target);
			client.sendConnect({ properties: method("hello", "SCRAM-SHA-1") });
			await client.expect("connack", { reasonCode: 0x8c, sessionPresent: false });
			await client.expectClosed();
		}
	});

	test("AUTH without a method in CONNECT: DISCONNECT 0x82 [MQTT-4.12.0-7]", async () => {
		const client = await RawClient.connect(broker);
		client.send(auth(0x19, "hello"));
		await client.expectDisconnect(0x82);
	});

	test("AUTH right behind a CONNECT without a method: CONNACK 0x82 [MQTT-4.12.0-7]", async () => {
		const client = await RawClient.open(broker);
		client.sendTogether(
			{ cmd: "connect", protocolId: "MQTT", protocolVersion: 5, clientId: freshId(), clean: true, keepalive: 0 },
			auth(0x18, "hello"),
		);
		await client.expect("connack", { reasonCode: 0x82, sessionPresent: false });
		await client.expectClosed();
	});

	test("without a method in CONNECT the server sends neither AUTH nor method nor data [MQTT-4.12.0-6]", async () => {
		const client = await RawClient.connect(broker);
		assert.equal(client.connack.properties.authenticationMethod, undefined);
		assert.equal(client.connack.properties.authenticationData, undefined);
		await client.expectNothing();
	});

	for (const [what, packet] of [
		["another method", auth(0x18, "first answer", "OTHER")],
		["reason 0x19 instead of 0x18 [MQTT-4.12.0-2]", auth(0x19, "first answer")],
		["a second CONNECT", { cmd: "connect", protocolId: "MQTT", protocolVersion: 5, clientId: "x", clean: true, keepalive: 0 }],
		["PINGREQ", { cmd: "pingreq" }],
		["PUBLISH", { cmd: "publish", topic: "t", payload: "p", qos: 1, messageId: 1 }],
		["SUBSCRIBE", { cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "t", qos: 0 }] }],
	] as const) {
		test(`${what} during the exchange: CONNACK 0x82, close, and no will [MQTT-4.13.1-1]`, async () => {
			const topic = freshId("exchange");
			const watcher = await RawClient.connect(broker);
			await watcher.subscribe(`${topic}/#`);
			const client = await asked({ will: { topic: `${topic}/will`, payload: "no", qos: 0, retain: false } });
			client.send(packet);
			await client.expect("connack", { reasonCode: 0x82, sessionPresent: false });
			await client.expectClosed();
			await watcher.expectNothing();
		});
	}

	test("DISCONNECT during the exchange: closed without CONNACK", async () => {
		const client = await asked();
		client.send({ cmd: "disconnect" });
		await client.expectClosed();
	});

	test("AUTH while the server is thinking: CONNACK 0x82, close", async (t) => {
		let decide = (_outcome: AuthOutcome) => {};
		const authenticator: Authenticator = {
			authenticate: () =>
				new Promise<AuthOutcome>((resolve) => {
					decide = resolve;
				}),
		};
		const slow = await startBroker(t, {}, { authenticator });
		const client = await RawClient.open(slow);
		client.sendConnect({ properties: method("hello") });
		client.send(auth(0x18, "first answer"));
		await client.expect("connack", { reasonCode: 0x82 });
		decide({ kind: "granted", principal: principal("late") });
		await client.expectClosed();
	});

	test("a client that does not go on with the exchange: CONNACK 0x80 when the time for the CONNECT is over [MQTT-4.12.0-4]", async (t) => {
		const own = await startBroker(t, { connectTimeoutSeconds: 1 }, { authenticator: riddler });
		const client = await RawClient.open(own);
		client.sendConnect({ properties: method("hello") });
		await client.expect("auth", { reasonCode: 0x18 });
		await client.expect("connack", { reasonCode: 0x80, sessionPresent: false });
		await client.expectClosed();
	});

	test("an authenticator that cannot be asked: CONNACK 0x88, close [MQTT-4.12.0-4]", async () => {
		const client = await RawClient.open(broker);
		client.sendConnect({ properties: method("down") });
		await client.expect("connack", { reasonCode: 0x88, sessionPresent: false });
		await client.expectClosed();
	});

	test("an authenticator that wants an exchange from a client without a method: refused with 0x8C, no AUTH [MQTT-4.12.0-6] [MQTT-4.12.0-1]", async (t) => {
		const curious: Authenticator = {
			authenticate: () => ({ kind: "continue", authenticationData: Buffer.from("riddle"), exchange: { next: () => assert.fail() } }),
		};
		const own = await startBroker(t, {}, { authenticator: curious });
		const client = await RawClient.open(own);
		client.sendConnect();
		await client.expect("connack", { reasonCode: 0x8c, sessionPresent: false });
		await client.expectClosed();
		const older = await RawClient.open(own, 4);
		older.sendConnect();
		await older.expect("connack", { returnCode: 5 });
		await older.expectClosed();
	});

	test("a session is resumed only after the exchange, and not touched before", async () => {
		const session = { clientId: freshId(), clean: false, properties: { sessionExpiryInterval: 100 } };
		const first = await known(session);
		const stranger = await asked({ ...session, clean: true });
		stranger.send(auth(0x18, "I do not know"));
		await stranger.expect("connack", { reasonCode: 0x87 });
		await first.expectNothing();
		await first.disconnect();
		const second = await known(session);
		assert.equal(second.connack.sessionPresent, true);
	});

	test("authenticating again in several steps: AUTH 0x18, then AUTH 0x00 with the method, and packets go on [MQTT-4.12.0-5]", async () => {
		const client = await known();
		client.send(auth(0x19, "hello"));
		assertMethod(await client.expect("auth", { reasonCode: 0x18 }), "first riddle");
		client.send(auth(0x18, "first answer"));
		assertMethod(await client.expect("auth", { reasonCode: 0x18 }), "second riddle");
		const topic = freshId("meanwhile");
		await client.subscribe(topic, { qos: 1 });
		client.publish(topic, "meanwhile");
		await client.expect("publish", { payload: "meanwhile" });
		client.send(auth(0x18, "second answer"));
		assertMethod(await client.expect("auth", { reasonCode: 0x00 }), "welcome");
		await client.expectNothing();
	});

	test("authenticating again: the authenticator is told who the client was", async () => {
		const clientId = freshId();
		const client = await known({ clientId });
		client.send(auth(0x19, `again ${clientId}`));
		assertMethod(await client.expect("auth", { reasonCode: 0x00 }), "still you");
		client.send(auth(0x19, `again ${clientId}`));
		assertMethod(await client.expect("auth", { reasonCode: 0x00 }), "still you");
	});

	for (const [what, packet, reasonCode] of [
		["with a wrong answer", auth(0x19, "wrong"), 0x87],
		["refused with a code that DISCONNECT does not have", auth(0x19, "password"), 0x87],
		["while the authenticator cannot be asked", auth(0x19, "down"), 0x89],
		["by another method", auth(0x19, "hello", "OTHER"), 0x82],
		["with 0x18 that nobody asked for", auth(0x18, "first answer"), 0x82],
	] as const) {
		const code = `0x${reasonCode.toString(16)}`;
		test(`authenticating again ${what}: DISCONNECT ${code}, close, and the will is published [MQTT-4.12.1-2] [MQTT-3.1.2-8]`, async () => {
			const topic = freshId("failed");
			const watcher = await RawClient.connect(broker);
			await watcher.subscribe(topic);
			const client = await known({ will: { topic, payload: "gone", qos: 0, retain: false } });
			client.send(packet);
			await client.expectDisconnect(reasonCode);
			await watcher.expect("publish", { payload: "gone" });
		});
	}

	test("beginning again while an exchange is under way: DISCONNECT 0x82", async () => {
		const client = await known();
		client.send(auth(0x19, "hello"));
		await client.expect("auth", { reasonCode: 0x18 });
		client.send(auth(0x19, "hello"));
		await client.expectDisconnect(0x82);
	});

	for (const [what, hex, reasonCode] of [
		["AUTH with a flag set [MQTT-3.15.1-1]", "f1 00", 0x81],
		["AUTH 0x00, which only servers send [MQTT-3.15.2-1]", "f0 00", 0x82],
		["AUTH 0x80 [MQTT-3.15.2-1]", "f0 02 80 00", 0x82],
		["AUTH 0x19 without a method", "f0 02 19 00", 0x82],
		["AUTH with a property that it cannot have", "f0 0d 19 0b 15 0006 524944444c45 01 01", 0x82],
	] as const) {
		test(`${what}: DISCONNECT 0x${reasonCode.toString(16)} [MQTT-4.13.1-1]`, async () => {
			const client = await known();
			client.sendBytes(hex);
			await client.expectDisconnect(reasonCode);
		});
	}

	test("AUTH and CONNACK of the exchange carry neither Reason String nor User Properties that could make them too large [MQTT-3.15.2-2] [MQTT-3.15.2-3]", async () => {
		const client = await asked({ properties: { maximumPacketSize: 64 } });
		client.send(auth(0x18, "first answer"));
		const packet = await client.expect("auth", { reasonCode: 0x18 });
		assert.deepEqual(Object.keys(packet.properties).toSorted(), ["authenticationData", "authenticationMethod"]);
		assert.ok(packet.length <= 62);
	});
});
