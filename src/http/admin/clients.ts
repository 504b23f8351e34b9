/** Connected clients over HTTP: those of this replica to look at, and those of all replicas to send away. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Kick } from "../../broker/cluster.ts";
import type { ConnectedClient } from "../../broker/sessions.ts";
import type { AdminEnv } from "./access.ts";
import { PROBLEMS } from "./problem.ts";
import { clientIdSchema, jsonAnswer, pageOf, pageQuery, pageSchema, timeOf, timeSchema } from "./schemas.ts";

export interface ClientParts {
	/** Clients of this replica whose id comes after the given one in the order of ids, at most so many. */
	readonly list: (
		after: string | undefined,
		limit: number,
	) => { readonly items: readonly ConnectedClient[]; readonly next: string | undefined };
	/** Ends connections on every replica, with Administrative action. Resolves when every replica will hear of it. */
	readonly kick: (whom: Kick) => Promise<void>;
}

const clientSchema = z
	.object({
		clientId: z.string(),
		username: z.string().optional(),
		method: z.string(),
		address: z.string(),
		transport: z.string(),
		protocolVersion: z.int(),
		connectedAt: timeSchema,
	})
	.openapi("Client");

const list = createRoute({
	method: "get",
	path: "/clients",
	summary: "List the clients that are connected to this replica",
	request: { query: pageQuery },
	responses: { 200: jsonAnswer(pageSchema(clientSchema), "In the order of their ids"), ...PROBLEMS },
});

const kick = createRoute({
	method: "delete",
	path: "/clients/{clientId}",
	summary: "End the connection of a client, wherever it is",
	description: "Its session stays, and it may come again: to keep it away, ban it.",
	request: { params: z.object({ clientId: clientIdSchema }) },
	responses: { 202: { description: "Every replica will end it" }, ...PROBLEMS },
});

/** Adds the operations. */
export function addClients(api: OpenAPIHono<AdminEnv>, clients: ClientParts): void {
	api.openapi(list, (context) => {
		const { after, limit } = context.req.valid("query");
		return context.json(pageOf(clients.list(after, limit), shown), 200);
	});
	api.openapi(kick, async (context) => {
		await clients.kick({ kind: "clientId", value: context.req.valid("param").clientId });
		return context.body(null, 202);
	});
}

function shown({ connectedAtMs, username, ...rest }: ConnectedClient): z.infer<typeof clientSchema> {
	return { ...rest, ...(username !== "" && { username }), connectedAt: timeOf(connectedAtMs) };
}
