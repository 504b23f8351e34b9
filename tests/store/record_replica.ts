/** A replica as far as records are concerned: a Redis store and a router that tell one another, as the broker puts them together. */

import { createRedisRouter } from "../../src/router/redis_router.ts";
import type { Router } from "../../src/router/router.ts";
import type { RedisStore } from "../../src/store/redis_store.ts";
import type { RedisBench } from "./redis_support.ts";

export class RecordReplica {
	readonly store: RedisStore;
	readonly router: Router;
	/** What a listener for users was told. */
	readonly told: (string | undefined)[] = [];

	private constructor(bench: RedisBench, prefix: string, replicaId: string) {
		this.router = createRedisRouter({ redis: bench.server.url, prefix, replicaId, durability: "memory", selfTestMs: 100 });
		this.store = bench.make(prefix, { replicaId, announce: (notice) => this.router.announce(notice) });
		this.records.onChange("user", (key) => this.told.push(key));
	}

	static async start(bench: RedisBench, prefix: string, replicaId: string): Promise<RecordReplica> {
		const replica = new RecordReplica(bench, prefix, replicaId);
		await replica.store.start(Date.now(), () => {});
		await replica.router.start({
			onRoute: () => {},
			onMessage: () => {},
			onGroup: () => {},
			onTakeover: () => {},
			onRoutesStored: () => {},
			onGap: () => {},
			onNotice: (notice) => replica.records.noticed(notice),
		});
		return replica;
	}

	get records(): RedisStore["records"] {
		return this.store.records;
	}

	async stop(): Promise<void> {
		await this.router.close();
		await this.store.close();
	}
}
