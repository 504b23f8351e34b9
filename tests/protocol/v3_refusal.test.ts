import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Authenticator, AuthOutcome, Authorizer } from "../../src/auth/auth.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { V3_VERSIONS } from "../support/v3.ts";

const PRINCIPAL = { name: "", method: "test", expiresAtMs: Number.POSITIVE_INFINITY };

/** What the authenticator answers, by user name; everybody else is granted. A name with `later-` in front gets it in a later turn. */
const REFUSALS: Readonly<Record<string, ReasonCode>> = {
	unavailable: ReasonCode.serverUnavailable,
	busy: ReasonCode.serverBusy,
	"bad-password": ReasonCode.badUserNameOrPassword,
	unauthorized: ReasonCode.notAuthorized,
	banned: ReasonCode.banned,
	unspeakable: ReasonCode.unspecifiedError,
};

const authenticator: Authenticator = {
	authenticate({ username = "" }) {
		if (username === "broken") throw new Error("the directory cannot be asked");
		const reasonCode = REFUSALS[username.replace("later-", "")];
		const outcome: AuthOutcome = reasonCode === undefined ? { kind: "granted", principal: PRINCIPAL } : { kind: "refused", reasonCode };
		return username.startsWith("later-") ? new Promise((resolve) => setTimeout(resolve, 20, outcome)) : outcome;
	},
};

/** Everything whose topic or filter has `denied` in it is. */
const authorizer: Authorizer = {
	permits: (_principal, _clientId, access) => !(access.action === "publish" ? access.topic : access.filter).includes("denied"),
};

describe("v3 refusals", () => {
	const broker = suiteBroker({}, { authenticator, authorizer });

	for (const { version, name } of V3_VERSIONS) {
		for (const [username, returnCode] of [
			["unavailable", 3],
			["busy", 3],
			["broken", 3],
			["bad-password", 4],
			["unauthorized", 5],
			["banned", 5],
			["later-unauthorized", 5],
		] as const) {
			test(`${name}: a CONNECT refused as "${username}" gets return code ${returnCode}, then the close [v3 MQTT-3.2.2-4] [v3 MQTT-3.2.2-5]`, async () => {
				const client = await RawClient.open(broker, version);
				client.sendConnect({ username });
				await client.expect("connack", { returnCode, sessionPresent: false });
				await client.expectClosed();
			});
		}

		test(`${name}: a refusal without a return code closes without CONNACK [v3 MQTT-3.2.2-6]`, async () => {
			for (const username of ["unspeakable", "later-unspeakable"]) {
				const client = await RawClient.open(broker, version);
				client.sendConnect({ username });
				await client.expectClosed();
			}
		});

		test(`${name}: what follows a refused CONNECT is not processed, and its will is not published [v3 MQTT-3.1.4-5]`, async () => {
			const topic = freshId("topic");
			const watcher = await RawClient.connect(broker, { version });
			await watcher.subscribe(topic);
			for (const username of ["unauthorized", "later-unauthorized"]) {
				const client = await RawClient.open(broker, version);
				client.sendConnect({ username, will: { topic, payload: "will", qos: 0, retain: false } });
				client.publish(topic, "smuggled");
				client.publish(topic, "smuggled", { qos: 1, messageId: 1 });
				await client.expect("connack", { returnCode: 5 });
				await client.expectClosed();
			}
			const honest = await RawClient.connect(broker, { version });
			honest.publish(topic, "honest");
			await watcher.expect("publish", { payload: "honest" });
			await watcher.expectNothing();
		});

		test(`${name}: a refused CONNECT answers Session Present 0 and leaves the stored session alone [v3 MQTT-3.2.2-4]`, async () => {
			const clientId = freshId();
			const topic = freshId("topic");
			const owner = await RawClient.connect(broker, { version, clientId, clean: false });
			await owner.subscribe(topic, { qos: 1 });
			await owner.disconnect();
			for (const clean of [false, true]) {
				const thief = await RawClient.open(broker, version);
				thief.sendConnect({ clientId, clean, username: "unauthorized" });
				await thief.expect("connack", { returnCode: 5, sessionPresent: false });
			}
			await broker.shoal.publish(topic, "kept", { qos: 1 });
			const back = await RawClient.connect(broker, { version, clientId, clean: false });
			await back.expect("publish", { payload: "kept" });
		});

		test(`${name}: a refused CONNECT does not end the live connection of its client id`, async () => {
			const clientId = freshId();
			const owner = await RawClient.connect(broker, { version, clientId });
			const thief = await RawClient.open(broker, version);
			thief.sendConnect({ clientId, username: "bad-password" });
			await thief.expect("connack", { returnCode: 4 });
			await owner.expectNothing();
		});

		test(`${name}: a PUBLISH without the right is acknowledged like any other and reaches nobody [v3 MQTT-3.3.5-2]`, async () => {
			const topic = freshId("topic/denied");
			const watcher = await RawClient.connect(broker, { version });
			await watcher.subscribe("topic/#", { qos: 2 });
			const client = await RawClient.connect(broker, { version });
			client.publish(topic, "no");
			await client.publishAcked(topic, "no", { qos: 1 });
			await client.publishAcked(topic, "no", { qos: 2 });
			await client.publishAcked(topic, "no", { qos: 1, retain: true });
			await client.publishAcked("topic/granted", "yes", { qos: 1 });
			await watcher.expect("publish", { topic: "topic/granted" });
			await watcher.expectNothing();
			const late = await RawClient.connect(broker, { version });
			await late.subscribe("topic/#");
			await late.expectNothing();
		});

		test(`${name}: a filter without the right gets 0x80, its neighbours what they asked for [v3 MQTT-3.9.3-1] [v3 MQTT-3.9.3-2]`, async () => {
			const client = await RawClient.connect(broker, { version });
			const subscriptions = ["a/granted", "a/denied", "b/granted"].map((topic, qos) => ({ topic, qos }));
			client.send({ cmd: "subscribe", messageId: 9, subscriptions });
			const { granted } = await client.expect("suback", { messageId: 9 });
			assert.deepEqual(granted, [0, 0x80, 2]);
		});

		test(`${name}: a will without the right is refused with return code 5`, async () => {
			const client = await RawClient.open(broker, version);
			client.sendConnect({ will: { topic: "a/denied", payload: "", qos: 0, retain: false } });
			await client.expect("connack", { returnCode: 5 });
			await client.expectClosed();
		});
	}
});

describe("v3 limits of the store", () => {
	const broker = suiteBroker({ maxRetainedMessages: 1 });

	for (const { version, name } of V3_VERSIONS) {
		test(`${name}: a message that cannot be stored is not acknowledged, the connection is closed [v3 MQTT-4.8.0-2]`, async () => {
			const client = await RawClient.connect(broker, { version });
			const topic = "the only one";
			await client.publishAcked(topic, "kept", { retain: true });
			client.publish(freshId("topic"), "one too many", { qos: 1, messageId: 7, retain: true });
			await client.expectClosed();
			const reader = await RawClient.connect(broker, { version });
			await reader.subscribe("#");
			await reader.expect("publish", { topic, payload: "kept" });
			await reader.expectNothing();
		});
	}
});
