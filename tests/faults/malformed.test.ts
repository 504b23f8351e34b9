import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Bytes, bytes, field, packet, props, u16, u32 } from "../mqtt/wire.ts";
import { assertServes } from "../support/canary.ts";
import { freshId, RawClient, type Transport, type Version } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { BAD_STRINGS } from "../support/v3.ts";

/** What a client sends after its CONNECT, and what it must be told. */
interface Attack {
	readonly what: string;
	/** Reason code of the DISCONNECT; older clients are just closed. */
	readonly code: number;
	/** Versions that it exists in, default all. */
	readonly versions?: readonly Version[];
	/** `empty` is an empty property block where the version has one. */
	bytes(empty: number[], version: Version): Bytes;
}

interface Fault {
	/** Number in the catalogue of faults. */
	readonly item: number;
	readonly title: string;
	readonly attacks: readonly Attack[];
}

const MODERN: readonly Version[] = [5];
const OLD: readonly Version[] = [3, 4];

const publish = (properties: Bytes, topic = "t") => packet(0x30, field(topic), properties, [0x78]);
const userProperty = (name: string | Bytes, value: string | Bytes) => bytes([0x26], field(name), field(value));

const FAULTS: readonly Fault[] = [
	{
		item: 1,
		title: "a length that has five bytes, overflows or is not minimal is malformed",
		attacks: [
			{ what: "five bytes", code: 0x81, bytes: () => [0x30, 0x80, 0x80, 0x80, 0x80, 0x01] },
			{ what: "overflow", code: 0x81, bytes: () => [0xc0, 0xff, 0xff, 0xff, 0xff, 0x7f] },
			{ what: "zero in two bytes", code: 0x81, bytes: () => [0xc0, 0x80, 0x00] },
			{ what: "property length of five bytes", code: 0x81, versions: MODERN, bytes: () => publish([0xff, 0xff, 0xff, 0xff, 0x7f]) },
			{ what: "property length in two bytes", code: 0x81, versions: MODERN, bytes: () => publish([0x80, 0x00]) },
			{
				what: "subscription identifier in two bytes",
				code: 0x81,
				versions: MODERN,
				bytes: () => packet(0x82, u16(1), props([0x0b, 0x81, 0x00]), field("t"), [0]),
			},
		],
	},
	{
		item: 2,
		title: "a SUBSCRIBE that is cut is malformed, one without any filter is a protocol error",
		attacks: [
			{ what: "behind the topic", code: 0x81, bytes: (empty) => packet(0x82, u16(1), empty, field("t")) },
			{ what: "behind the second topic", code: 0x81, bytes: (empty) => packet(0x82, u16(1), empty, field("t"), [0], field("u")) },
			{ what: "inside the topic", code: 0x81, bytes: (empty) => packet(0x82, u16(1), empty, [0, 5, 0x61]) },
			{ what: "inside the topic's length", code: 0x81, bytes: (empty) => packet(0x82, u16(1), empty, [0]) },
			{ what: "inside the packet id", code: 0x81, bytes: () => packet(0x82, [0]) },
			{ what: "before the properties", code: 0x81, versions: MODERN, bytes: () => packet(0x82, u16(1)) },
			{ what: "behind the packet id", code: 0x82, bytes: (empty) => packet(0x82, u16(1), empty) },
			{ what: "UNSUBSCRIBE behind the packet id", code: 0x82, bytes: (empty) => packet(0xa2, u16(1), empty) },
			{ what: "UNSUBSCRIBE inside the topic", code: 0x81, bytes: (empty) => packet(0xa2, u16(1), empty, [0, 5, 0x61]) },
		],
	},
	{
		item: 3,
		title: "a PUBLISH that is cut, and a property length beyond the packet, are malformed",
		attacks: [
			{ what: "no body", code: 0x81, bytes: () => [0x30, 0] },
			{ what: "inside the topic's length", code: 0x81, bytes: () => packet(0x30, [0]) },
			{ what: "inside the topic", code: 0x81, bytes: () => packet(0x30, u16(10), [0x61]) },
			{ what: "a topic of 65,535 bytes announced", code: 0x81, bytes: () => packet(0x30, [0xff, 0xff], new Uint8Array(1000).fill(0x61)) },
			{ what: "inside the packet id", code: 0x81, bytes: () => packet(0x32, field("t"), [0]) },
			{ what: "without properties", code: 0x81, versions: MODERN, bytes: () => packet(0x30, field("t")) },
			{ what: "property length beyond the packet", code: 0x81, versions: MODERN, bytes: () => packet(0x30, field("t"), [5]) },
			{ what: "property value beyond its block", code: 0x81, versions: MODERN, bytes: () => publish([2, 0x02, 0]) },
			{ what: "string beyond its block", code: 0x81, versions: MODERN, bytes: () => publish([4, 0x03, 0, 9, 0x61]) },
			{ what: "PUBACK of one byte", code: 0x81, bytes: () => [0x40, 1, 0] },
			{ what: "PUBREL without a body", code: 0x81, bytes: () => [0x62, 0] },
			{ what: "PUBACK with a third byte", code: 0x81, versions: OLD, bytes: () => [0x40, 3, 0, 1, 0] },
			{ what: "PINGREQ with a body", code: 0x81, bytes: () => [0xc0, 1, 0] },
		],
	},
	{
		item: 4,
		title: "a malformed DISCONNECT is an error, not an end in order",
		attacks: [
			{ what: "property length beyond the packet", code: 0x81, versions: MODERN, bytes: () => packet(0xe0, [0, 5]) },
			{ what: "expiry cut", code: 0x81, versions: MODERN, bytes: () => packet(0xe0, [0], props([0x11, 0])) },
			{ what: "bytes behind the properties", code: 0x81, versions: MODERN, bytes: () => packet(0xe0, [0, 0, 0]) },
			{ what: "a code that only servers send", code: 0x82, versions: MODERN, bytes: () => packet(0xe0, [0x8e]) },
			{ what: "a code that does not exist", code: 0x82, versions: MODERN, bytes: () => packet(0xe0, [0x7f]) },
			{ what: "a body", code: 0x81, versions: OLD, bytes: () => packet(0xe0, [0]) },
			{ what: "reserved bits", code: 0x81, bytes: () => [0xe1, 0] },
		],
	},
	{
		item: 5,
		title: "packets that only a server sends are a protocol error",
		attacks: [
			{ what: "CONNACK", code: 0x82, bytes: (empty) => packet(0x20, [0, 0], empty) },
			{ what: "SUBACK", code: 0x82, bytes: (empty) => packet(0x90, u16(1), empty, [0]) },
			{ what: "UNSUBACK", code: 0x82, bytes: (empty) => packet(0xb0, u16(1), empty) },
			{ what: "PINGRESP", code: 0x82, bytes: () => [0xd0, 0] },
			{ what: "type 0", code: 0x81, bytes: () => [0, 0] },
			{
				what: "AUTH without a method in CONNECT",
				code: 0x82,
				versions: MODERN,
				bytes: () => packet(0xf0, [0x18], props([0x15], field("m"))),
			},
			{ what: "type 15", code: 0x81, versions: OLD, bytes: () => [0xf0, 0] },
		],
	},
	{
		item: 6,
		title: "a second CONNECT is a protocol error",
		attacks: [
			{
				what: "the same version",
				code: 0x82,
				bytes: (empty, version) => packet(0x10, field("MQTT"), [version, 2], u16(0), empty, field("c")),
			},
			{ what: "rubbish of that type", code: 0x82, bytes: () => [0x10, 0] },
		],
	},
	{
		item: 7,
		title: "reserved flags, QoS 3 and packet id 0 are malformed",
		attacks: [
			...[0x41, 0x52, 0x60, 0x63, 0x74, 0x80, 0x83, 0xa0, 0xa6, 0xc1].map((first) => ({
				what: `first byte 0x${first.toString(16)}`,
				code: 0x81,
				bytes: () => [first, 2, 0, 1],
			})),
			{ what: "PUBLISH QoS 3", code: 0x81, bytes: (empty) => packet(0x36, field("t"), u16(1), empty) },
			{ what: "DUP on QoS 0", code: 0x81, bytes: (empty) => packet(0x38, field("t"), empty) },
			{ what: "PUBLISH id 0", code: 0x81, bytes: (empty) => packet(0x32, field("t"), u16(0), empty) },
			{ what: "PUBREL id 0", code: 0x81, bytes: () => [0x62, 2, 0, 0] },
			{ what: "SUBSCRIBE id 0", code: 0x81, bytes: (empty) => packet(0x82, u16(0), empty, field("t"), [0]) },
			{ what: "UNSUBSCRIBE id 0", code: 0x81, bytes: (empty) => packet(0xa2, u16(0), empty, field("t")) },
			{ what: "reserved subscription options", code: 0x81, bytes: (empty) => packet(0x82, u16(1), empty, field("t"), [0x40]) },
			{ what: "subscription QoS 3", code: 0x82, versions: MODERN, bytes: (empty) => packet(0x82, u16(1), empty, field("t"), [3]) },
			{ what: "Retain Handling 3", code: 0x82, versions: MODERN, bytes: (empty) => packet(0x82, u16(1), empty, field("t"), [0x30]) },
		],
	},
	{
		item: 8,
		title: "bytes that are no UTF-8 string are malformed wherever a string stands",
		attacks: BAD_STRINGS.flatMap(([what, text]): Attack[] => [
			{ what: `topic: ${what}`, code: 0x81, bytes: (empty) => packet(0x30, field(text), empty) },
			{ what: `filter: ${what}`, code: 0x81, bytes: (empty) => packet(0x82, u16(1), empty, field(text), [0]) },
			{ what: `filter to remove: ${what}`, code: 0x81, bytes: (empty) => packet(0xa2, u16(1), empty, field(text)) },
			{ what: `content type: ${what}`, code: 0x81, versions: MODERN, bytes: () => publish(props([0x03], field(text))) },
			{ what: `response topic: ${what}`, code: 0x81, versions: MODERN, bytes: () => publish(props([0x08], field(text))) },
			{ what: `user property name: ${what}`, code: 0x81, versions: MODERN, bytes: () => publish(props(userProperty(text, "v"))) },
			{ what: `user property value: ${what}`, code: 0x81, versions: MODERN, bytes: () => publish(props(userProperty("n", text))) },
			{ what: `reason string: ${what}`, code: 0x81, versions: MODERN, bytes: () => packet(0xe0, [0], props([0x1f], field(text))) },
		]),
	},
	{
		item: 9,
		title: "a PUBLISH to a wildcard has an invalid topic name, one without topic and alias is a protocol error",
		attacks: [
			...["#", "+", "a/#", "a/+/b", "a+", "#a"].map((topic) => ({
				what: topic,
				code: 0x90,
				bytes: (empty: number[]) => packet(0x30, field(topic), empty),
			})),
			{ what: "empty", code: 0x82, bytes: (empty) => packet(0x30, field(""), empty) },
		],
	},
	{
		item: 11,
		title: "a topic with more levels than allowed has an invalid name",
		attacks: [
			{ what: "129 levels", code: 0x90, bytes: (empty) => packet(0x30, field("/".repeat(128)), empty) },
			{ what: "65,535 slashes", code: 0x90, bytes: (empty) => packet(0x30, field("/".repeat(65_535)), empty) },
		],
	},
	{
		item: 12,
		title: "topic alias 0 and those above the maximum are invalid, an unknown one is a protocol error",
		attacks: [
			{ what: "0", code: 0x94, versions: MODERN, bytes: () => publish(props([0x23, 0, 0])) },
			{ what: "33, over the maximum of 32", code: 0x94, versions: MODERN, bytes: () => publish(props([0x23, 0, 33])) },
			{ what: "65,535", code: 0x94, versions: MODERN, bytes: () => publish(props([0x23, 0xff, 0xff]), "") },
			{ what: "7, never set", code: 0x82, versions: MODERN, bytes: () => publish(props([0x23, 0, 7]), "") },
		],
	},
	{
		item: 13,
		title: "properties that are repeated, misplaced, unknown or of the wrong type are errors",
		attacks: [
			{ what: "content type twice", code: 0x82, versions: MODERN, bytes: () => publish(props([0x03], field("a"), [0x03], field("b"))) },
			{ what: "topic alias twice", code: 0x82, versions: MODERN, bytes: () => publish(props([0x23, 0, 1, 0x23, 0, 1])) },
			{ what: "message expiry twice", code: 0x82, versions: MODERN, bytes: () => publish(props([0x02], u32(1), [0x02], u32(1))) },
			{ what: "subscription identifier in PUBLISH", code: 0x82, versions: MODERN, bytes: () => publish(props([0x0b, 1])) },
			{ what: "receive maximum in PUBLISH", code: 0x82, versions: MODERN, bytes: () => publish(props([0x21, 0, 1])) },
			{
				what: "topic alias in SUBSCRIBE",
				code: 0x82,
				versions: MODERN,
				bytes: () => packet(0x82, u16(1), props([0x23, 0, 1]), field("t"), [0]),
			},
			{ what: "server reference in DISCONNECT", code: 0x82, versions: MODERN, bytes: () => packet(0xe0, [0], props([0x1c], field("s"))) },
			{
				what: "reason string in SUBSCRIBE",
				code: 0x82,
				versions: MODERN,
				bytes: () => packet(0x82, u16(1), props([0x1f], field("s")), field("t"), [0]),
			},
			{
				what: "subscription identifier 0",
				code: 0x82,
				versions: MODERN,
				bytes: () => packet(0x82, u16(1), props([0x0b, 0]), field("t"), [0]),
			},
			{ what: "payload format 2", code: 0x82, versions: MODERN, bytes: () => publish(props([0x01, 2])) },
			{ what: "response topic with a wildcard", code: 0x82, versions: MODERN, bytes: () => publish(props([0x08], field("a/#"))) },
			{ what: "property 0x7f", code: 0x81, versions: MODERN, bytes: () => publish(props([0x7f, 0])) },
			{ what: "property 0", code: 0x81, versions: MODERN, bytes: () => publish(props([0, 0])) },
		],
	},
];

