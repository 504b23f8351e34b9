/**
 * Restarts again and again under load, by kill -9 and in order, and then the judgement of all that the clients saw. `KILLS`
 * says how many times; the figures of each run are printed.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type HistoryEvent, judge } from "../support/history.ts";
import { LoadPublisher, LoadSubscriber, type SubscriberOptions } from "../support/load_client.ts";
import { createFolder, type Ports, reservePorts, startServer } from "../support/server_process.ts";

const KILLS = Number(process.env.KILLS ?? 10);
const PUBLISH_EVERY_MS = 10;
const PUBLISH_AT_ONCE = 5;
/** Of the whole run. */
const RUN_MS = 30 * 60_000;
/** For clients to come back and publications to be acknowledged. */
const PATIENCE_MS = 60_000;
const QUIET_MS = 10_000;

const PUBLISHERS = [
	{ pattern: [1], window: 20 },
	{ pattern: [2], window: 20 },
	{ pattern: [1, 2], window: 100 },
	{ pattern: [2, 2, 1], window: 5 },
] as const;

const SUBSCRIBERS: readonly SubscriberOptions[] = [
	{ filter: "load/#", qos: 2, ackDelayMs: 0 },
	{ filter: "load/#", qos: 1, ackDelayMs: 0 },
	{ filter: "load/+/1", qos: 2, ackDelayMs: 100 },
	{ filter: "load/+/1", qos: 1, ackDelayMs: 100 },
	{ filter: "load/publisher-2/#", qos: 2, ackDelayMs: 20 },
	{ filter: "load/#", qos: 1, ackDelayMs: 10 },
	{ filter: "load/#", qos: 2, ackDelayMs: 2, receiveMaximum: 10 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 10 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 50 },
];
/** Subscribe while the load is on. */
const LATE: readonly SubscriberOptions[] = [
	{ filter: "load/#", qos: 2, ackDelayMs: 5 },
	{ filter: "load/+/2", qos: 1, ackDelayMs: 5 },
];

/** Waits until everybody has what is owed, or nothing has happened for so long that nothing will. */
async function drained(events: readonly HistoryEvent[]): Promise<void> {
	let known = 0;
	let quietSince = Date.now();
	while (judge(events).lost > 0 && Date.now() < quietSince + QUIET_MS) {
		if (events.length > known) quietSince = Date.now();
		known = events.length;
		await sleep(1000);
	}
}

async function until(what: string, ready: () => boolean): Promise<void> {
	const deadline = Date.now() + PATIENCE_MS;
	while (!ready()) {
		assert.ok(Date.now() < deadline, `${what} within ${PATIENCE_MS / 1000} s`);
		await sleep(50);
	}
}

for (const [signal, restarts] of [
	["SIGKILL", KILLS],
	["SIGTERM", Math.ceil(KILLS / 4)],
] as const) {
	const title = `crash: over ${signal} under load no acknowledged message is lost, QoS 2 comes once, and order is kept`;
	it(title, { timeout: RUN_MS }, async (t) => {
		const ports = await reservePorts();
		const env = { ...ports, STORE: "sqlite", DATA_DIR: createFolder(t), LOG_MAX_MESSAGES: "10000000" };
		const events: HistoryEvent[] = [];
		const { publishers, subscribers, late } = createClients(ports, events);
		const clients = [...publishers, ...subscribers, ...late];
		t.after(() => Promise.all(clients.map((client) => client.stop())));
		let server = await startServer(t, env);
		for (const client of [...publishers, ...subscribers]) client.start();
		await until("all have subscribed", () => subscribers.every((subscriber) => subscriber.subscribed));
		const load = setInterval(() => {
			for (const publisher of publishers) publisher.publish(PUBLISH_AT_ONCE);
		}, PUBLISH_EVERY_MS);
		t.after(() => clearInterval(load));

		let sleeper: LoadSubscriber | undefined;
		for (let restart = 0; restart < restarts; restart++) {
			// Some restarts strike while clients are still coming back.
			await sleep(Math.random() < 0.3 ? Math.random() * 60 : 100 + Math.random() * 500);
			if (restart === Math.floor(restarts / 3)) late[0]?.start();
			if (restart === Math.floor(restarts / 2)) late[1]?.start();
			// One loses its connection by itself, one stays away over some restarts.
			subscribers[restart % subscribers.length]?.cut();
			if (restart % 4 === 0) {
				sleeper = subscribers[(restart * 3) % subscribers.length];
				await sleeper?.stop();
			} else if (restart % 4 === 3) sleeper?.start();
			events.push({ kind: "fault", what: signal });
			await server.kill(signal);
			server = await startServer(t, env);
		}
		if (restarts % 4 !== 0) sleeper?.start();
		await until("the late ones have subscribed", () => late.every((subscriber) => subscriber.subscribed));
		clearInterval(load);
		await until("all publications are acknowledged", () => publishers.every((publisher) => publisher.open === 0));
		await drained(events);
		await Promise.all(clients.map((client) => client.stop()));

		const { violations, ...figures } = judge(events);
		console.log(`${signal} ${JSON.stringify(figures)}`);
		assert.deepEqual(violations, []);
		assert.equal(figures.faults, restarts);
		assert.ok(figures.acknowledged > restarts * 10, "the load was a load");
	});
}

function createClients(ports: Ports, events: HistoryEvent[]) {
	const common = (index: number) =>
		({ ports, events, version: index % 2 === 0 ? 5 : 4, transport: index % 3 === 0 ? "tcp" : "ws" }) as const;
	const createSubscriber = (each: SubscriberOptions, index: number) =>
		new LoadSubscriber({ ...common(index), clientId: `subscriber-${index}` }, each);
	return {
		publishers: PUBLISHERS.map((each, index) => new LoadPublisher({ ...common(index), clientId: `publisher-${index}` }, each)),
		subscribers: SUBSCRIBERS.map(createSubscriber),
		late: LATE.map((each, index) => createSubscriber(each, SUBSCRIBERS.length + index)),
	};
}
