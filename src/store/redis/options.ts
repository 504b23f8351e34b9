/** What the Redis store is given by whoever composes the broker. */

import type { Clock } from "../../clock.ts";
import type { SessionRef, StoreLimits } from "../store.ts";
import type { RedisTarget } from "./connection.ts";
import type { Format } from "./format.ts";
import type { Durability } from "./server_check.ts";

export interface RedisStoreOptions {
	/** Address such as `rediss://user:password@host:6379/0`, or options of ioredis. */
	readonly redis: RedisTarget;
	/** Before every key, the same for all replicas; without braces. */
	readonly prefix: string;
	/** Name of this replica: no two that live may have the same. */
	readonly replicaId: string;
	readonly durability: Durability;
	readonly limits: StoreLimits;
	/** What is written, the same object as the router's. */
	readonly format?: Format;
	/** Told of failures besides those that reject a call. */
	readonly onError?: (error: Error) => void;
	/** A session was taken from another replica: its connection there should end, and would otherwise learn it with its next write. */
	readonly onTakeover?: (replicaId: string, session: SessionRef) => void;
	/** Another replica has ended or taken a session that is connected here. */
	readonly onLost?: (session: SessionRef) => void;
	/** Redis has lost some of what it was given: whoever else keeps something there should look. */
	readonly onWentBack?: () => void;
	/** Tells other replicas that a record has changed: `Router.announce`. */
	readonly announce?: (notice: string) => Promise<void>;
	/**
	 * A replica is dead and its sessions are ended: what it has left elsewhere is to go. Awaited before its lease is removed:
	 * when it rejects, or this replica dies too, it is called again, and it may be called at two replicas.
	 */
	readonly onDead?: (replicaId: string) => Promise<void>;
	/** How long this replica is taken to live without a word from it: longer than a failover of Redis. 20,000 unless given. */
	readonly leaseMs?: number;
	/** How long others' deadlines may go unnoticed when they die before these come. 15,000 unless given; less costs commands. */
	readonly lookMs?: number;
	/** What the callers' `nowMs` is compared with: only the difference counts, and Redis' own clock decides. */
	readonly clock?: Clock;
	/** Take `nowMs` as it is, for tests that move time. */
	readonly trustNow?: boolean;
}
