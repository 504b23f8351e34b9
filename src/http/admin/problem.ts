/** What goes wrong in the admin API, as problem documents (RFC 9457). Knows no resource. A problem never quotes what was sent. */

import { z } from "@hono/zod-openapi";
import { HTTPException } from "hono/http-exception";
import { TooManyRecords } from "../../auth/managed.ts";
import type { StoreError } from "../../store/store.ts";

/** One thing that is wrong with a request. */
export interface ProblemPart {
	/** Where, such as `body/rules/0/topic`. */
	readonly path: string;
	readonly problem: string;
}

const TITLES = {
	400: "Bad request",
	401: "Unauthorized",
	403: "Forbidden",
	404: "Not found",
	409: "Conflict",
	413: "Content too large",
	415: "Unsupported media type",
	429: "Too many requests",
	500: "Internal server error",
	503: "Service unavailable",
} as const;

/** Statuses that a problem may have. */
export type ProblemStatus = keyof typeof TITLES;

/** To be thrown: becomes the answer. */
export class Problem extends Error {
	override readonly name = "Problem";
	readonly status: ProblemStatus;
	readonly headers: Readonly<Record<string, string>>;
	readonly errors: readonly ProblemPart[] | undefined;

	/** @param detail A sentence for whoever sent the request. */
	constructor(
		status: ProblemStatus,
		detail: string,
		{ headers = {}, errors }: { readonly headers?: Readonly<Record<string, string>>; readonly errors?: readonly ProblemPart[] } = {},
	) {
		super(detail);
		this.status = status;
		this.headers = headers;
		this.errors = errors;
	}

	get response(): Response {
		const { status, message, errors } = this;
		const body = { type: "about:blank", title: TITLES[status], status, detail: message, ...(errors !== undefined && { errors }) };
		return new Response(JSON.stringify(body), { status, headers: { ...this.headers, "Content-Type": "application/problem+json" } });
	}
}

const RETRY_SOON = { headers: { "Retry-After": "1" } };

/** The problem that an error is for whoever sent the request; `undefined` for what nobody has foreseen. */
export function problemOf(error: unknown): Problem | undefined {
	if (error instanceof Problem) return error;
	if (error instanceof TooManyRecords) return new Problem(409, error.message);
	// The library's own: a body that is no JSON.
	if (error instanceof HTTPException && error.status < 500) return new Problem(400, "The body is not the JSON that is expected");
	if (isStoreError(error)) {
		return new Problem(503, "The store cannot be reached, and whether the change was made is unknown: repeat the request", RETRY_SOON);
	}
	return undefined;
}

function isStoreError(error: unknown): error is StoreError {
	return error instanceof Error && error.name === "StoreError";
}

const problemSchema = z
	.object({
		type: z.string(),
		title: z.string(),
		status: z.int(),
		detail: z.string(),
		errors: z.array(z.object({ path: z.string(), problem: z.string() })).optional(),
	})
	.openapi("Problem");

const answer = (description: string) => ({ description, content: { "application/problem+json": { schema: problemSchema } } });

/** The answers that every operation may have. */
export const PROBLEMS = {
	400: answer("The request is not valid; `errors` says where"),
	401: answer("The token is missing or not good"),
	403: answer("The token has not the scope, or the request comes from another site"),
	429: answer("Too many failed attempts from this address"),
	503: answer("The store cannot be reached: repeat the request"),
} as const;

/** For operations on something that has a name. */
export const NOT_FOUND = { 404: answer("There is no such thing") } as const;

/** For operations with a body. */
export const BODY_PROBLEMS = {
	409: answer("There are as many as fit"),
	413: answer("The body is over 64 KB"),
	415: answer("The body is not application/json"),
} as const;
