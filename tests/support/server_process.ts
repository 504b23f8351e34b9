/**
 * `server.ts` as a process of its own, on the runtime that runs the test: started with an environment, known to be ready by
 * its log, ended with a signal or with the test. Knows nothing of MQTT.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, before } from "node:test";
import { fileURLToPath } from "node:url";
import { type Ended, Program } from "./program.ts";
import type { Cleanup } from "./test_broker.ts";

export type { Ended } from "./program.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
/** What a server needs of the environment of the test; settings of the broker that happen to be there are none of its business. */
const INHERITED = ["PATH", "HOME", "TMPDIR", "DENO_DIR", "XDG_CACHE_HOME"];
/** On free ports, and with nothing kept. */
const DEFAULTS = {
	NO_COLOR: "1",
	HOST: "127.0.0.1",
	PORT: "0",
	MQTT_TCP_PORT: "0",
	STORE: "memory",
	LOG_FORMAT: "json",
	SYS_INTERVAL_SECONDS: "0",
	DRAIN_SECONDS: "0",
};

type Environment = Readonly<Record<string, string>>;

/** One line of the log. */
export interface LogLine {
	readonly level: string;
	readonly category: string;
	readonly message: string;
	readonly [field: string]: unknown;
}

/** Ports for `env` of {@link startServer}. */
export type Ports = Readonly<Record<"PORT" | "MQTT_TCP_PORT", string>>;

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

/** What a server runs on. */
export type Runtime = "bun" | "deno";

/** The runtime that runs the test. */
export const OWN_RUNTIME: Runtime = "Deno" in globalThis ? "deno" : "bun";

/**
 * Starts a server and waits until it is ready. It is on free ports, knows no users and keeps nothing, unless `env` says otherwise.
 * @param folder Of another copy of the sources.
 */
export async function startServer(
	t: Cleanup,
	env: Environment = {},
	runtime: Runtime = OWN_RUNTIME,
	folder: string = root,
): Promise<ServerProcess> {
	const program = startProgram(t, [], env, runtime, folder);
	await program.until("server that is ready", () => linesOf(program).find(({ message }) => message === "Shoal is ready"));
	const listening = linesOf(program).filter(({ message }) => message === "Listening");
	const portOf = (transport: string): number => Number(listening.find((line) => line.transport === transport)?.port ?? 0);
	return {
		pid: program.pid,
		wsPort: portOf("ws"),
		wssPort: portOf("wss"),
		tcpPort: portOf("tcp"),
		tlsPort: portOf("tls"),
		wsUrl: `ws://127.0.0.1:${portOf("ws")}/mqtt`,
		tcpUrl: `mqtt://127.0.0.1:${portOf("tcp")}`,
		get log() {
			return linesOf(program);
		},
		ended: program.ended,
		kill: (signal) => program.kill(signal),
	};
}

/**
 * Starts a server with the suite in whose body this is called; `env` is asked for its environment at that time. What it
 * answers can be called from the first test on.
 */
export function suiteServer(env: (t: Cleanup) => Environment = () => ({})): () => ServerProcess {
	const t = suiteCleanup();
	let server: ServerProcess | undefined;
	before(async () => {
		server = await startServer(t, env(t));
	});
	return () => {
		if (server === undefined) throw new Error("the server of a suite can be used within its tests only");
		return server;
	};
}

/** For the suite in whose body this is called: what is registered ends with it, last first. */
export function suiteCleanup(): Cleanup {
	const endings: (() => void | Promise<void>)[] = [];
	after(async () => {
		for (const ending of endings) await ending();
	});
	return { after: (ending) => void endings.unshift(ending) };
}

/** Runs a server that is expected to end by itself. Settings are as in {@link startServer}. */
export function runServer(t: Cleanup, args: readonly string[], env: Environment = {}): Promise<Ended> {
	return startProgram(t, args, env).ended;
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

function startProgram(t: Cleanup, args: readonly string[], env: Environment, runtime: Runtime = OWN_RUNTIME, cwd: string = root): Program {
	const run = runtime === "deno" ? ["run", "-A"] : [];
	const command = runtime === OWN_RUNTIME ? process.execPath : join(root, "node_modules/.bin", runtime);
	const inherited = Object.fromEntries(INHERITED.map((name) => [name, process.env[name]]).filter(([, value]) => value !== undefined));
	return Program.start(t, command, [...run, "server.ts", ...args], { cwd, env: { ...inherited, ...DEFAULTS, ...env } });
}

/** The whole lines of its log. What a runtime says by itself is none. */
function linesOf(program: Program): LogLine[] {
	const lines = program.stderr.split("\n").slice(0, -1);
	return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as LogLine);
}
