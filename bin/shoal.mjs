#!/usr/bin/env node
/**
 * `npx shoal`: the broker as a command. Finds Bun or Deno, which Shoal runs on and Node is not: the one that runs this file, else
 * one that is installed from npm, else one on the PATH. Passes on arguments, signals and the exit code. Knows nothing of MQTT.
 */

import { spawn } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { delimiter, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const DENO_RIGHTS = ["--no-prompt", "--allow-net", "--allow-env", "--allow-sys", "--allow-read", "--allow-write"];

/** What runs a program with each runtime. */
const RUNTIMES = [
	{ name: "bun", args: [] },
	// The packages lie beside this one already: it need not look for any.
	{ name: "deno", args: ["run", ...DENO_RIGHTS, "--node-modules-dir=manual"] },
];

const REMEDY = `Shoal runs on Bun or Deno, and neither is here. With Bun from npm:

  npx -p bun -p shoal shoal

or see https://bun.com or https://deno.com, and start it again.`;

// As published there are built files, since Deno takes no TypeScript from a package; in a clone there are sources.
const server = ["../dist/server.js", "../server.ts"].map((path) => new URL(path, import.meta.url)).find((url) => existsSync(url));

if (server === undefined) fail("the package is not complete: install it again");
else if (process.versions.bun !== undefined || "Deno" in globalThis) await import(server.href);
else run(fileURLToPath(server));

/** @param {string} program */
function run(program) {
	const wanted = process.env.SHOAL_RUNTIME || undefined;
	if (wanted !== undefined && !RUNTIMES.some(({ name }) => name === wanted)) {
		return fail(`SHOAL_RUNTIME is "${wanted}": expected "bun" or "deno"`);
	}
	const found = chooseRuntime(wanted);
	if (found === undefined) return fail(REMEDY);
	const child = spawn(found.command, [...found.args, program, ...process.argv.slice(2)], { stdio: "inherit" });
	// A terminal sends SIGINT to both: Shoal takes the second one for the first.
	for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) process.on(signal, () => child.kill(signal));
	child.on("error", (error) => fail(`cannot start ${found.command}: ${error.message}`));
	child.on("exit", (code, signal) => {
		process.exitCode = code ?? 128 + constants.signals[signal ?? "SIGKILL"];
	});
}

/**
 * @param {string | undefined} wanted the only one to look for
 * @returns {{ command: string, args: readonly string[] } | undefined}
 */
function chooseRuntime(wanted) {
	const candidates = RUNTIMES.filter(({ name }) => wanted === undefined || name === wanted);
	for (const find of [fromPackages, fromPath]) {
		for (const { name, args } of candidates) {
			const command = find(name);
			if (command !== undefined) return { command, args };
		}
	}
	return undefined;
}

/**
 * From a package beside this one, or of the project that this was started in. The binary comes in a second package, that for
 * the platform; a script at installation, which newer versions of npm leave out, moves it to the first.
 * @param {string} name
 */
function fromPackages(name) {
	for (const place of [import.meta.url, join(process.cwd(), "package.json")]) {
		const manifest = resolve(`${name}/package.json`, place);
		if (manifest === undefined) continue;
		const { optionalDependencies = {} } = JSON.parse(readFileSync(manifest, "utf8"));
		const platforms = Object.keys(optionalDependencies).map((platform) => resolve(`${platform}/package.json`, manifest));
		const folders = [...platforms, manifest].filter((path) => path !== undefined).map((path) => dirname(path));
		const found = firstFile(
			folders.flatMap((folder) => [folder, join(folder, "bin")]),
			[name, `${name}.exe`],
		);
		if (found !== undefined) return found;
	}
	return undefined;
}

/** @param {string} name */
function fromPath(name) {
	return firstFile((process.env.PATH ?? "").split(delimiter), process.platform === "win32" ? [`${name}.exe`] : [name]);
}

/**
 * @param {readonly string[]} folders
 * @param {readonly string[]} names
 */
function firstFile(folders, names) {
	const paths = folders.flatMap((folder) => names.map((name) => join(folder, name)));
	return paths.find((path) => statSync(path, { throwIfNoEntry: false })?.isFile());
}

/**
 * @param {string} specifier
 * @param {string} from URL or path of a file
 */
function resolve(specifier, from) {
	try {
		return createRequire(from).resolve(specifier);
	} catch {
		// Not installed is an answer.
		return undefined;
	}
}

/** @param {string} message */
function fail(message) {
	console.error(`shoal: ${message}`);
	process.exitCode = 1;
}
