/**
 * The names of all keys. Knows how they are grouped into slots: each group has one hash tag, and each script stays within one
 * group, as a Redis Cluster demands. A brace in a client id or log name only shortens the tag, for all keys of the group alike.
 */

/** Keys of one client id, in the order in which the scripts of sessions take them. */
export interface SessionKeys {
	/** Hash: token, owner, expiry, ends, … */
	readonly meta: string;
	/** Hash: filter → subscription record. */
	readonly subscriptions: string;
	/** Hash: packet id → number of the message while it is being stored, then `done`. */
	readonly reserved: string;
	/** Hash: epoch of the connection that brought it → will record. Outlives the session. */
	readonly wills: string;
	/** Set of the share groups' logs that have entries bound to the session. */
	readonly bound: string;
	/** Set of what ended sessions have still to give up in logs. Outlives the session. */
	readonly gone: string;
	/** Hash: messages of deliveries whose log the session has left. */
	readonly kept: string;
}

export interface LogKeys {
	/** Stream of the messages: entry ids are `0-{seq}`. */
	readonly entries: string;
	/** Sorted set: member (ticket of a join) → floor, and `generation`. */
	readonly members: string;
}

export class Keys {
	readonly #prefix: string;
	/** Hash: log of a wildcard filter or share group → generation. */
	readonly routes: string;
	/** Hash: log of an exact filter → generation. */
	readonly exactRoutes: string;
	readonly routeVersion: string;
	/** Stream of the changes of routes: entry ids are `{version}-0`. */
	readonly routeChanges: string;
	/** Hash: topic → message record, and its revision as a double behind it. */
	readonly retained: string;
	/** Sorted set of the topics, in the order of their bytes. */
	readonly retainedIndex: string;
	/** Sorted set: topic → time at which its message expires. */
	readonly retainedExpiry: string;
	/** Number of times that a retained message was set or removed. */
	readonly retainedRevision: string;
	/** Sorted set: replica → time at which its lease lapses. In one group with the deadlines: both are for whoever lives. */
	readonly leases: string;
	/** Newest format that was ever written, 1 without it; and a hash: replica → newest format that it reads. */
	readonly format: string;
	readonly reads: string;
	/** Sorted sets: ticket → time at which somebody has to look. */
	readonly wills: string;
	readonly expiries: string;
	/** Hashes: ticket → until when it is whose to look after. */
	readonly willClaims: string;
	readonly expiryClaims: string;
	/** Number of stored subscriptions. */
	readonly subscriptionCount: string;

	/** @param prefix Before every key: several brokers may use one server. It has no braces. */
	constructor(prefix: string) {
		this.#prefix = prefix;
		this.routes = `${prefix}{route}`;
		this.exactRoutes = `${this.routes}:exact`;
		this.routeVersion = `${this.routes}:version`;
		this.routeChanges = `${this.routes}:changes`;
		this.retained = `${prefix}{ret}`;
		this.retainedIndex = `${this.retained}:index`;
		this.retainedExpiry = `${this.retained}:expiry`;
		this.retainedRevision = `${this.retained}:revision`;
		this.leases = `${prefix}{reps}`;
		this.format = `${this.leases}:format`;
		this.reads = `${this.leases}:reads`;
		this.wills = `${this.leases}:wills`;
		this.willClaims = `${this.wills}:claims`;
		this.expiries = `${this.leases}:expiries`;
		this.expiryClaims = `${this.expiries}:claims`;
		this.subscriptionCount = `${prefix}{time}:subscriptions`;
	}

	session(clientId: string): SessionKeys {
		const meta = `${this.#prefix}{c:${clientId}}`;
		return {
			meta,
			subscriptions: `${meta}:s`,
			reserved: `${meta}:r`,
			wills: `${meta}:w`,
			bound: `${meta}:b`,
			gone: `${meta}:g`,
			kept: `${meta}:k`,
		};
	}

	log(name: string): LogKeys {
		const entries = this.entries(name);
		return { entries, members: `${entries}:m` };
	}

	entries(log: string): string {
		return `${this.#prefix}{l:${log}}`;
	}

	/** Counters of the buckets of exact filters, one byte each. */
	routeCounters(page: number): string {
		return `${this.exactRoutes}:${page}`;
	}

	/** Remembers for a while what a token has appended to a log. */
	appended(log: string, token: string): string {
		return `${this.#prefix}{l:${log}}:t:${token}`;
	}

	/** Remembers for a while that a token has set a retained message. */
	retainedBy(token: string): string {
		return `${this.retained}:t:${token}`;
	}

	/** What operators manage of one kind, in the order in which the scripts take it: hash of records, index, and expiry by key. */
	managed(kind: string): readonly [records: string, index: string, expiry: string] {
		const records = `${this.#prefix}{adm:${kind}}`;
		return [records, `${records}:index`, `${records}:expiry`];
	}

	/** Set of the tickets of the sessions that a replica has. */
	owned(replica: string): string {
		return `${this.#prefix}{own:${replica}}`;
	}
}
