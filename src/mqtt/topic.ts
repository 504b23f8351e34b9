/**
 * Topic names and topic filters: validity, matching, `$share`, and how to walk an ordered index of topics. Knows MQTT 5
 * section 4.7 and 4.8.2 and nothing of packets, sessions or stores. All walks are loops over the characters: a name may
 * have 65,535 levels.
 */

import { MqttError, ReasonCode } from "./reason_code.ts";
import { decodeText, encodeText, isText } from "./utf8.ts";

const SLASH = 0x2f;
const PLUS = 0x2b;
const HASH = 0x23;
const DOLLAR = 0x24;
const SHARE_PREFIX = "$share/";
/** Bytes that the two length bytes of a string can say [MQTT-4.7.3-3]. */
export const MAX_BYTES = 65_535;
/** Before every name in the space of a tenant, `$tenant/{tenant}/…`: no client ever names such a thing itself. */
export const TENANTS = "$tenant/";
const TENANTS_BYTES = encodeText(TENANTS);
/** Longer names are rare, and would let 8,192 slots hold half a gigabyte. */
const MAX_INTERNED_BYTES = 256;

/** A valid topic name. Two topics are the same when their names are: nothing is normalised [MQTT-4.7.3-4]. */
export class Topic {
	readonly name: string;
	/** UTF-8 of the name, for the encoder: nobody writes to it. */
	readonly bytes: Uint8Array;
	/** UTF-8 of the name that clients know: without `$tenant/{tenant}/` for a topic of a tenant, else the same as `bytes`. */
	readonly wire: Uint8Array;

	private constructor(name: string, bytes: Uint8Array) {
		this.name = name;
		this.bytes = bytes;
		this.wire = bytes[0] === DOLLAR ? withoutTenant(bytes) : bytes;
	}

	/** Whether it belongs to the server, as `$SYS/…` does: it begins with $ and is in no tenant's space. */
	get ofServer(): boolean {
		return this.bytes[0] === DOLLAR && this.wire === this.bytes;
	}

	/** The topic of a name. Throws `MqttError` 0x90 when it is not a valid one [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.0-1]. */
	static of(name: string): Topic {
		const bytes = encodeText(name);
		if (!name.isWellFormed() || name.includes("\0")) throw invalidName("it has a character that MQTT strings cannot hold");
		if (bytes.length > MAX_BYTES) throw invalidName(`it has ${bytes.length} bytes, 65,535 is the limit`);
		refuseWildcards(bytes, 0, bytes.length);
		return new Topic(name, bytes);
	}

	/**
	 * The topic in `buffer[start, end)`, which is copied. Throws `MqttError` 0x81 for bytes that are no MQTT string and 0x90
	 * for a string that is no topic name.
	 */
	static decode(buffer: Uint8Array, start: number, end: number): Topic {
		// [MQTT-3.3.2-1] [MQTT-4.7.3-2]
		if (!isText(buffer, start, end)) {
			throw new MqttError(ReasonCode.malformedPacket, "Cannot decode the topic name: it is not well-formed UTF-8 without U+0000");
		}
		refuseWildcards(buffer, start, end);
		return new Topic(decodeText(buffer, start, end), new Uint8Array(buffer.subarray(start, end)));
	}
}

/** A view of what follows the tenant; the same bytes where there is none. */
function withoutTenant(bytes: Uint8Array): Uint8Array {
	for (let at = 0; at < TENANTS_BYTES.length; at++) if (bytes[at] !== TENANTS_BYTES[at]) return bytes;
	const slash = bytes.indexOf(SLASH, TENANTS_BYTES.length);
	return slash === -1 || slash === bytes.length - 1 ? bytes : bytes.subarray(slash + 1);
}

function invalidName(problem: string): MqttError {
	return new MqttError(ReasonCode.topicNameInvalid, `Cannot use the topic name: ${problem}`);
}

function refuseWildcards(bytes: Uint8Array, start: number, end: number): void {
	if (start === end) throw invalidName("it is empty");
	for (let at = start; at < end; at++) {
		const byte = bytes[at];
		if (byte === PLUS || byte === HASH) throw invalidName("it contains a wildcard, which only filters may"); // [MQTT-3.3.2-2] [MQTT-4.7.0-1]
	}
}

/**
 * Topics by their bytes, so that a name seen before costs neither a string nor an allocation. Direct mapped and therefore
 * bounded: a new name simply takes the slot of the old one. Shared by all connections of the process.
 */
export class TopicTable {
	readonly #slots: (Topic | undefined)[];
	readonly #mask: number;

