import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { forwardedAddress, type TrustedProxies } from "../../src/transport/forwarded.ts";

function read(proxies: TrustedProxies, headers: Readonly<Record<string, string>>, socketAddress = "10.0.0.1"): string | undefined {
	return forwardedAddress(proxies)(new Headers(headers), socketAddress);
}

describe("forwardedAddress by hops", () => {
	for (const [hops, header, expected] of [
		[1, "192.0.2.1", "192.0.2.1"],
		[1, "198.51.100.66, 192.0.2.1", "192.0.2.1"],
		[2, "198.51.100.66, 192.0.2.1, 10.0.0.2", "192.0.2.1"],
		[3, "198.51.100.66,192.0.2.1,10.0.0.2", "198.51.100.66"],
		[1, "192.0.2.1:4711", "192.0.2.1"],
		[1, "[2001:DB8::1]:4711", "2001:db8::1"],
		[1, "::ffff:192.0.2.1", "192.0.2.1"],
		// Fewer than there are proxies: it did not come through them.
		[2, "192.0.2.1", undefined],
		[1, "192.0.2.1,", undefined],
		[1, "192.0.2.1, unknown", undefined],
		[1, "192.0.2.1, <script>", undefined],
		[1, "", undefined],
	] as const) {
		test(`${hops} of X-Forwarded-For "${header}" is ${expected}`, () => {
			assert.equal(read({ hops }, { "X-Forwarded-For": header }), expected);
		});
	}

	test("X-Forwarded-For in several headers is one list", () => {
		const headers = new Headers({ "X-Forwarded-For": "198.51.100.66" });
		headers.append("X-Forwarded-For", "192.0.2.1");
		assert.equal(forwardedAddress({ hops: 1 })(headers, "10.0.0.1"), "192.0.2.1");
		assert.equal(forwardedAddress({ hops: 2 })(headers, "10.0.0.1"), "198.51.100.66");
	});

	test("without the header there is nothing", () => assert.equal(read({ hops: 1 }, { "Fly-Client-IP": "192.0.2.1" }), undefined));

	for (const [hops, header, expected] of [
		[1, "for=192.0.2.1", "192.0.2.1"],
		[1, 'for=198.51.100.66, For="192.0.2.1:4711";proto=https;by=203.0.113.1', "192.0.2.1"],
		[1, 'proto=https; for="[2001:db8::1]:4711"', "2001:db8::1"],
		[2, 'for="192.0.2.1", for=10.0.0.2', "192.0.2.1"],
		[1, 'for="a,for=192.0.2.66", for=_hidden', undefined],
		[2, 'for=192.0.2.1, for="x\\",for=192.0.2.66"', "192.0.2.1"],
		[1, "proto=https", undefined],
		[1, 'for=192.0.2.1, for="192.0.2.66', undefined],
		[1, "for=unknown", undefined],
		[1, "notfor=192.0.2.66", undefined],
	] as const) {
		test(`${hops} of Forwarded ${header} is ${expected}`, () => {
			assert.equal(read({ hops, list: "forwarded" }, { Forwarded: header, "X-Forwarded-For": "203.0.113.9" }), expected);
		});
	}
});

describe("forwardedAddress by one header", () => {
	for (const [header, expected] of [
		["192.0.2.1", "192.0.2.1"],
		["2001:db8::1", "2001:db8::1"],
		["198.51.100.66, 192.0.2.1", undefined],
		["", undefined],
	] as const) {
		test(`Fly-Client-IP "${header}" is ${expected}`, () => {
			assert.equal(read({ header: "fly-client-ip" }, { "Fly-Client-IP": header, "X-Forwarded-For": "203.0.113.9" }), expected);
		});
	}
});

describe("forwardedAddress from networks", () => {
	test("headers are believed from a proxy in them, and from nobody else", () => {
		const proxies = { hops: 1, from: ["10.0.0.0/8"] };
		assert.equal(read(proxies, { "X-Forwarded-For": "192.0.2.1" }, "10.9.9.9"), "192.0.2.1");
		assert.equal(read(proxies, { "X-Forwarded-For": "192.0.2.1" }, "11.0.0.1"), undefined);
		assert.equal(read(proxies, { "X-Forwarded-For": "192.0.2.1" }, ""), undefined);
	});

	for (const bad of [{ hops: 0 }, { hops: 1.5 }, { header: "no header" }, { hops: 1, from: ["proxy.example"] }] as TrustedProxies[]) {
		test(`${JSON.stringify(bad)} is a TypeError`, () => assert.throws(() => forwardedAddress(bad), TypeError));
	}
});

describe("forwardedAddress under attack", () => {
	test("long headers of all kinds are no address", () => {
		for (const text of [
			'"'.repeat(8001),
			`for="${"\\".repeat(8000)}`,
			"for=;".repeat(1600),
			",".repeat(8000),
			`for=${" ".repeat(8000)}x`,
		]) {
			assert.equal(read({ hops: 1, list: "forwarded" }, { Forwarded: text }), undefined);
			assert.equal(read({ hops: 1 }, { "X-Forwarded-For": text }), undefined);
		}
	});
});
