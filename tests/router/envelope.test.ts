/** Parcels between replicas: what goes in comes out, and what is broken is refused. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Message } from "../../src/mqtt/message.ts";
import { NO_PROPERTIES } from "../../src/mqtt/packet.ts";
import { Topic } from "../../src/mqtt/topic.ts";
import {
	messageEnvelope,
	type ParcelReader,
	readEnvelopes,
	readHead,
	ringEnvelope,
	takeoverEnvelope,
	testEnvelope,
	UnreadableParcel,
	writeHead,
} from "../../src/router/envelope.ts";
import type { Forwarded } from "../../src/router/router.ts";
import { READS } from "../../src/store/redis/format.ts";
import { StoreError } from "../../src/store/store.ts";

const NOW = 1_700_000_000_000;

function message(options: Partial<Message> = {}): Message {
	return {
		topic: Topic.of("a/ü"),
		payload: Buffer.from("payload"),
		qos: 2,
		retain: true,
		forwarded: Buffer.from([1, 1]),
		expiresAtMs: Number.POSITIVE_INFINITY,
		publisher: "p",
		...options,
	};
}

const empty: Forwarded = {
	message: message({ payload: NO_PROPERTIES, forwarded: NO_PROPERTIES, publisher: "" }),
	appended: [],
	groups: [],
};
const full: Forwarded = {
	message: message({ expiresAtMs: NOW + 5000 }),
	appended: [
		{ log: "a/+", seq: 1 },
		{ log: "$share/g/日本", seq: 2 ** 47 },
	],
	groups: ["$share/h/#", "$share/i/ü"],
};

/** All that is in a parcel, as plain values. */
function read(parcel: Buffer, nowMs = NOW): unknown[] {
	const found: unknown[] = [];
	const reader: ParcelReader = {
		onMessage: (forwarded, token) => found.push([plain(forwarded), token]),
		onGroup: (group) => found.push(group),
		onTakeover: (session) => found.push(session),
		onTest: (nonce) => found.push([nonce]),
	};
	readEnvelopes(parcel, readHead(parcel).end, nowMs, reader);
	return found;
}

function plain({ message: { topic, payload, forwarded, ...rest }, appended, groups }: Forwarded): unknown {
	return { topic: topic.name, payload: [...payload], properties: [...forwarded], ...rest, appended, groups };
}

const PARCEL = Buffer.concat([
	writeHead("sender", 2 ** 40, READS),
	messageEnvelope(empty, undefined, NOW, READS),
	ringEnvelope("$share/g/ü"),
	messageEnvelope(full, "tökén", NOW, READS),
	takeoverEnvelope({ clientId: "clïent", epoch: "e" }),
	testEnvelope("nonce"),
]);

test("envelope: everything in a parcel comes out as it went in, in its order", () => {
	assert.deepEqual(read(PARCEL), [
		[plain(empty), undefined],
		"$share/g/ü",
		[plain(full), "tökén"],
		{ clientId: "clïent", epoch: "e" },
		["nonce"],
	]);
	const { sender, number } = readHead(PARCEL);
	assert.deepEqual([sender, number], ["sender", 2 ** 40]);
});

test("envelope: the expiry is what remained of it, by the clock of whoever reads", () => {
	const parcel = Buffer.concat([writeHead("s", 1, READS), messageEnvelope(full, undefined, NOW + 1000, READS)]);
	const [[found]] = read(parcel, 500) as [[{ expiresAtMs: number }]];
	assert.equal(found.expiresAtMs, 4500);
});

test("envelope: a parcel that ends too early is refused wherever that is", () => {
	const ends = new Set<number>([readHead(PARCEL).end]);
	for (let at = readHead(PARCEL).end; at < PARCEL.length; ) {
		at += 5 + PARCEL.readUInt32LE(at + 1);
		ends.add(at);
	}
	for (let length = 0; length <= PARCEL.length; length++) {
		const cut = PARCEL.subarray(0, length);
		if (ends.has(length)) read(cut);
		else assert.throws(() => read(cut), UnreadableParcel, `${length} bytes`);
	}
});

test("envelope: parcels, envelopes and records of another version are refused with what to do", () => {
	const parcel = Buffer.from(PARCEL);
	parcel[0] = 2;
	assert.throws(() => read(parcel), /format is 2, this version of Shoal reads up to 1. Restart it with the version/);
	const { end } = readHead(PARCEL);
	const kind = Buffer.from(PARCEL);
	kind[end] = 99;
	assert.throws(() => read(kind), /kind 99/);
	const record = Buffer.from(PARCEL);
	// Behind the head of the envelope, an empty token and two empty lists.
	record[end + 5 + 12] = 9;
	assert.throws(() => read(record), StoreError);
});

test("envelope: random bytes are read or refused, and nothing else", () => {
	let state = 1;
	const random = (): number => {
		state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
		return state >>> 8;
	};
	for (let round = 0; round < 20_000; round++) {
		const parcel = Buffer.from(PARCEL);
		for (let n = 0; n < 3; n++) parcel[random() % parcel.length] = random();
		try {
			read(parcel);
		} catch (error) {
			assert.ok(error instanceof Error && !(error instanceof TypeError), String(error));
		}
	}
});
