/**
 * The embedded store under random calls, failing commits and kills: what it knows in memory and what its file says must be
 * the same at any time. A failing seed is named by its test and repeats itself.
 */

import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Message } from "../../src/mqtt/message.ts";
import type { QoS } from "../../src/mqtt/packet.ts";
import { createEmbeddedStore } from "../../src/store/embedded_store.ts";
import { type Store, StoreError } from "../../src/store/store.ts";
import { type Client, type Fixture, inflight, message, NOW, numbers, text, will } from "../contracts/store/fixture.ts";
import { copyAsKilled, fixtureOn, HUGE, startLimited, temporaryDirectory } from "./embedded_support.ts";

const LIMITS = { logMaxMessages: 40, maxRetained: 8 };
const CLIENTS = ["a", "b", "c", "d"];
const FILTERS = ["t", "u", "v/#", "$share/g/t", "$share/h/u"];
const TOPICS = numbers(1, 10).map((n) => `topic/${n}`);

/** A small seeded generator (mulberry32). */
function generator(seed: number): (below: number) => number {
	let state = seed;
	return (below) => {
		state = (state + 0x6d2b79f5) | 0;
		let t = Math.imul(state ^ (state >>> 15), 1 | state);
		t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
		return ((t ^ (t >>> 14)) >>> 0) % below;
	};
}

class Walk {
	readonly f: Fixture;
	readonly #random: (below: number) => number;
	readonly #clients = new Map<string, Client>();
	readonly #taken = new Map<string, number[]>();
	/** Last sequence number of each log that a resolved promise told of. */
	readonly heads = new Map<string, number>();
	nowMs = NOW;
	#published = 0;

	constructor(f: Fixture, random: (below: number) => number) {
		this.f = f;
		this.#random = random;
	}

	#pick<T>(from: readonly T[]): T {
		return from[this.#random(from.length)] as T;
	}

	/** One random call. Refusals are part of the walk; anything else is not. */
	async step(): Promise<void> {
		try {
			await this.#call();
		} catch (error) {
			if (!(error instanceof StoreError)) throw error;
		}
	}

