/**
 * Who may use the admin API: operators with the configured token or a token of their own, not too often wrong, and never a page of
 * another site. Knows no resource. There are no cookies, so nothing is sent by itself; what browsers say of a request is looked at
 * all the same.
 */

import { createHash, timingSafeEqual } from "node:crypto";
import type { Context, MiddlewareHandler } from "hono";
import type { OperatorJudgement } from "../../auth/admin_token.ts";
import type { Logger } from "../../log.ts";
import { Problem } from "./problem.ts";

export interface AccessOptions {
	/** The configured token; absent when there is none. */
	readonly token?: string;
	/** Judges other tokens: see `operatorTokens`. A rejection is answered with 503. */
	readonly judge?: (token: string, address: string) => Promise<OperatorJudgement>;
	/** Failed attempts per address: a `LoginThrottle` of its own. */
	readonly throttle: { blocks(address: string, username: undefined): boolean; failed(address: string, username: undefined): void };
	/** Where a request came from; `env` is the second argument of the app's `fetch`. */
	readonly addressOf: (request: Request, env: unknown) => string;
	readonly log: Logger;
}

/** What the operations know of a request. */
export interface AdminEnv {
	Variables: { operator: string };
}

const BEARER = /^Bearer +([\w.~+/=-]+) *$/i;
const CHALLENGE = { "WWW-Authenticate": 'Bearer realm="shoal"' };
/** What browsers say of requests of the site itself, and of those that nobody's page has made. */
const OWN_SITE = new Set(["same-origin", "none"]);

/** Refuses whoever may not, before anything else of the request is looked at; sets `operator` for the others. */
export function access(options: AccessOptions): MiddlewareHandler<AdminEnv> {
	const expected = options.token === undefined ? undefined : digest(options.token);
	return async (context, next) => {
		const address = options.addressOf(context.req.raw, context.env);
		if (isForeign(context)) throw refused(options, address, new Problem(403, "The request comes from a page of another site"));
		if (options.throttle.blocks(address, undefined)) {
			throw new Problem(429, "Too many failed attempts from this address", { headers: { "Retry-After": "60" } });
		}
		const [, token] = BEARER.exec(context.req.header("authorization") ?? "") ?? [];
		const operator = token === undefined ? undefined : await judged(options, expected, token, address);
		if (operator === "forbidden") throw refused(options, address, new Problem(403, "The token has not the scope shoal:admin"));
		if (operator === undefined) {
			options.throttle.failed(address, undefined);
			const detail = token === undefined ? "A token is needed: Authorization: Bearer …" : "The token is not good";
			throw refused(options, address, new Problem(401, detail, { headers: CHALLENGE }));
		}
		context.set("operator", operator.name);
		await next();
		if (context.req.method !== "GET" && context.req.method !== "HEAD") {
			const { method, path } = context.req;
			options.log.info("An operator has used the admin API", {
				operator: operator.name,
				address,
				method,
				path,
				status: context.res.status,
			});
		}
	};
}

function refused({ log }: AccessOptions, address: string, problem: Problem): Problem {
	log.warn("A request to the admin API was refused: {why}", { address, why: problem.message });
	return problem;
}

async function judged(
	{ judge, log }: AccessOptions,
	expected: Buffer | undefined,
	token: string,
	address: string,
): Promise<OperatorJudgement> {
	// Of digests, so that neither the content nor the length shows in the time.
	if (expected !== undefined && timingSafeEqual(digest(token), expected)) return { name: "ADMIN_TOKEN" };
	try {
		return await judge?.(token, address);
	} catch (error) {
		log.error("Cannot judge the token of an operator", { error });
		throw new Problem(503, "The token cannot be judged now", { headers: { "Retry-After": "1" } });
	}
}

function isForeign({ req }: Context): boolean {
	const site = req.header("sec-fetch-site");
	// No script can forge it, and no proxy in front changes what it is about.
	if (site !== undefined) return !OWN_SITE.has(site);
	const origin = req.header("origin");
	return origin !== undefined && hostOf(origin) !== (req.header("host") ?? new URL(req.url).host).toLowerCase();
}

/** Without the scheme: in front may be a proxy that ends TLS. */
function hostOf(origin: string): string | undefined {
	return URL.canParse(origin) ? new URL(origin).host : undefined;
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
