/** One connection's session in the store: opened, read, moved on and closed by the effects of its channel. */

import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Channel } from "../session/channel.ts";
import type { Effect, Input } from "../session/effects.ts";
import { type OpenedSession, type SessionRef, StoreError } from "../store/store.ts";
import type { Checkpointed } from "./checkpoints.ts";
import type { ClientRights } from "./client_rights.ts";
import type { ConnectionContext } from "./context.ts";
import type { SessionOwner } from "./sessions.ts";
import { isAway, untilBack } from "./until_back.ts";

type EffectOf<Kind extends Effect["kind"]> = Extract<Effect, { kind: Kind }>;

export class SessionLink implements Checkpointed {
	/** Settles when the end of the connection is stored; `undefined` before it has ended. */
	closed: Promise<void> | undefined;
	readonly #context: ConnectionContext;
	readonly #channel: Channel;
	readonly #owner: SessionOwner & { readonly rights: ClientRights };
	readonly #handle: (input: Input) => void;
	#ref: SessionRef | undefined;
	/** The connection ended before the store had opened the session. */
	#closeOnceOpen: EffectOf<"closeSession"> | undefined;
	#over = false;
	/** Shared entries that are to be bound to this session together with the checkpoint that has them in flight. */
	#toBind: { readonly log: string; readonly seq: number }[] = [];
	/**
	 * A checkpoint is being stored. The next one waits: one that is repeated while the store is away must not come behind it, nor
	 * `recorded` before what an earlier one is to store.
	 */
	#storing = false;
	#storeAgain = false;

	constructor(
		context: ConnectionContext,
		channel: Channel,
		owner: SessionOwner & { readonly rights: ClientRights },
		handle: (input: Input) => void,
	) {
		this.#context = context;
		this.#channel = channel;
		this.#owner = owner;
		this.#handle = handle;
	}

	/** Epoch of the session; `undefined` until it is open. */
	get epoch(): string | undefined {
		return this.#ref?.epoch;
	}

