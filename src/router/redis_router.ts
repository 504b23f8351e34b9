/**
 * The router of many replicas that are one broker: Redis. Knows how the parts in `redis/` make the methods of `Router`, and
 * what begins and ends with the process; each part knows its own keys.
 *
 * Routes come before messages: an inbox is there before anybody can see a route to it, and what one replica sends another goes
 * on one connection, in the order of the calls.
 */

import { randomBytes } from "node:crypto";
import { type Clock, systemClock } from "../clock.ts";
import type { Message } from "../mqtt/message.ts";
import type { Topic } from "../mqtt/topic.ts";
import { Connection, type RedisTarget } from "../store/redis/connection.ts";
import { Format } from "../store/redis/format.ts";
import type { Durability } from "../store/redis/server_check.ts";
import { type SessionRef, StoreError } from "../store/store.ts";
import { Advertiser } from "./redis/advertiser.ts";
import { Bus } from "./redis/bus.ts";
import type { Context } from "./redis/context.ts";
import { Follower } from "./redis/follower.ts";
import { Inbox } from "./redis/inbox.ts";
import { RouterKeys } from "./redis/keys.ts";
import { Outbox } from "./redis/outbox.ts";
import { scripts } from "./redis/scripts.ts";
import type { Forwarded, ReplicaId, Router, RouterHandlers } from "./router.ts";

export interface RedisRouterOptions {
	/** As for the store. */
	readonly redis: RedisTarget;
	/** Before every key and channel, the same for all replicas; without braces. */
	readonly prefix: string;
	/** Name of this replica: no two that live may have the same. */
	readonly replicaId: ReplicaId;
	readonly durability: Durability;
	/** What is written, the same object as the store's, which hears of it. */
	readonly format?: Format;
	/** Told of failures besides those that reject a call. */
	readonly onError?: (error: Error) => void;
	/** So many QoS 0 messages for other replicas were dropped. */
	readonly onDropped?: (count: number) => void;
	readonly clock?: Clock;
	/** Entries that an inbox keeps for its replica, about; each has the messages of one event-loop turn. 100,000 unless given. */
	readonly inboxMax?: number;
	/** How often it is tried whether messages come through, in ms. 20,000 unless given. */
	readonly selfTestMs?: number;
	/** How long a read may wait in Redis, in ms. 55,000 unless given. */
	readonly blockMs?: number;
}

/** Makes the Redis router. Nothing is connected before `start`. */
export function createRedisRouter(options: RedisRouterOptions): Router {
	for (const name of ["prefix", "replicaId"] as const) {
		if (/[{}]/.test(options[name])) throw new RangeError(`Cannot use the ${name} "${options[name]}": it contains a brace`);
	}
	return new RedisRouter(options);
}

const INBOX_MAX = 100_000;
const SELF_TEST_MS = 20_000;
const BLOCK_MS = 55_000;
/** Self-tests after which it is looked whether the server still has what it was told. */
const VERIFY_TESTS = 4;
const STALL_MS = 2000;
/** How long `start` waits for the server. */
const CONNECT_MS = 10_000;
/** How long `close` waits for it. */
const LEAVE_MS = 1000;
const NOBODY: readonly ReplicaId[] = Object.freeze([]);

/** What exists between `start` and `close`. */
interface Parts {
	readonly context: Context;
	readonly advertiser: Advertiser;
	readonly follower: Follower;
	readonly outbox: Outbox;
	readonly inbox: Inbox;
	readonly bus: Bus;
}

class RedisRouter implements Router {
	readonly #options: RedisRouterOptions;
	/** Before it is started too. */
	#connection: Connection | undefined;
	#parts: Parts | undefined;
	#beats = 0;
	#beating: ReturnType<typeof setInterval> | undefined;

	constructor(options: RedisRouterOptions) {
		this.#options = options;
	}

