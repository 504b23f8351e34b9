/** The buckets that stand for the exact filters of all replicas. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { bucketOf, COUNTER_PAGES, counterOf, ExactRoutes } from "../../src/store/redis/exact_routes.ts";
import { numbers } from "../contracts/store/fixture.ts";

test("exact routes: the bucket of a name is the same for every version of Shoal, or replicas would miss each other's filters", () => {
	assert.deepEqual(["", "t", "a/b/c", "gerät/𝄞"].map(bucketOf), [4_094_987, 189_474, 3_314_315, 5_608_409]);
});

test("exact routes: names that differ little are spread over all buckets", () => {
	const count = 100_000;
	const buckets = new Set(numbers(1, count).map((n) => bucketOf(`tenant/7/device/${n}/state`)));
	assert.ok(buckets.size > count * 0.99, `${buckets.size} buckets`);
	const pages = new Set([...buckets].map((bucket) => counterOf(bucket).page));
	assert.equal(pages.size, COUNTER_PAGES);
});

test("exact routes: few and many buckets are set and cleared one by one", () => {
	const exact = new ExactRoutes();
	const buckets = [...new Set(numbers(1, 10_000).map((n) => bucketOf(`t/${n}`)))];
	for (const count of [3, 4096, buckets.length]) {
		for (const bucket of buckets.slice(0, count)) exact.set(bucket, true);
		exact.set(buckets[1] as number, false);
		assert.equal(buckets.filter((bucket) => exact.has(bucket)).length, count - 1);
		assert.ok(!exact.has(buckets[1] as number) && exact.has(buckets[2] as number));
	}
	for (const bucket of buckets) exact.set(bucket, false);
	assert.deepEqual(
		buckets.filter((bucket) => exact.has(bucket)),
		[],
	);
});

test("exact routes: a page of counters sets the buckets that have filters", () => {
	const exact = new ExactRoutes();
	exact.load(3, new Uint8Array([0, 1, 255, 0]));
	const buckets: number[] = [];
	for (let bucket = 0; bucket < 2 ** 23; bucket++) if (exact.has(bucket)) buckets.push(bucket);
	assert.deepEqual(
		buckets.map((bucket) => counterOf(bucket)),
		[
			{ page: 3, place: 1 },
			{ page: 3, place: 2 },
		],
	);
});
