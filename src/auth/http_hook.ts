/**
 * Asks a service of the operator who a client is: one POST with what the client brought, one JSON answer. Answers are kept for a
 * while under a keyed hash, so that no password stays in memory. Fails closed: whatever is not a clear answer is `Unavailable`.
 */

import { createHmac, randomBytes } from "node:crypto";
import type { Clock } from "../clock.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { AuthOutcome, Credentials, Principal } from "./auth.ts";
import { checkedUrl, type Fetch, requestJson } from "./http_client.ts";
import { usableLevel, usableName } from "./identity.ts";
import { makeRoom } from "./make_room.ts";
import { type ChainMember, IGNORED, type MemberOutcome, refused, Unavailable } from "./member.ts";
import { grantsFromClaims, TokenGrantsError, type TokenGrantsOptions } from "./token_grants.ts";

export interface HttpHookOptions {
	/** https, or http to the loopback interface. */
	readonly url: string;
	readonly clock: Clock;
	/** Sent with every request, such as `authorization` with a secret by which the service knows this server. */
	readonly headers?: Readonly<Record<string, string>>;
	/** For one request. Default 3 000. */
	readonly timeoutMs?: number;
	/** How long an answer counts for the same credentials from the same address. Default 30 000; 0 for never. */
	readonly cacheMs?: number;
	/** Answers that are kept; the oldest makes room. Default 10 000. */
	readonly maxCached?: number;
	/** Requests under way. More are refused with 0x97. Default 64. */
	readonly maxConcurrent?: number;
	/** How `acl` in the answer is read. */
	readonly grants?: TokenGrantsOptions;
	/** Default the platform's. */
	readonly fetch?: Fetch;
}

/**
 * The answer of the service. Fields beyond these are ignored; one of these with a value of another type makes the whole answer
 * count for nothing.
 */
interface HookAnswer {
	/** `ignore`: ask the members after this one. */
	readonly result: "allow" | "deny" | "ignore";
	/** The only client id that the client may use; assigned when it sent none. */
	readonly clientId?: string;
	/** Who it is; default the user name that it sent. */
	readonly username?: string;
	readonly tenant?: string;
	/** Rights, in the form of the claim of a token. */
	readonly acl?: unknown;
	/** When the rights end, in seconds since 1970. */
	readonly expiresAt?: number;
}

const MAX_ANSWER_BYTES = 65_536;

/** Makes the member, which takes everything but enhanced authentication. @throws {TypeError} for a URL that is not allowed. */
export function httpHookMember(options: HttpHookOptions): ChainMember {
	const url = checkedUrl(options.url, "The authentication hook");
	const { clock, cacheMs = 30_000, maxCached = 10_000, maxConcurrent = 64, timeoutMs = 3_000, headers = {} } = options;
	const { fetch: ask = (to, init) => fetch(to, init) } = options;
	const cache = new AnswerCache(clock, cacheMs, maxCached);
	const underWay = new Map<string, Promise<HookAnswer>>();

	const post = async (body: string, key: string): Promise<HookAnswer> => {
		const init = { method: "POST", body, headers: { ...headers, "content-type": "application/json", accept: "application/json" } };
		const answer = checkedAnswer(await requestJson(ask, url, init, { timeoutMs, maxBytes: MAX_ANSWER_BYTES }));
		cache.put(key, answer);
		return answer;
	};

	return {
		name: "http",
		async authenticate(credentials) {
			if (credentials.authenticationMethod !== undefined) return IGNORED;
			const body = requestBody(credentials);
			const key = cache.keyOf(body);
			const known = cache.get(key);
			if (known !== undefined) return outcomeOf(known, credentials, options.grants);
			let answer = underWay.get(key);
			if (answer === undefined) {
				if (underWay.size >= maxConcurrent) return refused(ReasonCode.quotaExceeded, "too many questions to the hook", false);
				answer = post(body, key).finally(() => underWay.delete(key));
				underWay.set(key, answer);
			}
			return outcomeOf(await answer, credentials, options.grants);
		},
	};
}

/** What the service is told. Absent fields are those that the client did not bring. */
function requestBody({ clientId, username, password, token, certificate, peer }: Credentials): string {
	return JSON.stringify({
		clientId,
		username,
		...passwordField(password),
		token,
		certificate,
		address: peer.address,
		transport: peer.transport,
	});
}

