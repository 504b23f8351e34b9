/**
 * One connection to Redis that is always being kept up: commands in order, all of one event-loop turn in one write, errors as
 * `StoreError`s. Knows ioredis and how Redis fails, and nothing of what is stored.
 *
 * A command is never sent twice: when the connection goes, or answers nothing for a while, all that is under way is rejected
 * as `unavailable` though it may have been done, and the caller repeats it or not. ioredis' own reconnecting, resending,
 * timeouts and pipelining are off: they reorder commands, run them twice, or leave them unsettled.
 */

import { Command, Redis, type RedisOptions } from "ioredis";
import { StoreError } from "../store.ts";
import type { Script } from "./scripts.ts";

/** Never a plain `Uint8Array`: ioredis would store its numbers as text. */
export type Argument = string | number | Buffer;

/** Where Redis is: an address such as `redis://host:6379/0`, or options of ioredis (Sentinel, TLS, …). */
export type RedisTarget = string | RedisOptions;

export interface ConnectionOptions {
	readonly target: RedisTarget;
	/** Those that will be run. */
	readonly scripts: readonly Script[];
	/** The connection counts as lost when commands are under way and nothing was answered for so long. */
	readonly stallMs: number;
	/** Called whenever the connection is there, before any command: what it sends comes first. */
	readonly onReady: () => void;
	readonly onError: (error: Error) => void;
}

const WATCH_MS = 500;
/** A server that accepts a connection and then says nothing is frozen, and another one may be in charge by now. */
const HANDSHAKE_MS = 3000;
const MIN_RETRY_MS = 50;
const MAX_RETRY_MS = 5000;
/** Commands after which a turn's write does not wait for its end. */
const MAX_CORKED = 256;

export class Connection {
	readonly #options: ConnectionOptions;
	#redis: Redis | undefined;
	#ready = false;
	#closed = false;
	#retries = 0;
	#retryTimer: ReturnType<typeof setTimeout> | undefined;
	readonly #watchdog: ReturnType<typeof setInterval>;
	#underWay = 0;
	#answered = 0;
	#answeredBefore = -1;
	#silentSince = 0;
	#corked = 0;
	#batch = 0;
	#lastError: Error | undefined;
	#confirmation: Promise<void> | undefined;

	constructor(options: ConnectionOptions) {
		this.#options = options;
		this.#watchdog = setInterval(() => this.#watch(), WATCH_MS);
		this.#connect();
	}

	get ready(): boolean {
		return this.#ready;
	}

	/** Number of the write that the next command leaves with: those of one turn share one, unless they are very many. */
	get batch(): number {
		return this.#batch;
	}

	/** Why there is no connection, as far as that is known. */
	get lastError(): Error | undefined {
		return this.#lastError;
	}

	/** Sends a command. Replies are buffers, numbers, null and arrays of these. */
	send(name: string, args: readonly Argument[]): Promise<unknown> {
		return this.#send(name, name, args);
	}

