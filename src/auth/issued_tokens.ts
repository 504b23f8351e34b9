/**
 * The tokens that this broker has issued: what they were for and until when, never the tokens themselves. Kept in the store until
 * they expire, so that operators can find what to revoke.
 */

import { z } from "zod";
import { type ManagedRecord, type ManagedRecords, type Page, pageOf } from "./managed.ts";
import type { IssuedToken, TokenIssuer, TokenRequest } from "./token_issuer.ts";

/** What is remembered of a token. */
export interface TokenRecord {
	/** By which it can be revoked. */
	readonly jti: string;
	readonly subject: string;
	readonly clientId: string;
	readonly username?: string | undefined;
	readonly tenant?: string | undefined;
	readonly issuedAtMs: number;
	readonly expiresAtMs: number;
}

const KIND = "token";

const valueSchema = z.object({
	subject: z.string(),
	clientId: z.string(),
	username: z.string().optional(),
	tenant: z.string().optional(),
	issuedAtMs: z.number(),
});

/** Issues tokens, and remembers them. */
export class IssuedTokens {
	readonly #records: ManagedRecords;
	readonly #issuer: TokenIssuer;

	constructor(records: ManagedRecords, issuer: TokenIssuer) {
		this.#records = records;
		this.#issuer = issuer;
	}

	/** Signs a token, which nobody gets before it is remembered. Throws as `TokenIssuer.issue`. */
	async issue(request: TokenRequest): Promise<IssuedToken> {
		const issued = await this.#issuer.issue(request);
		const { subject, clientId = subject, username, tenant } = request;
		const value = { subject, clientId, username, tenant, issuedAtMs: issued.issuedAtMs };
		await this.#records.put(KIND, issued.jti, value, issued.expiresAtMs);
		return issued;
	}

	/** `undefined` for one that was not issued here, or has expired. */
	async get(jti: string): Promise<TokenRecord | undefined> {
		const record = await this.#records.get(KIND, jti);
		return record === undefined ? undefined : read(record);
	}

	/** Those that have not expired, in the order of their ids. */
	list(after: string | undefined, limit: number): Promise<Page<TokenRecord>> {
		return pageOf(this.#records, KIND, after, limit, read);
	}

	/** The public keys, as the document of a JWKS endpoint. */
	jwks(): ReturnType<TokenIssuer["jwks"]> {
		return this.#issuer.jwks();
	}
}

function read({ key, value, expiresAtMs }: ManagedRecord): TokenRecord | undefined {
	const result = valueSchema.safeParse(value);
	return result.success ? { jti: key, ...result.data, expiresAtMs } : undefined;
}
