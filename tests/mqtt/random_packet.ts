/** Random packets that a client may send, as mqtt-packet's objects, for the differential test. */

import { Buffer } from "node:buffer";
import type { Packet } from "mqtt-packet";
import type { ProtocolVersion } from "../../src/mqtt/packet.ts";
import type { Random } from "./random.ts";

const TEXTS = [
	"a",
	"b/c",
	"devices/17/temperature",
	"",
	"é",
	"\ufeffbom",
	"😀/x",
	"\u0001",
	"x".repeat(127),
	"y".repeat(300),
	" ",
	"$SYS",
	"\uffff",
	"/",
];
const NAMES = TEXTS.filter((text) => text !== "");
const FILTERS = [...TEXTS, "#", "a/+", "+/b/#", "$share/g/a", "a#"];
const UINT32 = [0, 1, 59, 0x7fffffff, 0x80000000, 0xffffffff];
const UINT16 = [1, 2, 255, 256, 0x7fff, 0x8000, 65_535];

function binary(random: Random): Buffer {
	return Buffer.from(random.bytes(random.pick([0, 1, 5, 64, 64, 200])));
}

/** Each of the properties stands or not, in any order. */
function some(random: Random, all: Record<string, () => unknown>): Record<string, unknown> {
	const names = Object.keys(all).filter(() => random.below(4) === 0);
	for (let i = names.length - 1; i > 0; i--) {
		const j = random.below(i + 1);
		[names[i], names[j]] = [names[j] as string, names[i] as string];
	}
	return Object.fromEntries(names.map((name) => [name, all[name]?.()]));
}

/** mqtt-packet can only write the values of one name together, and reads names that an object sorts as numbers first. */
function userProperties(random: Random): Record<string, string | string[]> {
	const names = [...new Set(random.list(1 + random.below(3), ["k", "B", "é", "name"]))];
	return Object.fromEntries(names.map((name) => [name, random.below(3) === 0 ? random.list(2, NAMES) : random.pick(NAMES)]));
}

function messageProperties(random: Random): Record<string, () => unknown> {
	return {
		payloadFormatIndicator: () => random.below(2) === 1,
		messageExpiryInterval: () => random.pick(UINT32),
		contentType: () => random.pick(TEXTS),
		responseTopic: () => random.pick(TEXTS),
		correlationData: () => binary(random),
		userProperties: () => userProperties(random),
	};
}

function connect(random: Random, version: ProtocolVersion): unknown {
	const v5 = version === 5;
	const hasUsername = random.below(2) === 1;
	const authentication =
		v5 && random.below(3) === 0
			? { authenticationMethod: random.pick(TEXTS), ...some(random, { authenticationData: () => binary(random) }) }
			: {};
	const properties = some(random, {
		sessionExpiryInterval: () => random.pick(UINT32),
		receiveMaximum: () => random.pick(UINT16),
		maximumPacketSize: () => random.pick(UINT32.slice(1)),
		topicAliasMaximum: () => random.pick([0, ...UINT16]),
		requestResponseInformation: () => random.below(2) === 1,
		requestProblemInformation: () => random.below(2) === 1,
		userProperties: () => userProperties(random),
	});
	const will = {
		topic: random.pick(NAMES),
		payload: binary(random),
		qos: random.below(3),
		retain: random.below(2) === 1,
		...(v5 && { properties: some(random, { willDelayInterval: () => random.pick(UINT32), ...messageProperties(random) }) }),
	};
	return {
		cmd: "connect",
		protocolId: version === 3 ? "MQIsdp" : "MQTT",
		protocolVersion: version,
		clean: random.below(2) === 1,
		clientId: random.pick(NAMES),
		keepalive: random.pick([0, ...UINT16]),
		...(hasUsername && { username: random.pick(TEXTS) }),
		...(hasUsername && random.below(2) === 1 && { password: binary(random) }),
		...(v5 && { properties: { ...properties, ...authentication } }),
		...(random.below(2) === 1 && { will }),
	};
}

function publish(random: Random, version: ProtocolVersion): unknown {
	const qos = random.below(3);
	const properties = some(random, { topicAlias: () => random.pick([0, ...UINT16]), ...messageProperties(random) });
	const hasAlias = version === 5 && "topicAlias" in properties;
	return {
		cmd: "publish",
		topic: random.pick(hasAlias ? TEXTS : NAMES),
		payload: binary(random),
		qos,
		retain: random.below(2) === 1,
		dup: qos > 0 && random.below(2) === 1,
		messageId: random.pick(UINT16),
		...(version === 5 && { properties }),
	};
}

function acknowledgement(random: Random, version: ProtocolVersion): unknown {
	const cmd = random.pick(["puback", "pubrec", "pubrel", "pubcomp"]);
	const reasons = cmd === "puback" || cmd === "pubrec" ? [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] : [0, 0x92];
	const reason = { reasonString: () => random.pick(TEXTS), userProperties: () => userProperties(random) };
	return {
		cmd,
		messageId: random.pick(UINT16),
		reasonCode: random.pick([0, random.pick(reasons)]),
		...(version === 5 && random.below(3) === 0 && { properties: some(random, reason) }),
	};
}

function subscribe(random: Random, version: ProtocolVersion): unknown {
	const v5 = version === 5;
	const subscriptions = Array.from({ length: 1 + random.below(4) }, () => ({
		topic: random.pick(FILTERS),
		qos: random.below(3),
		...(v5 && { nl: random.below(2) === 1, rap: random.below(2) === 1, rh: random.below(3) }),
	}));
	const properties = some(random, {
		subscriptionIdentifier: () => random.pick([1, 127, 128, 16_384, 268_435_455]),
		userProperties: () => userProperties(random),
	});
	return { cmd: "subscribe", messageId: random.pick(UINT16), subscriptions, ...(v5 && { properties }) };
}

function unsubscribe(random: Random, version: ProtocolVersion): unknown {
	const properties = some(random, { userProperties: () => userProperties(random) });
	return {
		cmd: "unsubscribe",
		messageId: random.pick(UINT16),
		unsubscriptions: random.list(1 + random.below(4), FILTERS),
		...(version === 5 && { properties }),
	};
}

function disconnect(random: Random): unknown {
	const properties = some(random, {
		sessionExpiryInterval: () => random.pick(UINT32),
		reasonString: () => random.pick(TEXTS),
		userProperties: () => userProperties(random),
	});
	return { cmd: "disconnect", reasonCode: random.pick([0, 4, 0x80, 0x81, 0x82, 0x90, 0x99]), properties };
}

function auth(random: Random): unknown {
	const properties = some(random, {
		authenticationData: () => binary(random),
		reasonString: () => random.pick(TEXTS),
		userProperties: () => userProperties(random),
	});
	return { cmd: "auth", reasonCode: random.pick([0x18, 0x19]), properties: { authenticationMethod: random.pick(TEXTS), ...properties } };
}

/** A packet that a correct client may send: CONNECT when it is the first, never otherwise. */
export function randomPacket(random: Random, version: ProtocolVersion, isFirst: boolean): Packet {
	if (isFirst) return connect(random, version) as Packet;
	switch (random.below(version === 5 ? 11 : 10)) {
		case 0:
		case 1:
		case 2:
		case 3:
			return publish(random, version) as Packet;
		case 4:
		case 5:
			return acknowledgement(random, version) as Packet;
		case 6:
			return subscribe(random, version) as Packet;
		case 7:
			return unsubscribe(random, version) as Packet;
		case 8:
			return disconnect(random) as Packet;
		case 9:
			return { cmd: "pingreq" };
		default:
			return auth(random) as Packet;
	}
}
