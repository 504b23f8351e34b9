/**
 * What the codec costs per packet, next to mqtt-packet in the same run: `bun bench/codec.ts`, `deno run -A bench/codec.ts`.
 * Prints a Markdown table; each number is the best of several rounds, because the others only say what else was running.
 */

import { Buffer } from "node:buffer";
import process from "node:process";
import { generate, type Packet, parser } from "mqtt-packet";
import { PacketDecoder } from "../src/mqtt/decoder.ts";
import { encodePacket } from "../src/mqtt/encoder.ts";
import type { Message } from "../src/mqtt/message.ts";
import { type ClientPacket, NO_PROPERTIES, type ProtocolVersion } from "../src/mqtt/packet.ts";
import { type PublishFields, publishSize, writeAck, writePublish } from "../src/mqtt/publish_encoder.ts";
import { Topic, TopicTable } from "../src/mqtt/topic.ts";

const ROUNDS = 7;
const ROUND_MS = 60;
/** Packets in one chunk, as a busy client's socket delivers them. */
const BATCH = 100;

/** Nanoseconds per packet of a function that handles `packets` packets. */
function measure(packets: number, run: () => void): number {
	for (const warmUpUntil = performance.now() + ROUND_MS; performance.now() < warmUpUntil; ) run();
	let best = Number.POSITIVE_INFINITY;
	for (let round = 0; round < ROUNDS; round++) {
		const start = performance.now();
		let runs = 0;
		let elapsed = 0;
		while (elapsed < ROUND_MS) {
			for (let i = 0; i < 10; i++) run();
			runs += 10;
			elapsed = performance.now() - start;
		}
		best = Math.min(best, (elapsed * 1e6) / (runs * packets));
	}
	return best;
}

/** Everything handed to it is looked at, so that no engine leaves the work out. */
let seen = 0;

const topics = new TopicTable();

function decodeOurs(version: ProtocolVersion, chunk: Uint8Array): number {
	const decoder = new PacketDecoder({ maxPacketSize: 1 << 20, topics });
	const count = (packet: ClientPacket) => {
		seen += packet.kind.length;
		return true;
	};
	decoder.decode(generate({ cmd: "connect", protocolVersion: version, clientId: "bench" }), count);
	return measure(BATCH, () => decoder.decode(chunk, count));
}

function decodeTheirs(version: ProtocolVersion, chunk: Buffer): number {
	const decoder = parser({ protocolVersion: version });
	decoder.on("packet", (packet) => {
		seen += packet.cmd.length;
	});
	return measure(BATCH, () => decoder.parse(chunk));
}

function decodeRow(name: string, version: ProtocolVersion, packet: Packet): Row {
	const chunk = Buffer.concat(new Array(BATCH).fill(generate(packet, { protocolVersion: version })));
	// A socket hands out plain bytes, not a slice of Node's buffer pool.
	return [`decode ${name}`, decodeOurs(version, new Uint8Array(chunk)), decodeTheirs(version, chunk)];
}

/** A decoder takes one CONNECT, so each packet has its own. */
function decodeConnectRow(name: string, packet: Packet): Row {
	const bytes = generate(packet);
	const chunk = new Uint8Array(bytes);
	const ours = measure(1, () => new PacketDecoder({ maxPacketSize: 1 << 20, topics }).decode(chunk, (decoded) => decoded.kind.length > 0));
	const decoder = parser({ protocolVersion: 4 });
	decoder.on("packet", (decoded) => {
		seen += decoded.cmd.length;
	});
	return [`decode ${name}`, ours, measure(1, () => decoder.parse(bytes))];
}

/** Names that come once in a million, so that the topic table never knows them. */
function decodeNewTopicsRow(): Row {
	const packets = Array.from({ length: 100_000 }, (_, i) =>
		generate({ cmd: "publish", topic: `devices/${String(i).padStart(6, "0")}/temperature`, payload, qos: 0, dup: false, retain: false }),
	);
	const chunk = Buffer.concat(packets);
	const plain = new Uint8Array(chunk);
	const decoder = new PacketDecoder({ maxPacketSize: 1 << 20, topics });
	decoder.decode(generate({ cmd: "connect", clientId: "bench" }), () => true);
	const ours = measure(packets.length, () => decoder.decode(plain, (packet) => packet.kind.length > 0));
	return ["decode PUBLISH QoS 0, topic never seen", ours, decodeTheirs(4, Buffer.concat(packets.slice(0, BATCH)))];
}

const target = new Uint8Array(1 << 16);

