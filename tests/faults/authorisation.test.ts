// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.

/** What clients get that reach for more than was granted: each fault by the packet that answers it. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type AccessHook, createAuthorizer, type RuleSource } from "../../src/auth/authorizer.ts";
import type { Rule } from "../../src/auth/grants.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";

const RULES: readonly Rule[] = [
	{ permission: "allow", action: "all", topics: ["#"], clientIds: ["admin*"] },
	{ permission: "deny", action: "all", topics: ["hall/secret/#"] },
	{ permission: "allow", action: "publish", topics: ["hall/+"], retain: false },
	{ permission: "allow", action: "subscribe", topics: ["hall/+", "hall/secret"] },
	{ permission: "allow", action: "all", topics: ["own/${clientid}/#"] },
	{ permission: "allow", action: "all", topics: ["slow/#"], qos: [0] },
];
const NOT_AUTHORIZED = 0x87;

class Rules implements RuleSource {
	rules = RULES;
	readonly #listeners = new Set<() => void>();
	onChange(listener: () => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}
	change(rules: readonly Rule[]): void {
		this.rules = rules;
		for (const listener of this.#listeners) listener();
	}
}

const codes = (suback: AnyPacket): number[] => [...(suback.granted ?? suback.reasonCodes)];

for (const [version, transport] of [
	[5, "ws"],
	[5, "tcp"],
	[4, "ws"],
	[4, "tcp"],
] as const) {
	describe(`authorisation, MQTT level ${version} over ${transport}`, () => {
		const source = new Rules();
		const broker = suiteBroker({}, { authorizer: createAuthorizer({ sources: [source] }) });
		const connect = (options: { clientId?: string; will?: AnyPacket } = {}) =>
			RawClient.connect(broker, { version, transport, ...options });
		const admin = () => RawClient.connect(broker, { clientId: freshId("admin") });
		const refusedCode = version === 5 ? NOT_AUTHORIZED : 0x80;

		for (const filter of ["#", "+/+", "hall/#", "hall", "+/secret", "own/#", "own/+/x", "$SYS/#", "hall/secret", "hall/secret/+"]) {
			test(`fault 51: the filter ${filter} is wider than any grant or touches a denial`, async () => {
				const client = await connect();
				assert.deepEqual(codes(await client.subscribe(filter)), [refusedCode]);
			});
		}

		test("fault 51: a filter within a grant is subscribed to, and nothing else comes", async () => {
			const client = await connect();
			const clientId = freshId();
			const own = await connect({ clientId });
			assert.deepEqual(codes(await own.subscribe(`own/${clientId}/+/x`, { qos: 1 })), [1]);
			assert.deepEqual(codes(await client.subscribe(`own/${clientId}/+/x`)), [refusedCode]);
			await broker.shoal.publish(`own/${clientId}/a/x`, "mine");
			await own.expect("publish", { payload: "mine" });
			await client.expectNothing();
		});

		test("fault 52: a shared subscription is judged by the filter inside", async () => {
			const client = await connect();
			for (const filter of ["hall/secret", "hall/#", "#", "$SYS/#"]) {
				assert.deepEqual(codes(await client.subscribe(`$share/g/${filter}`)), [refusedCode], filter);
			}
			assert.deepEqual(codes(await client.subscribe(`$share/g/own/${freshId()}/#`)), [refusedCode]);
			await broker.shoal.publish("hall/secret", "no");
			await client.expectNothing();
		});

		test("fault 53: each filter of one SUBSCRIBE is judged", async () => {
			const client = await connect({ clientId: "entries" });
			const subscriptions = ["own/entries/a", "hall/secret", "own/entries/b", "slow/a"].map((topic) => ({
				topic,
				qos: 1,
				nl: false,
				rap: false,
				rh: 0,
			}));
			client.send({ cmd: "subscribe", messageId: 7, subscriptions });
			assert.deepEqual(codes(await client.expect("suback", { messageId: 7 })), [1, refusedCode, 1, refusedCode]);
			await broker.shoal.publish("hall/secret", "no");
			await broker.shoal.publish("own/entries/b", "yes");
			await client.expect("publish", { payload: "yes" });
			await client.expectNothing();
		});

		test("fault 54: a refused subscription gets no retained message", async () => {
			const topic = `hall/secret/${freshId()}`;
			const writer = await admin();
			await writer.publishAcked(topic, "kept", { retain: true });
			const client = await connect();
			assert.deepEqual(codes(await client.subscribe(topic)), [refusedCode]);
			await client.expectNothing();
			await writer.publishAcked(topic, "", { retain: true });
		});

		for (const [what, topic, fields] of [
			["a denied topic", "hall/secret/x", {}],
			["a topic without a grant", "cellar", {}],
			["another client's topic", "own/other/x", {}],
			["fault 62: a topic of the broker", "$SYS/broker/x", {}],
			["fault 62: a reserved topic", "$CONTROL/dynamic-security/v1", {}],
			["a retained message where these are not granted", "hall/x", { retain: true }],
			["a QoS that is not granted", "slow/x", { qos: 1 }],
		] as const) {
			test(`a publication to ${what} reaches nobody`, async () => {
				const watcher = await admin();
				await watcher.subscribe("#");
				const client = await connect();
				const { cmd, reasonCode } = await client.publishAcked(topic, "no", { qos: 1, ...fields });
				assert.equal(cmd, "puback");
				if (version === 5) assert.equal(reasonCode, NOT_AUTHORIZED);
				await watcher.expectNothing();
			});
		}

		test("fault 56: a CONNECT whose will may not be published is refused, and the will is not", async () => {
			const watcher = await admin();
			await watcher.subscribe("#");
			for (const will of [
				{ topic: "hall/secret", payload: "gone", qos: 0, retain: false },
				{ topic: "hall/x", payload: "gone", qos: 0, retain: true },
				{ topic: "cellar", payload: "gone", qos: 0, retain: false },
			]) {
				const client = await RawClient.open(broker, version, transport);
				client.sendConnect({ version, will });
				await client.expect("connack", version === 5 ? { reasonCode: NOT_AUTHORIZED } : { returnCode: 5 });
				await client.expectClosed();
			}
			await watcher.expectNothing();
			const client = await connect({ will: { topic: "hall/x", payload: "gone", qos: 0, retain: false } });
			await client.destroy();
			await watcher.expect("publish", { topic: "hall/x", payload: "gone" });
		});

		test("fault 62: who subscribes to # sees nothing that begins with $", async () => {
			const watcher = await admin();
			assert.deepEqual(codes(await watcher.subscribe("#")), [0]);
			assert.deepEqual(codes(await watcher.subscribe("$SYS/#")), [NOT_AUTHORIZED]);
			await watcher.expectNothing();
		});

		test("fault 61: a change of the rules counts for the next publication", async () => {
			const watcher = await admin();
			await watcher.subscribe("hall/+");
			const client = await connect();
			client.publish("hall/x", "before");
			await watcher.expect("publish", { payload: "before" });
			source.change(RULES.filter(({ clientIds }) => clientIds !== undefined));
			client.publish("hall/x", "after");
			await client.expectNothing();
			source.change(RULES);
			client.publish("hall/x", "again");
			await watcher.expect("publish", { payload: "again" });
		});
	});
}

describe("authorisation by a hook that fails", () => {
	const failing: AccessHook = {
		decide: () => {
			throw new Error("the service is away");
		},
		onChange: () => () => {},
	};
	const rejecting: AccessHook = { ...failing, decide: () => Promise.reject(new Error("the service is away")) };

	for (const [what, hook] of [
		["throws", failing],
		["rejects", rejecting],
	] as const) {
		describe(what, () => {
			const broker = suiteBroker({}, { authorizer: createAuthorizer({ hook, defaultDecision: "allow" }) });

			test("fault 45: nothing is published or subscribed to", async () => {
				const client = await RawClient.connect(broker);
				assert.deepEqual(codes(await client.subscribe("a")), [NOT_AUTHORIZED]);
				assert.equal((await client.publishAcked("a", "x")).reasonCode, NOT_AUTHORIZED);
			});

			test("fault 45: a CONNECT with a will is refused", async () => {
				const client = await RawClient.open(broker);
				client.sendConnect({ will: { topic: "a", payload: "gone", qos: 0, retain: false } });
				await client.expect("connack", { reasonCode: 0x88 });
				await client.expectClosed();
			});
		});
	}
});
