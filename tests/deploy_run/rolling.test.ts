/**
 * A rolling restart as platforms do it: SIGTERM to one replica after the other, SIGKILL after five seconds, and a new one in its
 * place, while clients come and go through a real HAProxy and a real nginx. `ROLLS` says how often all replicas are replaced.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { it, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startHAProxy } from "../support/haproxy.ts";
import type { HistoryEvent } from "../support/history.ts";
import { LoadPublisher, LoadSubscriber, type SubscriberOptions } from "../support/load_client.ts";
import { acknowledged, drained, until } from "../support/load_run.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { startNginx } from "../support/nginx.ts";
import { type Replica, startReplicas } from "../support/replicas.ts";

const ROLLS = Number(process.env.ROLLS ?? 2);
const RUN_MS = 60_000 + ROLLS * 30_000;
/** What a platform gives an instance that is to go, and what the instance is told to take of it. */
const BUDGET_MS = 5_000;
const DRAIN_SECONDS = 2;
const PUBLISH_EVERY_MS = 20;

const PUBLISHERS = [
	{ pattern: [1], window: 20 },
	{ pattern: [2], window: 20 },
	{ pattern: [1, 2], window: 50 },
	{ pattern: [2, 2, 1], window: 5 },
] as const;

/** The first two speak MQTT 5. */
const SUBSCRIBERS: readonly SubscriberOptions[] = [
	{ filter: "load/#", qos: 2, ackDelayMs: 0 },
	{ filter: "load/#", qos: 2, ackDelayMs: 2, receiveMaximum: 30 },
	{ filter: "load/#", qos: 1, ackDelayMs: 5 },
	{ filter: "load/+/1", qos: 2, ackDelayMs: 50 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 10 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 5 },
];

/** Ends a replica as a platform does; answers how long it took, and whether it ended by itself. */
async function replace(replica: Replica): Promise<{ readonly ms: number; readonly byItself: boolean }> {
	const began = performance.now();
	let byItself = true;
	const timer = setTimeout(() => {
		byItself = false;
		process.kill(replica.pid, "SIGKILL");
	}, BUDGET_MS);
	await replica.kill("SIGTERM");
	clearTimeout(timer);
	const ms = performance.now() - began;
	await replica.restart();
	return { ms, byItself };
}

/** Clients as pages have them: no session that outlives the connection, and a will that tells of their end. */
function startPages(t: TestContext, urls: readonly string[]): MqttJsClient[] {
	return urls.map((url, index) =>
		MqttJsClient.open(t, url, {
			clean: true,
			protocolVersion: index % 2 === 0 ? 5 : 4,
			reconnectPeriod: 200,
			connectTimeout: 3000,
			will: { topic: `load/will/page-${index}`, payload: Buffer.from(`the-will-of-page-${index} 0`), qos: 1, retain: false },
		}),
	);
}

it(`${ROLLS} rolling restarts of three replicas through HAProxy and nginx under load: nothing acknowledged is lost, QoS 2 comes once, no will is published, and all clients are back`, {
	timeout: RUN_MS,
}, async (t) => {
	const { all } = await startReplicas(t, {
		env: { ALLOW_ANONYMOUS: "true", DRAIN_SECONDS: `${DRAIN_SECONDS}`, LOG_MAX_MESSAGES: "10000000" },
	});
	const proxies = [await startHAProxy(t, all, { letsGo: true }), await startNginx(t, all)] as const;
	const events: HistoryEvent[] = [];
	const options = (clientId: string, index: number) => {
		const { wsPort, tcpPort } = proxies[index % 2] as (typeof proxies)[number];
		return {
			clientId,
			events,
			version: index % 4 < 2 ? (5 as const) : (4 as const),
			transport: index % 3 === 0 ? ("tcp" as const) : ("ws" as const),
			ports: { PORT: `${wsPort}`, MQTT_TCP_PORT: `${tcpPort}` },
			will: true,
		};
	};
	const publishers = PUBLISHERS.map((each, index) => new LoadPublisher(options(`publisher-${index}`, index), each));
	const subscribers = SUBSCRIBERS.map((each, index) => new LoadSubscriber(options(`subscriber-${index}`, index), each));
	const clients = [...publishers, ...subscribers];
	t.after(() => Promise.all(clients.map((client) => client.stop())).then(() => {}));
	for (const client of clients) client.start();
	const pages = startPages(t, [proxies[0].url, proxies[1].url, proxies[0].tcpUrl, proxies[1].tcpUrl]);
	await until("all have subscribed", () => subscribers.every((subscriber) => subscriber.subscribed));
	await until("all pages are connected", () => pages.every(({ mqtt }) => mqtt.connected));
	const load = setInterval(() => {
		for (const publisher of publishers) publisher.publish(2);
	}, PUBLISH_EVERY_MS);
	t.after(() => clearInterval(load));

	const took: number[] = [];
	let killed = 0;
	for (let roll = 0; roll < ROLLS; roll++) {
		for (const replica of all) {
			await sleep(300);
			events.push({ kind: "fault", what: "replaced" });
			const { ms, byItself } = await replace(replica);
			took.push(Math.round(ms));
			if (!byItself) killed++;
		}
	}
	clearInterval(load);
	await acknowledged(publishers);
	await until("all are back", () => clients.every(({ connected }) => connected) && pages.every(({ mqtt }) => mqtt.connected));
	const { violations, ...figures } = await drained(events);
	const connects = events.filter(({ kind }) => kind === "connected").length;
	console.log(`${ROLLS} rolls: ${JSON.stringify({ ...figures, connects, killed, longestEndMs: Math.max(...took) })}`);
	assert.deepEqual(violations, []);
	assert.equal(figures.lost, 0);
	assert.equal(killed, 0);
	assert.equal(figures.faults, 3 * ROLLS);
	assert.ok(figures.acknowledged > ROLLS * 100, "the load was a load");
});
