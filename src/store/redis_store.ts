/**
 * The store of many replicas that are one broker: Redis. Knows how the parts in `redis/` make the methods of `Store`, and what
 * begins and ends with the process; each part knows its own keys.
 *
 * A call's first commands are sent when it is made, and everything on one connection, so that calls take effect in their order.
 * What is in one slot changes in one step; what spans slots is written so that whoever comes after a crash can finish it.
 */

import { type Clock, systemClock } from "../clock.ts";
import { Histogram } from "../metrics.ts";
import { Calls } from "./redis/calls.ts";
import { Cleaning } from "./redis/cleaning.ts";
import { ServerClock } from "./redis/clock.ts";
import { Connection } from "./redis/connection.ts";
import { type Context, Names } from "./redis/context.ts";
import { Deadlines } from "./redis/deadlines.ts";
import { Format } from "./redis/format.ts";
import { Keys } from "./redis/keys.ts";
import { Logs } from "./redis/logs.ts";
import { RedisRecords } from "./redis/managed_records.ts";
import { Opening } from "./redis/opening.ts";
import type { RedisStoreOptions } from "./redis/options.ts";
import { OwnedSessions } from "./redis/owned.ts";
import { Publishing } from "./redis/publishing.ts";
import { Replicas } from "./redis/replicas.ts";
import { Retained } from "./redis/retained.ts";
import { Routes } from "./redis/routes.ts";
import { scripts } from "./redis/scripts.ts";
import { checkServer } from "./redis/server_check.ts";
import { Sessions, type Subscribed } from "./redis/sessions.ts";
import { SharedLogs } from "./redis/shared_logs.ts";
import { countAll } from "./redis/stats.ts";
import { atStart } from "./redis/wire.ts";
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
	type SharedStore,
	StoreError,
	type StoreStats,
	type SubscriptionOptions,
} from "./store.ts";

/** Makes the Redis store. Nothing is connected before `start`. */
export function createRedisStore(options: RedisStoreOptions): RedisStore {
	if (/[{}]/.test(options.prefix)) throw new RangeError(`Cannot use the prefix "${options.prefix}": it contains a brace`);
	return new RedisStore(options);
}

const LEASE_MS = 20_000;
/** How often a replica says that it lives, within the time of its lease. */
const RENEWALS = 2;
const LOOK_MS = 15_000;
const GONE_MS = 86_400_000;
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

export class RedisStore implements SharedStore {
	/** How long the server takes to answer, in seconds. */
	readonly roundTrip = new Histogram();
	readonly records: RedisRecords;
	readonly #options: RedisStoreOptions;
	readonly #clock: Clock;
	readonly #leaseMs: number;
	#parts: Parts | undefined;
	/** Also before and after `#parts`. */
	#connection: Connection | undefined;
	#connectedSince = Number.POSITIVE_INFINITY;
	#connections = 0;
	/** When it was first noticed that the server is away, by `performance.now()`. */
	#awaySince: number | undefined;
	/** Why nothing can be done any more: there is data that this version cannot read. */
	#refusal: StoreError | undefined;
	/** What the server may have forgotten or given to others, to be looked at with the next sign of life. */
	#doubtful: "nothing" | "sessions" | "logs" = "nothing";
	#renewing: ReturnType<typeof setInterval> | undefined;
	/** Calls that do not wait for others' turn, as long as they are under way. */
	readonly #underWay = new Set<Promise<unknown>>();

