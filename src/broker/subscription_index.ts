/**
 * Which filters match a topic, and who stands behind each: a trie by topic level, with a cache of its answers.
 * Knows nothing of QoS, rights or delivery.
 */

import type { ReplicaId } from "../router/router.ts";
import type { Subscription } from "../session/subscription.ts";
import type { ShareGroup } from "./share_group.ts";

/** Whoever receives messages of a subscription directly: a connection, or a subscriber within the process. */
export interface Subscriber<Receiver> {
	readonly receiver: Receiver;
	readonly subscription: Subscription;
}

/** All that stands behind one filter. The same object for as long as anything does. */
export class FilterEntry<Receiver> {
	readonly filter: string;
	/** Subscribers that are connected here, in no particular order. Not those of share groups. */
	readonly subscribers: Subscriber<Receiver>[] = [];
	/** `undefined` until there is one. */
	groups: ShareGroup[] | undefined;
	/** Whether the store has a log for this filter. Of exact filters it is asked instead. */
	logged = false;
	/** Other replicas with subscribers behind this filter; `undefined` while there are none. Of exact filters the router is asked. */
	replicas: Set<ReplicaId> | undefined;

	constructor(filter: string) {
		this.filter = filter;
	}

	get empty(): boolean {
		return !this.logged && this.subscribers.length === 0 && this.groups === undefined && this.replicas === undefined;
	}
}

interface Node<Receiver> {
	/** Most nodes are leaves, and have none. */
	children: Map<string, Node<Receiver>> | undefined;
	entry: FilterEntry<Receiver> | undefined;
}

/** Answers kept at the most. Topics are the publishers' to invent, so the cache is emptied when it is full. */
const MAX_CACHED = 16_384;

export class SubscriptionIndex<Receiver> {
	readonly #root: Node<Receiver> = { children: undefined, entry: undefined };
	readonly #cache = new Map<string, readonly FilterEntry<Receiver>[]>();
	#size = 0;

	/** Number of filters. */
	get size(): number {
		return this.#size;
	}

	/** The entry of a filter (without `$share`), made if there is none. */
	ensure(filter: string): FilterEntry<Receiver> {
		let node = this.#root;
		for (const level of filter.split("/")) {
			node.children ??= new Map();
			let child = node.children.get(level);
			if (child === undefined) {
				child = { children: undefined, entry: undefined };
				node.children.set(level, child);
			}
			node = child;
		}
		if (node.entry === undefined) {
			node.entry = new FilterEntry(filter);
			this.#size++;
			this.#forget(filter);
		}
		return node.entry;
	}

	find(filter: string): FilterEntry<Receiver> | undefined {
		let node: Node<Receiver> | undefined = this.#root;
		for (const level of filter.split("/")) {
			node = node.children?.get(level);
			if (node === undefined) return undefined;
		}
		return node.entry;
	}

	add(receiver: Receiver, subscription: Subscription): void {
		const { subscribers } = this.ensure(subscription.matchFilter);
		subscription.slot = subscribers.length;
		subscribers.push({ receiver, subscription });
	}

	/** Removes what `add` added. False when it was removed before. */
	remove(subscription: Subscription): boolean {
		const entry = this.find(subscription.matchFilter);
		if (entry?.subscribers[subscription.slot]?.subscription !== subscription) return false;
		const last = entry.subscribers.pop() as Subscriber<Receiver>;
		if (last.subscription !== subscription) {
			entry.subscribers[subscription.slot] = last;
			last.subscription.slot = subscription.slot;
		}
		this.prune(entry);
		return true;
	}

	/** Drops an entry that has nothing behind it any more. */
	prune(entry: FilterEntry<Receiver>): void {
		if (!entry.empty) return;
		const path: Node<Receiver>[] = [this.#root];
		const levels = entry.filter.split("/");
		for (const level of levels) {
			const child = path[path.length - 1]?.children?.get(level);
			if (child === undefined) return;
			path.push(child);
		}
		const leaf = path[levels.length] as Node<Receiver>;
		if (leaf.entry !== entry) return;
		leaf.entry = undefined;
		this.#size--;
		this.#forget(entry.filter);
		for (let i = levels.length; i > 0; i--) {
			const node = path[i] as Node<Receiver>;
			if (node.entry !== undefined || (node.children?.size ?? 0) > 0) break;
			path[i - 1]?.children?.delete(levels[i - 1] as string);
		}
	}

	/** Entries whose filter matches a topic name. The list is the index's own: read it before anything is added or removed. */
	match(topic: string): readonly FilterEntry<Receiver>[] {
		const cached = this.#cache.get(topic);
		if (cached !== undefined) return cached;
		const found: FilterEntry<Receiver>[] = [];
		this.#walk(this.#root, topic.split("/"), 0, topic.startsWith("$"), found);
		if (this.#cache.size >= MAX_CACHED) this.#cache.clear();
		this.#cache.set(topic, found);
		return found;
	}

	#walk(node: Node<Receiver>, levels: readonly string[], depth: number, hidden: boolean, found: FilterEntry<Receiver>[]): void {
		// A wildcard in the first level does not match a topic that begins with $ [MQTT-4.7.2-1].
		const wildcards = depth > 0 || !hidden;
		if (wildcards) {
			const rest = node.children?.get("#")?.entry;
			if (rest !== undefined) found.push(rest);
		}
		if (depth === levels.length) {
			if (node.entry !== undefined) found.push(node.entry);
			return;
		}
		const child = node.children?.get(levels[depth] as string);
		if (child !== undefined) this.#walk(child, levels, depth + 1, hidden, found);
		const plus = wildcards ? node.children?.get("+") : undefined;
		if (plus !== undefined) this.#walk(plus, levels, depth + 1, hidden, found);
	}

	/** A filter came or went: only the topic of that name is concerned, or, with a wildcard, any. */
	#forget(filter: string): void {
		if (filter.includes("#") || filter.includes("+")) this.#cache.clear();
		else this.#cache.delete(filter);
	}
}
