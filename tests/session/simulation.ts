/**
 * A whole delivery path without sockets, disk or time: a publisher and a subscriber with persistent sessions, two channels
 * and a model of the store, driven by a seeded random choice of what happens next. Connections break and the broker
 * crashes at any point; what the store had not committed is then gone.
 */

import type { Message } from "../../src/mqtt/message.ts";
import { ABSENT, type ClientPacket, type ConnectPacket, NO_PROPERTIES, type ServerPacket } from "../../src/mqtt/packet.ts";
import { Topic } from "../../src/mqtt/topic.ts";
import { Channel } from "../../src/session/channel.ts";
import type { ChannelLimits, Delivery, Effect, Input } from "../../src/session/effects.ts";
import type { Subscription } from "../../src/session/subscription.ts";
import type { InflightRecord, OpenedSession } from "../../src/store/store.ts";
import { randomNumbers } from "../mqtt/random.ts";

const FILTER = "sim/#";
const TOPIC = Topic.of("sim/topic");

const LIMITS: ChannelLimits = {
	connectTimeoutSeconds: 10,
	maxPacketSize: 1_000_000,
	maxTopicLevels: 128,
	maxSubscriptions: 10,
	receiveMaximum: 1000,
	maxInflight: 4,
	maxInflightBytes: 1_000_000,
	maxQueuedMessages: 10,
	maxKeepAliveSeconds: 0,
	maxSessionExpirySeconds: 0xffffffff,
	topicAliasMaximum: 0,
	publishRate: 0,
	publishBurst: 0,
	responseInformation: "",
};

/** What the model store holds: the parts of a store that this path uses. */
interface Stored {
	readonly entries: Message[];
	cursor: number;
	inflight: readonly InflightRecord[];
	lastPacketId: number;
	readonly reserved: Set<number>;
}

type Outgoing = ServerPacket | { readonly kind: "publish"; readonly delivery: Delivery; readonly packetId: number; readonly dup: boolean };

/** One client and its connection to the broker. */
interface Side {
	channel: Channel | undefined;
	toServer: ClientPacket[];
	toClient: Outgoing[];
	subscription: Subscription | undefined;
	/** Whether the client has seen its CONNACK. */
	greeted: boolean;
}

interface Unacknowledged {
	readonly packetId: number;
	readonly qos: 1 | 2;
	readonly text: string;
	state: "published" | "received";
}

export interface Outcome {
	readonly violations: readonly string[];
	readonly acknowledged: number;
	readonly delivered: number;
	readonly crashes: number;
	readonly breaks: number;
}

export class Simulation {
	readonly #random: () => number;
	readonly #violations: string[] = [];
	#current: Stored = { entries: [], cursor: 0, inflight: [], lastPacketId: 0, reserved: new Set() };
	#committed: Stored = copy(this.#current);
	/** What is to happen when the store commits. */
	#pending: (() => void)[] = [];
	readonly #publisher: Side = { channel: undefined, toServer: [], toClient: [], subscription: undefined, greeted: false };
	readonly #subscriber: Side = { channel: undefined, toServer: [], toClient: [], subscription: undefined, greeted: false };
	readonly #checkpoints = new Set<Side>();
	// The publishing client.
	#next = 0;
	#lastPacketId = 0;
	readonly #unacknowledged: Unacknowledged[] = [];
	readonly #acknowledged = new Set<string>();
	// The subscribing client.
	readonly #receivedIds = new Set<number>();
	readonly #deliveries = new Map<string, number>();
	readonly #lastByQos = [0, 0, 0];
	#retained = 0;
	#crashes = 0;
	#breaks = 0;
	#nowMs = 1;

	constructor(seed: number) {
		const { below } = randomNumbers(seed);
		this.#random = () => below(1_000_000) / 1_000_000;
	}

