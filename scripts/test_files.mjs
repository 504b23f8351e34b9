/**
 * Runs test files on one runtime, each in a process of its own, so that a file that hangs or crashes takes no other with it
 * and is named. Knows how to start `bun test` and `deno test`; what their reports mean is in `report.mjs`.
 */

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { readBunReport, readDenoReport } from "./report.mjs";
import { root } from "./setup.mjs";

/**
 * @typedef {"bun" | "deno"} Runtime
 * @typedef {{ file: string, tests: import("./report.mjs").TestCase[], failures: string[], output: string, seconds: number }} FileResult
 */

/** After this time a file is killed. */
const FILE_MS = 10 * 60_000;
/** Bun gives a test 5 seconds unless told otherwise; Deno sets no limit. */
const BUN_TEST_MS = 2 * 60_000;
const PIPES_MS = 2000;
const OUTPUT_LIMIT = 1_000_000;

/** Folder of reports and coverage data, for this run only. */
export const results = mkdtempSync(join(tmpdir(), "shoal-check-"));

/** @type {Set<number>} */
const running = new Set();
const clear = () => rmSync(results, { recursive: true, force: true });
process.once("exit", clear);
for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
	process.once(signal, () => {
		for (const pid of running) killGroup(pid);
		clear();
		process.kill(process.pid, signal);
	});
}

/**
 * Test files under `tests/` whose path contains one of the given words; all files when there are none.
 * @param {readonly string[]} words
 */
export function findTestFiles(words) {
	const files = readdirSync(join(root, "tests"), { recursive: true, encoding: "utf8" });
	const tests = files.filter((file) => file.endsWith(".test.ts")).map((file) => `tests/${file}`);
	return tests.filter((file) => words.length === 0 || words.some((word) => file.includes(word.replace(/^\.\//, "")))).sort();
}

/**
 * @param {Runtime} runtime
 * @param {readonly string[]} files
 * @param {{ coverage: boolean, jobs?: number | undefined }} options
 * @returns {Promise<FileResult[]>} in the order of the files
 */
export async function runTestFiles(runtime, files, { coverage, jobs = availableParallelism() }) {
	mkdirSync(join(results, runtime), { recursive: true });
	/** @type {FileResult[]} */
	const finished = [];
	const waiting = [...files.entries()];
	const work = async () => {
		for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
			const [index, file] = next;
			finished[index] = await runFile(runtime, file, coverage);
		}
	};
	await Promise.all(Array.from({ length: jobs }, work));
	return finished;
}

/**
 * @param {Runtime} runtime
 * @param {string} file
 * @param {boolean} coverage
 * @returns {Promise<FileResult>}
 */
async function runFile(runtime, file, coverage) {
	const base = join(results, runtime, file.replaceAll("/", "-"));
	const report = `${base}.xml`;
	const uncaught = `${base}.uncaught`;
	const args = runtime === "bun" ? bunArguments(file, report, coverage ? base : undefined) : denoArguments(file, report, coverage);
	const startedAt = performance.now();
	const { output, end } = await runProcess(join(root, "node_modules/.bin", runtime), args, { UNCAUGHT_FILE: uncaught });
	const tests = existsSync(report) ? (runtime === "bun" ? readBunReport : readDenoReport)(readFileSync(report, "utf8")) : [];
	const failures = tests.filter((test) => test.outcome === "failed").map((test) => test.title);
	// Each of these is something that no test of the report shows.
	if (end === undefined) failures.push(`was killed after ${FILE_MS / 60_000} minutes`);
	else if (end !== 0 && failures.length === 0) failures.push(`ended with ${end} although no test failed`);
	else if (tests.length === 0 && failures.length === 0) failures.push("has no tests");
	else if (existsSync(uncaught) && failures.length === 0) failures.push(`no test caught: ${readFileSync(uncaught, "utf8")}`);
	return { file, tests, failures, output, seconds: (performance.now() - startedAt) / 1000 };
}

/**
 * @param {string} file
 * @param {string} report
 * @param {string | undefined} coverageFolder
 */
function bunArguments(file, report, coverageFolder) {
	const coverage = coverageFolder === undefined ? [] : ["--coverage", "--coverage-reporter=lcov", `--coverage-dir=${coverageFolder}`];
	return ["test", `--timeout=${BUN_TEST_MS}`, "--reporter=junit", `--reporter-outfile=${report}`, ...coverage, `./${file}`];
}

/**
 * @param {string} file
 * @param {string} report
 * @param {boolean} coverage
 */
function denoArguments(file, report, coverage) {
	const data = coverage ? [`--coverage=${join(results, "deno/profiles")}`, "--coverage-raw-data-only"] : [];
	return ["test", "--quiet", "--no-check", "-A", "--preload=scripts/deno_uncaught.mjs", `--junit-path=${report}`, ...data, file];
}

/**
 * Runs a program to its end, with all its output; `end` is its exit code or signal, `undefined` when it was killed for taking too long.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {Record<string, string>} [env]
 * @returns {Promise<{ output: string, end: number | string | undefined }>}
 */
export function runProcess(command, args, env = {}) {
	return new Promise((resolve) => {
		// A group of its own: whatever a test has started ends with it.
		const child = spawn(command, args, {
			cwd: root,
			env: { ...process.env, NO_COLOR: "1", ...env },
			detached: true,
			stdio: ["ignore", "pipe", "pipe"],
		});
		const { pid } = child;
		let output = "";
		let tooLong = false;
		if (pid !== undefined) running.add(pid);
		const timer = setTimeout(() => {
			tooLong = true;
			if (pid !== undefined) killGroup(pid);
		}, FILE_MS);
		for (const stream of [child.stdout, child.stderr]) {
			stream.setEncoding("utf8").on("data", (text) => {
				if (output.length < OUTPUT_LIMIT) output += text;
			});
		}
		/** @type {number | string} */
		let end = 1;
		const finish = () => {
			clearTimeout(timer);
			if (pid !== undefined) running.delete(pid);
			resolve({ output, end: tooLong ? undefined : end });
		};
		child.on("exit", (code, signal) => {
			end = signal ?? code ?? 1;
			if (pid !== undefined) killGroup(pid);
			// A program that left the group may hold the pipes open: what it says is not waited for.
			setTimeout(finish, PIPES_MS).unref();
		});
		child.on("close", finish);
		child.on("error", (error) => {
			end = error.message;
			finish();
		});
	});
}

/** @param {number} pid */
function killGroup(pid) {
	try {
		process.kill(-pid, "SIGKILL");
	} catch {
		// ESRCH: nobody of the group is left.
	}
}
