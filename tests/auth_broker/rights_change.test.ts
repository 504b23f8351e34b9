// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.

/** Rights that are taken back while a client has them (FAULTS 59–61): live, queued, in flight, half published, and in the moment of a decision. */

import assert from "node:assert/strict";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import type { Access, Authorizer } from "../../src/shoal.ts";
import { granted, knock, login, SECRET, token } from "../support/auth_clients.ts";
import { eventually } from "../support/eventually.ts";
import { json, startJsonServer } from "../support/jwks_server.ts";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { createFolder, suiteCleanup } from "../support/server_process.ts";
import { startBroker, type TestBroker } from "../support/test_broker.ts";

const NOT_AUTHORIZED = 0x87;
/** What FAULTS 59 allows. */
const LATE_MS = 2000;

const session = { clean: false, properties: { sessionExpiryInterval: 300 } };

/** A token without rights of its own: the rule file alone decides. */
const plainToken = (): Promise<string> => token({ acl: undefined });

/** Takes that many messages and all that belongs to their acknowledgement; answers the payloads. */
async function takeAll(client: RawClient, count: number): Promise<string[]> {
	const payloads: string[] = [];
	let open = 0;
	while (payloads.length < count || open > 0) {
		const { cmd, payload, qos, messageId } = await client.receive();
		if (cmd === "publish") {
			payloads.push(payload.toString());
			client.send({ cmd: qos === 1 ? "puback" : "pubrec", messageId });
			if (qos === 2) open++;
		} else {
			assert.equal(cmd, "pubrel");
			client.send({ cmd: "pubcomp", messageId });
			open--;
		}
	}
	return payloads;
}