/** WebSocket close code that goes with each of the codes above. */
const CLOSE_CODE = 1002;

describe("malformed packets", () => {
	const broker = suiteBroker();

	for (const version of [5, 4, 3] as const) {
		for (const transport of ["ws", "tcp"] as const) {
			for (const { item, title, attacks } of FAULTS) {
				const possible = attacks.filter(({ versions }) => versions?.includes(version) ?? true);
				if (possible.length === 0) continue;
				test(`fault ${item}, MQTT level ${version} over ${transport}: ${title}`, async () => {
					for (const attack of possible) await assertRefused(version, transport, attack);
				});
			}
		}
	}

	/** The client is told the code, the connection ends, and the broker serves on. */
	async function assertRefused(version: Version, transport: Transport, { what, code, bytes: make }: Attack): Promise<void> {
		const client = await RawClient.connect(broker, { version, transport });
		client.sendBytes(bytes(make(version === 5 ? [0] : [], version)));
		const codes = (await client.receiveUntilClosed()).map(({ cmd, reasonCode }) => `${cmd} ${reasonCode}`);
		assert.deepEqual(codes, version === 5 ? [`disconnect ${code}`] : [], what);
		if (transport === "ws") assert.equal(client.closeCode, CLOSE_CODE, what);
		await assertServes(broker);
	}

	for (const transport of ["ws", "tcp"] as const) {
		test(`fault 1 over ${transport}: no packet can be smuggled in behind a Remaining Length that is not minimal`, async () => {
			const topic = freshId("topic");
			const watcher = await RawClient.connect(broker);
			await watcher.subscribe(topic);
			const attacker = await RawClient.connect(broker, { transport });
			const hidden = packet(0x30, field(topic), [0], [0x78]);
			attacker.sendBytes(bytes([0xc0, 0x80 | hidden.length, 0x80, 0x00], hidden));
			attacker.sendBytes(hidden);
			await attacker.expectDisconnect(0x81);
			const honest = await RawClient.connect(broker);
			honest.publish(topic, "honest");
			await watcher.expect("publish", { payload: "honest" });
			await watcher.expectNothing();
		});

		test(`fault 4 over ${transport}: a malformed DISCONNECT publishes the will`, async () => {
			const topic = freshId("topic");
			const watcher = await RawClient.connect(broker);
			await watcher.subscribe(topic);
			const attacker = await RawClient.connect(broker, { transport, will: { topic, payload: "will", qos: 0, retain: false } });
			attacker.sendBytes(packet(0xe0, [0, 5]));
			await attacker.expectDisconnect(0x81);
			await watcher.expect("publish", { payload: "will" });
		});
	}

	test("fault 8: control characters, non-characters and private ones are let through unchanged", async () => {
		const client = await RawClient.connect(broker);
		for (const character of ["\u0001", "\u001f", "\u007f", "\u009f", "\ufdd0", "\uffff", "\ufeff", "\ue000", "\u{10ffff}"]) {
			const topic = `${freshId("topic")}/${character}`;
			await client.subscribe(topic);
			client.publish(topic, character, { properties: { contentType: character, userProperties: { [character]: character } } });
			const { properties } = await client.expect("publish", { topic, payload: character });
			assert.equal(properties.contentType, character);
			assert.equal(properties.userProperties[character], character);
		}
	});
});
