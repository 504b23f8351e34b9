import assert from "node:assert/strict";
import { test } from "node:test";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { filterProblem, levelCount, matches, parseShare, Topic, TopicTable } from "../../src/mqtt/topic.ts";
import { assertRefused, bytes, hex } from "./wire.ts";

const encode = (text: string) => new TextEncoder().encode(text);

test("Topic.of: keeps the name as it is and gives its UTF-8 [MQTT-4.7.3-4] [v3 MQTT-4.7.3-4]", () => {
	// Composed and decomposed é are two topics.
	assert.equal(Topic.of("caf\u00e9").name, "caf\u00e9");
	assert.equal(hex(Topic.of("caf\u00e9").bytes), "636166c3a9");
	assert.equal(hex(Topic.of("cafe\u0301").bytes), "63616665cc81");
});

test("Topic.of: an empty name is refused with 0x90 [MQTT-4.7.3-1] [v3 MQTT-4.7.3-1]", () => {
	assertRefused(() => Topic.of(""), ReasonCode.topicNameInvalid);
	assert.equal(Topic.of("/").name, "/");
	assert.equal(Topic.of(" ").name, " ");
});

test("Topic.of: wildcards are refused with 0x90 wherever they stand [MQTT-4.7.0-1] [v3 MQTT-4.7.1-1]", () => {
	for (const name of ["#", "+", "a/#", "a/+/b", "a+", "#a"]) assertRefused(() => Topic.of(name), ReasonCode.topicNameInvalid);
});

test("Topic.of: U+0000 and lone surrogates are refused with 0x90 [MQTT-4.7.3-2] [v3 MQTT-4.7.3-2]", () => {
	for (const name of ["a\0", "\ud800", "a\udc00b"]) assertRefused(() => Topic.of(name), ReasonCode.topicNameInvalid);
});

test("Topic.of: 65,535 bytes are the limit [MQTT-4.7.3-3] [v3 MQTT-4.7.3-3]", () => {
	assert.equal(Topic.of("a".repeat(65_535)).bytes.length, 65_535);
	assertRefused(() => Topic.of("a".repeat(65_536)), ReasonCode.topicNameInvalid);
	assertRefused(() => Topic.of("€".repeat(21_846)), ReasonCode.topicNameInvalid);
});

test("TopicTable: the same bytes give the same object, from any buffer and position", () => {
	const table = new TopicTable();
	const first = table.intern(encode("a/b"), 0, 3);
	assert.equal(first.name, "a/b");
	assert.equal(table.intern(encode("xa/by"), 1, 4), first);
	assert.notEqual(table.intern(encode("a/c"), 0, 3), first);
});

test("TopicTable: a topic does not change when the buffer that it came from does", () => {
	const buffer = encode("a/b");
	const table = new TopicTable();
	const topic = table.intern(buffer, 0, 3);
	buffer.fill(0x78);
	assert.equal(topic.name, "a/b");
	assert.equal(hex(topic.bytes), "612f62");
	const other = table.intern(buffer, 0, 3);
	assert.equal(other.name, "xxx");
});

test("TopicTable: names that share the only slot displace each other and stay right", () => {
	const table = new TopicTable(1);
	const first = table.intern(encode("a"), 0, 1);
	assert.equal(table.intern(encode("b"), 0, 1).name, "b");
	const again = table.intern(encode("a"), 0, 1);
	assert.equal(again.name, "a");
	assert.notEqual(again, first);
	// A prefix with the same slot is not the same name.
	assert.equal(table.intern(encode("ab"), 0, 2).name, "ab");
	assert.equal(table.intern(encode("a"), 0, 1).name, "a");
});

test("TopicTable: a name over 256 bytes is decoded and not kept", () => {
	const table = new TopicTable(1);
	const short = table.intern(encode("a".repeat(256)), 0, 256);
	const long = table.intern(encode("a".repeat(257)), 0, 257);
	assert.equal(long.name.length, 257);
	assert.notEqual(table.intern(encode("a".repeat(257)), 0, 257), long);
	assert.equal(table.intern(encode("a".repeat(256)), 0, 256), short);
});

test("TopicTable: ill-formed UTF-8 and U+0000 are refused with 0x81, short or long [MQTT-3.3.2-1] [MQTT-4.7.3-2]", () => {
	const table = new TopicTable();
	for (const wrong of [bytes([0xc3]), bytes([0x61, 0]), bytes([0xed, 0xa0, 0x80]), bytes(new Uint8Array(300).fill(0xff))]) {
		assertRefused(() => table.intern(wrong, 0, wrong.length), ReasonCode.malformedPacket);
	}
});

