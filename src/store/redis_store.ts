/**
 * The store of many replicas that are one broker: Redis. Knows how the parts in `redis/` make the methods of `Store`, and what
 * begins and ends with the process; each part knows its own keys.
 *
 * A call's first commands are sent when it is made, and everything on one connection, so that calls take effect in their order.
 * What is in one slot changes in one step; what spans slots is written so that whoever comes after a crash can finish it.
 */

import { type Clock, systemClock } from "../clock.ts";
import { Calls } from "./redis/calls.ts";
import { Cleaning } from "./redis/cleaning.ts";
import { ServerClock } from "./redis/clock.ts";
import { Connection, type RedisTarget } from "./redis/connection.ts";
import { type Context, Names } from "./redis/context.ts";
import { Deadlines } from "./redis/deadlines.ts";
import { Keys } from "./redis/keys.ts";
import { Logs } from "./redis/logs.ts";
import { Opening } from "./redis/opening.ts";
import { OwnedSessions } from "./redis/owned.ts";
import { Publishing } from "./redis/publishing.ts";
import { Replicas } from "./redis/replicas.ts";
import { Retained } from "./redis/retained.ts";
import { Routes } from "./redis/routes.ts";
import { scripts } from "./redis/scripts.ts";
import { checkServer, type Durability } from "./redis/server_check.ts";
import { Sessions, type Subscribed } from "./redis/sessions.ts";
import { SharedLogs } from "./redis/shared_logs.ts";
import {
	type Checkpoint,
	type CloseSession,
	type Due,
	type LogEntry,
	type OpenedSession,
	type OpenSession,
	type Position,
	type PublishRequest,
	type PublishResult,
	type RetainedPage,
	type SessionRef,
	type Store,
	StoreError,
	type StoreLimits,
	type StoreStats,
	type SubscriptionOptions,
} from "./store.ts";

export interface RedisStoreOptions {
	/** Address such as `rediss://user:password@host:6379/0`, or options of ioredis. */
	readonly redis: RedisTarget;
	/** Before every key, the same for all replicas; without braces. */
	readonly prefix: string;
	/** Name of this replica: no two that live may have the same. */
	readonly replicaId: string;
	readonly durability: Durability;
	readonly limits: StoreLimits;
	/** Told of failures besides those that reject a call. */
	readonly onError?: (error: Error) => void;
	/** A session was taken from another replica: its connection there should end, and would otherwise learn it with its next write. */
	readonly onTakeover?: (replicaId: string, session: SessionRef) => void;
	/** Another replica has ended or taken a session that is connected here. */
	readonly onLost?: (session: SessionRef) => void;
	/** How long this replica is taken to live without a word from it: longer than a failover of Redis. 20,000 unless given. */
	readonly leaseMs?: number;
	/** What the callers' `nowMs` is compared with: only the difference counts, and Redis' own clock decides. */
	readonly clock?: Clock;
	/** Take `nowMs` as it is, for tests that move time. */
	readonly trustNow?: boolean;
}

/** Makes the Redis store. Nothing is connected before `start`. */
export function createRedisStore(options: RedisStoreOptions): RedisStore {
	if (/[{}]/.test(options.prefix)) throw new RangeError(`Cannot use the prefix "${options.prefix}": it contains a brace`);
	return new RedisStore(options);
}

const LEASE_MS = 20_000;
/** How often a replica says that it lives, within the time of its lease. */
const RENEWALS = 4;
/** How long nothing may be answered. */
const STALL_MS = 2000;
/** How long `start` waits for the server. */
const CONNECT_MS = 10_000;

/** What exists between `start` and `close`. */
interface Parts {
	readonly context: Context;
	readonly routes: Routes;
	readonly logs: Logs;
	readonly shared: SharedLogs;
	readonly retained: Retained;
	readonly deadlines: Deadlines;
	readonly cleaning: Cleaning;
	readonly opening: Opening;
	readonly sessions: Sessions;
	readonly publishing: Publishing;
	readonly replicas: Replicas;
}

export class RedisStore implements Store {
	readonly #options: RedisStoreOptions;
	readonly #clock: Clock;
	readonly #leaseMs: number;
	#parts: Parts | undefined;
	/** Also before and after `#parts`. */
	#connection: Connection | undefined;
	#connectedSince = Number.POSITIVE_INFINITY;
	/** What the server may have forgotten or given to others, to be looked at with the next sign of life. */
	#doubtful: "nothing" | "sessions" | "logs" = "nothing";
	#renewing: ReturnType<typeof setInterval> | undefined;
	/** Calls that do not wait for others' turn, as long as they are under way. */
	readonly #underWay = new Set<Promise<unknown>>();

	constructor(options: RedisStoreOptions) {
		this.#options = options;
		this.#clock = options.clock ?? systemClock;
		this.#leaseMs = options.leaseMs ?? LEASE_MS;
	}

