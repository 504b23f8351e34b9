/** A session while its client is connected: publications in, deliveries out, subscriptions. What a channel has once it is open. */

import type { ClientPacket, ConnectPacket } from "../mqtt/packet.ts";
import type { Tenancy } from "../mqtt/tenancy.ts";
import type { OpenedSession } from "../store/store.ts";
import type { Problem } from "./connect.ts";
import type { ChannelLimits, Effect, SessionEvent } from "./effects.ts";
import { Outbox } from "./outbox.ts";
import { Publications } from "./publications.ts";
import { Subscriptions } from "./subscriptions.ts";

/** Packets that belong to the session rather than to the connection. */
export type SessionPacket = Exclude<ClientPacket, { kind: "connect" | "disconnect" | "auth" | "pingreq" }>;

export class LiveSession {
	readonly outbox: Outbox;
	readonly subscriptions: Subscriptions;
	readonly #publications: Publications;

	/**
	 * @param clientId As the session is called in the broker.
	 * @param persistent Whether the session outlives the connection.
	 */
	constructor(
		packet: ConnectPacket,
		clientId: string,
		tenancy: Tenancy | undefined,
		persistent: boolean,
		limits: ChannelLimits,
		nowMs: number,
	) {
		this.outbox = new Outbox({
			clientId,
			persistent,
			window: Math.min(packet.properties.receiveMaximum, limits.maxInflight), // [MQTT-4.9.0-1]
			windowBytes: limits.maxInflightBytes,
			maxQueued: limits.maxQueuedMessages,
		});
		const { maxTopicLevels, maxSubscriptions } = limits;
		this.subscriptions = new Subscriptions({ persistent, maxTopicLevels, maxSubscriptions, tenancy }, this.outbox);
		this.#publications = new Publications(limits, clientId, packet.protocolVersion === 5, nowMs);
	}

	/**
	 * Takes up what an earlier connection left; `greet` is called when matching is under way and before anything is sent.
	 */
	resume(opened: OpenedSession, greet: () => void, effects: Effect[]): void {
		const subscriptions = this.subscriptions.resume(opened.subscriptions);
		this.#publications.inbox.resume(opened.reservedIds);
		effects.push({ kind: "attach", subscriptions });
		greet();
		this.outbox.resume(subscriptions, opened.inflight, opened.lastPacketId, effects);
	}

	/** Answers what ends the connection, if anything does. */
	packet(packet: SessionPacket, nowMs: number, effects: Effect[]): Problem | undefined {
		switch (packet.kind) {
			case "publish":
				return this.#publications.publish(packet, nowMs, effects);
			case "puback":
				this.outbox.puback(packet.packetId, nowMs, effects);
				return undefined;
			case "pubrec":
				this.outbox.pubrec(packet.packetId, packet.reasonCode, nowMs, effects);
				return undefined;
			case "pubrel":
				this.#publications.inbox.pubrel(packet.packetId, effects);
				return undefined;
			case "pubcomp":
				this.outbox.pubcomp(packet.packetId, nowMs, effects);
				return undefined;
			case "subscribe":
			case "unsubscribe":
				return this.subscriptions.change(packet, effects);
		}
	}

	/** Answers what ends the connection, if anything does. */
	event(event: SessionEvent, nowMs: number, effects: Effect[]): Problem | undefined {
		switch (event.kind) {
			case "published":
				this.#publications.inbox.published(event.packetId, event.reasonCode, effects);
				return undefined;
			case "released":
				this.#publications.inbox.released(event.packetId, effects);
				return undefined;
			case "deliver":
				this.outbox.deliver(event.delivery, nowMs, effects);
				return undefined;
			case "undeliverable":
				this.outbox.undeliverable(event.packetId, nowMs, effects);
				return undefined;
			case "appended":
				this.outbox.appended(event.message, event.entries, nowMs, effects);
				return undefined;
			case "fetched":
				this.outbox.fetched(event.entries, nowMs, effects);
				return undefined;
			case "fetchFailed":
				this.outbox.fetchFailed();
				return undefined;
			case "recorded":
				this.outbox.recorded(event.serial, effects);
				return undefined;
			case "retainedSent":
			case "lookAgain":
				this.outbox.released(effects);
				return undefined;
			case "subscribed":
				return this.subscriptions.subscribed(event.packetId, event.results, effects);
			case "unsubscribed":
				return this.subscriptions.unsubscribed(event.packetId, event.reasonCodes, effects);
		}
	}
}
