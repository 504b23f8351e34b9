/** Gathers what one event-loop turn sends to each replica into parcels. Knows how large they may be, and not how they travel. */

import { writeHead } from "../envelope.ts";
import type { ReplicaId } from "../router.ts";
import { type Context, TurnEnd } from "./context.ts";

/** A parcel leaves before the end of the turn when it has so much. */
const MAX_BYTES = 65_536;
const MAX_ENVELOPES = 256;

/** What is to be sent to one replica. */
export class Parcel {
	readonly envelopes: Buffer[] = [];
	bytes = 0;
	/** Those of the envelopes that nobody repeats: what they are about → envelope. */
	notices: Map<string, Buffer> | undefined;
	#sent: PromiseWithResolvers<void> | undefined;

	/** Settled by `settle`. */
	get sent(): Promise<void> {
		this.#sent ??= Promise.withResolvers();
		return this.#sent.promise;
	}

	settle(outcome: Promise<unknown>): void {
		const { resolve, reject } = this.#sent ?? {};
		outcome.then(() => resolve?.(), reject ?? (() => {}));
	}
}

export class Parcels {
	readonly #context: Context;
	readonly #send: (replica: ReplicaId, parcel: Parcel, bytes: Buffer) => void;
	readonly #open = new Map<ReplicaId, Parcel>();
	readonly #turn = new TurnEnd(() => {
		for (const [replica, parcel] of this.#open) this.#close(replica, parcel);
	});
	#number = 0;

	constructor(context: Context, send: (replica: ReplicaId, parcel: Parcel, bytes: Buffer) => void) {
		this.#context = context;
		this.#send = send;
	}

	/** The parcel that the next envelope for a replica goes into. */
	open(replica: ReplicaId): Parcel {
		let parcel = this.#open.get(replica);
		if (parcel === undefined) {
			parcel = new Parcel();
			this.#open.set(replica, parcel);
			this.#turn.schedule();
		}
		return parcel;
	}

	add(replica: ReplicaId, parcel: Parcel, envelope: Buffer): void {
		parcel.envelopes.push(envelope);
		parcel.bytes += envelope.length;
		if (parcel.bytes >= MAX_BYTES || parcel.envelopes.length >= MAX_ENVELOPES) this.#close(replica, parcel);
	}

	#close(replica: ReplicaId, parcel: Parcel): void {
		this.#open.delete(replica);
		const { process, format } = this.#context;
		this.#send(replica, parcel, Buffer.concat([writeHead(process, ++this.#number, format.writes), ...parcel.envelopes]));
	}
}
