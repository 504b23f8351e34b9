/**
 * Our codec against mqtt-packet, over random packets. `FUZZ_PACKETS` sets how many are decoded (default 200,000; the other
 * tests take a share of that), `FUZZ_SEED` which.
 * A failure names the seed and the bytes.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import process from "node:process";
import { test } from "node:test";
import { generate, type Packet, type Parser, parser } from "mqtt-packet";
import type { PacketDecoder } from "../../src/mqtt/decoder.ts";
import type { ClientPacket, ProtocolVersion, PublishPacket } from "../../src/mqtt/packet.ts";
import { publishSize, writeAck, writePublish } from "../../src/mqtt/publish_encoder.ts";
import { MqttError } from "../../src/mqtt/reason_code.ts";
import { randomNumbers } from "./random.ts";
import { randomPacket } from "./random_packet.ts";
import { showOurs, showTheirs } from "./show_packet.ts";
import { newDecoder, plainConnect } from "./wire.ts";

const PACKETS = Number(process.env.FUZZ_PACKETS ?? 200_000);
const SEED = Number(process.env.FUZZ_SEED ?? 20_260_101);
/** Packets that one connection sends. */
const PER_CONNECTION = 100;
const VERSIONS: readonly ProtocolVersion[] = [3, 4, 5];
const HOUR = { timeout: 3_600_000 };

class Theirs {
	readonly #parser: Parser;
	#packet: Packet | undefined;
	#error: unknown;

	constructor(version: ProtocolVersion) {
		this.#parser = parser({ protocolVersion: version });
		this.#parser.on("packet", (packet) => {
			this.#packet = packet;
		});
		this.#parser.on("error", (error) => {
			this.#error = error;
		});
	}

	/** The packet, or `undefined` when it is refused. Gets whole packets one by one: what follows one confuses it. */
	parse(bytes: Uint8Array): Packet | undefined {
		this.#packet = undefined;
		this.#error = undefined;
		try {
			this.#parser.parse(Buffer.from(bytes));
		} catch (error) {
			this.#error = error;
		}
		return this.#error === undefined ? this.#packet : undefined;
	}
}

function connectedDecoder(version: ProtocolVersion): PacketDecoder {
	const decoder = newDecoder(1 << 20);
	decoder.decode(plainConnect(version), () => true);
	return decoder;
}

function hexOf(bytes: Uint8Array): string {
	return Buffer.from(bytes).toString("hex");
}

test("decoder: reads random packets of mqtt-packet as mqtt-packet does, however they are cut", HOUR, () => {
	const random = randomNumbers(SEED);
	for (let done = 0; done < PACKETS; done += PER_CONNECTION) {
		const version = random.pick(VERSIONS);
		const packets = Array.from({ length: PER_CONNECTION }, (_, i) =>
			generate(randomPacket(random, version, i === 0), { protocolVersion: version }),
		);
		const stream = Buffer.concat(packets);
		const decoder = newDecoder(1 << 20);
		const theirs = new Theirs(version);
		let count = 0;
		const onPacket = (ours: ClientPacket) => {
			const bytes = packets[count++] as Buffer;
			const read = theirs.parse(bytes);
			assert.ok(read !== undefined, `mqtt-packet reads its own ${hexOf(bytes)}`);
			const [mine, other] = [showOurs(ours, version), showTheirs(read, version)];
			if (mine !== other) assert.equal(mine, other, `seed ${SEED}, v${version}, ${hexOf(bytes)}`);
			return true;
		};
		for (let at = 0; at < stream.length; ) {
			const next = at + 1 + random.below(random.pick([2, 40, 1000, 100_000]));
			decoder.decode(new Uint8Array(stream.subarray(at, next)), onPacket);
			at = next;
		}
		assert.equal(count, packets.length);
	}
});