	/** Runs this many steps with faults, then without until nothing is left to do. */
	run(steps: number): Outcome {
		for (let i = 0; i < steps; i++) this.#step(true);
		for (let i = 0; i < 100_000 && !this.#quiet(); i++) this.#step(false);
		if (!this.#quiet()) this.#violations.push("does not come to rest");
		for (const text of this.#acknowledged) {
			const times = this.#deliveries.get(text) ?? 0;
			if (times === 0) this.#violations.push(`acknowledged ${text} was lost`);
		}
		return {
			violations: this.#violations,
			acknowledged: this.#acknowledged.size,
			delivered: this.#deliveries.size,
			crashes: this.#crashes,
			breaks: this.#breaks,
		};
	}

	#quiet(): boolean {
		const silent = [this.#publisher, this.#subscriber].every((side) => side.toClient.length + side.toServer.length === 0 && side.channel);
		return silent && this.#pending.length === 0 && this.#checkpoints.size === 0 && this.#unacknowledged.length === 0 && this.#next >= 40;
	}

	#step(faults: boolean): void {
		this.#nowMs++;
		const dice = this.#random() * (faults ? 100 : 94);
		if (dice < 30) this.#toServer(this.#random() < 0.5 ? this.#publisher : this.#subscriber);
		else if (dice < 60) this.#toClient();
		else if (dice < 75) this.#commit();
		else if (dice < 85) this.#publish();
		else if (dice < 89) this.#connect(this.#random() < 0.5 ? this.#publisher : this.#subscriber);
		else if (dice < 90) this.#deliverRetained(faults);
		else if (dice < 94) this.#flushCheckpoints();
		else if (dice < 98) this.#break(this.#random() < 0.5 ? this.#publisher : this.#subscriber);
		else this.#crash();
	}

	#commit(): void {
		this.#committed = copy(this.#current);
		const pending = this.#pending;
		this.#pending = [];
		for (const done of pending) done();
	}

	#crash(): void {
		this.#crashes++;
		this.#current = copy(this.#committed);
		this.#pending = [];
		this.#checkpoints.clear();
		for (const side of [this.#publisher, this.#subscriber]) this.#forget(side);
	}

	#break(side: Side): void {
		if (side.channel === undefined) return;
		this.#breaks++;
		this.#feed(side, { kind: "socketClosed" });
		this.#forget(side);
	}

