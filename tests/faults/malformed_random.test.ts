import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Random, randomNumbers } from "../mqtt/random.ts";
import { bytes, field, packet, props, u16, u32 } from "../mqtt/wire.ts";
import { assertServes } from "../support/canary.ts";
import { freshId, RawClient, type Version } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { connectBytes, FLAG } from "../support/v3.ts";

const SESSIONS = 250;
/** Values that parsers trip over. */
const AWKWARD = [0x00, 0x01, 0x7f, 0x80, 0xff, 0x23, 0x2b, 0x2f, 0x24];

/** Packets of a client that are all right, to be spoilt. */
function seeds(version: Version): Uint8Array[] {
	const empty = version === 5 ? [0] : [];
	const said = version === 5 ? props([0x03], field("a/b"), [0x26], field("n"), field("v"), [0x02], u32(9)) : [];
	return [
		packet(0x30, field("fuzz/a"), said, [1, 2, 3]),
		packet(0x33, field("fuzz/retained"), u16(1), said, [1, 2, 3]),
		packet(0x34, field("fuzz/b"), u16(2), said, new Uint8Array(200)),
		packet(0x62, u16(2)),
		packet(0x82, u16(3), version === 5 ? props([0x0b, 5]) : [], field("fuzz/#"), [1], field("$share/g/fuzz/+"), [2]),
		packet(0xa2, u16(4), empty, field("fuzz/#"), field("fuzz/+")),
		packet(0x40, u16(1)),
		packet(0x50, u16(1)),
		packet(0x70, u16(1)),
		packet(0xc0),
		packet(0xe0, version === 5 ? [0x04, ...props([0x11], u32(0), [0x1f], field("bye"))] : []),
		connectPacket(version),
	];
}

function connectPacket(version: Version): Uint8Array {
	if (version !== 5)
		return connectBytes(
			version,
			FLAG.clean | FLAG.will | FLAG.username,
			field(freshId("fuzz")),
			field("fuzz/will"),
			field("m"),
			field("u"),
		);
	const will = [props([0x18], u32(0), [0x03], field("a")), field("fuzz/will"), field("m")];
	return packet(0x10, field("MQTT"), [5, FLAG.clean | FLAG.will], u16(0), props([0x21, 0, 9]), field(freshId("fuzz")), ...will);
}

/** A few packets, somewhere cut, turned, doubled or filled up. */
function spoilt(random: Random, from: readonly Uint8Array[]): Uint8Array {
	let sent = bytes(...random.list(1 + random.below(4), from));
	for (let faults = 1 + random.below(4); faults > 0; faults--) {
		const at = random.below(sent.length);
		switch (random.below(5)) {
			case 0:
				sent[at] = random.pick(AWKWARD);
				break;
			case 1:
				sent[at] = (sent[at] as number) ^ (1 << random.below(8));
				break;
			case 2:
				sent = bytes(sent.subarray(0, at), sent.subarray(at + 1 + random.below(8)), [0]);
				break;
			case 3:
				sent = bytes(sent.subarray(0, at), random.bytes(1 + random.below(16)), sent.subarray(at));
				break;
			case 4:
				sent = bytes(sent.subarray(0, at), sent.subarray(at >> 1));
				break;
		}
	}
	return sent;
}

describe("malformed at random", () => {
	const broker = suiteBroker();

	for (const version of [5, 4, 3] as const) {
		for (const transport of ["ws", "tcp"] as const) {
			test(`fault 4, MQTT level ${version} over ${transport}: ${SESSIONS} spoilt sessions end in order and leave the broker as it was`, async () => {
				const random = randomNumbers(version * 10 + transport.length);
				for (let session = 0; session < SESSIONS; session++) {
					const client = await RawClient.open(broker, version, transport);
					const whole = random.below(4) > 0;
					if (whole) {
						client.sendBytes(connectPacket(version));
						await client.expect("connack");
					}
					const sent = spoilt(random, seeds(version));
					client.sendBytes(sent);
					// What was left incomplete ends with the connection.
					client.end();
					const came = await client.receiveUntilClosed();
					assert.ok(!came.some(({ cmd }) => cmd === "undecodable"), `answer to ${Buffer.from(sent).toString("hex")}`);
				}
				await assertServes(broker);
				assert.ok(broker.shoal.ready);
			});
		}
	}
});
