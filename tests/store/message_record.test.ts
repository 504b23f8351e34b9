/** Records of messages and deliveries: what is refused. That what is written comes back is the store contract's. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeInflight, decodeMessage, encodeInflight, encodeMessage, RECORD_VERSION } from "../../src/store/message_record.ts";
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
