/**
 * The sending side of a session for QoS 1 and 2: packet ids, the client's window, what waits, and the cursors into the logs.
 * Pure: it is told what happened and appends the effects to a list. It holds at most one window and one bounded queue of
 * messages, however far behind the session is: the rest stays in the logs.
 */

import type { Message } from "../mqtt/message.ts";
import type { AckPacket } from "../mqtt/packet.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Checkpoint, InflightRecord, LogEntry, Position } from "../store/store.ts";
import { DeliveryQueue } from "./delivery_queue.ts";
import { type AppendedEntry, type Delivery, type Effect, effectiveQos } from "./effects.ts";
import { LogCursors } from "./log_cursors.ts";
import type { Subscription } from "./subscription.ts";

const MAX_PACKET_ID = 65_535;
/** Entries asked for at a time, at most. */
const FETCH_LIMIT = 128;

interface Inflight {
	readonly packetId: number;
	readonly qos: 1 | 2;
	readonly log: string;
	readonly seq: number;
	readonly shared: boolean;
	/** Gone once PUBREC came: only the packet id matters from then on. */
	delivery: Delivery | undefined;
	/** The two that wait do so for a checkpoint: before the PUBLISH and before the PUBREL of QoS 2. */
	state: "waiting" | "sent" | "receivedWaiting" | "received";
	/** Checkpoint that must be stored before the next step, 0 for none. */
	serial: number;
}

export interface OutboxOptions {
	readonly clientId: string;
	/** Whether the session outlives the connection. */
	readonly persistent: boolean;
	/** Deliveries unacknowledged at a time: the lesser of the client's Receive Maximum and the server's own limit. */
	readonly window: number;
	/** Payload bytes that may be unacknowledged, and as many that may wait. One delivery is always allowed. */
	readonly windowBytes: number;
	readonly maxQueued: number;
}

export class Outbox {
	readonly #options: OutboxOptions;
	readonly #inflight = new Map<number, Inflight>();
	#inflightBytes = 0;
	/** Deliveries in flight that have not been sent yet. */
	#waiting = 0;
	/** Deliveries that wait for the window. */
	readonly #queue: DeliveryQueue;
	#lastPacketId = 0;
	readonly #logs = new LogCursors();
	/** Whether there may be log entries after the cursors that nobody will offer again. */
	#behind = false;
	/** Entries asked for by the fetch under way, 0 for none. */
	#fetching = 0;
	/** Whether entries were passed over while a fetch was under way. */
	#missedWhileFetching = false;
	/** Packet ids of an earlier connection whose turn to be sent again has not come, because this client's window is smaller. */
	#toResend: number[] = [];
	#serial = 1;
	#wasFull = false;

	constructor(options: OutboxOptions) {
		this.#options = options;
		this.#queue = new DeliveryQueue(options.maxQueued, options.windowBytes);
	}

	/** Deliveries that wait for the window. */
	get queued(): number {
		return this.#queue.length;
	}

	/** Whether not even one more delivery may wait. */
	get full(): boolean {
		return this.#queue.full;
	}

