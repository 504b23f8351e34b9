/** The sessions that this replica has: what must be known of them to send a call's commands at once. The server has the last word. */

import { type InflightRecord, type SessionRef, StoreError } from "../store.ts";
import type { Ticket } from "./records.ts";

/** A session whose connection is here. */
export interface Owned extends Ticket {
	/** Epoch of the connection that began the session. */
	readonly incarnation: string;
	/** All of it is stored, not only what others depend on. */
	readonly durable: boolean;
	readonly expirySeconds: number;
	/** Delay of its will in seconds; `undefined` without a will. */
	readonly willDelaySeconds: number | undefined;
	/** Stored subscriptions: filter → join, empty for one that reads no log. */
	readonly joins: Map<string, string>;
	/** What the last checkpoint said of deliveries under way, and its serial. */
	inflight: readonly InflightRecord[];
	serial: string;
	/** Publications that are being stored, by the packet id that each one reserves. */
	readonly reserving: Map<number, Promise<unknown>>;
}

export class OwnedSessions {
	readonly #byClient = new Map<string, Owned>();

	/** Throws `StoreError` `fenced` unless the session is this connection's. */
	get(session: SessionRef): Owned {
		const owned = this.#byClient.get(session.clientId);
		if (owned?.epoch === session.epoch) return owned;
		throw new StoreError("fenced", `Cannot change the session of "${session.clientId}": another connection has it, or it was closed`);
	}

	/** An older connection of the client id is not the owner any more. */
	set(owned: Owned): void {
		this.#byClient.set(owned.clientId, owned);
	}

	all(): Owned[] {
		return [...this.#byClient.values()];
	}

	delete(owned: Ticket): void {
		if (this.#byClient.get(owned.clientId)?.epoch === owned.epoch) this.#byClient.delete(owned.clientId);
	}
}
