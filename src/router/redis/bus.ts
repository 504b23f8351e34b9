/**
 * What other replicas may miss: QoS 0 by publish and subscribe. Knows when to drop it, and how to notice that nothing arrives
 * here any more though the connection looks well: it sends itself a word and waits for it.
 */

import type { Message } from "../../mqtt/message.ts";
import type { RedisTarget } from "../../store/redis/connection.ts";
import { Subscriber } from "../../store/redis/subscriber.ts";
import { messageEnvelope, type ParcelReader, readEnvelopes, readHead, testEnvelope } from "../envelope.ts";
import type { Forwarded, ReplicaId } from "../router.ts";
import type { Context } from "./context.ts";
import { type Parcel, Parcels } from "./parcels.ts";

/** Bytes that Redis has not taken yet, beyond which messages are dropped. */
const MAX_UNDER_WAY = 8 * 1024 * 1024;

export interface BusEvents {
	onMessage(forwarded: Forwarded): void;
	/** So many messages were not sent. */
	onDropped(count: number): void;
}

export class Bus implements ParcelReader {
	readonly #context: Context;
	readonly #events: BusEvents;
	readonly #parcels: Parcels;
	#subscriber: Subscriber | undefined;
	#underWay = 0;
	#tests = 0;
	/** The word that has not come back, if it was sent. */
	#expected: string | undefined;
	#complaint = "";

	constructor(context: Context, events: BusEvents) {
		this.#context = context;
		this.#events = events;
		this.#parcels = new Parcels(context, (replica, parcel, bytes) => this.#send(replica, parcel, bytes));
	}

	/** Begins to listen; resolves when messages come. */
	open(target: RedisTarget): Promise<void> {
		return new Promise((resolve) => {
			this.#subscriber = new Subscriber({
				target,
				channel: this.#context.keys.bus(this.#context.replicaId),
				onMessage: (parcel) => this.#open(parcel),
				onReady: () => {
					this.#expected = undefined;
					resolve();
				},
				onError: (error) => this.#context.onError(error),
			});
		});
	}

	close(): void {
		this.#subscriber?.close();
	}

	/** The connection may be lost without a word: use another one. */
	doubt(reason: string): void {
		if (this.#subscriber?.ready === true) this.#subscriber.drop(reason);
	}

	/** See `Router.publish`. */
	publish(replica: ReplicaId, message: Message, groups: readonly string[]): void {
		if (!this.#context.connection.ready || this.#underWay > MAX_UNDER_WAY) {
			this.#events.onDropped(1);
			return;
		}
		const envelope = messageEnvelope(
			{ message, appended: [], groups },
			undefined,
			this.#context.clock.nowMs(),
			this.#context.format.writes,
		);
		// From now on, not from the end of the turn: a turn may bring very many.
		this.#underWay += envelope.length;
		this.#parcels.add(replica, this.#parcels.open(replica), envelope);
	}

	/** Replaces the subscription if the last test has not come back, and begins another one. */
	test(): void {
		if (this.#expected !== undefined) {
			this.#expected = undefined;
			this.doubt("it has gone deaf");
		}
		const { connection, replicaId } = this.#context;
		if (this.#subscriber?.ready !== true || !connection.ready) return;
		const nonce = `${this.#context.process} ${++this.#tests}`;
		const parcel = this.#parcels.open(replicaId);
		const envelope = testEnvelope(nonce);
		this.#underWay += envelope.length;
		this.#expected = nonce;
		parcel.sent.catch(() => {
			if (this.#expected === nonce) this.#expected = undefined;
		});
		this.#parcels.add(replicaId, parcel, envelope);
	}

	onMessage(forwarded: Forwarded): void {
		this.#events.onMessage(forwarded);
	}

	onGroup(): void {}

	onTakeover(): void {}

	onTest(nonce: string): void {
		if (this.#expected === nonce) this.#expected = undefined;
	}

	#send(replica: ReplicaId, parcel: Parcel, bytes: Buffer): void {
		const { connection, keys, replicaId } = this.#context;
		const sent = connection.send("PUBLISH", [keys.bus(replica), bytes]);
		parcel.settle(sent);
		sent.then(
			() => {
				this.#underWay -= parcel.bytes;
			},
			() => {
				this.#underWay -= parcel.bytes;
				if (replica !== replicaId) this.#events.onDropped(parcel.envelopes.length);
			},
		);
	}

	#open(parcel: Buffer): void {
		try {
			readEnvelopes(parcel, readHead(parcel).end, this.#context.clock.nowMs(), this);
		} catch (error) {
			const { message } = error as Error;
			if (message !== this.#complaint) this.#context.onError(error as Error);
			this.#complaint = message;
		}
	}
}
