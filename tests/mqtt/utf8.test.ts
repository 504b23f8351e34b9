import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeText, encodeText, isText } from "../../src/mqtt/utf8.ts";

/** Well-formed by the definition: the bytes are what encoding their own decoding gives, without U+0000 or U+FFFD made up. */
function isTextByDefinition(bytes: Uint8Array): boolean {
	const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
	const again = new TextEncoder().encode(text);
	return !text.includes("\0") && again.length === bytes.length && again.every((byte, i) => byte === bytes[i]);
}

test("isText: agrees with the definition of well-formed UTF-8 for every sequence of two bytes [MQTT-1.5.4-1] [v3 MQTT-1.5.3-1]", () => {
	for (let pair = 0; pair < 0x10000; pair++) {
		const bytes = Uint8Array.of(pair >> 8, pair & 0xff);
		assert.equal(isText(bytes, 0, 2), isTextByDefinition(bytes), `${pair.toString(16)}`);
	}
});

test("isText: agrees with the definition for three and four bytes around every border of the encoding [MQTT-1.5.4-1]", () => {
	const borders = [0x00, 0x01, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee];
	borders.push(0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff);
	for (const a of borders.filter((byte) => byte >= 0xc0)) {
		for (const b of borders) {
			for (const c of borders) {
				const three = Uint8Array.of(a, b, c);
				assert.equal(isText(three, 0, 3), isTextByDefinition(three), `${three}`);
				for (const d of borders) {
					const four = Uint8Array.of(a, b, c, d);
					assert.equal(isText(four, 0, 4), isTextByDefinition(four), `${four}`);
				}
			}
		}
	}
});

test("isText: surrogates in UTF-8 are refused [MQTT-1.5.4-1]", () => {
	assert.equal(isText(Uint8Array.of(0xed, 0xa0, 0x80), 0, 3), false);
	assert.equal(isText(Uint8Array.of(0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80), 0, 6), false);
});

test("isText: U+0000 is refused wherever it stands, also in its overlong form [MQTT-1.5.4-2] [v3 MQTT-1.5.3-2]", () => {
	for (const bytes of [[0], [0x61, 0], [0, 0x61], [0x61, 0, 0x61], [0xc0, 0x80]]) {
		assert.equal(isText(Uint8Array.from(bytes), 0, bytes.length), false, `${bytes}`);
	}
});

test("isText: a character that the end of the range cuts is refused, although the bytes go on", () => {
	const bytes = encodeText("aé€😀");
	const good = [0, 1, 3, 6, 10];
	for (let end = 0; end <= bytes.length; end++) assert.equal(isText(bytes, 0, end), good.includes(end), `end ${end}`);
});

test("isText: control characters and non-characters other than U+0000 are allowed", () => {
	const bytes = encodeText("\u0001\u001f\u007f\u009f\ufdd0\uffff\u{10ffff}");
	assert.equal(isText(bytes, 0, bytes.length), true);
});

test("decodeText: a leading U+FEFF is kept, at the start and within [MQTT-1.5.4-3] [v3 MQTT-1.5.3-3]", () => {
	const bytes = Uint8Array.of(0xef, 0xbb, 0xbf, 0x61, 0xef, 0xbb, 0xbf);
	assert.equal(decodeText(bytes, 0, 7), "\ufeffa\ufeff");
	assert.equal(decodeText(bytes, 4, 7), "\ufeff");
});
