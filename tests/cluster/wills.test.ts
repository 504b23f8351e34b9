/**
 * P7: wills fire once, also when the replica that held their connections has died, and two others are there to do it: after
 * their delay, and neither for a client that is back in time on another replica nor after DISCONNECT.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Collector } from "../support/collector.ts";
import { type AnyPacket, type ConnectOptions, freshId, RawClient } from "../support/raw_client.ts";
import { MIXED, suiteReplicas, THREE } from "../support/replicas.ts";
import { durable, freshTopic, numbers } from "../support/traffic.ts";

const RUN_MS = 60_000;
const LEASE_SECONDS = 3;
const DELAY_SECONDS = 2;
const NORMAL_DISCONNECTION = 0;

interface Group {
	readonly name: string;
	readonly count: number;
	readonly delaySeconds: number;
	/** Times that each of its wills is to fire. */
	readonly fires: 0 | 1;
}

/** A thousand clients of one replica. */
const GROUPS: readonly Group[] = [
	{ name: "sudden", count: 600, delaySeconds: 0, fires: 1 },
	{ name: "persistent", count: 150, delaySeconds: 0, fires: 1 },
	{ name: "delayed", count: 150, delaySeconds: DELAY_SECONDS, fires: 1 },
	{ name: "back in time", count: 50, delaySeconds: DELAY_SECONDS, fires: 0 },
	{ name: "disconnected", count: 50, delaySeconds: 0, fires: 0 },
];

describe("wills of a killed replica, among replicas on both runtimes", () => {
	const replicas = suiteReplicas({ runtimes: MIXED, env: { REPLICA_LEASE_SECONDS: `${LEASE_SECONDS}` } });

	it("of a thousand clients of a killed replica each fires once, whoever finds it", { timeout: RUN_MS }, async () => {
		const { a, b, c } = replicas();
		const base = freshTopic();
		const watchers = await Promise.all([b, c].map((replica) => Collector.connect(replica)));
		for (const watcher of watchers) await watcher.subscribe(`${base}/#`, { qos: 1 });
		const sessions = GROUPS.flatMap((group) =>
			numbers(group.count).map((number) => {
				const properties: AnyPacket = { willDelayInterval: group.delaySeconds };
				const will = { topic: `${base}/${group.name}/${number}`, payload: group.name, qos: 1, retain: false, properties };
				const kind = group.name === "sudden" || group.name === "disconnected" ? { clientId: freshId() } : durable();
				return { group, topic: will.topic, options: { ...kind, will } satisfies ConnectOptions };
			}),
		);
		const clients = await Promise.all(sessions.map(({ options }) => RawClient.connect(a, options)));
		const leaving = clients.filter((_, index) => sessions[index]?.group.name === "disconnected");
		await Promise.all(leaving.map((client) => client.disconnect({ reasonCode: NORMAL_DISCONNECTION })));
		const killedAt = Date.now();
		await a.kill();
		const returning = sessions.filter(({ group }) => group.name === "back in time");
		const returned = await Promise.all(
			returning.map(({ options }, index) => RawClient.connect(index % 2 === 0 ? b : c, { ...durable(options.clientId) })),
		);
		for (const client of returned) assert.equal(client.connack.sessionPresent, true);

		const expected = sessions.filter(({ group }) => group.fires === 1).map(({ topic }) => topic);
		const delayed = (watcher: Collector) => watcher.messages.some(({ text }) => text === "delayed");
		await watchers[0]?.wait("a delayed will", () => watchers.some(delayed));
		assert.ok(Date.now() >= killedAt + DELAY_SECONDS * 1000, "a delayed will waits");
		for (const watcher of watchers) await watcher.until(expected.length);
		// For those that would fire twice, or should not.
		await sleep(1500);
		for (const watcher of watchers) {
			const topics = watcher.messages.map(({ topic }) => topic);
			assert.deepEqual(topics.toSorted(), expected.toSorted());
		}
		for (const client of returned) await client.expectNothing();
		await Promise.all([...clients, ...returned].map((client) => client.destroy()));
		await Promise.all([a.restart(), ...watchers.map((watcher) => watcher.destroy())]);
	});
});

describe("wills among three replicas", () => {
	const replicas = suiteReplicas({ runtimes: THREE, env: { REPLICA_LEASE_SECONDS: `${LEASE_SECONDS}` } });

	it("that wait for their delay when their replica is killed fire once all the same", { timeout: RUN_MS }, async () => {
		const { a, b, c } = replicas();
		const base = freshTopic();
		const watcher = await Collector.connect(a);
		await watcher.subscribe(`${base}/#`, { qos: 2 });
		const clients = await Promise.all(
			numbers(20).map((payload) => {
				const properties = { willDelayInterval: DELAY_SECONDS };
				return RawClient.connect(b, { ...durable(), will: { topic: `${base}/${payload}`, payload, qos: 2, retain: true, properties } });
			}),
		);
		await Promise.all(clients.map((client) => client.destroy()));
		await sleep(DELAY_SECONDS * 250);
		await b.kill();
		await watcher.until(20);
		await sleep(1000);
		assert.deepEqual(watcher.texts().toSorted(), numbers(20).toSorted());
		// They are retained, as they said.
		const late = await Collector.connect(c);
		await late.subscribe(`${base}/#`, { qos: 1 });
		await late.until(20);
		assert.deepEqual(late.texts().toSorted(), numbers(20).toSorted());
		await Promise.all([b.restart(), watcher.destroy(), late.destroy()]);
	});

	it("of clients that a leaving replica sends away do not fire when they are back in time", { timeout: RUN_MS }, async () => {
		const { a, b, c } = replicas();
		const base = freshTopic();
		const watcher = await Collector.connect(a);
		await watcher.subscribe(`${base}/#`, { qos: 1 });
		const sessions = numbers(20).map((payload) => {
			const properties = { willDelayInterval: DELAY_SECONDS };
			return { ...durable(), will: { topic: `${base}/${payload}`, payload, qos: 1, retain: false, properties } };
		});
		const clients = await Promise.all(sessions.map((options) => RawClient.connect(b, options)));
		const gone = b.kill("SIGTERM");
		await Promise.all(clients.map((client) => client.receiveUntilClosed()));
		// One stays away.
		const [, ...returning] = sessions;
		const returned = await Promise.all(returning.map((options) => RawClient.connect(c, options)));
		await gone;
		await watcher.until(1);
		await sleep(1000);
		assert.deepEqual(watcher.texts(), ["0"]);
		await Promise.all([b.restart(), watcher.leave(), ...returned.map((client) => client.disconnect())]);
	});
});
