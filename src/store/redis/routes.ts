/**
 * Which logs exist, as all replicas know it: a copy of the routes in memory, kept by following their changes on a connection
 * of its own. Knows how to be up to date (P3) and nothing of what is in a log.
 *
 * A route names the generation of its log. The log is the truth: a route that is missing or too many is put right by whoever
 * finds it so, and each change names the generation that it is about, so that one that comes late does no harm.
 */

import { decodeText } from "../../mqtt/utf8.ts";
import { StoreError } from "../store.ts";
import { Connection, type RedisTarget } from "./connection.ts";
import type { Context } from "./context.ts";
import { scripts } from "./scripts.ts";

/** Changes that a follower may be behind before it has to load all routes again. */
const REMEMBERED_CHANGES = 10_000;
const BLOCK_MS = 5000;
const STALL_MS = 7000;
const PAGE = 1000;

type ChangeEntry = [id: Buffer, fields: Buffer[]];

export class Routes {
	readonly #context: Context;
	readonly #target: RedisTarget;
	/** Log → generation. */
	readonly #known = new Map<string, string>();
	/** Last change that is part of `#known`. */
	#version = 0;
	/** Own changes, known before the follower comes to them: log → version. */
	readonly #early = new Map<string, number>();
	#follower: Connection | undefined;
	#following = false;
	#onLog: ((name: string, exists: boolean) => void) | undefined;
	#waiting: { readonly version: number; readonly resolve: () => void }[] = [];
	#asked: { readonly batch: number; readonly answer: Promise<void> } | undefined;

	/** Called when the server turned out to have lost some of what it was told. */
	onWentBack: () => void = () => {};

	constructor(context: Context, target: RedisTarget) {
		this.#context = context;
		this.#target = target;
	}

	get size(): number {
		return this.#known.size;
	}

	names(): MapIterator<string> {
		return this.#known.keys();
	}

	/** The generation of a log, `undefined` when it does not exist. */
	generation(log: string): string | undefined {
		return this.#known.get(log);
	}

