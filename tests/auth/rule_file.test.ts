// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.

import assert from "node:assert/strict";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { parseRules, RuleFile, RuleFileError } from "../../src/auth/rule_file.ts";
import type { LogFields, Logger } from "../../src/log.ts";

const GOOD = `# Who may do what. The first rule that matches decides.
rules:
  - permission: allow
    action: publish
    topics: ["d/\${clientid}/#", 'open']
    qos: [0, 1]
    retain: false
  - permission: deny
    action: all
    topic: "secret/#"   # for everybody
    users: ["guest*"]
`;

function problemsOf(text: string): readonly string[] {
	try {
		parseRules(text, "rules.yaml");
	} catch (error) {
		assert.ok(error instanceof RuleFileError);
		return error.problems;
	}
	return [];
}

describe("rule file: what it says", () => {
	it("YAML with comments becomes rules", () => {
		assert.deepEqual(parseRules(GOOD, "rules.yaml"), [
			{ permission: "allow", action: "publish", topics: ["d/${clientid}/#", "open"], qos: [0, 1], retain: false },
			{ permission: "deny", action: "all", topics: ["secret/#"], users: ["guest*"] },
		]);
	});

	it("JSON is accepted, too", () => {
		const rule = { permission: "allow", action: "all", topic: "#" };
		assert.deepEqual(parseRules(JSON.stringify({ rules: [rule] }), "rules.json"), [{ permission: "allow", action: "all", topics: ["#"] }]);
	});
});

describe("rule file: what it refuses, with file and line", () => {
	const rule = (lines: string): string => `rules:\n  - permission: allow\n    action: all\n    topic: "a"\n${lines}`;
	const cases: readonly (readonly [what: string, text: string, line: number, problem: RegExp])[] = [
		["nothing", "", 1, /expected object/],
		["comments only", "# rules will come\n", 1, /expected object/],
		["no rules", "rules:\n", 1, /expected array/],
		["an empty list", "# none\nrules: []\n", 2, /no rule/],
		["a bare list", '- permission: allow\n  action: all\n  topic: "#"\n', 1, /expected object/],
		["no YAML", 'rules:\n  - permission: "allow\n', 3, /quote/],
		["a tab", "rules:\n\t- permission: allow\n", 2, /[Tt]ab/],
		["a second document", `${rule("")}---\nrules: []\n`, 5, /document/],
		["a key twice", rule("    action: publish\n"), 5, /unique/],
		["a tag", rule("    qos: !!js/function 1\n"), 5, /tag/],
		["a word that is not known", rule("    user: ann\n"), 5, /rules\.0\.user: unknown/],
		["a word at the top that is not known", `${rule("")}default: allow\n`, 5, /default: unknown/],
		["another permission", rule("").replace("allow", "permit"), 2, /rules\.0\.permission/],
		["another action", rule("").replace("all\n", "read\n"), 3, /rules\.0\.action/],
		["no action", rule("").replace("    action: all\n", ""), 2, /rules\.0\.action/],
		["no topic", rule("").replace('    topic: "a"\n', ""), 2, /one of topic and topics/],
		["both topic and topics", rule('    topics: ["b"]\n'), 2, /one of topic and topics/],
		["no filter", rule('  - permission: deny\n    action: all\n    topics:\n      - "a"\n      - "a/#/b"\n'), 9, /# is not the last level/],
		["an unknown placeholder", rule('  - permission: deny\n    action: all\n    topic: "${user}"\n'), 7, /unknown placeholder/],
		["a topic without quotes", rule("").replace('"a"', "a"), 4, /quotes/],
		["a topic that a comment cuts short", rule("").replace('"a"', "a/ #"), 4, /quotes/],
		["# without quotes, which is a comment", rule("").replace('"a"', "#"), 4, /quotes/],
		["a QoS that there is not", rule("    qos: 3\n"), 5, /rules\.0\.qos/],
		["an empty condition", rule("    users: []\n"), 5, /rules\.0\.users/],
		["a number where a name belongs", rule("    users: [1]\n"), 5, /rules\.0\.users\.0/],
	];
	for (const [what, text, line, problem] of cases) {
		it(what, () => {
			const [first = ""] = problemsOf(text);
			assert.match(first, problem);
			assert.equal(first.slice(0, first.indexOf(": ")), `rules.yaml:${line}`);
		});
	}

	it("all problems are told, up to a limit", () => {
		const bad = '  - permission: x\n    action: all\n    topic: "a"\n';
		assert.equal(problemsOf(`rules:\n${bad.repeat(3)}`).length, 3);
		assert.match(problemsOf(`rules:\n${bad.repeat(30)}`).at(-1) ?? "", /10 more/);
		assert.equal(problemsOf(`rules:\n${bad.repeat(30)}`).length, 21);
	});

	it("aliases that multiply are stopped", () => {
		const levels = Array.from({ length: 12 }, (_each, at) => `a${at + 1}: &a${at + 1} [${`*a${at},`.repeat(9)}]`);
		assert.match(problemsOf(`a0: &a0 ["x"]\n${levels.join("\n")}\n`)[0] ?? "", /aliases/);
	});
});

class Log implements Logger {
	readonly lines: string[] = [];
	debug = (): void => {};
	info = (message: string, fields?: LogFields): void => this.#add("info", message, fields);
	warn = (message: string, fields?: LogFields): void => this.#add("warn", message, fields);
	error = (message: string, fields?: LogFields): void => this.#add("error", message, fields);
	#add(level: string, message: string, fields: LogFields = {}): void {
		this.lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
	}
}

