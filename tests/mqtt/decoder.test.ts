import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { PacketDecoder } from "../../src/mqtt/decoder.ts";
import type { ClientPacket, ProtocolVersion } from "../../src/mqtt/packet.ts";
import { MqttError, ReasonCode } from "../../src/mqtt/reason_code.ts";
import { TopicTable } from "../../src/mqtt/topic.ts";
import {
	assertChunkRefused,
	assertRefused,
	bytes,
	connected,
	decodeAll,
	decodeOne,
	field,
	hex,
	newDecoder,
	packet,
	plainConnect,
	props,
	u16,
	vbi,
} from "./wire.ts";

const VERSIONS: readonly ProtocolVersion[] = [3, 4, 5];

/** A stream with every packet that a v5 client can send. */
const EVERYTHING = bytes(
	packet(
		0x10,
		field("MQTT"),
		[5, 0xee],
		u16(10),
		props([0x21, 0, 9]),
		field("id"),
		props([0x18, 0, 0, 0, 1]),
		field("w"),
		field("gone"),
		field("u"),
		field("p"),
	),
	packet(0x30, field("a"), props([0x23, 0, 1]), [1, 2, 3]),
	packet(0x3d, field("a/b"), u16(7), props([0x02, 0, 0, 0, 9], [0x26], field("k"), field("v")), new Array(200).fill(0x78)),
	packet(0x40, u16(7)),
	packet(0x50, u16(8), [0x10]),
	packet(0x62, u16(9), [0x92], props([0x1f], field("why"))),
	packet(0x70, u16(10), [0], props()),
	packet(0x82, u16(11), props([0x0b, 5]), field("a/+"), [0x2d], field("#"), [0]),
	packet(0xa2, u16(12), props(), field("a/+"), field("")),
	packet(0xc0),
	packet(0xf0, [0x19], props([0x15], field("m"), [0x16], field("d"))),
	packet(0xe0, [4], props([0x11, 0, 0, 0, 5])),
);

function decodeChunks(chunks: readonly Uint8Array[]): string[] {
	const seen: string[] = [];
	const decoder = newDecoder();
	for (const chunk of chunks) decoder.decode(chunk, (decoded) => seen.push(show(decoded)) > 0);
	assert.equal(decoder.buffered, 0);
	return seen;
}

function show(decoded: ClientPacket): string {
	return JSON.stringify(decoded, (_, value) => (value instanceof Uint8Array ? hex(value) : value));
}

test("decoder: decodes every packet of a stream in order", () => {
	const kinds = decodeChunks([EVERYTHING]).map((packet) => JSON.parse(packet).kind);
	const expected = [
		"connect",
		"publish",
		"publish",
		"puback",
		"pubrec",
		"pubrel",
		"pubcomp",
		"subscribe",
		"unsubscribe",
		"pingreq",
		"auth",
		"disconnect",
	];
	assert.deepEqual(kinds, expected);
});

test("decoder: packets may be split at any byte [MQTT-6.0.0-2] [v3 MQTT-6.0.0-2]", () => {
	const whole = decodeChunks([EVERYTHING]);
	for (let at = 0; at <= EVERYTHING.length; at++) {
		assert.deepEqual(decodeChunks([EVERYTHING.subarray(0, at), EVERYTHING.subarray(at)]), whole, `split at ${at}`);
	}
});

test("decoder: packets may come in pieces of any one size [MQTT-6.0.0-2] [v3 MQTT-6.0.0-2]", () => {
	const whole = decodeChunks([EVERYTHING]);
	for (let size = 1; size <= 50; size++) {
		const chunks: Uint8Array[] = [];
		for (let at = 0; at < EVERYTHING.length; at += size) chunks.push(EVERYTHING.subarray(at, at + size));
		assert.deepEqual(decodeChunks(chunks), whole, `pieces of ${size}`);
	}
});

