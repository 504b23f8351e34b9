/** What the tests of the Redis store share: stores on a server, and what a kill of their process would leave. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { Connection } from "../../src/store/redis/connection.ts";
import type { RedisStoreOptions } from "../../src/store/redis/options.ts";
import { scripts } from "../../src/store/redis/scripts.ts";
import { createRedisStore, type RedisStore } from "../../src/store/redis_store.ts";
import type { StoreLimits } from "../../src/store/store.ts";
import { Fixture, NOW, numbers } from "../contracts/store/fixture.ts";
import type { StoreHarness } from "../contracts/store_contract.ts";
import { type RedisServer, startRedis } from "../support/redis_server.ts";

const LIMITS: StoreLimits = { logMaxMessages: 100_000, maxRetained: 100_000 };

/** Copies all keys of a prefix to another one, in one step. */
const SNAPSHOT = `
for _, key in ipairs(redis.call("KEYS", ARGV[1] .. "*")) do
	redis.call("RESTORE", ARGV[2] .. string.sub(key, #ARGV[1] + 1), 0, redis.call("DUMP", key))
end
for _, replica in ipairs(redis.call("ZRANGE", ARGV[2] .. "{reps}", 0, -1)) do
	redis.call("ZADD", ARGV[2] .. "{reps}", 0, replica)
end
return 1`;

/** Waits for what happens by itself. */
export async function until(condition: () => Promise<boolean>): Promise<void> {
	const deadline = performance.now() + 10_000;
	while (!(await condition())) {
		assert.ok(performance.now() < deadline, "it did not happen");
		await sleep(20);
	}
}

/** A store of its own among several on one prefix, and the wildcard and group logs that it knows of. */
export class Replica extends Fixture {
	readonly redis: RedisStore;
	readonly known = new Set<string>();
	#events: string[] = [];

	constructor(redis: RedisStore) {
		super({ store: redis, reopen: undefined, dispose: () => redis.close() });
		this.redis = redis;
	}

	override async start(nowMs = NOW): Promise<void> {
		await this.redis.start(nowMs, (name, exists) => {
			this.#events.push(`${exists ? "+" : "-"}${name}`);
			if (exists) this.known.add(name);
			else this.known.delete(name);
		});
	}

	/** Whether a publication here would be appended to the log of this filter. */
	knows(log: string): boolean {
		return this.known.has(log) || this.redis.hasLog(log);
	}

	override takeLogEvents(): string[] {
		return this.#events.splice(0);
	}
}

/** One server for a file of tests, and a client of its own to look into it. */
export class RedisBench {
	readonly server: RedisServer;
	readonly client: Redis;
	#prefixes = 0;

	private constructor(server: RedisServer) {
		this.server = server;
		this.client = new Redis(server.url, { commandTimeout: 10_000 });
		this.client.on("error", () => {});
	}

	static async start(settings: readonly string[] = []): Promise<RedisBench> {
		return new RedisBench(await startRedis(settings));
	}

	/** A cluster of one: it refuses a script or command whose keys are in several slots. */
	static async startCluster(): Promise<RedisBench> {
		const bench = await RedisBench.start(["--cluster-enabled", "yes"]);
		await bench.client.call("CLUSTER", "ADDSLOTSRANGE", 0, 16_383);
		await until(async () => /cluster_state:ok/.test(String(await bench.client.call("CLUSTER", "INFO"))));
		return bench;
	}

	freshPrefix(): string {
		return `test${++this.#prefixes}:`;
	}

	make(prefix: string, options: Partial<RedisStoreOptions> = {}): RedisStore {
		return createRedisStore({
			redis: this.server.url,
			prefix,
			replicaId: "r1",
			durability: "aof",
			limits: LIMITS,
			trustNow: true,
			lookMs: 0,
			...options,
		});
	}

	/** A connection that runs scripts besides the stores. */
	connect(): Promise<Connection> {
		return new Promise((resolve) => {
			const connection: Connection = new Connection({
				target: this.server.url,
				scripts: Object.values(scripts),
				stallMs: 5000,
				onReady: () => resolve(connection),
				onError: () => {},
			});
		});
	}

	async startReplica(prefix: string, options: Partial<RedisStoreOptions> = {}): Promise<Replica> {
		const replica = new Replica(this.make(prefix, options));
		await replica.start();
		return replica;
	}

	/** What would be left if all replicas were killed now and their leases had lapsed, under another prefix. */
	async copyAsKilled(prefix: string): Promise<string> {
		const copy = this.freshPrefix();
		await this.client.eval(SNAPSHOT, 0, prefix, copy);
		return copy;
	}

	async openHarness(limits: StoreLimits): Promise<StoreHarness> {
		let prefix = this.freshPrefix();
		const stores: RedisStore[] = [];
		const make = (): RedisStore => {
			const store = this.make(prefix, { limits });
			stores.push(store);
			return store;
		};
		return {
			store: make(),
			reopen: async () => {
				prefix = await this.copyAsKilled(prefix);
				return make();
			},
			dispose: async () => {
				for (const store of stores) await store.close();
			},
		};
	}

	async stop(): Promise<void> {
		this.client.disconnect();
		await this.server.stop();
	}
}

/** What defines a test with replicas `r1`, `r2`, … on one prefix; the options are for all but the first. */
export function replicaTests(
	bench: () => RedisBench,
): (
	title: string,
	count: number,
	body: (replicas: Replica[], prefix: string) => Promise<void>,
	options?: Partial<RedisStoreOptions>,
) => void {
	return (title, count, body, options = {}) => {
		test(`Redis store: ${title}`, async () => {
			const prefix = bench().freshPrefix();
			const replicas: Replica[] = [];
			try {
				for (const n of numbers(1, count)) {
					replicas.push(await bench().startReplica(prefix, { replicaId: `r${n}`, ...(n > 1 ? options : {}) }));
				}
				await body(replicas, prefix);
			} finally {
				for (const { store } of replicas) await store.close();
			}
		});
	};
}
