/** Publishing without a break while servers fail, and what became of what was acknowledged. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { StoreError } from "../../src/store/store.ts";
import { message, numbers, texts } from "../contracts/store/fixture.ts";
import type { RedisServer } from "../support/redis_server.ts";
import { type Replica, until } from "./redis_support.ts";

/** In several slots, so that each master of a cluster has some. */
const LOGS = numbers(1, 6).map((n) => `log${n}`);
const AT_ONCE = 20;
const MAX_UNDER_WAY = 1000;
/** Less than makes anybody take a server for dead. */
const AHEAD_MS = 300;

export interface Load {
	readonly acknowledged: number;
	/** How many were told to be repeated. */
	readonly refused: number;
	/** Acknowledged ones that nobody finds. */
	readonly lost: readonly string[];
	/** The longest time that one of the logs was without an acknowledgement, in ms. */
	readonly gapMs: number;
}

/**
 * Publishes to several logs while `trouble` goes on, and until publishing succeeds again everywhere after it.
 * @param open Another replica that reads what is stored at the end.
 */
export async function publishThrough(replica: Replica, trouble: () => Promise<void>, open: () => Promise<Replica>): Promise<Load> {
	const client = await replica.connect("reader");
	for (const log of LOGS) await replica.subscribe(client, log);
	const acknowledged = new Map<string, string[]>(LOGS.map((log) => [log, []]));
	let [count, refused, underWay, published, gapMs] = [0, 0, 0, 0, 0];
	const last = new Map(LOGS.map((log) => [log, performance.now()]));
	let over = false;
	const publishing = (async () => {
		while (!over) {
			for (let n = 0; n < AT_ONCE && underWay < MAX_UNDER_WAY; n++) {
				const payload = String(++published);
				const log = LOGS[published % LOGS.length] as string;
				underWay++;
				replica.publish(log, [log], { message: message(log, { payload }) }).then(
					() => {
						underWay--;
						acknowledged.get(log)?.push(payload);
						count++;
						gapMs = Math.max(gapMs, performance.now() - (last.get(log) as number));
						last.set(log, performance.now());
					},
					(error) => {
						underWay--;
						assert.ok(error instanceof StoreError && error.code === "away", String(error));
						refused++;
					},
				);
			}
			await sleep(1);
		}
	})();
	try {
		await until(async () => count > 500);
		await trouble();
		for (const log of LOGS) {
			const before = acknowledged.get(log)?.length ?? 0;
			await until(async () => (acknowledged.get(log)?.length ?? 0) > before);
		}
	} finally {
		over = true;
		await publishing;
	}
	await until(async () => underWay === 0);
	const heir = await open();
	const lost: string[] = [];
	for (const log of LOGS) {
		const stored = new Set(texts(await heir.read(log, 0, 1_000_000)));
		lost.push(...(acknowledged.get(log) as string[]).filter((payload) => !stored.has(payload)));
	}
	return { acknowledged: count, refused, lost, gapMs };
}

/** Kills a primary when its replicas have not had what it was given last: what it alone knew is lost for sure. */
export async function killAhead(primary: RedisServer, replicas: readonly RedisServer[]): Promise<void> {
	const client = new Redis(primary.url);
	client.on("error", () => {});
	for (const replica of replicas) replica.signal("SIGSTOP");
	try {
		// What is in their sockets would still reach them.
		await client.call("CLIENT", "KILL", "TYPE", "replica");
		await sleep(AHEAD_MS);
		await primary.kill();
	} finally {
		for (const replica of replicas) replica.signal("SIGCONT");
		client.disconnect();
	}
}

/** One line for the report of a test. */
export function describeLoad({ acknowledged, refused, lost, gapMs }: Load): string {
	return `${acknowledged} acknowledged, ${refused} refused, ${lost.length} lost, longest gap of a log ${Math.round(gapMs)} ms`;
}
