/**
 * Tenants share a broker without seeing each other: the same topics, client ids, sessions, groups and wills in two tenants and
 * in none, on one broker and on two replicas of one.
 */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { AnyPacket, RawClient } from "../support/raw_client.ts";
import { freshId } from "../support/raw_client.ts";
import { suiteReplicas } from "../support/replicas.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { member, type Places, SPACES, subscribes, TENANTS, TENANTS_ENV, type Tenant, takes } from "../support/tenants.ts";
import { startBroker } from "../support/test_broker.ts";

const TAKEN_OVER = 0x8e;
const NO_SUBSCRIPTION = 0x11;
const QOS = [0, 1, 2] as const;
const VERSIONS = [4, 5] as const;

/** A client of each space. */
async function oneOfEach(connect: (tenant: Tenant) => Promise<RawClient>): Promise<ReadonlyMap<Tenant, RawClient>> {
	const clients = new Map<Tenant, RawClient>();
	for (const tenant of SPACES) clients.set(tenant, await connect(tenant));
	return clients;
}

const payloadOf = (tenant: Tenant, more = ""): string => `of ${tenant ?? "none"}${more}`;

/** What makes a session outlive its connection. */
const lasting = (version: 4 | 5): AnyPacket => ({ clean: false, ...(version === 5 && { properties: { sessionExpiryInterval: 600 } }) });

