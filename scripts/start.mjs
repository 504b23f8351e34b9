/**
 * First half of `npm start`: sets up, then prints the command that runs a TypeScript file on the chosen runtime.
 * The shell of the second half replaces itself by that command, so signals and the exit code need no passing on.
 */

import process from "node:process";
import { installPackages } from "./setup.mjs";

const COMMANDS = new Map([
	["bun", "node_modules/.bin/bun"],
	["deno", "node_modules/.bin/deno run --no-prompt --allow-net --allow-env --allow-sys --allow-read --allow-write"],
]);

const command = COMMANDS.get(process.env.SHOAL_RUNTIME || "bun");
try {
	if (command === undefined) throw new Error(`SHOAL_RUNTIME is "${process.env.SHOAL_RUNTIME}": expected "bun" or "deno"`);
	installPackages();
	console.log(command);
} catch (error) {
	console.error(error instanceof Error ? error.message : error);
	process.exitCode = 1;
}
