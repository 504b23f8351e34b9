/**
 * The Redis store under random calls of two replicas that are killed at any point between two commands: what was acknowledged
 * is there, every subscription is whole, and when all sessions are over, nothing is left of them. A failing seed is named by
 * its test and repeats itself, as far as two replicas can.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { QoS } from "../../src/mqtt/packet.ts";
import { StoreError } from "../../src/store/store.ts";
import { type Client, inflight, message, NOW, numbers, texts, will } from "../contracts/store/fixture.ts";
import { RedisBench, type Replica } from "./redis_support.ts";

const CLIENTS = ["a", "b", "c", "d"];
const FILTERS = ["t", "u", "v/#", "$share/g/t", "$share/h/u"];
const LEASE_MS = 50;
/** Keys that are nobody's: who knows which logs there are, retained messages, counters, and tokens that go by themselves. */
const LASTING = /\{(route|ret)\}|\{reps\}(:reads)?$|\{time\}:subscriptions$|:t:/;

let bench: RedisBench;

before(async () => {
	bench = await RedisBench.start();
});

after(() => bench.stop());

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
	readonly #random: (below: number) => number;
	readonly #replicas: readonly Replica[];
	readonly #clients = new Map<string, { readonly replica: Replica; readonly client: Client }>();
	readonly #taken = new Map<string, number[]>();
	/** Payloads of messages that were acknowledged, for the log of the session that keeps all. */
	readonly acknowledged: string[] = [];
	/** Payload of what a packet id stands for: the same until it is acknowledged, as a client must do. */
	readonly #reserved = new Map<string, string>();
	#published = 0;

	constructor(replicas: readonly Replica[], random: (below: number) => number) {
		this.#replicas = replicas;
		this.#random = random;
	}

	/** A random call. Refusals are part of the walk; anything else is not. */
	async step(): Promise<void> {
		try {
			await this.#call();
		} catch (error) {
			if (!(error instanceof StoreError)) throw error;
			assert.ok(error.code === "fenced" || /closed/.test(error.message), error.message);
		}
	}

	async #call(): Promise<void> {
		const clientId = this.#pick(CLIENTS);
		const shared = this.#pick(FILTERS.slice(3));
		const kind = this.#random(20);
		const connected = this.#clients.get(clientId);
		if (connected === undefined || kind === 0) {
			await this.#connect(clientId);
			return;
		}
		const { replica, client } = connected;
		const { store } = replica;
		if (kind === 1) {
			this.#clients.delete(clientId);
			await replica.close(client, { will: this.#pick(["discard", "keep"] as const), sessionExpirySeconds: this.#pick([undefined, 0]) });
		} else if (kind < 6) {
			await replica.subscribe(client, this.#pick(FILTERS), { qos: this.#random(3) as QoS });
		} else if (kind < 8) {
			await store.unsubscribe(client.ref, [this.#pick(FILTERS), this.#pick(FILTERS)]);
		} else if (kind < 12) {
			await this.#publish(replica, client);
		} else if (kind === 12) {
			await store.release(client.ref, this.#random(5) + 1);
		} else if (kind < 15) {
			const log = this.#pick(FILTERS);
			const cursor = this.#random(this.#published + 1);
			const records = numbers(1, this.#random(3)).map((packetId) => inflight(packetId, { log, seq: cursor }));
			await replica.checkpoint(client, {
				cursors: [{ log, cursor, floor: cursor - this.#random(3) }],
				inflight: records,
				lastPacketId: kind,
			});
		} else if (kind < 17) {
			const entries = await store.takeShared(shared, this.#random(4) + 1);
			this.#taken.set(shared, [...(this.#taken.get(shared) ?? []), ...entries.map(({ seq }) => seq)]);
		} else if (kind < 19) {
			const seqs = (this.#taken.get(shared) ?? []).splice(0, this.#random(3));
			if (kind === 17) await store.settleShared(shared, seqs);
			else for (const seq of seqs) await store.bindShared(shared, seq, client.ref);
		} else {
			const { wills } = await store.due(NOW + this.#random(20) * 1000, 10);
			for (const { id } of wills) await replica.publish("w", ["t"], { willId: id });
		}
	}

	async #connect(clientId: string): Promise<void> {
		const replica = this.#pick(this.#replicas);
		const client = await replica.connect(clientId, {
			cleanStart: this.#random(4) === 0,
			sessionExpirySeconds: this.#pick([0, 20, 1000]),
			will: this.#random(2) === 0 ? will("w", this.#pick([0, 5])) : undefined,
		});
		this.#clients.set(clientId, { replica, client });
	}

	async #publish(replica: Replica, client: Client): Promise<void> {
		const reserve = this.#random(4) === 0 ? { session: client.ref, packetId: this.#random(5) + 1 } : undefined;
		const use = `${client.ref.clientId} ${reserve?.packetId}`;
		const payload = (reserve && this.#reserved.get(use)) ?? String(++this.#published);
		if (reserve !== undefined) this.#reserved.set(use, payload);
		const logs = ["kept", ...FILTERS.filter(() => this.#random(2) === 0)];
		const { duplicate } = await replica.publish("x", logs, { message: message("x", { payload }), retain: this.#random(4) === 0, reserve });
		this.#reserved.delete(use);
		if (!duplicate) this.acknowledged.push(payload);
	}

	#pick<T>(from: readonly T[]): T {
		return from[this.#random(from.length)] as T;
	}
}

/** What holds for whoever comes after the crash. */
async function judge(prefix: string, acknowledged: readonly string[]): Promise<void> {
	const heir = await bench.startReplica(prefix, { replicaId: "heir", leaseMs: LEASE_MS, clock: { nowMs: () => NOW } });
	try {
		await sleep(LEASE_MS);
		await heir.redis.reapDead();
		const kept = new Set(texts(await heir.read("kept", 0, 100_000)));
		assert.deepEqual(
			acknowledged.filter((payload) => !kept.has(payload)),
			[],
			"acknowledged and lost",
		);
		for (const clientId of CLIENTS) {
			const { subscriptions, sessionPresent } = await heir.connect(clientId);
			assert.ok(sessionPresent || subscriptions.length === 0);
			const logs = subscriptions.filter(({ qos }) => qos > 0).map(({ filter }) => filter);
			assert.deepEqual(
				(await heir.publish("y", logs)).appended.map(({ log }) => log),
				logs,
				`${clientId} has all its logs`,
			);
			for (const log of logs) assert.ok(heir.knows(log), `${log} is known`);
		}
		for (const clientId of [...CLIENTS, "keeper"]) {
			await heir.close(await heir.connect(clientId, { cleanStart: true, sessionExpirySeconds: 0 }), { will: "discard" });
		}
		const later = NOW + 1e9;
		for (const { id } of (await heir.store.due(later, 1000)).wills) await heir.publish("w", [], { willId: id });
		const { wills, expiredSessions } = await heir.store.due(later, 1000);
		assert.deepEqual([wills, expiredSessions], [[], []]);
		for (let round = 0; round < 3; round++) await heir.store.due(later, 1);
		assert.deepEqual([...heir.known], []);
		const left = (await bench.client.keys(`${prefix}*`)).filter((key) => !LASTING.test(key));
		assert.deepEqual(left, [], "left behind");
	} finally {
		await heir.dispose();
	}
}

for (const seed of numbers(1, 6)) {
	test(`Redis store: two replicas that are killed at any point leave nothing half done, seed ${seed}`, async () => {
		const random = generator(seed);
		const prefix = bench.freshPrefix();
		const replicas = [];
		for (const replicaId of ["r1", "r2"]) replicas.push(await bench.startReplica(prefix, { replicaId }));
		const [first] = replicas as [Replica];
		await first.subscribe(await first.connect("keeper", { sessionExpirySeconds: 1e6 }), "kept");
		const walk = new Walk(replicas, random);
		for (let crash = 0; crash < 4; crash++) {
			const steps: Promise<void>[] = [];
			for (let n = 0; n < 20; n++) {
				for (let at = 0; at < 4; at++) steps.push(walk.step());
				await sleep(0);
			}
			// Now, in the middle of the last calls.
			const acknowledged = [...walk.acknowledged];
			const copying = bench.copyAsKilled(prefix);
			for (let at = 0; at < 8; at++) steps.push(walk.step());
			await judge(await copying, acknowledged);
			await Promise.all(steps);
		}
		for (const replica of replicas) await replica.dispose();
	});
}