	/** @param capacity Slots, a power of two; each holds at most one topic of up to 256 bytes. */
	constructor(capacity = 8192) {
		if (capacity < 1 || !Number.isInteger(Math.log2(capacity))) {
			throw new RangeError(`Cannot make a topic table of ${capacity} slots: give a power of two`);
		}
		this.#slots = new Array(capacity).fill(undefined);
		this.#mask = capacity - 1;
	}

	/** The topic in `buffer[start, end)`: the same object as last time if it is still known. Throws like {@link Topic.decode}. */
	intern(buffer: Uint8Array, start: number, end: number): Topic {
		const length = end - start;
		if (length > MAX_INTERNED_BYTES) return Topic.decode(buffer, start, end);
		let hash = 0x811c9dc5 | 0;
		for (let at = start; at < end; at++) hash = Math.imul(hash ^ (buffer[at] as number), 0x01000193);
		const slot = hash & this.#mask;
		const known = this.#slots[slot];
		if (known !== undefined && equals(known.bytes, buffer, start, length)) return known;
		const topic = Topic.decode(buffer, start, end);
		this.#slots[slot] = topic;
		return topic;
	}
}

function equals(bytes: Uint8Array, buffer: Uint8Array, start: number, length: number): boolean {
	if (bytes.length !== length) return false;
	for (let at = 0; at < length; at++) {
		if (bytes[at] !== buffer[start + at]) return false;
	}
	return true;
}

/**
 * Why a filter is not valid, or `undefined` if it is. `maxLevels` counts the levels after `$share/{name}/`.
 * The reason is a short clause for logs, such as `# is not the last level`.
 */
export function filterProblem(filter: string, maxLevels: number): string | undefined {
	if (filter === "") return "it is empty"; // [MQTT-4.7.3-1]
	if (!filter.isWellFormed() || filter.includes("\0")) return "it has a character that MQTT strings cannot hold"; // [MQTT-4.7.3-2]
	if (filter.length > MAX_BYTES / 3 && encodeText(filter).length > MAX_BYTES) return "it is longer than 65,535 bytes"; // [MQTT-4.7.3-3]
	let start = 0;
	if (filter.startsWith(SHARE_PREFIX)) {
		const slash = filter.indexOf("/", SHARE_PREFIX.length);
		const nameEnd = slash === -1 ? filter.length : slash;
		if (nameEnd === SHARE_PREFIX.length) return "its share name is empty"; // [MQTT-4.8.2-1]
		for (let at = SHARE_PREFIX.length; at < nameEnd; at++) {
			const char = filter.charCodeAt(at);
			if (char === PLUS || char === HASH) return "its share name contains a wildcard"; // [MQTT-4.8.2-2]
		}
		start = nameEnd + 1;
		if (start >= filter.length) return "no filter follows its share name"; // [MQTT-4.8.2-2]
	}
	let levels = 1;
	for (let at = start; at < filter.length; at++) {
		const char = filter.charCodeAt(at);
		if (char === SLASH) {
			levels++;
		} else if (char === PLUS || char === HASH) {
			const opens = at === start || filter.charCodeAt(at - 1) === SLASH;
			if (char === HASH && at !== filter.length - 1) return "# is not the last level"; // [MQTT-4.7.1-1]
			const closes = at === filter.length - 1 || filter.charCodeAt(at + 1) === SLASH;
			if (!opens || !closes) return `${filter.charAt(at)} does not fill a whole level`; // [MQTT-4.7.1-1] [MQTT-4.7.1-2]
		}
	}
	return levels > maxLevels ? `it has ${levels} levels, ${maxLevels} is the limit` : undefined;
}

/** The parts of a shared subscription's filter, `undefined` for any other. The filter must be a valid one. */
export function parseShare(filter: string): { shareName: string; filter: string } | undefined {
	if (!filter.startsWith(SHARE_PREFIX)) return undefined;
	const slash = filter.indexOf("/", SHARE_PREFIX.length);
	return { shareName: filter.slice(SHARE_PREFIX.length, slash), filter: filter.slice(slash + 1) };
}

/** How many levels a topic name or filter has; separators make levels, empty ones too. */
export function levelCount(name: string): number {
	let levels = 1;
	for (let at = name.indexOf("/"); at !== -1; at = name.indexOf("/", at + 1)) levels++;
	return levels;
}

