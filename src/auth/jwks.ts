/**
 * The keys of an issuer from its JWKS document, found by URL or by OIDC discovery, and kept while the endpoint is down. At
 * most one request per cool-down, whatever the tokens say. Reads no token.
 */

import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import { checkedUrl, type Fetch, isPrivateHost, requestJson } from "./http_client.ts";
import { type KeyHint, type KeySource, matching } from "./key_source.ts";
import { Unavailable } from "./member.ts";
import { publicKey, type VerificationKey } from "./verification_key.ts";

export interface RemoteKeyOptions {
	readonly clock: Clock;
	readonly log: Logger;
	/** Between two requests, whatever asks for them. Default 30 000. */
	readonly cooldownMs?: number;
	/** Age from which keys are fetched anew in the background. Default 300 000. */
	readonly refreshMs?: number;
	/** Age from which keys that could not be fetched anew count no more. Default 24 h. */
	readonly maxAgeMs?: number;
	/** For one request. Default 5 000. */
	readonly timeoutMs?: number;
	/** Default the platform's. */
	readonly fetch?: Fetch;
}

const MAX_DOCUMENT_BYTES = 65_536;
/** What public keys verify. For any other a key set need not be asked, and one that is away refuses nobody. */
const PUBLIC_KEY_ALGORITHM = /^((RS|PS|ES)(256|384|512)|EdDSA|Ed25519)$/;
const JSON_TYPES = "application/jwk-set+json, application/json";

/** Keys from a JWKS URL. @throws {TypeError} for a URL that is not https (or http to the loopback interface). */
export function jwksSource(address: string, options: RemoteKeyOptions): KeySource {
	const url = checkedUrl(address, "The JWKS URL");
	return new RemoteKeys((get) => get(url), url.host, options);
}

/**
 * Keys of an OpenID Connect issuer, found through its discovery document, which is read again with every refresh.
 * @throws {TypeError} for an issuer that is not https (or http to the loopback interface).
 */
export function oidcSource(issuer: string, options: RemoteKeyOptions): KeySource {
	const base = checkedUrl(issuer, "The issuer");
	if (base.search !== "") throw new TypeError(`The issuer ${base.host} has a query: OpenID Connect allows none`);
	const discovery = new URL(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
	const load = async (get: GetJson) => get(jwksUrlOf(await get(discovery), issuer, base));
	return new RemoteKeys(load, base.host, options);
}

/** The key set's address in a discovery document, which must be the issuer's own and must not point into private networks. */
function jwksUrlOf(document: unknown, issuer: string, base: URL): URL {
	const fields = (typeof document === "object" ? document : null) as { readonly issuer?: unknown; readonly jwks_uri?: unknown } | null;
	if (fields?.issuer !== issuer) throw new Unavailable(`The discovery document of ${base.host} is for another issuer`);
	if (typeof fields.jwks_uri !== "string") throw new Unavailable(`The discovery document of ${base.host} names no key set`);
	let url: URL;
	try {
		url = checkedUrl(fields.jwks_uri, "The key set");
	} catch (error) {
		throw new Unavailable(`The discovery document of ${base.host} names a key set that may not be asked`, { cause: error });
	}
	if (url.hostname !== base.hostname && isPrivateHost(url.hostname)) {
		throw new Unavailable(`The discovery document of ${base.host} names a key set in a private network`);
	}
	return url;
}

type GetJson = (url: URL) => Promise<unknown>;

class RemoteKeys implements KeySource {
	readonly #load: (get: GetJson) => Promise<unknown>;
	readonly #host: string;
	readonly #options: Required<RemoteKeyOptions>;
	#keys: readonly VerificationKey[] = [];
	#fetchedAtMs = Number.NEGATIVE_INFINITY;
	#triedAtMs = Number.NEGATIVE_INFINITY;
	#failed: Unavailable | undefined;
	#fetching: Promise<void> | undefined;

	constructor(load: (get: GetJson) => Promise<unknown>, host: string, options: RemoteKeyOptions) {
		this.#load = load;
		this.#host = host;
		this.#options = {
			cooldownMs: 30_000,
			refreshMs: 300_000,
			maxAgeMs: 86_400_000,
			timeoutMs: 5_000,
			fetch: (url, init) => fetch(url, init),
			...options,
		};
	}

	find(hint: KeyHint): readonly VerificationKey[] | Promise<readonly VerificationKey[]> {
		if (!PUBLIC_KEY_ALGORITHM.test(hint.algorithm)) return [];
		const found = this.#usable(hint);
		if (found.length === 0) return this.#searched(hint);
		// The keys are good until their maximum age: nobody waits for the new ones.
		if (this.#ageMs() >= this.#options.refreshMs) void this.#refreshed();
		return found;
	}

	async #searched(hint: KeyHint): Promise<readonly VerificationKey[]> {
		await this.#refreshed();
		const found = this.#usable(hint);
		// After a failure nobody knows whether the key exists, which is not the client's fault.
		if (found.length === 0 && this.#failed !== undefined) throw this.#failed;
		return found;
	}

	#usable(hint: KeyHint): readonly VerificationKey[] {
		return this.#ageMs() < this.#options.maxAgeMs ? matching(this.#keys, hint) : [];
	}

	#ageMs(): number {
		return this.#options.clock.nowMs() - this.#fetchedAtMs;
	}

	/** Fetches the keys unless that was tried just now. Never rejects: the outcome is in `#failed`. */
	async #refreshed(): Promise<void> {
		if (this.#fetching === undefined) {
			const nowMs = this.#options.clock.nowMs();
			if (nowMs - this.#triedAtMs < this.#options.cooldownMs) return;
			this.#triedAtMs = nowMs;
			this.#fetching = this.#fetch().finally(() => {
				this.#fetching = undefined;
			});
		}
		await this.#fetching;
	}

	async #fetch(): Promise<void> {
		const { fetch, timeoutMs, clock, log } = this.#options;
		const limits = { timeoutMs, maxBytes: MAX_DOCUMENT_BYTES };
		try {
			const document = await this.#load((url) => requestJson(fetch, url, { headers: { accept: JSON_TYPES } }, limits));
			const keys = await usableKeys(document);
			if (keys.length === 0) throw new Unavailable(`The key set of ${this.#host} has no key that can be used`);
			this.#keys = keys;
			this.#fetchedAtMs = clock.nowMs();
			this.#failed = undefined;
		} catch (error) {
			this.#failed = error instanceof Unavailable ? error : new Unavailable(`The keys of ${this.#host} cannot be read`, { cause: error });
			const ageSeconds = this.#keys.length === 0 ? undefined : Math.round(this.#ageMs() / 1000);
			log.warn("Cannot fetch the keys for tokens; those known stay until their maximum age", { host: this.#host, ageSeconds, error });
		}
	}
}

/** The keys of a document that verify signatures. One that cannot be used does not spoil the others. */
async function usableKeys(document: unknown): Promise<readonly VerificationKey[]> {
	const listed = typeof document === "object" && document !== null && "keys" in document ? document.keys : undefined;
	const keys = (Array.isArray(listed) ? listed : []).map(publicKey).filter((key) => key !== undefined);
	const checked = await Promise.allSettled(keys.map((key) => key.material(key.algorithms[0] ?? "")));
	return keys.filter((_, index) => checked[index]?.status === "fulfilled");
}
