/**
 * A real redis-server for a test: with the repository's `redis.conf` on a free loopback port, its data in a folder of its own,
 * ended with the test. It can be killed, frozen and started again on the same port and data.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { connect as connectSocket, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const CONFIG = fileURLToPath(new URL("../../redis.conf", import.meta.url));
const START_MS = 10_000;

export interface RedisServer {
	readonly port: number;
	readonly url: string;
	/** Ends it without warning. */
	kill(): Promise<void>;
	/** Starts it again on what it has written. */
	restart(): Promise<void>;
	/** Stops answering, and goes on. */
	signal(name: "SIGSTOP" | "SIGCONT"): void;
	/** Ends it and removes its data. */
	stop(): Promise<void>;
}

/** @param settings Added to those of `redis.conf`, such as `["--maxmemory", "10mb"]`. */
export async function startRedis(settings: readonly string[] = []): Promise<RedisServer> {
	const directory = mkdtempSync(join(tmpdir(), "redis-test-"));
	// A copy: a server rewrites its own when a failover or CONFIG REWRITE tells it to.
	copyFileSync(CONFIG, join(directory, "redis.conf"));
	const port = await freePort();
	let child = await launch(directory, port, settings);
	async function kill(): Promise<void> {
		if (child.exitCode !== null || child.signalCode !== null) return;
		const ended = once(child, "exit");
		child.kill("SIGKILL");
		await ended;
	}
	return {
		port,
		url: `redis://127.0.0.1:${port}`,
		kill,
		async restart() {
			child = await launch(directory, port, settings);
		},
		// `child.kill` takes any signal for the end on Deno.
		signal: (name) => void process.kill(child.pid as number, name),
		async stop() {
			await kill();
			rmSync(directory, { recursive: true });
		},
	};
}

async function launch(directory: string, port: number, settings: readonly string[]): Promise<ChildProcess> {
	const address = ["--bind", "127.0.0.1", "--port", String(port), "--dir", directory];
	const child = spawn("redis-server", [join(directory, "redis.conf"), ...address, ...settings], { stdio: "ignore" });
	const failed = once(child, "exit").then(() => {
		throw new Error("redis-server ended while it started");
	});
	failed.catch(() => {});
	const deadline = performance.now() + START_MS;
	while (!(await Promise.race([answers(port), failed]))) {
		if (performance.now() > deadline) throw new Error(`redis-server was not ready after ${START_MS} ms`);
		await sleep(10);
	}
	return child;
}

/** Whether it answers a PING, which it does not while it loads. */
function answers(port: number): Promise<boolean> {
	return new Promise((resolve) => {
		const socket = connectSocket(port, "127.0.0.1", () => socket.write("PING\r\n"));
		socket.on("data", (data) => {
			socket.destroy();
			resolve(data.toString().startsWith("+PONG"));
		});
		socket.on("error", () => resolve(false));
	});
}

async function freePort(): Promise<number> {
	const server = createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	const { port } = server.address() as AddressInfo;
	server.close();
	await once(server, "close");
	return port;
}