	async start(nowMs: number, onLog: (name: string, exists: boolean) => void): Promise<void> {
		if (this.#connection !== undefined) throw new TypeError("Cannot start the store: it is started already");
		const { connection, connected } = this.#connect();
		this.#connection = connection;
		const parts = this.#assemble(connection);
		const { context, routes, replicas } = parts;
		try {
			await connected;
			await checkServer(connection, this.#options.durability);
			const startedAt = await context.clock.synchronise();
			await routes.open();
			await replicas.join(nowMs);
			if ((await context.clock.synchronise()) <= startedAt) {
				throw new StoreError("unavailable", "Cannot use this Redis: its clock does not move. Look after the time of that machine");
			}
			routes.watch(onLog);
			this.#parts = parts;
			this.#renewing = setInterval(() => this.#renew(), this.#leaseMs / RENEWALS);
		} catch (error) {
			routes.close();
			connection.close();
			this.#connection = undefined;
			throw error;
		}
	}

	async close(): Promise<void> {
		const parts = this.#parts;
		if (parts === undefined) return;
		this.#parts = undefined;
		clearInterval(this.#renewing);
		try {
			await parts.context.calls.idle();
			await Promise.allSettled(this.#underWay);
			await parts.replicas.leave();
		} catch (error) {
			this.#onError(error as Error);
		} finally {
			parts.routes.close();
			this.#connection?.close();
			this.#connection = undefined;
		}
	}

	/** Resolves when the logs are known here that were made before the call, see `onLog` of `start`. */
	catchUp(): Promise<void> {
		return this.#with(({ routes }) => routes.catchUp());
	}

	/** Ends what dead replicas have left. Call it now and then. */
	reapDead(): Promise<void> {
		return this.#with(({ replicas }) => this.#alongside(replicas.reapDead(this.#clock.nowMs())));
	}

	openSession(request: OpenSession): Promise<OpenedSession> {
		return this.#with(({ opening }) => this.#alongside(opening.open(request)));
	}

	closeSession(session: SessionRef, request: CloseSession): Promise<void> {
		return this.#with(({ sessions }) => this.#alongside(sessions.close(session, request)));
	}

	subscribe(session: SessionRef, subscriptions: readonly SubscriptionOptions[]): Promise<readonly Subscribed[]> {
		return this.#with(({ sessions }) => sessions.subscribe(session, subscriptions));
	}

	unsubscribe(session: SessionRef, filters: readonly string[]): Promise<void> {
		return this.#with(({ sessions }) => sessions.unsubscribe(session, filters));
	}

	publish(request: PublishRequest): Promise<PublishResult> {
		return this.#with(({ publishing }) => publishing.publish(request));
	}

	release(session: SessionRef, packetId: number): Promise<void> {
		return this.#with(({ sessions }) => sessions.release(session, packetId));
	}

	read(positions: readonly Position[], limit: number): Promise<readonly LogEntry[]> {
		return this.#with(({ context, logs }) => context.calls.read("logs", () => logs.read(positions, limit)));
	}

	checkpoint(session: SessionRef, checkpoint: Checkpoint): Promise<void> {
		return this.#with(({ sessions }) => sessions.checkpoint(session, checkpoint));
	}

	takeShared(log: string, limit: number): Promise<readonly LogEntry[]> {
		return this.#with(({ context, shared }) => context.calls.run({ logs: () => shared.take(log, limit) }));
	}

	settleShared(log: string, seqs: readonly number[]): Promise<void> {
		return this.#with(({ context, shared }) => context.calls.run({ logs: () => shared.settle(log, seqs) }));
	}

	returnShared(log: string, seqs: readonly number[]): Promise<void> {
		return this.#with(({ context, shared }) => context.calls.run({ logs: () => shared.giveBack(log, seqs) }));
	}

	bindShared(log: string, seq: number, session: SessionRef): Promise<void> {
		return this.#with(({ sessions }) => sessions.bindShared(log, seq, session));
	}

	retained(filter: string, after: string | undefined, limit: number, nowMs: number): Promise<RetainedPage> {
		return this.#with(({ context, retained }) => context.calls.read("retained", () => retained.page(filter, after, limit, nowMs)));
	}

	due(nowMs: number, limit: number): Promise<Due> {
		return this.#with(({ deadlines, cleaning, retained, logs }) => {
			// This is called again and again, which makes it the place for what has no deadline either.
			const others = Promise.all([retained.expire(nowMs), logs.audit()]);
			const due = deadlines.due(nowMs, limit, (clientId, gone, ended) => cleaning.clean(clientId, gone, ended));
			return this.#alongside(Promise.all([due, others]).then(([found]) => found));
		});
	}

	stats(): Promise<StoreStats> {
		return this.#with(({ context, routes, logs, retained, replicas }) =>
			this.#alongside(this.#stats(context, routes, logs, retained, replicas)),
		);
	}

	async #stats({ connection, keys }: Context, routes: Routes, logs: Logs, retained: Retained, replicas: Replicas): Promise<StoreStats> {
		const [connected, waiting, subscriptions, kept, entries] = await Promise.all([
			replicas.countConnected(),
			connection.send("ZCARD", [keys.expiries]),
			connection.send("GET", [keys.subscriptionCount]),
			retained.count(),
			logs.countEntries(),
		]);
		return {
			sessions: connected + Number(waiting),
			subscriptions: Number(subscriptions ?? 0),
			retained: kept,
			logs: routes.size,
			logEntries: entries,
		};
	}

