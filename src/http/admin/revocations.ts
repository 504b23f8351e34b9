/** Revocations over HTTP: of single tokens, and of everything that a client id or a user was given so far. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { StoredRevocation, StoredRevocations } from "../../auth/stored_revocations.ts";
import type { AdminEnv } from "./access.ts";
import { BODY_PROBLEMS, NOT_FOUND, PROBLEMS, Problem } from "./problem.ts";
import {
	clientIdSchema,
	endOf,
	endSchema,
	jsonAnswer,
	jsonBody,
	pageOf,
	pageQuery,
	pageSchema,
	reasonSchema,
	secondsSchema,
	timeOf,
	timeSchema,
} from "./schemas.ts";

/** Revokes from now on. Without an end it lasts as long as the longest token. */
export type Revoke = (revocation: {
	readonly kind: StoredRevocation["kind"];
	readonly value: string;
	readonly expiresAtMs?: number | undefined;
	readonly reason: string;
}) => Promise<StoredRevocation>;

export interface RevocationParts {
	readonly revocations: Pick<StoredRevocations, "revocations" | "restore">;
	readonly revoke: Revoke;
	readonly nowMs: () => number;
}

const kindSchema = z.enum(["token", "clientId", "user"]).openapi({ description: "`token`: by its jti" });

const inputSchema = z
	.strictObject({
		kind: kindSchema,
		value: clientIdSchema.openapi({ description: "The jti, the client id or the name of the user" }),
		expiresInSeconds: secondsSchema.optional().openapi({ description: "When all that it means has expired anyway; a year without it" }),
		reason: reasonSchema.default(""),
	})
	.openapi("RevocationInput");

const revocationSchema = z
	.object({ kind: kindSchema, value: z.string(), reason: reasonSchema, revokedAt: timeSchema, expiresAt: endSchema })
	.openapi("Revocation");

const list = createRoute({
	method: "get",
	path: "/revocations",
	summary: "List revocations in force",
	request: { query: pageQuery },
	responses: { 200: jsonAnswer(pageSchema(revocationSchema), "In the order of kind and value"), ...PROBLEMS },
});

const create = createRoute({
	method: "post",
	path: "/revocations",
	summary: "Revoke a token, or all that a client id or a user was given so far",
	description:
		"Counts in every replica within two seconds, and ends the connections. What bears no date, such as a password, is refused until the revocation is deleted or has expired; tokens that are issued later are good.",
	request: { body: jsonBody(inputSchema) },
	responses: { 201: jsonAnswer(revocationSchema, "It is revoked"), ...PROBLEMS, ...BODY_PROBLEMS },
});

const remove = createRoute({
	method: "delete",
	path: "/revocations/{kind}/{value}",
	summary: "Take a revocation back",
	request: { params: z.object({ kind: kindSchema, value: clientIdSchema }) },
	responses: { 204: { description: "It was taken back" }, ...PROBLEMS, ...NOT_FOUND },
});

/** Adds the operations. */
export function addRevocations(api: OpenAPIHono<AdminEnv>, { revocations, revoke, nowMs }: RevocationParts): void {
	api.openapi(list, async (context) => {
		const { after, limit } = context.req.valid("query");
		return context.json(pageOf(await revocations.revocations(after, limit), shown), 200);
	});
	api.openapi(create, async (context) => {
		const { kind, value, expiresInSeconds, reason } = context.req.valid("json");
		const expiresAtMs = expiresInSeconds === undefined ? undefined : nowMs() + expiresInSeconds * 1000;
		return context.json(shown(await revoke({ kind, value, expiresAtMs, reason })), 201);
	});
	api.openapi(remove, async (context) => {
		const { kind, value } = context.req.valid("param");
		if (!(await revocations.restore(kind, value))) throw new Problem(404, "That is not revoked");
		return context.body(null, 204);
	});
}

const shown = ({ kind, value, reason, revokedAtMs, expiresAtMs }: StoredRevocation): z.infer<typeof revocationSchema> => ({
	kind,
	value,
	reason,
	revokedAt: timeOf(revokedAtMs),
	expiresAt: endOf(expiresAtMs),
});
