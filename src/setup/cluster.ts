/** The store and the router of the configuration: one embedded store, or what makes this broker one of many on a Redis. */

import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import type { BrokerOptions } from "../broker/broker.ts";
import type { Config } from "../config.ts";
import { log } from "../log.ts";
import { createRedisRouter } from "../router/redis_router.ts";
import { createEmbeddedStore } from "../store/embedded_store.ts";
import { Format } from "../store/redis/format.ts";
import { createRedisStore } from "../store/redis_store.ts";
import { type SessionRef, type Store, StoreError, type StoreLimits } from "../store/store.ts";

/** Errors of Redis within this time are logged as one. */
const ERROR_INTERVAL_MS = 1000;

/** The store of a broker by itself. */
export function embeddedStore(config: Config): Store {
	const logger = log("store");
	return createEmbeddedStore({
		path: config.store === "memory" ? ":memory:" : join(config.dataDir, "shoal.sqlite"),
		sync: config.storeSync,
		limits: storeLimits(config),
		onError: (error) => logger.error("The store reports an error", { error: error.message }),
	});
}

/**
 * The parts that make this broker one of many, on the Redis of the configuration; `undefined` where there is none.
 * @param onLost Told of sessions that were connected here and are another replica's now.
 */
export function redisCluster(config: Config, onLost: (session: SessionRef) => void): BrokerOptions["cluster"] {
	if (config.redisUrl === undefined) return undefined;
	const logger = log("redis");
	let quietUntil = 0;
	// One outage is met by several connections at once, and each says so.
	const onError = (error: Error): void => {
		const now = performance.now();
		const isLoss = error instanceof StoreError && error.code !== "away";
		if (now >= quietUntil || isLoss) logger.warn("Redis reports an error", { error: error.message });
		if (!isLoss) quietUntil = Math.max(quietUntil, now + ERROR_INTERVAL_MS);
	};
	const common = {
		redis: config.redisUrl,
		prefix: config.redisPrefix,
		replicaId: config.replicaId === "" ? `${hostname()}-${randomBytes(6).toString("base64url")}` : config.replicaId,
		durability: config.redisDurability,
		format: new Format(),
		onError,
	};
	const router = createRedisRouter(common);
	const store = createRedisStore({
		...common,
		limits: storeLimits(config),
		leaseMs: config.replicaLeaseSeconds * 1000,
		onTakeover: (replica, session) => router.notifyTakeover(replica, session),
		onLost,
		// It asks how far the routes are, and so notices too.
		onWentBack: () => void router.catchUp().catch(() => {}),
		onDead: (replica) => router.forget(replica),
		announce: (notice) => router.announce(notice),
	});
	return { store, router };
}

/** Makes the folder of the embedded store. Rejects with an Error that says what to do. */
export async function makeDataDir(path: string): Promise<void> {
	try {
		await mkdir(path, { recursive: true });
	} catch (error) {
		const remedy = "Name a folder that can be written to, or set STORE=memory";
		throw new Error(`Cannot make DATA_DIR "${path}": ${(error as Error).message}. ${remedy}`, { cause: error });
	}
}

function storeLimits({ logMaxMessages, maxRetainedMessages }: Config): StoreLimits {
	return { logMaxMessages, maxRetained: maxRetainedMessages };
}
