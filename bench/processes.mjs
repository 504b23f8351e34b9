/**
 * Processes and folders of the benchmark: starts them, keeps count, and ends and removes all of them, whatever happens.
 * Knows nothing of brokers.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

/** @typedef {import("node:child_process").ChildProcess} ChildProcess */

const READY_MS = 15_000;
const END_MS = 3000;
const POLL_MS = 20;
/** Characters kept of what a process says. */
const TAIL = 20_000;

/** @type {Set<ChildProcess>} */
const running = new Set();
/** @type {Set<string>} */
const folders = new Set();

/** Ends what is left, at once. Safe to call at any time, also while the process exits. */
export function endEverything() {
	for (const child of running) child.kill("SIGKILL");
	for (const folder of folders) rmSync(folder, { recursive: true, force: true });
	folders.clear();
}

/** A folder that is removed at the end. */
export function temporaryFolder() {
	const folder = mkdtempSync(join(tmpdir(), "shoal-bench-"));
	folders.add(folder);
	return folder;
}

/** @param {string} folder */
export function removeFolder(folder) {
	rmSync(folder, { recursive: true, force: true });
	folders.delete(folder);
}

/** The full name of a program, or `undefined`. @param {string} name */
export function findProgram(name) {
	const places = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin"];
	return places.map((place) => join(place, name)).find((file) => existsSync(file));
}

/** One core for the broker and one for the generator; `undefined` where there is but one, or no `taskset`. */
export function chooseCores() {
	const status = existsSync("/proc/self/status") ? readFileSync("/proc/self/status", "utf8") : "";
	const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? "";
	const cores = list.split(",").flatMap((range) => {
		const [first = Number.NaN, last = first] = range.split("-").map(Number);
		return Array.from({ length: last - first + 1 || 0 }, (_, index) => first + index);
	});
	const [broker, generator] = cores;
	if (broker === undefined || generator === undefined || findProgram("taskset") === undefined) return undefined;
	return { broker, generator };
}

/**
 * Starts a program, on one core if that is given.
 * @param {readonly string[]} command
 * @param {{ core?: number | undefined, env?: Record<string, string>, cwd?: string }} [options]
 */
export function start(command, { core, env = {}, cwd } = {}) {
	const [program = "", ...args] = core === undefined ? command : ["taskset", "-c", String(core), ...command];
	const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"], ...(cwd ? { cwd } : {}) });
	const said = { stdout: "", stderr: "" };
	child.stdout.on("data", (data) => {
		said.stdout = (said.stdout + data).slice(-TAIL);
	});
	child.stderr.on("data", (data) => {
		said.stderr = (said.stderr + data).slice(-TAIL);
	});
	child.on("error", (error) => {
		said.stderr += error.message;
	});
	running.add(child);
	const ended = new Promise((resolve) => child.on("close", resolve).on("error", resolve)).then(() => running.delete(child));
	return { child, said, ended };
}

/** Runs a program to its end and answers what it printed. @param {readonly string[]} command @param {Parameters<typeof start>[1] & { timeoutMs?: number }} [options] */
export async function run(command, { timeoutMs = 60_000, ...options } = {}) {
	const { child, said, ended } = start(command, options);
	const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
	await ended;
	clearTimeout(timer);
	return { status: child.exitCode, ...said };
}

/** Ends a process: politely, then at once. @param {ReturnType<typeof start>} started */
export async function end({ child, ended }) {
	child.kill("SIGTERM");
	const timer = setTimeout(() => child.kill("SIGKILL"), END_MS);
	await ended;
	clearTimeout(timer);
}

/** A port of the loopback interface that nobody listens on. */
export async function freePort() {
	const server = createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	const address = server.address();
	server.close();
	await once(server, "close");
	if (typeof address !== "object" || address === null) throw new Error("No port is free on 127.0.0.1");
	return address.port;
}

/** Waits until a process listens. @param {ReturnType<typeof start>} started @param {number} port @param {string} name */
export async function listening({ child, said }, port, name) {
	for (const deadline = Date.now() + READY_MS; Date.now() < deadline; await sleep(POLL_MS)) {
		if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) break;
		if (await answers(port)) return child.pid;
	}
	throw new Error(`${name} does not listen on port ${port}: ${said.stderr.trim() || "it says nothing"}`);
}

/** @param {number} port @returns {Promise<boolean>} */
function answers(port) {
	return new Promise((resolve) => {
		const socket = connect({ host: "127.0.0.1", port });
		const tell = (/** @type {boolean} */ answer) => {
			socket.destroy();
			resolve(answer);
		};
		socket.once("connect", () => tell(true));
		socket.once("error", () => tell(false));
	});
}
