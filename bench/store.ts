/**
 * What the embedded store costs, on the runtime that runs it: `bun bench/store.ts` or `deno run -A bench/store.ts`.
 * Prints a Markdown table. Uses a file in the temporary directory; one core, no network.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Message } from "../src/mqtt/message.ts";
import { NO_PROPERTIES } from "../src/mqtt/packet.ts";
import { Topic } from "../src/mqtt/topic.ts";
import { createEmbeddedStore } from "../src/store/embedded_store.ts";
import type { SessionRef, Store } from "../src/store/store.ts";

const PAYLOAD = new Uint8Array(100).fill(0x61);
const NOW = 1_700_000_000_000;

function message(topic: string, qos: 0 | 1 | 2 = 1, retain = false): Message {
	return {
		topic: Topic.of(topic),
		payload: PAYLOAD,
		qos,
		retain,
		forwarded: NO_PROPERTIES,
		expiresAtMs: Number.POSITIVE_INFINITY,
		publisher: "bench-publisher",
	};
}

function percentile(sorted: readonly number[], p: number): number {
	return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0;
}

const rows: string[] = [];

function report(name: string, operations: number, unit: string, seconds: number, turns: number[]): void {
	turns.sort((a, b) => a - b);
	const ms = [0.5, 0.99, 1].map((p) => percentile(turns, p).toFixed(1)).join(" / ");
	const each = ((seconds * 1e6) / operations).toFixed(2);
	rows.push(`| ${name} | ${Math.round(operations / seconds).toLocaleString("en")} ${unit}/s | ${each} µs | ${ms} ms |`);
}

async function session(store: Store, clientId: string, filters: readonly string[]): Promise<SessionRef> {
	const { epoch } = await store.openSession({
		clientId,
		user: "",
		cleanStart: true,
		sessionExpirySeconds: 3600,
		will: undefined,
		nowMs: NOW,
	});
	const ref = { clientId, epoch };
	await store.subscribe(
		ref,
		filters.map((filter) => ({ filter, qos: 1, noLocal: false, retainAsPublished: false, retainHandling: 0, subscriptionId: 0 })),
	);
	return ref;
}

/** Each turn: a group of messages to the logs in turn, each read back, its session checkpointed; `due` now and then. */
async function cycle(store: Store, name: string, logs: number, group: number, turns: number): Promise<void> {
	const filters = Array.from({ length: logs }, (_, n) => `bench/${name}/${n}`);
	const sessions: SessionRef[] = [];
	for (const filter of filters) sessions.push(await session(store, `client-${filter}`, [filter]));
	const messages = filters.map((filter) => message(filter));
	const times: number[] = [];
	let next = 0;
	const begun = performance.now();
	for (let turn = 0; turn < turns; turn++) {
		const start = performance.now();
		const touched = new Map<number, number>();
		const published = [];
		for (let n = 0; n < group; n++, next++) {
			const at = next % logs;
			published.push(
				store.publish({
					message: messages[at] as Message,
					logs: [filters[at] as string],
					retain: false,
					reserve: undefined,
					willId: undefined,
					name: undefined,
					forward: undefined,
				}),
			);
		}
		for (const [n, { appended }] of (await Promise.all(published)).entries()) touched.set((turn * group + n) % logs, appended[0]?.seq ?? 0);
		const checkpoints = [];
		for (const [at, head] of touched) {
			const log = filters[at] as string;
			const after = head - Math.ceil(group / logs);
			const entries = await store.read([{ log, after: Math.max(0, after) }], 1000);
			const cursor = entries.at(-1)?.seq ?? 0;
			if (cursor !== head) throw new Error(`Read up to ${cursor} of ${head}`);
			checkpoints.push(
				store.checkpoint(sessions[at] as SessionRef, { cursors: [{ log, cursor, floor: cursor }], inflight: [], lastPacketId: turn }),
			);
		}
		await Promise.all(checkpoints);
		if (turn % 20 === 0) await store.due(NOW, 100);
		times.push(performance.now() - start);
	}
	report(
		`${group} messages a turn to ${logs} logs: publish, read, checkpoint, trim`,
		group * turns,
		"messages",
		(performance.now() - begun) / 1000,
		times,
	);
}