/** As text where it is text; every other password in base64, because JSON has no bytes. */
function passwordField(password: Uint8Array | undefined): { readonly password?: string; readonly passwordBase64?: string } {
	if (password === undefined) return {};
	try {
		return { password: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(password) };
	} catch {
		return { passwordBase64: Buffer.from(password).toString("base64") };
	}
}

function checkedAnswer(document: unknown): HookAnswer {
	const answer = (typeof document === "object" && document !== null ? document : {}) as Record<keyof HookAnswer, unknown>;
	const { result, clientId, username, tenant, acl, expiresAt } = answer;
	if (result !== "allow" && result !== "deny" && result !== "ignore") {
		throw new Unavailable('The authentication hook answered without a "result" of allow, deny or ignore');
	}
	const wrong = (field: string) => new Unavailable(`The authentication hook answered with an unusable "${field}"`);
	if (clientId !== undefined && usableName(clientId) === undefined) throw wrong("clientId");
	if (username !== undefined && usableName(username) === undefined) throw wrong("username");
	if (tenant !== undefined && usableLevel(tenant) === undefined) throw wrong("tenant");
	if (expiresAt !== undefined && !Number.isFinite(expiresAt)) throw wrong("expiresAt");
	return { result, acl, ...({ clientId, username, tenant, expiresAt } as Omit<HookAnswer, "result" | "acl">) };
}

function outcomeOf(answer: HookAnswer, credentials: Credentials, options: TokenGrantsOptions | undefined): MemberOutcome {
	if (answer.result === "ignore") return IGNORED;
	if (answer.result === "deny") return refused(ReasonCode.badUserNameOrPassword, "the hook denies it");
	const { clientId, tenant, expiresAt } = answer;
	if (clientId !== undefined && credentials.clientId !== "" && credentials.clientId !== clientId) {
		return refused(ReasonCode.clientIdentifierNotValid, "the hook allows another client id", false);
	}
	const username = answer.username ?? usableName(credentials.username);
	const granted: Principal = {
		name: username ?? clientId ?? "",
		method: "http",
		expiresAtMs: expiresAt === undefined ? Number.POSITIVE_INFINITY : expiresAt * 1000,
		...(clientId !== undefined && { clientId, boundClientId: clientId }),
		...(username !== undefined && { username }),
		...(tenant !== undefined && { tenant }),
	};
	return withGrants(granted, answer.acl, options);
}

function withGrants(principal: Principal, acl: unknown, options: TokenGrantsOptions | undefined): AuthOutcome {
	if (acl === undefined) return { kind: "granted", principal };
	try {
		const grants = grantsFromClaims({ [options?.aclClaim ?? "acl"]: acl }, options);
		return { kind: "granted", principal: grants === undefined ? principal : { ...principal, grants } };
	} catch (error) {
		if (error instanceof TokenGrantsError)
			throw new Unavailable('The authentication hook answered with an unusable "acl"', { cause: error });
		throw error;
	}
}

class AnswerCache {
	readonly #clock: Clock;
	readonly #ttlMs: number;
	readonly #maxEntries: number;
	/** Makes the keys useless to whoever reads the memory later. */
	readonly #secret = randomBytes(32);
	/** The oldest first: all live equally long. */
	readonly #answers = new Map<string, { readonly answer: HookAnswer; readonly untilMs: number }>();

	constructor(clock: Clock, ttlMs: number, maxEntries: number) {
		this.#clock = clock;
		this.#ttlMs = ttlMs;
		this.#maxEntries = maxEntries;
	}

	keyOf(body: string): string {
		return createHmac("sha256", this.#secret).update(body).digest("base64");
	}

	get(key: string): HookAnswer | undefined {
		const entry = this.#answers.get(key);
		return entry !== undefined && entry.untilMs > this.#clock.nowMs() ? entry.answer : undefined;
	}

	put(key: string, answer: HookAnswer): void {
		if (this.#ttlMs <= 0) return;
		this.#answers.delete(key);
		makeRoom(this.#answers, this.#maxEntries);
		this.#answers.set(key, { answer, untilMs: this.#clock.nowMs() + this.#ttlMs });
	}
}
