import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { EventLoopLag, Histogram, Sampler } from "../../src/metrics.ts";

describe("Histogram", () => {
	test("observe: a value counts in the first bucket whose bound it does not exceed", () => {
		const histogram = new Histogram([1, 2, 5]);
		for (const value of [0, 1, 1.01, 2, 4.99, 5, 5.01, 1e9]) histogram.observe(value);
		assert.deepEqual([...histogram.counts], [2, 2, 2, 2]);
		assert.equal(histogram.sum, 0 + 1 + 1.01 + 2 + 4.99 + 5 + 5.01 + 1e9);
	});

	test("observe: a value below 0, of a clock that was set back, is 0", () => {
		const histogram = new Histogram([1]);
		histogram.observe(-5);
		assert.deepEqual([...histogram.counts], [1, 0]);
		assert.equal(histogram.sum, 0);
	});

	test("counts: go on exactly above 32 bits", () => {
		const histogram = new Histogram([1]);
		histogram.counts[0] = 2 ** 32;
		histogram.observe(1);
		assert.equal(histogram.counts[0], 2 ** 32 + 1);
	});

	test("bounds: grow by default", () => {
		const { bounds } = new Histogram();
		for (let index = 1; index < bounds.length; index++) assert.ok((bounds[index] as number) > (bounds[index - 1] as number));
	});
});

describe("Sampler", () => {
	test("take: picks the first and then every n-th", () => {
		const sampler = new Sampler(4);
		const picked = Array.from({ length: 10 }, () => sampler.take());
		assert.deepEqual(picked, [true, false, false, false, true, false, false, false, true, false]);
	});

	test("take: with 1 picks all", () => {
		const sampler = new Sampler(1);
		assert.deepEqual([sampler.take(), sampler.take(), sampler.take()], [true, true, true]);
	});
});

describe("EventLoopLag", () => {
	test("an event loop that is kept busy is seen as late by about as much", async () => {
		const lag = new EventLoopLag(10);
		lag.start();
		lag.start();
		const until = performance.now() + 200;
		while (performance.now() < until);
		while (lag.histogram.sum === 0) await new Promise((resolve) => setTimeout(resolve, 5));
		lag.stop();
		assert.ok(lag.histogram.sum >= 0.15, `${lag.histogram.sum} s`);
	});

	test("stop: nothing is measured any more, and start goes on", async () => {
		const lag = new EventLoopLag(1);
		const total = () => lag.histogram.counts.reduce((sum, count) => sum + count, 0);
		lag.start();
		while (total() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
		lag.stop();
		const stopped = total();
		await new Promise((resolve) => setTimeout(resolve, 30));
		assert.equal(total(), stopped);
		lag.start();
		while (total() === stopped) await new Promise((resolve) => setTimeout(resolve, 5));
		lag.stop();
	});
});