test("TopicTable: wildcards and the empty name are refused with 0x90, also the second time [MQTT-3.3.2-2] [MQTT-4.7.3-1]", () => {
	const table = new TopicTable();
	for (const name of ["", "a/+", "#", `${"a".repeat(300)}#`, "a/+"]) {
		const wrong = encode(name);
		assertRefused(() => table.intern(wrong, 0, wrong.length), ReasonCode.topicNameInvalid);
	}
});

test("TopicTable: a capacity that is no power of two is a RangeError", () => {
	for (const capacity of [0, -8, 3, 1000, 1.5, Number.NaN]) assert.throws(() => new TopicTable(capacity), RangeError, `${capacity}`);
});

const VALID = [
	"a",
	"/",
	"//",
	"#",
	"+",
	"a/#",
	"/#",
	"+/#",
	"a/+/b",
	"+/+",
	"+/",
	"$SYS/#",
	"a b",
	"$share",
	"$share/g/a",
	"$share/g//",
	"$share/g/#",
	"é/+",
];
for (const filter of VALID) {
	test(`filterProblem: "${filter}" is valid`, () => {
		assert.equal(filterProblem(filter, 20), undefined);
	});
}

const INVALID: [filter: string, reason: RegExp, clauses: string][] = [
	["", /empty/, "[MQTT-4.7.3-1] [v3 MQTT-4.7.3-1]"],
	["a\0", /character/, "[MQTT-4.7.3-2] [v3 MQTT-4.7.3-2]"],
	["a\ud800", /character/, "[MQTT-3.8.3-1]"],
	["#/a", /# is not the last/, "[MQTT-4.7.1-1] [v3 MQTT-4.7.1-2]"],
	["a/#/b", /# is not the last/, "[MQTT-4.7.1-1] [v3 MQTT-4.7.1-2]"],
	["##", /# is not the last/, "[MQTT-4.7.1-1] [v3 MQTT-4.7.1-2]"],
	["a#", /# does not fill/, "[MQTT-4.7.1-1] [v3 MQTT-4.7.1-2]"],
	["a/b#", /# does not fill/, "[MQTT-4.7.1-1] [v3 MQTT-4.7.1-2]"],
	["a+", /\+ does not fill/, "[MQTT-4.7.1-2] [v3 MQTT-4.7.1-3]"],
	["+a/b", /\+ does not fill/, "[MQTT-4.7.1-2] [v3 MQTT-4.7.1-3]"],
	["a/+b/c", /\+ does not fill/, "[MQTT-4.7.1-2] [v3 MQTT-4.7.1-3]"],
	["a/b+/c", /\+ does not fill/, "[MQTT-4.7.1-2] [v3 MQTT-4.7.1-3]"],
	["++", /\+ does not fill/, "[MQTT-4.7.1-2] [v3 MQTT-4.7.1-3]"],
	["$share/", /share name is empty/, "[MQTT-4.8.2-1]"],
	["$share//a", /share name is empty/, "[MQTT-4.8.2-1]"],
	["$share/g", /no filter/, "[MQTT-4.8.2-2]"],
	["$share/g/", /no filter/, "[MQTT-4.8.2-2]"],
	["$share/g+/a", /share name contains a wildcard/, "[MQTT-4.8.2-2]"],
	["$share/#/a", /share name contains a wildcard/, "[MQTT-4.8.2-2]"],
	["$share/#", /share name contains a wildcard/, "[MQTT-4.8.2-2]"],
	["$share/g/a+", /\+ does not fill/, "[MQTT-4.8.2-2]"],
];
for (const [filter, reason, clauses] of INVALID) {
	test(`filterProblem: ${JSON.stringify(filter)} is not valid ${clauses}`, () => {
		assert.match(filterProblem(filter, 20) ?? "valid", reason);
	});
}

test("filterProblem: 65,535 bytes are the limit, counted in UTF-8 [MQTT-4.7.3-3] [v3 MQTT-4.7.3-3]", () => {
	assert.equal(filterProblem("a".repeat(65_535), 1), undefined);
	assert.equal(filterProblem("€".repeat(21_845), 1), undefined);
	assert.match(filterProblem("a".repeat(65_536), 1) ?? "valid", /longer/);
	assert.match(filterProblem("€".repeat(21_846), 1) ?? "valid", /longer/);
});

test("filterProblem: more levels than allowed are refused, not counting `$share` and the share name", () => {
	assert.equal(filterProblem("a/b/c", 3), undefined);
	assert.match(filterProblem("a/b/c/", 3) ?? "valid", /4 levels, 3/);
	assert.equal(filterProblem("$share/g/a/b/#", 3), undefined);
	assert.match(filterProblem("$share/g/a/b/c/d", 3) ?? "valid", /4 levels, 3/);
});

test("parseShare: splits a shared subscription's filter and leaves others alone [MQTT-4.8.2-1] [MQTT-4.8.2-2]", () => {
	assert.deepEqual(parseShare("$share/g/a/+"), { shareName: "g", filter: "a/+" });
	assert.deepEqual(parseShare("$share/g//"), { shareName: "g", filter: "/" });
	assert.deepEqual(parseShare("$share/g/$share/h/a"), { shareName: "g", filter: "$share/h/a" });
	assert.equal(parseShare("$share"), undefined);
	assert.equal(parseShare("a/$share/g/a"), undefined);
	assert.equal(parseShare("$shared/g/a"), undefined);
});

test("levelCount: empty levels count", () => {
	const counts = ["a", "a/b", "/", "/a", "a/", "//", "a/+/#"].map((name) => levelCount(name));
	assert.deepEqual(counts, [1, 2, 2, 2, 2, 3, 3]);
});

const MATCHES: [filter: string, topics: string[], others: string[]][] = [
	["a/b", ["a/b"], ["a", "a/b/", "a/b/c", "/a/b", "A/b", "a/bc", "a/"]],
	[
		"sport/tennis/player1/#",
		["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/w"],
		["sport/tennis/player10"],
	],
	["#", ["a", "/", "a/b", "//"], ["$SYS", "$SYS/a", "$"]],
	["sport/#", ["sport", "sport/", "sport/a"], ["sports", "spor", "a/sport"]],
	["+", ["a", "finance"], ["/a", "/finance", "a/", "a/b", "$a"]],
	["+/+", ["/finance", "a/b", "/"], ["a", "a/b/c", "$SYS/a"]],
	["/+", ["/finance", "/"], ["finance", "//"]],
	["+/tennis/#", ["a/tennis", "/tennis/b", "a/tennis/b/c"], ["tennis/b", "$a/tennis"]],
	["sport/+/player1", ["sport/tennis/player1", "sport//player1"], ["sport/player1", "sport/a/b/player1", "sport/a/player2"]],
	["sport/+", ["sport/", "sport/a"], ["sport", "sport/a/b"]],
	["a/+/#", ["a/b", "a/", "a/b/c", "a//"], ["a", "b/b"]],
	["$SYS/#", ["$SYS", "$SYS/a"], ["SYS", "$SY"]],
	["$SYS/+", ["$SYS/a"], ["$SYS", "$SYS/a/b"]],
	["a/+", ["a/$b"], []],
	["/#", ["/", "/a", "/a/b"], ["a"]],
	["+/é/😀", ["x/é/😀"], ["x/e/😀", "x/é/😁"]],
];
for (const [filter, topics, others] of MATCHES) {
	test(`matches: "${filter}" matches what it should and nothing else [MQTT-4.7.2-1] [v3 MQTT-4.7.2-1] [v3 MQTT-4.7.1-3]`, () => {
		for (const topic of topics) assert.equal(matches(filter, topic), true, topic);
		for (const topic of others) assert.equal(matches(filter, topic), false, topic);
	});
}

test("matches: names are compared character by character, without normalisation [MQTT-4.7.3-4] [MQTT-3.10.4-1]", () => {
	assert.equal(matches("caf\u00e9", "cafe\u0301"), false);
	assert.equal(matches("A", "a"), false);
	assert.equal(matches("\ufeffa", "a"), false);
});

test("matches: 65,535 levels are walked without recursion", () => {
	const slashes = "/".repeat(65_534);
	assert.equal(levelCount(slashes), 65_535);
	assert.equal(matches("+/".repeat(32_767), "/".repeat(32_767)), true);
	assert.equal(matches(`${slashes}#`, slashes), true);
	assert.equal(matches(slashes, `${slashes}a`), false);
	assert.equal(filterProblem(slashes, 65_535), undefined);
	assert.match(filterProblem(slashes, 200) ?? "valid", /65535 levels/);
});
