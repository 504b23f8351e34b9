import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
	AddressList,
	addressPrefix,
	canonicalAddress,
	isLoopback,
	parseAddress,
	parseAddressWithPort,
} from "../../src/transport/address.ts";

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

describe("parseAddress", () => {
	for (const [given, expected] of [
		["192.0.2.1", "192.0.2.1"],
		["2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
		["::ffff:192.0.2.1", "192.0.2.1"],
		["0:0:0:0:0:ffff:c000:201", "192.0.2.1"],
		["fe80::1%eth0", "fe80::1"],
		["192.0.2.01", undefined],
		["192.0.2.1:80", undefined],
		["[::1]", undefined],
		["example.com", undefined],
		["", undefined],
	] as const) {
		test(`"${given}" is ${expected}`, () => assert.equal(parseAddress(given), expected));
	}
});

describe("parseAddressWithPort", () => {
	for (const [given, expected] of [
		["192.0.2.1:4711", "192.0.2.1"],
		["192.0.2.1", "192.0.2.1"],
		["[2001:db8::1]:4711", "2001:db8::1"],
		["[2001:db8::1]", "2001:db8::1"],
		["2001:db8::1", "2001:db8::1"],
		["[192.0.2.1", undefined],
		["192.0.2.1:x", undefined],
		["192.0.2.1:4711:1", undefined],
		["unknown", undefined],
		["_hidden", undefined],
		["", undefined],
	] as const) {
		test(`"${given}" is ${expected}`, () => assert.equal(parseAddressWithPort(given), expected));
	}
});

describe("addressPrefix", () => {
	for (const [given, expected] of [
		["192.0.2.1", "192.0.2.1"],
		["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
		["2001:db8::1", "2001:db8:0:0::/64"],
		["2001:db8:0:1::", "2001:db8:0:1::/64"],
		["::1", "0:0:0:0::/64"],
		["2001:db8:1:2:3::", "2001:db8:1:2::/64"],
	] as const) {
		test(`"${given}" is in "${expected}"`, () => assert.equal(addressPrefix(given), expected));
	}
});

describe("AddressList", () => {
	const list = new AddressList(["10.0.0.0/8", "192.0.2.7", "fdaa::/16", "2001:db8::1"]);
	for (const address of ["10.255.0.1", "192.0.2.7", "fdaa:1::1", "2001:db8::1"]) {
		test(`"${address}" is in it`, () => assert.equal(list.has(address), true));
	}
	for (const address of ["11.0.0.1", "192.0.2.8", "fdab::1", "2001:db8::2", "", "10.0.0"]) {
		test(`"${address}" is not`, () => assert.equal(list.has(address), false));
	}
	for (const entry of ["10.0.0.0/33", "fdaa::/129", "10.0.0.0/", "10.0.0.0/8/8", "10.0.0.0/-1", "::ffff:10.0.0.0/104", "example.com", ""]) {
		test(`"${entry}" is a TypeError that names it`, () => {
			assert.throws(() => new AddressList([entry]), { name: "TypeError", message: new RegExp(`^"${entry}" is no network`) });
		});
	}
});