function publishRow(name: string, packet: Packet & { cmd: "publish" }, fields: PublishFields, forwarded: Uint8Array): Row {
	const message: Message = {
		topic: Topic.of(packet.topic),
		payload: new Uint8Array(payload),
		qos: packet.qos,
		retain: packet.retain,
		forwarded,
		expiresAtMs: Number.POSITIVE_INFINITY,
		publisher: "bench",
	};
	let at = 0;
	const ours = measure(BATCH, () => {
		at = 0;
		for (let i = 0; i < BATCH; i++) {
			if (at + publishSize(message, fields) > target.length) at = 0;
			at = writePublish(target, at, message, fields);
		}
		seen += at;
	});
	return [`write ${name}`, ours, generateTheirs(fields.version, packet)];
}

function generateTheirs(protocolVersion: ProtocolVersion, packet: Packet): number {
	return measure(1, () => {
		seen += generate(packet, { protocolVersion }).length;
	});
}

type Row = readonly [name: string, ours: number, theirs: number];

const payload = Buffer.alloc(64, "x");
const topic = "devices/000123/temperature";
const publish = { cmd: "publish", topic, payload, dup: false, retain: false } as const;
const plain = {
	version: 4,
	retain: false,
	dup: false,
	subscriptionIds: undefined,
	topicAlias: 0,
	omitTopic: false,
	expirySeconds: undefined,
} as const;
const userProperties = new Uint8Array([0x26, 0, 1, 0x6b, 0, 1, 0x76]);
const subscriptions = Array.from({ length: 4 }, (_, i) => ({ topic: `devices/+/state/${i}`, qos: 1 as const }));

const rows: Row[] = [
	decodeRow("PUBLISH QoS 0", 4, { ...publish, qos: 0 }),
	decodeRow("PUBLISH QoS 1", 4, { ...publish, qos: 1, messageId: 7 }),
	decodeRow("PUBLISH QoS 0, v5", 5, { ...publish, qos: 0 }),
	decodeRow("PUBLISH QoS 1, v5, alias and a user property", 5, {
		...publish,
		qos: 1,
		messageId: 7,
		properties: { topicAlias: 3, userProperties: { k: "v" } },
	}),
	decodeNewTopicsRow(),
	decodeRow("PUBACK", 4, { cmd: "puback", messageId: 7 }),
	decodeRow("PUBACK, v5, with a reason code", 5, { cmd: "puback", messageId: 7, reasonCode: 0x10 }),
	decodeRow("SUBSCRIBE, 4 filters", 5, { cmd: "subscribe", messageId: 7, subscriptions }),
	decodeConnectRow("CONNECT", { cmd: "connect", clientId: "device-000123", username: "device", password: Buffer.from("secret") }),
	decodeConnectRow("CONNECT, v5, with a will", {
		cmd: "connect",
		protocolVersion: 5,
		clientId: "device-000123",
		properties: { sessionExpiryInterval: 3600, receiveMaximum: 20, userProperties: { k: "v" } },
		will: { topic: "devices/000123/state", payload: Buffer.from("gone"), qos: 1, retain: true, properties: { willDelayInterval: 5 } },
	}),
	publishRow("PUBLISH QoS 0", { ...publish, qos: 0 }, { ...plain, qos: 0, packetId: 0 }, NO_PROPERTIES),
	publishRow("PUBLISH QoS 1", { ...publish, qos: 1, messageId: 7 }, { ...plain, qos: 1, packetId: 7 }, NO_PROPERTIES),
	publishRow(
		"PUBLISH QoS 1, v5, user property, subscription id",
		{ ...publish, qos: 1, messageId: 7, properties: { userProperties: { k: "v" }, subscriptionIdentifier: 5 } },
		{ ...plain, version: 5, qos: 1, packetId: 7, subscriptionIds: [5] },
		userProperties,
	),
	[
		"write PUBACK",
		measure(BATCH, () => {
			for (let i = 0; i < BATCH; i++) seen += writeAck(target, i * 4, 4, 7 + i, 0, 5);
		}),
		generateTheirs(5, { cmd: "puback", messageId: 7, reasonCode: 0 }),
	],
	[
		"encode CONNACK, v5",
		measure(1, () => {
			const properties = { topicAliasMaximum: 10, receiveMaximum: 100 };
			seen += encodePacket({ kind: "connack", reasonCode: 0, sessionPresent: false, properties }, 5, Number.POSITIVE_INFINITY).length;
		}),
		generateTheirs(5, { cmd: "connack", reasonCode: 0, sessionPresent: false, properties: { topicAliasMaximum: 10, receiveMaximum: 100 } }),
	],
];

const runtime = process.versions.bun === undefined ? `Deno ${process.versions.deno}` : `Bun ${process.versions.bun}`;
console.log(`| ns per packet, 64-byte payload, ${runtime} | Shoal | mqtt-packet | ratio |\n|---|---:|---:|---:|`);
for (const [name, ours, theirs] of rows) {
	console.log(`| ${name} | ${ours.toFixed(ours < 100 ? 1 : 0)} | ${theirs.toFixed(0)} | ${(theirs / ours).toFixed(1)} |`);
}
if (seen === 0) throw new Error("nothing was measured");
