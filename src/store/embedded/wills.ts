/**
 * Wills, from CONNECT until their publication is stored. Knows when each is due, and nothing of sessions. A will is armed
 * while its connection lives, then pending until its deadline, then due until a publication settles it.
 */

import type { StatementSync } from "node:sqlite";
import { decodeMessage, encodeMessage } from "../message_record.ts";
import type { DueWill, OpenSession } from "../store.ts";
import type { Context } from "./context.ts";
import { Query } from "./database.ts";

export class Wills {
	readonly #context: Context;
	readonly #insert: StatementSync;
	readonly #delete: StatementSync;
	readonly #setDue: StatementSync;
	readonly #setDueAfterDelay: StatementSync;
	readonly #recover: StatementSync;
	readonly #ofClient: Query<[id: number, delaySeconds: number, dueAt: number | null]>;
	readonly #exists: Query<[id: number]>;
	readonly #due: Query<[id: number, client: string, expirySeconds: number | null, message: Uint8Array]>;

	constructor(context: Context) {
		const { db } = context;
		this.#context = context;
		this.#insert = db.prepare("INSERT INTO will (id, client, delay_seconds, message_expiry_seconds, message) VALUES (?, ?, ?, ?, ?)");
		this.#delete = db.prepare("DELETE FROM will WHERE id = ?");
		this.#setDue = db.prepare("UPDATE will SET due_at = ? WHERE id = ?");
		this.#setDueAfterDelay = db.prepare("UPDATE will SET due_at = min(? + 1000 * delay_seconds, ?) WHERE id = ?");
		// A client without a stored session had one that ended with its connection, and its will is due with that.
		this.#recover = db.prepare(
			`UPDATE will SET due_at = ?1 + 1000 * min(delay_seconds, coalesce((SELECT expiry_seconds FROM session WHERE session.client = will.client), 0))
			WHERE due_at IS NULL`,
		);
		this.#ofClient = new Query(db, "SELECT id, delay_seconds, due_at FROM will WHERE client = ?");
		this.#exists = new Query(db, "SELECT id FROM will WHERE id = ?");
		this.#due = new Query(db, "SELECT id, client, message_expiry_seconds, message FROM will WHERE due_at <= ? ORDER BY due_at, id LIMIT ?");
	}

	/** Makes pending what was armed when the process ended. Before the sessions of that time are touched. In an open group. */
	recover(nowMs: number): void {
		this.#recover.run(nowMs);
	}

	/** The will of a new connection; returns its id. In an open group. */
	arm(clientId: string, will: NonNullable<OpenSession["will"]>): number {
		const id = this.#context.ids.next();
		this.#insert.run(id, clientId, will.delaySeconds, will.expirySeconds ?? null, encodeMessage(will.message));
		return id;
	}

	/** The connection ended without DISCONNECT 0x00. In an open group. */
	fire(id: number, nowMs: number, sessionEndMs: number): void {
		this.#setDueAfterDelay.run(nowMs, sessionEndMs, id); // [MQTT-3.1.2-8]
	}

	/** Whether a will is still there. */
	has(id: number): boolean {
		return this.#exists.get(id) !== undefined;
	}

	/** Removes a will. False when it is gone already. In an open group. */
	remove(id: number): boolean {
		return Number(this.#delete.run(id).changes) > 0;
	}

	/**
	 * A new connection of the client is there: what becomes of earlier wills. Begins a group if there is something to do.
	 * @param session What it found: a session that goes on, one that ends with it, or none.
	 */
	connected(clientId: string, session: "resumed" | "ended" | "none", nowMs: number): void {
		for (const [id, delaySeconds, dueAt] of this.#ofClient.all(clientId)) {
			if (dueAt !== null && dueAt <= nowMs) continue;
			this.#context.group.begin();
			const inTime = session === "resumed" && (dueAt !== null || delaySeconds > 0);
			// Besides its delay a will waits only for a client that was sent away, and which is back in time now (P7).
			const back = dueAt !== null && (session === "none" || delaySeconds === 0);
			// [MQTT-3.1.3-9] [MQTT-3.1.2-8]
			if (inTime || back) this.#delete.run(id);
			else this.#setDue.run(nowMs, id);
		}
	}

	due(nowMs: number, limit: number): DueWill[] {
		return this.#due.all(nowMs, limit).map(([id, clientId, expirySeconds, record]) => {
			const message = decodeMessage(record);
			return {
				id: String(id),
				clientId,
				message: expirySeconds === null ? message : { ...message, expiresAtMs: nowMs + expirySeconds * 1000 },
			};
		});
	}
}
