/** What the tests of the Redis router share: routers on a server, what they were told, and how to look into the server. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import type { Message } from "../../src/mqtt/message.ts";
import { NO_PROPERTIES } from "../../src/mqtt/packet.ts";
import { Topic } from "../../src/mqtt/topic.ts";
import { createRedisRouter, type RedisRouterOptions } from "../../src/router/redis_router.ts";
import type { Forwarded, Router } from "../../src/router/router.ts";
import { StoreError } from "../../src/store/store.ts";
import { type RedisServer, startRedis } from "../support/redis_server.ts";

const PATIENCE_MS = 15_000;

/** Waits for what happens by itself. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
	const deadline = performance.now() + PATIENCE_MS;
	while (!(await condition())) {
		assert.ok(performance.now() < deadline, `waited too long until ${what}`);
		await sleep(5);
	}
}

export function message(payload: string, options: Partial<Message> = {}): Message {
	return {
		topic: Topic.of("t"),
		payload: Buffer.from(payload),
		qos: 1,
		retain: false,
		forwarded: NO_PROPERTIES,
		expiresAtMs: Number.POSITIVE_INFINITY,
		publisher: "p",
		...options,
	};
}

/** What is forwarded of a message that is in no log. */
export function forwarded(payload: string, options: Partial<Message> = {}): Forwarded {
	return { message: message(payload, options), appended: [], groups: [] };
}

/** Repeats a call as a broker does, as long as Redis is away. */
export async function persistently<T>(call: () => Promise<T>): Promise<T> {
	for (;;) {
		try {
			return await call();
		} catch (error) {
			assert.ok(error instanceof StoreError && error.code === "away", String(error));
			await sleep(20);
		}
	}
}

/** A router and all that it has told, in order. */
export class Told {
	readonly id: string;
	readonly router: Router;
	/** What was told, as words: `route a t/# 1`, `message x`, `group g`, `takeover c e`, `gap`. */
	readonly events: string[] = [];
	readonly messages: Forwarded[] = [];
	readonly errors: Error[] = [];
	dropped = 0;
	/** How often all its routes were stored. */
	stored = 0;
	/** In order; `undefined` where some may have been missed. */
	readonly notices: (string | undefined)[] = [];
	/** `replica filter` → members. */
	readonly routes = new Map<string, number>();

	constructor(options: RedisRouterOptions) {
		this.id = options.replicaId;
		this.router = createRedisRouter({
			...options,
			onError: (error) => this.errors.push(error),
			onDropped: (count) => {
				this.dropped += count;
			},
		});
	}

	start(): Promise<void> {
		return this.router.start({
			onRoute: (replica, filter, members) => {
				this.events.push(`route ${replica} ${filter} ${members}`);
				if (members === 0) this.routes.delete(`${replica} ${filter}`);
				else this.routes.set(`${replica} ${filter}`, members);
			},
			onMessage: (each) => {
				this.events.push(`message ${Buffer.from(each.message.payload).toString()}`);
				this.messages.push(each);
			},
			onGroup: (group) => this.events.push(`group ${group}`),
			onTakeover: ({ clientId, epoch }) => this.events.push(`takeover ${clientId} ${epoch}`),
			onRoutesStored: () => {
				this.stored++;
			},
			onGap: () => this.events.push("gap"),
			onNotice: (notice) => this.notices.push(notice),
		});
	}

	get payloads(): string[] {
		return this.messages.map((each) => Buffer.from(each.message.payload).toString());
	}

	count(event: string): number {
		return this.events.filter((each) => each === event).length;
	}

	/** Waits until it was told something so often. */
	told(event: string, times = 1): Promise<void> {
		return until(`${this.id} is told "${event}"`, () => this.count(event) >= times);
	}

	wants(topic: string): string[] {
		return [...this.router.exact(Topic.of(topic))];
	}
}

/**
 * Forwards numbered messages from one router to another while something happens, repeating what Redis was away for as a
 * broker does. Answers how many there were.
 */
export async function forwardDuring(from: Told, to: Told, happening: () => Promise<void>): Promise<number> {
	let over = false;
	let number = 0;
	const forwarding = (async () => {
		while (!over || number % 50 !== 0) {
			const first = number;
			number += 5;
			await persistently(() =>
				Promise.all(
					Array.from({ length: 5 }, (_, n) => from.router.forward([to.id], forwarded(String(first + n)), `token ${from.id} ${first + n}`)),
				),
			);
			if (number % 50 === 0) await sleep(1);
		}
	})();
	await sleep(20);
	await happening();
	await sleep(20);
	over = true;
	await forwarding;
	return number;
}

/** All numbers below have come, each once, in their order. */
export async function allInOrder(to: Told, count: number): Promise<void> {
	await until(`${to.id} has all ${count} messages`, () => to.messages.length >= count);
	assert.deepEqual(
		to.payloads,
		Array.from({ length: count }, (_, n) => String(n)),
	);
}

/** Both know each other's routes, and messages of both kinds come through. */
export async function working(a: Told, b: Told, name: string): Promise<void> {
	for (const [from, to] of [
		[a, b],
		[b, a],
	] as const) {
		const filters = [`${name}/+`, `$share/${name}/t`, name];
		await Promise.all(filters.map((filter) => to.router.advertise(filter)));
		await persistently(() => from.router.catchUp());
		assert.deepEqual([from.routes.get(`${to.id} ${name}/+`), from.routes.get(`${to.id} $share/${name}/t`)], [1, 1], name);
		assert.deepEqual(from.wants(name), [to.id], name);
		await persistently(() => from.router.forward([to.id], forwarded(`${name} qos 1`), undefined));
		await to.told(`message ${name} qos 1`);
		await until("QoS 0 comes through", async () => {
			from.router.publish(to.id, message(`${name} qos 0`, { qos: 0 }), []);
			await sleep(10);
			return to.count(`message ${name} qos 0`) > 0;
		});
	}
}

/** One server for a file of tests, and a client of its own to look into it. */
export class RouterBench {
	readonly server: RedisServer;
	readonly client: Redis;
	readonly #started: Told[] = [];
	#prefixes = 0;

	private constructor(server: RedisServer) {
		this.server = server;
		this.client = new Redis(server.url, { commandTimeout: 10_000 });
		this.client.on("error", () => {});
	}

	static async start(settings: readonly string[] = []): Promise<RouterBench> {
		return new RouterBench(await startRedis(settings));
	}

	freshPrefix(): string {
		return `test${++this.#prefixes}:`;
	}

	make(prefix: string, replicaId: string, options: Partial<RedisRouterOptions> = {}): Told {
		return new Told({ redis: this.server.url, prefix, replicaId, durability: "memory", ...options });
	}

	/** A router that is closed with the test. */
	async router(prefix: string, replicaId: string, options: Partial<RedisRouterOptions> = {}): Promise<Told> {
		const told = this.make(prefix, replicaId, options);
		await told.start();
		this.#started.push(told);
		return told;
	}

	/** Two routers, `a` and `b`, on a prefix of their own. */
	async pair(options: Partial<RedisRouterOptions> = {}, prefix = this.freshPrefix()): Promise<{ a: Told; b: Told; prefix: string }> {
		return { a: await this.router(prefix, "a", options), b: await this.router(prefix, "b", options), prefix };
	}

	async closeRouters(): Promise<void> {
		await Promise.all(this.#started.splice(0).map(({ router }) => router.close()));
	}

	async stop(): Promise<void> {
		await this.closeRouters();
		this.client.disconnect();
		await this.server.stop();
	}
}