/** Whether a valid filter (without `$share`) matches a valid topic name. */
export function matches(filter: string, topic: string): boolean {
	const first = filter.charCodeAt(0);
	if (topic.charCodeAt(0) === DOLLAR && (first === PLUS || first === HASH)) return false; // [MQTT-4.7.2-1]
	let at = 0;
	for (let f = 0; f < filter.length; f++) {
		const char = filter.charCodeAt(f);
		if (char === HASH) return true;
		if (char === PLUS) {
			while (at < topic.length && topic.charCodeAt(at) !== SLASH) at++;
		} else if (at < topic.length && topic.charCodeAt(at) === char) {
			at++;
		} else {
			// `a/#` matches its parent `a` too.
			return at === topic.length && char === SLASH && f === filter.length - 2 && filter.charCodeAt(f + 1) === HASH;
		}
	}
	return at === topic.length;
}

/** What {@link retainedScan} says of one row. */
export interface ScanStep {
	/** The filter matches the topic. */
	readonly matches: boolean;
	/** Also after a match: go on at the first key that is not below this one, which is above the topic; `undefined`: at the next row. */
	readonly seek: string | undefined;
	/** No key above the topic can match. */
	readonly done: boolean;
}

const MATCH: ScanStep = { matches: true, seek: undefined, done: false };
const NEXT: ScanStep = { matches: false, seek: undefined, done: false };

/**
 * One step of a scan over topics in the binary order of their UTF-8, which is the order of code points, of SQLite's BINARY
 * collation and of Redis' lexical ranges (and not that of JavaScript's `<`). Given the row that the scan stands on, says
 * whether it matches and where the next one that may match can be: the scan skips what no key can match, so that `a/+/c`
 * costs about the matching rows and one step for each `a/{level}`. It never skips a match.
 */
export function retainedScan(filter: string, topic: string): ScanStep {
	const first = filter.charCodeAt(0);
	// `%` is the character after `$` [MQTT-4.7.2-1].
	if (topic.charCodeAt(0) === DOLLAR && (first === PLUS || first === HASH)) return skipTo("%");
	let at = 0;
	/** Where the last `+` ended in the topic, at a slash: past all topics that go on with this slash is a place to go on from. */
	let plusEnd = -1;
	for (let f = 0; f < filter.length; f++) {
		const expected = filter.charCodeAt(f);
		if (expected === HASH) return MATCH;
		if (expected === PLUS) {
			while (at < topic.length && topic.charCodeAt(at) !== SLASH) at++;
			// The topic ends inside the `+`: what follows it here may go on with any character.
			if (at === topic.length) return f === filter.length - 1 || (filter.endsWith("/#") && f === filter.length - 3) ? MATCH : NEXT;
			plusEnd = at;
			continue;
		}
		if (at === topic.length) {
			if (expected === SLASH && f === filter.length - 2 && filter.charCodeAt(f + 1) === HASH) return MATCH;
			return skipTo(topic + literalRun(filter, f));
		}
		const found = topic.charCodeAt(at);
		if (found !== expected) {
			return orderOf(expected) > orderOf(found) ? skipTo(topic.slice(0, at) + literalRun(filter, f)) : pastPlus(topic, plusEnd);
		}
		at++;
	}
	if (at < topic.length) return pastPlus(topic, plusEnd);
	// Of all topics with this slash after the last `+`, only this one matches.
	return { matches: true, seek: seekPast(topic, plusEnd), done: plusEnd === -1 };
}

/** The lowest key, in the order of {@link retainedScan}, from which matches can come. */
export function scanStart(filter: string): string {
	return literalRun(filter, 0);
}

function skipTo(seek: string): ScanStep {
	return { matches: false, seek, done: false };
}

function pastPlus(topic: string, plusEnd: number): ScanStep {
	return { matches: false, seek: seekPast(topic, plusEnd), done: plusEnd === -1 };
}

/** Behind everything that has the same levels up to the last `+`: `0` is the character after `/`. */
function seekPast(topic: string, plusEnd: number): string | undefined {
	return plusEnd === -1 ? undefined : `${topic.slice(0, plusEnd)}0`;
}

/** What every match has of the filter from `start` up to its next wildcard. */
function literalRun(filter: string, start: number): string {
	let end = start;
	while (end < filter.length && filter.charCodeAt(end) !== PLUS && filter.charCodeAt(end) !== HASH) end++;
	// The slash of `a/#` is no part of its parent `a`, which matches too. A slash alone is needed to get past the parent.
	if (filter.charCodeAt(end) === HASH && end - start > 1) end--;
	return filter.slice(start, end);
}

/** Makes UTF-16 code units compare as code points do: the surrogates stand for what is above U+FFFF. */
function orderOf(unit: number): number {
	return unit < 0xd800 ? unit : unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}
