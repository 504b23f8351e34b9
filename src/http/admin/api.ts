/**
 * The admin API as a Hono app: everything below `/api/v1`, and the public keys of tokens that are issued here. Knows how requests
 * are let in, limited and answered; each resource stands in its own file, and what it does is handed in.
 */

import { OpenAPIHono, type z } from "@hono/zod-openapi";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { IssuedTokens } from "../../auth/issued_tokens.ts";
import { problemsOf } from "../../auth/rule_schema.ts";
import type { StoredRevocations } from "../../auth/stored_revocations.ts";
import type { StoredRules } from "../../auth/stored_rules.ts";
import type { StoredUsers } from "../../auth/stored_users.ts";
import type { Clock } from "../../clock.ts";
import { type AccessOptions, type AdminEnv, access } from "./access.ts";
import { addBans } from "./bans.ts";
import { addClients, type ClientParts } from "./clients.ts";
import { Problem, problemOf } from "./problem.ts";
import { addRevocations, type Revoke } from "./revocations.ts";
import { addRules } from "./rules.ts";
import { addTokens } from "./tokens.ts";
import { addUsers } from "./users.ts";

export interface AdminOptions {
	/** Without a token and without a judge there is no API: 404. */
	readonly access: AccessOptions;
	readonly users: StoredUsers;
	readonly rules: StoredRules;
	readonly revocations: StoredRevocations;
	/** Absent where no tokens are issued: there are no operations for it then, and no public keys. */
	readonly tokens?: IssuedTokens;
	readonly clients: ClientParts;
	readonly clock: Clock;
	/** For the OpenAPI document. */
	readonly version: string;
	/** How long a revocation lasts that names no end: as long as the longest token. Default a year. */
	readonly revokeForMs?: number;
}

const BASE = "/api/v1";
const MAX_BODY_BYTES = 65_536;
const YEAR_MS = 31_536_000_000;
/** Why a user was revoked: such a revocation ends when there is a user of the name again. */
const USER_DELETED = "the user was deleted";
const JWKS_HEADERS = { "Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff" };

/** Makes the app, with full paths: to be mounted at the root of another one. */
export function createAdminApi(options: AdminOptions): Hono {
	const { tokens, access: given } = options;
	const app = new Hono();
	if (tokens !== undefined) app.get("/.well-known/jwks.json", (context) => context.json(tokens.jwks(), 200, JWKS_HEADERS));
	if (given.token !== undefined || given.judge !== undefined) app.route(BASE, operations(options));
	return app;
}

function operations(options: AdminOptions): OpenAPIHono<AdminEnv> {
	const { access: given, users, rules, revocations, tokens, clients, clock, version, revokeForMs = YEAR_MS } = options;
	const nowMs = (): number => clock.nowMs();
	const api = new OpenAPIHono<AdminEnv>({
		defaultHook: (result) => {
			if (!result.success) throw invalid(result.target, result.error);
		},
	});
	api.use("*", async (context, next) => {
		await next();
		context.header("Cache-Control", "no-store");
		context.header("X-Content-Type-Options", "nosniff");
	});
	api.use("*", access(given));
	api.use("*", async (context, next) => {
		const { method } = context.req;
		const type = context.req.header("content-type") ?? "";
		if ((method === "PUT" || method === "POST") && !/^application\/json\s*(;|$)/i.test(type)) {
			throw new Problem(415, "The body has to be application/json");
		}
		await next();
	});
	api.use(
		"*",
		bodyLimit({ maxSize: MAX_BODY_BYTES, onError: () => new Problem(413, `The body has more than ${MAX_BODY_BYTES} bytes`).response }),
	);
	api.onError((error) => {
		const problem = problemOf(error);
		if (problem !== undefined) return problem.response;
		given.log.error("A request to the admin API failed", { error });
		return new Problem(500, "The request failed; the log of the broker says why").response;
	});

	const revoke: Revoke = async ({ kind, value, expiresAtMs = nowMs() + revokeForMs, reason }) => {
		const revocation = { kind, value, revokedAtMs: nowMs(), expiresAtMs, reason };
		await revocations.revoke(revocation);
		return revocation;
	};
	addUsers(api, {
		users,
		end: (username) => clients.kick({ kind: "user", value: username }),
		onDelete: async (username) => {
			const earlier = revocations.revocation("user", username);
			// What an operator has revoked is not to end sooner, nor when there is such a user again.
			const expiresAtMs = Math.max(earlier?.expiresAtMs ?? 0, nowMs() + revokeForMs);
			await revoke({ kind: "user", value: username, expiresAtMs, reason: earlier?.reason ?? USER_DELETED });
		},
		onCreated: async (username) => {
			if (revocations.revocation("user", username)?.reason === USER_DELETED) await revocations.restore("user", username);
		},
	});
	addRules(api, { rules });
	if (tokens !== undefined) {
		addTokens(api, { tokens, revoke, isRevoked: (jti) => revocations.revocation("token", jti) !== undefined });
	}
	addRevocations(api, { revocations, revoke, nowMs });
	addBans(api, { bans: revocations, nowMs });
	addClients(api, clients);

	api.openAPIRegistry.registerComponent("securitySchemes", "operator", {
		type: "http",
		scheme: "bearer",
		description: "ADMIN_TOKEN, or a JWT with the scope shoal:admin",
	});
	api.doc31("/openapi.json", {
		openapi: "3.1.0",
		info: { title: "Shoal admin API", version },
		servers: [{ url: BASE }],
		security: [{ operator: [] }],
	});
	api.all("*", () => {
		throw new Problem(404, `There is no such operation: GET ${BASE}/openapi.json lists them`);
	});
	return api;
}

function invalid(target: string, error: z.ZodError): Problem {
	const place = target === "json" ? "body" : target;
	const errors = problemsOf(error).map(({ path, problem }) => ({ path: [place, ...path].map(String).join("/"), problem }));
	return new Problem(400, "The request is not valid", { errors });
}