describe("a rule file that changes", () => {
	const t = suiteCleanup();
	const ADMIN = '- { permission: allow, action: all, topics: ["#"], clientIds: ["admin*"] }';
	let file: string;
	let broker: TestBroker;

	/** Replaces the file by one with these rules, as a deployment would. */
	function write(...rules: string[]): void {
		writeFileSync(`${file}.new`, `rules:\n${[ADMIN, ...rules].map((rule) => `  ${rule}\n`).join("")}`);
		renameSync(`${file}.new`, file);
	}

	const allow = (action: string, ...topics: string[]) => `- { permission: allow, action: ${action}, topics: ${JSON.stringify(topics)} }`;

	/** Waits until the rules have this effect on somebody who can publish to `probe` before and after, or not. */
	async function inForce(probe: string, allowed: boolean): Promise<void> {
		const client = await connect();
		let code = allowed ? NOT_AUTHORIZED : 0;
		for (const until = Date.now() + 5000; Date.now() < until && code < 0x80 !== allowed; ) {
			code = (await client.publishAcked(probe, "")).reasonCode ?? 0;
		}
		assert.equal(code < 0x80, allowed, `${probe} in force`);
		await client.disconnect();
	}

	const connect = async (options: AnyPacket = {}) => login(broker, { token: await plainToken(), ...options });
	const admin = () => connect({ clientId: freshId("admin") });

	before(async () => {
		file = join(createFolder(t), "rules.yaml");
		write(allow("all", "a/#", "b/#"), allow("publish", "probe/0"));
		broker = await startBroker(t, { jwtSecret: SECRET, aclFile: file });
	});

	it("faults 59 to 61: what is taken back is neither delivered, nor queued, nor sent again, nor published, live or after a reconnect; the rest goes on", async () => {
		const publisher = await admin();
		const [a, b] = [freshId("a"), freshId("b")];
		const both = async (payload: string, qos = 1): Promise<void> => {
			await publisher.publishAcked(`a/${a}`, `a ${payload}`, { qos });
			await publisher.publishAcked(`b/${b}`, `b ${payload}`, { qos });
		};
		const subscribed = async (options: AnyPacket = {}): Promise<{ client: RawClient; clientId: string; options: AnyPacket }> => {
			const clientId = freshId();
			const client = await connect({ clientId, ...options });
			assert.deepEqual(granted(await client.subscribe(`a/${a}`, { qos: 2 })), [2]);
			assert.deepEqual(granted(await client.subscribe(`b/${b}`, { qos: 2 })), [2]);
			return { client, clientId, options };
		};
		const [live, live3, inflight, offline, bystander] = [
			await subscribed(session),
			await subscribed({ version: 4, clean: false }),
			await subscribed(session),
			await subscribed(session),
			await admin(),
		];
		await bystander.subscribe(`a/${a}`);
		// Fault 61: a QoS 2 publication of which only the first half is done.
		const halfId = freshId();
		const half = await connect({ clientId: halfId, ...session });
		half.publish(`a/${a}`, "half", { qos: 2, messageId: 7 });
		await half.expect("pubrec", { messageId: 7, reasonCode: 0 });
		await half.destroy();
		await bystander.expect("publish", { payload: "half" });
		for (const { client } of [live, live3, inflight, offline]) {
			assert.deepEqual(await takeAll(client, 1), ["half"]);
		}
		await offline.client.disconnect();
		for (const { client } of [live, live3]) await client.expectNothing();

		// In flight: QoS 1 and 2 of both, none acknowledged. The offline one has them queued.
		for (const qos of [1, 2]) await both(`before, QoS ${qos}`, qos);
		for (const { client } of [inflight, live, live3]) {
			for (let n = 0; n < 4; n++) await client.expect("publish");
		}
		for (let n = 0; n < 2; n++) await bystander.expect("publish");
		await inflight.client.destroy();

		const from = Date.now();
		write(allow("all", "b/#"), allow("publish", "probe/1"));
		await live.client.expectDisconnect(NOT_AUTHORIZED);
		await live3.client.expectClosed();
		assert.ok(Date.now() - from <= LATE_MS, `${Date.now() - from} ms`);
		await inForce("probe/1", true);
		await both("after");
		await bystander.expect("publish", { payload: "a after" });

		for (const { clientId, options } of [live, live3, inflight, offline]) {
			const client = await connect({ clientId, ...options });
			assert.equal(client.connack.sessionPresent, true);
			assert.deepEqual(await takeAll(client, 3), ["b before, QoS 1", "b before, QoS 2", "b after"]);
			await client.expectNothing();
			await client.disconnect();
		}

		const again = await connect({ clientId: halfId, ...session });
		again.publish(`a/${a}`, "half", { qos: 2, messageId: 7, dup: true });
		await again.expect("pubrec", { messageId: 7 });
		again.send({ cmd: "pubrel", messageId: 7 });
		await again.expect("pubcomp", { messageId: 7 });
		again.publish(`a/${a}`, "another", { qos: 2, messageId: 7 });
		await again.expect("pubrec", { messageId: 7, reasonCode: NOT_AUTHORIZED });
		await bystander.expectNothing();

		// What comes back is not what was taken: it has to be subscribed to again.
		write(allow("all", "a/#", "b/#"), allow("publish", "probe/2"));
		await inForce("probe/2", true);
		const back = await connect({ clientId: live.clientId, ...session });
		await publisher.publishAcked(`a/${a}`, "much later");
		await back.expectNothing();
		for (const client of [back, again, bystander, publisher]) await client.disconnect();
	});

	it("fault 57: a will to a topic that is taken back from a connected client is not published", async () => {
		write(allow("all", "will/#"), allow("publish", "probe/3"));
		await inForce("probe/3", true);
		const topic = `will/${freshId()}`;
		const watcher = await admin();
		await watcher.subscribe(topic);
		const will = { topic, payload: "no", qos: 0, retain: false };
		const clients = [await connect({ will }), await connect({ version: 4, will })];
		write(allow("publish", "probe/4"));
		await inForce("probe/4", true);
		for (const client of clients) await client.receiveUntilClosed();
		await watcher.expectNothing();
		await watcher.disconnect();
	});

	it("a will that waits for its delay already was judged by the rules of its time: it is published whatever rules there are by now", async () => {
		write(allow("all", "will/#"), allow("publish", "probe/7"));
		await inForce("probe/7", true);
		const topic = `will/${freshId()}`;
		const watcher = await admin();
		await watcher.subscribe(topic);
		const will = { topic, payload: "", qos: 0, retain: false, properties: { willDelayInterval: 2 } };
		await (await connect({ ...session, will })).destroy();
		write(allow("publish", "probe/8"));
		await inForce("probe/8", true);
		await watcher.expect("publish", { topic });
		await watcher.disconnect();
	});
});

/** Answers when the test says so. Everything is allowed until a test wants to be asked. */
class Slow implements Authorizer {
	generation = 0;
	readonly volatile = true;
	asks = false;
	readonly open: { readonly access: Access; answer(yes: boolean): void }[] = [];
	/** For whoever is not kept waiting. */
	allowed = true;
	readonly #listeners = new Set<() => void>();

