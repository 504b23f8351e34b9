/** The users that operators manage, over HTTP. Knows how they are shown; never shows or logs a password or a hash. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { grantedRulesSchema } from "../../auth/rule_schema.ts";
import type { ManagedUser, StoredUsers, UserSettings } from "../../auth/stored_users.ts";
import type { AdminEnv } from "./access.ts";
import { BODY_PROBLEMS, NOT_FOUND, PROBLEMS, Problem } from "./problem.ts";
import { shownRuleSchema } from "./rule_form.ts";
import {
	clientIdSchema,
	jsonAnswer,
	jsonBody,
	levelSchema,
	nameSchema,
	pageOf,
	pageQuery,
	pageSchema,
	timeOf,
	timeSchema,
} from "./schemas.ts";

export interface UserParts {
	readonly users: Pick<StoredUsers, "get" | "list" | "put" | "delete">;
	/** Ends the connections of a user, wherever they are. */
	readonly end: (username: string) => Promise<void>;
	/** What else a user has gets worthless: it is about to be deleted. */
	readonly onDelete: (username: string) => Promise<void>;
	/** A user is there whose name may have belonged to one that was deleted. */
	readonly onCreated: (username: string) => Promise<void>;
}

const MAX_PASSWORD_BYTES = 1024;

const settingsSchema = z
	.strictObject({
		password: z
			.string()
			.min(1)
			.refine((text) => new TextEncoder().encode(text).length <= MAX_PASSWORD_BYTES, "it has more than 1024 bytes")
			.optional()
			.openapi({ description: "Needed for a new user; without it the password stays", format: "password" }),
		scram: z
			.boolean()
			.optional()
			.openapi({ description: "Whether SCRAM may be used as well, as far as the password allows it", default: true }),
		clientId: nameSchema.optional().openapi({ description: "The only client id that the user may use" }),
		tenant: levelSchema.optional(),
		rules: grantedRulesSchema.optional().openapi({ description: "The user's own rules; without them only the configured rules count" }),
		unmatched: z.enum(["deny", "rules"]).optional().openapi({ description: "What happens where none of the user's own rules matches" }),
	})
	.openapi("UserSettings");

const userSchema = z
	.object({
		username: nameSchema,
		methods: z.array(z.string()).openapi({ description: "How the user can log in", example: ["password", "SCRAM-SHA-256"] }),
		clientId: clientIdSchema.optional(),
		tenant: z.string().optional(),
		rules: z.array(shownRuleSchema).optional(),
		unmatched: z.enum(["deny", "rules"]).optional(),
		createdAt: timeSchema,
		updatedAt: timeSchema,
	})
	.openapi("User");

const params = z.object({ username: nameSchema });

const list = createRoute({
	method: "get",
	path: "/users",
	summary: "List users",
	request: { query: pageQuery },
	responses: { 200: jsonAnswer(pageSchema(userSchema), "In the order of their names"), ...PROBLEMS },
});

const get = createRoute({
	method: "get",
	path: "/users/{username}",
	summary: "Show a user",
	request: { params },
	responses: { 200: jsonAnswer(userSchema, "The user"), ...PROBLEMS, ...NOT_FOUND },
});

const put = createRoute({
	method: "put",
	path: "/users/{username}",
	summary: "Add or replace a user",
	description: "The connections of a user that is replaced are ended, so that it comes again with its new rights.",
	request: { params, body: jsonBody(settingsSchema) },
	responses: {
		200: jsonAnswer(userSchema, "It was replaced"),
		201: jsonAnswer(userSchema, "It was added"),
		...PROBLEMS,
		...BODY_PROBLEMS,
	},
});

const remove = createRoute({
	method: "delete",
	path: "/users/{username}",
	summary: "Delete a user",
	description: "Its connections are ended, and tokens that were issued for it so far are revoked.",
	request: { params },
	responses: { 204: { description: "It was deleted" }, ...PROBLEMS, ...NOT_FOUND },
});

/** Adds the operations. */
export function addUsers(api: OpenAPIHono<AdminEnv>, { users, end, onDelete, onCreated }: UserParts): void {
	api.openapi(list, async (context) => {
		const { after, limit } = context.req.valid("query");
		return context.json(pageOf(await users.list(after, limit), shown), 200);
	});
	api.openapi(get, async (context) => {
		const user = await users.get(context.req.valid("param").username);
		if (user === undefined) throw notFound();
		return context.json(shown(user), 200);
	});
	api.openapi(put, async (context) => {
		const { username } = context.req.valid("param");
		const given = Object.entries(context.req.valid("json")).filter(([, value]) => value !== undefined);
		const stored = await users.put(username, Object.fromEntries(given) as UserSettings);
		if (stored === undefined) {
			throw new Problem(400, "A new user needs a password", { errors: [{ path: "body/password", problem: "it is missing" }] });
		}
		if (stored.created) await onCreated(username);
		else await end(username);
		return context.json(shown(stored.user), stored.created ? 201 : 200);
	});
	api.openapi(remove, async (context) => {
		const { username } = context.req.valid("param");
		if ((await users.get(username)) === undefined) throw notFound();
		// First: should the rest fail, the request can be repeated.
		await onDelete(username);
		await users.delete(username);
		return context.body(null, 204);
	});
}

const notFound = (): Problem => new Problem(404, "There is no such user in the store");

function shown({ createdAtMs, updatedAtMs, methods, rules, ...rest }: ManagedUser): z.infer<typeof userSchema> {
	return {
		...rest,
		methods: [...methods],
		...(rules !== undefined && { rules: rules as z.infer<typeof shownRuleSchema>[] }),
		createdAt: timeOf(createdAtMs),
		updatedAt: timeOf(updatedAtMs),
	};
}
