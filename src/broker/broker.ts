/** The broker: composes the use cases, accepts connections, and knows how to start, drain and stop. */

import type { Authenticator, Authorizer } from "../auth/auth.ts";
import { type Clock, systemClock } from "../clock.ts";
import { type Logger, log } from "../log.ts";
import { Metrics } from "../metrics.ts";
import type { Message } from "../mqtt/message.ts";
import { NO_PROPERTIES, type QoS } from "../mqtt/packet.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import { filterProblem, parseShare, Topic, TopicTable } from "../mqtt/topic.ts";
import type { ChannelLimits } from "../session/effects.ts";
import { Held, Subscription } from "../session/subscription.ts";
import type { Store } from "../store/store.ts";
import type { Accept, Socket, SocketHandler } from "../transport/socket.ts";
import { Checkpoints } from "./checkpoints.ts";
import { Connection } from "./connection.ts";
import type { ConnectionContext } from "./context.ts";
import { LocalSubscriber, type MessageHandler } from "./local_subscriber.ts";
import { Routing } from "./routing.ts";
import { Sessions } from "./sessions.ts";
import { Subscribing } from "./subscribing.ts";
import { Sweeper } from "./sweeper.ts";
import { SysTopics } from "./sys_topics.ts";
import { TimerWheel } from "./timer_wheel.ts";
import { Turn } from "./turn.ts";

/** Clients of a broker that restarts have this long to come back before their wills and expiries count (P7). */
const RESTART_GRACE_MS = 5_000;
/** Connections told of the shutdown at a time. */
const DRAIN_BATCH = 100;

export interface BrokerOptions {
	readonly store: Store;
	readonly authenticator: Authenticator;
	readonly authorizer: Authorizer;
	readonly limits: ChannelLimits;
	readonly version: string;
	readonly maxConnections: number;
	readonly maxBufferedBytes: number;
	readonly maxHeldMessages: number;
	readonly pingSeconds: number;
	readonly stallTimeoutSeconds: number;
	readonly framePerPacket: boolean;
	/** See `DecoderOptions`. */
	readonly copyPayloadsUpTo: number;
	readonly sysIntervalSeconds: number;
	readonly clock?: Clock;
}

export interface PublishOptions {
	readonly qos?: QoS;
	readonly retain?: boolean;
	readonly expirySeconds?: number;
}

/** A subscription within the process. */
export interface LocalSubscription {
	close(): void;
}

export class Broker {
	readonly metrics = new Metrics();
	readonly #options: BrokerOptions;
	readonly #clock: Clock;
	readonly #log: Logger = log("broker");
	readonly #connections = new Set<Connection>();
	readonly #turn: Turn;
	readonly #wheel: TimerWheel;
	readonly #checkpoints: Checkpoints;
	readonly #routing: Routing;
	readonly #sessions: Sessions;
	readonly #subscribing: Subscribing;
	readonly #sweeper: Sweeper;
	readonly #sysTopics: SysTopics;
	readonly #context: ConnectionContext;
	#state: "new" | "running" | "draining" | "stopped" = "new";

