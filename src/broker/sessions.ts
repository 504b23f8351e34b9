/**
 * Which connection has which client id, and the opening and closing of sessions in the store. One live connection per
 * client id (P6): a newer one ends the older one before it opens the session.
 */

import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { Message } from "../mqtt/message.ts";
import { ABSENT, type WillFields } from "../mqtt/packet.ts";
import type { Checkpoint, OpenedSession, OpenSession, SessionRef, Store } from "../store/store.ts";
import { StoreError } from "../store/store.ts";

/** A connection as the registry sees it. */
export interface SessionOwner {
	readonly clientId: string;
	/** Another connection takes the session over: end, and leave the session alone. */
	takeOver(): void;
}

export interface OpenRequest {
	readonly clientId: string;
	readonly cleanStart: boolean;
	readonly sessionExpirySeconds: number;
	readonly will: WillFields | undefined;
}

export interface CloseRequest {
	readonly sessionExpirySeconds: number | undefined;
	readonly will: "discard" | "keep";
	/** Last progress to store. */
	readonly checkpoint: Checkpoint | undefined;
	/** Added to all deadlines, so that clients of a server that restarts can come back first (P7). */
	readonly graceMs: number;
}

export class Sessions {
	readonly #store: Store;
	readonly #clock: Clock;
	readonly #log: Logger;
	readonly #owners = new Map<string, SessionOwner>();
	/** A will may be due: called after a session was closed or replaced. */
	readonly #onWill: () => void;

	constructor(store: Store, clock: Clock, log: Logger, onWill: () => void) {
		this.#store = store;
		this.#clock = clock;
		this.#log = log;
		this.#onWill = onWill;
	}

	/** Number of client ids that are connected. */
	get size(): number {
		return this.#owners.size;
	}

	owner(clientId: string): SessionOwner | undefined {
		return this.#owners.get(clientId);
	}

	/** Ends an older connection with this client id, takes its place and opens the session. */
	async open(owner: SessionOwner, request: OpenRequest): Promise<OpenedSession> {
		const older = this.#owners.get(request.clientId);
		this.#owners.set(request.clientId, owner);
		// In this order: what the older connection stores last has to be there when the session is read.
		older?.takeOver();
		const nowMs = this.#clock.nowMs();
		const opened = await this.#store.openSession({ ...request, will: storedWill(request), nowMs });
		if (older !== undefined) this.#onWill();
		return opened;
	}

	/** The connection is over. Does nothing to a session that has moved on. */
	async close(owner: SessionOwner, session: SessionRef, request: CloseRequest): Promise<void> {
		this.leave(owner);
		try {
			const { checkpoint, sessionExpirySeconds, will } = request;
			const stored = checkpoint === undefined ? undefined : this.#store.checkpoint(session, checkpoint);
			const nowMs = this.#clock.nowMs() + request.graceMs;
			const closed = this.#store.closeSession(session, { nowMs, sessionExpirySeconds, will });
			await Promise.all([stored, closed]);
		} catch (error) {
			if (error instanceof StoreError && error.code === "fenced") return;
			this.#log.error("The session could not be closed", { clientId: session.clientId, error });
		}
		if (request.will === "keep") this.#onWill();
	}

	/** Frees the client id, if it is still this connection's. */
	leave(owner: SessionOwner): void {
		if (this.#owners.get(owner.clientId) === owner) this.#owners.delete(owner.clientId);
	}
}

/** The will as the store keeps it; its Message Expiry Interval begins when it is published. */
function storedWill(request: OpenRequest): OpenSession["will"] {
	const { will } = request;
	if (will === undefined) return undefined;
	const message: Message = {
		topic: will.topic,
		payload: will.payload,
		qos: will.qos,
		retain: will.retain,
		forwarded: will.forwarded,
		expiresAtMs: Number.POSITIVE_INFINITY,
		publisher: request.clientId,
	};
	return { message, delaySeconds: will.delaySeconds, expirySeconds: will.expirySeconds === ABSENT ? undefined : will.expirySeconds };
}
