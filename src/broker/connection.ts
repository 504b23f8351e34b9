/**
 * One client connection: its socket, its decoder, its channel. Feeds the channel one input at a time and performs the
 * effects in order, by calling the use cases; their results come back as inputs.
 */

import { countByCode, PACKET_TYPES } from "../metrics.ts";
import { PacketDecoder } from "../mqtt/decoder.ts";
import type { Message } from "../mqtt/message.ts";
import type { ClientPacket, ServerPacket } from "../mqtt/packet.ts";
import { MqttError, ReasonCode, reasonName } from "../mqtt/reason_code.ts";
import { Channel } from "../session/channel.ts";
import type { AppendedEntry, Delivery, Effect, Input } from "../session/effects.ts";
import type { Subscription } from "../session/subscription.ts";
import type { SessionRef } from "../store/store.ts";
import type { Socket, SocketHandler } from "../transport/socket.ts";
import { Authentication } from "./authentication.ts";
import type { ClientRights } from "./client_rights.ts";
import type { ConnectionContext } from "./context.ts";
import { Outbound } from "./outbound.ts";
import { PacketWriter } from "./packet_writer.ts";
import type { Publication } from "./publication.ts";
import { type Publisher, Publishing } from "./publishing.ts";
import type { Overlap } from "./receiver.ts";
import { RoomWaiters } from "./room.ts";
import { SessionLink } from "./session_link.ts";
import type { ConnectedClient, SessionOwner } from "./sessions.ts";
import type { SubscribingClient } from "./subscribing.ts";
import type { Timed } from "./timer_wheel.ts";

export class Connection implements SocketHandler, Timed, SessionOwner, SubscribingClient, Publisher {
	wheelTick = 0;
	routeMark = 0;
	overlap: Overlap | undefined;
	readonly #context: ConnectionContext;
	readonly #socket: Socket;
	readonly #decoder: PacketDecoder;
	readonly #channel: Channel;
	readonly #outbound: Outbound;
	readonly #writer: PacketWriter;
	readonly #authentication: Authentication;
	readonly #link: SessionLink;
	readonly #publishing: Publishing;
	readonly #inputs: Input[] = [];
	#handling = false;
	#closed = false;
	/** When a CONNACK said yes; 0 before. */
	#connectedAtMs = 0;
	#channelTimerMs = Number.POSITIVE_INFINITY;
	#pingAtMs = Number.POSITIVE_INFINITY;
	#stalledAtMs = Number.POSITIVE_INFINITY;
	#rightsEndAtMs = Number.POSITIVE_INFINITY;
	readonly #roomWaiters = new RoomWaiters();

