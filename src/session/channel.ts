/**
 * The protocol state of one connection: packets and results in, effects out. It has no clock, no socket and no store, so
 * that every order of events can be tried without any. Follows MQTT 5; where 3.1 and 3.1.1 differ, the version decides.
 *
 * States: `idle` (waiting for CONNECT) → `authenticating` → `opening` (the session) → `connected` → `closed`.
 */

import {
	ABSENT,
	type AuthPacket,
	type ClientPacket,
	type ConnectPacket,
	type DisconnectPacket,
	type ProtocolVersion,
	type WillFields,
} from "../mqtt/packet.ts";
import { connackReturnCode, ReasonCode } from "../mqtt/reason_code.ts";
import type { Checkpoint, OpenedSession, Position } from "../store/store.ts";
import type { CloseKind } from "../transport/socket.ts";
import { connackProperties, connectProblem, grantedKeepAlive, grantedSessionExpiry, type Problem, sessionToOpen } from "./connect.ts";
import type { AuthenticatedEvent, ChannelLimits, Effect, Input, LifecycleEvent } from "./effects.ts";
import { closeKind, disconnectCode, refusalCode } from "./ending.ts";
import { LiveSession } from "./live_session.ts";
import type { Subscription } from "./subscription.ts";

/** Packets that a client may send before its CONNACK is out: more is a flood. */
const MAX_EARLY_PACKETS = 1_024;
const NO_SUBSCRIPTIONS: ReadonlyMap<string, Subscription> = new Map();

/** Between inputs. Nothing is ever added to it. */
const NO_EFFECTS: Effect[] = [];

export class Channel {
	readonly #limits: ChannelLimits;
	#state: "idle" | "authenticating" | "opening" | "connected" | "closed" = "idle";
	/** Of the input at hand. */
	#effects: Effect[] = NO_EFFECTS;
	/** Until the CONNACK is out: what is needed later is below, for an idle connection is to hold little. */
	#connect: ConnectPacket | undefined;
	#authenticationMethod: string | undefined;
	#will: WillFields | undefined;
	/** Whether the client asked for a session that ends with the connection. */
	#endsWithConnection = true;
	#version: ProtocolVersion = 4;
	#clientId = "";
	/** Until the CONNACK is out. */
	#granted: AuthenticatedEvent | undefined;
	/** Whose turn it is in an authentication under way. */
	#exchange: "none" | "client" | "server" = "none";
	#persistent = false;
	#keepAliveMs = 0;
	#lastPacketAtMs = 0;
	#session: LiveSession | undefined;
	/** Packets that wait for the CONNACK. */
	#early: ClientPacket[] | undefined;
	#earlyBytes = 0;

	constructor(limits: ChannelLimits) {
		this.#limits = limits;
	}

	get connected(): boolean {
		return this.#state === "connected";
	}

	get version(): ProtocolVersion {
		return this.#version;
	}

	/** Client id as the broker has it for the session, which a tenant's client does not know; empty before it is known. */
	get clientId(): string {
		return this.#clientId;
	}

	/** Whether the CONNECT had a will. */
	get hasWill(): boolean {
		return this.#will !== undefined;
	}

	/** Whether the session is kept in the store: it outlives the connection, or began with an earlier one that it did outlive. */
	get persistent(): boolean {
		return this.#persistent;
	}

	/** Subscriptions by filter. */
	get subscriptions(): ReadonlyMap<string, Subscription> {
		return this.#session?.subscriptions.byFilter ?? NO_SUBSCRIPTIONS;
	}

	/** How many more deliveries of QoS 1 or 2 could be sent at once. */
	get room(): number {
		return this.#state === "connected" ? (this.#session?.outbox.room ?? 0) : 0;
	}

	/** Deliveries that wait for room. */
	get queued(): number {
		return this.#session?.outbox.queued ?? 0;
	}

	/** Whether not even one more delivery may wait. */
	get full(): boolean {
		return this.#session?.outbox.full ?? false;
	}

