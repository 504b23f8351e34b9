/** Replicas that are one broker on a Redis Cluster: three masters, and a replica of each. */

import { setTimeout as sleep } from "node:timers/promises";
import { clusterContract } from "../contracts/cluster_contract.ts";
import { startRedisCluster } from "../support/redis_cluster.ts";

clusterContract("a Redis Cluster", async () => {
	const { url, nodes, call, masterOf, stop } = await startRedisCluster({ replicas: true });
	return {
		url,
		servers: nodes,
		masterOf,
		async copiesOf(master) {
			const [, , copies] = (await call(master, "ROLE")) as [string, number, [string, string, string][]];
			return nodes.filter((node) => copies.some(([, port]) => Number(port) === node.port));
		},
		async whole() {
			for (const node of nodes) {
				while (
					!(await isWhole(
						() => call(node, "INFO", "replication"),
						() => call(node, "CLUSTER", "INFO"),
					))
				)
					await sleep(50);
			}
		},
		stop,
	};
});

async function isWhole(replication: () => Promise<unknown>, cluster: () => Promise<unknown>): Promise<boolean> {
	try {
		const [roles, state] = (await Promise.all([replication(), cluster()])).map(String);
		return /role:master[\s\S]*connected_slaves:1|master_link_status:up/.test(roles ?? "") && /cluster_state:ok/.test(state ?? "");
	} catch {
		return false;
	}
}
