/** The Redis store behind Sentinel, when the primary fails under load. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createRedisStore } from "../../src/store/redis_store.ts";
import { type SentinelGroup, startRedisSentinel } from "../support/redis_sentinel.ts";
import type { RedisServer } from "../support/redis_server.ts";
import { describeLoad, killAhead, publishThrough } from "./redis_load.ts";
import { Replica, until } from "./redis_support.ts";

const FROZEN_MS = 7000;

/** With two replicas: the one that takes over needs another to confirm what it is given. */
function withPrimary(title: string, trouble: (primary: RedisServer, group: SentinelGroup) => Promise<void>): void {
	test(`Redis store behind Sentinel: ${title}`, { timeout: 40_000 }, async (t) => {
		const group = await startRedisSentinel(2);
		const replicas: Replica[] = [];
		const open = async (): Promise<Replica> => {
			const store = createRedisStore({
				redis: group.url,
				prefix: "test:",
				replicaId: `r${replicas.length + 1}`,
				durability: "replicated",
				limits: { logMaxMessages: 1_000_000, maxRetained: 1000 },
				trustNow: true,
			});
			const replica = new Replica(store);
			replicas.push(replica);
			await replica.start();
			return replica;
		};
		try {
			const primary = await group.primary();
			const load = await publishThrough(await open(), () => trouble(primary, group), open);
			t.diagnostic(describeLoad(load));
			assert.deepEqual(load.lost, []);
			assert.ok(load.refused > 0);
			assert.notEqual(await group.primary(), primary);
		} finally {
			for (const replica of replicas) await replica.dispose();
			await group.stop();
		}
	});
}

withPrimary("nothing acknowledged as replicated is lost when the primary is killed under load", async (primary, group) => {
	await killAhead(
		primary,
		group.servers.filter((server) => server !== primary),
	);
	await until(async () => (await group.primary()) !== primary);
});

withPrimary("nothing acknowledged as replicated is lost when the primary is frozen under load and comes back", async (primary) => {
	primary.signal("SIGSTOP");
	try {
		await sleep(FROZEN_MS);
	} finally {
		primary.signal("SIGCONT");
	}
});