test("decoder: empty chunks change nothing", () => {
	const chunks = [EVERYTHING.subarray(0, 1), new Uint8Array(0), EVERYTHING.subarray(1), new Uint8Array(0)];
	assert.deepEqual(decodeChunks(chunks), decodeChunks([EVERYTHING]));
});

test("decoder: a Buffer is decoded like a Uint8Array, and its payloads are plain arrays", () => {
	assert.deepEqual(decodeChunks([Buffer.from(EVERYTHING)]), decodeChunks([EVERYTHING]));
	const publish = decodeOne(4, Buffer.from(packet(0x30, field("a"), [1, 2])), "publish");
	assert.equal(Buffer.isBuffer(publish.payload), false);
});

test("decoder: a payload of a whole packet is a view of the chunk, not a copy", () => {
	const chunk = packet(0x30, field("a"), [1, 2, 3]);
	const publish = decodeOne(4, chunk, "publish");
	assert.equal(publish.payload.buffer, chunk.buffer);
	assert.equal(hex(publish.payload), "010203");
});

test("decoder: a packet put together from pieces keeps its bytes when the next one comes", () => {
	const decoder = connected(4);
	const payloads: Uint8Array[] = [];
	for (const value of [0x11, 0x22, 0x33]) {
		const whole = packet(0x30, field("a"), new Array(100).fill(value));
		for (let at = 0; at < whole.length; at += 7) {
			decoder.decode(whole.slice(at, at + 7), (decoded) => {
				assert.equal(decoded.kind, "publish");
				if (decoded.kind === "publish") payloads.push(decoded.payload);
				return true;
			});
		}
	}
	assert.deepEqual(
		payloads.map((payload) => hex(payload)),
		["11", "22", "33"].map((value) => value.repeat(100)),
	);
});

/** Bytes that `run` allocates as typed arrays of a given length. */
function allocatedBy(run: () => void): number {
	const original = globalThis.Uint8Array;
	let total = 0;
	globalThis.Uint8Array = new Proxy(original, {
		construct(target, [first, ...rest]) {
			if (typeof first === "number") total += first;
			return Reflect.construct(target, [first, ...rest]);
		},
	});
	try {
		run();
	} finally {
		globalThis.Uint8Array = original;
	}
	return total;
}

test("decoder: a megabyte in single bytes is decoded without copying it again and again", () => {
	const whole = packet(0x30, field("a"), new Uint8Array(1 << 20).fill(7));
	const decoder = connected(4);
	let size = 0;
	const allocated = allocatedBy(() => {
		for (let at = 0; at < whole.length; at++) {
			assert.equal(decoder.buffered, at);
			decoder.decode(whole.subarray(at, at + 1), (decoded) => {
				if (decoded.kind === "publish") size = decoded.payload.length;
				return true;
			});
		}
	});
	assert.equal(size, 1 << 20);
	assert.equal(decoder.buffered, 0);
	assert.ok(allocated < 4 << 20, `${allocated} bytes were allocated`);
});

test("decoder: an announced length costs nothing until its bytes come", () => {
	const decoder = connected(4);
	const chunk = bytes([0x30], vbi(268_435_455), field("a"), [1, 2, 3]);
	const allocated = allocatedBy(() => decoder.decode(chunk, () => true));
	assert.equal(decoder.buffered, 11);
	assert.ok(allocated > 0 && allocated <= 64, `${allocated} bytes were allocated`);
});

test("decoder: a whole packet is decoded without allocating for its bytes", () => {
	const decoder = connected(5);
	const chunk = packet(0x32, field("a"), u16(1), props([0x23, 0, 1], [0x26], field("k"), field("v")), new Array(50).fill(1));
	assert.equal(
		allocatedBy(() => decoder.decode(chunk, () => true)),
		0,
	);
});

test("decoder: a packet over the limit is refused with 0x95 by its header alone", () => {
	for (const version of VERSIONS) {
		const decoder = connected(version, 100);
		assertRefused(() => decoder.decode(bytes([0x30], vbi(99)), () => true), ReasonCode.packetTooLarge);
		assert.equal(decoder.buffered, 0);
	}
	assertRefused(() => newDecoder(100).decode(bytes([0x10], vbi(268_435_455)), () => true), ReasonCode.packetTooLarge);
});

