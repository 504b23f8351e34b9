/** A real Redis Cluster for a test: three masters on free loopback ports, with a replica each if asked, ended with the test. */

import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { type RedisServer, startRedis } from "./redis_server.ts";

const MASTERS = 3;
const SLOTS = 16_384;
const DEADLINE_MS = 15_000;
const ATTEMPTS = 3;

export interface RedisCluster {
	/** Names the masters at the start. */
	readonly url: string;
	/** Masters first, then the replica of each, then the spare one. */
	readonly nodes: readonly RedisServer[];
	/** Sends a command to one node. */
	call(node: RedisServer, ...command: readonly (string | number)[]): Promise<unknown>;
	/** The node that serves a key now, as the others see it. */
	masterOf(key: string): Promise<RedisServer>;
	/** Moves the slot of a key to another master: `meanwhile` is called when the slot is on its way, and again when its keys are. */
	moveSlot(key: string, meanwhile?: () => Promise<void>, target?: RedisServer): Promise<void>;
	stop(): Promise<void>;
}

export interface ClusterOptions {
	readonly replicas?: boolean;
	/** One master more, without slots. */
	readonly spare?: boolean;
	/** How long a node may be silent before it counts as gone. */
	readonly nodeTimeoutMs?: number;
	readonly settings?: readonly string[];
}

export async function startRedisCluster(options: ClusterOptions = {}): Promise<RedisCluster> {
	const { replicas = false, spare = false, nodeTimeoutMs = 1500, settings = [] } = options;
	const { nodes, busPorts } = await launch((replicas ? 2 * MASTERS : MASTERS) + (spare ? 1 : 0), [
		...["--cluster-enabled", "yes", "--cluster-node-timeout", String(nodeTimeoutMs), "--cluster-allow-replica-migration", "no"],
		...["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0", ...settings],
	]);
	const clients = new Map(nodes.map((node) => [node, connect(node)]));
	const call = (node: RedisServer, ...[name, ...args]: readonly (string | number)[]): Promise<unknown> =>
		(clients.get(node) as Redis).call(String(name), ...args);

	async function everywhere(condition: (node: RedisServer) => Promise<boolean>): Promise<void> {
		const deadline = performance.now() + DEADLINE_MS;
		for (const node of nodes) {
			while (!(await condition(node))) {
				if (performance.now() > deadline) throw new Error("the cluster did not come together");
				await sleep(20);
			}
		}
	}

	async function join(): Promise<void> {
		const [first] = nodes as [RedisServer];
		const masters = nodes.slice(0, MASTERS);
		for (const [at, node] of nodes.entries()) {
			await call(node, "CLUSTER", "SET-CONFIG-EPOCH", at + 1);
			if (node !== first) await call(first, "CLUSTER", "MEET", "127.0.0.1", node.port, busPorts[at] as number);
		}
		for (const [at, node] of masters.entries()) {
			const border = (n: number) => Math.floor((n * SLOTS) / MASTERS);
			await call(node, "CLUSTER", "ADDSLOTSRANGE", border(at), border(at + 1) - 1);
		}
		await everywhere(async (node) => String(await call(node, "CLUSTER", "INFO")).includes(`cluster_known_nodes:${nodes.length}\r\n`));
		for (const [at, node] of nodes.slice(MASTERS, replicas ? 2 * MASTERS : MASTERS).entries()) {
			await call(node, "CLUSTER", "REPLICATE", String(await call(masters[at] as RedisServer, "CLUSTER", "MYID")));
		}
		await everywhere(async (node) => String(await call(node, "CLUSTER", "INFO")).includes("cluster_state:ok"));
		await everywhere(async (node) => !/master_link_status:down/.test(String(await call(node, "INFO", "replication"))));
		if (replicas) await everywhere(async (node) => /role:slave|connected_slaves:1/.test(String(await call(node, "INFO", "replication"))));
	}

	/** Asks all, for some may be killed or frozen. */
	async function masterOf(key: string): Promise<RedisServer> {
		return Promise.any(
			nodes.map(async (witness) => {
				const slot = Number(await call(witness, "CLUSTER", "KEYSLOT", key));
				const ranges = (await call(witness, "CLUSTER", "SLOTS")) as [number, number, [string, number]][];
				const port = ranges.find(([first, last]) => first <= slot && slot <= last)?.[2][1];
				const found = nodes.find((node) => node.port === port);
				if (found === undefined) throw new Error(`no node serves "${key}"`);
				return found;
			}),
		);
	}

	async function moveSlot(key: string, meanwhile: () => Promise<void> = async () => {}, target?: RedisServer): Promise<void> {
		const from = await masterOf(key);
		const to = target ?? (nodes.slice(0, MASTERS).find((node) => node !== from) as RedisServer);
		const slot = Number(await call(from, "CLUSTER", "KEYSLOT", key));
		const id = async (node: RedisServer) => String(await call(node, "CLUSTER", "MYID"));
		await call(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", await id(from));
		await call(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", await id(to));
		await meanwhile();
		let keys: string[];
		do {
			keys = (await call(from, "CLUSTER", "GETKEYSINSLOT", slot, 100)) as string[];
			if (keys.length > 0) await call(from, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", ...keys);
		} while (keys.length > 0);
		await meanwhile();
		for (const node of [to, from]) await call(node, "CLUSTER", "SETSLOT", slot, "NODE", await id(to));
	}

	async function stop(): Promise<void> {
		for (const client of clients.values()) client.disconnect();
		await Promise.all(nodes.map((node) => node.stop()));
	}

	try {
		await join();
	} catch (error) {
		await stop();
		throw error;
	}
	const url = `redis+cluster://${nodes
		.slice(0, MASTERS)
		.map(({ port }) => `127.0.0.1:${port}`)
		.join(",")}`;
	return { url, nodes, call, masterOf, moveSlot, stop };
}

/** Starts nodes that do not know one another. A port that was free may be taken when its server starts: then all begin again. */
async function launch(count: number, settings: readonly string[], attempt = 1): Promise<{ nodes: RedisServer[]; busPorts: number[] }> {
	const busPorts = await freePorts(count);
	const started = await Promise.allSettled(busPorts.map((port) => startRedis(["--cluster-port", String(port), ...settings])));
	const nodes = started.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
	if (nodes.length === count) return { nodes, busPorts };
	await Promise.all(nodes.map((node) => node.stop()));
	if (attempt === ATTEMPTS) throw new Error(`only ${nodes.length} of ${count} nodes started`);
	return launch(count, settings, attempt + 1);
}

function connect({ url }: RedisServer): Redis {
	const client = new Redis(url, { commandTimeout: DEADLINE_MS });
	client.on("error", () => {});
	return client;
}

/** Different ones: they are closed only when all are found. */
async function freePorts(count: number): Promise<number[]> {
	const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
	await Promise.all(servers.map((server) => once(server, "listening")));
	const ports = servers.map((server) => (server.address() as AddressInfo).port);
	await Promise.all(servers.map((server) => once(server.close(), "close")));
	return ports;
}
