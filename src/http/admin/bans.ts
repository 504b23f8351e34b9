/** Bans over HTTP: client ids, users, addresses and networks that nobody may come as or from. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Ban, StoredRevocations } from "../../auth/stored_revocations.ts";
import { AddressList, parseAddress } from "../../transport/address.ts";
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

export interface BanParts {
	readonly bans: Pick<StoredRevocations, "ban" | "unban" | "bans">;
	readonly nowMs: () => number;
}

const kindSchema = z.enum(["clientId", "user", "address"]);

const inputSchema = z
	.strictObject({
		reason: reasonSchema.default(""),
		expiresInSeconds: secondsSchema.optional().openapi({ description: "Without it the ban lasts until it is deleted" }),
	})
	.openapi("BanInput");

const banSchema = z
	.object({ kind: kindSchema, value: z.string(), reason: reasonSchema, createdAt: timeSchema, expiresAt: endSchema })
	.openapi("Ban");

const params = z.object({
	kind: kindSchema,
	value: clientIdSchema.openapi({ description: "Of an address, also a network, such as 192.0.2.0%2F24", example: "192.0.2.7" }),
});

const list = createRoute({
	method: "get",
	path: "/bans",
	summary: "List bans in force",
	request: { query: pageQuery },
	responses: { 200: jsonAnswer(pageSchema(banSchema), "In the order of kind and value"), ...PROBLEMS },
});

const put = createRoute({
	method: "put",
	path: "/bans/{kind}/{value}",
	summary: "Ban a client id, a user, an address or a network",
	description: "Counts in every replica within two seconds, and ends the connections that it is about.",
	request: { params, body: jsonBody(inputSchema) },
	responses: { 200: jsonAnswer(banSchema, "It is banned"), ...PROBLEMS, ...BODY_PROBLEMS },
});

const remove = createRoute({
	method: "delete",
	path: "/bans/{kind}/{value}",
	summary: "Lift a ban",
	request: { params },
	responses: { 204: { description: "It was lifted" }, ...PROBLEMS, ...NOT_FOUND },
});

/** Adds the operations. */
export function addBans(api: OpenAPIHono<AdminEnv>, { bans, nowMs }: BanParts): void {
	api.openapi(list, async (context) => {
		const { after, limit } = context.req.valid("query");
		return context.json(pageOf(await bans.bans(after, limit), shown), 200);
	});
	api.openapi(put, async (context) => {
		const { kind, value } = subject(context.req.valid("param"));
		const { reason, expiresInSeconds } = context.req.valid("json");
		const createdAtMs = nowMs();
		const expiresAtMs = expiresInSeconds === undefined ? Number.POSITIVE_INFINITY : createdAtMs + expiresInSeconds * 1000;
		const ban: Ban = { kind, value, reason, createdAtMs, expiresAtMs };
		await bans.ban(ban);
		return context.json(shown(ban), 200);
	});
	api.openapi(remove, async (context) => {
		const { kind, value } = subject(context.req.valid("param"));
		if (!(await bans.unban(kind, value))) throw new Problem(404, "That is not banned");
		return context.body(null, 204);
	});
}

/** Addresses in the form in which they are compared. */
function subject({ kind, value }: z.infer<typeof params>): z.infer<typeof params> {
	if (kind !== "address") return { kind, value };
	const [written = "", ...length] = value.split("/");
	const address = parseAddress(written);
	const network = address && [address, ...length].join("/");
	if (network === undefined || !isNetwork(network)) {
		throw new Problem(400, "That is no address and no network", {
			errors: [
				{ path: "param/value", problem: "expected an address such as 192.0.2.7, or a network such as 192.0.2.0/24 or 2001:db8::/32" },
			],
		});
	}
	return { kind, value: network };
}

function isNetwork(network: string): boolean {
	try {
		new AddressList([network]);
		return true;
	} catch {
		return false;
	}
}

const shown = ({ kind, value, reason, createdAtMs, expiresAtMs }: Ban): z.infer<typeof banSchema> => ({
	kind,
	value,
	reason,
	createdAt: timeOf(createdAtMs),
	expiresAt: endOf(expiresAtMs),
});
