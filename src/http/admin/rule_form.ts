/** A rule as the admin API answers it: in one form, whichever was sent. */

import { z } from "@hono/zod-openapi";

const texts = z.array(z.string());

export const shownRuleSchema = z
	.object({
		permission: z.enum(["allow", "deny"]),
		action: z.enum(["publish", "subscribe", "all"]),
		topics: texts.openapi({ example: ["devices/#"] }),
		qos: z.array(z.union([z.literal(0), z.literal(1), z.literal(2)])).optional(),
		retain: z.boolean().optional(),
		users: texts.optional(),
		clientIds: texts.optional(),
		tenants: texts.optional(),
		methods: texts.optional(),
	})
	.openapi("Rule");