test("writePublish: encodes what was decoded from mqtt-packet's PUBLISH to the same bytes", HOUR, () => {
	const random = randomNumbers(SEED + 1);
	const target = new Uint8Array(1 << 18);
	for (let done = 0; done < PACKETS / 4; ) {
		const version = random.pick(VERSIONS);
		const decoder = connectedDecoder(version);
		for (let i = 0; i < PER_CONNECTION; i++) {
			const packet = randomPacket(random, version, false);
			if (packet.cmd !== "publish") continue;
			done++;
			// Our order: expiry, alias, the publisher's, the subscription ids.
			const { messageExpiryInterval, topicAlias, ...others } = packet.properties ?? {};
			const ids = random.list(random.below(4), [1, 127, 128, 16_383, 16_384, 268_435_455]);
			const sent = { ...packet, ...(version === 5 && { properties: { messageExpiryInterval, topicAlias, ...others } }) } as typeof packet;
			const delivered = {
				...sent,
				...(version === 5 && ids.length > 0 && { properties: { ...sent.properties, subscriptionIdentifier: ids } }),
			};
			const expected = generate(delivered as Packet, { protocolVersion: version });
			const published: PublishPacket[] = [];
			decoder.decode(
				new Uint8Array(generate(sent, { protocolVersion: version })),
				(decoded) => published.push(decoded as PublishPacket) > 0,
			);
			const [{ topic, payload, forwarded, ...rest } = assert.fail()] = published;
			if (topic === undefined) continue;
			const message = { topic, payload, forwarded, qos: rest.qos, retain: rest.retain, expiresAtMs: 0, publisher: "" };
			const fields = {
				version,
				...rest,
				topicAlias: Math.max(0, rest.topicAlias),
				omitTopic: false,
				expirySeconds: rest.expirySeconds === -1 ? undefined : rest.expirySeconds,
				subscriptionIds: ids,
			};
			// mqtt-packet writes alias 0, which no server sends.
			if (rest.topicAlias === 0) continue;
			const end = writePublish(target, 0, message, fields);
			if (!expected.equals(target.subarray(0, end)))
				assert.equal(hexOf(target.subarray(0, end)), hexOf(expected), `seed ${SEED}, v${version}`);
			assert.equal(publishSize(message, fields), end);
		}
	}
});

test("writeAck: equals mqtt-packet for random acknowledgements", HOUR, () => {
	const random = randomNumbers(SEED + 2);
	const target = new Uint8Array(8);
	const kinds = [
		["puback", 4],
		["pubrec", 5],
		["pubrel", 6],
		["pubcomp", 7],
	] as const;
	for (let done = 0; done < PACKETS / 4; done++) {
		const version = random.pick(VERSIONS);
		const [cmd, type] = random.pick(kinds);
		const messageId = 1 + random.below(65_535);
		const reasonCode = random.pick([0, 0, random.below(256)]);
		const expected = generate({ cmd, messageId, reasonCode }, { protocolVersion: version });
		const end = writeAck(target, 0, type, messageId, reasonCode, version);
		if (!expected.equals(target.subarray(0, end))) assert.equal(hexOf(target.subarray(0, end)), hexOf(expected), `seed ${SEED}`);
	}
});

/** Changes a packet somewhere, in one of the ways in which bytes go wrong. */
function mutate(bytes: Buffer, random: ReturnType<typeof randomNumbers>): Uint8Array {
	const list = [...bytes];
	for (let changes = 1 + random.below(3); changes > 0; changes--) {
		const at = random.below(list.length + 1);
		switch (random.below(6)) {
			case 0:
				list[at % list.length] = random.below(256);
				break;
			case 1:
				list[at % list.length] = (list[at % list.length] as number) ^ (1 << random.below(8));
				break;
			case 2:
				list.splice(at, 0, random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)]));
				break;
			case 3:
				list.splice(at, 1 + random.below(3));
				break;
			case 4:
				list.splice(at, 0, ...list.slice(at, at + random.below(8)));
				break;
			default:
				list.length = at;
		}
		if (list.length === 0) list.push(random.below(256));
	}
	// Most changes of the length would only make the packet incomplete: half of them are made whole again.
	if (list.length > 1 && list.length < 130 && random.below(2) === 0) list[1] = list.length - 2;
	return Uint8Array.from(list);
}

