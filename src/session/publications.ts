/** The publications of one client as they come in: topic aliases, limits, QoS bookkeeping, and the message that is made of each. */

import { ABSENT, type PublishPacket } from "../mqtt/packet.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import { levelCount, type Topic } from "../mqtt/topic.ts";
import type { Problem } from "./connect.ts";
import type { ChannelLimits, Effect } from "./effects.ts";
import { Inbox } from "./inbox.ts";
import { TokenBucket } from "./token_bucket.ts";
import { InboundAliases } from "./topic_alias.ts";

export class Publications {
	/** Acknowledgements owed for QoS 1 and 2. */
	readonly inbox = new Inbox();
	readonly #limits: ChannelLimits;
	readonly #clientId: string;
	/** Whether the client speaks MQTT 5, and so knows aliases and Receive Maximum. */
	readonly #v5: boolean;
	readonly #bucket: TokenBucket | undefined;
	#aliases: InboundAliases | undefined;

	constructor(limits: ChannelLimits, clientId: string, v5: boolean, nowMs: number) {
		this.#limits = limits;
		this.#clientId = clientId;
		this.#v5 = v5;
		this.#bucket = limits.publishRate > 0 ? new TokenBucket(limits.publishRate, limits.publishBurst, nowMs) : undefined;
	}

	/** Passes a publication on. Answers what ends the connection, if anything does. */
	publish(packet: PublishPacket, nowMs: number, effects: Effect[]): Problem | undefined {
		const { qos, packetId, topicAlias, expirySeconds } = packet;
		const limits = this.#limits;
		let topic = packet.topic;
		if (topicAlias !== ABSENT) {
			const resolved = this.#resolve(topicAlias, topic);
			if ("reasonCode" in resolved) return resolved;
			topic = resolved;
		}
		if (topic === undefined) return { reasonCode: ReasonCode.protocolError, reason: "neither a topic nor a topic alias" };
		// A name of n bytes has at most n + 1 levels: most topics need no counting.
		if (topic.bytes.length >= limits.maxTopicLevels && levelCount(topic.name) > limits.maxTopicLevels) {
			return { reasonCode: ReasonCode.topicNameInvalid, reason: `a topic of more than ${limits.maxTopicLevels} levels` };
		}
		if (this.#bucket !== undefined && !this.#bucket.take(nowMs)) {
			return { reasonCode: ReasonCode.messageRateTooHigh, reason: `more than ${limits.publishRate} messages per second` };
		}
		if (qos > 0) {
			if (!this.inbox.begin(packetId, qos as 1 | 2, effects)) return undefined;
			// 3.1.1 knows no Receive Maximum: such a client is only bound by its packet ids.
			if (this.#v5 && this.inbox.inflight > limits.receiveMaximum) {
				return { reasonCode: ReasonCode.receiveMaximumExceeded, reason: `more than ${limits.receiveMaximum} unacknowledged publications` };
			}
		}
		const message = {
			topic,
			payload: packet.payload,
			qos,
			retain: packet.retain,
			forwarded: packet.forwarded,
			expiresAtMs: expirySeconds === ABSENT ? Number.POSITIVE_INFINITY : nowMs + expirySeconds * 1000,
			publisher: this.#clientId,
		};
		effects.push({ kind: "publish", message, packetId });
		return undefined;
	}

	/** Topic of a publication with an alias, which sets the alias if it carries a name too. */
	#resolve(alias: number, topic: Topic | undefined): Topic | Problem {
		const maximum = this.#v5 ? this.#limits.topicAliasMaximum : 0;
		this.#aliases ??= new InboundAliases(maximum);
		if (!this.#aliases.allows(alias)) {
			return { reasonCode: ReasonCode.topicAliasInvalid, reason: `topic alias ${alias} is not within 1 to ${maximum}` };
		}
		if (topic !== undefined) {
			this.#aliases.set(alias, topic);
			return topic;
		}
		return this.#aliases.get(alias) ?? { reasonCode: ReasonCode.protocolError, reason: `topic alias ${alias} has not been set` };
	}
}
