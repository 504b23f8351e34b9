/**
 * One connection to one Redis server, from its first packet to its end: commands in order, all of one event-loop turn in one
 * write. Knows ioredis and when a server is silent; what comes after the end is decided by those who made it.
 *
 * A command is never sent twice: when the connection goes, or answers nothing for a while, all that is under way is rejected
 * though it may have been done. ioredis' own reconnecting, resending, timeouts and pipelining are off: they reorder commands,
 * run them twice, or leave them unsettled.
 */

import { Command, Redis, type RedisOptions } from "ioredis";
import { StoreError } from "../store.ts";
import type { Script } from "./scripts.ts";

/** Never a plain `Uint8Array`: ioredis would store its numbers as text. */
export type Argument = string | number | Buffer;

export interface LinkOptions {
	/** Those that will be run. */
	readonly scripts: readonly Script[];
	/** The connection counts as lost when commands are under way and nothing was answered for so long. */
	readonly stallMs: number;
	/** Commands can be sent: those that it sends come first. */
	readonly onReady: () => void;
	/** It is over, for `reason` as far as that is known. Called once, and not before what was under way is rejected. */
	readonly onEnd: (reason: Error | undefined) => void;
	/** All that was sent so far has left: what is sent from now on leaves with another write. */
	readonly onWrite: () => void;
	/** A script could not be loaded. */
	readonly onError: (error: Error) => void;
}

/** A server that accepts a connection and then says nothing is frozen, and another one may be in charge by now. */
const HANDSHAKE_MS = 3000;
/** Commands after which a turn's write does not wait for its end. */
const MAX_CORKED = 256;
/** How long a server waits for its replicas before it says that they do not have what was written. */
const WAIT_MS = 1000;

/** They write nothing that a replica would have to have. */
const READING = new Set(
	"GET HGET HMGET HGETALL HEXISTS HLEN HSCAN SCARD SMEMBERS XRANGE XREAD XLEN ZRANGE ZCARD TIME INFO CONFIG CLUSTER ASKING SCRIPT".split(
		" ",
	),
);

const SETTINGS = {
	lazyConnect: true,
	protocol: 2,
	replyMapping: "legacy",
	enableAutoPipelining: false,
	enableOfflineQueue: false,
	autoResendUnfulfilledCommands: false,
	maxRetriesPerRequest: null,
	retryStrategy: () => null,
	connectTimeout: 5000,
	// Under the time of the handshake: a Sentinel that is frozen is passed over.
	sentinelCommandTimeout: 1000,
	sentinelRetryStrategy: () => null,
	disconnectTimeout: 100,
	disableClientInfo: true,
	failoverDetector: true,
} satisfies RedisOptions;

/** A client that connects when it is told to, once, and repeats nothing. */
export function makeClient(options: RedisOptions): Redis {
	const redis = new Redis({ ...options, ...SETTINGS });
	// Without a listener an error would end the process.
	redis.on("error", () => {});
	return redis;
}

export class Link {
	readonly #redis: Redis;
	readonly #options: LinkOptions;
	#state: "connecting" | "ready" | "ending" | "ended" = "connecting";
	#reason: Error | undefined;
	#silentSince = performance.now();
	#underWay = 0;
	#answered = 0;
	#answeredBefore = -1;
	#corked = 0;
	/** Commands sent that may write, and how many of them a replica is known to have. */
	#sent = 0;
	#safe = 0;
	#waiting: { readonly upTo: number; readonly answer: Promise<void> } | undefined;
	#toConfirm: PromiseWithResolvers<void> | undefined;

