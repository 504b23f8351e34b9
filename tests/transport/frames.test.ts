import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { encodeBinary, encodeClose, encodePing, encodePong, FrameDecoder } from "../../src/transport/frames.ts";
import { assertPattern, pattern } from "../support/pattern.ts";
import { encodeFrame, Opcode } from "../support/raw_websocket.ts";

/** What a decoder told: runs of binary data joined, everything else as it came. */
class Recorder {
	readonly events: string[] = [];
	readonly #binary: Uint8Array[] = [];
	readonly decoder = new FrameDecoder({
		onBinary: (bytes) => {
			assert.ok(bytes.length > 0);
			this.#binary.push(bytes);
			const last = this.events.at(-1);
			if (last?.startsWith("binary")) this.events.pop();
			this.events.push(`binary ${Number(last?.startsWith("binary") ? last.slice(7) : 0) + bytes.length}`);
		},
		onText: () => this.events.push("text"),
		onPing: (payload) => this.events.push(`ping ${Buffer.from(payload)}`),
		onClose: (code) => this.events.push(`close ${code}`),
		onViolation: (message) => this.events.push(`violation: ${message}`),
	});

	binary(): Buffer {
		return Buffer.concat(this.#binary);
	}
}

/** Pushes bytes cut into chunks of one size, or of sizes from a function. The decoder gets copies, for it writes to them. */
function decode(bytes: Uint8Array, chunkSize: (index: number) => number): Recorder {
	const recorder = new Recorder();
	for (let offset = 0, index = 0; offset < bytes.length; index++) {
		const size = chunkSize(index);
		recorder.decoder.push(Uint8Array.from(bytes.subarray(offset, offset + size)));
		offset += size;
	}
	return recorder;
}

const whole = () => Number.POSITIVE_INFINITY;

/** A small generator of numbers that a failed run can repeat. */
function random(seed: number): (below: number) => number {
	let state = seed;
	return (below) => {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		return Math.floor((state / 0x1_0000_0000) * below);
	};
}

describe("FrameDecoder", () => {
	for (const length of [0, 1, 3, 4, 125, 126, 127, 128, 131, 1_000, 65_535, 65_536, 70_001]) {
		for (const size of [1, 2, 5, 14, 127, 4_096, Number.POSITIVE_INFINITY]) {
			if (size < 14 && length > 1_000) continue;
			test(`a binary frame of ${length} bytes in chunks of ${size} is its payload`, () => {
				const recorder = decode(encodeFrame(pattern(length)), () => size);
				assertPattern(recorder.binary());
				assert.deepEqual(recorder.events, length === 0 ? [] : [`binary ${length}`]);
			});
		}
	}

	test("random frames in random chunks are the same events, however they are cut", () => {
		const next = random(7);
		for (let round = 0; round < 300; round++) {
			const frames: Buffer[] = [];
			const expected: string[] = [];
			let total = 0;
			const binary = (payload: Buffer, last: boolean) => {
				if (payload.length === 0) return;
				total += payload.length;
				const joined = last && expected.at(-1)?.startsWith("binary") ? Number(expected.pop()?.slice(7)) : 0;
				expected.push(`binary ${joined + payload.length}`);
			};
			for (let count = next(8); count >= 0; count--) {
				switch (next(5)) {
					case 0: {
						const text = "x".repeat(next(200));
						frames.push(encodeFrame(Buffer.from(text), { opcode: Opcode.text }));
						expected.push("text");
						break;
					}
					case 1:
						frames.push(encodeFrame(Buffer.from(`p${count}`), { opcode: Opcode.ping }));
						expected.push(`ping p${count}`);
						break;
					case 2:
						frames.push(encodeFrame(Buffer.from("ignored"), { opcode: Opcode.pong }));
						break;
					case 3: {
						const first = pattern(next(300), total);
						const second = pattern(next(300), total + first.length);
						frames.push(encodeFrame(first, { fin: false }), encodeFrame(second, { opcode: Opcode.continuation }));
						binary(first, true);
						binary(second, true);
						break;
					}
					default: {
						const payload = pattern(next(900), total);
						frames.push(encodeFrame(payload));
						binary(payload, true);
					}
				}
			}
			const recorder = decode(Buffer.concat(frames), () => 1 + next(1 + next(400)));
			assert.deepEqual(recorder.events, expected, `round ${round}`);
			assertPattern(recorder.binary());
		}
	});

	test("rubbish ends in at most one violation or close and never in an exception", () => {
		const next = random(11);
		for (let round = 0; round < 2_000; round++) {
			const bytes = Uint8Array.from({ length: 1 + next(200) }, () => next(256));
			const { events } = decode(bytes, () => 1 + next(40));
			const ends = events.filter((event) => event.startsWith("violation") || event.startsWith("close"));
			assert.ok(ends.length <= 1, events.join());
			if (ends.length === 1) assert.equal(events.at(-1), ends[0]);
		}
	});

	test("a text message in fragments is told once and its payload is skipped [MQTT-6.0.0-1]", () => {
		const { events } = decode(
			Buffer.concat([
				encodeFrame(Buffer.from("he"), { opcode: Opcode.text, fin: false }),
				encodeFrame(Buffer.from("llo"), { opcode: Opcode.continuation }),
				encodeFrame(Buffer.from("after")),
			]),
			whole,
		);
		assert.deepEqual(events, ["text", "binary 5"]);
	});

	test("a ping between the fragments of a message is told at once", () => {
		const { events } = decode(
			Buffer.concat([
				encodeFrame(Buffer.from("a"), { fin: false }),
				encodeFrame(Buffer.from("now"), { opcode: Opcode.ping }),
				encodeFrame(Buffer.from("b"), { opcode: Opcode.continuation }),
			]),
			whole,
		);
		assert.deepEqual(events, ["binary 1", "ping now", "binary 1"]);
	});

	test("payload is passed on before its frame is complete: nothing is held", () => {
		const recorder = new Recorder();
		recorder.decoder.push(Uint8Array.from(encodeFrame(pattern(1_000)).subarray(0, 508)));
		assert.deepEqual(recorder.events, ["binary 500"]);
	});

	test("stop: the rest of the chunk is not looked at", () => {
		const seen: number[] = [];
		const decoder = new FrameDecoder({
			onBinary: (bytes) => {
				seen.push(bytes.length);
				decoder.stop();
			},
			onText: () => assert.fail(),
			onPing: () => assert.fail(),
			onClose: () => assert.fail(),
			onViolation: () => assert.fail(),
		});
		decoder.push(Buffer.concat([encodeFrame(pattern(3)), encodeFrame(pattern(4)), encodeFrame(pattern(5), { rsv1: true })]));
		decoder.push(Uint8Array.from(encodeFrame(pattern(6))));
		assert.deepEqual(seen, [3]);
	});

	for (const [title, bytes, expected] of [
		["reserved bit", encodeFrame(pattern(3), { rsv1: true }), /reserved bits/],
		["no mask", encodeFrame(pattern(3), { masked: false }), /not masked/],
		["data opcode 3", encodeFrame(pattern(3), { opcode: 3 }), /opcode 3/],
		["control opcode 11", encodeFrame(pattern(3), { opcode: 11 }), /opcode 11/],
		["fragmented ping", encodeFrame(pattern(3), { opcode: Opcode.ping, fin: false }), /control frame/],
		["ping of 126 bytes", encodeFrame(pattern(126), { opcode: Opcode.ping }), /control frame/],
		["continuation of nothing", encodeFrame(pattern(3), { opcode: Opcode.continuation }), /continuation/],
		[
			"message within a fragmented one",
			Buffer.concat([encodeFrame(new Uint8Array(0), { fin: false }), encodeFrame(pattern(3))]),
			/before the fragmented one has ended/,
		],
		["close with half a code", encodeFrame(Buffer.of(0x10), { opcode: Opcode.close }), /close frame/],
		["close with code 1006", encodeFrame(Buffer.of(0x03, 0xee), { opcode: Opcode.close }), /close frame/],
		["close with code 5000", encodeFrame(Buffer.of(0x13, 0x88), { opcode: Opcode.close }), /close frame/],
	] as const) {
		test(`${title}: is a violation after which nothing is read`, () => {
			const { events } = decode(Buffer.concat([bytes, encodeFrame(pattern(9))]), whole);
			assert.equal(events.length, 1);
			assert.match(events[0] ?? "", expected);
		});
	}

	for (const [title, payload, code] of [
		["1000", Buffer.of(0x03, 0xe8), 1000],
		["4999 with a reason", Buffer.concat([Buffer.of(0x13, 0x87), Buffer.from("bye")]), 4999],
		["no code", new Uint8Array(0), 1005],
	] as const) {
		test(`close frame with ${title}: is told as ${code} and is the end`, () => {
			const bytes = Buffer.concat([encodeFrame(payload, { opcode: Opcode.close }), encodeFrame(pattern(9))]);
			assert.deepEqual(decode(bytes, () => 1).events, [`close ${code}`]);
		});
	}
});

describe("encode", () => {
	for (const [length, header] of [
		[0, [0x82, 0]],
		[125, [0x82, 125]],
		[126, [0x82, 126, 0, 126]],
		[65_535, [0x82, 126, 0xff, 0xff]],
		[65_536, [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]],
	] as const) {
		test(`encodeBinary: ${length} bytes have the shortest header and no mask`, () => {
			const frame = encodeBinary(pattern(length));
			assert.deepEqual([...frame.subarray(0, header.length)], header);
			assert.equal(frame.length, header.length + length);
			assertPattern(frame.subarray(header.length));
		});
	}

	test("encodeBinary: copies the payload", () => {
		const payload = pattern(10);
		const frame = encodeBinary(payload);
		payload.fill(0);
		assertPattern(frame.subarray(2));
	});

	test("control frames are as RFC 6455 draws them", () => {
		assert.deepEqual([...encodePing()], [0x89, 0]);
		assert.deepEqual([...encodePong(Buffer.from("hi"))], [0x8a, 2, 0x68, 0x69]);
		assert.deepEqual([...encodeClose(1012)], [0x88, 2, 0x03, 0xf4]);
		assert.deepEqual([...encodeClose(1005)], [0x88, 0]);
	});
});