	/** The session, once it is open. */
	get ref(): SessionRef {
		if (this.#ref === undefined) throw new TypeError("the session is not open yet");
		return this.#ref;
	}

	/** Opens the session; `opened` or `openFailed` follows. */
	open(effect: EffectOf<"openSession">): void {
		this.#context.sessions.open(this.#owner, effect).then(
			(opened) => {
				this.#ref = { clientId: effect.clientId, epoch: opened.epoch };
				if (this.#closeOnceOpen !== undefined) this.close(this.#closeOnceOpen);
				else if (!this.#over) this.#resume(opened);
			},
			(error) => {
				const notOwner = error instanceof StoreError && error.code === "notOwner";
				if (!notOwner && !isAway(error)) {
					this.#context.log.error("The session could not be opened", { clientId: effect.clientId, error });
				}
				const reasonCode = notOwner ? ReasonCode.clientIdentifierNotValid : ReasonCode.serverUnavailable;
				this.#handle({ kind: "openFailed", reasonCode });
			},
		);
	}

	/** What the client may not have any more is gone before anything of it is sent (P12). */
	#resume(opened: OpenedSession): void {
		const { subscriptions } = opened;
		const judged = this.#owner.rights.stillPermitted(subscriptions);
		if (judged === subscriptions) {
			this.#handle({ kind: "opened", session: opened });
			return;
		}
		const resume = async (): Promise<OpenedSession> => {
			const left = await judged;
			if (left.length === subscriptions.length) return opened;
			const lost = new Set(subscriptions.filter((one) => !left.includes(one)).map(({ filter }) => filter));
			const { ref } = this;
			await untilBack(() => this.#context.store.unsubscribe(ref, [...lost]), this.#wanted);
			const inflight = opened.inflight.filter(({ log, state }) => state === "received" || !lost.has(log));
			return { ...opened, subscriptions: left, inflight };
		};
		resume().then(
			(session) => {
				if (this.#closeOnceOpen !== undefined) this.close(this.#closeOnceOpen);
				else if (!this.#over) this.#handle({ kind: "opened", session });
			},
			(error) => this.failed(error),
		);
	}

	/** Ends the session's connection, with its last progress. */
	close(effect: EffectOf<"closeSession">): void {
		if (this.#ref === undefined) {
			this.#closeOnceOpen = effect;
			return;
		}
		this.leave();
		const { sessions, closeGraceMs } = this.#context;
		const will = this.#channel.hasWill ? effect.will : "discard";
		this.closed = sessions.close(this.#owner, this.#ref, {
			sessionExpirySeconds: effect.sessionExpirySeconds,
			will,
			checkpoint: this.#channel.persistent ? this.#channel.takeCheckpoint()?.checkpoint : undefined,
			graceMs: closeGraceMs(effect.sentAway),
		});
	}

	/** Another connection takes the session over, with the progress of this one. */
	handOver(): void {
		const taken = this.#ref === undefined || this.#over || !this.#channel.persistent ? undefined : this.#channel.takeCheckpoint();
		if (this.#ref !== undefined && taken !== undefined) {
			this.#context.store.checkpoint(this.#ref, taken.checkpoint).catch((error) => this.#ignoreFenced(error));
		}
		this.leave();
	}

	/** Nothing of the session is touched any more. */
	leave(): void {
		this.#over = true;
		this.#context.checkpoints.delete(this);
		this.#context.sessions.leave(this.#owner);
	}

	checkpoint(): void {
		if (this.#ref === undefined || this.#over) return;
		if (this.#storing) {
			this.#storeAgain = true;
			return;
		}
		const taken = this.#channel.takeCheckpoint();
		if (taken === undefined) return;
		const { store } = this.#context;
		const ref = this.#ref;
		const bound = this.#toBind;
		this.#toBind = [];
		const storeTaken = (): Promise<unknown> => {
			const pending = bound.map(({ log, seq }) => store.bindShared(log, seq, ref));
			// A session that ends with its connection keeps nothing but what is bound to it, so that nobody else gets it.
			if (this.#channel.persistent) pending.push(store.checkpoint(ref, taken.checkpoint));
			return Promise.all(pending);
		};
		this.#storing = true;
		untilBack(storeTaken, this.#wanted).then(
			() => {
				this.#storing = false;
				this.#handle({ kind: "recorded", serial: taken.serial });
				if (!this.#storeAgain) return;
				this.#storeAgain = false;
				this.checkpoint();
			},
			(error) => this.failed(error),
		);
	}

	/** Reads the logs behind the cursors; `fetched` follows. */
	fetch(limit: number): void {
		const read = () => this.#context.store.read(this.#channel.positions(), limit);
		untilBack(read, this.#wanted).then(
			(entries) => this.#handle({ kind: "fetched", entries }),
			(error) => {
				this.#handle({ kind: "fetchFailed" });
				this.failed(error);
			},
		);
	}

	/** Frees an inbound QoS 2 packet id; `released` follows. */
	release(packetId: number): void {
		if (!this.#channel.persistent) {
			this.#handle({ kind: "released", packetId });
			return;
		}
		const { ref } = this;
		untilBack(() => this.#context.store.release(ref, packetId), this.#wanted).then(
			() => this.#handle({ kind: "released", packetId }),
			(error) => this.failed(error),
		);
	}

	settleShared({ log, seq, outcome }: EffectOf<"settleShared">): void {
		if (outcome === "bound") this.#toBind.push({ log, seq });
		else this.#context.routing.group(log)?.settle(seq, outcome);
	}

	/** Whether the session is still this connection's to change. */
	readonly #wanted = (): boolean => !this.#over;

	/** The store has failed this session: without it nothing can be acknowledged, so the connection ends and the client comes back. */
	failed(error: unknown): void {
		if (this.#over) return;
		if (error instanceof StoreError && error.code === "fenced") {
			this.#handle({ kind: "takenOver" });
			return;
		}
		this.#context.log.error("The store failed a client", { clientId: this.#channel.clientId, error });
		const full = error instanceof StoreError && error.code === "full";
		const reasonCode = full ? ReasonCode.quotaExceeded : ReasonCode.implementationSpecificError;
		this.#handle({ kind: "end", reasonCode, reason: "the store cannot take it" });
	}

	/** Who is fenced has lost the session to somebody who knows more of it. */
	#ignoreFenced(error: unknown): void {
		if (isAway(error) || (error instanceof StoreError && error.code === "fenced")) return;
		this.#context.log.error("The last progress of a session was not stored", { clientId: this.#channel.clientId, error });
	}
}
