/** Parts that a program brings itself, and that fail: nothing is let through, and nobody else notices. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Authenticator, AuthOutcome, Authorizer } from "../../src/shoal.ts";
import { assertServes } from "../support/canary.ts";
import { RawClient } from "../support/raw_client.ts";
import { startBroker } from "../support/test_broker.ts";

const GRANTED: AuthOutcome = { kind: "granted", principal: { name: "", method: "test", expiresAtMs: Number.POSITIVE_INFINITY } };

describe("failing parts", () => {
	it("an authenticator that answers nonsense costs the client its connection, and nobody else theirs", async (t) => {
		const authenticator: Authenticator = {
			authenticate: ({ clientId }) => (clientId === "nonsense" ? (undefined as unknown as AuthOutcome) : GRANTED),
		};
		const broker = await startBroker(t, {}, { authenticator });
		const client = await RawClient.open(broker);
		client.sendConnect({ clientId: "nonsense" });
		await client.expect("connack", { reasonCode: 0x83 });
		await client.expectClosed();
		await assertServes(broker);
	});

	it("an authorizer that throws or rejects has not said yes: PUBACK 0x87 and SUBACK 0x87 (item 45)", async (t) => {
		const authorizer: Authorizer = {
			permits: (_principal, _clientId, access) => {
				const name = access.action === "publish" ? access.topic : access.filter;
				if (name === "throws") throw new Error("no answer");
				return name === "rejects" ? Promise.reject(new Error("no answer")) : true;
			},
		};
		const broker = await startBroker(t, {}, { authorizer });
		const client = await RawClient.connect(broker);
		for (const topic of ["throws", "rejects"]) {
			client.publish(topic, "x", { qos: 1, messageId: 1 });
			await client.expect("puback", { reasonCode: 0x87 });
			assert.deepEqual((await client.subscribe(topic)).granted, [0x87]);
		}
		await assertServes(broker);
	});

	it("a client that floods an authorizer without an answer is cut off with 0x97", async (t) => {
		const authorizer: Authorizer = {
			permits: (_principal, _clientId, access) => (access.action === "publish" && access.topic === "slow" ? new Promise(() => {}) : true),
		};
		const broker = await startBroker(t, { maxPacketSize: 65_536, maxBufferedBytes: 262_144 }, { authorizer });
		const client = await RawClient.connect(broker);
		for (let i = 0; i < 10; i++) client.publish("slow", Buffer.alloc(60_000));
		await client.expectDisconnect(0x97);
		await assertServes(broker);
	});
});
