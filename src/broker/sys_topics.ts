/** `$SYS`: what the broker says of itself. Kept here rather than in the store, for it is never older than the interval. */

import type { Clock } from "../clock.ts";
import type { Metrics } from "../metrics.ts";
import type { Message } from "../mqtt/message.ts";
import { NO_PROPERTIES } from "../mqtt/packet.ts";
import { matches, Topic } from "../mqtt/topic.ts";
import type { Store } from "../store/store.ts";
import type { Routing } from "./routing.ts";
import type { Sessions } from "./sessions.ts";
import type { RetainedSource } from "./subscribing.ts";

const PREFIX = "$SYS/broker/";

export interface SysTopicsOptions {
	readonly intervalSeconds: number;
	readonly version: string;
	readonly metrics: Metrics;
	readonly clock: Clock;
	readonly store: Store;
	readonly sessions: Sessions;
	readonly routing: Routing;
}

export class SysTopics implements RetainedSource {
	readonly #options: SysTopicsOptions;
	readonly #startedAtMs: number;
	readonly #messages = new Map<string, Message>();
	#interval: ReturnType<typeof setInterval> | undefined;

	constructor(options: SysTopicsOptions) {
		this.#options = options;
		this.#startedAtMs = options.clock.nowMs();
	}

	start(): void {
		const { intervalSeconds, version } = this.#options;
		if (intervalSeconds === 0) return;
		this.#set("version", `shoal ${version}`);
		void this.#update();
		this.#interval = setInterval(() => void this.#update(), intervalSeconds * 1000);
	}

	stop(): void {
		clearInterval(this.#interval);
	}

	retained(filter: string): readonly Message[] {
		if (!filter.startsWith("$SYS")) return [];
		return [...this.#messages.values()].filter((message) => matches(filter, message.topic.name));
	}

	async #update(): Promise<void> {
		const { metrics, clock, store, sessions, routing } = this.#options;
		this.#set("uptime", `${Math.floor((clock.nowMs() - this.#startedAtMs) / 1000)} seconds`);
		this.#set("clients/connected", sessions.size);
		this.#set("connections/opened", metrics.connectionsOpened);
		this.#set("connections/closed", metrics.connectionsClosed);
		this.#set("bytes/received", metrics.bytesReceived);
		this.#set("bytes/sent", metrics.bytesSent);
		this.#set("messages/received", sum(metrics.packetsReceived));
		this.#set("messages/sent", sum(metrics.packetsSent));
		for (const qos of [0, 1, 2] as const) {
			this.#set(`publish/messages/received/qos${qos}`, metrics.messagesReceived[qos]);
			this.#set(`publish/messages/sent/qos${qos}`, metrics.messagesSent[qos]);
		}
		for (const [reason, count] of Object.entries(metrics.dropped)) this.#set(`publish/messages/dropped/${reason}`, count);
		this.#set("subscriptions/filters", routing.filters);
		const stats = await store.stats();
		this.#set("clients/sessions", stats.sessions);
		this.#set("retained/count", stats.retained);
		this.#set("store/messages/count", stats.logEntries);
	}

	#set(name: string, value: string | number): void {
		const known = this.#messages.get(name);
		const payload = new TextEncoder().encode(`${value}`);
		if (known !== undefined && Buffer.compare(known.payload, payload) === 0) return;
		const message: Message = {
			topic: known?.topic ?? Topic.of(PREFIX + name),
			payload,
			qos: 0,
			retain: false,
			forwarded: NO_PROPERTIES,
			expiresAtMs: Number.POSITIVE_INFINITY,
			publisher: "",
		};
		this.#messages.set(name, message);
		void this.#options.routing.publish(message);
	}
}

function sum(counts: readonly number[]): number {
	return counts.reduce((total, count) => total + count, 0);
}