	#forget(side: Side): void {
		side.channel = undefined;
		side.subscription = undefined;
		side.greeted = false;
		side.toServer = [];
		side.toClient = [];
	}

	#connect(side: Side): void {
		if (side.channel !== undefined) return;
		side.channel = new Channel(LIMITS);
		side.toServer.push(connectPacket(side === this.#publisher ? "publisher" : "subscriber"));
	}

	#toServer(side: Side): void {
		const packet = side.toServer.shift();
		if (packet !== undefined) this.#feed(side, packet);
	}

	#feed(side: Side, input: Input): void {
		const { channel } = side;
		if (channel === undefined) return;
		for (const effect of channel.handle(input, this.#nowMs)) this.#perform(side, channel, effect);
	}

	/** Calls back when the store has committed, unless the broker has crashed or the connection is another one by then. */
	#later(side: Side, channel: Channel, input: () => Input): void {
		this.#pending.push(() => {
			if (side.channel === channel) this.#feed(side, input());
		});
	}

	#perform(side: Side, channel: Channel, effect: Effect): void {
		switch (effect.kind) {
			case "authenticate":
				this.#feed(side, { kind: "authenticated", assignedClientId: "", authenticationData: undefined });
				break;
			case "openSession":
				this.#later(side, channel, () => ({ kind: "opened", session: this.#open(side) }));
				break;
			case "attach":
				side.subscription = effect.subscriptions[0];
				break;
			case "send":
				this.#checkAck(side, effect.packet);
				side.toClient.push(effect.packet);
				break;
			case "sendPublish":
				side.toClient.push({ kind: "publish", delivery: effect.delivery, packetId: effect.packetId, dup: effect.dup });
				break;
			case "publish":
				this.#store(side, channel, effect.message, effect.packetId);
				break;
			case "release":
				this.#current.reserved.delete(effect.packetId);
				this.#later(side, channel, () => ({ kind: "released", packetId: effect.packetId }));
				break;
			case "fetch": {
				const after = channel.positions()[0]?.after ?? 0;
				const entries = this.#current.entries
					.slice(after, after + effect.limit)
					.map((message, i) => ({ log: FILTER, seq: after + i + 1, id: after + i + 1, message }));
				this.#later(side, channel, () => ({ kind: "fetched", entries }));
				break;
			}
			case "checkpoint":
				this.#checkpoints.add(side);
				break;
			case "closeSession":
				this.#checkpoint(side, channel);
				break;
			case "dropped":
				this.#violations.push(`dropped ${effect.count}: ${effect.reason}`);
				break;
			case "close":
				this.#violations.push(`the broker closed the connection: ${effect.reason}`);
				break;
		}
	}

	#open(side: Side): OpenedSession {
		const { cursor, inflight, lastPacketId, reserved, entries } = this.#current;
		if (side === this.#publisher) {
			return { epoch: "1", sessionPresent: true, subscriptions: [], inflight: [], reservedIds: [...reserved], lastPacketId: 0 };
		}
		const subscription = {
			filter: FILTER,
			qos: 2,
			noLocal: false,
			retainAsPublished: false,
			retainHandling: 0,
			subscriptionId: 0,
			cursor,
		} as const;
		const records = inflight.map((record) => ({
			...record,
			message: record.message ?? (record.state === "sent" ? entries[record.seq - 1] : undefined),
		}));
		return { epoch: "1", sessionPresent: true, subscriptions: [subscription], inflight: records, reservedIds: [], lastPacketId };
	}

	#store(side: Side, channel: Channel, message: Message, packetId: number): void {
		if (message.qos === 2) {
			if (this.#current.reserved.has(packetId)) this.#violations.push(`packet id ${packetId} was reserved twice`);
			this.#current.reserved.add(packetId);
		}
		const seq = this.#current.entries.push(message);
		this.#pending.push(() => {
			const { subscription } = this.#subscriber;
			if (subscription !== undefined) this.#feed(this.#subscriber, { kind: "appended", message, entries: [{ subscription, seq }] });
		});
		this.#later(side, channel, () => ({ kind: "published", packetId, reasonCode: 0 }));
	}

	/** A message from no log takes a packet id between the others, so that ids are not the same again after a crash. */
	#deliverRetained(faults: boolean): void {
		if (!faults) return;
		const qos = this.#random() < 0.5 ? 1 : 2;
		const payload = Buffer.from(`retained-${++this.#retained}`);
		const message = {
			topic: TOPIC,
			payload,
			qos,
			retain: true,
			forwarded: NO_PROPERTIES,
			expiresAtMs: Number.POSITIVE_INFINITY,
			publisher: "",
		} as const;
		const delivery = { message, qos, retain: true, subscriptionIds: [], log: "", seq: 0, shared: false } as const;
		this.#feed(this.#subscriber, { kind: "deliver", delivery });
	}

	#flushCheckpoints(): void {
		for (const side of this.#checkpoints) if (side.channel !== undefined) this.#checkpoint(side, side.channel);
		this.#checkpoints.clear();
	}

	#checkpoint(side: Side, channel: Channel): void {
		const taken = channel.takeCheckpoint();
		if (taken === undefined || side === this.#publisher) return;
		const { cursors, inflight, lastPacketId } = taken.checkpoint;
		for (const { cursor, floor } of cursors) {
			if (floor > cursor || cursor > this.#current.entries.length) this.#violations.push(`impossible cursor ${cursor}, floor ${floor}`);
			const lowest = Math.min(...inflight.filter((record) => record.state === "sent" && record.log === FILTER).map((record) => record.seq));
			if (floor >= lowest) this.#violations.push(`floor ${floor} gives up entry ${lowest}, which is in flight`);
			this.#current.cursor = cursor;
		}
		if (new Set(inflight.map((record) => record.packetId)).size !== inflight.length) this.#violations.push("a packet id is used twice");
		this.#current.inflight = inflight;
		this.#current.lastPacketId = lastPacketId;
		this.#later(side, channel, () => ({ kind: "recorded", serial: taken.serial }));
	}

	/** P2: an ack may leave only when the message is committed. */
	#checkAck(side: Side, packet: ServerPacket): void {
		if (side !== this.#publisher || (packet.kind !== "puback" && packet.kind !== "pubrec")) return;
		const sent = this.#unacknowledged.find((one) => one.packetId === packet.packetId);
		if (sent === undefined || sent.state === "received") return;
		const committed = this.#committed.entries.some((message) => textOf(message) === sent.text);
		if (!committed) this.#violations.push(`${packet.kind} for ${sent.text} before it was committed`);
	}

	#toClient(): void {
		const side = this.#random() < 0.5 ? this.#publisher : this.#subscriber;
		const packet = side.toClient.shift();
		if (packet === undefined) return;
		if (side === this.#publisher) this.#publisherGets(packet);
		else this.#subscriberGets(packet);
	}

	#publish(): void {
		if (!this.#publisher.greeted || this.#unacknowledged.length >= 5 || this.#next >= 40) return;
		this.#lastPacketId = (this.#lastPacketId % 7) + 1;
		while (this.#unacknowledged.some((one) => one.packetId === this.#lastPacketId)) this.#lastPacketId = (this.#lastPacketId % 7) + 1;
		const qos = this.#random() < 0.5 ? 1 : 2;
		const one: Unacknowledged = { packetId: this.#lastPacketId, qos, text: `${qos}-${++this.#next}`, state: "published" };
		this.#unacknowledged.push(one);
		this.#publisher.toServer.push(publishPacket(one, false));
	}

	#publisherGets(packet: Outgoing): void {
		if (packet.kind === "connack") {
			this.#publisher.greeted = true;
			for (const one of this.#unacknowledged) {
				const again = one.state === "published" ? publishPacket(one, true) : pubrel(one.packetId);
				this.#publisher.toServer.push(again);
			}
			return;
		}
		if (packet.kind !== "puback" && packet.kind !== "pubrec" && packet.kind !== "pubcomp") return;
		const index = this.#unacknowledged.findIndex((one) => one.packetId === packet.packetId);
		const one = this.#unacknowledged[index];
		if (one === undefined) return;
		if (packet.kind === "pubrec") {
			one.state = "received";
			this.#acknowledged.add(one.text);
			this.#publisher.toServer.push(pubrel(one.packetId));
		} else {
			this.#acknowledged.add(one.text);
			this.#unacknowledged.splice(index, 1);
		}
	}

	#subscriberGets(packet: Outgoing): void {
		const { toServer } = this.#subscriber;
		if (packet.kind === "publish") {
			const { delivery, packetId } = packet;
			const text = textOf(delivery.message);
			if (delivery.qos === 1) {
				this.#delivered(text, delivery.qos);
				toServer.push({ kind: "puback", packetId, reasonCode: 0 });
				return;
			}
			if (!this.#receivedIds.has(packetId)) this.#delivered(text, delivery.qos);
			this.#receivedIds.add(packetId);
			toServer.push({ kind: "pubrec", packetId, reasonCode: 0 });
		} else if (packet.kind === "pubrel") {
			this.#receivedIds.delete(packet.packetId);
			toServer.push({ kind: "pubcomp", packetId: packet.packetId, reasonCode: 0 });
		}
	}

	#delivered(text: string, qos: 1 | 2): void {
		const times = (this.#deliveries.get(text) ?? 0) + 1;
		this.#deliveries.set(text, times);
		if (qos === 2 && times > 1) this.#violations.push(`QoS 2 message ${text} was delivered ${times} times`);
		if (times > 1 || text.startsWith("retained")) return;
		const number = Number(text.slice(2));
		if (number < (this.#lastByQos[qos] as number)) this.#violations.push(`${text} was delivered after ${this.#lastByQos[qos]}`);
		this.#lastByQos[qos] = number;
	}
}

function copy(stored: Stored): Stored {
	return { ...stored, entries: [...stored.entries], reserved: new Set(stored.reserved) };
}

function textOf(message: Message): string {
	return Buffer.from(message.payload).toString();
}

function pubrel(packetId: number): ClientPacket {
	return { kind: "pubrel", packetId, reasonCode: 0 };
}

function publishPacket({ packetId, qos, text }: Unacknowledged, dup: boolean): ClientPacket {
	const payload = Buffer.from(text);
	const fields = { topic: TOPIC, payload, qos, packetId, dup, retain: false, topicAlias: ABSENT, expirySeconds: ABSENT } as const;
	return { kind: "publish", ...fields, forwarded: NO_PROPERTIES };
}

function connectPacket(clientId: string, changes: Partial<ConnectPacket> = {}): ConnectPacket {
	return {
		kind: "connect",
		protocolVersion: 5,
		cleanStart: false,
		keepAliveSeconds: 0,
		clientId,
		username: undefined,
		password: undefined,
		will: undefined,
		properties: {
			sessionExpirySeconds: 1000,
			receiveMaximum: 65_535,
			maximumPacketSize: Number.POSITIVE_INFINITY,
			topicAliasMaximum: 0,
			requestResponseInformation: false,
			requestProblemInformation: true,
			userProperties: [],
			authenticationMethod: undefined,
			authenticationData: undefined,
		},
		...changes,
	};
}
