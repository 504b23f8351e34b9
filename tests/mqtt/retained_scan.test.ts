import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import process from "node:process";
import { test } from "node:test";
import { filterProblem, matches, retainedScan, scanStart } from "../../src/mqtt/topic.ts";
import { randomNumbers } from "./random.ts";

const binaryOrder = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));

/** First index whose topic is not below the key. */
function seekIndex(topics: readonly string[], key: string): number {
	let low = 0;
	let high = topics.length;
	while (low < high) {
		const middle = (low + high) >> 1;
		if (binaryOrder(topics[middle] as string, key) < 0) low = middle + 1;
		else high = middle;
	}
	return low;
}

/** What a store does with the scan, over an array; `visited` counts the rows that it looked at. */
function scan(topics: readonly string[], filter: string): { found: string[]; visited: number } {
	const found: string[] = [];
	let visited = 0;
	let at = seekIndex(topics, scanStart(filter));
	while (at < topics.length) {
		const topic = topics[at] as string;
		const step = retainedScan(filter, topic);
		visited++;
		if (step.matches) found.push(topic);
		if (step.done) break;
		if (step.seek !== undefined) assert.ok(binaryOrder(step.seek, topic) > 0, `"${step.seek}" goes on from "${topic}" for "${filter}"`);
		at = step.seek === undefined ? at + 1 : seekIndex(topics, step.seek);
	}
	return { found, visited };
}

test("retainedScan: finds exactly what matches, in random ordered indexes, for random filters [MQTT-4.7.2-1]", {
	timeout: 3_600_000,
}, () => {
	const random = randomNumbers(7);
	// Characters on both sides of `/` and `$`, and on both sides of the surrogates, where UTF-16 has another order than UTF-8.
	const levels = [
		"",
		"a",
		"b",
		"c",
		"a!",
		"a-",
		"a0",
		"!",
		"0",
		"$",
		"$SYS",
		"%",
		"é",
		"\ud7ff",
		"\ue000",
		"\ufffd",
		"\u{1f600}",
		"\u{10ffff}",
		"\u0001",
	];
	const filterLevels = [...levels, "+", "+", "+", "+", "+", "+"];
	const rounds = Number(process.env.FUZZ_PACKETS ?? 200_000) / 20;
	let matched = 0;
	for (let round = 0; round < rounds; round++) {
		const names = Array.from({ length: 1 + random.below(30) }, () => random.list(1 + random.below(4), levels).join("/"));
		const topics = [...new Set(names)].filter((name) => name !== "").sort(binaryOrder);
		const start = random.list(1 + random.below(4), filterLevels).join("/");
		const filter = random.below(3) > 0 ? start : start === "" ? "#" : `${start}/#`;
		if (filterProblem(filter, 9) !== undefined) continue;
		const expected = topics.filter((topic) => matches(filter, topic));
		assert.deepEqual(scan(topics, filter).found, expected, `${filter} in ${JSON.stringify(topics)}`);
		matched += expected.length;
	}
	assert.ok(matched > rounds / 4, "the rounds had matches to find");
});

test("retainedScan: a filter costs about its matches and its `+` levels, however many topics there are", () => {
	const topics = ["$SYS/a", "$SYS/b"];
	for (let device = 0; device < 100; device++) {
		for (let sensor = 0; sensor < 100; sensor++) topics.push(`d/${device}/s${sensor}`, `e/${device}/s${sensor}`);
	}
	topics.sort(binaryOrder);
	const cost = (filter: string) => scan(topics, filter).visited;
	assert.equal(cost("d/7/s7"), 1);
	assert.equal(cost("nothing/here"), 0);
	// For each device the match, and the row before it from which the scan goes to it.
	assert.ok(cost("d/+/s42") <= 201, `${cost("d/+/s42")}`);
	assert.ok(cost("+/7/s7") <= 6, `${cost("+/7/s7")}`);
	assert.ok(cost("d/7/#") <= 101, `${cost("d/7/#")}`);
	assert.ok(cost("d/+") <= 101, `${cost("d/+")}`);
	assert.equal(cost("#"), 20_001, "all, and one row to get past `$SYS`");
});

test("scanStart: is the part before the first wildcard, and includes the parent of `#`", () => {
	const starts = ["a/b", "a/+/c", "a/#", "a/b/#", "#", "+/a", "a/+/#"].map((filter) => scanStart(filter));
	assert.deepEqual(starts, ["a/b", "a/", "a", "a/b", "", "", "a/"]);
});

test("retainedScan: 65,535 levels are walked without recursion", () => {
	const deep = "/".repeat(65_534);
	assert.equal(retainedScan(`${"+/".repeat(32_767)}#`, deep).matches, true);
	assert.equal(retainedScan(`${deep}a`, deep).seek, `${deep}a`);
});
