/** What the parts of the Redis store share. Knows none of the parts. */

import { randomBytes } from "node:crypto";
import type { Histogram } from "../../metrics.ts";
import type { SessionRef, StoreLimits } from "../store.ts";
import type { Calls } from "./calls.ts";
import type { ServerClock } from "./clock.ts";
import type { Connection } from "./connection.ts";
import type { Format } from "./format.ts";
import type { Keys } from "./keys.ts";

export interface Context {
	readonly connection: Connection;
	readonly keys: Keys;
	readonly calls: Calls;
	readonly clock: ServerClock;
	/** How long the server takes to answer, in seconds. */
	readonly roundTrip: Histogram;
	readonly names: Names;
	readonly format: Format;
	readonly limits: StoreLimits;
	readonly replicaId: string;
	/** How long a replica is taken to live without a word from it. */
	readonly leaseMs: number;
	/** How many ms the server's clock is ahead of this replica's. */
	aheadMs(): number;
	/** How long what the server said of deadlines is believed, in ms: others may have set one since. */
	readonly lookMs: number;
	/** A time that a caller named, by the server's clock. */
	serverMs(nowMs: number): number;
	/** How scripts are told a time that a caller named. */
	time(nowMs: number): number;
	/** A session came here from another replica, which should hear of it. */
	onTakeover(replicaId: string, session: SessionRef): void;
	/** A session has moved on, and no call of its connection has shown it yet. */
	onLost(session: SessionRef): void;
	/** A replica is dead and its sessions are ended. */
	onDead(replicaId: string): Promise<void>;
	/** Something failed that no caller waits for. */
	onError(error: Error): void;
}

/** Names that nobody gives twice: epochs and joins. */
export class Names {
	// Eight characters for this start of this process; a counter alone would begin again.
	readonly #nonce = randomBytes(6).toString("base64url");
	#count = 0;

	/** They sort by age, as far as one process is concerned. */
	next(): string {
		return `${(++this.#count).toString(36).padStart(7, "0")}${this.#nonce}`;
	}
}

/** Waits for all of them, even when one fails: what follows must not overtake what is still under way. */
export async function settled(promises: readonly Promise<unknown>[]): Promise<void> {
	for (const result of await Promise.allSettled(promises)) if (result.status === "rejected") throw result.reason;
}
