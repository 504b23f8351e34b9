/**
 * The benchmark: `node bench/run.mjs`, or `npm run bench`. Starts each broker anew for each scenario and round, in turn, puts
 * the same load on it, and prints tables. `docs/performance.md` says how to read them.
 */

import { writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import process from "node:process";
import { parseArgs } from "node:util";
import { installPackages } from "../scripts/setup.mjs";
import { aedes, mosquitto, shoal } from "./brokers.mjs";
import { compileGenerator, generate } from "./generator.mjs";
import { chooseCores, endEverything, temporaryFolder } from "./processes.mjs";
import { topFunctions } from "./profile.mjs";
import { bottlenecks, problems, tables } from "./report.mjs";
import { SCENARIOS, selectScenarios } from "./scenarios.mjs";

/** @typedef {import("./report.mjs").Run} Run */
/** @typedef {import("./brokers.mjs").Subject} Subject */

const HELP = `Usage: npm run bench -- [options], or node bench/run.mjs [options]

  --scenarios a,b   only these, by name or the beginning of it (default: all, see below)
  --runtimes a,b    bun, deno, or none (default: bun,deno)
  --peers a,b       mosquitto, aedes, or none (default: mosquitto,aedes)
  --against folder  another copy of this repository, measured beside this one
  --rounds n        rounds, of which the medians count (default: 3)
  --seconds n       measured in each run (default: 3)
  --warmup n        seconds before that (default: 1)
  --payload n       bytes, from 16 (default: 64)
  --pack            lets the load generator put several packets into one frame
  --json file       writes every single result, too
  --profile         one round of a CPU profile of our own broker instead of tables
  --help            this text

Scenarios: ${SCENARIOS.map(({ name }) => name).join(", ")}
`;

const PROFILE_LINES = 15;

/** @satisfies {import("node:util").ParseArgsConfig["options"]} */
const OPTIONS = /** @type {const} */ ({
	scenarios: { type: "string", default: "" },
	runtimes: { type: "string", default: "bun,deno" },
	peers: { type: "string", default: "mosquitto,aedes" },
	against: { type: "string" },
	rounds: { type: "string", default: "3" },
	seconds: { type: "string", default: "3" },
	warmup: { type: "string", default: "1" },
	payload: { type: "string", default: "64" },
	pack: { type: "boolean", default: false },
	json: { type: "string" },
	profile: { type: "boolean", default: false },
	help: { type: "boolean", default: false },
});

process.on("exit", endEverything);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));

try {
	const { values } = parseArgs({ options: OPTIONS });
	if (values.help) process.stdout.write(HELP);
	else await main(values);
} catch (error) {
	console.error(error instanceof Error ? error.message : error);
	process.exitCode = 1;
}
// Nothing is left to wait for; a broker that does not end must not keep the benchmark.
process.exit();

/** @typedef {ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>["values"]} Values */

/** @param {Values} options */
async function main(options) {
	installPackages();
	const scenarios = selectScenarios(words(options.scenarios));
	const rounds = options.profile ? 1 : number("rounds", options.rounds);
	const load = {
		seconds: number("seconds", options.seconds),
		warmup: number("warmup", options.warmup),
		payload: number("payload", options.payload),
		pack: options.pack,
	};
	const cores = chooseCores();
	if (cores === undefined) console.error("Without two cores and taskset, the broker and the load generator share what there is");
	const program = await compileGenerator();
	const { subjects, pairs } = await chooseSubjects(options);

	/** @type {Run[]} */
	const runs = [];
	for (let round = 1; round <= rounds; round++) {
		for (const scenario of scenarios) {
			// Nobody is always first.
			for (const subject of [...subjects.slice(round % subjects.length), ...subjects.slice(0, round % subjects.length)]) {
				if (scenario.shape !== "alone" && subject.clusters !== true) continue;
				progress(`Round ${round} of ${rounds}: ${scenario.title}, ${subject.title}`);
				const profiles = options.profile ? temporaryFolder() : undefined;
				const broker = await subject.start(scenario, { core: cores?.broker, profiles });
				const result = await generate(program, scenario, broker, { ...load, core: cores?.generator });
				const complaint = await broker.stop();
				if (result.problems.length > 0 && complaint !== "") result.problems.push(`the broker says "${complaint}"`);
				runs.push({ subject: subject.key, scenario: scenario.name, round, result });
				if (profiles !== undefined) {
					progress("");
					console.log(`### ${scenario.title}, ${subject.title}\n\n${topFunctions(profiles, PROFILE_LINES)}\n`);
				}
			}
		}
	}
	progress("");
	if (!options.profile) {
		console.log(`${machine()}, ${rounds} rounds of ${load.seconds} s, payload ${load.payload} bytes.\n`);
		console.log(tables(runs, scenarios, subjects, pairs));
	}
	if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(runs, undefined, "\t")}\n`);
	for (const line of bottlenecks(runs)) console.log(`The load generator was the limit: ${line}`);
	const wrong = problems(runs);
	if (wrong.length > 0) throw new Error(`These runs failed:\n${wrong.join("\n")}`);
	console.log("Every message arrived once and in order.");
}

/** What is measured, and which of it is compared. @param {Values} options */
async function chooseSubjects(options) {
	const runtimes = words(options.runtimes).map((runtime) => {
		if (runtime === "bun" || runtime === "deno") return runtime;
		throw new Error(`"${runtime}" is not a runtime: expected bun, deno or none`);
	});
	const peers = options.profile ? [] : words(options.peers);
	const ours = runtimes.map((runtime) => shoal(runtime));
	const before = runtimes.filter(() => options.against !== undefined).map((runtime) => shoal(runtime, options.against));
	/** @type {Subject[]} */
	const others = [];
	for (const peer of peers) {
		if (peer === "aedes") progress("Installing Aedes");
		else if (peer !== "mosquitto") throw new Error(`"${peer}" is not a peer: expected mosquitto, aedes or none`);
		others.push(peer === "aedes" ? await aedes() : mosquitto());
	}
	const subjects = [...ours, ...before, ...others];
	if (subjects.length === 0) throw new Error("Nothing is to be measured: expected a runtime or a peer");
	const pairs = [
		...before.flatMap((peer, index) => ours.slice(index, index + 1).map((own) => ({ ours: own, peer }))),
		...others.flatMap((peer) => ours.map((own) => ({ ours: own, peer }))),
	];
	return { subjects, pairs };
}

/** @param {string} list */
function words(list) {
	return list === "none" ? [] : list.split(",").filter((word) => word !== "");
}

/** @param {string} name @param {string} text */
function number(name, text) {
	const value = Number(text);
	if (!(value > 0)) throw new Error(`--${name} is "${text}": expected a number above 0`);
	return value;
}

function machine() {
	return `${cpus()[0]?.model.trim() ?? "Unknown processor"}, ${availableParallelism()} cores`;
}

/** One line that is written over, where somebody watches. @param {string} text */
function progress(text) {
	if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
	else if (text !== "") console.error(text);
}