test("decoder: the limit counts the whole packet with its fixed header", () => {
	const fits = packet(0x30, field("a"), new Uint8Array(95));
	assert.equal(fits.length, 100);
	let count = 0;
	connected(4, 100).decode(fits, () => ++count > 0);
	assert.equal(count, 1);
	assertRefused(() => connected(4, 99).decode(fits, () => true), ReasonCode.packetTooLarge);
});

test("decoder: the limit is checked when the header comes in single bytes too", () => {
	const decoder = connected(4, 1000);
	decoder.decode(bytes([0x30]), () => true);
	decoder.decode(bytes([0xff]), () => true);
	assertRefused(() => decoder.decode(bytes([0x7f]), () => true), ReasonCode.packetTooLarge);
	assert.equal(decoder.buffered, 0);
});

test("decoder: a five-byte remaining length is refused with 0x81 [MQTT-1.5.5-1]", () => {
	assertChunkRefused(5, bytes([0x30, 0x80, 0x80, 0x80, 0x80, 0x01]), ReasonCode.malformedPacket);
	assertChunkRefused(4, bytes([0x30, 0xff, 0xff, 0xff, 0xff]), ReasonCode.malformedPacket);
});

test("decoder: a remaining length with more bytes than it needs is refused with 0x81 [MQTT-1.5.5-1]", () => {
	for (const length of [
		[0x80, 0x00],
		[0x85, 0x00],
		[0x83, 0x80, 0x00],
		[0x83, 0x80, 0x80, 0x00],
	]) {
		assertChunkRefused(5, bytes([0xc0], length, [0, 0, 0, 0, 0]), ReasonCode.malformedPacket);
	}
});

test("decoder: a packet of every length of remaining length is decoded", () => {
	for (const size of [124, 125, 16_380, 16_381, 2_097_148, 2_097_149]) {
		const publish = decodeOne(4, packet(0x30, field("a"), new Uint8Array(size)), "publish");
		assert.equal(publish.payload.length, size);
	}
});

test("decoder: the first packet must be CONNECT, anything else is refused with 0x82 [MQTT-3.1.0-1] [v3 MQTT-3.1.0-1]", () => {
	for (let first = 0; first < 256; first++) {
		if (first >> 4 === 1) continue;
		assertRefused(() => newDecoder().decode(bytes([first]), () => true), ReasonCode.protocolError);
	}
});

test("decoder: a second CONNECT is refused with 0x82, and the version of the first stays [MQTT-3.1.0-2] [v3 MQTT-3.1.0-2]", () => {
	for (const version of VERSIONS) {
		const decoder = connected(version);
		assertRefused(() => decoder.decode(plainConnect(version === 5 ? 4 : 5), () => true), ReasonCode.protocolError);
		assert.equal(decoder.protocolVersion, version);
	}
});

/** Flags that a first byte may have, by packet type; PUBLISH apart. */
const FLAGS: Record<number, number> = { 4: 0, 5: 0, 6: 2, 7: 0, 8: 2, 10: 2, 12: 0, 14: 0, 15: 0 };

test("decoder: fixed-header flags other than the listed ones are refused with 0x81 [MQTT-2.1.3-1] [v3 MQTT-2.2.2-1] [v3 MQTT-2.2.2-2]", () => {
	for (const version of [4, 5] as const) {
		for (const [type, allowed] of Object.entries(FLAGS)) {
			if (version === 4 && type === "15") continue;
			for (let flags = 0; flags < 16; flags++) {
				if (flags !== allowed) assertChunkRefused(version, bytes([(Number(type) << 4) | flags]), ReasonCode.malformedPacket);
			}
		}
	}
});