function opened(context: TestContext, text: string, pollMs = 10) {
	const folder = mkdtempSync(join(tmpdir(), "shoal-rules-"));
	const path = join(folder, "rules.yaml");
	writeFileSync(path, text);
	const log = new Log();
	const file = new RuleFile(path, { pollMs, log });
	context.after(() => {
		file.close();
		rmSync(folder, { recursive: true });
	});
	const changes: number[] = [];
	file.onChange(() => changes.push(file.rules.length));
	return { path, file, log, changes };
}

async function until(condition: () => boolean): Promise<void> {
	while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const rules = (count: number): string => `rules:\n${'  - { permission: allow, action: all, topic: "a" }\n'.repeat(count)}`;

describe("RuleFile", () => {
	it("a missing file stops the start, and so do an empty list, bad UTF-8 and a file over a megabyte", (context) => {
		const folder = mkdtempSync(join(tmpdir(), "shoal-rules-"));
		context.after(() => rmSync(folder, { recursive: true }));
		const path = join(folder, "rules.yaml");
		const refused = (problem: RegExp): void => {
			assert.throws(
				() => new RuleFile(path),
				(error) => error instanceof RuleFileError && error.message.startsWith(`${path}:1: `) && problem.test(error.message),
			);
		};
		refused(/cannot be read/);
		writeFileSync(path, "rules: []");
		refused(/no rule/);
		writeFileSync(path, Uint8Array.of(0x72, 0xff));
		refused(/UTF-8/);
		writeFileSync(path, `${rules(1)}#${"x".repeat(1_048_576)}`);
		refused(/limit/);
	});

	it("a change is noticed and told, whether the file was written or replaced", async (context) => {
		const { path, file, changes } = opened(context, rules(1));
		const before = file.rules;
		writeFileSync(path, rules(2));
		await until(() => changes.length === 1);
		assert.equal(file.rules.length, 2);
		assert.notEqual(file.rules, before);
		writeFileSync(`${path}.new`, rules(3));
		renameSync(`${path}.new`, path);
		await until(() => changes.length === 2);
		assert.deepEqual(changes, [2, 3]);
	});

	it("a broken file keeps the rules and is told once, with the line; a repaired one counts", async (context) => {
		const { path, file, log, changes } = opened(context, rules(2));
		writeFileSync(path, "rules:\n  - oops\n");
		await until(() => log.lines.length > 0);
		assert.match(log.lines[0] ?? "", /^error .*rules\.yaml:2: /);
		rmSync(path);
		await until(() => log.lines.length > 1);
		assert.match(log.lines[1] ?? "", /^error .*cannot be read/);
		assert.equal(file.rules.length, 2);
		assert.deepEqual(changes, []);
		writeFileSync(path, rules(4));
		await until(() => changes.length === 1);
		assert.equal(file.rules.length, 4);
		assert.equal(log.lines.filter((line) => line.startsWith("error")).length, 2);
	});

	it("a file that changed is read when it has stayed the same for a look", async (context) => {
		const { path, file, changes } = opened(context, rules(1), 1_000_000);
		for (const count of [2, 3]) {
			writeFileSync(path, rules(count));
			await file.look();
			assert.deepEqual(changes, []);
		}
		await file.look();
		assert.deepEqual(changes, [3]);
		await file.look();
		assert.deepEqual(changes, [3]);
	});

	it("nobody is told after having said so, or after the file is closed", async (context) => {
		const { path, file, changes } = opened(context, rules(1));
		const other: number[] = [];
		const stop = file.onChange(() => other.push(1));
		stop();
		writeFileSync(path, rules(2));
		await until(() => changes.length === 1);
		assert.deepEqual(other, []);
		file.close();
		writeFileSync(path, rules(3));
		await new Promise((resolve) => setTimeout(resolve, 60));
		assert.equal(file.rules.length, 2);
	});
});
