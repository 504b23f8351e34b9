import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

/** Runs the logging process on the runtime of this test; answers the lines on stderr. */
function linesOf(...args: string[]): string[] {
	const run = "Deno" in globalThis ? ["run", "-A"] : [];
	const script = fileURLToPath(new URL("support/log_lines.ts", import.meta.url));
	const { status, stdout, stderr } = spawnSync(process.execPath, [...run, script, ...args], { encoding: "utf8" });
	assert.equal(status, 3, stderr);
	assert.equal(stdout, "");
	return stderr.split("\n").filter((line) => line !== "");
}

describe("log", () => {
	it("says nothing until it is configured", () => {
		assert.deepEqual(linesOf(), []);
	});

	it("off says nothing", () => {
		assert.deepEqual(linesOf("off", "text"), []);
	});

	it("json: one object a line, with time, level, category, message and fields", () => {
		const [first] = linesOf("info", "json").map((line) => JSON.parse(line));
		assert.match(first.time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
		assert.deepEqual(
			{ ...first, time: "" },
			{
				time: "",
				level: "info",
				category: "connection",
				message: 'Client "a b\\nlevel=error" connected',
				clientId: "a b\nlevel=error",
				port: 1883,
			},
		);
		assert.deepEqual(Object.keys(first).slice(0, 4), ["time", "level", "category", "message"]);
	});

	it("text: a value that a client chose cannot forge a line or a field", () => {
		const line = linesOf("info", "text")[0];
		assert.match(String(line), /^\S+ info {2}connection: Client "a b\\nlevel=error" connected port=1883 time=forged$/);
	});

	for (const format of ["text", "json"]) {
		it(`${format}: bytes are shown by their length`, () => {
			const line = linesOf("warn", format)[0];
			assert.match(String(line), /6 bytes.*6 bytes/);
			assert.doesNotMatch(String(line), /secret|115/);
		});

		it(`${format}: an error is shown by its message in the sentence, and with stack and cause in its field`, () => {
			assert.match(String(linesOf("error", format)[0]), /Failed: outer\W.*Error: outer.*caused by TypeError: inner/);
		});

		it(`${format}: no line is lost when the process ends at once`, () => {
			assert.equal(linesOf("info", format).filter((line) => line.includes("flood")).length, 1000);
		});
	}

	it("lines below the level are left out", () => {
		assert.ok(linesOf("debug", "text")[0]?.includes("a debug line"));
		assert.equal(linesOf("warn", "text").length, 2);
		assert.equal(linesOf("error", "text").length, 1);
	});
});