const FLAG_CLAUSES: [name: string, first: number, clauses: string][] = [
	["PUBREL", 0x60, "[MQTT-3.6.1-1] [v3 MQTT-3.6.1-1]"],
	["SUBSCRIBE", 0x80, "[MQTT-3.8.1-1] [v3 MQTT-3.8.1-1]"],
	["UNSUBSCRIBE", 0xa0, "[MQTT-3.10.1-1] [v3 MQTT-3.10.1-1]"],
	["DISCONNECT", 0xe1, "[MQTT-3.14.1-1] [v3 MQTT-3.14.1-1]"],
];
for (const [name, first, clauses] of FLAG_CLAUSES) {
	test(`decoder: ${name} with wrong flags is refused with 0x81 ${clauses}`, () => {
		for (const version of VERSIONS) assertChunkRefused(version, bytes([first]), ReasonCode.malformedPacket);
	});
}

test("decoder: AUTH with flags is refused with 0x81, and AUTH of a v3 client too [MQTT-3.15.1-1]", () => {
	assertChunkRefused(5, bytes([0xf1]), ReasonCode.malformedPacket);
	assertChunkRefused(4, bytes([0xf0]), ReasonCode.malformedPacket);
	assertChunkRefused(3, bytes([0xf0]), ReasonCode.malformedPacket);
});

test("decoder: a CONNECT with flags is refused with 0x81 [MQTT-2.1.3-1]", () => {
	assertRefused(() => newDecoder().decode(bytes([0x11]), () => true), ReasonCode.malformedPacket);
});

test("decoder: a 3.1 client may set DUP when it repeats PUBREL, SUBSCRIBE or UNSUBSCRIBE; nobody else may", () => {
	const repeated = [packet(0x6a, u16(1)), packet(0x8a, u16(1), field("a"), [0]), packet(0xaa, u16(1), field("a"))];
	for (const again of repeated) {
		assert.equal(decodeAll(3, again).length, 1);
		assertChunkRefused(4, again, ReasonCode.malformedPacket);
	}
});

test("decoder: packet type 0 is refused with 0x81", () => {
	for (const version of VERSIONS) assertChunkRefused(version, bytes([0x00]), ReasonCode.malformedPacket);
});

test("decoder: packets that only a server sends are refused with 0x82", () => {
	for (const version of VERSIONS) {
		for (const first of [0x20, 0x90, 0xb0, 0xd0]) assertChunkRefused(version, bytes([first]), ReasonCode.protocolError);
	}
});

test("decoder: PINGREQ is decoded, and refused with 0x81 when it has a body", () => {
	for (const version of VERSIONS) {
		assert.equal(decodeOne(version, packet(0xc0), "pingreq").kind, "pingreq");
		assertChunkRefused(version, packet(0xc0, [0]), ReasonCode.malformedPacket);
	}
});

test("decoder: packets before a wrong one are handed out before it throws", () => {
	const decoder = connected(4);
	const kinds: string[] = [];
	assertRefused(
		() => decoder.decode(bytes(packet(0xc0), packet(0x40, u16(1)), [0x00]), (decoded) => kinds.push(decoded.kind) > 0),
		ReasonCode.malformedPacket,
	);
	assert.deepEqual(kinds, ["pingreq", "puback"]);
});

test("decoder: is dead after an error: every further call throws the same one and decodes nothing", () => {
	const decoder = connected(4);
	const onPacket = (decoded: ClientPacket) => assert.fail(`${decoded.kind} was decoded`);
	assertRefused(() => decoder.decode(bytes([0x00]), onPacket), ReasonCode.malformedPacket);
	assertRefused(() => decoder.decode(packet(0xc0), onPacket), ReasonCode.malformedPacket);
	assertRefused(() => decoder.decode(new Uint8Array(0), onPacket), ReasonCode.malformedPacket);
});

