/** Replicas that are one broker behind Sentinel: a primary, two replicas of it and three Sentinels. */

import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { clusterContract } from "../contracts/cluster_contract.ts";
import { startRedisSentinel } from "../support/redis_sentinel.ts";

const COPIES = 2;

clusterContract("a Redis behind Sentinel", async () => {
	const { url, servers, primary, stop } = await startRedisSentinel(COPIES);
	return {
		url,
		servers,
		masterOf: primary,
		copiesOf: async (master) => servers.filter((server) => server !== master),
		async whole() {
			for (;;) {
				const client = new Redis((await primary()).url, { lazyConnect: true });
				client.on("error", () => {});
				const info = await client.info("replication").catch(() => "");
				client.disconnect();
				if (/role:master/.test(info) && [...info.matchAll(/state=online/g)].length === COPIES) return;
				await sleep(100);
			}
		},
		stop,
	};
});