	/** How many more deliveries could be sent at once. */
	get room(): number {
		if (this.#inflightBytes >= this.#options.windowBytes) return 0;
		return Math.max(0, this.#options.window - this.#inflight.size - this.queued);
	}

	/** Takes up what an earlier connection left, and sends again what is unacknowledged, in its order [MQTT-4.4.0-1] [v3 MQTT-4.6.0-1]. */
	resume(subscriptions: readonly Subscription[], records: readonly InflightRecord[], lastPacketId: number, effects: Effect[]): void {
		this.#lastPacketId = lastPacketId;
		for (const subscription of subscriptions) if (subscription.logged) this.#logs.add(subscription);
		for (const record of records) {
			const { packetId, qos, state, log, seq, retain, subscriptionIds, message } = record;
			const shared = log.startsWith("$share/");
			if (state === "received") {
				this.#inflight.set(packetId, { packetId, qos, log, seq, shared, delivery: undefined, state, serial: 0 });
				effects.push({ kind: "send", packet: pubrel(packetId, ReasonCode.success) });
				continue;
			}
			if (message === undefined) continue;
			const delivery: Delivery = { message, qos, retain, subscriptionIds, log, seq, shared };
			this.#inflight.set(packetId, { packetId, qos, log, seq, shared, delivery, state: "sent", serial: 0 });
			this.#inflightBytes += message.payload.length;
			if (!shared) this.#logs.hold(log, seq);
			this.#toResend.push(packetId);
		}
		this.#resend(effects);
		this.released(effects);
	}

	/** A subscription of this session was granted or replaced. */
	subscribed(subscription: Subscription, effects: Effect[]): void {
		if (!subscription.logged) {
			this.#logs.delete(subscription.options.filter);
			return;
		}
		this.#logs.add(subscription);
		this.#fallBehind();
		this.#pump(effects);
	}

	unsubscribed(filter: string): void {
		this.#logs.delete(filter);
	}

	/** The retained messages of a subscription are out, its log may be read. */
	released(effects: Effect[]): void {
		if (this.#logs.size === 0) return;
		this.#fallBehind();
		this.#pump(effects);
	}

	/** Sends a delivery that comes from no log of this session's, or queues it for the window. */
	deliver(delivery: Delivery, nowMs: number, effects: Effect[]): void {
		if (this.queued === 0 && this.#windowOpen()) this.#start(delivery, nowMs, effects);
		else if (!this.#queue.push(delivery)) {
			effects.push({ kind: "dropped", reason: "queueFull", count: 1 });
			if (delivery.shared) effects.push({ kind: "settleShared", log: delivery.log, seq: delivery.seq, outcome: "returned" });
		}
	}

	/** A message was appended to logs of this session. What cannot be sent now is read from the logs later. */
	appended(message: Message, entries: readonly AppendedEntry[], nowMs: number, effects: Effect[]): void {
		let fresh = false;
		for (const { subscription, seq } of entries) {
			// One whose SUBACK is not out yet is read from its log afterwards.
			if (seq <= subscription.cursor || !this.#logs.reads(subscription)) continue;
			fresh = true;
			// Not the next one: something before it has not been read yet, so this one waits in the log as well.
			if (subscription.held !== undefined || seq !== subscription.cursor + 1) this.#fallBehind();
		}
		if (!fresh) return;
		if (this.queued > 0 || !this.#windowOpen()) this.#fallBehind();
		if (!this.#behind) this.#take(message, entries, nowMs, effects);
		else {
			this.#fallBehind();
			this.#pump(effects);
		}
	}

	fetched(entries: readonly LogEntry[], nowMs: number, effects: Effect[]): void {
		const complete = entries.length < this.#fetching && !this.#missedWhileFetching;
		this.#fetching = 0;
		let taken = 0;
		while (taken < entries.length && this.#windowOpen()) {
			const entry = entries[taken] as LogEntry;
			const copies: AppendedEntry[] = [];
			// Copies of one message in several logs follow one another: one delivery with all subscription identifiers [MQTT-3.3.4-4].
			for (let next: LogEntry | undefined = entry; next?.id === entry.id; next = entries[taken]) {
				const subscription = this.#logs.get(next.log);
				if (subscription !== undefined && subscription.held === undefined && next.seq > subscription.cursor) {
					const trimmed = next.seq - subscription.cursor - 1;
					if (trimmed > 0) effects.push({ kind: "dropped", reason: "logTrimmed", count: trimmed });
					copies.push({ subscription, seq: next.seq });
				}
				taken++;
			}
			if (copies.length > 0) this.#take(entry.message, copies, nowMs, effects);
		}
		this.#behind = taken < entries.length || !complete;
		this.#pump(effects);
	}

	/** The read failed: it is tried again with the next event that makes the session look. */
	fetchFailed(): void {
		this.#fetching = 0;
		this.#behind = true;
	}

	puback(packetId: number, nowMs: number, effects: Effect[]): void {
		const inflight = this.#inflight.get(packetId);
		if (inflight === undefined || inflight.qos !== 1 || inflight.state !== "sent") return;
		this.#finish(inflight, effects);
		this.#advance(nowMs, effects);
	}

	/** The client cannot take the packet at all: the delivery is over. */
	undeliverable(packetId: number, nowMs: number, effects: Effect[]): void {
		const inflight = this.#inflight.get(packetId);
		if (inflight === undefined) return;
		this.#finish(inflight, effects);
		this.#advance(nowMs, effects);
	}

	/** @param reasonCode ≥ 0x80 ends the delivery without PUBREL [MQTT-4.4.0-2]. */
	pubrec(packetId: number, reasonCode: number, nowMs: number, effects: Effect[]): void {
		const inflight = this.#inflight.get(packetId);
		if (inflight === undefined || inflight.qos !== 2) {
			if (reasonCode < 0x80) effects.push({ kind: "send", packet: pubrel(packetId, ReasonCode.packetIdentifierNotFound) });
			return;
		}
		if (reasonCode >= 0x80) {
			if (inflight.state === "sent") {
				this.#finish(inflight, effects);
				this.#advance(nowMs, effects);
			}
			return;
		}
		if (inflight.state === "received") effects.push({ kind: "send", packet: pubrel(packetId, ReasonCode.success) });
		if (inflight.state !== "sent") return;
		if (inflight.shared) this.#settle(inflight, "settled", effects);
		this.#dropBody(inflight);
		if (!this.#options.persistent) {
			inflight.state = "received";
			effects.push({ kind: "send", packet: pubrel(packetId, ReasonCode.success) });
			return;
		}
		// PUBREL may leave only when a crash cannot make us send the PUBLISH again [MQTT-4.3.3-6].
		inflight.state = "receivedWaiting";
		this.#awaitCheckpoint(inflight, effects);
	}

	pubcomp(packetId: number, nowMs: number, effects: Effect[]): void {
		const inflight = this.#inflight.get(packetId);
		if (inflight === undefined || inflight.state !== "received") return;
		this.#finish(inflight, effects);
		this.#advance(nowMs, effects);
	}

	/** A checkpoint is stored: what waited for it goes on. */
	recorded(serial: number, effects: Effect[]): void {
		for (const inflight of this.#inflight.values()) {
			if (inflight.serial === 0 || inflight.serial > serial) continue;
			inflight.serial = 0;
			if (inflight.state === "waiting") {
				inflight.state = "sent";
				this.#waiting--;
				effects.push({ kind: "sendPublish", delivery: inflight.delivery as Delivery, packetId: inflight.packetId, dup: false });
			} else if (inflight.state === "receivedWaiting") {
				inflight.state = "received";
				effects.push({ kind: "send", packet: pubrel(inflight.packetId, ReasonCode.success) });
			}
		}
	}

	/** What is to be stored now, with the serial number that `recorded` is to bring back. */
	takeCheckpoint(): { readonly serial: number; readonly checkpoint: Checkpoint } {
		const inflight: InflightRecord[] = [];
		for (const { packetId, qos, log, seq, shared, delivery } of this.#inflight.values()) {
			// An unfinished QoS 1 delivery of a share group goes to another member, not to this session again.
			if (shared && qos === 1) continue;
			const inLog = shared || this.#logs.get(log) !== undefined;
			inflight.push({
				packetId,
				qos,
				state: delivery === undefined ? "received" : "sent",
				log,
				seq,
				retain: delivery?.retain ?? false,
				subscriptionIds: delivery?.subscriptionIds ?? NO_IDS,
				message: inLog ? undefined : delivery?.message,
			});
		}
		return { serial: this.#serial++, checkpoint: { cursors: this.#logs.takeMoved(), inflight, lastPacketId: this.#lastPacketId } };
	}

	/** Where to read on. Logs whose retained messages are not out yet are left alone. */
	positions(): readonly Position[] {
		return this.#logs.positions();
	}

	/** The connection has ended: share groups get back what this session did not finish. */
	abandon(effects: Effect[]): void {
		for (const inflight of this.#inflight.values()) {
			if (!inflight.shared || inflight.delivery === undefined) continue;
			// Its checkpoint is on the way to the store, and so is its binding: it stays with a session that goes on.
			const bound = inflight.serial < this.#serial && this.#options.persistent;
			if (inflight.qos === 1 || (inflight.state === "waiting" && !bound)) {
				this.#inflight.delete(inflight.packetId);
				this.#settle(inflight, "returned", effects);
			}
			// Begun with QoS 2: nobody else may get it, and a session that ends with its connection cannot [MQTT-4.8.2-5].
			else if (!this.#options.persistent) this.#settle(inflight, "settled", effects);
		}
		// What waits in no log is owed to a session that goes on: it is stored like what is in flight.
		for (let delivery = this.#queue.shift(); delivery !== undefined; delivery = this.#queue.shift()) {
			const { qos, log, seq, shared } = delivery;
			if (shared) this.#settle(delivery, "returned", effects);
			else if (this.#options.persistent) {
				const packetId = this.#nextPacketId();
				this.#inflight.set(packetId, { packetId, qos, log, seq, shared, delivery, state: "waiting", serial: 0 });
			}
		}
	}

	#windowOpen(): boolean {
		if (this.#inflight.size === 0) return true;
		return this.#inflight.size < this.#options.window && this.#inflightBytes < this.#options.windowBytes;
	}

	/** Reading for every single free place would cost more than it brings: half of the window must be free. */
	#worthFilling(): boolean {
		const { window } = this.#options;
		return this.#windowOpen() && (this.#inflight.size === 0 || (window - this.#inflight.size) * 2 >= window);
	}

	#fallBehind(): void {
		this.#behind = true;
		if (this.#fetching) this.#missedWhileFetching = true;
	}

	/** Asks for log entries where there are some to read and room to send them. */
	#pump(effects: Effect[]): void {
		if (!this.#behind || this.#fetching > 0 || this.queued > 0 || !this.#worthFilling()) return;
		this.#fetching = Math.min(FETCH_LIMIT, this.#options.window - this.#inflight.size);
		this.#missedWhileFetching = false;
		effects.push({ kind: "fetch", limit: this.#fetching });
	}

	/** Moves the cursors over one message and sends it, unless there is a reason not to. */
	#take(message: Message, entries: readonly AppendedEntry[], nowMs: number, effects: Effect[]): void {
		let qos = 0;
		let retain = false;
		let ids: number[] | undefined;
		let log = "";
		let seq = 0;
		for (const entry of entries) {
			const { options } = entry.subscription;
			if (entry.seq <= entry.subscription.cursor || !this.#logs.reads(entry.subscription)) continue;
			this.#logs.pass(entry.subscription, entry.seq);
			if (options.noLocal && message.publisher === this.#options.clientId) continue;
			if (entry.subscription.supersedes(message)) continue;
			const granted = effectiveQos(message.qos, options.qos);
			if (granted > qos) {
				qos = granted;
				log = options.filter;
				seq = entry.seq;
			}
			if (options.retainAsPublished) retain = message.retain;
			if (options.subscriptionId > 0) {
				ids ??= [];
				ids.push(options.subscriptionId);
			}
		}
		if (qos === 0) effects.push({ kind: "checkpoint", urgent: false });
		else this.#start({ message, qos: qos as 1 | 2, retain, subscriptionIds: ids ?? NO_IDS, log, seq, shared: false }, nowMs, effects);
	}

	/** Gives a delivery a packet id and sends it, for QoS 2 of what must survive a crash only after that id is stored. */
	#start(delivery: Delivery, nowMs: number, effects: Effect[]): void {
		if (delivery.message.expiresAtMs <= nowMs) {
			effects.push({ kind: "dropped", reason: "expired", count: 1 });
			if (delivery.shared) this.#settle(delivery, "settled", effects);
			else if (delivery.log !== "") effects.push({ kind: "checkpoint", urgent: false });
			return;
		}
		const packetId = this.#nextPacketId();
		const { qos, log, seq, shared } = delivery;
		const inflight: Inflight = { packetId, qos, log, seq, shared, delivery, state: "sent", serial: 0 };
		this.#inflight.set(packetId, inflight);
		this.#inflightBytes += delivery.message.payload.length;
		if (!this.#windowOpen()) this.#wasFull = true;
		if (!shared) this.#logs.hold(log, seq);
		// What comes behind one that waits does so too: sent again after a break, they must stand in the order of sending [v3 MQTT-4.6.0-1].
		if ((qos === 2 && (this.#options.persistent || shared)) || this.#waiting > 0) {
			inflight.state = "waiting";
			this.#waiting++;
			if (shared && qos === 2) this.#settle(delivery, "bound", effects);
			this.#awaitCheckpoint(inflight, effects);
			return;
		}
		effects.push({ kind: "sendPublish", delivery, packetId, dup: false });
		if (this.#options.persistent) effects.push({ kind: "checkpoint", urgent: false });
	}

	#awaitCheckpoint(inflight: Inflight, effects: Effect[]): void {
		inflight.serial = this.#serial;
		effects.push({ kind: "checkpoint", urgent: true });
	}

	/** The delivery is over: its packet id is free, its place in the log settled. */
	#finish(inflight: Inflight, effects: Effect[]): void {
		if (inflight.shared && inflight.delivery !== undefined) this.#settle(inflight, "settled", effects);
		this.#dropBody(inflight);
		this.#inflight.delete(inflight.packetId);
		if (this.#options.persistent) effects.push({ kind: "checkpoint", urgent: false });
	}

	/** Once PUBREC or PUBACK came the message may go, here and in its log. */
	#dropBody(inflight: Inflight): void {
		if (inflight.delivery === undefined) return;
		this.#inflightBytes -= inflight.delivery.message.payload.length;
		inflight.delivery = undefined;
		if (!inflight.shared) this.#logs.settle(inflight.log, inflight.seq, () => this.#lowestInFlight(inflight.log));
	}

	/** In-flight entries of one log stand in ascending order, so the first that still has a body is the lowest. */
	#lowestInFlight(log: string): number | undefined {
		for (const { delivery, seq } of this.#inflight.values()) if (delivery?.log === log) return seq;
		return undefined;
	}

	/** Sends again what an earlier connection left unacknowledged, as far as this client's window goes [MQTT-3.3.4-9]. */
	#resend(effects: Effect[]): void {
		while (this.#toResend.length > 0 && this.#inflight.size - this.#toResend.length < this.#options.window) {
			const packetId = this.#toResend.shift() as number;
			const delivery = this.#inflight.get(packetId)?.delivery;
			if (delivery !== undefined) effects.push({ kind: "sendPublish", delivery, packetId, dup: true });
		}
	}

	/** Room came: first what is to be sent again, then what is queued, then what is in the logs. */
	#advance(nowMs: number, effects: Effect[]): void {
		if (this.#toResend.length > 0) this.#resend(effects);
		while (this.queued > 0 && this.#windowOpen()) this.#start(this.#queue.shift() as Delivery, nowMs, effects);
		this.#pump(effects);
		if (this.#wasFull && this.queued === 0 && this.#worthFilling()) {
			this.#wasFull = false;
			effects.push({ kind: "room" });
		}
	}

	#settle(delivery: { readonly log: string; readonly seq: number }, outcome: "settled" | "returned" | "bound", effects: Effect[]): void {
		effects.push({ kind: "settleShared", log: delivery.log, seq: delivery.seq, outcome });
	}

	#nextPacketId(): number {
		let packetId = this.#lastPacketId;
		do packetId = packetId >= MAX_PACKET_ID ? 1 : packetId + 1;
		while (this.#inflight.has(packetId));
		this.#lastPacketId = packetId;
		return packetId;
	}
}

const NO_IDS: readonly number[] = [];

function pubrel(packetId: number, reasonCode: ReasonCode): AckPacket {
	return { kind: "pubrel", packetId, reasonCode };
}
