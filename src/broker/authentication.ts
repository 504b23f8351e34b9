/** Asks the authenticator who a client is: at CONNECT, in each round of an exchange, and when a client authenticates again. */

import { type AuthExchange, type AuthOutcome, NOBODY, type Principal } from "../auth/auth.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Effect, Input } from "../session/effects.ts";
import type { Socket } from "../transport/socket.ts";
import type { ConnectionContext } from "./context.ts";

export type AuthenticateEffect = Extract<Effect, { kind: "authenticate" }>;

export class Authentication {
	readonly #context: ConnectionContext;
	readonly #socket: Socket;
	#principal = NOBODY;
	#exchange: AuthExchange | undefined;

	constructor(context: ConnectionContext, socket: Socket) {
		this.#context = context;
		this.#socket = socket;
	}

	/** Who the client is; nobody until it is authenticated. */
	get principal(): Principal {
		return this.#principal;
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
		const { clientId, username, password, authenticationMethod, authenticationData, step } = effect;
		if (step === "next" && this.#exchange !== undefined) return this.#exchange.next(authenticationData);
		const credentials = { clientId, username, password, authenticationMethod, authenticationData, peer: this.#socket.peer };
		return this.#context.authenticator.authenticate(credentials, step === "again" ? this.#principal : undefined);
	}

	#outcome(outcome: AuthOutcome, effect: AuthenticateEffect, handle: (input: Input) => void): void {
		this.#exchange = outcome.kind === "continue" ? outcome.exchange : undefined;
		if (outcome.kind === "continue") {
			handle({ kind: "authenticationContinues", authenticationData: outcome.authenticationData });
		} else if (outcome.kind === "refused") {
			this.#refuse(outcome.reasonCode, handle);
		} else {
			this.#principal = outcome.principal;
			this.#judgeWill(effect, outcome.authenticationData, handle);
		}
	}

	/** A will is a publication: its right is checked before the CONNECT is accepted. */
	#judgeWill({ will, clientId }: AuthenticateEffect, authenticationData: Uint8Array | undefined, handle: (input: Input) => void): void {
		const principal = this.#principal;
		const assignedClientId = principal.clientId ?? `shoal-${crypto.randomUUID()}`;
		const granted: Input = { kind: "authenticated", assignedClientId, authenticationData };
		if (will === undefined) {
			handle(granted);
			return;
		}
		const access = { action: "publish", topic: will.topic.name, qos: will.qos, retain: will.retain } as const;
		const permitted = this.#context.authorizer.permits(principal, clientId === "" ? assignedClientId : clientId, access);
		if (permitted === true) handle(granted);
		else if (permitted === false) this.#refuse(ReasonCode.notAuthorized, handle);
		else {
			permitted.then(
				(yes) => (yes ? handle(granted) : this.#refuse(ReasonCode.notAuthorized, handle)),
				(error) => this.#failed(error, handle),
			);
		}
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
