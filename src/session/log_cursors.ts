/** The logs that a session reads, and how far it has come in each: what it has taken, and what may be forgotten. */

import type { Checkpoint, Position } from "../store/store.ts";
import type { Subscription } from "./subscription.ts";

export class LogCursors {
	/** `undefined` until there is one: sessions that end with their connection read no logs. */
	#subscriptions: Map<string, Subscription> | undefined;

	/** Number of logs. */
	get size(): number {
		return this.#subscriptions?.size ?? 0;
	}

	/** The subscription through which a log is read. */
	get(log: string): Subscription | undefined {
		return this.#subscriptions?.get(log);
	}

	/** Whether a log is read through this very subscription, rather than one that replaced it or is yet to be granted. */
	reads(subscription: Subscription): boolean {
		return this.#subscriptions?.get(subscription.options.filter) === subscription;
	}

	/** Reads the log of a subscription from its cursor on; one that it replaces has come as far as it has. */
	add(subscription: Subscription): void {
		const old = this.#subscriptions?.get(subscription.options.filter);
		if (old !== undefined) {
			subscription.cursor = Math.max(subscription.cursor, old.cursor);
			subscription.floor = Math.max(subscription.floor, old.floor);
			subscription.moved = true;
		}
		this.#subscriptions ??= new Map();
		this.#subscriptions.set(subscription.options.filter, subscription);
	}

	delete(log: string): void {
		this.#subscriptions?.delete(log);
	}

	/** Where to read on. Logs whose retained messages are not out yet are left alone. */
	positions(): readonly Position[] {
		const positions: Position[] = [];
		for (const [log, subscription] of this.#subscriptions ?? []) {
			if (subscription.held === undefined) positions.push({ log, after: subscription.cursor });
		}
		return positions;
	}

	/** Positions that have changed since the last call. */
	takeMoved(): Checkpoint["cursors"] {
		const cursors: { log: string; cursor: number; floor: number }[] = [];
		for (const [log, subscription] of this.#subscriptions ?? []) {
			if (!subscription.moved) continue;
			subscription.moved = false;
			cursors.push({ log, cursor: subscription.cursor, floor: subscription.floor });
		}
		return cursors;
	}

	/** An entry was taken. */
	pass(subscription: Subscription, seq: number): void {
		if (subscription.cursor === subscription.floor) subscription.floor = seq;
		subscription.cursor = seq;
		subscription.moved = true;
	}

	/** An entry is in flight: its log may not be trimmed beyond it. */
	hold(log: string, seq: number): void {
		const subscription = this.#subscriptions?.get(log);
		if (subscription !== undefined && subscription.floor >= seq) subscription.floor = seq - 1;
	}

	/**
	 * An entry is not in flight any more.
	 * @param lowest The lowest entry of the log that still is; asked only when it matters.
	 */
	settle(log: string, seq: number, lowest: () => number | undefined): void {
		const subscription = this.#subscriptions?.get(log);
		if (subscription === undefined || seq !== subscription.floor + 1) return;
		const next = lowest();
		subscription.floor = next === undefined ? subscription.cursor : next - 1;
		subscription.moved = true;
	}
}
