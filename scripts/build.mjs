/**
 * What `npm publish` needs beside the sources: the program and the library as JavaScript, since Deno takes no TypeScript from a
 * package, and the types of the library. `node scripts/build.mjs [folder]`; the folder is `dist` unless named. `--remove` takes
 * it away again: a clone runs its sources.
 */

import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { root } from "./setup.mjs";

const { values, positionals } = parseArgs({ allowPositionals: true, options: { remove: { type: "boolean" } } });
const folder = resolve(root, positionals[0] ?? "dist");

// Names of earlier chunks carry another hash: they would stay, and be published.
rmSync(folder, { recursive: true, force: true });
if (!values.remove) {
	// Splitting keeps one copy of the code for both; packages stay what package.json says they are.
	run("bun", [
		"build",
		"server.ts",
		"src/shoal.ts",
		"--target=node",
		"--packages=external",
		"--splitting",
		"--root=.",
		`--outdir=${folder}`,
	]);
	run("tsc", ["-p", "scripts/tsconfig.build.json", "--outDir", folder]);
}

/**
 * @param {string} name
 * @param {readonly string[]} args
 */
function run(name, args) {
	const { status, stdout, stderr, error } = spawnSync(join(root, "node_modules/.bin", name), args, { cwd: root, encoding: "utf8" });
	if (status === 0) return;
	console.error(`${[name, ...args].join(" ")} failed: ${error?.message ?? ""}\n${stdout}${stderr}`);
	process.exit(1);
}