	/** Begins to connect. */
	constructor(target: RedisOptions, options: LinkOptions) {
		this.#options = options;
		const redis = makeClient(target);
		this.#redis = redis;
		redis.on("error", (error: Error) => {
			this.#reason ??= error;
		});
		redis.once("ready", () => {
			if (this.#state !== "connecting") return;
			this.#state = "ready";
			this.#silentSince = performance.now();
			// In front of everything else, so that no script is ever unknown and none must be sent again behind later commands.
			for (const { text } of options.scripts) this.send("SCRIPT", ["LOAD", text]).catch(options.onError);
			options.onReady();
		});
		redis.once("end", () => this.#ended());
		// The failure is told by the events.
		redis.connect().catch(() => {});
	}

	get ready(): boolean {
		return this.#state === "ready";
	}

	/** Whether answers are still to come. */
	get busy(): boolean {
		return this.#underWay > 0;
	}

	/** Whether something was written of which no replica is known to have it. */
	get unsafe(): boolean {
		return this.#sent > this.#safe;
	}

	/** Sends a command. Rejects with the error that the server answers, or, when the connection is gone, with any other. */
	send(name: string, args: readonly Argument[]): Promise<unknown> {
		if (this.#state !== "ready") return Promise.reject(this.#reason ?? new Error("there is no connection"));
		if (!READING.has(name)) this.#sent++;
		this.#cork();
		return this.#dispatch(name, args);
	}

	/** Resolves when one replica has all that was sent before; rejects with `away` when that takes too long. One WAIT per turn, behind everything. */
	confirm(): Promise<void> {
		if (this.#state !== "ready") return Promise.reject(this.#reason ?? new Error("there is no connection"));
		if (!this.unsafe) return Promise.resolve();
		if (this.#waiting?.upTo === this.#sent) return this.#waiting.answer;
		if (this.#toConfirm === undefined) {
			this.#cork();
			this.#toConfirm = Promise.withResolvers();
		}
		return this.#toConfirm.promise;
	}

	/** To be called again and again: ends the connection when nothing was answered for too long. */
	watch(): void {
		const silentMs = performance.now() - this.#silentSince;
		if (this.#state === "connecting") {
			if (silentMs >= HANDSHAKE_MS) this.end("it did not answer in time");
		} else if (this.#underWay === 0 || this.#answered !== this.#answeredBefore) {
			this.#answeredBefore = this.#answered;
			this.#silentSince = performance.now();
		} else if (silentMs >= this.#options.stallMs) {
			this.end(`nothing was answered for ${this.#options.stallMs} ms`);
		}
	}

	/** Gives it up. Now: to wait for a server that does not answer may be what made it end. */
	end(reason?: string): void {
		if (this.#state === "ending" || this.#state === "ended") return;
		const connecting = this.#state === "connecting";
		this.#state = "ending";
		if (reason !== undefined) this.#reason = new Error(reason);
		this.#redis.disconnect();
		this.#redis.stream?.destroy();
		// While it asks the Sentinels it would not say so.
		if (connecting) this.#ended();
	}

	#ended(): void {
		if (this.#state === "ended") return;
		this.#state = "ended";
		this.#options.onEnd(this.#reason);
	}

	#cork(): void {
		const { stream } = this.#redis;
		if (this.#corked++ === 0) {
			stream.cork();
			setImmediate(() => {
				this.#wait();
				this.#corked = 0;
				this.#options.onWrite();
				stream.uncork();
			});
		} else if (this.#corked % MAX_CORKED === 0) {
			this.#options.onWrite();
			stream.uncork();
			stream.cork();
		}
	}

	/** Sends the WAIT that was asked for in this turn. */
	#wait(): void {
		const asked = this.#toConfirm;
		if (asked === undefined) return;
		this.#toConfirm = undefined;
		const upTo = this.#sent;
		const answer = this.#dispatch("WAIT", [1, WAIT_MS]).then((replicas) => {
			if (Number(replicas) < 1) {
				throw new StoreError("away", "Cannot confirm what was written: no replica of Redis has it yet. Look after the replicas");
			}
			this.#safe = Math.max(this.#safe, upTo);
		});
		this.#waiting = { upTo, answer };
		const over = () => {
			if (this.#waiting?.answer === answer) this.#waiting = undefined;
		};
		answer.then(over, over);
		answer.then(asked.resolve, asked.reject);
	}

	#dispatch(name: string, args: readonly Argument[]): Promise<unknown> {
		const command = new Command(name, args as Argument[], { replyEncoding: null });
		this.#underWay++;
		this.#redis.sendCommand(command);
		return command.promise.then(
			(reply: unknown) => {
				this.#underWay--;
				this.#answered++;
				return reply;
			},
			(error: Error) => {
				this.#underWay--;
				this.#answered++;
				throw error;
			},
		);
	}
}
