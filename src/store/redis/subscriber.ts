/**
 * A subscription to one channel that is always being kept up, on a connection of its own: from a server, from whichever one
 * the Sentinels name, or from any node of a cluster, for each of them has all that is published. What is published while the
 * connection is away is lost, as with every subscription in Redis.
 */

import type { Redis, RedisOptions } from "ioredis";
import { makeClient } from "./link.ts";
import { parseTarget, type RedisTarget } from "./target.ts";

export interface SubscriberOptions {
	readonly target: RedisTarget;
	readonly channel: string;
	readonly onMessage: (message: Buffer) => void;
	/** Called whenever messages begin to come. */
	readonly onReady: () => void;
	/** The subscription is away: once for each time. */
	readonly onError: (error: Error) => void;
}

const MIN_RETRY_MS = 50;
const MAX_RETRY_MS = 1000;
const CONNECT_MS = 5000;

export class Subscriber {
	readonly #options: SubscriberOptions;
	/** One for each address that can be tried. */
	readonly #targets: readonly RedisOptions[];
	#client: Redis | undefined;
	#ready = false;
	#closed = false;
	#retries = 0;
	#timer: ReturnType<typeof setTimeout> | undefined;
	#lastError: Error | undefined;

	/** Begins to connect. Throws `StoreError` for an address that cannot be used. */
	constructor(options: SubscriberOptions) {
		this.#options = options;
		const parsed = parseTarget(options.target);
		this.#targets = parsed.kind === "cluster" ? parsed.nodes.map((node) => ({ ...parsed.options, ...node })) : [parsed.options];
		this.#connect();
	}

	get ready(): boolean {
		return this.#ready;
	}

	/** Why there is no subscription, as far as that is known. */
	get lastError(): Error | undefined {
		return this.#lastError;
	}

	/** Gives the connection up; another is made. */
	drop(reason: string): void {
		if (this.#client === undefined) return;
		this.#lastError = new Error(reason);
		this.#end(this.#client);
	}

	close(): void {
		this.#closed = true;
		if (this.#client !== undefined) this.#end(this.#client);
		clearTimeout(this.#timer);
	}

	#connect(): void {
		const client = makeClient(this.#targets[this.#retries % this.#targets.length] as RedisOptions);
		this.#client = client;
		client.on("error", (error: Error) => {
			this.#lastError = error;
		});
		client.on("messageBuffer", (_channel: Buffer, message: Buffer) => {
			if (this.#client === client) this.#options.onMessage(message);
		});
		client.once("end", () => this.#end(client));
		this.#timer = setTimeout(() => this.drop("it did not answer in time"), CONNECT_MS);
		client
			.connect()
			.then(() => client.subscribe(this.#options.channel))
			.then(() => {
				if (this.#client !== client) return;
				clearTimeout(this.#timer);
				this.#ready = true;
				this.#retries = 0;
				this.#options.onReady();
			})
			.catch((error: Error) => {
				this.#lastError ??= error;
				this.#end(client);
			});
	}

	/** Now: a server that does not answer would never say that it is over. */
	#end(client: Redis): void {
		if (this.#client !== client) return;
		this.#client = undefined;
		const told = !this.#ready && this.#retries > 0;
		this.#ready = false;
		clearTimeout(this.#timer);
		client.disconnect();
		client.stream?.destroy();
		if (this.#closed) return;
		if (!told)
			this.#options.onError(
				new Error(
					`Cannot hear other replicas: Redis is away (${this.#lastError?.message ?? "the connection ended"}). It is tried again until it is back`,
				),
			);
		const delay = MIN_RETRY_MS + Math.random() * Math.min(MAX_RETRY_MS - MIN_RETRY_MS, MIN_RETRY_MS * 2 ** this.#retries++);
		this.#timer = setTimeout(() => this.#connect(), delay);
	}
}
