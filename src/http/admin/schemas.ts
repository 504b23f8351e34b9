/** What the resources of the admin API share: names, times, pages. The OpenAPI document is made of these same schemas. */

import { z } from "@hono/zod-openapi";
import { usableLevel, usableName } from "../../auth/identity.ts";

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1000;
const MAX_CLIENT_ID = 65_535;
const MAX_REASON = 500;
/** A hundred years: longer is "never". */
const MAX_SECONDS = 3_155_760_000;

/** A name that MQTT, rules and logs can have. */
export const nameSchema = z
	.string()
	.min(1)
	.max(512)
	.refine((name) => usableName(name) !== undefined, "it has control characters or other characters that names cannot have")
	.openapi({ example: "alice" });

/** A name that can be one level of a topic. */
export const levelSchema = nameSchema
	.refine((name) => usableLevel(name) !== undefined, "it has + # or /, or begins with $")
	.openapi({ example: "acme" });

/** Any client id, also one that only a ban would name. */
export const clientIdSchema = z.string().min(1).max(MAX_CLIENT_ID).openapi({ example: "sensor-7" });

export const reasonSchema = z
	.string()
	.max(MAX_REASON)
	.openapi({ description: "Why, for other operators", example: "the device was stolen" });

export const secondsSchema = z.int().min(1).max(MAX_SECONDS);

export const pageQuery = z.object({
	after: z.string().min(1).optional().openapi({ description: "`next` of the page before" }),
	limit: z.coerce.number().int().min(1).max(MAX_LIMIT).default(DEFAULT_LIMIT),
});

/** A page of a list. */
export function pageSchema<T extends z.ZodType>(item: T) {
	return z.object({
		items: z.array(item),
		next: z.string().nullable().openapi({ description: "`after` of the next page; null after the last one" }),
	});
}

export const timeSchema = z.iso.datetime().openapi({ example: "2027-01-01T00:00:00.000Z" });

/** `null` for never. */
export const endSchema = timeSchema.nullable();

export const timeOf = (ms: number): string => new Date(ms).toISOString();

export const endOf = (ms: number): string | null => (ms === Number.POSITIVE_INFINITY ? null : timeOf(ms));

/** A page as it is answered. */
export function pageOf<T, U>(
	{ items, next }: { readonly items: readonly T[]; readonly next: string | undefined },
	shown: (item: T) => U,
): { items: U[]; next: string | null } {
	return { items: items.map(shown), next: next ?? null };
}

/** A body of JSON that has to be there. */
export function jsonBody<T extends z.ZodType>(schema: T) {
	return { content: { "application/json": { schema } }, required: true } as const;
}

/** An answer of JSON. */
export function jsonAnswer<T extends z.ZodType>(schema: T, description: string) {
	return { content: { "application/json": { schema } }, description } as const;
}
