/** Which master serves which slot, as a node of a Redis Cluster tells it. Knows the forms of its answers. */

import { SLOTS } from "./slots.ts";
import type { NodeAddress } from "./target.ts";

/** `host:port` as one word. */
export function nameOf({ host, port }: NodeAddress): string {
	return `${host}:${port}`;
}

export function addressOf(name: string): NodeAddress {
	const colon = name.lastIndexOf(":");
	return { host: name.slice(0, colon), port: Number(name.slice(colon + 1)) };
}

/**
 * Reads the answer to CLUSTER SLOTS: the name of the master of each slot, `undefined` for a slot that nobody serves.
 * @param asked Name of the node that answered: one that does not know its own host means the one under which it was reached.
 */
export function readSlots(reply: unknown, asked: string): (string | undefined)[] {
	const owners = new Array<string | undefined>(SLOTS).fill(undefined);
	for (const [first, last, [host, port]] of reply as [number, number, [Buffer | null, number]][]) {
		owners.fill(nameOf({ host: hostOf(host?.toString(), asked), port }), first, last + 1);
	}
	return owners;
}

/** What a node answers instead of doing a command. */
export type Refusal =
	/** The slot belongs to `master`, as far as the node knows. */
	| { readonly kind: "moved"; readonly master: string }
	/** The slot is on its way to `master`, and these keys are there already: this once. */
	| { readonly kind: "ask"; readonly master: string }
	/** The slot is on its way, and so far only some of the keys are there. */
	| { readonly kind: "tryAgain" };

/** Reads an error; `undefined` when it is none of these. */
export function readRefusal(message: string, asked: string): Refusal | undefined {
	if (message.startsWith("TRYAGAIN")) return { kind: "tryAgain" };
	const [, word, host, port] = /^(MOVED|ASK) \d+ (.*):(\d+)$/.exec(message) ?? [];
	if (word === undefined) return undefined;
	return { kind: word === "MOVED" ? "moved" : "ask", master: nameOf({ host: hostOf(host, asked), port: Number(port) }) };
}

function hostOf(told: string | undefined, asked: string): string {
	return told === undefined || told === "" || told === "?" ? addressOf(asked).host : told;
}
