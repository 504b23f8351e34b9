/** The broker: composes the use cases, accepts connections, and knows how to start, drain and stop. */

import type { Authenticator, Authorizer } from "../auth/auth.ts";
import type { RevocationList } from "../auth/revocations.ts";
import { type Clock, systemClock } from "../clock.ts";
import { type Logger, log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import type { Message } from "../mqtt/message.ts";
import { NO_PROPERTIES, type QoS } from "../mqtt/packet.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import { filterProblem, parseShare, Topic, TopicTable } from "../mqtt/topic.ts";
import { alone } from "../router/alone.ts";
import type { Router } from "../router/router.ts";
import type { ChannelLimits } from "../session/effects.ts";
import { Held, Subscription } from "../session/subscription.ts";
import type { SessionRef, SharedStore, Store, StoreStats } from "../store/store.ts";
import type { Accept, Socket, SocketHandler } from "../transport/socket.ts";
import { Checkpoints } from "./checkpoints.ts";
import { Cluster, type Kick } from "./cluster.ts";
import { Connection } from "./connection.ts";
import { ConnectionAge } from "./connection_age.ts";
import type { ConnectionContext } from "./context.ts";
import { Latencies } from "./latencies.ts";
import { LocalSubscriber, type MessageHandler } from "./local_subscriber.ts";
import { type Publish, Routing } from "./routing.ts";
import { type ConnectedClient, Sessions } from "./sessions.ts";
import { Subscribing } from "./subscribing.ts";
import { Sweeper } from "./sweeper.ts";
import { SysTopics } from "./sys_topics.ts";
import { TimerWheel } from "./timer_wheel.ts";
import { Turn } from "./turn.ts";

/** Clients of a broker that restarts have this long to come back before their wills and expiries count (P7). */
const RESTART_GRACE_MS = 5_000;
/** And those that were sent away: they may all be at the next replica at once, and wait there. */
const RETURN_MS = 10_000;
/** A store that is away for longer will not be back at once, and clients had better try elsewhere; sooner, all replicas would vanish together. */
const NOT_READY_AFTER_MS = 10_000;
/** The part of the time to drain in which the clients are told; in the rest is stored what they leave. */
const TELLING = 0.75;
/** Between two looks how many are to be told by now. */
const DRAIN_STEP_MS = 20;
/** Connections told without a breath, in which the store's answers are heard: silence would count as its end. */
const DRAIN_BATCH = 250;
/** How long the end waits for sessions that are being opened or closed. */
const SETTLE_MS = 2_000;

export interface BrokerOptions {
	readonly metrics: Metrics;
	readonly store: Store;
	/** The store is open, and nobody is let in before this has resolved. */
	readonly onStoreOpen: () => Promise<void>;
	/** What makes this broker one of many; `undefined` for one that is alone. Its store is `store`. */
	readonly cluster: { readonly store: SharedStore; readonly router: Router } | undefined;
	/** Bytes of publications that may wait for a store that is away. */
	readonly maxWaitingBytes: number;
	readonly authenticator: Authenticator;
	readonly authorizer: Authorizer;
	/** What was taken back of tokens, users and client ids; `undefined` where nothing can be. */
	readonly revocations: RevocationList | undefined;
	readonly limits: ChannelLimits;
	readonly version: string;
	readonly maxConnections: number;
	/** Age at which a connection is sent away, about; 0 for none. */
	readonly maxConnectionMs: number;
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
	readonly metrics: Metrics;
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
	readonly #cluster: Cluster | undefined;
	readonly #publish: Publish;
	readonly #context: ConnectionContext;
	#rightsChanges = 0;
	#stopListening: ((() => void) | undefined)[] = [];
	readonly #age: ConnectionAge;
	/** `leaving` is as `running`, but for the answer whether it is ready. */
	#state: "new" | "running" | "leaving" | "draining" | "stopped" = "new";
	/** When the drain will be over, by `performance.now()`. */
	#drainedAtMs = 0;

	constructor(options: BrokerOptions) {
		const { store, authenticator, authorizer, clock = systemClock } = options;
		const { metrics } = options;
		this.metrics = metrics;
		this.#options = options;
		this.#clock = clock;
		this.#turn = new Turn(clock);
		this.#wheel = new TimerWheel(clock);
		this.#age = new ConnectionAge(this.#wheel, this.#turn, options.maxConnectionMs);
		this.#checkpoints = new Checkpoints(this.#turn);
		this.#routing = new Routing({
			store,
			router: options.cluster?.router ?? alone,
			metrics,
			clock: this.#turn,
			turn: this.#turn,
			log: log("routing"),
			maxHeldMessages: options.maxHeldMessages,
			maxHeldBytes: options.maxBufferedBytes,
		});
		this.#publish = (message, context) => (this.#cluster?.publish ?? this.#publishHere)(message, context);
		this.#sweeper = new Sweeper({ store, publish: this.#publish, revocations: options.revocations, clock, log: log("sweeper") });
		this.#sessions = new Sessions(store, clock, log("sessions"), this.#sweeper.wake);
		if (options.cluster !== undefined) {
			this.#cluster = new Cluster({
				...options.cluster,
				routing: this.#routing,
				sessions: this.#sessions,
				log: log("cluster"),
				maxWaitingBytes: options.maxWaitingBytes,
				onKick: (kick) => this.#kickHere(kick),
				onRoutesStored: () => {
					for (const connection of [...this.#connections]) connection.lookAgain();
				},
				onGap: () => {
					for (const connection of [...this.#connections]) connection.missedMessages();
				},
			});
		}
		this.#sysTopics = new SysTopics({
			intervalSeconds: options.sysIntervalSeconds,
			version: options.version,
			metrics,
			clock,
			store,
			sessions: this.#sessions,
			routing: this.#routing,
		});
		this.#subscribing = new Subscribing(store, this.#routing, metrics, clock, this.#sysTopics);
		this.#context = {
			store,
			sessions: this.#sessions,
			routing: this.#routing,
			publish: this.#cluster?.publish ?? this.#publishHere,
			away: () => this.#cluster?.away === true,
			subscribing: this.#subscribing,
			authenticator,
			authorizer,
			revocations: options.revocations,
			rightsChanges: () => this.#rightsChanges,
			metrics,
			latencies: new Latencies(this.#turn, metrics.publishToAck, metrics.publishToDeliver),
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
			closeGraceMs: (sentAway) => this.#closeGraceMs(sentAway),
			closed: (connection) => this.#closed(connection),
		};
	}

	/** Whether clients may come. */
	get ready(): boolean {
		return this.#state === "running" && (this.#options.cluster?.store.awayMs ?? 0) < NOT_READY_AFTER_MS;
	}

	/** Whether new connections are taken: longer than `ready` says so, for who asks only now and then. */
	get open(): boolean {
		return this.#state === "running" || this.#state === "leaving";
	}

	/** What the store has, of all replicas. */
	stats(): Promise<StoreStats> {
		return this.#options.store.stats();
	}

	/** Clients that are connected here, by client id; for operators. */
	clients(after: string | undefined, limit: number): { readonly items: readonly ConnectedClient[]; readonly next: string | undefined } {
		const ids = this.#sessions.ids().filter((id) => after === undefined || id > after);
		ids.sort();
		const page = ids.slice(0, limit);
		const items = page.map((id) => this.#sessions.owner(id)?.describe()).filter((client) => client !== undefined);
		return { items, next: ids.length > limit ? page.at(-1) : undefined };
	}

	/** Sends clients away, on every replica. Resolves when every one will hear of it. */
	async kick(kick: Kick): Promise<void> {
		this.#kickHere(kick);
		await this.#cluster?.kick(kick);
	}

	/** Judges again whether those who are connected may be: addresses were banned. */
	refuseAddresses(isBanned: (address: string) => boolean): void {
		for (const connection of [...this.#connections]) {
			if (isBanned(connection.address)) connection.end(ReasonCode.banned, "its address is banned");
		}
	}

	/** The store, or another replica, has found that a session is not this replica's any more. */
	sessionLost(session: SessionRef): void {
		this.#cluster?.takenOver(session);
	}

	/** Connections, those without CONNECT included. */
	get connections(): number {
		return this.#connections.size;
	}

	/** Opens the store and takes up what an earlier run left. Rejects with a `StoreError` that says what to do. */
	async start(): Promise<void> {
		await this.#options.store.start(this.#clock.nowMs() + RESTART_GRACE_MS, (name, exists) => this.#routing.setLog(name, exists));
		await this.#options.onStoreOpen();
		await this.#cluster?.start();
		this.#state = "running";
		const judgeAgain = () => {
			this.#rightsChanges++;
			for (const connection of [...this.#connections]) connection.judgeAgain();
		};
		const { authorizer, revocations } = this.#options;
		this.#stopListening = [authorizer.onChange?.(judgeAgain), revocations?.onRevoked(judgeAgain)];
		this.#sweeper.start();
		this.#sysTopics.start();
	}

	/** Takes a new connection of any transport. */
	readonly accept: Accept = (socket: Socket): SocketHandler | undefined => {
		if (!this.open || this.#connections.size >= this.#options.maxConnections) return undefined;
		const connection = new Connection(this.#context, socket);
		this.#connections.add(connection);
		this.#age.begin(connection);
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
		await this.#publish(message);
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
		try {
			await this.#routing.attach(subscriber, subscription);
			await this.#subscribing.sendRetained(subscriber, subscription);
		} catch (error) {
			close();
			throw error;
		}
		return { close };
	}

	/**
	 * Sends all clients away, evenly over the given time, with their sessions stored. New ones are refused from then on.
	 * @param noticeSeconds Before that, `ready` is false and all else goes on: for balancers, which ask only now and then.
	 */
	async drain(seconds: number, noticeSeconds = 0): Promise<void> {
		if (this.#state === "running") {
			this.#state = "leaving";
			this.#drainedAtMs = performance.now() + (noticeSeconds + seconds) * 1000;
			if (noticeSeconds > 0) await sleep(noticeSeconds * 1000);
		}
		if (this.#state !== "leaving") return;
		this.#state = "draining";
		const beganAtMs = performance.now();
		this.#drainedAtMs = beganAtMs + seconds * 1000;
		const connections = [...this.#connections];
		const tellMs = seconds * 1000 * TELLING;
		for (let told = 0; told < connections.length; ) {
			// By the clock: on a machine that is busy there are fewer steps, and each takes more.
			const part = Math.min(1, (performance.now() - beganAtMs + DRAIN_STEP_MS) / tellMs);
			const due = Math.ceil(connections.length * part);
			const end = Math.min(due, told + DRAIN_BATCH);
			for (; told < end; told++) connections[told]?.end(ReasonCode.serverShuttingDown, "the server restarts");
			if (told < connections.length) await sleep(told < due ? 0 : DRAIN_STEP_MS);
		}
		await inTime(this.#sessions.idle(), Math.max(SETTLE_MS, this.#drainedAtMs - performance.now()));
		if (connections.length > 0) this.#log.info("The clients were sent away", { count: connections.length });
	}

	/** Until a client is back that this end is not the fault of. */
	#closeGraceMs(sentAway: boolean): number {
		if (this.#state === "running") return sentAway ? RETURN_MS : 0;
		return RETURN_MS + Math.max(0, this.#drainedAtMs - performance.now());
	}

	/** Ends what is left and closes the store. */
	async stop(): Promise<void> {
		if (this.#state === "stopped" || this.#state === "new") return;
		await this.drain(0);
		this.#state = "stopped";
		for (const connection of [...this.#connections]) connection.end(ReasonCode.serverShuttingDown, "the server ends");
		await inTime(this.#sessions.idle(), SETTLE_MS);
		for (const stop of this.#stopListening) stop?.();
		this.#sysTopics.stop();
		this.#sweeper.stop();
		this.#checkpoints.stop();
		this.#wheel.stop();
		await this.#cluster?.stop();
		await this.#options.store.close();
	}

	#kickHere({ kind, value }: Kick): void {
		for (const connection of [...this.#connections]) {
			const { name, username } = connection.rights.principal;
			const meant = kind === "clientId" ? connection.clientId === value : name === value || username === value;
			if (meant) connection.end(ReasonCode.administrativeAction, "an operator has ended the connection");
		}
	}

	readonly #publishHere: Publish = (message, context) => this.#routing.publish(message, context);

	#closed(connection: Connection): void {
		if (!this.#connections.delete(connection)) return;
		this.#age.end(connection);
		this.metrics.connectionsClosed++;
	}
}

function sleep(ms: number): Promise<void> {
	return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Resolves when this has settled, and after this time in any case. */
async function inTime(promise: Promise<unknown>, ms: number): Promise<void> {
	let timer: ReturnType<typeof setTimeout> | undefined;
	const late = new Promise<void>((resolve) => {
		timer = setTimeout(resolve, ms);
	});
	await Promise.race([promise, late]);
	clearTimeout(timer);
}
