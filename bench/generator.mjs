/** The load generator: compiles `generator.cpp` with `clients.hpp` when that is not done yet, runs it against a broker and reads its result. */

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { findProgram, run } from "./processes.mjs";

/**
 * @typedef {import("./scenarios.mjs").Scenario} Scenario
 * @typedef {{
 *   count: number, seconds: number, brokerCpuSeconds: number, generatorCpuSeconds: number, rssBytes: number, problems: string[],
 *   packetsPerFrame?: number, packetsPerRead?: number, p50?: number, p99?: number, p999?: number, bytesPerConnection?: number,
 * }} Result
 * `count` is messages delivered, or connections; latencies are µs.
 */

const SOURCE = fileURLToPath(new URL("generator.cpp", import.meta.url));
const HEADER = fileURLToPath(new URL("clients.hpp", import.meta.url));
const CACHE = fileURLToPath(new URL("../node_modules/.cache/shoal-bench", import.meta.url));
/** Beyond warm-up and measuring: to connect, and to wait for what does not come. */
const MORE_MS = 60_000;

/** Answers the name of the program. Throws with the remedy. */
export async function compileGenerator() {
	const version = createHash("sha256").update(readFileSync(SOURCE)).update(readFileSync(HEADER)).digest("hex").slice(0, 16);
	const program = join(CACHE, `generator-${version}`);
	if (existsSync(program)) return program;
	const compiler = findProgram("g++") ?? findProgram("c++");
	if (compiler === undefined) throw new Error("The load generator needs a C++ compiler: apt-get install g++");
	mkdirSync(dirname(program), { recursive: true });
	// Another run may compile at the same time: a program appears whole or not at all.
	const unfinished = `${program}.${process.pid}`;
	const { status, stderr } = await run([compiler, "-O2", "-std=c++17", "-o", unfinished, SOURCE]);
	if (status !== 0) throw new Error(`The load generator does not compile: ${stderr}`);
	renameSync(unfinished, program);
	return program;
}

/**
 * @param {string} program
 * @param {Scenario} scenario
 * @param {{ port: number, pid: number, subscriberPort?: number, otherPid?: number }} broker
 * @param {{ core: number | undefined, seconds: number, warmup: number, payload: number, pack: boolean }} options
 * @returns {Promise<Result>}
 */
export async function generate(
	program,
	scenario,
	{ port, pid, subscriberPort = port, otherPid = 0 },
	{ core, seconds, warmup, payload, pack },
) {
	const settings = {
		port,
		pid,
		subscriberPort,
		otherPid,
		seconds,
		warmup,
		payload,
		pack: Number(pack),
		persistent: Number(scenario.persistent),
	};
	const args = Object.entries({ ...settings, ...scenario.generator }).flatMap(([name, value]) => [`--${name}`, String(value)]);
	const { stdout, stderr } = await run([program, ...args], { core, timeoutMs: (seconds + warmup) * 1000 + MORE_MS });
	const line = stdout.trim();
	if (line === "") throw new Error(`The load generator ended without a result. ${stderr}`);
	return JSON.parse(line);
}
