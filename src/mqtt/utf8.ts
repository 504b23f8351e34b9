/**
 * MQTT's UTF-8 strings: which bytes are one, and what text they are. Knows no packets and throws nothing; the runtimes'
 * own decoders are not asked whether bytes are well-formed, because U+0000 would need a second pass anyway.
 */

// A leading U+FEFF is a character of the string, not a byte order mark [MQTT-1.5.4-3].
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

/**
 * Whether `bytes[start, end)` is well-formed UTF-8 (which has no surrogates and no overlong forms) [MQTT-1.5.4-1] without
 * U+0000 [MQTT-1.5.4-2].
 */
export function isText(bytes: Uint8Array, start: number, end: number): boolean {
	let at = start;
	while (at < end) {
		const lead = bytes[at] as number;
		if (lead < 0x80) {
			if (lead === 0) return false;
			at++;
			continue;
		}
		const length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
		if (lead < 0xc2 || lead > 0xf4 || at + length > end) return false;
		const second = bytes[at + 1] as number;
		// The four leads whose second byte has a narrower range: overlong forms, surrogates, beyond U+10FFFF.
		const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
		const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
		if (second < low || second > high) return false;
		for (let rest = at + 2; rest < at + length; rest++) {
			if (((bytes[rest] as number) & 0xc0) !== 0x80) return false;
		}
		at += length;
	}
	return true;
}

/** The text of bytes for which {@link isText} holds. */
export function decodeText(bytes: Uint8Array, start: number, end: number): string {
	return decoder.decode(bytes.subarray(start, end));
}

/** The bytes of a string, in an array of their own. */
export function encodeText(text: string): Uint8Array {
	return encoder.encode(text);
}