	permits(_principal: unknown, _clientId: string, access: Access): boolean | Promise<boolean> {
		if (!this.asks) return this.allowed;
		return new Promise((resolve) => this.open.push({ access, answer: resolve }));
	}

	onChange(listener: () => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	/** From now on nothing is allowed; questions that are open are answered as they were asked: before. */
	revoke(): void {
		this.asks = false;
		this.allowed = false;
		this.generation++;
		for (const listener of this.#listeners) listener();
		for (const { answer } of this.open.splice(0)) answer(true);
	}

	reset(): void {
		this.allowed = true;
		this.asks = false;
	}
}

describe("rights that are taken back while they are being judged", () => {
	const t = suiteCleanup();
	const slow = new Slow();
	let broker: TestBroker;

	before(async () => {
		broker = await startBroker(t, {}, { authorizer: slow });
	});

	it("fault 59: those of a session that is being resumed", async () => {
		slow.reset();
		const [clientId, topic] = [freshId(), freshId("topic")];
		const client = await RawClient.connect(broker, { clientId, ...session });
		await client.subscribe(topic, { qos: 1 });
		await client.disconnect();
		slow.asks = true;
		const back = await RawClient.open(broker);
		back.sendConnect({ clientId, ...session });
		await eventually("the subscription is judged", () => slow.open.length > 0);
		slow.revoke();
		await back.expect("connack", { reasonCode: 0, sessionPresent: true });
		await broker.shoal.publish(topic, "no", { qos: 1 });
		await back.expectNothing();
		await back.disconnect();
	});

	it("fault 59: those of a subscription that is being made", async () => {
		slow.reset();
		const topic = freshId("topic");
		const client = await RawClient.connect(broker);
		slow.asks = true;
		client.send({ cmd: "subscribe", messageId: 9, subscriptions: [{ topic, qos: 1 }] });
		await eventually("the subscription is judged", () => slow.open.length > 0);
		slow.revoke();
		await client.expect("suback", { granted: [NOT_AUTHORIZED] });
		await broker.shoal.publish(topic, "no", { qos: 1 });
		await client.expectNothing();
		await client.disconnect();
	});

	it("fault 61: that of a publication", async () => {
		slow.reset();
		const topic = freshId("topic");
		const heard: string[] = [];
		const local = await broker.shoal.subscribe(topic, ({ payload }) => void heard.push(Buffer.from(payload).toString()));
		const client = await RawClient.connect(broker);
		slow.asks = true;
		for (const messageId of [1, 2]) client.publish(topic, `${messageId}`, { qos: 1, messageId });
		await eventually("the publication is judged", () => slow.open.length > 0);
		slow.revoke();
		await client.expect("puback", { messageId: 1 });
		// The first was judged before; whatever waited behind it is judged now.
		await client.expect("puback", { messageId: 2, reasonCode: NOT_AUTHORIZED });
		assert.ok(heard.every((payload) => payload === "1"));
		local.close();
	});
});

describe("a ban that comes while a CONNECT is being judged", () => {
	it("fault 44: the client is not let in, or sent away at once", async (t) => {
		const adminToken = "a-token-of-operators";
		const hook = await startJsonServer(t);
		let answer = () => {};
		const asked = new Promise<void>((resolve) => {
			hook.answer = (request, response) => {
				answer = () => json({ result: "allow" })(request, response);
				resolve();
			};
		});
		const own = await startBroker(t, { jwtSecret: SECRET, adminToken, aclHttpUrl: hook.url });
		const clientId = freshId();
		const will = { topic: "a", payload: "x", qos: 0, retain: false };
		const client = await knock(own, { clientId, will, token: await plainToken() });
		await asked;
		const response = await fetch(`http://127.0.0.1:${own.wsPort}/api/v1/bans/clientId/${clientId}`, {
			method: "PUT",
			headers: { authorization: `Bearer ${adminToken}`, "content-type": "application/json" },
			body: "{}",
		});
		assert.equal(response.status, 200);
		await response.text();
		answer();
		const packets = await client.receiveUntilClosed();
		assert.ok(packets.at(-1)?.reasonCode >= 0x80, JSON.stringify(packets));
	});
});
