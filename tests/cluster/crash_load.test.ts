/**
 * Replicas that are killed, frozen and started again under load, with clients that come back anywhere, and then the judgement
 * of all that the clients saw. `KILLS` says how many faults; the figures of each run are printed.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { HistoryEvent } from "../support/history.ts";
import { LoadPublisher, LoadSubscriber, type SubscriberOptions } from "../support/load_client.ts";
import { acknowledged, anyOf, drained, roaming, until } from "../support/load_run.ts";
import { MIXED, type Replica, startReplicas, THREE } from "../support/replicas.ts";

const KILLS = Number(process.env.KILLS ?? 4);
/** Of the whole run. */
const RUN_MS = 60 * 60_000;
const PUBLISH_EVERY_MS = 10;
const PUBLISH_AT_ONCE = 3;
const LEASE_SECONDS = 3;

const PUBLISHERS = [
	{ pattern: [1], window: 20 },
	{ pattern: [2], window: 20 },
	{ pattern: [1, 2], window: 100 },
	{ pattern: [2, 2, 1], window: 5 },
] as const;

/** Every other one of them speaks MQTT 5, the first one too. */
const SUBSCRIBERS: readonly SubscriberOptions[] = [
	{ filter: "load/#", qos: 2, ackDelayMs: 0 },
	{ filter: "load/#", qos: 1, ackDelayMs: 0 },
	{ filter: "load/+/1", qos: 2, ackDelayMs: 100 },
	{ filter: "load/publisher-2/0", qos: 1, ackDelayMs: 20 },
	{ filter: "load/#", qos: 2, ackDelayMs: 2, receiveMaximum: 10 },
	{ filter: "load/publisher-2/#", qos: 2, ackDelayMs: 20 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 10 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 50 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 5 },
];
/** Subscribe while the load is on. */
const LATE: readonly SubscriberOptions[] = [
	{ filter: "load/#", qos: 2, ackDelayMs: 5 },
	{ filter: "load/+/2", qos: 1, ackDelayMs: 5 },
];

/** Does something to a replica and undoes it. Answers what it was. `onDead` is called when its connections may count as over. */
async function strike(replica: Replica, onDead: () => void): Promise<string> {
	const chance = Math.random();
	onDead();
	if (chance < 0.3) {
		replica.freeze();
		await sleep(500);
		// Those whose CONNACK was on its way as well.
		onDead();
		// Some for longer than the lease.
		if (chance < 0.15) await sleep(LEASE_SECONDS * 1000);
		replica.thaw();
		return "SIGSTOP";
	}
	const signal = chance < 0.8 ? "SIGKILL" : "SIGTERM";
	await replica.kill(signal);
	if (chance < 0.5) await sleep(Math.random() * 1500);
	await replica.restart();
	return signal;
}

for (const [composition, runtimes, kills] of [
	["three replicas", THREE, KILLS],
	["replicas on both runtimes", MIXED, Math.ceil(KILLS / 2)],
] as const) {
	const title = `${composition} that are killed and frozen under load: no acknowledged message is lost, QoS 2 comes once, and order is kept`;
	it(title, { timeout: RUN_MS }, async (t) => {
		const env = { REPLICA_LEASE_SECONDS: `${LEASE_SECONDS}`, LOG_MAX_MESSAGES: "10000000" };
		const { all } = await startReplicas(t, { runtimes, env });
		const events: HistoryEvent[] = [];
		/** Client id → the replica that it last connected to. */
		const places = new Map<string, Replica>();
		const options = (clientId: string, index: number) => {
			const choose = () => {
				const replica = anyOf(all);
				places.set(clientId, replica);
				return replica;
			};
			return roaming(choose, { clientId, events, version: index % 2 === 0 ? 5 : 4, transport: index % 3 === 0 ? "tcp" : "ws" });
		};
		/** The replicas may know before the clients do that their connections are over: what they hold may come again from now on. */
		const declareOver = (isMeant: (clientId: string) => boolean) => {
			for (const client of [...places.keys()].filter(isMeant)) {
				const connection = events.filter((event) => event.kind === "connected" && event.client === client).length;
				events.push({ kind: "closed", client, connection });
			}
		};
		const publishers = PUBLISHERS.map((each, index) => new LoadPublisher(options(`publisher-${index}`, index), each));
		const [subscribers, late] = [SUBSCRIBERS, LATE].map((list, group) =>
			list.map((each, index) => new LoadSubscriber(options(`subscriber-${group}-${index}`, index), each)),
		) as [LoadSubscriber[], LoadSubscriber[]];
		const clients = [...publishers, ...subscribers, ...late];
		t.after(() => Promise.all(clients.map((client) => client.stop())).then(() => {}));
		for (const client of [...publishers, ...subscribers]) client.start();
		await until("all have subscribed", () => subscribers.every((subscriber) => subscriber.subscribed));
		const load = setInterval(() => {
			for (const publisher of publishers) publisher.publish(PUBLISH_AT_ONCE);
		}, PUBLISH_EVERY_MS);
		t.after(() => clearInterval(load));

		const faults = new Map<string, number>();
		for (let fault = 0; fault < kills; fault++) {
			await sleep(Math.random() < 0.3 ? Math.random() * 60 : 100 + Math.random() * 500);
			if (fault === Math.floor(kills / 2)) for (const subscriber of late) subscriber.start();
			const [cut, sleeper] = [anyOf([...subscribers.keys()]), anyOf([...subscribers.keys()])];
			declareOver((clientId) => [`subscriber-0-${cut}`, `subscriber-0-${sleeper}`].includes(clientId));
			subscribers[cut]?.cut();
			if (fault % 2 === 0) await subscribers[sleeper]?.stop();
			events.push({ kind: "fault", what: "replica" });
			const struck = anyOf(all);
			const what = await strike(struck, () => declareOver((clientId) => places.get(clientId) === struck));
			faults.set(what, (faults.get(what) ?? 0) + 1);
			if (fault % 2 === 0) subscribers[sleeper]?.start();
		}
		await until("the late ones have subscribed", () => late.every((subscriber) => subscriber.subscribed));
		clearInterval(load);
		await acknowledged(publishers);
		const { violations, ...figures } = await drained(events);
		console.log(`${composition}: ${JSON.stringify({ ...figures, ...Object.fromEntries(faults) })}`);
		assert.deepEqual(violations, []);
		assert.equal(figures.lost, 0);
		assert.equal(figures.faults, kills);
		assert.ok(figures.acknowledged > kills * 10, "the load was a load");
	});
}
