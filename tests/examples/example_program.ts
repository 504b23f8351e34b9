/** An example as its reader starts it: a process on the runtime that runs the test, from the top of the repository. */

import process from "node:process";
import { fileURLToPath } from "node:url";
import { Program } from "../support/program.ts";
import { OWN_RUNTIME } from "../support/server_process.ts";
import type { Cleanup } from "../support/test_broker.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Starts `examples/<name>`; it ends with the test. */
export function startExample(
	t: Cleanup,
	name: string,
	args: readonly string[] = [],
	env: Readonly<Record<string, string>> = {},
	onDeno: readonly string[] = ["run", "-A"],
): Program {
	const run = OWN_RUNTIME === "deno" ? onDeno : [];
	return Program.start(t, process.execPath, [...run, `examples/${name}`, ...args], {
		cwd: root,
		env: { ...process.env, NO_COLOR: "1", ...env },
	});
}

/** Whole lines that a program has written to its standard output. */
export function linesOf(program: Program): string[] {
	return program.stdout.split("\n").slice(0, -1);
}

/** Waits for a line, now or later. */
export function line(program: Program, wanted: string | RegExp): Promise<string> {
	const matches = (each: string) => (typeof wanted === "string" ? each === wanted : wanted.test(each));
	return program.until(`line "${wanted}"`, () => linesOf(program).find(matches));
}
