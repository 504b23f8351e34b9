/** One connection's session in the store: opened, read, moved on and closed by the effects of its channel. */

import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Channel } from "../session/channel.ts";
import type { Effect, Input } from "../session/effects.ts";
import { type SessionRef, StoreError } from "../store/store.ts";
import type { Checkpointed } from "./checkpoints.ts";
import type { ConnectionContext } from "./context.ts";
import type { SessionOwner } from "./sessions.ts";

type EffectOf<Kind extends Effect["kind"]> = Extract<Effect, { kind: Kind }>;

export class SessionLink implements Checkpointed {
	/** Settles when the end of the connection is stored; `undefined` before it has ended. */
	closed: Promise<void> | undefined;
	readonly #context: ConnectionContext;
	readonly #channel: Channel;
	readonly #owner: SessionOwner;
	readonly #handle: (input: Input) => void;
	#ref: SessionRef | undefined;
	/** The connection ended before the store had opened the session. */
	#closeOnceOpen: EffectOf<"closeSession"> | undefined;
	#over = false;
	/** Shared entries that are to be bound to this session together with the checkpoint that has them in flight. */
	#toBind: { readonly log: string; readonly seq: number }[] = [];

	constructor(context: ConnectionContext, channel: Channel, owner: SessionOwner, handle: (input: Input) => void) {
		this.#context = context;
		this.#channel = channel;
		this.#owner = owner;
		this.#handle = handle;
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
				else if (!this.#over) this.#handle({ kind: "opened", session: opened });
			},
			(error) => {
				this.#context.log.error("The session could not be opened", { clientId: effect.clientId, error });
				this.#handle({ kind: "openFailed", reasonCode: ReasonCode.serverUnavailable });
			},
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
			graceMs: closeGraceMs(),
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
		const taken = this.#channel.takeCheckpoint();
		if (taken === undefined) return;
		const { store } = this.#context;
		const ref = this.#ref;
		const pending = this.#toBind.map(({ log, seq }) => store.bindShared(log, seq, ref));
		this.#toBind = [];
		// A session that ends with its connection keeps nothing but what is bound to it, so that nobody else gets it.
		if (this.#channel.persistent) pending.push(store.checkpoint(ref, taken.checkpoint));
		Promise.all(pending).then(
			() => this.#handle({ kind: "recorded", serial: taken.serial }),
			(error) => this.failed(error),
		);
	}

	/** Reads the logs behind the cursors; `fetched` follows. */
	fetch(limit: number): void {
		this.#context.store.read(this.#channel.positions(), limit).then(
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
		this.#context.store.release(this.ref, packetId).then(
			() => this.#handle({ kind: "released", packetId }),
			(error) => this.failed(error),
		);
	}

	settleShared({ log, seq, outcome }: EffectOf<"settleShared">): void {
		if (outcome === "bound") this.#toBind.push({ log, seq });
		else this.#context.routing.group(log)?.settle(seq, outcome);
	}

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
		if (error instanceof StoreError && error.code === "fenced") return;
		this.#context.log.error("The last progress of a session was not stored", { clientId: this.#channel.clientId, error });
	}
}
