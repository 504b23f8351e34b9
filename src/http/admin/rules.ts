/** The configured rules in the store, over HTTP: a list in which the first rule that matches decides. */

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { ruleSchema } from "../../auth/rule_schema.ts";
import type { StoredRule, StoredRules } from "../../auth/stored_rules.ts";
import type { AdminEnv } from "./access.ts";
import { BODY_PROBLEMS, NOT_FOUND, PROBLEMS, Problem } from "./problem.ts";
import { shownRuleSchema } from "./rule_form.ts";
import { jsonAnswer, jsonBody, nameSchema } from "./schemas.ts";

export interface RuleParts {
	readonly rules: Pick<StoredRules, "list" | "get" | "put" | "delete">;
}

const positionSchema = z.int().openapi({ description: "Lower ones come first; equal ones in the order of their ids", example: 10 });

const inputSchema = z
	.strictObject({
		position: positionSchema.optional().openapi({ description: "Without it: where it was, or behind all others" }),
		rule: ruleSchema,
	})
	.openapi("RuleInput");

const placedSchema = z.object({ id: z.string(), position: positionSchema, rule: shownRuleSchema }).openapi("PlacedRule");

const params = z.object({ id: nameSchema });

const list = createRoute({
	method: "get",
	path: "/rules",
	summary: "List the rules",
	responses: {
		200: jsonAnswer(z.object({ items: z.array(placedSchema) }), "All of them, in the order in which they are tried"),
		...PROBLEMS,
	},
});

const get = createRoute({
	method: "get",
	path: "/rules/{id}",
	summary: "Show a rule",
	request: { params },
	responses: { 200: jsonAnswer(placedSchema, "The rule"), ...PROBLEMS, ...NOT_FOUND },
});

const put = createRoute({
	method: "put",
	path: "/rules/{id}",
	summary: "Add, replace or move a rule",
	request: { params, body: jsonBody(inputSchema) },
	responses: {
		200: jsonAnswer(placedSchema, "It was replaced"),
		201: jsonAnswer(placedSchema, "It was added"),
		...PROBLEMS,
		...BODY_PROBLEMS,
	},
});

const remove = createRoute({
	method: "delete",
	path: "/rules/{id}",
	summary: "Delete a rule",
	request: { params },
	responses: { 204: { description: "It was deleted" }, ...PROBLEMS, ...NOT_FOUND },
});

/** Adds the operations. */
export function addRules(api: OpenAPIHono<AdminEnv>, { rules }: RuleParts): void {
	api.openapi(list, (context) => context.json({ items: rules.list().map(shown) }, 200));
	api.openapi(get, (context) => {
		const rule = rules.get(context.req.valid("param").id);
		if (rule === undefined) throw notFound();
		return context.json(shown(rule), 200);
	});
	api.openapi(put, async (context) => {
		const { id } = context.req.valid("param");
		const { position, rule } = context.req.valid("json");
		const existed = rules.get(id) !== undefined;
		return context.json(shown(await rules.put(id, rule, position)), existed ? 200 : 201);
	});
	api.openapi(remove, async (context) => {
		if (!(await rules.delete(context.req.valid("param").id))) throw notFound();
		return context.body(null, 204);
	});
}

const notFound = (): Problem => new Problem(404, "There is no such rule in the store");

/** Rules are read-only lists, answers are not. */
const shown = ({ id, position, rule }: StoredRule): z.infer<typeof placedSchema> => ({
	id,
	position,
	rule: rule as z.infer<typeof shownRuleSchema>,
});
