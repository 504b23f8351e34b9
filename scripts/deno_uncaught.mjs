/**
 * Preloaded into `deno test`: notes errors that no test caught. With node:test, Deno 2.9 says nothing of an error that is
 * thrown at the top level after the first test, or in a timer, and the file passes without the tests that never ran.
 */

import { appendFileSync } from "node:fs";
import process from "node:process";

const file = process.env.UNCAUGHT_FILE;

/** @param {unknown} error */
function note(error) {
	if (file !== undefined) appendFileSync(file, `${error instanceof Error ? error.stack : String(error)}\n`);
}

globalThis.addEventListener("error", (event) => note(event.error));
globalThis.addEventListener("unhandledrejection", (event) => note(event.reason));