	/** Loads all routes and begins to follow their changes. */
	async open(): Promise<void> {
		await this.#load(this.#context.connection);
		this.#follower = new Connection({
			target: this.#target,
			scripts: [],
			stallMs: STALL_MS,
			onReady: () => void this.#follow(),
			onError: (error) => this.#context.onError(error),
		});
	}

	/** Tells of all logs now, and of each that comes or goes from now on. */
	watch(onLog: (name: string, exists: boolean) => void): void {
		this.#onLog = onLog;
		for (const name of this.#known.keys()) onLog(name, true);
	}

	close(): void {
		this.#follower?.close();
		this.#onLog = undefined;
	}

	/** Says that a log is there, if nobody has. */
	put(log: string, generation: string): Promise<void> {
		return this.#known.get(log) === generation ? Promise.resolve() : this.#change(log, generation, "put");
	}

	/** Says that a log is gone, unless it has come again. */
	remove(log: string, generation: string): Promise<void> {
		return this.#change(log, generation, "remove");
	}

	/**
	 * Resolves when all changes are known that were made before the call: a publication that is matched after that reaches
	 * every subscription that was acknowledged before. One question for all calls of one turn: it leaves after the last of them.
	 */
	catchUp(): Promise<void> {
		const { connection, keys } = this.#context;
		const { batch } = connection;
		if (this.#asked?.batch !== batch) {
			const answer = connection.send("GET", [keys.routeVersion]).then((reply) => this.#reached(Number(reply ?? 0)));
			this.#asked = { batch, answer };
		}
		return this.#asked.answer;
	}

	#reached(version: number): Promise<void> | undefined {
		if (this.#version === version) return undefined;
		if (this.#version > version) {
			this.#follower?.drop("the server has gone back in time");
			throw new StoreError("unavailable", "Cannot know all routes: Redis has lost some. They are being loaded again");
		}
		return new Promise((resolve) => this.#waiting.push({ version, resolve }));
	}

	async #change(log: string, generation: string, change: "put" | "remove"): Promise<void> {
		const { connection, keys } = this.#context;
		const reply = await connection.run(
			scripts.routeChange,
			[keys.routes, keys.routeVersion, keys.routeChanges],
			[log, generation, change, REMEMBERED_CHANGES],
		);
		const [version, present] = reply as [number, Buffer];
		if (version > this.#version) this.#early.set(log, Math.max(version, this.#early.get(log) ?? 0));
		this.#set(log, present.toString("latin1"));
	}

	/** @param generation Empty when the log is gone. */
	#set(log: string, generation: string): void {
		const existed = this.#known.has(log);
		if (generation === "") this.#known.delete(log);
		else this.#known.set(log, generation);
		if (existed !== (generation !== "")) this.#onLog?.(log, !existed);
	}

	/** Reads changes until the connection is gone; the next one begins again. */
	async #follow(): Promise<void> {
		const follower = this.#follower;
		if (follower === undefined || this.#following) return;
		this.#following = true;
		try {
			await this.#compare(follower);
			for (;;) {
				const position = `${this.#version}-0`;
				const reply = await follower.send("XREAD", [
					"COUNT",
					PAGE,
					"BLOCK",
					BLOCK_MS,
					"STREAMS",
					this.#context.keys.routeChanges,
					position,
				]);
				const changes = reply === null ? [] : (reply as [[Buffer, ChangeEntry[]]])[0][1];
				const first = changes[0] === undefined ? undefined : versionOf(changes[0][0]);
				if (first !== undefined && first !== this.#version + 1) await this.#load(follower);
				else for (const change of changes) this.#apply(change);
				if (reply === null) await this.#compare(follower);
			}
		} catch (error) {
			if (!(error instanceof StoreError)) this.#context.onError(error as Error);
			// With the next connection it goes on.
			if (follower.ready) follower.drop("following the routes failed");
		} finally {
			this.#following = false;
		}
	}

	#apply([id, [, name, , generation]]: ChangeEntry): void {
		const version = versionOf(id);
		this.#version = version;
		const log = text(name as Buffer);
		const early = this.#early.get(log);
		if (early === undefined || early < version) this.#set(log, (generation as Buffer).toString("latin1"));
		if (early !== undefined && early <= version) this.#early.delete(log);
		this.#wake();
	}

	/** A server that was restored, or that took over with less than was known, has gone back in time: nothing known here counts. */
	async #compare(follower: Connection): Promise<void> {
		const version = Number((await follower.send("GET", [this.#context.keys.routeVersion])) ?? 0);
		if (version >= this.#version) return;
		this.#early.clear();
		await this.#load(follower);
		this.onWentBack();
	}

	/**
	 * Loads all routes, page by page. What changes meanwhile is among the changes after the version that was read first: they
	 * are applied again afterwards, which brings every route to where it belongs.
	 */
	async #load(connection: Connection): Promise<void> {
		const { keys } = this.#context;
		const version = Number((await connection.send("GET", [keys.routeVersion])) ?? 0);
		const found = new Map<string, string>();
		let cursor = "0";
		do {
			const [next, fields] = (await connection.send("HSCAN", [keys.routes, cursor, "COUNT", PAGE])) as [Buffer, Buffer[]];
			for (let n = 0; n < fields.length; n += 2) found.set(text(fields[n] as Buffer), (fields[n + 1] as Buffer).toString("latin1"));
			cursor = next.toString("latin1");
		} while (cursor !== "0");
		for (const log of [...this.#known.keys()]) {
			if (!found.has(log) && (this.#early.get(log) ?? 0) <= version) this.#set(log, "");
		}
		for (const [log, generation] of found) if ((this.#early.get(log) ?? 0) <= version) this.#set(log, generation);
		for (const [log, early] of this.#early) if (early <= version) this.#early.delete(log);
		this.#version = version;
		this.#wake();
	}

	#wake(): void {
		if (this.#waiting.length === 0) return;
		const still = [];
		for (const waiting of this.#waiting) {
			if (waiting.version <= this.#version) waiting.resolve();
			else still.push(waiting);
		}
		this.#waiting = still;
	}
}

function versionOf(id: Buffer): number {
	return Number(id.toString("latin1", 0, id.indexOf(0x2d)));
}

function text(bytes: Buffer): string {
	return decodeText(bytes, 0, bytes.length);
}