	async #call(): Promise<void> {
		const { f, nowMs } = this;
		const { store } = f;
		const clientId = this.#pick(CLIENTS);
		const client = this.#clients.get(clientId);
		const shared = this.#pick(FILTERS.slice(3));
		const kind = this.#random(20);
		if (client === undefined || kind === 0) {
			const opened = await f.connect(clientId, {
				nowMs,
				cleanStart: this.#random(4) === 0,
				sessionExpirySeconds: this.#pick([0, 20, 1000]),
				will: this.#random(3) === 0 ? will("w", this.#pick([0, 5])) : undefined,
			});
			this.#clients.set(clientId, opened);
		} else if (kind === 1) {
			this.#clients.delete(clientId);
			await f.close(client, { nowMs, will: this.#pick(["discard", "keep"] as const) });
		} else if (kind < 4) {
			await f.subscribe(client, this.#pick(FILTERS), { qos: this.#random(3) as QoS });
		} else if (kind === 4) {
			await store.unsubscribe(client.ref, [this.#pick(FILTERS)]);
		} else if (kind < 11) {
			await this.#publish(client);
		} else if (kind === 11) {
			await store.release(client.ref, this.#random(5) + 1);
		} else if (kind < 14) {
			const log = this.#pick(FILTERS);
			const cursor = this.#random((this.heads.get(log) ?? 0) + 1);
			const records = numbers(1, this.#random(3)).map((packetId) =>
				inflight(packetId, { message: message("m", { payload: `${cursor}` }) }),
			);
			await f.checkpoint(client, { cursors: [{ log, cursor, floor: cursor - this.#random(3) }], inflight: records, lastPacketId: kind });
		} else if (kind < 16) {
			const entries = await store.takeShared(shared, this.#random(4) + 1);
			this.#taken.set(shared, [...(this.#taken.get(shared) ?? []), ...entries.map(({ seq }) => seq)]);
		} else if (kind < 19) {
			const seqs = (this.#taken.get(shared) ?? []).splice(0, this.#random(3));
			if (kind === 16) await store.settleShared(shared, seqs);
			else if (kind === 17) await store.returnShared(shared, seqs);
			else for (const seq of seqs) await store.bindShared(shared, seq, client.ref);
		} else {
			this.nowMs += this.#random(6) * 1000;
			const { wills } = await store.due(this.nowMs, 10);
			const [due] = wills;
			if (due !== undefined) await f.publish("w", ["t"], { willId: due.id });
		}
	}

	async #publish(client: Client): Promise<void> {
		const logs = FILTERS.filter(() => this.#random(2) === 0);
		const topic = this.#pick(TOPICS);
		const payload = this.#random(5) === 0 ? "" : `${++this.#published}:${"x".repeat(this.#random(3000))}`;
		const reserve = this.#random(4) === 0 ? { session: client.ref, packetId: this.#random(5) + 1 } : undefined;
		const { appended } = await this.f.publish(topic, logs, {
			message: message(topic, { payload }),
			retain: this.#random(4) === 0,
			reserve,
		});
		for (const { log, seq } of appended) this.heads.set(log, seq);
	}
}

function brief(body: Message): string {
	return `${text(body).split(":")[0]} ${body.payload.length}`;
}

/** What can be seen without changing anything. */
async function observe(store: Store): Promise<{ logs: string[][]; retained: string[]; stats: object }> {
	const logs: string[][] = [];
	for (const log of FILTERS) {
		const entries = await store.read([{ log, after: 0 }], 10_000);
		logs.push(entries.map(({ seq, id, message: body }) => `${seq} ${id} ${brief(body)}`));
	}
	const { messages } = await store.retained("#", undefined, 1000, NOW);
	const { subscriptions, retained, logs: count, logEntries } = await store.stats();
	return {
		logs,
		retained: messages.map((each) => `${each.topic.name} ${brief(each)}`),
		stats: { subscriptions, retained, count, logEntries },
	};
}

/** What the sessions find when they come back. */
async function resume(f: Fixture, nowMs: number): Promise<unknown[]> {
	const found: unknown[] = [];
	for (const clientId of CLIENTS) {
		const { sessionPresent, subscriptions, inflight: records, reservedIds, lastPacketId } = await f.connect(clientId, { nowMs });
		const deliveries = records.map(({ log, seq, message: body }) => `${log} ${seq} ${body && brief(body)}`);
		found.push({ clientId, sessionPresent, subscriptions, deliveries, reservedIds: [...reservedIds].sort(), lastPacketId });
	}
	return found;
}

async function startCopy(path: string, nowMs: number): Promise<{ copy: Fixture; remove: () => Promise<void> }> {
	const copied = copyAsKilled(path);
	const store = createEmbeddedStore({ path: copied, sync: "normal", limits: LIMITS });
	const copy = fixtureOn(store);
	await copy.start(nowMs);
	const remove = async () => {
		await store.close();
		rmSync(join(copied, ".."), { recursive: true });
	};
	return { copy, remove };
}

for (const seed of numbers(1, 12)) {
	test(`embedded store: memory and file agree after random calls, failed commits and kills (seed ${seed})`, async () => {
		const random = generator(seed);
		const directory = temporaryDirectory();
		const path = join(directory, "store.db");
		const { f, allowPages } = await startLimited(path, () => {}, LIMITS);
		const walk = new Walk(f, random);
		for (let round = 1; round <= 12; round++) {
			for (let turn = 0; turn < 15; turn++) await Promise.all(numbers(0, random(8)).map(() => walk.step()));
			if (round % 3 === 0) {
				await f.subscribe(await f.connect("holder", { nowMs: walk.nowMs }), "x");
				const before = await observe(f.store);
				allowPages(60);
				const steps = numbers(1, 10).map(() => walk.step());
				await assert.rejects(f.publish("huge", ["x"], { message: HUGE }));
				await Promise.all(steps);
				allowPages(100_000);
				assert.deepEqual(await observe(f.store), before);
			}
			const live = await observe(f.store);
			const { copy, remove } = await startCopy(path, walk.nowMs);
			const reopened = await observe(copy.store);
			assert.deepEqual(reopened.retained, live.retained);
			for (const [n, log] of FILTERS.entries()) {
				// A session without expiry ends with the process, and with it a log, what is bound to it, or what only it held.
				const known = reopened.logs[n] ?? [];
				const entries = live.logs[n] ?? [];
				if (log.startsWith("$share/"))
					assert.ok(
						known.every((entry) => entries.includes(entry)),
						log,
					);
				const common = Math.min(known.length, entries.length);
				if (common > 0 && !log.startsWith("$share/")) assert.deepEqual(known.slice(-common), entries.slice(-common), log);
			}
			if (round === 12) assert.deepEqual(await resume(copy, walk.nowMs), await resume(f, walk.nowMs));
			await remove();
		}
		await f.store.close();
		rmSync(directory, { recursive: true });
	});
}
