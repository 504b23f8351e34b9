/** Asks the authenticator who a client is: at CONNECT, in each round of an exchange, and when a client authenticates again. */

import { type AuthExchange, type AuthOutcome, type Credentials, NOBODY, type Principal } from "../auth/auth.ts";
import { usableLevel } from "../auth/identity.ts";
import type { WillFields } from "../mqtt/packet.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import { Tenancy } from "../mqtt/tenancy.ts";
import type { Effect, Input } from "../session/effects.ts";
import type { Subscription } from "../session/subscription.ts";
import type { Socket } from "../transport/socket.ts";
import { ClientRights } from "./client_rights.ts";
import type { ConnectionContext } from "./context.ts";

export type AuthenticateEffect = Extract<Effect, { kind: "authenticate" }>;

export class Authentication {
	readonly #context: ConnectionContext;
	readonly #socket: Socket;
	readonly #onPrincipal: () => void;
	#principal = NOBODY;
	#exchange: AuthExchange | undefined;
	#will: WillFields | undefined;
	/** Made when rights are first asked for: before, nobody knows the client id. */
	#rights: ClientRights | undefined;
	/** The client's own name for itself; empty until it is authenticated. */
	#clientId = "";
	#tenancy: Tenancy | undefined;
	#judging = false;
	#judgeAgain = false;

	/** @param onPrincipal Called when the client has become somebody. */
	constructor(context: ConnectionContext, socket: Socket, onPrincipal: () => void) {
		this.#context = context;
		this.#socket = socket;
		this.#onPrincipal = onPrincipal;
	}

	/** Who the client is; nobody until it is authenticated. */
	get principal(): Principal {
		return this.#principal;
	}

	get rights(): ClientRights {
		const { authorizer, revocations } = this.#context;
		this.#rights ??= new ClientRights(authorizer, revocations, this.#principal, this.#clientId, this.#tenancy);
		return this.#rights;
	}

	/**
	 * A client without enhanced authentication brings its next token by a publication. Answers the reason code of that:
	 * `success` when it has new rights and a new deadline.
	 */
	async renew(token: Uint8Array): Promise<ReasonCode> {
		const { peer } = this.#socket;
		const credentials = {
			clientId: this.#clientId,
			username: undefined,
			password: token,
			authenticationMethod: undefined,
			authenticationData: undefined,
			peer,
		};
		try {
			const outcome = await this.#context.authenticator.authenticate(credentials, this.#principal);
			if (outcome.kind !== "granted" || !this.#livesWhereItSays(outcome.principal)) return ReasonCode.notAuthorized;
			this.#become(outcome.principal, this.#clientId);
			return ReasonCode.success;
		} catch (error) {
			this.#context.log.error("Authentication gave no answer", { error });
			return ReasonCode.notAuthorized;
		}
	}

	/** Carries out one step; its outcome goes to `handle`. */
	step(effect: AuthenticateEffect, handle: (input: Input) => void): void {
		let outcome: AuthOutcome | Promise<AuthOutcome>;
		try {
			outcome = this.#ask(effect);
		} catch (error) {
			this.#failed(error, handle);
			return;
		}
		if (!(outcome instanceof Promise)) this.#outcome(outcome, effect, handle);
		else {
			outcome.then(
				(result) => this.#outcome(result, effect, handle),
				(error) => this.#failed(error, handle),
			);
		}
	}

	#ask(effect: AuthenticateEffect): AuthOutcome | Promise<AuthOutcome> {
		const { username, password, authenticationMethod, authenticationData, step } = effect;
		if (step === "next" && this.#exchange !== undefined) return this.#exchange.next(authenticationData);
		const { peer } = this.#socket;
		const credentials: Credentials = {
			clientId: this.#ownId(effect),
			username,
			password,
			authenticationMethod,
			authenticationData,
			peer,
			...(peer.token !== undefined && { token: peer.token }),
			...(peer.certificate !== undefined && { certificate: peer.certificate }),
		};
		return this.#context.authenticator.authenticate(credentials, step === "again" ? this.#principal : undefined);
	}

	#outcome(outcome: AuthOutcome, effect: AuthenticateEffect, handle: (input: Input) => void): void {
		this.#exchange = outcome.kind === "continue" ? outcome.exchange : undefined;
		if (outcome.kind === "continue") {
			handle({ kind: "authenticationContinues", authenticationData: outcome.authenticationData });
		} else if (outcome.kind === "refused") {
			this.#refuse(outcome.reasonCode, handle);
		} else {
			this.#granted(outcome.principal, effect, outcome.authenticationData, handle);
		}
	}

