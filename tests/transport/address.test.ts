import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { canonicalAddress, isLoopback } from "../../src/transport/address.ts";

describe("canonicalAddress", () => {
	for (const [given, expected] of [
		["127.0.0.1", "127.0.0.1"],
		["::ffff:127.0.0.1", "127.0.0.1"],
		["::FFFF:10.1.2.3", "10.1.2.3"],
		["::ffff:7f00:1", "127.0.0.1"],
		["::ffff:c0a8:102", "192.168.1.2"],
		["2001:DB8::1", "2001:db8::1"],
		["fe80::1%eth0", "fe80::1"],
		["::1", "::1"],
		["::ffff:1:2:3", "::ffff:1:2:3"],
		["", ""],
	] as const) {
		test(`"${given}" is "${expected}"`, () => assert.equal(canonicalAddress(given), expected));
	}
});

describe("isLoopback", () => {
	for (const address of ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"]) {
		test(`"${address}" is`, () => assert.equal(isLoopback(address), true));
	}
	for (const address of ["128.0.0.1", "10.0.0.1", "::2", "127.evil.example", "::ffff:10.0.0.1", ""]) {
		test(`"${address}" is not`, () => assert.equal(isLoopback(address), false));
	}
});