	constructor(options: RedisStoreOptions) {
		this.#options = options;
		this.#clock = options.clock ?? systemClock;
		this.#leaseMs = options.leaseMs ?? LEASE_MS;
		this.records = new RedisRecords({
			with: (call) => this.#with(({ context }) => this.#alongside(call(context))),
			announce: options.announce,
			nowMs: () => this.#clock.nowMs(),
		});
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
			await replicas.checkFormat();
			const startedAt = await context.clock.synchronise();
			await routes.open();
			await replicas.join(nowMs);
			if (context.clock.toldMicros <= startedAt) {
				throw new StoreError("unavailable", "Cannot use this Redis: its clock does not move. Look after the time of that machine");
			}
			routes.watch(onLog);
			this.#parts = parts;
			this.#renewing = setInterval(() => this.#renew(), this.#leaseMs / RENEWALS);
		} catch (error) {
			routes.close();
			connection.close();
			this.#connection = undefined;
			this.#awaySince = undefined;
			throw atStart(error);
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

	hasLog(topic: string): boolean {
		return this.#parts?.routes.hasExact(topic) === true;
	}

	/** Replicas with a lease, this one included. */
	get replicas(): number {
		return this.#parts?.replicas.count ?? 0;
	}

	/** Connections to the server that were made again. */
	get reconnects(): number {
		return Math.max(0, this.#connections - 1);
	}

	get awayMs(): number {
		return this.#awaySince === undefined ? 0 : performance.now() - this.#awaySince;
	}

	catchUp(): Promise<void> {
		return this.#with(({ routes }) => routes.catchUp());
	}

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
		return this.#with(({ shared }) => shared.take(log, limit));
	}

	settleShared(log: string, seqs: readonly number[]): Promise<void> {
		return this.#with(({ shared }) => shared.settle(log, seqs));
	}

	returnShared(log: string, seqs: readonly number[]): Promise<void> {
		return this.#with(({ shared }) => shared.giveBack(log, seqs));
	}

	bindShared(log: string, seq: number, session: SessionRef): Promise<void> {
		return this.#with(({ sessions }) => sessions.bindShared(log, seq, session));
	}

	retained(filter: string, after: string | undefined, limit: number, nowMs: number): Promise<RetainedPage> {
		return this.#with(({ context, retained }) => context.calls.read("retained", () => retained.page(filter, after, limit, nowMs)));
	}

	due(nowMs: number, limit: number): Promise<Due> {
		return this.#with(({ context, deadlines, cleaning, retained, logs }) => {
			// This is called again and again, which makes it the place for what has no deadline either.
			const others = Promise.all([retained.expire(nowMs), logs.audit(), this.records.expire(context)]);
			const due = deadlines.due(nowMs, limit, (clientId, gone, ended) => cleaning.clean(clientId, gone, ended));
			return this.#alongside(Promise.all([due, others]).then(([found]) => found));
		});
	}

	stats(): Promise<StoreStats> {
		return this.#with(({ context, logs, retained, replicas }) => this.#alongside(countAll(context, logs, retained, replicas)));
	}

	/** Rejects, rather than throws, what cannot even begin. */
	#with<T>(call: (parts: Parts) => Promise<T>): Promise<T> {
		try {
			if (this.#parts === undefined)
				throw new StoreError("unavailable", "Cannot use the store in Redis: it is not started, or it was closed");
			if (this.#refusal !== undefined) throw this.#refusal;
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
				this.#connections++;
				if (this.#doubtful === "nothing") this.#doubtful = "sessions";
				this.#parts?.shared.doubtAll();
				this.#renew();
				resolve();
			},
			onError: (error) => {
				if (!connection.ready) this.#wentAway(error);
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
		if (parts?.context.connection.ready !== true) return;
		this.#alongside(this.#catchUpWithOthers(parts)).then(
			() => {
				if (parts.context.connection.ready) this.#awaySince = undefined;
			},
			(error) => {
				// A server that is there and takes no writes is away as well.
				if (error instanceof StoreError && error.code === "away") this.#awaySince ??= performance.now();
				else if (error instanceof StoreError && error.code === "newerVersion") this.#tooOld(error, parts);
				this.#onError(error);
			},
		);
	}

	/** The others have gone on without this replica: it is of no use any more, and its clients are to go to them. */
	#tooOld(error: StoreError, { sessions }: Parts): void {
		clearInterval(this.#renewing);
		this.#refusal = error;
		// Nobody needs to wait whether it will be back.
		this.#awaySince = performance.now() - GONE_MS;
		sessions.loseAll();
	}

	#wentAway(error: Error): void {
		// What is hung is noticed on this connection, where somebody waits for answers.
		this.#parts?.routes.restart(error.message);
		this.#connectedSince = Number.POSITIVE_INFINITY;
		this.#awaySince ??= performance.now();
	}

	async #catchUpWithOthers({ replicas, routes, cleaning, shared, sessions }: Parts): Promise<void> {
		const kept = await replicas.renew();
		if (!kept) {
			// Nobody ends a lease early: the server may have lost more than that.
			routes.restart("the lease is gone");
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
		const clock = new ServerClock(connection);
		const context: Context = {
			connection,
			keys: new Keys(prefix),
			calls: new Calls(durability === "replicated" ? () => connection.confirm() : undefined),
			clock,
			roundTrip: this.roundTrip,
			names: new Names(),
			format: this.#options.format ?? new Format(),
			limits,
			replicaId,
			leaseMs: this.#leaseMs,
			lookMs: this.#options.lookMs ?? LOOK_MS,
			serverMs: (nowMs) => (trustNow === true ? nowMs : clock.nowMs() + nowMs - this.#clock.nowMs()),
			aheadMs: () => (trustNow === true ? 0 : Math.round(clock.nowMs() - this.#clock.nowMs())),
			time: (nowMs) => (trustNow === true ? nowMs : Math.round(nowMs - this.#clock.nowMs())),
			onError: this.#onError,
			onTakeover: (other, session) => this.#options.onTakeover?.(other, session),
			onLost: (session) => this.#options.onLost?.(session),
			onDead: (other) => this.#options.onDead?.(other) ?? Promise.resolve(),
		};
		const owned = new OwnedSessions();
		const routes = new Routes(context, redis);
		const logs = new Logs(context, routes);
		const shared = new SharedLogs(context, routes);
		const retained = new Retained(context);
		const deadlines = new Deadlines(context);
		const cleaning = new Cleaning(context, logs, shared, deadlines);
		const opening = new Opening(context, { routes, logs, deadlines, cleaning, owned, shared });
		const sessions = new Sessions(context, routes, logs, shared, cleaning, owned);
		const publishing = new Publishing(context, logs, retained, sessions, owned, deadlines);
		routes.onWentBack = () => {
			this.#doubtful = "logs";
			logs.auditAll();
			shared.wentBack();
			this.#options.onWentBack?.();
			this.#renew();
		};
		const replicas = new Replicas(context, {
			cleaning,
			shared,
			deadlines,
			logs,
			connectedSince: () => this.#connectedSince,
			onEnded: () => this.#renew(),
		});
		return { context, routes, logs, shared, retained, deadlines, cleaning, opening, sessions, publishing, replicas };
	}
}