	constructor(options: BrokerOptions) {
		const { store, authenticator, authorizer, clock = systemClock } = options;
		const { metrics } = this;
		this.#options = options;
		this.#clock = clock;
		this.#turn = new Turn(clock);
		this.#wheel = new TimerWheel(clock);
		this.#checkpoints = new Checkpoints(this.#turn);
		this.#routing = new Routing({
			store,
			metrics,
			clock: this.#turn,
			turn: this.#turn,
			log: log("routing"),
			maxHeldMessages: options.maxHeldMessages,
			maxHeldBytes: options.maxBufferedBytes,
		});
		this.#sweeper = new Sweeper(store, this.#routing, clock, log("sweeper"));
		this.#sessions = new Sessions(store, clock, log("sessions"), this.#sweeper.wake);
		this.#sysTopics = new SysTopics({
			intervalSeconds: options.sysIntervalSeconds,
			version: options.version,
			metrics,
			clock,
			store,
			sessions: this.#sessions,
			routing: this.#routing,
		});
		this.#subscribing = new Subscribing(store, this.#routing, authorizer, metrics, clock, this.#sysTopics);
		this.#context = {
			store,
			sessions: this.#sessions,
			routing: this.#routing,
			subscribing: this.#subscribing,
			authenticator,
			authorizer,
			metrics,
			clock: this.#turn,
			log: log("connection"),
			turn: this.#turn,
			wheel: this.#wheel,
			checkpoints: this.#checkpoints,
			topics: new TopicTable(),
			limits: options.limits,
			maxBufferedBytes: options.maxBufferedBytes,
			pingSeconds: options.pingSeconds,
			stallTimeoutSeconds: options.stallTimeoutSeconds,
			framePerPacket: options.framePerPacket,
			copyPayloadsUpTo: options.copyPayloadsUpTo,
			closeGraceMs: () => (this.#state === "running" ? 0 : RESTART_GRACE_MS),
			closed: (connection) => this.#closed(connection),
		};
	}

	/** Whether clients may come. */
	get ready(): boolean {
		return this.#state === "running";
	}

	/** Connections, those without CONNECT included. */
	get connections(): number {
		return this.#connections.size;
	}

	/** Opens the store and takes up what an earlier run left. Rejects with a `StoreError` that says what to do. */
	async start(): Promise<void> {
		await this.#options.store.start(this.#clock.nowMs() + RESTART_GRACE_MS, (name, exists) => this.#routing.setLog(name, exists));
		this.#state = "running";
		this.#sweeper.start();
		this.#sysTopics.start();
	}

	/** Takes a new connection of any transport. */
	readonly accept: Accept = (socket: Socket): SocketHandler | undefined => {
		if (this.#state !== "running" || this.#connections.size >= this.#options.maxConnections) return undefined;
		const connection = new Connection(this.#context, socket);
		this.#connections.add(connection);
		this.metrics.connectionsOpened++;
		return connection;
	};

	/**
	 * Publishes as the broker itself, past authorisation.
	 * @throws MqttError for an invalid topic, NotStored when it cannot be stored.
	 */
	async publish(topic: string, payload: Uint8Array | string, options: PublishOptions = {}): Promise<void> {
		const { qos = 0, retain = false, expirySeconds } = options;
		const message: Message = {
			topic: Topic.of(topic),
			payload: typeof payload === "string" ? new TextEncoder().encode(payload) : payload,
			qos,
			retain,
			forwarded: NO_PROPERTIES,
			expiresAtMs: expirySeconds === undefined ? Number.POSITIVE_INFINITY : this.#clock.nowMs() + expirySeconds * 1000,
			publisher: "",
		};
		await this.#routing.publish(message);
	}

	/**
	 * Subscribes within the process: retained messages first, then live ones, each once.
	 * @throws RangeError for an invalid filter or a shared one, StoreError when the retained messages cannot be read.
	 */
	async subscribe(filter: string, handler: MessageHandler): Promise<LocalSubscription> {
		const problem = filterProblem(filter, this.#options.limits.maxTopicLevels);
		if (problem !== undefined) throw new RangeError(`Cannot subscribe to "${filter}": ${problem}`);
		if (parseShare(filter) !== undefined)
			throw new RangeError(`Cannot subscribe to "${filter}" within the process: share groups are for clients`);
		const options = { filter, qos: 2, noLocal: false, retainAsPublished: false, retainHandling: 0, subscriptionId: 0 } as const;
		const subscription = new Subscription(options, false);
		subscription.held = new Held();
		subscription.retainedDue = true;
		const subscriber = new LocalSubscriber(handler);
		const close = () => {
			subscriber.open = false;
			this.#routing.detach(subscriber, subscription);
		};
		this.#routing.attach(subscriber, subscription);
		try {
			await this.#subscribing.sendRetained(subscriber, subscription);
		} catch (error) {
			close();
			throw error;
		}
		return { close };
	}

	/** Sends all clients away, evenly over the given time, with their sessions stored. New ones are refused from now on. */
	async drain(seconds: number): Promise<void> {
		if (this.#state !== "running") return;
		this.#state = "draining";
		const connections = [...this.#connections];
		const batches = Math.ceil(connections.length / DRAIN_BATCH);
		for (let i = 0; i < batches; i++) {
			for (const connection of connections.slice(i * DRAIN_BATCH, (i + 1) * DRAIN_BATCH)) {
				connection.end(ReasonCode.serverShuttingDown, "the server restarts");
			}
			await new Promise((resolve) => setTimeout(resolve, (seconds * 1000) / (2 * batches)));
		}
		if (connections.length > 0) this.#log.info("The clients were sent away", { count: connections.length });
	}

	/** Ends what is left and closes the store. */
	async stop(): Promise<void> {
		if (this.#state === "stopped" || this.#state === "new") return;
		await this.drain(0);
		this.#state = "stopped";
		this.#sysTopics.stop();
		this.#sweeper.stop();
		this.#checkpoints.stop();
		this.#wheel.stop();
		await this.#options.store.close();
	}

	#closed(connection: Connection): void {
		if (this.#connections.delete(connection)) this.metrics.connectionsClosed++;
	}
}
