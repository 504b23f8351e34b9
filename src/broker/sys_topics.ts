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
/** What the store is asked for, which costs commands where it is shared. */
const STORED = ["clients/sessions", "retained/count", "store/messages/count"] as const;
const STORED_TOPICS = STORED.map((name) => Topic.of(PREFIX + name));

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
	/** When the store was last asked. */
	#askedAtMs = Number.NEGATIVE_INFINITY;

	constructor(options: SysTopicsOptions) {
		this.#options = options;
		this.#startedAtMs = options.clock.nowMs();
	}

	start(): void {
		const { intervalSeconds, version } = this.#options;
		if (intervalSeconds === 0) return;
		this.#set("version", `shoal ${version}`);
		this.#update();
		this.#askStore();
		this.#interval = setInterval(() => this.#update(), intervalSeconds * 1000);
	}

	stop(): void {
		clearInterval(this.#interval);
	}

	retained(filter: string): readonly Message[] {
		if (!filter.startsWith("$SYS")) return [];
		// Nobody may have listened for long: what has changed meanwhile follows as a live message.
		if (STORED_TOPICS.some(({ name }) => matches(filter, name))) this.#askStore();
		return [...this.#messages.values()].filter((message) => matches(filter, message.topic.name));
	}

	#update(): void {
		const { metrics, clock, sessions, routing } = this.#options;
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
		if (STORED_TOPICS.some((topic) => routing.match(topic).length > 0)) this.#askStore();
	}

	/** At most once in each interval. */
	#askStore(): void {
		const { intervalSeconds, clock, store } = this.#options;
		const nowMs = clock.nowMs();
		// An interval timer may be a little early.
		if (intervalSeconds === 0 || nowMs - this.#askedAtMs < intervalSeconds * 900) return;
		this.#askedAtMs = nowMs;
		// Of a store that does not answer, others speak loud enough; the figures stay as they were.
		store.stats().then(
			({ sessions, retained, logEntries }) => {
				for (const [n, figure] of [sessions, retained, logEntries].entries()) this.#set(STORED[n] as string, figure);
			},
			() => {},
		);
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
		// At once: it is QoS 0 and not stored.
		void this.#options.routing.publish(message);
	}
}

function sum(counts: readonly number[]): number {
	return counts.reduce((total, count) => total + count, 0);
}
