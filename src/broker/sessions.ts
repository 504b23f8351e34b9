/**
 * Which connection has which client id, and the opening and closing of sessions in the store. One live connection per
 * client id (P6): a newer one ends the older one before it opens the session.
 */

import { sessionUser } from "../auth/identity.ts";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { Author, Message } from "../mqtt/message.ts";
import { ABSENT, type WillFields } from "../mqtt/packet.ts";
import type { Checkpoint, OpenedSession, OpenSession, SessionRef, Store } from "../store/store.ts";
import { StoreError } from "../store/store.ts";
import type { ClientRights } from "./client_rights.ts";
import { isAway } from "./until_back.ts";

/** A connected client as operators see it. */
export interface ConnectedClient {
	readonly clientId: string;
	/** Of its principal; empty for an anonymous one. */
	readonly username: string;
	/** How it was authenticated. */
	readonly method: string;
	readonly address: string;
	/** `ws`, `wss`, `tcp` or `tls`. */
	readonly transport: string;
	/** 3, 4 or 5. */
	readonly protocolVersion: number;
	readonly connectedAtMs: number;
}

/** A connection as the registry sees it. */
export interface SessionOwner {
	readonly clientId: string;
	/** Epoch of its session; `undefined` until that is open. */
	readonly epoch: string | undefined;
	/** Of the client that has authenticated. */
	readonly rights: ClientRights;
	/** What operators are told of it. */
	describe(): ConnectedClient;
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
	/** Epochs of the client id that were taken over while the connection did not know its own yet. */
	readonly #takenEarly = new WeakMap<SessionOwner, Set<string>>();
	/** A will may be due: called after a session was closed or replaced. */
	readonly #onWill: () => void;
	/** Sessions that are being opened or closed in the store. */
	readonly #underWay = new Set<Promise<unknown>>();
	/** By the connection that is to have it. */
	readonly #opening = new Map<SessionOwner, Promise<unknown>>();

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

	/** Client ids that are connected, in no order. */
	ids(): string[] {
		return [...this.#owners.keys()];
	}

	owner(clientId: string): SessionOwner | undefined {
		return this.#owners.get(clientId);
	}

	/** Resolves when no session is being opened or closed. */
	async idle(): Promise<void> {
		// Whose connection ended while its session was being opened closes it next.
		while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
	}

	/**
	 * Ends an older connection with this client id, takes its place and opens the session. Rejects with `notOwner` when connection
	 * or session are somebody else's, who does not notice.
	 */
	open(owner: SessionOwner, request: OpenRequest): Promise<OpenedSession> {
		return this.#alongside(this.#open(owner, request));
	}

	async #open(owner: SessionOwner, request: OpenRequest): Promise<OpenedSession> {
		const user = sessionUser(owner.rights.principal);
		let older = this.#owners.get(request.clientId);
		while (older !== undefined && sessionUser(older.rights.principal) !== user) {
			const opening = this.#opening.get(older);
			if (opening === undefined) throw new StoreError("notOwner", `Cannot open the session of "${request.clientId}": somebody else has it`);
			// It may be refused itself: the store knows whose the session is.
			await opening.catch(() => undefined);
			older = this.#owners.get(request.clientId);
		}
		const opened = this.#take(owner, older, user, request);
		this.#opening.set(owner, opened);
		try {
			return await opened;
		} catch (error) {
			// At once: somebody may wait for that.
			this.leave(owner);
			throw error;
		} finally {
			this.#opening.delete(owner);
		}
	}

	async #take(owner: SessionOwner, older: SessionOwner | undefined, user: string, request: OpenRequest): Promise<OpenedSession> {
		this.#owners.set(request.clientId, owner);
		// In this order: what the older connection stores last has to be there when the session is read.
		older?.takeOver();
		const nowMs = this.#clock.nowMs();
		const opened = await this.#store.openSession({ ...request, user, will: storedWill(request, owner.rights.author), nowMs });
		if (older !== undefined) this.#onWill();
		if (this.#takenEarly.get(owner)?.has(opened.epoch)) owner.takeOver();
		return opened;
	}

	/**
	 * Another replica has the session: its connection here ends. The word of it comes on a way of its own, and may overtake
	 * the answer that tells the connection its epoch.
	 */
	takenOver({ clientId, epoch }: SessionRef): void {
		const owner = this.#owners.get(clientId);
		if (owner === undefined) return;
		if (owner.epoch === epoch) owner.takeOver();
		else if (owner.epoch === undefined) {
			const early = this.#takenEarly.get(owner);
			if (early === undefined) this.#takenEarly.set(owner, new Set([epoch]));
			else early.add(epoch);
		}
	}

	/** The connection is over. Does nothing to a session that has moved on. */
	close(owner: SessionOwner, session: SessionRef, request: CloseRequest): Promise<void> {
		return this.#alongside(this.#close(owner, session, request));
	}

	#alongside<T>(call: Promise<T>): Promise<T> {
		this.#underWay.add(call);
		const over = () => this.#underWay.delete(call);
		call.then(over, over);
		return call;
	}

	async #close(owner: SessionOwner, session: SessionRef, request: CloseRequest): Promise<void> {
		this.leave(owner);
		try {
			const { checkpoint, sessionExpirySeconds, will } = request;
			const stored = checkpoint === undefined ? undefined : this.#store.checkpoint(session, checkpoint);
			const nowMs = this.#clock.nowMs() + request.graceMs;
			const closed = this.#store.closeSession(session, { nowMs, sessionExpirySeconds, will });
			await Promise.all([stored, closed]);
		} catch (error) {
			// A store that is away ends it when it is back.
			if (isAway(error) || (error instanceof StoreError && error.code === "fenced")) return;
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
function storedWill(request: OpenRequest, author: Author | undefined): OpenSession["will"] {
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
		...(author !== undefined && { author }),
	};
	return { message, delaySeconds: will.delaySeconds, expirySeconds: will.expirySeconds === ABSENT ? undefined : will.expirySeconds };
}