	/** Rejects, rather than throws, what cannot even begin. */
	#with<T>(call: (parts: Parts) => Promise<T>): Promise<T> {
		try {
			if (this.#parts === undefined)
				throw new StoreError("unavailable", "Cannot use the store in Redis: it is not started, or it was closed");
			return call(this.#parts);
		} catch (error) {
			return Promise.reject(error);
		}
	}

	#alongside<T>(call: Promise<T>): Promise<T> {
		const confirmed = this.#options.durability === "replicated" ? this.#confirmed(call) : call;
		this.#underWay.add(confirmed);
		const forget = () => this.#underWay.delete(confirmed);
		confirmed.then(forget, forget);
		return confirmed;
	}

	async #confirmed<T>(call: Promise<T>): Promise<T> {
		const value = await call;
		await this.#connection?.confirm();
		return value;
	}

	/** Begins to connect; `connected` resolves when commands can be sent. */
	#connect(): { connection: Connection; connected: Promise<void> } {
		const { promise, resolve, reject } = Promise.withResolvers<void>();
		const connection: Connection = new Connection({
			target: this.#options.redis,
			scripts: Object.values(scripts),
			stallMs: STALL_MS,
			onReady: () => {
				clearTimeout(timer);
				this.#connectedSince = performance.now();
				if (this.#doubtful === "nothing") this.#doubtful = "sessions";
				this.#renew();
				resolve();
			},
			onError: (error) => {
				if (!connection.ready) this.#connectedSince = Number.POSITIVE_INFINITY;
				this.#onError(error);
			},
		});
		const timer = setTimeout(() => {
			const why = connection.lastError?.message ?? "it does not answer";
			reject(new StoreError("unavailable", `Cannot connect to Redis: ${why}. Check REDIS_URL and that the server runs`));
		}, CONNECT_MS);
		return { connection, connected: promise };
	}

	/** Says that this replica lives, and does what could not be finished. Also right after the server was away. */
	#renew(): void {
		const parts = this.#parts;
		if (parts?.context.connection.ready === true) this.#alongside(this.#catchUpWithOthers(parts)).catch(this.#onError);
	}

	async #catchUpWithOthers({ replicas, cleaning, context, shared, sessions }: Parts): Promise<void> {
		const [kept] = await Promise.all([replicas.renew(), context.clock.synchronise()]);
		if (!kept) {
			this.#onError(
				new StoreError("fenced", "Others took this replica for dead and ended its sessions: it was away from Redis for too long"),
			);
		}
		const doubtful = this.#doubtful;
		if (!kept || doubtful !== "nothing") {
			this.#doubtful = "nothing";
			try {
				await sessions.findLost(doubtful === "logs");
			} catch (error) {
				this.#doubtful = doubtful;
				throw error;
			}
		}
		await cleaning.retry(this.#clock.nowMs());
		await shared.recoverAll();
	}

	readonly #onError = (error: Error): void => {
		this.#options.onError?.(error);
	};

	#assemble(connection: Connection): Parts {
		const { prefix, limits, replicaId, durability, redis, trustNow } = this.#options;
		const context: Context = {
			connection,
			keys: new Keys(prefix),
			calls: new Calls(durability === "replicated" ? () => connection.confirm() : undefined),
			clock: new ServerClock(connection),
			names: new Names(),
			limits,
			replicaId,
			leaseMs: this.#leaseMs,
			time: (nowMs) => (trustNow === true ? nowMs : Math.round(nowMs - this.#clock.nowMs())),
			onError: this.#onError,
			onTakeover: (other, session) => this.#options.onTakeover?.(other, session),
			onLost: (session) => this.#options.onLost?.(session),
		};
		const owned = new OwnedSessions();
		const routes = new Routes(context, redis);
		const logs = new Logs(context, routes);
		const shared = new SharedLogs(context, routes);
		const retained = new Retained(context);
		const deadlines = new Deadlines(context);
		const cleaning = new Cleaning(context, logs, shared, deadlines);
		const opening = new Opening(context, { routes, logs, deadlines, cleaning, owned });
		const sessions = new Sessions(context, logs, shared, cleaning, owned);
		const publishing = new Publishing(context, logs, retained, sessions, owned, deadlines);
		routes.onWentBack = () => {
			this.#doubtful = "logs";
			this.#renew();
		};
		const replicas = new Replicas(context, cleaning, shared, () => this.#connectedSince);
		return { context, routes, logs, shared, retained, deadlines, cleaning, opening, sessions, publishing, replicas };
	}
}