	/** First call: the socket is open. */
	open(nowMs: number): readonly Effect[] {
		return [{ kind: "setTimer", atMs: nowMs + this.#limits.connectTimeoutSeconds * 1000 }];
	}

	/** Progress to store, with the serial number for the `recorded` event. */
	takeCheckpoint(): { readonly serial: number; readonly checkpoint: Checkpoint } | undefined {
		return this.#session?.outbox.takeCheckpoint();
	}

	/** Positions to read the logs from, for `fetch`. */
	positions(): readonly Position[] {
		return this.#session?.outbox.positions() ?? [];
	}

	/** @returns What is to be done, in order. The list is the caller's. */
	handle(input: Input, nowMs: number): readonly Effect[] {
		if (this.#state === "closed") return NO_EFFECTS;
		const effects: Effect[] = [];
		this.#effects = effects;
		this.#dispatch(input, nowMs);
		this.#effects = NO_EFFECTS;
		return effects;
	}

	#dispatch(input: Input, nowMs: number): void {
		switch (input.kind) {
			case "connect":
			case "publish":
			case "puback":
			case "pubrec":
			case "pubrel":
			case "pubcomp":
			case "subscribe":
			case "unsubscribe":
			case "pingreq":
			case "disconnect":
			case "auth":
				this.#lastPacketAtMs = nowMs;
				this.#packet(input, nowMs);
				break;
			case "malformed":
			case "textFrame":
			case "authenticated":
			case "authenticationContinues":
			case "authenticationRefused":
			case "opened":
			case "openFailed":
			case "timer":
			case "takenOver":
			case "end":
			case "revoked":
			case "socketClosed":
				this.#lifecycle(input, nowMs);
				break;
			default:
				this.#judge(this.#session?.event(input, nowMs, this.#effects));
		}
	}

	#lifecycle(event: LifecycleEvent, nowMs: number): void {
		switch (event.kind) {
			case "malformed":
				if (this.#state === "idle") this.#version = event.version;
				this.#fail(event.reasonCode, event.reason);
				break;
			case "textFrame":
				this.#fail(ReasonCode.malformedPacket, "MQTT needs binary WebSocket frames", "unsupportedData");
				break;
			case "authenticated":
				this.#authenticated(event);
				break;
			case "authenticationContinues":
				this.#exchange = "client";
				this.#sendAuth(ReasonCode.continueAuthentication, event.authenticationData);
				break;
			case "authenticationRefused":
				this.#fail(event.reasonCode, "the credentials were not accepted");
				break;
			case "opened":
				this.#opened(event.session, nowMs);
				break;
			case "openFailed":
				this.#fail(event.reasonCode, "the session could not be opened");
				break;
			case "timer":
				this.#timer(nowMs);
				break;
			case "takenOver":
				this.#leave(ReasonCode.sessionTakenOver, "another connection uses this client id", undefined);
				break;
			case "end":
				// Who has not sent CONNECT gets no CONNACK.
				if (this.#state === "idle") this.#close(closeKind(event.reasonCode), event.reasonCode, event.reason);
				else this.#fail(event.reasonCode, event.reason);
				break;
			case "revoked":
				// Nor is its last will done: it would be a publication of somebody who may not publish.
				if (this.#state === "connected") this.#leave(ReasonCode.notAuthorized, event.reason, "policy", "discard");
				else this.#fail(ReasonCode.notAuthorized, event.reason);
				break;
			case "socketClosed":
				this.#socketClosed();
				break;
		}
	}

	#packet(packet: ClientPacket, nowMs: number): void {
		switch (this.#state) {
			case "idle":
				if (packet.kind === "connect") this.#connecting(packet);
				else this.#fail(ReasonCode.protocolError, "the first packet must be CONNECT");
				break;
			case "authenticating":
			case "opening":
				if (packet.kind === "connect") this.#fail(ReasonCode.protocolError, "a second CONNECT");
				else if (packet.kind === "auth") this.#auth(packet);
				else this.#waitForConnack(packet);
				break;
			case "connected":
				this.#connectedPacket(packet, nowMs);
				break;
		}
	}

	#connectedPacket(packet: ClientPacket, nowMs: number): void {
		switch (packet.kind) {
			case "pingreq":
				this.#effects.push({ kind: "send", packet: { kind: "pingresp" } });
				break;
			case "disconnect":
				this.#disconnect(packet);
				break;
			case "auth":
				this.#auth(packet);
				break;
			case "connect":
				this.#fail(ReasonCode.protocolError, "a second CONNECT"); // [MQTT-3.1.0-2]
				break;
			default:
				this.#judge(this.#session?.packet(packet, nowMs, this.#effects));
		}
	}

	#judge(problem: Problem | undefined): void {
		if (problem !== undefined) this.#fail(problem.reasonCode, problem.reason);
	}

	#connecting(packet: ConnectPacket): void {
		// Nobody asks for the user properties, and a packet of 1 MB makes 20 MB of them: the connection must not keep them (P10).
		this.#connect = { ...packet, properties: { ...packet.properties, userProperties: [] } };
		this.#version = packet.protocolVersion;
		this.#clientId = packet.clientId;
		this.#will = packet.will;
		this.#authenticationMethod = packet.properties.authenticationMethod;
		this.#endsWithConnection = packet.properties.sessionExpirySeconds === 0;
		const problem = connectProblem(packet, this.#limits);
		if (problem !== undefined) {
			this.#judge(problem);
			return;
		}
		this.#state = "authenticating";
		const { authenticationMethod, authenticationData } = packet.properties;
		this.#authenticate("connect", authenticationMethod, authenticationData);
	}

	#authenticate(
		step: "connect" | "next" | "again",
		authenticationMethod: string | undefined,
		authenticationData: Uint8Array | undefined,
	): void {
		this.#exchange = "server";
		this.#effects.push({
			kind: "authenticate",
			clientId: this.#clientId,
			username: this.#connect?.username,
			password: this.#connect?.password,
			authenticationMethod,
			authenticationData,
			will: this.#will,
			step,
		});
	}

	/** AUTH goes on with an exchange (0x18) or begins a re-authentication (0x19), always by the method of the CONNECT. */
	#auth(packet: AuthPacket): void {
		const method = this.#authenticationMethod;
		if (method === undefined) {
			this.#fail(ReasonCode.protocolError, "AUTH without an authentication method in CONNECT"); // [MQTT-4.12.0-7]
		} else if (packet.authenticationMethod !== method) {
			this.#fail(ReasonCode.protocolError, "AUTH with another authentication method than CONNECT"); // [MQTT-4.12.0-5]
		} else if (packet.reasonCode === ReasonCode.continueAuthentication && this.#exchange === "client") {
			this.#authenticate("next", method, packet.authenticationData);
		} else if (packet.reasonCode === ReasonCode.reAuthenticate && this.#state === "connected" && this.#exchange === "none") {
			this.#authenticate("again", method, packet.authenticationData);
		} else this.#fail(ReasonCode.protocolError, "AUTH that nobody asked for");
	}

	#authenticated(event: AuthenticatedEvent): void {
		this.#exchange = "none";
		if (this.#state === "connected") {
			this.#sendAuth(ReasonCode.success, event.authenticationData);
			return;
		}
		if (this.#state !== "authenticating") return;
		const opening = sessionToOpen(this.#connect as ConnectPacket, event, this.#limits);
		if ("reasonCode" in opening) {
			this.#judge(opening);
			return;
		}
		this.#state = "opening";
		this.#granted = event;
		this.#clientId = opening.clientId;
		this.#effects.push(opening);
	}

	#sendAuth(reasonCode: ReasonCode, data: Uint8Array | undefined): void {
		const authenticationMethod = this.#authenticationMethod;
		if (authenticationMethod === undefined) {
			this.#fail(ReasonCode.badAuthenticationMethod, "it takes an authentication method in CONNECT"); // [MQTT-4.12.0-6]
			return;
		}
		const packet = { kind: "auth", reasonCode, authenticationMethod, ...(data !== undefined && { authenticationData: data }) } as const;
		this.#effects.push({ kind: "send", packet });
	}

	#opened(opened: OpenedSession, nowMs: number): void {
		const packet = this.#connect as ConnectPacket;
		this.#state = "connected";
		this.#persistent = opened.sessionPresent || grantedSessionExpiry(packet.properties.sessionExpirySeconds, this.#limits) > 0;
		this.#session = new LiveSession(packet, this.#clientId, this.#granted?.tenancy, this.persistent, this.#limits, nowMs);
		this.#session.resume(opened, () => this.#greet(packet, opened.sessionPresent, nowMs), this.#effects);
		this.#connect = undefined;
		this.#granted = undefined;
		const early = this.#early ?? [];
		this.#early = undefined;
		for (const waiting of early) if (this.#state === "connected") this.#connectedPacket(waiting, nowMs);
	}

	#greet(packet: ConnectPacket, sessionPresent: boolean, nowMs: number): void {
		const assignedClientId = packet.clientId === "" ? this.#granted?.assignedClientId : undefined;
		const properties = connackProperties(packet, assignedClientId, this.#granted?.authenticationData, this.#limits);
		this.#effects.push({ kind: "send", packet: { kind: "connack", reasonCode: ReasonCode.success, sessionPresent, properties } });
		this.#keepAliveMs = grantedKeepAlive(packet, this.#limits) * 1500; // 1.5 times, in ms [MQTT-3.1.2-22]
		this.#effects.push({ kind: "setTimer", atMs: this.#keepAliveMs > 0 ? nowMs + this.#keepAliveMs : Number.POSITIVE_INFINITY });
		this.#lastPacketAtMs = nowMs;
	}

	/** A client may send DISCONNECT and leave before its session is open: then its will is as void as otherwise [MQTT-3.14.4-3]. */
	#socketClosed(): void {
		const farewell = this.#early?.find((packet) => packet.kind === "disconnect");
		this.#closeSession(undefined, farewell?.reasonCode === ReasonCode.success ? "discard" : "keep");
		this.#state = "closed";
	}

	/** A client need not wait for CONNACK before it goes on, unless it chose enhanced authentication [MQTT-3.1.2-30]. */
	#waitForConnack(packet: ClientPacket): void {
		if (packet.kind === "publish") this.#earlyBytes += packet.payload.length;
		if (this.#authenticationMethod !== undefined && packet.kind !== "disconnect") {
			this.#fail(ReasonCode.protocolError, "only AUTH and DISCONNECT may precede CONNACK after an authentication method");
			return;
		}
		if (packet.kind === "disconnect" && this.#state === "authenticating" && this.#exchange === "client") {
			this.#close("normal", ReasonCode.success, "");
			return;
		}
		this.#early ??= [];
		if (this.#early.length < MAX_EARLY_PACKETS && this.#earlyBytes <= this.#limits.maxPacketSize) this.#early.push(packet);
		else this.#fail(ReasonCode.quotaExceeded, "too many packets before CONNACK");
	}

	#disconnect(packet: DisconnectPacket): void {
		const expiry = packet.sessionExpirySeconds === ABSENT ? undefined : packet.sessionExpirySeconds;
		if (expiry !== undefined && expiry > 0 && this.#endsWithConnection) {
			this.#fail(ReasonCode.protocolError, "a session that was to end with its connection cannot be kept");
			return;
		}
		const kept = expiry === undefined ? undefined : grantedSessionExpiry(expiry, this.#limits);
		this.#closeSession(kept, packet.reasonCode === ReasonCode.success ? "discard" : "keep"); // [MQTT-3.14.4-3]
		this.#close("normal", ReasonCode.success, "");
	}

	#timer(nowMs: number): void {
		if (this.#state === "connected") {
			const deadline = this.#lastPacketAtMs + this.#keepAliveMs;
			if (nowMs < deadline) this.#effects.push({ kind: "setTimer", atMs: deadline });
			else this.#fail(ReasonCode.keepAliveTimeout, "nothing was heard for one and a half times the keep alive");
		} else this.#fail(ReasonCode.unspecifiedError, `no complete CONNECT within ${this.#limits.connectTimeoutSeconds} s`);
	}

	/** Ends the connection from this side: tells the client why where its protocol can, keeps the will. */
	#fail(reasonCode: ReasonCode, reason: string, how: CloseKind = closeKind(reasonCode)): void {
		if (this.#state === "connected") {
			this.#leave(reasonCode, reason, how);
			return;
		}
		// Before CONNACK there is no DISCONNECT [MQTT-3.14.0-1]; where 3.x has no return code, the close says it all.
		if (this.#version === 5 || connackReturnCode(reasonCode) !== undefined) this.#refuse(reasonCode, reason);
		this.#closeSession(undefined, "discard"); // a will counts once its CONNECT is accepted [MQTT-3.1.2-7]
		this.#close(how, reasonCode, reason);
	}

	#refuse(reasonCode: ReasonCode, reason: string): void {
		const properties = reason === "" ? {} : { reasonString: reason };
		const told = this.#version === 5 ? refusalCode(reasonCode) : reasonCode;
		this.#effects.push({ kind: "send", packet: { kind: "connack", reasonCode: told, sessionPresent: false, properties } });
	}

	#leave(reasonCode: ReasonCode, reason: string, how: CloseKind | undefined, will: "discard" | "keep" = "keep"): void {
		if (this.#state === "connected" && this.#version === 5) {
			this.#effects.push({ kind: "send", packet: { kind: "disconnect", reasonCode: disconnectCode(reasonCode), reasonString: reason } });
		}
		// After a takeover the session belongs to the other connection: it is neither closed nor its will published.
		if (how !== undefined) this.#closeSession(undefined, will, reasonCode === ReasonCode.serverShuttingDown);
		else {
			this.#session?.outbox.abandon(this.#effects);
			this.#effects.push({ kind: "handOver" });
		}
		this.#close(how ?? closeKind(reasonCode), reasonCode, reason);
	}

	#closeSession(sessionExpirySeconds: number | undefined, will: "discard" | "keep", sentAway = false): void {
		if (this.#state !== "opening" && this.#state !== "connected") return;
		this.#session?.outbox.abandon(this.#effects);
		this.#effects.push({ kind: "closeSession", sessionExpirySeconds, will, sentAway });
	}

	#close(how: CloseKind, reasonCode: ReasonCode, reason: string): void {
		this.#effects.push({ kind: "close", how, reasonCode, reason });
		this.#state = "closed";
	}
}
