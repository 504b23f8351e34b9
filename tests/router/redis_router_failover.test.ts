/** The Redis router where a server of Redis can be replaced by another one: a cluster, and Sentinels. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createRedisRouter } from "../../src/router/redis_router.ts";
import { routerContract } from "../contracts/router_contract.ts";
import { type RedisCluster, startRedisCluster } from "../support/redis_cluster.ts";
import { type SentinelGroup, startRedisSentinel } from "../support/redis_sentinel.ts";
import type { RedisServer } from "../support/redis_server.ts";
import { allInOrder, forwardDuring, persistently, Told, until, working } from "./router_support.ts";

let cluster: RedisCluster;
let sentinel: SentinelGroup;

before(async () => {
	cluster = await startRedisCluster({ replicas: true });
	sentinel = await startRedisSentinel(2);
});

after(async () => {
	await cluster.stop();
	await sentinel.stop();
});

let prefixes = 0;
routerContract("Redis router on a cluster", () =>
	createRedisRouter({ redis: cluster.url, prefix: `contract${++prefixes}:`, replicaId: "a", durability: "replicated" }),
);

/** Two routers through which everything works, also after and while a server is killed: nothing that counts as stored is lost. */
async function surviveKill(redis: string, prefix: string, find: () => Promise<RedisServer>, reader = "b"): Promise<void> {
	const a = new Told({ redis, prefix, replicaId: "a", durability: "replicated" });
	const b = new Told({ redis, prefix, replicaId: reader, durability: "replicated" });
	await a.start();
	await b.start();
	try {
		await working(a, b, "before");
		const earlier = b.messages.length;
		const count = await forwardDuring(a, b, async () => {
			const server = await find();
			await server.kill();
			await until("another one has taken over", async () => (await find()) !== server);
			// As a replica: without one nothing could be confirmed.
			await server.restart();
			await persistently(async () => await a.router.advertise("meanwhile/#"));
			await persistently(() => b.router.catchUp());
			assert.equal(b.routes.get("a meanwhile/#"), 1);
		});
		b.messages.splice(0, earlier);
		b.messages.splice(0, b.messages.length, ...b.messages.filter((each) => /^\d+$/.test(Buffer.from(each.message.payload).toString())));
		await allInOrder(b, count);
		await working(a, b, "after");
	} finally {
		await a.router.close();
		await b.router.close();
	}
}

test("Redis router on a cluster: the master of an inbox is killed, and what was forwarded arrives, once and in order", {
	timeout: 30_000,
}, async () => {
	const routes = await cluster.masterOf("{live}");
	let reader = "b";
	while ((await cluster.masterOf(`{in:${reader}}`)) === routes) reader += "b";
	await surviveKill(cluster.url, "in:", () => cluster.masterOf(`{in:${reader}}`), reader);
});

test("Redis router on a cluster: the master of the routes is killed, and what was advertised is known", { timeout: 30_000 }, async () => {
	await surviveKill(cluster.url, "live:", () => cluster.masterOf("{live}"));
});

test("Redis router with Sentinels: the primary is killed, and the new one has all that counted as stored", {
	timeout: 30_000,
}, async () => {
	await surviveKill(sentinel.url, "p:", () => sentinel.primary());
});
