/** What the connections of one broker share. */

import type { Authenticator, Authorizer } from "../auth/auth.ts";
import type { RevocationList } from "../auth/revocations.ts";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import type { TopicTable } from "../mqtt/topic.ts";
import type { ChannelLimits } from "../session/effects.ts";
import type { Store } from "../store/store.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { Connection } from "./connection.ts";
import type { Latencies } from "./latencies.ts";
import type { Publish, Routing } from "./routing.ts";
import type { Sessions } from "./sessions.ts";
import type { Subscribing } from "./subscribing.ts";
import type { TimerWheel } from "./timer_wheel.ts";
import type { Turn } from "./turn.ts";

export interface ConnectionContext {
	readonly store: Store;
	readonly sessions: Sessions;
	readonly routing: Routing;
	readonly publish: Publish;
	/** Whether publications wait for a store that is away. */
	readonly away: () => boolean;
	readonly subscribing: Subscribing;
	readonly authenticator: Authenticator;
	readonly authorizer: Authorizer;
	readonly revocations: RevocationList | undefined;
	/** Number of times that rights of live sessions had to be judged again. */
	readonly rightsChanges: () => number;
	readonly metrics: Metrics;
	readonly latencies: Latencies;
	readonly clock: Clock;
	readonly log: Logger;
	readonly turn: Turn;
	readonly wheel: TimerWheel;
	readonly checkpoints: Checkpoints;
	readonly topics: TopicTable;
	readonly limits: ChannelLimits;
	/** Unsent bytes that a connection may hold. */
	readonly maxBufferedBytes: number;
	/** Between WebSocket pings; 0 for none. */
	readonly pingSeconds: number;
	/** How long a client may read nothing while something waits for it. */
	readonly stallTimeoutSeconds: number;
	/** One packet per WebSocket frame. */
	readonly framePerPacket: boolean;
	/** See `DecoderOptions`. */
	readonly copyPayloadsUpTo: number;
	/** Added to the deadlines of a session whose connection ends, in ms; more than 0 when its client was sent away (P7). */
	readonly closeGraceMs: (sentAway: boolean) => number;
	/** The connection is gone. */
	readonly closed: (connection: Connection) => void;
}
