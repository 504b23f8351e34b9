/**
 * The space of a tenant: what its clients call `a/b` is `$tenant/{tenant}/a/b` to everything that matches, stores and routes,
 * and client ids likewise. The mapping both ways, and who may name what. Decides nothing about rights: those are about the
 * names that clients use, and a name is mapped after the decision.
 */

import { ReasonCode } from "./reason_code.ts";
import { MAX_BYTES, parseShare, TENANTS, type Topic, type TopicTable } from "./topic.ts";
import { encodeText } from "./utf8.ts";

/** Where a topic's name in the broker is put together to be looked up. */
const scratch = new Uint8Array(MAX_BYTES);

/** The space of one tenant, as one connection uses it. */
export class Tenancy {
	readonly #prefix: string;
	readonly #prefixBytes: Uint8Array;
	readonly #topics: TopicTable;
	/** Most clients publish to one topic. */
	#last: Topic | undefined;
	#lastMounted: Topic | undefined;

	/** @param tenant One level of a topic, without wildcards and not empty: the caller has checked that. */
	constructor(tenant: string, topics: TopicTable) {
		this.#prefix = `${TENANTS}${tenant}/`;
		this.#prefixBytes = encodeText(this.#prefix);
		this.#topics = topics;
	}

	/** The topic in the broker; `undefined` when its name is too long there [MQTT-4.7.3-3]. */
	topic(topic: Topic): Topic | undefined {
		if (topic === this.#last) return this.#lastMounted;
		const start = this.#prefixBytes.length;
		const end = start + topic.bytes.length;
		if (end > MAX_BYTES) return undefined;
		scratch.set(this.#prefixBytes);
		scratch.set(topic.bytes, start);
		this.#last = topic;
		this.#lastMounted = this.#topics.intern(scratch, 0, end);
		return this.#lastMounted;
	}

	/** The filter in the broker; a share group is the tenant's. `undefined` when it is too long there. */
	filter(filter: string): string | undefined {
		const share = parseShare(filter);
		return fitting(share === undefined ? this.#prefix + filter : `$share/${share.shareName}/${this.#prefix}${share.filter}`);
	}

	/** The client id in the broker; `undefined` when it is too long there. */
	clientId(clientId: string): string | undefined {
		return fitting(this.#prefix + clientId);
	}

	/** What the tenant's clients call a filter (without `$share/…/`) of the broker; `undefined` when it is not in this space. */
	seen(filter: string): string | undefined {
		return filter.startsWith(this.#prefix) ? filter.slice(this.#prefix.length) : undefined;
	}
}

/** Whether a name that a client gives would be in the space of tenants, where none may name anything itself. */
export function isReserved(name: string): boolean {
	return name.startsWith(TENANTS);
}

/** The client id in the broker of a client id of a tenant, or of none. */
export function clientIdOf(tenant: string | undefined, clientId: string): string {
	return tenant === undefined ? clientId : `${TENANTS}${tenant}/${clientId}`;
}

/**
 * Why a client may not subscribe to a valid filter whatever its rights, or `success`. Topics that begin with $ are the
 * server's: to tenants it says nothing of itself, and to others nothing of tenants.
 */
export function filterRefusal(filter: string, tenancy: Tenancy | undefined): ReasonCode {
	const plain = parseShare(filter)?.filter ?? filter;
	if (tenancy === undefined) return isReserved(plain) ? ReasonCode.notAuthorized : ReasonCode.success;
	if (plain.startsWith("$")) return ReasonCode.notAuthorized;
	return tenancy.filter(filter) === undefined ? ReasonCode.topicFilterInvalid : ReasonCode.success;
}

function fitting(name: string): string | undefined {
	return name.length > MAX_BYTES / 3 && encodeText(name).length > MAX_BYTES ? undefined : name;
}
