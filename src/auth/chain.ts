/**
 * All ways to authenticate, in configured order, as the one authenticator of the broker. Whoever no member knows is refused,
 * and so is everybody whom a member could not judge. What holds for all members stands here: throttling, revocation, and that a
 * client that authenticates again stays who it was.
 */

import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import { clientIdOf } from "../mqtt/tenancy.ts";
import type { AuthExchange, Authenticator, AuthOutcome, Credentials, Principal } from "./auth.ts";
import { sameIdentity } from "./identity.ts";
import { type ChainMember, type MemberOutcome, refused } from "./member.ts";
import type { RevocationList } from "./revocations.ts";
import type { LoginThrottle } from "./throttle.ts";

export interface ChainOptions {
	/** In the order in which they are asked. */
	readonly members: readonly ChainMember[];
	/** Asked last, and only about clients that bring nothing at all: no name, password, token, certificate or method. */
	readonly anonymous?: Authenticator;
	readonly throttle?: LoginThrottle;
	readonly revocations?: RevocationList;
	readonly clock: Clock;
	readonly log: Logger;
}

/** Refusals that may have been guesses; the others are about the server or about order. */
const GUESSES: ReadonlySet<ReasonCode> = new Set([
	ReasonCode.badUserNameOrPassword,
	ReasonCode.notAuthorized,
	ReasonCode.clientIdentifierNotValid,
]);

const BLOCKED = refused(ReasonCode.banned, "too many failed logins");

/** Makes the authenticator. Its promises do not reject: trouble is logged and refused with 0x88. */
export function createAuthenticationChain(options: ChainOptions): Authenticator {
	return { authenticate: (credentials, current) => new Attempt(options, credentials, current).begin() };
}

/** One login, from CONNECT or AUTH 0x19 to its end. */
class Attempt {
	readonly #options: ChainOptions;
	readonly #credentials: Credentials;
	readonly #current: Principal | undefined;
	#member = "";
	/** Whether failures under the user name matter to the member that is asked. */
	#namesCount = false;
	#username: string | undefined;

	constructor(options: ChainOptions, credentials: Credentials, current: Principal | undefined) {
		this.#options = options;
		this.#credentials = credentials;
		this.#current = current;
		this.#username = credentials.username;
	}

	begin(): Promise<AuthOutcome> {
		return this.#judged(() => this.#asked());
	}

	async #asked(): Promise<MemberOutcome> {
		for (const member of this.#options.members) {
			this.#member = member.name;
			this.#namesCount = member.ignoresUsername !== true;
			if (this.#blocked()) return BLOCKED;
			const outcome = await member.authenticate(this.#credentials, this.#current);
			if (outcome.kind !== "ignored") return outcome;
		}
		this.#member = "";
		this.#namesCount = true;
		const { authenticationMethod, username, password, token, certificate } = this.#credentials;
		if (authenticationMethod !== undefined) return refused(ReasonCode.badAuthenticationMethod, "nobody knows the authentication method");
		const brings = username ?? password ?? token ?? certificate;
		const { anonymous } = this.#options;
		if (brings === undefined && anonymous !== undefined) return anonymous.authenticate(this.#credentials, this.#current);
		return refused(ReasonCode.badUserNameOrPassword, "nobody knows such credentials", brings !== undefined);
	}

	/** One step and what follows from it. */
	async #judged(step: () => Promise<MemberOutcome>): Promise<AuthOutcome> {
		let outcome: MemberOutcome;
		try {
			outcome = this.#blocked() ? BLOCKED : await step();
			if (outcome.kind === "continue") return this.#continued(outcome);
			if (outcome.kind === "granted") outcome = await this.#granted(outcome);
		} catch (error) {
			this.#options.log.error("Cannot judge a login", { ...this.#fields(), error });
			return { kind: "refused", reasonCode: ReasonCode.serverUnavailable };
		}
		if (outcome.kind === "ignored") outcome = refused(ReasonCode.badUserNameOrPassword, "the exchange came to nothing");
		if (outcome.kind === "refused") this.#refused(outcome.reasonCode, outcome.why, outcome.guess);
		return outcome.kind === "refused" ? { kind: "refused", reasonCode: outcome.reasonCode } : outcome;
	}

	#blocked(): boolean {
		return this.#options.throttle?.blocks(this.#credentials.peer.address, this.#throttledName) ?? false;
	}

	get #throttledName(): string | undefined {
		return this.#namesCount ? this.#username : undefined;
	}

	#continued(outcome: Extract<AuthOutcome, { kind: "continue" }>): AuthOutcome {
		this.#username = outcome.username ?? this.#username;
		const exchange: AuthExchange = { next: (data) => this.#judged(async () => outcome.exchange.next(data)) };
		return { kind: "continue", authenticationData: outcome.authenticationData, exchange };
	}

	async #granted(outcome: Extract<AuthOutcome, { kind: "granted" }>): Promise<AuthOutcome> {
		const { principal } = outcome;
		const { clientId } = this.#credentials;
		if (this.#current !== undefined && !sameIdentity(this.#current, principal)) {
			return refused(ReasonCode.notAuthorized, "it authenticated again as somebody else", false);
		}
		if (principal.boundClientId !== undefined && clientId !== "" && clientId !== principal.boundClientId) {
			return refused(ReasonCode.clientIdentifierNotValid, "its rights are for another client id", false);
		}
		if (principal.expiresAtMs <= this.#options.clock.nowMs())
			return refused(ReasonCode.badUserNameOrPassword, "its rights have ended", false);
		const usedId = clientId === "" ? (principal.clientId ?? "") : clientId;
		if ((await this.#options.revocations?.isRevoked(principal, usedId === "" ? "" : clientIdOf(principal.tenant, usedId))) === true) {
			return refused(ReasonCode.notAuthorized, "its rights were revoked", false);
		}
		return outcome;
	}

	#refused(reasonCode: ReasonCode, why: string | undefined, guess = true): void {
		if (guess && GUESSES.has(reasonCode)) this.#options.throttle?.failed(this.#credentials.peer.address, this.#throttledName);
		const { log } = this.#options;
		const fields = { ...this.#fields(), why: why ?? "no reason given", reasonCode };
		// Whoever is banned may go on trying as fast as it can: that is not worth a line each.
		if (reasonCode === ReasonCode.banned) log.debug("Login refused: {why}", fields);
		else log.info("Login refused: {why}", fields);
	}

	#fields(): Readonly<Record<string, unknown>> {
		const { clientId, peer } = this.#credentials;
		// Some clients put the token into the wrong field.
		const username = this.#username?.startsWith("eyJ") ? "(a token?)" : this.#username;
		return { member: this.#member, clientId, username, address: peer.address, again: this.#current !== undefined };
	}
}