	constructor(context: ConnectionContext, socket: Socket) {
		this.#context = context;
		this.#socket = socket;
		this.#decoder = new PacketDecoder({
			maxPacketSize: context.limits.maxPacketSize,
			topics: context.topics,
			copyPayloadsUpTo: context.copyPayloadsUpTo,
		});
		this.#channel = new Channel(context.limits);
		this.#outbound = new Outbound(socket, context.turn, context.framePerPacket, () => this.#congested());
		this.#writer = new PacketWriter(this.#outbound, context.metrics, context.maxBufferedBytes);
		this.#authentication = new Authentication(context, socket, () => this.#becameSomebody());
		this.#link = new SessionLink(context, this.#channel, this, (input) => this.handle(input));
		this.#publishing = new Publishing(context, this);
		const nowMs = context.clock.nowMs();
		if (context.pingSeconds > 0) this.#pingAtMs = nowMs + context.pingSeconds * 1000;
		this.#perform(this.#channel.open(nowMs));
	}

	get clientId(): string {
		return this.#channel.clientId;
	}

	get rights(): ClientRights {
		return this.#authentication.rights;
	}

	get session(): SessionRef {
		return this.#link.ref;
	}

	get epoch(): string | undefined {
		return this.#link.epoch;
	}

	/** Where the client is. */
	get address(): string {
		return this.#socket.peer.address;
	}

	describe(): ConnectedClient {
		const { clientId, version: protocolVersion } = this.#channel;
		const { name, username = name, method } = this.rights.principal;
		const { address, transport } = this.#socket.peer;
		return { clientId, username, method, address, transport, protocolVersion, connectedAtMs: this.#connectedAtMs };
	}

	get persistent(): boolean {
		return this.#channel.persistent;
	}

	get hearsReasons(): boolean {
		return this.#channel.version === 5;
	}

	get open(): boolean {
		return !this.#closed;
	}

	get room(): number {
		return this.#outbound.congested ? 0 : this.#channel.room;
	}

	get full(): boolean {
		return this.#channel.full;
	}

	get congested(): boolean {
		return this.#outbound.congested;
	}

	holds(subscription: Subscription): boolean {
		return !this.#closed && this.#channel.subscriptions.get(subscription.options.filter) === subscription;
	}

	onData(bytes: Uint8Array): void {
		if (this.#closed) return;
		this.#context.metrics.bytesReceived += bytes.length;
		try {
			this.#decoder.decode(bytes, this.#onPacket);
		} catch (error) {
			this.#malformed(error);
		}
	}

	#malformed(error: unknown): void {
		const version = this.#decoder.protocolVersion;
		if (error instanceof MqttError) {
			this.handle({ kind: "malformed", version, reasonCode: error.reasonCode, reason: error.message });
			return;
		}
		// A defect of ours, met by the bytes of one client: it must not end the process, and so everybody else's connection.
		this.#context.log.error("A packet met a defect", { clientId: this.clientId, error });
		this.#handling = false;
		this.#inputs.length = 0;
		this.handle({ kind: "malformed", version, reasonCode: ReasonCode.implementationSpecificError, reason: "the server has met a defect" });
	}

	onText(): void {
		this.handle({ kind: "textFrame" });
	}

	onDrain(): void {
		if (this.#closed) return;
		this.#stalledAtMs = Number.POSITIVE_INFINITY;
		this.#outbound.drained();
		if (!this.#outbound.congested) this.#roomCame();
	}

	onClose(): void {
		this.handle({ kind: "socketClosed" });
		this.#gone();
	}

	onTimer(nowMs: number): void {
		if (this.#closed) return;
		if (nowMs >= this.#pingAtMs) {
			this.#socket.ping();
			this.#pingAtMs = nowMs + this.#context.pingSeconds * 1000;
		}
		if (nowMs >= this.#rightsEndAtMs) this.end(ReasonCode.notAuthorized, "its token or login has expired");
		else if (nowMs >= this.#stalledAtMs) {
			this.end(ReasonCode.quotaExceeded, `the client read nothing for ${this.#context.stallTimeoutSeconds} s`);
		} else if (nowMs >= this.#channelTimerMs) {
			this.#channelTimerMs = Number.POSITIVE_INFINITY;
			this.handle({ kind: "timer" });
		}
		if (!this.#closed) this.#schedule();
	}

	takeOver(): void {
		this.handle({ kind: "takenOver" });
	}

	/** Takes a new token; see `Publisher`. */
	renew(token: Uint8Array): Promise<ReasonCode> {
		return this.#authentication.renew(token);
	}

	/** Rules, tokens or bans have changed: whoever has more than it may have now is sent away, and comes back with what is left. */
	judgeAgain(): void {
		if (this.#closed) return;
		const subscriptions = () => this.#channel.subscriptions.values();
		void this.#authentication.judgeAgain(subscriptions, (input) => this.handle(input));
	}

	/** Ends the connection from the server's side. */
	end(reasonCode: ReasonCode, reason: string): void {
		this.handle({ kind: "end", reasonCode, reason });
	}

	receiveQos0(publication: Publication, retain: boolean, subscriptionIds: readonly number[]): void {
		if (this.#channel.connected) this.#writer.sendQos0(publication, retain, subscriptionIds);
	}

	receive(delivery: Delivery): void {
		this.handle({ kind: "deliver", delivery });
	}

	appended(message: Message, entries: readonly AppendedEntry[]): void {
		this.handle({ kind: "appended", message, entries });
	}

	lookAgain(): void {
		this.handle({ kind: "lookAgain" });
	}

	/** Messages from elsewhere may have been lost. What stands in logs is read again; for the rest only the client can help. */
	missedMessages(): void {
		const live = [...this.#channel.subscriptions.values()].some(({ shareName, options }) => shareName === undefined && options.qos > 0);
		if (this.persistent) this.lookAgain();
		else if (live) this.end(ReasonCode.implementationSpecificError, "messages for this session may have been lost: subscribe again");
	}

	whenRoom(): Promise<boolean> {
		if (this.#closed) return Promise.resolve(false);
		if (this.#channel.queued === 0 && !this.#outbound.congested) return Promise.resolve(true);
		return this.#roomWaiters.wait();
	}

	/** Feeds the channel. An input that comes while another is handled waits its turn. */
	handle(input: Input): void {
		if (this.#handling) {
			this.#inputs.push(input);
			return;
		}
		this.#handling = true;
		const nowMs = this.#context.clock.nowMs();
		this.#perform(this.#channel.handle(input, nowMs));
		if (this.#inputs.length > 0) {
			for (let i = 0; i < this.#inputs.length; i++) this.#perform(this.#channel.handle(this.#inputs[i] as Input, nowMs));
			this.#inputs.length = 0;
		}
		this.#handling = false;
	}

	readonly #onPacket = (packet: ClientPacket): boolean => {
		const { metrics } = this.#context;
		const type = PACKET_TYPES[packet.kind];
		metrics.packetsReceived[type] = (metrics.packetsReceived[type] as number) + 1;
		if (packet.kind === "publish") metrics.messagesReceived[packet.qos]++;
		// Whatever answers a CONNECT is in its version and within its limits.
		else if (packet.kind === "connect") this.#writer.configure(packet, this.#context.limits.topicAliasMaximum);
		this.handle(packet);
		return !this.#closed;
	};

	#perform(effects: readonly Effect[]): void {
		for (const effect of effects) this.#performOne(effect);
	}

	#performOne(effect: Effect): void {
		const context = this.#context;
		switch (effect.kind) {
			case "publish":
				this.#publishing.publish(effect.message, effect.packetId);
				break;
			case "send":
				this.#send(effect.packet);
				break;
			case "sendPublish":
				if (!this.#writer.sendDelivery(effect.delivery, effect.packetId, effect.dup, context.clock.nowMs())) {
					this.handle({ kind: "undeliverable", packetId: effect.packetId });
				}
				break;
			case "checkpoint":
				context.checkpoints.add(this.#link, effect.urgent);
				break;
			case "release":
				this.#link.release(effect.packetId);
				break;
			case "fetch":
				this.#link.fetch(effect.limit);
				break;
			case "settleShared":
				this.#link.settleShared(effect);
				break;
			case "dropped":
				context.metrics.dropped[effect.reason] += effect.count;
				break;
			case "room":
				this.#roomCame();
				break;
			case "subscribe":
				this.#result(context.subscribing.subscribe(this, effect.entries), (results) => ({
					kind: "subscribed",
					packetId: effect.packetId,
					results,
				}));
				break;
			case "sendRetained":
				this.#result(context.subscribing.sendRetained(this, effect.subscription), () => ({ kind: "retainedSent" }));
				break;
			case "unsubscribe":
				this.#result(context.subscribing.unsubscribe(this, effect.subscriptions), (reasonCodes) => ({
					kind: "unsubscribed",
					packetId: effect.packetId,
					reasonCodes,
				}));
				break;
			case "authenticate":
				this.#authentication.step(effect, (input) => this.handle(input));
				break;
			case "openSession":
				this.#link.open(effect);
				break;
			case "attach":
				this.#attach(effect.subscriptions);
				break;
			case "setTimer":
				this.#channelTimerMs = effect.atMs;
				this.#schedule();
				break;
			case "handOver":
				this.#detach();
				this.#link.handOver();
				break;
			case "closeSession":
				this.#detach();
				this.#link.close(effect);
				break;
			case "close":
				this.#close(effect);
				break;
		}
	}

	/** Takes up the subscriptions of a resumed session. What came before the other replicas knew of them stands in the logs. */
	#attach(subscriptions: readonly Subscription[]): void {
		const known = subscriptions.map((subscription) => this.#context.routing.attach(this, subscription));
		if (known.every((promise) => promise === undefined)) return;
		this.#result(Promise.all(known), () => ({ kind: "lookAgain" }));
	}

	/** Turns the result of a use case into an input. */
	#result<T>(pending: Promise<T>, input: (result: T) => Input): void {
		const { rightsChanges } = this.#context;
		const before = rightsChanges();
		pending.then(
			(result) => {
				this.handle(input(result));
				// What was granted before a change and is there only now, nobody has judged by it.
				if (rightsChanges() !== before) this.judgeAgain();
			},
			(error) => this.#link.failed(error),
		);
	}

	#send(packet: ServerPacket): void {
		if (packet.kind === "connack") {
			this.#writer.setVersion(this.#channel.version);
			if (packet.reasonCode === ReasonCode.success) {
				this.#connectedAtMs = this.#context.clock.nowMs();
				this.#socket.forgetRequest();
				this.#context.log.debug("Client connected", {
					clientId: this.clientId,
					address: this.#socket.peer.address,
				});
			}
		}
		const last = packet.kind === "disconnect" || (packet.kind === "connack" && packet.reasonCode !== ReasonCode.success);
		// Without an answer that it waits for, a client would wait for ever; after the last packet the close follows anyway.
		if (!this.#writer.send(packet) && !last) this.#lost(`its Maximum Packet Size leaves no room for ${packet.kind.toUpperCase()}`);
		// Answers pile up for a client that asks and does not read: it is cut off, since there is nobody to tell.
		if (this.#outbound.congested && this.#outbound.pending > this.#context.maxBufferedBytes) this.#lost("it does not read what it is sent");
	}

	#congested(): void {
		if (this.#outbound.broken) {
			this.#lost("the runtime dropped what was to be sent");
			return;
		}
		this.#stalledAtMs = this.#context.clock.nowMs() + this.#context.stallTimeoutSeconds * 1000;
		this.#schedule();
	}

	/** The stream to the client cannot go on: the connection ends as if the network had failed. */
	#lost(why: string): void {
		if (this.#closed) return;
		this.#context.log.info("Client is cut off", { clientId: this.clientId, why });
		countByCode(this.#context.metrics.disconnectsSent, ReasonCode.quotaExceeded);
		this.#socket.terminate();
		this.handle({ kind: "socketClosed" });
		this.#gone();
	}

	#roomCame(): void {
		this.#roomWaiters.tell(true);
		for (const subscription of this.#channel.subscriptions.values()) {
			if (subscription.shareName !== undefined) this.#context.routing.group(subscription.options.filter)?.pump();
		}
	}

	#becameSomebody(): void {
		this.#rightsEndAtMs = this.#authentication.principal.expiresAtMs;
		this.#schedule();
		this.judgeAgain();
	}

	/** Puts the nearest of the connection's deadlines on the wheel. */
	#schedule(): void {
		this.#context.wheel.schedule(this, Math.min(this.#channelTimerMs, this.#pingAtMs, this.#stalledAtMs, this.#rightsEndAtMs));
	}

	#close({ how, reasonCode, reason }: Extract<Effect, { kind: "close" }>): void {
		if (reasonCode !== ReasonCode.success) {
			const { disconnectsSent, connectsRefused } = this.#context.metrics;
			countByCode(this.#connectedAtMs > 0 ? disconnectsSent : connectsRefused, reasonCode);
			this.#context.log.info("The connection ends", {
				clientId: this.clientId,
				address: this.#socket.peer.address,
				reasonCode: reasonName(reasonCode),
				reason,
			});
		}
		// The close is all the answer that a DISCONNECT gets: after it no crash may bring the will back (P7). And who is sent away
		// may be at another replica at once: its session is to be free by then, or it would take it over, and its will be done.
		this.#outbound.finish(how, how === "normal" || how === "restart" ? this.#link.closed : undefined);
		this.#gone();
	}

	#detach(): void {
		for (const subscription of this.#channel.subscriptions.values()) this.#context.routing.detach(this, subscription);
	}

	/** Nothing comes from or goes to this connection any more. */
	#gone(): void {
		if (this.#closed) return;
		this.#closed = true;
		this.#detach();
		this.#link.leave();
		this.#context.wheel.cancel(this);
		this.#roomWaiters.tell(false);
		this.#context.closed(this);
	}
}
