/**
 * What the protocol core costs, without sockets and store: nanoseconds per packet or event handled by a channel.
 * Run: `bun bench/core.ts`, `deno run -A bench/core.ts`.
 */

import { ABSENT, type ConnectPacket, NO_PROPERTIES, type PublishPacket, type QoS } from "../src/mqtt/packet.ts";
import { Topic } from "../src/mqtt/topic.ts";
import { Channel } from "../src/session/channel.ts";
import type { Delivery, Effect } from "../src/session/effects.ts";

const ROUNDS = 7;
const EVENTS = 200_000;
const NOW = 1_000;
const TOPIC = Topic.of("devices/17/temperature");
const PAYLOAD = new Uint8Array(64);

const CONNECT: ConnectPacket = {
	kind: "connect",
	protocolVersion: 4,
	cleanStart: true,
	keepAliveSeconds: 60,
	clientId: "bench",
	username: undefined,
	password: undefined,
	will: undefined,
	properties: {
		sessionExpirySeconds: 0,
		receiveMaximum: 65_535,
		maximumPacketSize: Number.POSITIVE_INFINITY,
		topicAliasMaximum: 0,
		requestResponseInformation: false,
		requestProblemInformation: true,
		userProperties: [],
		authenticationMethod: undefined,
		authenticationData: undefined,
	},
};

function connected(): Channel {
	const channel = new Channel({
		connectTimeoutSeconds: 10,
		maxPacketSize: 1_048_576,
		maxTopicLevels: 128,
		maxSubscriptions: 1000,
		receiveMaximum: 1000,
		maxInflight: 256,
		maxInflightBytes: 4_194_304,
		maxQueuedMessages: 1000,
		maxKeepAliveSeconds: 0,
		maxSessionExpirySeconds: 604_800,
		topicAliasMaximum: 32,
		publishRate: 0,
		publishBurst: 0,
		responseInformation: "",
	});
	channel.handle(CONNECT, NOW);
	channel.handle({ kind: "authenticated", assignedClientId: "", authenticationData: undefined }, NOW);
	const session = { epoch: "1", sessionPresent: false, subscriptions: [], inflight: [], reservedIds: [], lastPacketId: 0 };
	channel.handle({ kind: "opened", session }, NOW);
	return channel;
}

function publish(qos: QoS, packetId: number): PublishPacket {
	const fields = { topic: TOPIC, payload: PAYLOAD, qos, packetId, dup: false, retain: false };
	return { kind: "publish", ...fields, topicAlias: ABSENT, expirySeconds: ABSENT, forwarded: NO_PROPERTIES };
}

function delivery(qos: 1 | 2): Delivery {
	const message = {
		topic: TOPIC,
		payload: PAYLOAD,
		qos,
		retain: false,
		forwarded: NO_PROPERTIES,
		expiresAtMs: Number.POSITIVE_INFINITY,
		publisher: "",
	};
	return { message, qos, retain: false, subscriptionIds: [], log: "", seq: 0, shared: false };
}

/** Packet id of the PUBLISH that was just sent. */
function sentId(effects: readonly Effect[]): number {
	const effect = effects[0];
	if (effect?.kind !== "sendPublish") throw new Error("no PUBLISH was sent");
	return effect.packetId;
}

/** Each handles one message from beginning to end; `events` is how many inputs that takes. */
const CASES: readonly { readonly name: string; readonly events: number; readonly run: (channel: Channel) => void }[] = [
	{ name: "PUBLISH QoS 0 in", events: 1, run: (channel) => void channel.handle(publish(0, 0), NOW) },
	{
		name: "PUBLISH QoS 1 in, stored, PUBACK out",
		events: 2,
		run: (channel) => {
			channel.handle(publish(1, 7), NOW);
			channel.handle({ kind: "published", packetId: 7, reasonCode: 0 }, NOW);
		},
	},
	{
		name: "PUBLISH QoS 2 in, stored, PUBREC out, PUBREL in, PUBCOMP out",
		events: 4,
		run: (channel) => {
			channel.handle(publish(2, 7), NOW);
			channel.handle({ kind: "published", packetId: 7, reasonCode: 0 }, NOW);
			channel.handle({ kind: "pubrel", packetId: 7, reasonCode: 0 }, NOW);
			channel.handle({ kind: "released", packetId: 7 }, NOW);
		},
	},
	{
		name: "PUBLISH QoS 1 out, PUBACK in",
		events: 2,
		run: (channel) => {
			const packetId = sentId(channel.handle({ kind: "deliver", delivery: delivery(1) }, NOW));
			channel.handle({ kind: "puback", packetId, reasonCode: 0 }, NOW);
		},
	},
	{
		name: "PUBLISH QoS 2 out, PUBREC in, PUBREL out, PUBCOMP in",
		events: 3,
		run: (channel) => {
			const packetId = sentId(channel.handle({ kind: "deliver", delivery: delivery(2) }, NOW));
			channel.handle({ kind: "pubrec", packetId, reasonCode: 0 }, NOW);
			channel.handle({ kind: "pubcomp", packetId, reasonCode: 0 }, NOW);
		},
	},
	{ name: "PINGREQ in, PINGRESP out", events: 1, run: (channel) => void channel.handle({ kind: "pingreq" }, NOW) },
	{ name: "CONNECT in, CONNACK out, with a new channel", events: 3, run: () => void connected() },
];

console.log(
	`| the core, ns per message (${process.versions.bun === undefined ? `Deno ${process.versions.deno}` : `Bun ${process.versions.bun}`}) | inputs | ns |\n| --- | ---: | ---: |`,
);
for (const { name, events, run } of CASES) {
	const channel = connected();
	let best = Number.POSITIVE_INFINITY;
	for (let round = 0; round < ROUNDS; round++) {
		const start = performance.now();
		for (let i = 0; i < EVENTS; i++) run(channel);
		best = Math.min(best, ((performance.now() - start) * 1e6) / EVENTS);
	}
	console.log(`| ${name} | ${events} | ${best.toFixed(0)} |`);
}
