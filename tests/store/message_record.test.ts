/** Records of messages and deliveries: what is refused. That what is written comes back is the store contract's. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
	decodeInflight,
	decodeMessage,
	encodeInflight,
	encodeMessage,
	maxMessageRecordLength,
	RECORD_VERSION,
} from "../../src/store/message_record.ts";
import { StoreError } from "../../src/store/store.ts";
import { inflight, message } from "../contracts/store/fixture.ts";

function isNewerVersion(error: unknown): boolean {
	return error instanceof StoreError && error.code === "newerVersion" && error.message.includes(`${RECORD_VERSION + 1}`);
}

test("message record: begins with its version, and another one is refused", () => {
	const record = new Uint8Array(encodeMessage(message("t", { payload: "x" })));
	assert.equal(record[0], RECORD_VERSION);
	assert.equal(decodeMessage(record).topic.name, "t");
	record[0] = RECORD_VERSION + 1;
	assert.throws(() => decodeMessage(record), isNewerVersion);
});

test("message record: an author comes back as it was, beside a revision and an expiry, and takes no more room than was asked for", () => {
	for (const author of [
		{ name: "" },
		{ name: "\u{10ffff}é".repeat(100) },
		{ name: "a", username: "" },
		{ name: "a", tokenId: "t" },
		{ name: "a", issuedAtMs: 0 },
		{ name: "a", username: "€", tokenId: "t", issuedAtMs: 1.5 },
	]) {
		for (const extras of [{}, { revision: 7, expiresAtMs: 9, forwarded: new Uint8Array([1, 1]), publisher: "€" }]) {
			const written = message("t", { payload: "x", retain: true, author, ...extras });
			const record = encodeMessage(written);
			assert.ok(record.length <= maxMessageRecordLength(written));
			const read = decodeMessage(record);
			assert.deepEqual(read.author, author);
			assert.deepEqual(
				[read.topic.name, read.revision, read.expiresAtMs, read.publisher, read.payload.length],
				[written.topic.name, written.revision, written.expiresAtMs, written.publisher, 1],
			);
		}
	}
});

test("in-flight record: begins with its version, and another one is refused", () => {
	const record = new Uint8Array(encodeInflight([inflight(1)]));
	assert.equal(record[0], RECORD_VERSION);
	assert.equal(decodeInflight(record).length, 1);
	record[0] = RECORD_VERSION + 1;
	assert.throws(() => decodeInflight(record), isNewerVersion);
});

test("in-flight record: an empty list is a record too", () => {
	assert.deepEqual(decodeInflight(encodeInflight([])), []);
});
