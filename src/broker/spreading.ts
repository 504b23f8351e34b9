/**
 * Who gets a message where: its receivers on this replica, its logs, and the other replicas that want it. Knows the router
 * and the routing here; when something happens is its callers' affair.
 */

import type { Message } from "../mqtt/message.ts";
import type { ReplicaId, Router } from "../router/router.ts";
import type { Appended, SharedStore } from "../store/store.ts";
import type { Routing } from "./routing.ts";
import type { ShareGroup } from "./share_group.ts";

const NO_GROUPS: readonly string[] = [];

/** Who is to get a message, as far as the routes were known when it was asked. */
export interface Matching {
	/** Whether anybody is. */
	readonly wanted: boolean;
	/** Logs that it belongs in; `undefined` for none. */
	readonly logs: readonly string[] | undefined;
	/** Other replicas, with the share groups that each is to serve; `undefined` for none. */
	readonly replicas: ReadonlyMap<ReplicaId, readonly string[]> | undefined;
	/** Share groups of which a member here was picked. */
	readonly groupsHere: readonly ShareGroup[];
}

export class Spreading {
	readonly #store: SharedStore;
	readonly #router: Router;
	readonly #routing: Routing;

	constructor(store: SharedStore, router: Router, routing: Routing) {
		this.#store = store;
		this.#router = router;
		this.#routing = routing;
	}

	match(message: Message): Matching {
		const { topic, qos } = message;
		const matched = this.#routing.match(topic);
		const logs = qos > 0 ? this.#routing.logsOf(topic, matched) : undefined;
		let replicas: Map<ReplicaId, string[]> | undefined;
		const add = (replica: ReplicaId): string[] => {
			replicas ??= new Map();
			const known = replicas.get(replica);
			if (known !== undefined) return known;
			const groups: string[] = [];
			replicas.set(replica, groups);
			return groups;
		};
		for (const entry of matched) for (const replica of entry.replicas ?? []) add(replica);
		for (const replica of this.#router.exact(topic)) add(replica);
		const groupsHere: ShareGroup[] = [];
		for (const group of this.#routing.unstoredGroups(qos, matched)) {
			const replica = group.pickReplica();
			if (replica === undefined) groupsHere.push(group);
			else add(replica).push(group.name);
		}
		return { wanted: matched.length > 0 || message.retain || logs !== undefined || replicas !== undefined, logs, replicas, groupsHere };
	}

	/** Publishes with QoS 0: nothing waits and nothing is kept. */
	publishQos0(message: Message): Matching {
		const matching = this.match(message);
		this.deliverHere(message, matching);
		for (const [replica, groups] of matching.replicas ?? []) this.#router.publish(replica, message, groups);
		return matching;
	}

	/** Hands it to the receivers here that read it from no log. */
	deliverHere(message: Message, { groupsHere }: Matching): void {
		this.#routing.deliverLive(message, this.#routing.match(message.topic), groupsHere);
	}

	/** Brings it to the other replicas. Resolves when it is stored for them. `message` has its revision. */
	async forward(message: Message, { replicas }: Matching, appended: readonly Appended[], token: string | undefined): Promise<void> {
		if (replicas === undefined) return;
		const plain: ReplicaId[] = [];
		const sent: Promise<void>[] = [];
		for (const [replica, groups] of replicas) {
			if (groups.length === 0) plain.push(replica);
			else sent.push(this.#router.forward([replica], { message, appended, groups }, token));
		}
		if (plain.length > 0) sent.push(this.#router.forward(plain, { message, appended, groups: NO_GROUPS }, token));
		await Promise.all(sent);
	}

	/** It is in these logs: readers here go on, and so do members of share groups, here and elsewhere. */
	appended(message: Message, appended: readonly Appended[]): void {
		if (appended.length === 0) return;
		for (const { log } of appended) this.#ringGroup(log);
		this.#routing.deliverAppended(message, appended);
	}

	/** Brings a message to whoever matches by now and did not before. */
	async reachLateComers(message: Message, before: Matching): Promise<void> {
		const now = this.match(message);
		const replicas = new Map(
			[...(now.replicas ?? [])].filter(([replica]) => !before.replicas?.has(replica)).map(([id]) => [id, NO_GROUPS]),
		);
		const logs = (now.logs ?? []).filter((log) => !before.logs?.includes(log));
		let appended: readonly Appended[] = [];
		if (logs.length > 0) {
			const request = { message, logs, retain: false, reserve: undefined, willId: undefined, name: undefined, forward: undefined };
			({ appended } = await this.#store.publish(request));
			this.appended(message, appended);
			// Those who have the message need only know of the logs: a second copy would be handed out again.
			for (const { log } of appended) this.#router.ring(before.replicas?.keys() ?? [], log);
		}
		if (message.qos > 0) await this.forward(message, { ...now, replicas }, appended, undefined);
		else for (const replica of replicas.keys()) this.#router.publish(replica, message, NO_GROUPS);
	}

	#ringGroup(log: string): void {
		const group = this.#routing.group(log);
		if (group !== undefined) this.#router.ring(group.replicas, log);
	}
}
