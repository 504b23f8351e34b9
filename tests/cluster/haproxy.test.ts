/**
 * Behind a plain load balancer nobody can tell that there is more than one: MQTT.js clients come through a real HAProxy, lose
 * their connections all the time, and land on another replica each time. `RECONNECTS` says how often, 100 unless given.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { describe, it, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type HAProxy, startHAProxy } from "../support/haproxy.ts";
import { anyOf, until } from "../support/load_run.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { requestUpgrade } from "../support/raw_websocket.ts";
import { MIXED, startReplicas, suiteReplicas } from "../support/replicas.ts";
import { freshTopic, numbers } from "../support/traffic.ts";

const RECONNECTS = Number(process.env.RECONNECTS ?? 100);
const RUN_MS = 10 * 60_000;
const EVERY_MS = 60;

describe("through HAProxy in round-robin mode", () => {
	const replicas = suiteReplicas({ runtimes: MIXED });

	it("a WebSocket upgrade reaches each replica, and messages cross from one to another", async (t) => {
		const proxy = await startHAProxy(t, replicas().all);
		const { status, headers } = await requestUpgrade({ port: proxy.wsPort });
		assert.equal(status, 101);
		assert.equal(headers.get("sec-websocket-protocol"), "mqtt");
		const topic = freshTopic();
		const clients = await Promise.all(
			numbers(12).map((_, index) => RawClient.connect(proxy, { transport: index % 2 === 0 ? "ws" : "tcp", clientId: freshId() })),
		);
		for (const client of clients) await client.subscribe(topic, { qos: 1 });
		await clients[0]?.publishAcked(topic, "to all").catch(() => {});
		await Promise.all(clients.slice(1).map((client) => client.expect("publish", { payload: "to all" })));
		await Promise.all(clients.map((client) => client.destroy()));
	});

	it(`MQTT.js clients lose nothing acknowledged in ${RECONNECTS} reconnects`, { timeout: RUN_MS }, async (t) => {
		const proxy = await startHAProxy(t, replicas().all);
		await loseNothing(t, proxy, async (clients) => {
			for (let reconnect = 0; reconnect < RECONNECTS; reconnect++) {
				await sleep(Math.random() * EVERY_MS);
				anyOf(clients).mqtt.stream?.destroy();
			}
		});
	});

	it("MQTT.js clients lose nothing acknowledged when one replica after the other is killed and comes back", {
		timeout: RUN_MS,
	}, async (t) => {
		const { all } = await startReplicas(t, { env: { REPLICA_LEASE_SECONDS: "3" } });
		const proxy = await startHAProxy(t, all);
		await loseNothing(t, proxy, async () => {
			for (const replica of all) {
				await sleep(300);
				await replica.kill();
				await sleep(300);
				await replica.restart();
				await until("it is ready", () => replica.log.length > 0);
			}
		});
	});
});

/** Publishes all the time while `disturb` runs, and then looks whether everybody got everything. */
async function loseNothing(t: TestContext, proxy: HAProxy, disturb: (clients: readonly MqttJsClient[]) => Promise<void>): Promise<void> {
	const base = freshTopic();
	const open = (index: number) =>
		MqttJsClient.open(t, index % 2 === 0 ? proxy.url : proxy.tcpUrl, {
			clean: false,
			reconnectPeriod: 20,
			connectTimeout: 3000,
			...(index % 3 === 0 ? { protocolVersion: 4 } : { protocolVersion: 5, properties: { sessionExpiryInterval: 300 } }),
		});
	const subscribers = [open(0), open(1), open(2), open(3)];
	const publishers = [open(4), open(5), open(6)];
	const got = await Promise.all(
		subscribers.map(async ({ mqtt }, index) => {
			const texts: string[] = [];
			mqtt.on("message", (_, payload) => texts.push(payload.toString()));
			await mqtt.subscribeAsync(`${base}/#`, { qos: index % 2 === 0 ? 1 : 2 });
			return texts;
		}),
	);
	const acknowledged: string[] = [];
	let running = true;
	let waiting = 0;
	const publish = async ({ mqtt }: MqttJsClient, publisher: number) => {
		for (let seq = 0; running; seq++) {
			const text = `${publisher} ${seq}`;
			waiting++;
			void mqtt.publishAsync(`${base}/${publisher}`, text, { qos: seq % 2 === 0 ? 1 : 2 }).then(
				() => {
					waiting--;
					acknowledged.push(text);
				},
				() => waiting--,
			);
			await sleep(5);
		}
	};
	const work = publishers.map(publish);
	await disturb([...subscribers, ...publishers]);
	running = false;
	await Promise.all(work);
	await until("all publications are settled", () => waiting === 0);
	assert.ok(acknowledged.length > 100, `${acknowledged.length} publications were a load`);
	for (const texts of got) {
		const missing = () => {
			const there = new Set(texts);
			return acknowledged.filter((text) => !there.has(text));
		};
		await until("all has arrived", () => missing().length === 0).catch(() => {});
		assert.deepEqual(missing(), []);
	}
}
