/** The tokens that this broker issues, over HTTP: to sign one, to see which there are, to revoke one. A token is shown once. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { IssuedTokens, TokenRecord } from "../../auth/issued_tokens.ts";
import { grantedRulesSchema, grantedTopicsSchema } from "../../auth/rule_schema.ts";
import type { TokenRequest } from "../../auth/token_issuer.ts";
import type { AdminEnv } from "./access.ts";
import { BODY_PROBLEMS, NOT_FOUND, PROBLEMS, Problem } from "./problem.ts";
import type { Revoke } from "./revocations.ts";
import {
	jsonAnswer,
	jsonBody,
	levelSchema,
	nameSchema,
	pageOf,
	pageQuery,
	pageSchema,
	secondsSchema,
	timeOf,
	timeSchema,
} from "./schemas.ts";

export interface TokenParts {
	readonly tokens: Pick<IssuedTokens, "issue" | "get" | "list">;
	readonly revoke: Revoke;
	/** Whether a token was revoked by its id. */
	readonly isRevoked: (jti: string) => boolean;
}

const topics = grantedTopicsSchema.optional();

const requestSchema = z
	.strictObject({
		clientId: nameSchema.optional().openapi({ description: "The client id that the token is for; the subject without it" }),
		subject: nameSchema.optional().openapi({ description: "Who it is for; the client id without it" }),
		username: nameSchema.optional().openapi({ description: "The user name that it proves; the subject without it" }),
		tenant: levelSchema.optional(),
		acl: z
			.union([grantedRulesSchema, z.strictObject({ pub: topics, sub: topics, all: topics })])
			.optional()
			.openapi({ description: "What it grants: lists of topics, or rules. Without it only the configured rules count" }),
		lifetimeSeconds: secondsSchema.openapi({ example: 3600 }),
	})
	.refine(({ clientId, subject }) => clientId !== undefined || subject !== undefined, "expected a clientId or a subject")
	.openapi("TokenRequest");

const recordSchema = z
	.object({
		jti: z.string(),
		subject: z.string(),
		clientId: z.string(),
		username: z.string(),
		tenant: z.string().optional(),
		issuedAt: timeSchema,
		expiresAt: timeSchema,
		revoked: z.boolean().openapi({ description: "By its jti; a revocation of its client id or user is not looked for" }),
	})
	.openapi("Token");

const issuedSchema = z
	.object({
		token: z.string().openapi({ description: "It is not kept, and cannot be shown again" }),
		jti: z.string(),
		expiresAt: timeSchema,
	})
	.openapi("IssuedToken");

const params = z.object({ jti: nameSchema });

const issue = createRoute({
	method: "post",
	path: "/tokens",
	summary: "Issue a token",
	request: { body: jsonBody(requestSchema) },
	responses: { 201: jsonAnswer(issuedSchema, "The token"), ...PROBLEMS, ...BODY_PROBLEMS },
});

const list = createRoute({
	method: "get",
	path: "/tokens",
	summary: "List issued tokens that have not expired",
	request: { query: pageQuery },
	responses: { 200: jsonAnswer(pageSchema(recordSchema), "In the order of their ids"), ...PROBLEMS },
});

const get = createRoute({
	method: "get",
	path: "/tokens/{jti}",
	summary: "Show what is known of an issued token",
	request: { params },
	responses: { 200: jsonAnswer(recordSchema, "All but the token itself"), ...PROBLEMS, ...NOT_FOUND },
});

const remove = createRoute({
	method: "delete",
	path: "/tokens/{jti}",
	summary: "Revoke an issued token",
	description: "Its connections are ended within two seconds. For tokens of other issuers, see the revocations.",
	request: { params },
	responses: { 204: { description: "It was revoked" }, ...PROBLEMS, ...NOT_FOUND },
});

/** Adds the operations. */
export function addTokens(api: OpenAPIHono<AdminEnv>, { tokens, revoke, isRevoked }: TokenParts): void {
	const shown = ({ issuedAtMs, expiresAtMs, jti, tenant, username, ...rest }: TokenRecord): z.infer<typeof recordSchema> => ({
		jti,
		...rest,
		username: username ?? rest.subject,
		...(tenant !== undefined && { tenant }),
		issuedAt: timeOf(issuedAtMs),
		expiresAt: timeOf(expiresAtMs),
		revoked: isRevoked(jti),
	});
	api.openapi(issue, async (context) => {
		const { token, jti, expiresAtMs } = await issued(tokens, requestOf(context.req.valid("json")));
		return context.json({ token, jti, expiresAt: timeOf(expiresAtMs) }, 201);
	});
	api.openapi(list, async (context) => {
		const { after, limit } = context.req.valid("query");
		return context.json(pageOf(await tokens.list(after, limit), shown), 200);
	});
	api.openapi(get, async (context) => {
		const record = await tokens.get(context.req.valid("param").jti);
		if (record === undefined) throw notFound();
		return context.json(shown(record), 200);
	});
	api.openapi(remove, async (context) => {
		const record = await tokens.get(context.req.valid("param").jti);
		if (record === undefined) throw notFound();
		await revoke({ kind: "token", value: record.jti, expiresAtMs: record.expiresAtMs, reason: "" });
		return context.body(null, 204);
	});
}

const notFound = (): Problem => new Problem(404, "No such token was issued here, or it has expired");

function requestOf({
	clientId,
	subject = clientId ?? "",
	username = subject,
	tenant,
	acl,
	lifetimeSeconds,
}: z.infer<typeof requestSchema>): TokenRequest {
	return {
		subject,
		username,
		...(clientId !== undefined && { clientId }),
		...(tenant !== undefined && { tenant }),
		...(acl !== undefined && { acl }),
		lifetimeSeconds,
	};
}

/** What the issuer knows and the schema does not: how long tokens may live, and how many topics they may have. */
async function issued(tokens: TokenParts["tokens"], request: TokenRequest): ReturnType<IssuedTokens["issue"]> {
	try {
		return await tokens.issue(request);
	} catch (error) {
		if (error instanceof RangeError)
			throw new Problem(400, error.message, { errors: [{ path: "body/lifetimeSeconds", problem: error.message }] });
		if ((error as Error).name === "TokenGrantsError") {
			const { message } = error as Error;
			throw new Problem(400, message, { errors: [{ path: "body/acl", problem: message }] });
		}
		throw error;
	}
}
