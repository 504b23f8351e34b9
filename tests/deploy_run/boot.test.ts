/** Scaled to zero: nothing runs while deadlines fall due, and the next start makes up for it, whichever store there is. */

import assert from "node:assert/strict";
import { it, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { freshId, RawClient } from "../support/raw_client.ts";
import { startRedis } from "../support/redis_server.ts";
import { createFolder, type ServerProcess, startServer } from "../support/server_process.ts";
import { durable, freshTopic, take } from "../support/traffic.ts";

const RUN_MS = 60_000;
const DUE_SECONDS = 2;

/** Settings of a server whose state outlives it. */
const stores: Readonly<Record<string, (t: TestContext) => Promise<Readonly<Record<string, string>>>>> = {
	SQLite: async (t) => ({ STORE: "sqlite", DATA_DIR: createFolder(t) }),
	Redis: async (t) => {
		const redis = await startRedis();
		t.after(() => redis.stop());
		return { REDIS_URL: redis.url };
	},
};

it("a will, a session and messages whose time came while nothing ran: done at the start, in SQLite and in Redis", {
	timeout: RUN_MS,
}, async (t) => {
	await Promise.all(Object.values(stores).map(async (settings) => sleepOver(t, await settings(t))));
});

async function sleepOver(t: TestContext, env: Readonly<Record<string, string>>): Promise<void> {
	const topic = freshTopic();
	const [watcher, ended, kept] = [durable(), durable(freshId(), { sessionExpiryInterval: DUE_SECONDS }), durable()];
	const connect = (server: ServerProcess, options: object) => RawClient.connect(server, options);

	const before = await startServer(t, env);
	for (const options of [watcher, ended, kept]) {
		const client = await connect(before, options);
		await client.subscribe(`${topic}/#`, { qos: 1 });
		await client.disconnect();
	}
	const publisher = await connect(before, {});
	const expiry = { messageExpiryInterval: DUE_SECONDS };
	await publisher.publishAcked(`${topic}/queued`, "short-lived", { properties: expiry });
	await publisher.publishAcked(`${topic}/queued`, "long-lived");
	await publisher.publishAcked(`${topic}/retained`, "short-lived", { properties: expiry, retain: true });
	const will = { topic: `${topic}/will`, payload: "late", qos: 1, retain: false, properties: { willDelayInterval: DUE_SECONDS } };
	await (await connect(before, { ...durable(), will })).destroy();
	// Its will is on its way once the connection counts as gone: what comes next is stored after that.
	await publisher.expectNothing();
	await before.kill("SIGTERM");
	await sleep((DUE_SECONDS + 1) * 1000);

	const after = await startServer(t, env);
	const watching = await connect(after, watcher);
	assert.equal(watching.connack.sessionPresent, true);
	await take(watching, { topic: `${topic}/queued`, payload: "long-lived" });
	await take(watching, { topic: `${topic}/will`, payload: "late" });
	await watching.expectNothing();
	assert.equal((await connect(after, ended)).connack.sessionPresent, false);
	assert.equal((await connect(after, kept)).connack.sessionPresent, true);
	const reader = await connect(after, {});
	await reader.subscribe(`${topic}/#`);
	await reader.expectNothing();
}
