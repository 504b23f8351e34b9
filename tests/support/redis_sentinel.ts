/** A real primary with replicas and three Sentinels for a test, on free loopback ports, ended with the test. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { type RedisServer, startRedis } from "./redis_server.ts";

const SENTINELS = 3;
const NAME = "shoal";
const DEADLINE_MS = 15_000;

export interface SentinelGroup {
	readonly url: string;
	/** The primary first, as it was at the start. */
	readonly servers: readonly RedisServer[];
	/** The server that the Sentinels call the primary now. */
	primary(): Promise<RedisServer>;
	stop(): Promise<void>;
}

/** @param replicas Servers beside the primary. */
export async function startRedisSentinel(replicas = 1): Promise<SentinelGroup> {
	const primary = await startRedis(["--repl-diskless-sync-delay", "0"]);
	const others = await Promise.all(
		Array.from({ length: replicas }, () => startRedis(["--replicaof", `127.0.0.1 ${primary.port}`, "--repl-diskless-sync-delay", "0"])),
	);
	const servers = [primary, ...others];
	const sentinels = await Promise.all(Array.from({ length: SENTINELS }, () => startSentinel(primary.port)));
	const watchers = sentinels.map(({ port }) => {
		const client = new Redis({ port, host: "127.0.0.1", commandTimeout: DEADLINE_MS });
		client.on("error", () => {});
		return client;
	});

	async function stop(): Promise<void> {
		for (const watcher of watchers) watcher.disconnect();
		await Promise.all([...sentinels, ...servers].map((each) => each.stop()));
	}

	/** Each Sentinel knows the others and the replicas, and these are in step. */
	async function settled(watcher: Redis): Promise<boolean> {
		const known = (await watcher.call("SENTINEL", "MASTER", NAME)) as string[];
		const field = (name: string) => Number(known[known.indexOf(name) + 1]);
		if (field("num-other-sentinels") !== SENTINELS - 1 || field("num-slaves") !== replicas) return false;
		const found = (await watcher.call("SENTINEL", "REPLICAS", NAME)) as string[][];
		return found.every((replica) => replica[replica.indexOf("master-link-status") + 1] === "ok");
	}

	try {
		const deadline = performance.now() + DEADLINE_MS;
		for (const watcher of watchers) {
			while (!(await settled(watcher))) {
				if (performance.now() > deadline) throw new Error("the Sentinels did not find one another");
				await sleep(50);
			}
		}
	} catch (error) {
		await stop();
		throw error;
	}
	return {
		url: `redis+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(",")}/${NAME}`,
		servers,
		async primary() {
			const [, port] = (await (watchers[0] as Redis).call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)) as [string, string];
			return servers.find((server) => server.port === Number(port)) as RedisServer;
		},
		stop,
	};
}

async function startSentinel(primaryPort: number): Promise<{ readonly port: number; stop(): Promise<void> }> {
	const directory = mkdtempSync(join(tmpdir(), "sentinel-test-"));
	const port = await freePort();
	const file = join(directory, "sentinel.conf");
	writeFileSync(
		file,
		[
			...[`port ${port}`, "bind 127.0.0.1", `dir ${directory}`, `sentinel monitor ${NAME} 127.0.0.1 ${primaryPort} 2`],
			...[`sentinel down-after-milliseconds ${NAME} 1000`, `sentinel failover-timeout ${NAME} 2000`, ""],
		].join("\n"),
	);
	const child: ChildProcess = spawn("redis-server", [file, "--sentinel"], { stdio: "ignore" });
	return {
		port,
		async stop() {
			if (child.exitCode === null && child.signalCode === null) {
				const ended = once(child, "exit");
				child.kill("SIGKILL");
				await ended;
			}
			rmSync(directory, { recursive: true });
		},
	};
}

async function freePort(): Promise<number> {
	const server = createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	const { port } = server.address() as AddressInfo;
	await once(server.close(), "close");
	return port;
}
