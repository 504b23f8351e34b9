/**
 * `npm test`: everything that must hold before a change goes in, step by step, each said in a sentence. CI runs the same.
 * A step is quiet when it passes and shows all it has when it fails; the last line is `N passed, N failed`.
 */

import { availableParallelism } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { measureCoverage } from "./coverage.mjs";
import { compareTitles } from "./report.mjs";
import { installPackages, installTools, root } from "./setup.mjs";
import { findTestFiles, runProcess, runTestFiles } from "./test_files.mjs";

/**
 * @typedef {{ summary: string, problems: string[], passed?: number, failed?: number }} StepResult
 * `problems` is what to show; a step without any passes. `passed` and `failed` count tests.
 * @typedef {{ key: string, sentence: string, run: () => StepResult | Promise<StepResult> }} Step
 */

const HELP = `Usage: npm test -- [options] [part of a test file's path ...]

Without arguments: every step, over all files, as CI runs it. With paths: only those test files, on both runtimes.

  --only a,b   only these steps: tools, format, types, layers, unused, bun, deno, same, coverage
  --jobs n     test files at a time (default: ${availableParallelism()}, one for each processor)
  --help       this text

  npm test -- tests/mqtt                    two runtimes, one folder
  npm test -- --only bun tests/session      quicker still
`;

/** What the runtimes say of each test that passes. */
const PASSED_LINE = /^(?:\(pass\) .*|.* \.\.\. ok \(.*\))\n/gm;

const ARCHITECTURE = "tests/architecture.test.ts";

const { values: options, positionals } = parseArgs({
	allowPositionals: true,
	options: { only: { type: "string" }, jobs: { type: "string" }, help: { type: "boolean" } },
});

/** @type {Map<import("./test_files.mjs").Runtime, import("./test_files.mjs").FileResult[]>} */
const suites = new Map();

/** @type {readonly Step[]} */
const STEPS = [
	{ key: "tools", sentence: "What the tests need is installed", run: checkTools },
	{ key: "format", sentence: "Formatted and linted", run: () => runTool("biome", ["check", "--error-on-warnings", "--colors=off", "."]) },
	{ key: "types", sentence: "Types hold on both runtimes", run: checkTypes },
	{
		key: "layers",
		sentence: "Layers point one way",
		run: async () => judge(await runTestFiles("bun", [ARCHITECTURE], { coverage: false })),
	},
	{ key: "unused", sentence: "Nothing is unused", run: () => runTool("knip", ["--no-progress", "--no-config-hints"]) },
	{ key: "bun", sentence: "Tests pass on Bun", run: () => runSuite("bun") },
	{ key: "deno", sentence: "Tests pass on Deno", run: () => runSuite("deno") },
	{ key: "same", sentence: "Both runtimes ran the same tests", run: checkSameTests },
	{ key: "coverage", sentence: "Coverage", run: checkCoverage },
	{ key: "normative", sentence: "Every normative statement has a test, or a reason why not", run: checkNormative },
];

if (options.help) process.stdout.write(HELP);
else process.exitCode = await main();

async function main() {
	const steps = chooseSteps();
	try {
		installPackages();
	} catch (error) {
		console.log(`FAILED  Packages are installed: ${error instanceof Error ? error.message : error}\n\n0 passed, 1 failed`);
		return 1;
	}
	let passed = 0;
	let failed = 0;
	let tests = 0;
	for (const step of steps) {
		const startedAt = performance.now();
		const result = await runStep(step);
		const failing = result.problems.length > 0;
		const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
		console.log(`${failing ? "FAILED" : "ok"}  ${step.sentence} (${seconds} s)${result.summary === "" ? "" : `: ${result.summary}`}`);
		for (const problem of result.problems) console.log(problem.trimEnd().replace(/^/gm, "    "));
		tests += (result.passed ?? 0) + (result.failed ?? 0);
		passed += (result.passed ?? 0) + (failing ? 0 : 1);
		failed += (result.failed ?? 0) + (failing ? 1 : 0);
	}
	const noTests = tests === 0 && steps.some((step) => step.key === "bun" || step.key === "deno");
	if (noTests) console.log("No test ran");
	console.log(`\n${passed} passed, ${failed} failed`);
	return failed > 0 || noTests ? 1 : 0;
}

/**
 * A step that breaks has failed, and the others still run.
 * @param {Step} step
 * @returns {Promise<StepResult>}
 */
async function runStep(step) {
	try {
		return await step.run();
	} catch (error) {
		return { summary: "", problems: [error instanceof Error ? String(error.stack) : String(error)] };
	}
}