function behaviour(places: () => Places): void {
	for (const version of VERSIONS) {
		const connect = (place: Places["a"], options: AnyPacket = {}) => {
			return (tenant: Tenant) => member(place, tenant, { version, ...options });
		};

		it(`v${version}: tenants that use one topic name get their own messages only, by that name, with every QoS and filter`, async () => {
			const { a, b } = places();
			const topic = `${freshId("site")}/temperature`;
			const publishers = await oneOfEach(connect(a));
			for (const filter of [topic, "#", `+/temperature`, `${topic}/#`]) {
				const subscribers = await oneOfEach(connect(b));
				for (const client of subscribers.values()) await subscribes(client, filter, 2);
				for (const qos of QOS) {
					for (const [tenant, publisher] of publishers) {
						if (qos === 0) publisher.publish(topic, payloadOf(tenant));
						else await publisher.publishAcked(topic, payloadOf(tenant), { qos });
					}
					// A foreign message would come before the client's own: those of QoS ≥ 1 were sent one after the other.
					for (const [tenant, client] of subscribers) await takes(client, topic, payloadOf(tenant), { qos });
				}
				for (const client of subscribers.values()) await client.expectNothing();
				for (const client of subscribers.values()) await client.disconnect();
			}
		});

		it(`v${version}: a client id in two tenants is two clients, and a newer connection ends that of its own tenant alone`, async () => {
			const { a, b } = places();
			const clientId = freshId();
			const first = await oneOfEach(connect(a, { clientId }));
			for (const client of first.values()) await client.expectNothing();
			for (const tenant of SPACES) {
				const second = await member(b, tenant, { version, clientId });
				await first.get(tenant)?.expectDisconnect(TAKEN_OVER);
				await second.expectNothing();
				for (const other of SPACES.slice(SPACES.indexOf(tenant) + 1)) await first.get(other)?.expectNothing();
			}
		});

		it(`v${version}: each tenant has retained messages of its own, which another one neither reads nor clears`, async () => {
			const { a, b } = places();
			const name = freshId("state");
			const topic = `site/${name}`;
			const publishers = await oneOfEach(connect(a));
			for (const [tenant, client] of publishers) await client.publishAcked(topic, payloadOf(tenant), { retain: true });
			const read = async (expected: readonly Tenant[]): Promise<void> => {
				for (const filter of [topic, `+/${name}`, `${topic}/#`]) {
					for (const tenant of SPACES) {
						const client = await member(b, tenant, { version });
						await subscribes(client, filter);
						if (expected.includes(tenant)) await takes(client, topic, payloadOf(tenant), { retain: true });
						// Whatever else is retained would come before what is published.
						client.publish(topic, "now");
						await takes(client, topic, "now", { retain: false });
						await client.disconnect();
					}
				}
			};
			await read(SPACES);
			await publishers.get("acme")?.publishAcked(topic, "", { retain: true });
			await read(["bolt", undefined]);
			await publishers.get(undefined)?.publishAcked(topic, "", { retain: true });
			await read(["bolt"]);
			await publishers.get("bolt")?.publishAcked(topic, "", { retain: true });
		});

		it(`v${version}: a share group is a tenant's own: each message goes once to a member of its tenant`, async () => {
			const { a, b } = places();
			const topic = `${freshId("jobs")}/new`;
			const filter = `$share/workers/${topic}`;
			const publishers = await oneOfEach(connect(a));
			const members = new Map<Tenant, RawClient[]>();
			for (const tenant of SPACES) {
				const both = await Promise.all([member(a, tenant, { version }), member(b, tenant, { version })]);
				for (const client of both) await subscribes(client, filter);
				members.set(tenant, both);
			}
			for (const qos of [0, 1] as const) {
				for (const number of [1, 2, 3, 4]) {
					for (const [tenant, publisher] of publishers) {
						const payload = payloadOf(tenant, ` ${qos} ${number}`);
						if (qos === 0) publisher.publish(topic, payload);
						else await publisher.publishAcked(topic, payload, { qos });
					}
				}
				for (const [tenant, clients] of members) {
					const expected = [1, 2, 3, 4].map((number) => payloadOf(tenant, ` ${qos} ${number}`));
					assert.deepEqual((await collect(clients, topic, expected.length)).sort(), expected);
				}
			}
		});

		it(`v${version}: a will is published to its own tenant, by the name that the client gave`, async () => {
			const { a, b } = places();
			const topic = `${freshId("site")}/gone`;
			const watchers = await oneOfEach(connect(b));
			for (const client of watchers.values()) await subscribes(client, topic);
			for (const tenant of SPACES) {
				const will = { topic, payload: payloadOf(tenant), qos: 1, retain: true };
				const client = await member(a, tenant, { version, clientId: "dies", will });
				await client.destroy();
				const watcher = watchers.get(tenant) as RawClient;
				await takes(watcher, topic, payloadOf(tenant));
				for (const other of SPACES) if (other !== tenant) await watchers.get(other)?.expectNothing();
				const late = await member(a, tenant, { version });
				await subscribes(late, topic);
				await takes(late, topic, payloadOf(tenant), { retain: true });
				await late.disconnect();
				await (await member(a, tenant, { version })).publishAcked(topic, "", { retain: true });
				await takes(watcher, topic, "");
			}
		});

		it(`v${version}: persistent sessions of one client id in two tenants keep their own messages, and are changed by the client's own names`, async () => {
			const { a, b } = places();
			const clientId = freshId();
			const topic = `${freshId("site")}/stored`;
			const other = freshId("other");
			for (const tenant of SPACES) {
				const client = await member(a, tenant, { version, clientId, ...lasting(version) });
				assert.equal(client.connack.sessionPresent, false);
				await subscribes(client, topic);
				if (tenant !== undefined) await subscribes(client, `${other}/+`);
				await client.disconnect();
			}
			const publishers = await oneOfEach(connect(a));
			for (const [tenant, publisher] of publishers) {
				await publisher.publishAcked(topic, payloadOf(tenant));
				await publisher.publishAcked(`${other}/x`, payloadOf(tenant), { qos: 2 });
			}
			for (const tenant of SPACES) {
				const client = await member(b, tenant, { version, clientId, ...lasting(version) });
				assert.equal(client.connack.sessionPresent, true);
				const messages = await messagesUntilSilence(client, tenant === undefined ? 1 : 2);
				const expected = tenant === undefined ? [topic] : [`${other}/x`, topic];
				assert.deepEqual(messages.map((message) => message.topic).sort(), expected.sort());
				for (const { payload } of messages) assert.equal(`${payload}`, payloadOf(tenant));
				await client.expectNothing();
				const unsubscribe = async () => {
					client.send({ cmd: "unsubscribe", messageId: 9, unsubscriptions: [topic, `${other}/+`] });
					return client.expect("unsuback");
				};
				const codes = (unsuback: AnyPacket) => [...(unsuback.granted ?? [])];
				const gone = await unsubscribe();
				if (version === 5) assert.deepEqual(codes(gone), [0, tenant === undefined ? NO_SUBSCRIPTION : 0]);
				if (version === 5) assert.deepEqual(codes(await unsubscribe()), [NO_SUBSCRIPTION, NO_SUBSCRIPTION]);
				else await unsubscribe();
				await publishers.get(tenant)?.publishAcked(topic, "nobody wants it");
				await client.expectNothing();
				await client.disconnect();
			}
		});
	}

	it("v5: an assigned client id is the client's own name, which it can come back with and others cannot", async () => {
		const { a, b } = places();
		const client = await member(a, "acme", { clientId: "", properties: { sessionExpiryInterval: 600 } });
		const { assignedClientIdentifier } = client.connack.properties;
		assert.match(assignedClientIdentifier, /^shoal-[\w-]+$/);
		const same = { clientId: assignedClientIdentifier, clean: false, properties: { sessionExpiryInterval: 600 } };
		const foreign = await member(b, "bolt", same);
		assert.equal(foreign.connack.sessionPresent, false);
		await client.expectNothing();
		const own = await member(b, "acme", same);
		assert.equal(own.connack.sessionPresent, true);
		await client.expectDisconnect(TAKEN_OVER);
	});

	it("v5: No Local keeps a client's own messages away, and those of another tenant's client with its id were never near [MQTT-3.8.3-3]", async () => {
		const { a } = places();
		const clientId = freshId();
		const topic = freshId("echo");
		const clients = await oneOfEach((tenant) => member(a, tenant, { clientId }));
		for (const client of clients.values()) await subscribes(client, topic, 1, { nl: true });
		for (const client of clients.values()) await client.publishAcked(topic, "mine");
		for (const client of clients.values()) await client.expectNothing();
		const neighbour = await member(a, "acme");
		await neighbour.publishAcked(topic, "next door");
		await takes(clients.get("acme") as RawClient, topic, "next door");
		for (const client of clients.values()) await client.expectNothing();
	});

	it("v5: topic aliases stand for the client's own names in both directions, and response topics are passed on as they are", async () => {
		const { a, b } = places();
		const [one, two] = [freshId("alias"), freshId("alias")];
		const subscriber = await member(b, "acme", { properties: { topicAliasMaximum: 1 } });
		await subscribes(subscriber, one);
		await subscribes(subscriber, two);
		const publisher = await member(a, "acme");
		const properties = { topicAlias: 1, responseTopic: "answers/here" };
		await publisher.publishAcked(one, "1", { properties });
		await publisher.publishAcked("", "2", { properties });
		await publisher.publishAcked(two, "3", { properties });
		await publisher.publishAcked("", "4", { properties });
		const first = await takes(subscriber, one, "1");
		assert.equal(first.properties.topicAlias, 1);
		assert.equal(first.properties.responseTopic, "answers/here");
		assert.equal((await takes(subscriber, "", "2")).properties.topicAlias, 1);
		assert.equal((await takes(subscriber, two, "3")).properties.topicAlias, undefined);
		await takes(subscriber, two, "4");
	});
}

