import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { contains, overlaps } from "../../src/auth/containment.ts";
import { filterProblem, matches } from "../../src/mqtt/topic.ts";

function sequences(levels: readonly string[], longest: number): string[] {
	const all: string[] = [];
	let last = [""];
	for (let length = 1; length <= longest; length++) {
		last = length === 1 ? [...levels] : last.flatMap((head) => levels.map((level) => `${head}/${level}`));
		all.push(...last);
	}
	return all;
}

/** `c` stands in no filter: for all the names that no filter knows. One level more than the filters have. */
const TOPICS = sequences(["", "a", "ab", "c", "$s"], 4).filter((topic) => topic !== "");
const FILTERS = sequences(["", "a", "ab", "$s", "+", "#"], 3).filter((filter) => filterProblem(filter, 128) === undefined);
/** For each filter, which of the topics it matches. */
const MATCHED = FILTERS.map((filter) => TOPICS.map((topic) => matches(filter, topic)));

function compare(claim: (a: string, b: string) => boolean, truth: (a: readonly boolean[], b: readonly boolean[]) => boolean): string[] {
	const wrong: string[] = [];
	let yes = 0;
	for (const [i, a] of FILTERS.entries()) {
		for (const [j, b] of FILTERS.entries()) {
			const expected = truth(MATCHED[i] ?? [], MATCHED[j] ?? []);
			if (expected) yes++;
			if (claim(a, b) !== expected) wrong.push(`${a} ${b}: ${expected}`);
		}
	}
	assert.ok(yes > FILTERS.length * 5 && yes < FILTERS.length ** 2 / 2, `${yes} of ${FILTERS.length ** 2} say yes`);
	return wrong;
}

describe("contains", () => {
	it("is what matching says, for all pairs of filters of up to three levels and all topics", () => {
		assert.deepEqual(
			compare(contains, (grant, filter) => filter.every((matched, at) => !matched || grant[at])),
			[],
		);
	});

	it("a filter is wider than a grant that covers only a part of it", () => {
		for (const [grant, filter] of [
			["a/b", "#"],
			["a/b", "+/b"],
			["a/+", "a/#"],
			["a/+/#", "a/#"],
			["+/+", "+/#"],
			["#", "$SYS/#"],
			["+/clients", "$SYS/clients"],
			["$SYS/a", "$SYS/+"],
			["a/", "a"],
			["ab", "a"],
		] as const) {
			assert.equal(contains(grant, filter), false, `${grant} ${filter}`);
		}
	});

	it("a grant covers itself, its parent by #, and what is narrower", () => {
		for (const [grant, filter] of [
			["a/#", "a"],
			["a/#", "a/+/c/#"],
			["+/#", "#"],
			["a/+/c", "a/b/c"],
			["$SYS/#", "$SYS/+/x"],
			["a//b", "a//b"],
			["/+", "/"],
		] as const) {
			assert.equal(contains(grant, filter), true, `${grant} ${filter}`);
		}
	});

	it("filters of 30,000 levels are compared", () => {
		const long = "+/".repeat(30_000);
		assert.equal(contains(`${long}#`, `${long}a`), true);
		assert.equal(contains(`${long}a`, `${long}#`), false);
		assert.equal(overlaps(`${long}a`, `${long}b`), false);
	});
});

describe("overlaps", () => {
	it("is what matching says, for all pairs of filters of up to three levels and all topics", () => {
		assert.deepEqual(
			compare(overlaps, (a, b) => a.some((matched, at) => matched && b[at])),
			[],
		);
	});

	it("is the same both ways round", () => {
		for (const a of FILTERS) for (const b of FILTERS) assert.equal(overlaps(a, b), overlaps(b, a), `${a} ${b}`);
	});
});
