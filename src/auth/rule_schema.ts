/**
 * The form of rules wherever somebody writes them: files, tokens, answers of hooks, the admin API. Strict: a word that is not
 * known could have been a condition, and a rule without it would grant more than its author meant.
 */

import { z } from "zod";
import type { QoS } from "../mqtt/packet.ts";
import type { Rule } from "./grants.ts";
import { templateProblem } from "./placeholders.ts";

/** Of one topic, in UTF-16 code units: longer than any that is written by hand or for a purpose. */
const MAX_TOPIC_LENGTH = 1024;
const MAX_TOPICS = 256;
const MAX_VALUES = 1000;
/** Rules that may come with a token or a user. */
const MAX_GRANTED_RULES = 256;

/** A topic filter of a rule, with placeholders or after `eq `. */
const topicSchema = z
	.string()
	.max(MAX_TOPIC_LENGTH)
	.superRefine((text, context) => {
		const problem = templateProblem(text);
		if (problem !== undefined) context.addIssue({ code: "custom", message: `the topic is not valid: ${problem}` });
	});

const qosSchema = z.union([z.literal(0), z.literal(1), z.literal(2)]);
const valuesSchema = z.array(z.string().min(1)).min(1).max(MAX_VALUES);

const plainRule = z.strictObject({
	permission: z.enum(["allow", "deny"]),
	action: z.enum(["publish", "pub", "subscribe", "sub", "all"]),
	topic: topicSchema.optional(),
	topics: z.array(topicSchema).min(1).max(MAX_TOPICS).optional(),
	qos: z.union([qosSchema, z.array(qosSchema).min(1)]).optional(),
	retain: z.union([z.boolean(), z.literal("all")]).optional(),
});

const conditionalRule = plainRule.extend({
	users: valuesSchema.optional(),
	clientIds: valuesSchema.optional(),
	tenants: valuesSchema.optional(),
	methods: valuesSchema.optional(),
});

const ACTIONS = { publish: "publish", pub: "publish", subscribe: "subscribe", sub: "subscribe", all: "all" } as const;

function hasOneTopicForm({ topic, topics }: z.infer<typeof plainRule>): boolean {
	return (topic === undefined) !== (topics === undefined);
}

const ONE_TOPIC_FORM = "expected one of topic and topics";

function toRule({ permission, action, topic, topics, qos, retain, ...conditions }: z.infer<typeof conditionalRule>): Rule {
	const given = Object.entries(conditions).filter(([, values]) => values !== undefined);
	return {
		permission,
		action: ACTIONS[action],
		topics: topics ?? (topic === undefined ? [] : [topic]),
		...(qos === undefined ? {} : { qos: (typeof qos === "number" ? [qos] : qos) satisfies QoS[] }),
		...(typeof retain === "boolean" ? { retain } : {}),
		...(Object.fromEntries(given) as Pick<Rule, "users" | "clientIds" | "tenants" | "methods">),
	};
}

/** A configured rule, with conditions about the client. */
export const ruleSchema = conditionalRule.refine(hasOneTopicForm, ONE_TOPIC_FORM).transform(toRule);

/** Rules that come with a token or a user: they are about nobody else, so they have no conditions. */
export const grantedRulesSchema = z.array(plainRule.refine(hasOneTopicForm, ONE_TOPIC_FORM).transform(toRule)).max(MAX_GRANTED_RULES);

/** Topics that a token lists. */
export const grantedTopicsSchema = z.array(topicSchema).max(MAX_GRANTED_RULES);

/** Of a key that is not known, which may be anything. */
const MAX_KEY_LENGTH = 64;

/** What is wrong, and where, without the values: they may be a token's. */
export function problemsOf({ issues }: z.core.$ZodError): readonly { readonly path: readonly PropertyKey[]; readonly problem: string }[] {
	return issues.flatMap((issue) => {
		if (issue.code !== "unrecognized_keys") return [{ path: issue.path, problem: issue.message }];
		return issue.keys.map((key) => ({ path: [...issue.path, key.slice(0, MAX_KEY_LENGTH)], problem: "unknown" }));
	});
}
