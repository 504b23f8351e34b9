/**
 * One share group: the members that are connected here take turns, and are one of possibly many replicas with members.
 * QoS 0 goes to one member of them all or nowhere; QoS ≥ 1 waits in the group's log, from which each replica takes as much
 * as its members have room for. So a slow member holds up nothing but its own window, and what a member leaves unfinished
 * goes to another (P9).
 */

import type { Message } from "../mqtt/message.ts";
import type { ReplicaId } from "../router/router.ts";
import { effectiveQos } from "../session/effects.ts";
import { type LogEntry, type Store, StoreError } from "../store/store.ts";
import type { Publication } from "./publication.ts";
import type { Receiver } from "./receiver.ts";
import type { Subscriber } from "./subscription_index.ts";
import type { Turn, TurnTask } from "./turn.ts";

/** Entries taken from the log at a time, at most. */
const TAKE_LIMIT = 128;

/** What a group needs of its surroundings. */
export interface ShareGroupContext {
	readonly store: Store;
	readonly turn: Turn;
	publicationOf(message: Message): Publication;
	/** A message was lost to nobody's benefit. */
	dropped(reason: "expired" | "noMemberOnline"): void;
	failed(what: string, error: unknown): void;
	/** Entries are free again: members here, or elsewhere, may take them. */
	returned(group: ShareGroup): void;
	nowMs(): number;
}

export class ShareGroup implements TurnTask {
	inTurn = false;
	/** Name of the log: `$share/{name}/{filter}`. */
	readonly name: string;
	readonly filter: string;
	readonly #context: ShareGroupContext;
	readonly #members: Subscriber<Receiver>[] = [];
	#next = 0;
	/** Whether the store has a log for the group, because a member was granted QoS ≥ 1. */
	stored = false;
	#pumping = false;
	#pumpAgain = false;
	#settled: number[] = [];
	#returned: number[] = [];
	/** Members on other replicas; `undefined` while there are none. */
	#elsewhere: Map<ReplicaId, number> | undefined;

	constructor(name: string, filter: string, context: ShareGroupContext) {
		this.name = name;
		this.filter = filter;
		this.#context = context;
	}

	get empty(): boolean {
		return this.#members.length === 0 && !this.stored && this.#elsewhere === undefined;
	}

	/** Other replicas with members. */
	get replicas(): Iterable<ReplicaId> {
		return this.#elsewhere?.keys() ?? [];
	}

	/** Another replica has so many members. */
	setElsewhere(replica: ReplicaId, members: number): void {
		if (members > 0) {
			this.#elsewhere ??= new Map();
			this.#elsewhere.set(replica, members);
			return;
		}
		this.#elsewhere?.delete(replica);
		if (this.#elsewhere?.size === 0) this.#elsewhere = undefined;
	}

	/** Answers whether the receiver was no member before. */
	join(member: Subscriber<Receiver>): boolean {
		const place = this.#members.findIndex((other) => other.receiver === member.receiver);
		if (place >= 0) this.#members[place] = member;
		else this.#members.push(member);
		this.pump();
		return place < 0;
	}

	/** Answers whether the receiver was a member. */
	leave(receiver: Receiver): boolean {
		const place = this.#members.findIndex((member) => member.receiver === receiver);
		if (place >= 0) this.#members.splice(place, 1);
		return place >= 0;
	}

	/** Which replica serves the next message with QoS 0, by the number of its members; `undefined` for this one. */
	pickReplica(): ReplicaId | undefined {
		if (this.#elsewhere === undefined) return undefined;
		let total = this.#members.length;
		for (const members of this.#elsewhere.values()) total += members;
		let place = Math.random() * total - this.#members.length;
		if (place < 0) return undefined;
		for (const [replica, members] of this.#elsewhere) {
			place -= members;
			if (place < 0) return replica;
		}
		return undefined;
	}

	/** Hands a message to one member with QoS 0. */
	deliverQos0(publication: Publication): void {
		const member = this.#pick((receiver) => !receiver.congested) ?? this.#pick(() => true);
		if (member === undefined) this.#context.dropped("noMemberOnline");
		else this.#sendQos0(member, publication);
	}

	/** A member has finished with an entry, or gives it back. Told to the store once per turn. */
	settle(seq: number, outcome: "settled" | "returned"): void {
		(outcome === "settled" ? this.#settled : this.#returned).push(seq);
		this.#context.turn.add(this);
	}

	endTurn(): void {
		const { store } = this.#context;
		const settled = this.#settled;
		const returned = this.#returned;
		this.#settled = [];
		this.#returned = [];
		// A store that is away finds out by itself what came of these: an entry that it still has is delivered again.
		if (settled.length > 0) {
			store.settleShared(this.name, settled).catch((error) => this.#failed("settling a shared message", error));
		}
		if (returned.length > 0) {
			store.returnShared(this.name, returned).then(
				() => this.#context.returned(this),
				(error) => this.#failed("returning a shared message", error),
			);
		}
	}

	#failed(what: string, error: unknown): void {
		if (!(error instanceof StoreError && error.code === "away")) this.#context.failed(what, error);
	}

	/** Takes from the log what members have room for. */
	pump(): void {
		if (!this.stored) return;
		this.#pumpAgain = true;
		if (!this.#pumping) this.#pumpAll().catch((error) => this.#failed("reading a share group", error));
	}

	async #pumpAll(): Promise<void> {
		this.#pumping = true;
		try {
			while (this.#pumpAgain && this.stored) {
				this.#pumpAgain = false;
				const limit = Math.min(
					TAKE_LIMIT,
					this.#members.reduce((sum, member) => sum + member.receiver.room, 0),
				);
				if (limit === 0) return;
				const entries = await this.#context.store.takeShared(this.name, limit);
				for (const entry of entries) this.#deliver(entry);
				if (entries.length === limit) this.#pumpAgain = true;
			}
		} finally {
			// Here, not when the promise settles: whoever pumps in between would believe that this still goes on.
			this.#pumping = false;
		}
	}

	#deliver(entry: LogEntry): void {
		const { message, seq } = entry;
		if (message.expiresAtMs <= this.#context.nowMs()) {
			this.#context.dropped("expired");
			this.settle(seq, "settled");
			return;
		}
		const member = this.#pick((receiver) => receiver.room > 0);
		if (member === undefined) {
			this.settle(seq, "returned");
			return;
		}
		const { options } = member.subscription;
		const qos = effectiveQos(message.qos, options.qos);
		if (qos === 0) {
			this.#sendQos0(member, this.#context.publicationOf(message));
			this.settle(seq, "settled");
			return;
		}
		const retain = options.retainAsPublished && message.retain;
		const subscriptionIds = options.subscriptionId > 0 ? [options.subscriptionId] : [];
		member.receiver.receive({ message, qos, retain, subscriptionIds, log: this.name, seq, shared: true });
	}

	#sendQos0(member: Subscriber<Receiver>, publication: Publication): void {
		const { options } = member.subscription;
		const ids = options.subscriptionId > 0 ? [options.subscriptionId] : [];
		member.receiver.receiveQos0(publication, options.retainAsPublished && publication.message.retain, ids);
	}

	/** The next member in turn that will do. */
	#pick(suits: (receiver: Receiver) => boolean): Subscriber<Receiver> | undefined {
		const count = this.#members.length;
		for (let i = 0; i < count; i++) {
			const place = (this.#next + i) % count;
			const member = this.#members[place] as Subscriber<Receiver>;
			if (!suits(member.receiver)) continue;
			this.#next = place + 1;
			return member;
		}
		return undefined;
	}
}