async function broadcast(store: Store): Promise<void> {
	const sessions: SessionRef[] = [];
	const opening: Promise<number>[] = [];
	for (let n = 0; n < 10_000; n++) opening.push(session(store, `crowd-${n}`, ["crowd/#"]).then((ref) => sessions.push(ref)));
	await Promise.all(opening);
	const times: number[] = [];
	let begun = performance.now();
	for (let n = 0; n < 2000; n++) {
		const start = performance.now();
		await store.publish({
			message: message("crowd/news"),
			logs: ["crowd/#"],
			retain: false,
			reserve: undefined,
			willId: undefined,
			name: undefined,
			forward: undefined,
		});
		times.push(performance.now() - start);
	}
	report("one message a turn to one log of 10,000 sessions: publish", 2000, "messages", (performance.now() - begun) / 1000, times);
	const checkpointed: number[] = [];
	begun = performance.now();
	for (let round = 1; round <= 3; round++) {
		const start = performance.now();
		await Promise.all(
			sessions.map((ref) =>
				store.checkpoint(ref, { cursors: [{ log: "crowd/#", cursor: round, floor: round }], inflight: [], lastPacketId: round }),
			),
		);
		checkpointed.push(performance.now() - start);
	}
	report("10,000 sessions of one log in one go: checkpoint", 30_000, "checkpoints", (performance.now() - begun) / 1000, checkpointed);
	const swept: number[] = [];
	begun = performance.now();
	for (let n = 0; n < 20; n++) {
		await store.checkpoint(sessions[0] as SessionRef, {
			cursors: [{ log: "crowd/#", cursor: 4, floor: 4 }],
			inflight: [],
			lastPacketId: n,
		});
		const start = performance.now();
		await store.due(NOW, 100);
		swept.push(performance.now() - start);
	}
	report("a floor of 10,000 sessions looked up: due", 20, "sweeps", (performance.now() - begun) / 1000, swept);
}

async function retained(store: Store): Promise<void> {
	const storing: Promise<unknown>[] = [];
	for (let n = 0; n < 50_000; n++) {
		const kept = message(`house/${n % 500}/room/${n}/temperature`, 0, true);
		storing.push(
			store.publish({ message: kept, logs: [], retain: true, reserve: undefined, willId: undefined, name: undefined, forward: undefined }),
		);
	}
	await Promise.all(storing);
	for (const [filter, pages] of [
		["house/7/#", 500],
		["house/+/room/77/+", 50],
		["#", 200],
	] as const) {
		const times: number[] = [];
		let found = 0;
		const begun = performance.now();
		for (let n = 0; n < pages; n++) {
			const start = performance.now();
			found += (await store.retained(filter, undefined, 100, NOW)).messages.length;
			times.push(performance.now() - start);
		}
		const name = `retained: first page of \`${filter}\` in 50,000 topics, ${found / pages} messages`;
		report(name, pages, "pages", (performance.now() - begun) / 1000, times);
	}
}

async function connects(store: Store): Promise<void> {
	const times: number[] = [];
	const begun = performance.now();
	for (let round = 0; round < 100; round++) {
		const start = performance.now();
		const opening = [];
		for (let n = 0; n < 200; n++) {
			opening.push(
				store.openSession({
					clientId: `storm-${round}-${n}`,
					user: "",
					cleanStart: true,
					sessionExpirySeconds: 0,
					will: undefined,
					nowMs: NOW,
				}),
			);
		}
		await Promise.all(opening);
		times.push(performance.now() - start);
	}
	report("200 fresh clients without a stored session: openSession", 20_000, "connects", (performance.now() - begun) / 1000, times);
}

async function shared(store: Store): Promise<void> {
	const log = "$share/workers/jobs/#";
	await session(store, "worker", [log]);
	const times: number[] = [];
	const begun = performance.now();
	for (let turn = 0; turn < 100; turn++) {
		const start = performance.now();
		const published = [];
		for (let n = 0; n < 200; n++) {
			published.push(
				store.publish({
					message: message("jobs/new"),
					logs: [log],
					retain: false,
					reserve: undefined,
					willId: undefined,
					name: undefined,
					forward: undefined,
				}),
			);
		}
		await Promise.all(published);
		const entries = await store.takeShared(log, 200);
		await store.settleShared(
			log,
			entries.map(({ seq }) => seq),
		);
		times.push(performance.now() - start);
	}
	report("200 messages a turn to one share group: publish, take, settle", 20_000, "messages", (performance.now() - begun) / 1000, times);
}

const directory = mkdtempSync(join(tmpdir(), "store-bench-"));
try {
	for (const sync of ["normal", "full"] as const) {
		const limits = { logMaxMessages: 100_000, maxRetained: 1_000_000 };
		const store = createEmbeddedStore({ path: join(directory, `${sync}.db`), sync, limits });
		await store.start(NOW, () => {});
		rows.push(`| **${sync}** | | | |`);
		await cycle(store, "hot", 50, 500, 400);
		await cycle(store, "trickle", 50, 20, 1000);
		await cycle(store, "wide", 5000, 500, 200);
		if (sync === "normal") {
			await shared(store);
			await connects(store);
			await broadcast(store);
			await retained(store);
		}
		await store.close();
	}
} finally {
	rmSync(directory, { recursive: true });
}
const runtime = process.versions.bun ? `Bun ${process.versions.bun}` : `Deno ${process.versions.deno}`;
console.log(`Embedded store on ${runtime}, messages of 100 bytes\n`);
console.log("| what | throughput | each | turn p50 / p99 / max |\n|---|---|---|---|");
for (const row of rows) console.log(row);
