import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { originCheck } from "../../src/transport/origins.ts";

const MIXED = [
	"https://app.example.com",
	"https://*.example.org",
	"http://localhost:*",
	"https://port.example:8443",
	"capacitor://localhost",
];

describe("originCheck", () => {
	const allows = originCheck(MIXED);
	for (const origin of [
		"https://app.example.com",
		"https://APP.example.com",
		"https://app.example.com:443",
		"https://a.example.org",
		"https://a.b.example.org",
		"http://localhost",
		"http://localhost:5173",
		"https://port.example:8443",
		"capacitor://localhost",
	]) {
		test(`"${origin}" is allowed`, () => assert.equal(allows(origin), true));
	}

	for (const origin of [
		"http://app.example.com",
		"https://app.example.com:444",
		"https://app.example.com.evil.example",
		"https://evil-app.example.com",
		"https://example.org",
		"https://.example.org",
		"https://evilexample.org",
		"https://a.example.org.evil.example",
		"https://a.example.org:8443",
		"https://localhost:5173",
		"http://localhost.evil.example:80",
		"https://app.example.com/",
		"https://app.example.com@evil.example",
		"https://evil.example#.example.org",
		"https://*.example.org",
		"http://localhost:*",
		"https://app.example.com https://app.example.com",
		"null",
		"*",
		"",
	]) {
		test(`"${origin}" is not`, () => assert.equal(allows(origin), false));
	}

	test('"*" allows any, "null" only pages without an origin', () => {
		assert.equal(originCheck(["*"])("https://anything.example"), true);
		assert.equal(originCheck(["null"])("null"), true);
		assert.equal(originCheck(["null"])("https://anything.example"), false);
	});

	test("an empty list allows no page", () => assert.equal(originCheck([])("https://app.example.com"), false));

	for (const entry of [
		"app.example.com",
		"https://",
		"https://a.example/path",
		"https://a.*.example",
		"https://*",
		"https://exa mple",
		"",
	]) {
		test(`"${entry}" in the list is a TypeError that names it`, () => {
			assert.throws(
				() => originCheck([entry]),
				(error: Error) => error instanceof TypeError && error.message.startsWith(`"${entry}" is no origin`),
			);
		});
	}
});
