/**
 * `server.ts` as a process of its own, on the runtime that runs the test: started with an environment, known to be ready by
 * its log, ended with a signal or with the test. Knows nothing of MQTT.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, before } from "node:test";
import { fileURLToPath } from "node:url";
import type { Cleanup } from "./test_broker.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const READY_MS = 20_000;
/** What a child needs of the environment of the test; settings of the broker that happen to be there are none of its business. */
const INHERITED = ["PATH", "HOME", "TMPDIR", "DENO_DIR", "XDG_CACHE_HOME"];

/** How a process ended: its exit code, or the signal that killed it. */
export interface Ended {
	readonly code: number | null;
	readonly signal: string | null;
	readonly stdout: string;
	readonly stderr: string;
}

/** One line of the log. */
export interface LogLine {
	readonly level: string;
	readonly category: string;
	readonly message: string;
	readonly [field: string]: unknown;
}

/** Ports for `env` of {@link startServer}. */
export interface Ports {
	readonly PORT: string;
	readonly MQTT_TCP_PORT: string;
}

export interface ServerProcess {
	readonly pid: number;
	readonly wsPort: number;
	/** This one and the next two are 0 while the listener is off. */
	readonly wssPort: number;
	readonly tcpPort: number;
	readonly tlsPort: number;
	readonly wsUrl: string;
	readonly tcpUrl: string;
	/** All that it has logged. */
	readonly log: readonly LogLine[];
	/** Settles when the process is gone and all its output has come. */
	readonly ended: Promise<Ended>;
	/** Sends a signal and waits for the end. */
	kill(signal: "SIGTERM" | "SIGINT" | "SIGKILL"): Promise<Ended>;
}

/** Starts a server and waits until it is ready. It is on free ports, lets everybody in and keeps nothing, unless `env` says otherwise. */
export async function startServer(t: Cleanup, env: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
	const { pid, log, ended, send } = spawnServer(t, [], env);
	await new Promise<void>((resolve, reject) => {
		const fail = (why: string) => {
			send("SIGKILL");
			void ended.then(({ stderr }) => reject(new Error(`the server ${why}:\n${stderr}`)));
		};
		const timer = setTimeout(() => fail(`was not ready after ${READY_MS} ms`), READY_MS);
		const stop = () => clearTimeout(timer);
		log.onLine = ({ message }) => {
			if (message !== "Shoal is ready") return;
			stop();
			resolve();
		};
		void ended.then(({ code, signal }) => {
			stop();
			fail(`ended with ${signal ?? code} before it was ready`);
		});
	});
	const portOf = (transport: string): number =>
		Number(log.lines.find((line) => line.message === "Listening" && line.transport === transport)?.port ?? 0);
	return {
		pid,
		wsPort: portOf("ws"),
		wssPort: portOf("wss"),
		tcpPort: portOf("tcp"),
		tlsPort: portOf("tls"),
		wsUrl: `ws://127.0.0.1:${portOf("ws")}/mqtt`,
		tcpUrl: `mqtt://127.0.0.1:${portOf("tcp")}`,
		log: log.lines,
		ended,
		kill: (signal) => {
			send(signal);
			return ended;
		},
	};
}

/** Starts a server with the suite in whose body this is called; `env` is asked at that time. What it answers can be used from the first test on. */
export function suiteServer(env: (t: Cleanup) => Readonly<Record<string, string>> = () => ({})): () => ServerProcess {
	const endings: (() => void | Promise<void>)[] = [];
	const t: Cleanup = { after: (ending) => void endings.unshift(ending) };
	let server: ServerProcess | undefined;
	before(async () => {
		server = await startServer(t, env(t));
	});
	after(async () => {
		for (const ending of endings) await ending();
	});
	return () => {
		if (server === undefined) throw new Error("the server of a suite can be used within its tests only");
		return server;
	};
}

/** Runs a server that is expected to end by itself. Settings are as in {@link startServer}. */
export function runServer(t: Cleanup, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
	return spawnServer(t, args, env).ended;
}

/** A new empty folder that goes with the test. */
export function createFolder(t: Cleanup): string {
	const folder = mkdtempSync(join(tmpdir(), "shoal-process-"));
	t.after(() => rmSync(folder, { recursive: true, force: true }));
	return folder;
}

/**
 * Free ports for a server that comes back at the same place. They lie below the range of which the system gives out ports by
 * itself: within it a client that tries while nobody listens may be given the very port that it connects to, and so hear itself.
 */
export async function reservePorts(): Promise<Ports> {
	return { PORT: String(await reservePort()), MQTT_TCP_PORT: String(await reservePort()) };
}

async function reservePort(): Promise<number> {
	for (;;) {
		const port = 10_000 + Math.floor(Math.random() * 20_000);
		const free = await new Promise<boolean>((resolve) => {
			const server = createServer();
			server.once("error", () => resolve(false));
			server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
		});
		if (free) return port;
	}
}

/** Collects the lines of a log as they come. */
class Log {
	readonly lines: LogLine[] = [];
	onLine: (line: LogLine) => void = () => {};
	#rest = "";

	take(text: string): void {
		const parts = (this.#rest + text).split("\n");
		this.#rest = parts.pop() as string;
		for (const part of parts) {
			// What a runtime says itself is no log line.
			if (!part.startsWith("{")) continue;
			const line = JSON.parse(part) as LogLine;
			this.lines.push(line);
			this.onLine(line);
		}
	}
}

function spawnServer(t: Cleanup, args: readonly string[], env: Readonly<Record<string, string>>) {
	const run = "Deno" in globalThis ? ["run", "-A"] : [];
	const inherited = Object.fromEntries(INHERITED.map((name) => [name, process.env[name]]).filter(([, value]) => value !== undefined));
	const child: ChildProcess = spawn(process.execPath, [...run, "server.ts", ...args], {
		cwd: root,
		env: {
			...inherited,
			...{ NO_COLOR: "1", HOST: "127.0.0.1", PORT: "0", MQTT_TCP_PORT: "0", STORE: "memory", LOG_FORMAT: "json" },
			...{ SYS_INTERVAL_SECONDS: "0", DRAIN_SECONDS: "0", ...env },
		},
		stdio: ["ignore", "pipe", "pipe"],
	});
	const log = new Log();
	let stdout = "";
	let stderr = "";
	child.stdout?.setEncoding("utf8").on("data", (text: string) => {
		stdout += text;
	});
	child.stderr?.setEncoding("utf8").on("data", (text: string) => {
		stderr += text;
		log.take(text);
	});
	const ended = new Promise<Ended>((resolve, reject) => {
		child.once("error", reject);
		child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
	});
	const pid = child.pid as number;
	let running = true;
	child.once("exit", () => {
		running = false;
	});
	// Not by child.kill: Deno then reports that signal as the end of a process that handled it and exited.
	const send = (signal: NodeJS.Signals) => running && process.kill(pid, signal);
	t.after(async () => {
		send("SIGKILL");
		await ended;
	});
	return { pid, log, ended, send };
}