function chooseSteps() {
	const keys = options.only?.split(",") ?? (positionals.length > 0 ? ["bun", "deno", "same"] : STEPS.map((step) => step.key));
	const unknown = keys.filter((key) => !STEPS.some((step) => step.key === key));
	if (unknown.length > 0) {
		console.error(`--only names no step: ${unknown.join(", ")}\n\n${HELP}`);
		process.exit(1);
	}
	// These two judge what the suites left behind.
	if (keys.includes("coverage") || keys.includes("same")) keys.push("bun", "deno");
	return STEPS.filter((step) => keys.includes(step.key));
}

/** @returns {StepResult} */
function checkTools() {
	const missing = installTools();
	if (missing.length === 0) return { summary: "", problems: [] };
	const remedy = `apt-get could not be used, or it failed. On Debian or Ubuntu, as root: apt-get install ${missing.join(" ")}`;
	return { summary: `${missing.join(", ")} missing`, problems: [`The tests that need them will fail. ${remedy}`] };
}

/**
 * Runs a tool of `node_modules` that says nothing useful when it finds nothing.
 * @param {string} name
 * @param {readonly string[]} args
 * @returns {Promise<StepResult>}
 */
async function runTool(name, args) {
	const { output, end } = await runProcess(join(root, "node_modules/.bin", name), args);
	return { summary: "", problems: end === 0 ? [] : [`${[name, ...args].join(" ")}\n${output}`] };
}

/** @returns {Promise<StepResult>} */
async function checkNormative() {
	const { output, end } = await runProcess(process.execPath, [join(root, "scripts/normative.mjs")]);
	return { summary: output.trim().split("\n").join("; "), problems: end === 0 ? [] : [output] };
}

/** @returns {Promise<StepResult>} */
async function checkTypes() {
	const results = await Promise.all([runTool("tsc", ["--noEmit", "-p", "."]), runTool("deno", ["check", "--quiet", "."])]);
	return { summary: "tsc, deno check", problems: results.flatMap((result) => result.problems) };
}

/**
 * @param {import("./test_files.mjs").Runtime} runtime
 * @returns {Promise<StepResult>}
 */
async function runSuite(runtime) {
	// The architecture is a step of its own.
	const files = findTestFiles(positionals).filter((file) => file !== ARCHITECTURE || positionals.length > 0);
	const coverage = chooseSteps().some((step) => step.key === "coverage");
	const results = await runTestFiles(runtime, files, { coverage, jobs: options.jobs === undefined ? undefined : Number(options.jobs) });
	suites.set(runtime, results);
	return judge(results);
}

/**
 * @param {readonly import("./test_files.mjs").FileResult[]} results
 * @returns {StepResult}
 */
function judge(results) {
	const outcomes = results.flatMap((result) => result.tests.map((test) => test.outcome));
	const passed = outcomes.filter((outcome) => outcome === "passed").length;
	const skipped = outcomes.filter((outcome) => outcome === "skipped").length;
	const failed = results.flatMap((result) => result.failures).length;
	const slowest = results.reduce((most, result) => (result.seconds > most.seconds ? result : most), { file: "none", seconds: 0 });
	return {
		summary: [
			`${passed} of ${outcomes.length} tests in ${results.length} files`,
			...(skipped > 0 ? [`${skipped} skipped`] : []),
			`slowest ${slowest.file} (${slowest.seconds.toFixed(1)} s)`,
		].join(", "),
		problems: results
			.filter((result) => result.failures.length > 0)
			.map(({ file, failures, output }) =>
				[...failures.map((failure) => `${file}: ${failure}`), output.replace(PASSED_LINE, "")].join("\n"),
			),
		passed,
		failed,
	};
}

/** A runtime that drops tests without a word is found here. @returns {StepResult} */
function checkSameTests() {
	const problems = [];
	for (const onBun of suites.get("bun") ?? []) {
		const { file } = onBun;
		const onDeno = suites.get("deno")?.find((result) => result.file === file);
		// A file that broke may have dropped tests, and has failed already.
		if (onDeno === undefined || onBun.failures.length + onDeno.failures.length > 0) continue;
		const { onlyBun, onlyDeno } = compareTitles(titlesOf(onBun), titlesOf(onDeno));
		problems.push(
			...onlyBun.map((title) => `${file}: only on Bun: ${title}`),
			...onlyDeno.map((title) => `${file}: only on Deno: ${title}`),
		);
	}
	return { summary: "", problems };
}

/** @param {import("./test_files.mjs").FileResult} result */
function titlesOf(result) {
	return result.tests.map((test) => test.title);
}

/** @returns {Promise<StepResult>} */
async function checkCoverage() {
	const { table, problems } = await measureCoverage();
	return { summary: `\n${table.replace(/^/gm, "    ")}`, problems };
}