	/** Runs a script. */
	run(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<unknown> {
		return this.#send(script.name, "EVALSHA", [script.digest, keys.length, ...keys, ...args]);
	}

	/** Resolves when one replica of the server has all that was sent before, and rejects when that takes too long. One command per turn. */
	confirm(): Promise<void> {
		if (this.#confirmation === undefined) {
			this.#confirmation = this.send("WAIT", [1, 1000]).then((replicas) => {
				if (Number(replicas) >= 1) return;
				throw new StoreError("unavailable", "Cannot confirm what was written: no replica of Redis has it yet. Look after the replicas");
			});
			setImmediate(() => {
				this.#confirmation = undefined;
			});
		}
		return this.#confirmation;
	}

	/** Gives the connection up; another is made, with the next address if there are several. */
	drop(reason: string): void {
		this.#lastError = new Error(reason);
		this.#end();
	}

	/** Ends it for good. What is under way is rejected. */
	close(): void {
		this.#closed = true;
		clearInterval(this.#watchdog);
		clearTimeout(this.#retryTimer);
		this.#end();
	}

	/** Now: to wait for a server that does not answer is what made it end. */
	#end(): void {
		this.#redis?.disconnect();
		this.#redis?.stream?.destroy();
	}

	#send(label: string, name: string, args: readonly Argument[]): Promise<unknown> {
		const redis = this.#redis;
		if (redis === undefined || !this.#ready) return Promise.reject(this.#unavailable(label));
		const { stream } = redis;
		if (this.#corked++ === 0) {
			stream.cork();
			setImmediate(() => {
				this.#corked = 0;
				this.#batch++;
				stream.uncork();
			});
		} else if (this.#corked % MAX_CORKED === 0) {
			this.#batch++;
			stream.uncork();
			stream.cork();
		}
		this.#underWay++;
		const command = new Command(name, args as Argument[], { replyEncoding: null });
		redis.sendCommand(command);
		return command.promise.then(
			(reply: unknown) => {
				this.#underWay--;
				this.#answered++;
				return reply;
			},
			(error: Error) => {
				this.#underWay--;
				this.#answered++;
				throw this.#translate(label, error);
			},
		);
	}

	#connect(): void {
		const { target, scripts, onReady, onError } = this.#options;
		const redis = makeClient(target);
		this.#redis = redis;
		this.#silentSince = performance.now();
		// Without a listener an error would end the process.
		redis.on("error", (error: Error) => {
			this.#lastError = error;
		});
		redis.once("ready", () => {
			if (this.#closed) return;
			this.#ready = true;
			this.#retries = 0;
			this.#corked = 0;
			this.#silentSince = performance.now();
			// In front of everything else, so that no script is ever unknown and none must be sent again behind later commands.
			for (const { text } of scripts) this.send("SCRIPT", ["LOAD", text]).catch(onError);
			onReady();
		});
		redis.once("end", () => {
			const wasReady = this.#ready;
			this.#ready = false;
			if (this.#closed) return;
			if (wasReady || this.#retries === 0) onError(this.#unavailable("connect"));
			const delay = MIN_RETRY_MS + Math.random() * Math.min(MAX_RETRY_MS - MIN_RETRY_MS, MIN_RETRY_MS * 2 ** this.#retries++);
			this.#retryTimer = setTimeout(() => this.#connect(), delay);
		});
		// The failure is told by the events.
		redis.connect().catch(() => {});
	}

	#watch(): void {
		if (!this.#ready) {
			// Between two attempts there is nothing to end.
			if (performance.now() - this.#silentSince >= HANDSHAKE_MS) this.#end();
		} else if (this.#underWay === 0 || this.#answered !== this.#answeredBefore) {
			this.#answeredBefore = this.#answered;
			this.#silentSince = performance.now();
		} else if (performance.now() - this.#silentSince >= this.#options.stallMs) {
			this.drop(`nothing was answered for ${this.#options.stallMs} ms`);
		}
	}

	#unavailable(label: string): StoreError {
		const why = this.#lastError === undefined ? "there is no connection" : this.#lastError.message;
		return new StoreError("unavailable", `Cannot ${label}: Redis is away (${why}). It is tried again until it is back`);
	}

	/** Without the error as the cause: it carries the command with all that was to be stored. */
	#translate(label: string, { message }: Error): StoreError {
		if (message.startsWith("FENCED")) {
			return new StoreError("fenced", `Cannot ${label}: another connection has the session, or it was closed`);
		}
		if (message.startsWith("FULL")) return new StoreError("full", `Cannot ${label}: ${message.slice(5)}. Remove some or raise it`);
		if (message.startsWith("OOM")) {
			return new StoreError("full", `Cannot ${label}: Redis has no memory left. Raise its maxmemory or remove messages`);
		}
		// Unknown scripts or a primary that has become a replica: only another connection helps.
		if (message.startsWith("NOSCRIPT") || message.startsWith("READONLY") || message.startsWith("UNBLOCKED")) this.drop(message);
		if (!this.#ready) return this.#unavailable(label);
		return new StoreError("unavailable", `Cannot ${label}: Redis answers "${message}"`);
	}
}

function makeClient(target: RedisTarget): Redis {
	const options = {
		lazyConnect: true,
		protocol: 2,
		replyMapping: "legacy",
		enableAutoPipelining: false,
		enableOfflineQueue: false,
		autoResendUnfulfilledCommands: false,
		maxRetriesPerRequest: null,
		retryStrategy: () => null,
		connectTimeout: 5000,
		disableClientInfo: true,
		failoverDetector: true,
	} satisfies RedisOptions;
	return typeof target === "string" ? new Redis(target, options) : new Redis({ ...target, ...options });
}
