/**
 * Which normative statements of MQTT bind a server, and which of them a test names. Compares `docs/normative.csv` with the
 * titles of all tests: `[MQTT-3.3.4-1]` stands for MQTT 5.0, `[v3 MQTT-3.3.4-1]` for 3.1.1. What no test can show is
 * excepted, with the reason, in `docs/normative_exceptions.csv`.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { root } from "./setup.mjs";

const VERSIONS = ["3.1.1", "5.0"];
/** Comments, which do not count, and strings: a title may stand in a table of cases rather than in the call of `test`. */
const COMMENT_OR_STRING = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/g;
const REFERENCE = /\[(v3 )?(MQTT-[\d.]+-\d+)\]/g;

process.exitCode = report() ? 0 : 1;

/** Prints the counts and answers whether every statement is accounted for. */
function report() {
	const statements = readTable("docs/normative.csv");
	const exceptions = readTable("docs/normative_exceptions.csv");
	const named = readTitles();
	const known = new Set(statements.map(keyOf));
	const excepted = new Set(exceptions.map(keyOf));
	const problems = [];
	for (const version of VERSIONS) {
		const own = statements.filter((statement) => statement.version === version);
		const missing = own.filter((statement) => !named.has(keyOf(statement)) && !excepted.has(keyOf(statement)));
		const tested = own.filter((statement) => named.has(keyOf(statement))).length;
		console.log(
			`MQTT ${version}: ${own.length} statements, ${tested} named by a test, ${own.length - tested - missing.length} excepted, ${missing.length} missing`,
		);
		problems.push(...missing.map(({ id, text }) => `MQTT ${version} ${id} has no test: ${text}`));
	}
	problems.push(
		...exceptions.filter((exception) => exception.text === "").map((exception) => `${keyOf(exception)} is excepted without a reason`),
	);
	problems.push(...[...excepted].filter((key) => !known.has(key)).map((key) => `${key} is excepted but binds no server`));
	problems.push(...[...excepted].filter((key) => named.has(key)).map((key) => `${key} is excepted although a test names it`));
	problems.push(...[...named].filter(([key]) => !known.has(key)).map(([key, file]) => `${file} names ${key}, which binds no server`));
	for (const problem of problems) console.log(problem);
	return problems.length === 0;
}

/**
 * Rows of `version,id,text`; the text may contain commas and be quoted.
 * @param {string} path
 */
function readTable(path) {
	if (!existsSync(join(root, path))) return [];
	const lines = readFileSync(join(root, path), "utf8").split(/\r?\n/).slice(1);
	return lines
		.filter((line) => line.trim() !== "")
		.map((line) => {
			const [version = "", id = "", ...rest] = line.split(",");
			return { version: version.trim(), id: id.trim(), text: rest.join(",").replace(/^"|"$/g, "").replaceAll('""', '"').trim() };
		});
}

/** @param {{ version: string, id: string }} statement */
function keyOf({ version, id }) {
	return `${version} ${id}`;
}

/** Statements that titles name, each with a file that does. */
function readTitles() {
	/** @type {Map<string, string>} */
	const named = new Map();
	const files = readdirSync(join(root, "tests"), { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
	for (const file of files) {
		for (const [text] of readFileSync(join(root, "tests", file), "utf8").matchAll(COMMENT_OR_STRING)) {
			if (text.startsWith("/")) continue;
			for (const [, v3, id = ""] of text.matchAll(REFERENCE)) named.set(keyOf({ version: v3 ? "3.1.1" : "5.0", id }), `tests/${file}`);
		}
	}
	return named;
}
