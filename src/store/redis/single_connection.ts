/** The connection to one server, or to whichever one the Sentinels name: always one link, made again when it ends. */

import type { RedisOptions } from "ioredis";
import type { StoreError } from "../store.ts";
import { type Argument, Link } from "./link.ts";
import { away, Doubt, needsAnother, retryDelay, translate, WATCH_MS, type Wire, type WireOptions } from "./wire.ts";

const MAX_RETRY_MS = 1000;
/** Sentinels are there to be asked often: they know when another server has taken over. */
const MAX_SENTINEL_RETRY_MS = 500;

export class SingleConnection implements Wire {
	readonly #target: RedisOptions;
	readonly #options: WireOptions;
	#link: Link;
	#closed = false;
	#retries = 0;
	/** Links made so far. */
	#made = 0;
	#retryTimer: ReturnType<typeof setTimeout> | undefined;
	readonly #watchdog: ReturnType<typeof setInterval>;
	readonly #doubt = new Doubt();
	batch = 0;
	lastError: Error | undefined;

	constructor(target: RedisOptions, options: WireOptions) {
		this.#target = target;
		this.#options = options;
		this.#watchdog = setInterval(() => this.#link.watch(), WATCH_MS);
		this.#link = this.#connect();
	}

	get ready(): boolean {
		return this.#link.ready;
	}

	async send(label: string, name: string, args: readonly Argument[]): Promise<unknown> {
		const link = this.#link;
		try {
			return await link.send(name, args);
		} catch (error) {
			throw this.#failed(label, link, error as Error);
		}
	}

	async sendToAll(name: string, args: readonly Argument[]): Promise<readonly unknown[]> {
		return [await this.send(name, name, args)];
	}

	async confirm(): Promise<void> {
		const link = this.#link;
		this.#doubt.check();
		try {
			await link.confirm();
		} catch (error) {
			throw this.#failed("WAIT", link, error as Error);
		}
	}

	drop(reason: string): void {
		this.lastError = new Error(reason);
		this.#link.end(reason);
	}

	close(): void {
		this.#closed = true;
		clearInterval(this.#watchdog);
		clearTimeout(this.#retryTimer);
		this.#link.end();
	}

	#connect(): Link {
		const { scripts, stallMs, onReady, onError } = this.#options;
		let wasReady = false;
		const link: Link = new Link(this.#nextTarget(), {
			scripts,
			stallMs,
			onReady: () => {
				wasReady = true;
				this.#retries = 0;
				onReady();
			},
			onEnd: (reason) => {
				this.lastError = reason ?? this.lastError;
				this.#doubt.lost(link.unsafe);
				if (this.#closed) return;
				if (wasReady || this.#retries === 0) onError(away("connect", this.lastError));
				this.#retryTimer = setTimeout(
					() => {
						this.#link = this.#connect();
					},
					retryDelay(this.#retries++, this.#target.sentinels === undefined ? MAX_RETRY_MS : MAX_SENTINEL_RETRY_MS),
				);
			},
			onWrite: () => {
				this.batch++;
			},
			onError,
		});
		return link;
	}

	/** Each time another Sentinel first: the one before may be the one that does not answer. */
	#nextTarget(): RedisOptions {
		const { sentinels } = this.#target;
		const made = this.#made++;
		if (sentinels === undefined || sentinels.length === 0) return this.#target;
		const first = made % sentinels.length;
		return { ...this.#target, sentinels: [...sentinels.slice(first), ...sentinels.slice(0, first)] };
	}

	#failed(label: string, link: Link, error: Error): StoreError {
		if (needsAnother(error)) {
			this.lastError = error;
			link.end(error.message);
		}
		return link.ready ? translate(label, error) : away(label, this.lastError ?? error);
	}
}
