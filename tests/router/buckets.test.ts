/** Exact filters in a fixed size: nothing is missed, little is guessed wrong, and Redis counts bits in the same way. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { encodeText } from "../../src/mqtt/utf8.ts";
import { Buckets, bitsOf, bucketOf } from "../../src/router/redis/buckets.ts";
import { RouterBench } from "./router_support.ts";

let bench: RouterBench;

before(async () => {
	bench = await RouterBench.start();
});

after(() => bench.stop());

const bucket = (topic: string): number => bucketOf(encodeText(topic));

test("buckets: with 100,000 filters every one is found, and at most 2 % of other topics are taken for one", () => {
	const buckets = new Buckets();
	for (let n = 0; n < 100_000; n++) buckets.set(bucket(`site/${n % 100}/device/${n}/state`), true);
	for (let n = 0; n < 100_000; n++) assert.ok(buckets.has(bucket(`site/${n % 100}/device/${n}/state`)));
	let wrong = 0;
	for (let n = 0; n < 100_000; n++) if (buckets.has(bucket(`site/${n % 100}/device/${n}/command`))) wrong++;
	assert.ok(wrong <= 2000, `${wrong} of 100,000`);
});

test("buckets: few and many behave alike, and come and go", () => {
	for (const count of [100, 10_000]) {
		const buckets = new Buckets();
		for (let n = 0; n < count; n++) buckets.set(n * 7, true);
		for (let n = 0; n < count; n += 2) buckets.set(n * 7, false);
		for (let n = 0; n < count; n++) assert.deepEqual([buckets.has(n * 7), buckets.has(n * 7 + 1)], [n % 2 === 1, false]);
	}
});

test("buckets: what SETBIT made in Redis is read as the same buckets, and so is what bitsOf makes", async () => {
	for (const count of [1, 4096, 4097, 20_000]) {
		const numbers = Array.from({ length: count }, (_, n) => bucket(`t/${n}`)).concat(0, 2 ** 23 - 1);
		await bench.client.del("bits");
		const pipeline = bench.client.pipeline();
		for (const number of numbers) pipeline.setbit("bits", number, 1);
		await pipeline.exec();
		for (const bits of [(await bench.client.getBuffer("bits")) as Buffer, bitsOf(numbers)]) {
			const buckets = Buckets.from(bits);
			for (const number of numbers) assert.ok(buckets.has(number));
			const known = new Set(numbers);
			for (let n = 0; n < 10_000; n++) assert.equal(buckets.has(n * 800), known.has(n * 800));
		}
	}
});

test("buckets: the bucket of a topic never changes, because replicas of several versions agree on it", () => {
	assert.deepEqual(["", "t", "a/b", "sensor/1/temperature", "ü/日本"].map(bucket), [5_611_326, 5_423_474, 5_279_335, 6_881_636, 423_381]);
});
