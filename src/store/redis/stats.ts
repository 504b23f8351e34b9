/** How much is stored, of all replicas. Knows where each part counts. */

import type { StoreStats } from "../store.ts";
import type { Context } from "./context.ts";
import type { Logs } from "./logs.ts";
import type { Replicas } from "./replicas.ts";
import type { Retained } from "./retained.ts";

/** See `Store.stats`. */
export async function countAll({ connection, keys }: Context, logs: Logs, retained: Retained, replicas: Replicas): Promise<StoreStats> {
	const [connected, waiting, subscriptions, kept, known, entries] = await Promise.all([
		replicas.countConnected(),
		connection.send("ZCARD", [keys.expiries]),
		connection.send("GET", [keys.subscriptionCount]),
		retained.count(),
		logs.count(),
		logs.countEntries(),
	]);
	return {
		sessions: connected + Number(waiting),
		subscriptions: Number(subscriptions ?? 0),
		retained: kept,
		logs: known,
		logEntries: entries,
	};
}