/** The first whole packet in the bytes, by its own header. */
function firstFrame(bytes: Uint8Array): Uint8Array {
	let length = 0;
	let at = 1;
	for (let shift = 0; at < bytes.length; shift += 7) {
		const byte = bytes[at++] as number;
		length |= (byte & 0x7f) << shift;
		if (byte < 0x80) break;
	}
	return bytes.subarray(0, at + length);
}

/**
 * What we take and mqtt-packet refuses, all of it because MQTT 3.1 allows it: DUP on repeated PUBREL, SUBSCRIBE and
 * UNSUBSCRIBE, and user name and password that their flags announce and that are missing at the end of CONNECT.
 */
function allowedBy31(version: ProtocolVersion, bytes: Uint8Array, ours: ClientPacket): boolean {
	if (version !== 3) return false;
	if (ours.kind === "connect") return ours.username === undefined || ours.password === undefined;
	return ((bytes[0] as number) & 0x0f) === 0x0a && ["pubrel", "subscribe", "unsubscribe"].includes(ours.kind);
}

test("decoder: throws nothing but MqttError for broken packets, and takes none that mqtt-packet refuses", HOUR, () => {
	const random = randomNumbers(SEED + 3);
	let taken = 0;
	let refused = 0;
	for (let done = 0; done < PACKETS / 2; done++) {
		const version = random.pick(VERSIONS);
		const isConnect = random.below(8) === 0;
		const broken = mutate(generate(randomPacket(random, version, isConnect), { protocolVersion: version }), random);
		const decoder = isConnect ? newDecoder(1 << 20) : connectedDecoder(version);
		let first: ClientPacket | undefined;
		try {
			const cut = random.below(broken.length + 1);
			for (const piece of [broken.subarray(0, cut), broken.subarray(cut)]) {
				decoder.decode(piece, (decoded) => {
					first ??= decoded;
					return true;
				});
			}
		} catch (error) {
			if (!(error instanceof MqttError)) throw new Error(`seed ${SEED}, v${version}, ${hexOf(broken)}`, { cause: error });
			refused++;
		}
		if (first === undefined) continue;
		taken++;
		const spoken = isConnect ? decoder.protocolVersion : version;
		const frame = firstFrame(broken);
		const read = new Theirs(spoken).parse(frame);
		if (read === undefined) {
			assert.ok(allowedBy31(spoken, frame, first), `only we take v${spoken} ${hexOf(frame)}, seed ${SEED}`);
			continue;
		}
		const [mine, other] = [showOurs(first, spoken), showTheirs(read, spoken)];
		if (mine !== other) assert.equal(mine, other, `seed ${SEED}, v${spoken}, ${hexOf(frame)}`);
	}
	assert.ok(refused > PACKETS / 10 && taken > PACKETS / 40, `${refused} of ${PACKETS / 2} were refused, ${taken} taken`);
});

test("decoder: throws nothing but MqttError for random bytes", HOUR, () => {
	const random = randomNumbers(SEED + 4);
	for (let done = 0; done < PACKETS / 2; done++) {
		const bytes = random.bytes(1 + random.below(30));
		// Mostly packets that fit, or nothing would get past the length.
		if (random.below(4) > 0 && bytes.length > 1) bytes[1] = bytes.length - 2;
		const version = random.pick(VERSIONS);
		try {
			const decoder = random.below(4) === 0 ? newDecoder(1 << 20) : connectedDecoder(version);
			decoder.decode(bytes, () => true);
		} catch (error) {
			if (!(error instanceof MqttError)) throw new Error(`seed ${SEED}, v${version}, ${hexOf(bytes)}`, { cause: error });
		}
	}
});