	/** Once the session is open, the broker's name for the client is not the client's own, if it is of a tenant. */
	#ownId({ clientId }: AuthenticateEffect): string {
		return this.#clientId === "" ? clientId : this.#clientId;
	}

	/** A tenant is one level of topics, and a client stays in the space that it came to. */
	#livesWhereItSays({ tenant }: Principal): boolean {
		if (this.#clientId !== "" && tenant !== this.#principal.tenant) return false;
		return tenant === undefined || usableLevel(tenant) !== undefined;
	}

	#granted(
		principal: Principal,
		effect: AuthenticateEffect,
		authenticationData: Uint8Array | undefined,
		handle: (input: Input) => void,
	): void {
		const assignedClientId = principal.clientId ?? `shoal-${crypto.randomUUID()}`;
		const ownId = this.#ownId(effect);
		const usedId = ownId === "" ? assignedClientId : ownId;
		const { will } = effect;
		if (!this.#livesWhereItSays(principal)) {
			this.#refuse(ReasonCode.notAuthorized, handle);
			return;
		}
		if (this.#context.authorizer.admits?.(principal, usedId) === false) {
			this.#refuse(ReasonCode.clientIdentifierNotValid, handle);
			return;
		}
		const again = this.#principal !== NOBODY;
		this.#will = will;
		this.#become(principal, usedId);
		const granted: Input = { kind: "authenticated", assignedClientId, authenticationData, tenancy: this.#tenancy };
		if (will === undefined) {
			handle(granted);
			return;
		}
		// A will is a publication: its right is checked before the CONNECT is accepted.
		const access = { action: "publish", topic: will.topic.name, qos: will.qos, retain: will.retain } as const;
		const permitted = this.#context.authorizer.permits(principal, usedId, access);
		const refuse = () => {
			// Of a client that is connected the will goes with the right to it.
			if (again) handle({ kind: "revoked", reason: "its new rights do not cover its will" });
			else this.#refuse(ReasonCode.notAuthorized, handle);
		};
		if (permitted === true) handle(granted);
		else if (permitted === false) refuse();
		else {
			permitted.then(
				(yes) => (yes ? handle(granted) : refuse()),
				(error) => this.#failed(error, handle),
			);
		}
	}

	/** Judges again what the client has; what it may not have any more ends the connection. */
	async judgeAgain(subscriptions: () => Iterable<Subscription>, handle: (input: Input) => void): Promise<void> {
		if (this.#principal === NOBODY) return;
		this.#judgeAgain = true;
		if (this.#judging) return;
		this.#judging = true;
		while (this.#judgeAgain) {
			this.#judgeAgain = false;
			const judgement = await this.rights.judge({ subscriptions: subscriptions(), will: this.#will });
			if (judgement === "revoked") handle({ kind: "revoked", reason: "its rights were taken back" });
			else if (judgement === "reduced") {
				handle({ kind: "end", reasonCode: ReasonCode.notAuthorized, reason: "its rights have changed" });
			}
		}
		this.#judging = false;
	}

	#become(principal: Principal, clientId: string): void {
		if (principal.tenant !== undefined) this.#tenancy ??= new Tenancy(principal.tenant, this.#context.topics);
		this.#principal = principal;
		this.#clientId = clientId;
		this.#rights?.change(principal, clientId);
		this.#onPrincipal();
	}

	#refuse(reasonCode: ReasonCode, handle: (input: Input) => void): void {
		handle({ kind: "authenticationRefused", reasonCode });
	}

	/** Whoever cannot be asked has not said yes. */
	#failed(error: unknown, handle: (input: Input) => void): void {
		this.#context.log.error("Authentication gave no answer", { error });
		this.#refuse(ReasonCode.serverUnavailable, handle);
	}
}
