/**
 * The names of the router's keys and channels. All routes are in one slot, because they have one version; each inbox has its
 * own. The replica's name is part of the key, so it has no braces.
 */

import type { ReplicaId } from "../router.ts";

/** Keys of one replica's routes. */
export interface RouteKeys {
	/** Hash: wildcard filter or `$share/…` → members. */
	readonly named: string;
	/** Bits: those of the buckets that have an exact filter. */
	readonly exact: string;
}

export class RouterKeys {
	readonly #prefix: string;
	/** Hash: replica → token of its routes, which changes whenever it stores all of them. */
	readonly replicas: string;
	readonly version: string;
	/** Stream of the changes: entry ids are `{version}-0`. */
	readonly changes: string;

	/** @param prefix Before every key: several brokers may use one server. It has no braces. */
	constructor(prefix: string) {
		this.#prefix = prefix;
		this.replicas = `${prefix}{live}`;
		this.version = `${this.replicas}:version`;
		this.changes = `${this.replicas}:changes`;
	}

	routes(replica: ReplicaId): RouteKeys {
		return { named: `${this.replicas}:named:${replica}`, exact: `${this.replicas}:exact:${replica}` };
	}

	/** Where a replica gathers its routes before they count. */
	staged(token: string): RouteKeys {
		return { named: `${this.replicas}:staged:${token}:named`, exact: `${this.replicas}:staged:${token}:exact` };
	}

	/** Stream of what a replica must get: entry ids are `0-{number}`, without gaps. */
	inbox(replica: ReplicaId): string {
		return `${this.#prefix}{in:${replica}}`;
	}

	/** Channel of what a replica may miss. */
	bus(replica: ReplicaId): string {
		return `${this.#prefix}{bus:${replica}}`;
	}
}