/** All messages until a PINGRESP comes and there are so many. */
async function messagesUntilSilence(client: RawClient, atLeast = 0): Promise<AnyPacket[]> {
	const messages: AnyPacket[] = [];
	let quiet = false;
	while (!quiet || messages.length < atLeast) {
		client.send({ cmd: "pingreq" });
		quiet = true;
		for (let packet = await client.receive(); packet.cmd !== "pingresp"; packet = await client.receive()) {
			quiet = false;
			if (packet.qos === 1) client.send({ cmd: "puback", messageId: packet.messageId });
			messages.push(packet);
		}
	}
	return messages;
}

/** Payloads of so many messages to several clients together, all with this topic. */
async function collect(clients: readonly RawClient[], topic: string, count: number): Promise<string[]> {
	const payloads: string[] = [];
	// Once more than it takes: what comes twice is to be seen.
	for (let complete = false; !complete; ) {
		complete = payloads.length >= count;
		for (const client of clients) {
			for (const message of await messagesUntilSilence(client)) {
				assert.equal(message.topic, topic);
				payloads.push(String(message.payload));
			}
		}
	}
	return payloads;
}

describe("tenants on one broker", () => {
	const broker = suiteBroker(TENANTS);
	behaviour(() => ({ a: broker, b: broker }));

	it("sessions, logs and retained messages of tenants outlive a restart, under the names that clients gave", async (t) => {
		const dataDir = mkdtempSync(join(tmpdir(), "tenants-"));
		t.after(() => rmSync(dataDir, { recursive: true }));
		const settings = { ...TENANTS, store: "sqlite", dataDir } as const;
		const session = { clientId: "lasting", ...lasting(5) };
		const first = await startBroker(t, settings);
		for (const tenant of SPACES) {
			const client = await member(first, tenant, session);
			for (const filter of ["queued/+", "exact", "$share/g/shared"]) await subscribes(client, filter);
			await client.disconnect();
			const publisher = await member(first, tenant);
			for (const topic of ["queued/x", "exact", "shared"]) await publisher.publishAcked(topic, payloadOf(tenant));
			await publisher.publishAcked("state", payloadOf(tenant), { retain: true });
		}
		await first.stop();
		const second = await startBroker(t, settings);
		for (const tenant of SPACES) {
			const client = await member(second, tenant, session);
			assert.equal(client.connack.sessionPresent, true);
			const messages = await messagesUntilSilence(client, 3);
			assert.deepEqual(messages.map(({ topic }) => topic).sort(), ["exact", "queued/x", "shared"]);
			for (const { payload } of messages) assert.equal(`${payload}`, payloadOf(tenant));
			await subscribes(client, "state");
			await takes(client, "state", payloadOf(tenant), { retain: true });
		}
	});

	it("the process itself sees and reaches tenants by the names in the broker", async () => {
		const seen: string[] = [];
		const subscription = await broker.shoal.subscribe("$tenant/acme/#", ({ topic }) => void seen.push(topic.name));
		const client = await member(broker, "acme");
		await subscribes(client, "from/+");
		await client.publishAcked("to/process", "x");
		await broker.shoal.publish("$tenant/acme/from/process", "y", { qos: 1 });
		await takes(client, "from/process", "y");
		subscription.close();
		assert.deepEqual(seen, ["$tenant/acme/to/process", "$tenant/acme/from/process"]);
	});
});

describe("tenants on two replicas", () => {
	const replicas = suiteReplicas({ runtimes: ["own", "own"], env: TENANTS_ENV });
	behaviour(() => ({ a: replicas().a, b: replicas().b }));
});
