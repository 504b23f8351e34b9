import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ConnectRate } from "../../src/transport/connect_rate.ts";

/** How many of so many attempts at one moment are let in. */
function admitted(rate: ConnectRate, address: string, attempts: number, nowMs: number): number {
	return Array.from({ length: attempts }).filter(() => rate.take(address, nowMs) === undefined).length;
}

describe("ConnectRate", () => {
	test("an address has its burst, then its rate", () => {
		const rate = new ConnectRate({ perSecond: 10, burst: 5 }, undefined);
		assert.equal(admitted(rate, "192.0.2.1", 20, 1000), 5);
		assert.equal(admitted(rate, "192.0.2.1", 20, 1100), 1);
		assert.equal(admitted(rate, "192.0.2.1", 20, 1300), 2);
		assert.equal(admitted(rate, "192.0.2.1", 20, 60_000), 5);
	});

	test("a refusal tells when to come again, and then one is let in", () => {
		const rate = new ConnectRate({ perSecond: 0.5, burst: 1 }, undefined);
		assert.equal(rate.take("192.0.2.1", 0), undefined);
		assert.deepEqual(rate.take("192.0.2.1", 500), { whose: "address", waitMs: 1500 });
		assert.equal(rate.take("192.0.2.1", 2000), undefined);
	});

	test("attempts that are refused cost nothing: whoever keeps trying gets the rate all the same", () => {
		const rate = new ConnectRate({ perSecond: 10, burst: 1 }, undefined);
		let letIn = 0;
		for (let nowMs = 0; nowMs < 10_000; nowMs += 10) letIn += admitted(rate, "192.0.2.1", 3, nowMs);
		assert.equal(letIn, 100);
	});

	test("addresses do not share, but those of one IPv6 /64 do", () => {
		const rate = new ConnectRate({ perSecond: 1, burst: 2 }, undefined);
		assert.equal(admitted(rate, "192.0.2.1", 5, 0), 2);
		assert.equal(admitted(rate, "192.0.2.2", 5, 0), 2);
		assert.equal(admitted(rate, "2001:db8::1", 5, 0), 2);
		assert.equal(admitted(rate, "2001:db8:0:0:1::9", 5, 0), 0);
		assert.equal(admitted(rate, "2001:db8:0:1::1", 5, 0), 2);
	});

	test("the total holds for all addresses together, and a flood of one address does not use it up", () => {
		const rate = new ConnectRate({ perSecond: 1, burst: 2 }, { perSecond: 1, burst: 3 });
		assert.equal(admitted(rate, "192.0.2.1", 1000, 0), 2);
		assert.equal(rate.take("192.0.2.2", 0), undefined);
		assert.deepEqual(rate.take("192.0.2.3", 0), { whose: "total", waitMs: 1000 });
		// The total refused it, so that its own tokens are all there.
		assert.equal(rate.take("192.0.2.3", 1000), undefined);
		assert.equal(rate.take("192.0.2.3", 2000), undefined);
	});

	test("memory: a million addresses leave no more than fit, and the one unseen for longest is forgotten", () => {
		const rate = new ConnectRate({ perSecond: 1, burst: 1 }, undefined, 1000);
		for (let index = 0; index < 1_000_000; index++) {
			rate.take(`10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`, 0);
			if (index % 500 === 0) assert.notEqual(rate.take("10.0.0.0", 0), undefined);
		}
		assert.equal(rate.size, 1000);
	});

	for (const bad of [
		{ perSecond: 0, burst: 1 },
		{ perSecond: Number.NaN, burst: 1 },
		{ perSecond: 1, burst: 0 },
	]) {
		test(`${JSON.stringify(bad)} is a TypeError: it would let nobody in`, () => {
			assert.throws(() => new ConnectRate(bad, undefined), TypeError);
			assert.throws(() => new ConnectRate(undefined, bad), TypeError);
		});
	}
});