	async start(handlers: RouterHandlers): Promise<void> {
		if (this.#connection !== undefined) throw new TypeError("Cannot start the router: it is started already");
		const { redis, selfTestMs = SELF_TEST_MS } = this.#options;
		const { connection, connected } = this.#connect();
		this.#connection = connection;
		const parts = this.#assemble(connection, handlers);
		const { advertiser, follower, inbox, bus } = parts;
		try {
			await connected;
			await inbox.open(redis);
			await advertiser.storeAll();
			if (advertiser.token === undefined) throw cannotStart(connection.lastError);
			await follower.open(redis);
			await inTime(bus.open(redis), CONNECT_MS, () => cannotStart(new Error("the subscription is not answered")));
			this.#parts = parts;
			this.#beating = setInterval(() => this.#beat(parts), selfTestMs);
		} catch (error) {
			this.#end(parts);
			throw error;
		}
	}

	async close(): Promise<void> {
		const parts = this.#parts;
		if (parts === undefined) return;
		this.#parts = undefined;
		clearInterval(this.#beating);
		const { context, advertiser } = parts;
		const leaving = (async () => {
			await advertiser.close();
			await context.connection.send("DEL", [context.keys.inbox(context.replicaId)]);
		})();
		try {
			await inTime(leaving, LEAVE_MS, () => new StoreError("away", "Cannot take the routes back: Redis does not answer"));
		} catch (error) {
			this.#onError(error as Error);
		} finally {
			this.#end(parts);
		}
	}

	advertise(filter: string): Promise<void> | undefined {
		return this.#parts === undefined ? Promise.reject(notStarted()) : this.#parts.advertiser.advertise(filter);
	}

	withdraw(filter: string): void {
		this.#parts?.advertiser.withdraw(filter);
	}

	catchUp(): Promise<void> {
		return this.#parts === undefined ? Promise.reject(notStarted()) : this.#parts.follower.catchUp();
	}

	exact(topic: Topic): readonly ReplicaId[] {
		return this.#parts === undefined ? NOBODY : this.#parts.follower.exact(topic);
	}

	publish(replica: ReplicaId, message: Message, groups: readonly string[]): void {
		this.#parts?.bus.publish(replica, message, groups);
	}

	forward(replicas: Iterable<ReplicaId>, forwarded: Forwarded, token: string | undefined): Promise<void> {
		return this.#parts === undefined ? Promise.reject(notStarted()) : this.#parts.outbox.forward(replicas, forwarded, token);
	}

	claim(token: string): boolean {
		return this.#parts === undefined || this.#parts.inbox.claim(token);
	}

	ring(replicas: Iterable<ReplicaId>, group: string): void {
		this.#parts?.outbox.ring(replicas, group);
	}

	notifyTakeover(replica: ReplicaId, session: SessionRef): void {
		this.#parts?.outbox.notifyTakeover(replica, session);
	}

	announce(notice: string): Promise<void> {
		return this.#parts === undefined ? Promise.reject(notStarted()) : this.#parts.advertiser.announce(notice);
	}

	async forget(replica: ReplicaId): Promise<void> {
		if (this.#parts === undefined) throw notStarted();
		const { context, advertiser, outbox } = this.#parts;
		outbox.forget(replica);
		// In this order: should it live after all, it makes another inbox when it sees that its routes are gone.
		await context.connection.send("DEL", [context.keys.inbox(replica)]);
		await advertiser.forget(replica);
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
				resolve();
				if (this.#parts === undefined) return;
				const { advertiser, outbox } = this.#parts;
				void advertiser.storeAll();
				outbox.sendWaiting();
			},
			onError: (error) => {
				this.#onError(error);
				if (!connection.ready) this.#doubt("another connection to the server was lost");
			},
		});
		const timer = setTimeout(() => reject(cannotStart(connection.lastError)), CONNECT_MS);
		return { connection, connected: promise };
	}

	/** A server that has hung does not end a connection on which nothing but its word is awaited. */
	#doubt(reason: string): void {
		if (this.#parts === undefined) return;
		const { follower, inbox, bus } = this.#parts;
		for (const part of [follower, inbox, bus]) part.doubt(reason);
	}

	#beat({ bus, follower, inbox, outbox, context }: Parts): void {
		bus.test();
		if (++this.#beats % VERIFY_TESTS !== 0 || !context.connection.ready) return;
		outbox.sendWaiting();
		Promise.all([follower.verify(), inbox.ensure()]).catch(() => {
			// The connection has said why, and with the next one both are looked at again.
		});
	}

	#end({ context, follower, inbox, bus }: Parts): void {
		for (const part of [follower, inbox, bus, context.connection]) part.close();
		this.#connection = undefined;
	}

	readonly #onError = (error: Error): void => {
		this.#options.onError?.(error);
	};

	#assemble(connection: Connection, handlers: RouterHandlers): Parts {
		const { prefix, replicaId, durability, onDropped, clock = systemClock, inboxMax = INBOX_MAX, blockMs = BLOCK_MS } = this.#options;
		const context: Context = {
			connection,
			keys: new RouterKeys(prefix),
			replicaId,
			process: randomBytes(9).toString("base64url"),
			clock,
			format: this.#options.format ?? new Format(),
			replicated: durability === "replicated",
			onError: this.#onError,
		};
		const inbox = new Inbox(context, handlers, blockMs);
		const advertiser = new Advertiser(
			context,
			() => inbox.ensure(),
			() => handlers.onRoutesStored(),
		);
		const storeAll = () => void advertiser.storeAll();
		const follower = new Follower(
			context,
			{
				onRoute: (replica, filter, members) => handlers.onRoute(replica, filter, members),
				onNotice: (notice) => handlers.onNotice?.(notice),
				onForgotten: storeAll,
				onWentBack: storeAll,
				onOwnToken: (token) => {
					if (advertiser.token !== undefined && advertiser.token !== token) storeAll();
				},
			},
			blockMs,
		);
		const bus = new Bus(context, {
			onMessage: (forwarded) => handlers.onMessage(forwarded),
			onDropped: (count) => onDropped?.(count),
		});
		return { context, advertiser, follower, outbox: new Outbox(context, inboxMax), inbox, bus };
	}
}

/** Rejects with what `late` makes when the promise has not settled in time. */
async function inTime<T>(promise: Promise<T>, ms: number, late: () => Error): Promise<T> {
	let timer: ReturnType<typeof setTimeout> | undefined;
	const timeout = new Promise<never>((_, reject) => {
		timer = setTimeout(() => reject(late()), ms);
	});
	try {
		return await Promise.race([promise, timeout]);
	} finally {
		clearTimeout(timer);
	}
}

function notStarted(): StoreError {
	return new StoreError("unavailable", "Cannot use the router in Redis: it is not started, or it was closed");
}

function cannotStart(why: Error | undefined): StoreError {
	return new StoreError(
		"unavailable",
		`Cannot connect the router to Redis: ${why?.message ?? "it does not answer"}. Check REDIS_URL and that the server runs`,
	);
}
