/** All Lua scripts by name, with the digest under which the server knows them. What each one does stands at its head. */

import { createHash } from "node:crypto";
import logAppendOnce from "./lua/log_append_once.lua" with { type: "text" };
import logFloor from "./lua/log_floor.lua" with { type: "text" };
import logJoin from "./lua/log_join.lua" with { type: "text" };
import logLeave from "./lua/log_leave.lua" with { type: "text" };
import recordDelete from "./lua/record_delete.lua" with { type: "text" };
import recordExpire from "./lua/record_expire.lua" with { type: "text" };
import recordPut from "./lua/record_put.lua" with { type: "text" };
import replicaLease from "./lua/replica_lease.lua" with { type: "text" };
import retainedExpire from "./lua/retained_expire.lua" with { type: "text" };
import retainedSet from "./lua/retained_set.lua" with { type: "text" };
import routeChange from "./lua/route_change.lua" with { type: "text" };
import sessionBind from "./lua/session_bind.lua" with { type: "text" };
import sessionCheckpoint from "./lua/session_checkpoint.lua" with { type: "text" };
import sessionClose from "./lua/session_close.lua" with { type: "text" };
import sessionEnd from "./lua/session_end.lua" with { type: "text" };
import sessionKeep from "./lua/session_keep.lua" with { type: "text" };
import sessionOpen from "./lua/session_open.lua" with { type: "text" };
import sessionReservation from "./lua/session_reservation.lua" with { type: "text" };
import sessionSubscribe from "./lua/session_subscribe.lua" with { type: "text" };
import sessionUnsubscribe from "./lua/session_unsubscribe.lua" with { type: "text" };
import sharedEnd from "./lua/shared_end.lua" with { type: "text" };
import sharedMove from "./lua/shared_move.lua" with { type: "text" };
import sharedPending from "./lua/shared_pending.lua" with { type: "text" };
import sharedSettle from "./lua/shared_settle.lua" with { type: "text" };
import sharedTake from "./lua/shared_take.lua" with { type: "text" };
import subscriptionsCount from "./lua/subscriptions_count.lua" with { type: "text" };
import timeClaim from "./lua/time_claim.lua" with { type: "text" };
import timeHint from "./lua/time_hint.lua" with { type: "text" };

/** A script as the server runs it. */
export interface Script {
	readonly name: string;
	readonly text: string;
	/** SHA-1 of the text, in hex. */
	readonly digest: string;
}

function script(name: string, text: string): Script {
	return { name, text, digest: createHash("sha1").update(text).digest("hex") };
}

export const scripts = {
	logAppendOnce: script("log_append_once", logAppendOnce),
	logFloor: script("log_floor", logFloor),
	logJoin: script("log_join", logJoin),
	logLeave: script("log_leave", logLeave),
	recordDelete: script("record_delete", recordDelete),
	recordExpire: script("record_expire", recordExpire),
	recordPut: script("record_put", recordPut),
	replicaLease: script("replica_lease", replicaLease),
	retainedExpire: script("retained_expire", retainedExpire),
	retainedSet: script("retained_set", retainedSet),
	routeChange: script("route_change", routeChange),
	sessionBind: script("session_bind", sessionBind),
	sessionCheckpoint: script("session_checkpoint", sessionCheckpoint),
	sessionClose: script("session_close", sessionClose),
	sessionEnd: script("session_end", sessionEnd),
	sessionKeep: script("session_keep", sessionKeep),
	sessionOpen: script("session_open", sessionOpen),
	sessionReservation: script("session_reservation", sessionReservation),
	sessionSubscribe: script("session_subscribe", sessionSubscribe),
	sessionUnsubscribe: script("session_unsubscribe", sessionUnsubscribe),
	sharedEnd: script("shared_end", sharedEnd),
	sharedMove: script("shared_move", sharedMove),
	sharedPending: script("shared_pending", sharedPending),
	sharedSettle: script("shared_settle", sharedSettle),
	sharedTake: script("shared_take", sharedTake),
	subscriptionsCount: script("subscriptions_count", subscriptionsCount),
	timeClaim: script("time_claim", timeClaim),
	timeHint: script("time_hint", timeHint),
} as const satisfies Readonly<Record<string, Script>>;
