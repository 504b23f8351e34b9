/** The order in which the Redis store begins the steps of its calls and tells their results. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Calls } from "../../src/store/redis/calls.ts";

/** Steps that end when they are told to, and a record of what happened. */
class Script {
	readonly events: string[] = [];
	readonly #ends = new Map<string, (error?: Error) => void>();

	step(name: string): () => Promise<string> {
		return () => {
			this.events.push(`${name} begins`);
			return new Promise((resolve, reject) => this.#ends.set(name, (error) => (error === undefined ? resolve(name) : reject(error))));
		};
	}

	tells(name: string, result: Promise<unknown>): void {
		result.then(
			(value) => this.events.push(`${name} = ${value}`),
			(error: Error) => this.events.push(`${name} fails: ${error.message}`),
		);
	}

	/** Ends steps, and answers what came of it. */
	async end(names: readonly string[], error?: Error): Promise<string[]> {
		this.events.length = 0;
		for (const name of names) this.#ends.get(name)?.(error);
		for (let turn = 0; turn < 10; turn++) await Promise.resolve();
		return [...this.events];
	}
}

test("calls: a step waits until earlier calls have begun theirs, in that part of the data only", async () => {
	const script = new Script();
	const calls = new Calls(undefined);
	script.tells("A", calls.run({ session: script.step("A session"), logs: script.step("A logs") }));
	script.tells("B", calls.run({ logs: script.step("B logs") }));
	script.tells("C", calls.run({ retained: script.step("C retained"), logs: script.step("C logs") }));
	assert.deepEqual(script.events, ["A session begins", "C retained begins"]);
	assert.deepEqual(await script.end(["C retained"]), []);
	assert.deepEqual(await script.end(["A session"]), ["A logs begins", "B logs begins", "C logs begins"]);
});

test("calls: results are told in the order of the calls, whatever comes first", async () => {
	const script = new Script();
	const calls = new Calls(undefined);
	for (const name of ["A", "B", "C"]) script.tells(name, calls.run({ logs: script.step(name) }));
	assert.deepEqual(await script.end(["C"]), []);
	assert.deepEqual(await script.end(["B"], new Error("broken")), []);
	assert.deepEqual(await script.end(["A"]), ["A = A", "B fails: broken", "C = C"]);
});

test("calls: a failed step is the end of its call and holds up nobody", async () => {
	const script = new Script();
	const calls = new Calls(undefined);
	script.tells("A", calls.run({ session: script.step("A session"), retained: script.step("A retained"), logs: script.step("A logs") }));
	script.tells("B", calls.run({ logs: () => Promise.reject(new Error("at once")) }));
	script.tells("C", calls.run({ logs: script.step("C logs") }));
	assert.deepEqual(await script.end(["A session"], new Error("fenced")), ["C logs begins", "A fails: fenced", "B fails: at once"]);
	assert.deepEqual(await script.end(["C logs"]), ["C = C logs"]);
});

test("calls: a read waits for the results of earlier calls, and no later call waits for it", async () => {
	const script = new Script();
	const calls = new Calls(undefined);
	script.tells("A", calls.run({ logs: script.step("A") }));
	script.tells("read", calls.read("retained", script.step("read")));
	script.tells("quick", calls.read("logs", script.step("quick")));
	script.tells("B", calls.run({ retained: script.step("B retained"), logs: script.step("B") }));
	assert.deepEqual(await script.end(["quick", "B retained"]), ["B begins"]);
	assert.deepEqual(await script.end(["B", "A"]), ["A = A", "quick = quick", "B = B"]);
	assert.deepEqual(await script.end(["read"]), ["read = read"]);
});

test("calls: what follows begins in the order of the calls, and gets what the logs have answered", async () => {
	const script = new Script();
	const calls = new Calls(undefined);
	const after = (name: string) => (previous: string) => {
		script.events.push(`${name} gets ${previous}`);
		return script.step(name)();
	};
	script.tells("A", calls.run({ logs: script.step("A"), after: after("A after") }));
	script.tells("B", calls.run({ logs: script.step("B"), after: after("B after") }));
	script.tells("C", calls.run({ logs: script.step("C") }));
	assert.deepEqual(await script.end(["B", "C"]), []);
	assert.deepEqual(await script.end(["A"]), ["A after gets A", "A after begins", "B after gets B", "B after begins"]);
	assert.deepEqual(await script.end(["B after"]), []);
	assert.deepEqual(await script.end(["A after"], new Error("away")), ["A fails: away", "B = B after", "C = C"]);
});

test("calls: a read does not begin before the steps of earlier calls in its part", async () => {
	const script = new Script();
	const calls = new Calls(undefined);
	script.tells("A", calls.run({ session: script.step("A session"), logs: script.step("A logs") }));
	script.tells("read", calls.read("logs", script.step("read")));
	assert.deepEqual(await script.end(["A session"]), ["A logs begins", "read begins"]);
});

test("calls: results wait until they are confirmed, and idle until all are told", async () => {
	const script = new Script();
	const confirm = script.step("confirmation");
	const calls = new Calls(() => confirm().then(() => {}));
	script.tells("A", calls.run({ logs: script.step("A") }));
	script.tells("idle", calls.idle());
	assert.deepEqual(await script.end(["A"]), ["confirmation begins"]);
	assert.deepEqual(await script.end(["confirmation"]), ["A = A", "idle = undefined"]);
	assert.deepEqual(await script.end([]), []);
	await calls.idle();
});

test("calls: thousands of calls are told in order while one read takes long", async () => {
	const script = new Script();
	const calls = new Calls(undefined);
	const told: number[] = [];
	script.tells("read", calls.read("logs", script.step("read")));
	const all = [];
	for (let n = 0; n < 5000; n++) all.push(calls.run({ logs: async () => n }).then(() => told.push(n)));
	await Promise.all(all);
	assert.deepEqual(
		told,
		[...told].sort((a, b) => a - b),
	);
	assert.deepEqual(await script.end(["read"]), ["read = read"]);
});