test("decoder: stops when the receiver answers false, keeps nothing and ignores what follows", () => {
	for (const split of [0, 1, 2, 3, 5]) {
		const decoder = connected(4);
		let count = 0;
		const onPacket = () => ++count < 2;
		const stream = bytes(packet(0xc0), packet(0x40, u16(1)), packet(0xc0), [0x30, 50, 1]);
		decoder.decode(stream.subarray(0, split), onPacket);
		decoder.decode(stream.subarray(split), onPacket);
		assert.equal(count, 2);
		assert.equal(decoder.buffered, 0);
		decoder.decode(bytes([0x00]), onPacket);
		assert.equal(count, 2);
	}
});

test("decoder: what the receiver throws comes out, and nothing is decoded afterwards", () => {
	const decoder = connected(4);
	const failure = new RangeError("receiver failed");
	assert.throws(
		() =>
			decoder.decode(packet(0xc0), () => {
				throw failure;
			}),
		failure,
	);
	decoder.decode(packet(0xc0), (decoded) => assert.fail(`${decoded.kind} was decoded`));
});

test("decoder: a packet cut short anywhere is decoded or refused with 0x81 or 0x82, never anything else", () => {
	const packets = [...splitPackets(EVERYTHING)].slice(1);
	let refused = 0;
	for (const whole of packets) {
		const header = whole.findIndex((byte, i) => i > 0 && byte < 0x80) + 1;
		for (let length = 0; length < whole.length - header; length++) {
			const cut = packet(whole[0] as number, whole.subarray(header, header + length));
			// The payload of PUBLISH, the list of UNSUBSCRIBE and the tails of acknowledgements may end earlier.
			try {
				decodeAll(5, cut);
			} catch (error) {
				assert.ok(error instanceof MqttError, `${error}`);
				assert.ok([ReasonCode.malformedPacket, ReasonCode.protocolError].includes(error.reasonCode as 0x81 | 0x82), error.message);
				refused++;
			}
		}
	}
	assert.ok(refused > 60, `${refused} were refused`);
});

function* splitPackets(stream: Uint8Array): Generator<Uint8Array> {
	for (let at = 0; at < stream.length; ) {
		let length = 0;
		let next = at + 1;
		for (let shift = 0; ; shift += 7) {
			const byte = stream[next++] as number;
			length |= (byte & 0x7f) << shift;
			if (byte < 0x80) break;
		}
		yield stream.subarray(at, next + length);
		at = next + length;
	}
}

test("decoder: bytes behind the last field are refused with 0x81 in every packet that has a last field", () => {
	const extended = [
		packet(0x40, u16(7), [0], props(), [0]),
		packet(0x62, u16(9), [0x92], props([0x1f], field("why")), [1]),
		packet(0xe0, [0], props(), [0]),
		packet(0xf0, [0x19], props([0x15], field("m")), [0]),
		packet(0xc0, [0]),
	];
	for (const wrong of extended) assertChunkRefused(5, wrong, ReasonCode.malformedPacket);
	const connect = packet(0x10, field("MQTT"), [4, 2], u16(60), field("c"), [0]);
	assertRefused(() => newDecoder().decode(connect, () => true), ReasonCode.malformedPacket);
});

test("decoder: two decoders with packets in pieces do not disturb each other", () => {
	const topics = new TopicTable();
	const decoders = [4, 5].map((version) => {
		const decoder = new PacketDecoder({ maxPacketSize: 1000, topics });
		decoder.decode(plainConnect(version as ProtocolVersion), () => true);
		return decoder;
	});
	const streams = [packet(0x30, field("a"), [4, 4]), packet(0x30, field("a"), props([0x26], field("k"), field("v")), [5, 5])];
	const payloads: (string | undefined)[] = [];
	for (let at = 0; at < 20; at++) {
		for (const [i, decoder] of decoders.entries()) {
			decoder.decode((streams[i] as Uint8Array).subarray(at, at + 1), (decoded) => {
				if (decoded.kind === "publish") payloads.push(hex(decoded.payload));
				return true;
			});
		}
	}
	assert.deepEqual(payloads, ["0404", "0505"]);
});
