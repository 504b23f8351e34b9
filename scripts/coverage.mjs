/**
 * Merges the coverage that both runtimes measured and judges the branches of the protocol core by Deno's figure, as Bun
 * measures none. Reads what `test_files.mjs` left in the results folder.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { root } from "./setup.mjs";
import { results, runProcess } from "./test_files.mjs";

/** Folders that must be covered, in lines and in branches: Deno counts no branch in a function that never ran. */
const REQUIRED = ["src/mqtt", "src/session"];
const REQUIRED_PERCENT = 95;

/** @typedef {{ lines: Map<string, number>, branches: Map<string, number> }} FileCoverage hits by line, and by branch */

/**
 * @returns {Promise<{ table: string, problems: string[] }>} coverage by folder, and what is not enough of it
 */
export async function measureCoverage() {
	/** @type {Map<string, FileCoverage>} */
	const files = new Map();
	for (const report of readdirSync(join(results, "bun"), { recursive: true, encoding: "utf8" })) {
		if (report.endsWith("lcov.info")) addReport(files, readFileSync(join(results, "bun", report), "utf8"));
	}
	const problems = [];
	const lcov = join(results, "deno/lcov.info");
	const { output } = await runProcess(join(root, "node_modules/.bin/deno"), [
		"coverage",
		"--lcov",
		`--output=${lcov}`,
		join(results, "deno/profiles"),
	]);
	if (existsSync(lcov)) addReport(files, readFileSync(lcov, "utf8"));
	else problems.push(`Deno wrote no coverage report: ${output}`);

	const all = sourceFiles();
	const rows = [["folder", "files", "lines", "branches"]];
	for (const folder of new Set(all.map(folderOf))) {
		const sources = all.filter((file) => folderOf(file) === folder);
		const lines = share(sources.flatMap((file) => [...(files.get(file)?.lines.values() ?? [])]));
		const branches = share(sources.flatMap((file) => [...(files.get(file)?.branches.values() ?? [])]));
		rows.push([folder, String(sources.length), shown(lines), shown(branches)]);
		if (!REQUIRED.includes(folder)) continue;
		problems.push(...sources.filter((file) => !files.has(file) && hasCode(file)).map((file) => `${file}: no test loads it`));
		if (lines < REQUIRED_PERCENT)
			problems.push(`${folder}: ${REQUIRED_PERCENT}% of the lines are required. Never run:`, ...missed(sources, files, "lines"));
		if (branches < REQUIRED_PERCENT)
			problems.push(`${folder}: ${REQUIRED_PERCENT}% of the branches are required. Never taken:`, ...missed(sources, files, "branches"));
	}
	return {
		table: rows.map(([folder = "", ...cells]) => [folder.padEnd(16), ...cells.map((cell) => cell.padStart(10))].join("")).join("\n"),
		problems,
	};
}

/**
 * Each file with the lines that were not run, or whose branches were not taken.
 * @param {readonly string[]} sources
 * @param {ReadonlyMap<string, FileCoverage>} files
 * @param {keyof FileCoverage} kind
 */
function missed(sources, files, kind) {
	return sources.flatMap((file) => {
		const never = [...(files.get(file)?.[kind] ?? [])].filter(([, hits]) => hits === 0).map(([place]) => Number.parseInt(place, 10));
		return never.length === 0 ? [] : [`  ${file}: ${ranges([...new Set(never)].sort((one, other) => one - other))}`];
	});
}

/** Writes 3, 4, 5, 9 as `3-5, 9`. @param {readonly number[]} numbers ascending */
function ranges(numbers) {
	const starts = numbers.filter((number) => !numbers.includes(number - 1));
	const ends = numbers.filter((number) => !numbers.includes(number + 1));
	return starts.map((start, index) => (start === ends[index] ? `${start}` : `${start}-${ends[index]}`)).join(", ");
}

/** Files under `src/`, sorted. */
function sourceFiles() {
	const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
	return files.map((file) => `src/${file}`).sort();
}

/**
 * Adds the hits of an lcov report, whose paths may be absolute or relative.
 * @param {Map<string, FileCoverage>} files
 * @param {string} lcov
 */
function addReport(files, lcov) {
	/** @type {FileCoverage} */
	let current = { lines: new Map(), branches: new Map() };
	for (const line of lcov.split("\n")) {
		const [, kind, rest = ""] = /^(SF|DA|BRDA):(.*)$/.exec(line) ?? [];
		if (kind === "SF") {
			const file = relative(root, join(rest.startsWith("/") ? "" : root, rest));
			current = files.get(file) ?? { lines: new Map(), branches: new Map() };
			files.set(file, current);
		} else if (kind !== undefined) {
			const cut = rest.lastIndexOf(",");
			const hits = kind === "DA" ? current.lines : current.branches;
			hits.set(rest.slice(0, cut), (hits.get(rest.slice(0, cut)) ?? 0) + (Number(rest.slice(cut + 1)) || 0));
		}
	}
}

/** Folder of a source file, one level below `src` at most. @param {string} file */
const folderOf = (file) => file.split("/").slice(0, -1).slice(0, 2).join("/");

/** Whether there is anything to cover in a file, rather than types and constants. @param {string} file */
const hasCode = (file) => /\bfunction\b|\bclass\b/.test(readFileSync(join(root, file), "utf8").replace(/\/\*[\s\S]*?\*\//g, ""));

/** Per cent of the entries that were hit; not a number when there are none. @param {readonly number[]} hits */
const share = (hits) => (100 * hits.filter((count) => count > 0).length) / hits.length;

/** Rounded down, so that 95.0% is 95. @param {number} percent */
const shown = (percent) => (Number.isNaN(percent) ? "-" : `${(Math.floor(percent * 10) / 10).toFixed(1)}%`);
