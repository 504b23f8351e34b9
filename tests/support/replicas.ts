/**
 * Replicas for a test: real processes of `server.ts` on one real redis-server, each at ports that it keeps over its restarts,
 * on the runtime that runs the test or on the other one. They can be killed, frozen and started again. Knows nothing of MQTT.
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import { before } from "node:test";
import { type RedisServer, startRedis } from "./redis_server.ts";
import { OWN_RUNTIME, type Ports, type Runtime, reservePorts, type ServerProcess, startServer, suiteCleanup } from "./server_process.ts";
import type { Cleanup } from "./test_broker.ts";

/** What a replica runs on: that of the test, or the one that it is not. */
export type ReplicaRuntime = "own" | "other";

/** Three replicas that run as the test does. */
export const THREE: readonly ReplicaRuntime[] = ["own", "own", "own"];
/** Three replicas on both runtimes. */
export const MIXED: readonly ReplicaRuntime[] = ["own", "other", "own"];

export interface ReplicasOptions {
	/** One replica for each; three of the test's own when absent. */
	readonly runtimes?: readonly ReplicaRuntime[];
	/** A new one when absent. It does not end with the replicas when given. */
	readonly redis?: RedisServer;
	/** Settings of the broker, for every replica. */
	readonly env?: Readonly<Record<string, string>>;
	/** Settings of one replica, besides these. */
	readonly envOf?: (index: number) => Readonly<Record<string, string>>;
}

/** One replica, whichever process it is at the moment. */
export class Replica {
	readonly ports: Ports;
	readonly #start: () => Promise<ServerProcess>;
	#server: ServerProcess;

	private constructor(ports: Ports, start: () => Promise<ServerProcess>, server: ServerProcess) {
		this.ports = ports;
		this.#start = start;
		this.#server = server;
	}

	/** @param folder Of another copy of the sources. */
	static async start(t: Cleanup, env: Readonly<Record<string, string>>, runtime: Runtime, folder?: string): Promise<Replica> {
		const ports = await reservePorts();
		const start = () => startServer(t, { ...env, ...ports }, runtime, folder);
		return new Replica(ports, start, await start());
	}

	get wsPort(): number {
		return Number(this.ports.PORT);
	}

	get tcpPort(): number {
		return Number(this.ports.MQTT_TCP_PORT);
	}

	/** Address of its WebSocket. */
	get url(): string {
		return `ws://127.0.0.1:${this.wsPort}/mqtt`;
	}

	get tcpUrl(): string {
		return `mqtt://127.0.0.1:${this.tcpPort}`;
	}

	get pid(): number {
		return this.#server.pid;
	}

	/** What its process has logged. */
	get log(): ServerProcess["log"] {
		return this.#server.log;
	}

	/** Ends its process. */
	async kill(signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<void> {
		await this.#server.kill(signal);
	}

	/** Stops its process where it stands, until `thaw`. */
	freeze(): void {
		process.kill(this.pid, "SIGSTOP");
	}

	thaw(): void {
		process.kill(this.pid, "SIGCONT");
	}

	/** After `kill`: a new process at the same ports. Resolves when it is ready. */
	async restart(): Promise<void> {
		this.#server = await this.#start();
	}

	/** HTTP status of one of its paths. */
	async status(path: string): Promise<number> {
		const response = await fetch(`http://127.0.0.1:${this.wsPort}${path}`);
		await response.text();
		return response.status;
	}

	/** Resident memory of its process, in bytes. Linux only. */
	get memory(): number {
		const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.pid}/status`, "utf8")) ?? [];
		return Number(kilobytes) * 1024;
	}
}

/** Some replicas, at least three unless fewer were asked for, and what they share. */
export interface Replicas {
	readonly redis: RedisServer;
	readonly all: readonly Replica[];
	readonly a: Replica;
	readonly b: Replica;
	readonly c: Replica;
}

/** Starts replicas that are one broker. They end with the test. */
export async function startReplicas(
	t: Cleanup,
	{ runtimes = THREE, redis, env = {}, envOf = () => ({}) }: ReplicasOptions = {},
): Promise<Replicas> {
	const server = redis ?? (await startRedis());
	if (redis === undefined) t.after(() => server.stop());
	const settings = (index: number) => ({ REDIS_URL: server.url, ...env, ...envOf(index) });
	const other: Runtime = OWN_RUNTIME === "bun" ? "deno" : "bun";
	const all = await Promise.all(
		runtimes.map((runtime, index) => Replica.start(t, settings(index), runtime === "own" ? OWN_RUNTIME : other)),
	);
	const [a, b = a, c = b] = all;
	if (a === undefined || b === undefined || c === undefined) throw new RangeError("Cannot start no replicas at all");
	return { redis: server, all, a, b, c };
}

/** Replicas for the suite in whose body this is called; what it answers can be called from the first test on. */
export function suiteReplicas(options: ReplicasOptions = {}): () => Replicas {
	const t = suiteCleanup();
	let replicas: Replicas | undefined;
	before(async () => {
		replicas = await startReplicas(t, options);
	});
	return () => {
		if (replicas === undefined) throw new Error("the replicas of a suite can be used within its tests only");
		return replicas;
	};
}
