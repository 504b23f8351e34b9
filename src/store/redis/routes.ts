/**
 * Which logs exist, as all replicas know it: a copy of the routes in memory, kept by following their changes on a connection
 * of its own. Knows how to be up to date (P3) and nothing of what is in a log. The logs of wildcard filters and share groups
 * are known by name, those of exact filters by bucket only: their names are asked for where they are needed.
 *
 * A route names the generation of its log. The log is the truth: a route that is missing or too many is put right by whoever
 * finds it so, and each change names the generation that it is about, so that one that comes late does no harm.
 */

import { decodeText } from "../../mqtt/utf8.ts";
import { isExact } from "../log_name.ts";
import { StoreError } from "../store.ts";
import { Connection, type RedisTarget } from "./connection.ts";
import type { Context } from "./context.ts";
import { bucketOf, COUNTER_PAGES, counterOf, ExactRoutes } from "./exact_routes.ts";
import { scripts } from "./scripts.ts";

/** Changes that a follower may be behind before it has to load all routes again. */
const REMEMBERED_CHANGES = 10_000;
/** Long, because an idle replica is to ask little; what is hung is noticed by others before. */
const BLOCK_MS = 55_000;
const STALL_MS = 57_000;
/** How long the follower may be behind what the server has said on another connection. */
const DEAF_MS = 3000;
const PAGE = 1000;
/** Pages of counters in one answer: a megabyte. */
const COUNTER_BATCH = 64;

type ChangeEntry = [id: Buffer, fields: Buffer[]];

export class Routes {
	readonly #context: Context;
	readonly #target: RedisTarget;
	/** Log of a wildcard filter or share group → generation. */
	readonly #named = new Map<string, string>();
	#exact = new ExactRoutes();
	/** Last change that is part of these, and what it says: after the server has lost some, another has its version. */
	#version = 0;
	#mark: string | undefined;
	/** Whether the server is known to have what was read from it, since the follower has its connection. */
	#sure = true;
	/** Own changes, known before the follower comes to them: log or bucket → version. */
	readonly #early = new Map<string | number, number>();
	#follower: Connection | undefined;
	#following = false;
	#loading = false;
	#onLog: ((name: string, exists: boolean) => void) | undefined;
	#waiting: { readonly version: number; readonly resolve: () => void; readonly reject: (error: StoreError) => void }[] = [];
	#deaf: ReturnType<typeof setTimeout> | undefined;
	#asked: { readonly batch: number; readonly answer: Promise<void> } | undefined;

	/** Called when the server turned out to have lost some of what it was told. */
	onWentBack: () => void = () => {};

	constructor(context: Context, target: RedisTarget) {
		this.#context = context;
		this.#target = target;
	}

	/** Logs of wildcard filters and share groups. */
	named(): MapIterator<string> {
		return this.#named.keys();
	}

	/** Whether there may be a log of the filter that is exactly this topic. */
	hasExact(topic: string): boolean {
		return this.#exact.has(bucketOf(topic));
	}

	/** Whether there may be a log, as far as this replica knows; sure for all but exact filters. */
	mayExist(log: string): boolean {
		return isExact(log) ? this.hasExact(log) : this.#named.has(log);
	}

	/** Those of the logs that have no route. */
	async missing(logs: readonly string[]): Promise<Set<string>> {
		const { connection, keys } = this.#context;
		const missing = new Set(logs.filter((log) => !this.mayExist(log)));
		const doubtful = logs.filter((log) => isExact(log) && !missing.has(log));
		const asked: Promise<unknown>[] = [];
		for (let at = 0; at < doubtful.length; at += PAGE) {
			asked.push(connection.send("HMGET", [keys.exactRoutes, ...doubtful.slice(at, at + PAGE)]));
		}
		for (const [n, generation] of (await Promise.all(asked)).flat().entries()) {
			if (generation === null) missing.add(doubtful[n] as string);
		}
		return missing;
	}

	/** The generation of a log's route, `undefined` without one. */
	async generation(log: string): Promise<string | undefined> {
		if (!isExact(log)) return this.#named.get(log);
		const { connection, keys } = this.#context;
		const generation = (await connection.send("HGET", [keys.exactRoutes, log])) as Buffer | null;
		return generation?.toString("latin1");
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

	/** Tells of the named logs now, and of each that comes or goes from now on. */
	watch(onLog: (name: string, exists: boolean) => void): void {
		this.#onLog = onLog;
		for (const name of this.#named.keys()) onLog(name, true);
	}

	/** The server was away, or has lost something: whatever the follower is waiting for may never come. */
	restart(reason: string): void {
		this.#sure = false;
		if (this.#follower?.ready === true) this.#follower.drop(reason);
	}

	close(): void {
		this.#follower?.close();
		this.#onLog = undefined;
		this.#giveUp();
	}

	/**
	 * Says that a log is there.
	 * @param isUntold Whether nobody may have said so: of an exact filter that cannot be seen here.
	 */
	put(log: string, generation: string, isUntold: boolean): Promise<void> {
		const known = isExact(log) ? !isUntold && this.hasExact(log) : this.#named.get(log) === generation;
		return known ? Promise.resolve() : this.#change(log, generation, "put");
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
			const known = this.#version;
			const answer = connection.send("GET", [keys.routeVersion]).then((reply) => this.#reached(Number(reply ?? 0), known));
			this.#asked = { batch, answer };
		}
		return this.#asked.answer;
	}

	/** @param known What was known when the question was asked: by now the follower may be past the answer. */
	#reached(version: number, known: number): Promise<void> | undefined {
		if (version < known) {
			this.restart("the server has gone back in time");
			throw new StoreError("away", "Cannot know all routes: Redis has lost some. They are being loaded again");
		}
		if (this.#sure && this.#version >= version) return undefined;
		return new Promise((resolve, reject) => {
			this.#waiting.push({ version, resolve, reject });
			if (this.#deaf === undefined) this.#listen();
		});
	}

	/** From now on changes must come: a connection that is hung while nothing changes is not noticed otherwise. */
	#listen(): void {
		clearTimeout(this.#deaf);
		this.#deaf = undefined;
		if (this.#waiting.length === 0) return;
		this.#deaf = setTimeout(() => {
			if (!this.#loading) this.restart(`no changes came for ${DEAF_MS} ms`);
			this.#listen();
		}, DEAF_MS);
	}

	async #change(log: string, generation: string, change: "put" | "remove"): Promise<void> {
		const { connection, keys } = this.#context;
		const names = [keys.routeVersion, keys.routeChanges];
		const args = [log, generation, change, REMEMBERED_CHANGES];
		if (!isExact(log)) {
			const reply = await connection.run(scripts.routeChange, [keys.routes, ...names], args);
			const [version, present] = reply as [number, Buffer];
			if (this.#isNews(log, version)) this.#setNamed(log, present.toString("latin1"));
			return;
		}
		const bucket = bucketOf(log);
		const { page, place } = counterOf(bucket);
		const reply = await connection.run(
			scripts.routeChange,
			[keys.exactRoutes, ...names, keys.routeCounters(page)],
			[...args, bucket, place],
		);
		const [version, , exists] = reply as [number, Buffer, number];
		if (this.#isNews(bucket, version)) this.#exact.set(bucket, exists === 1);
	}

	/** Whether the follower has not come to this version of a log or bucket, and no later one is known. */
	#isNews(name: string | number, version: number): boolean {
		if (version <= this.#version || version < (this.#early.get(name) ?? 0)) return false;
		this.#early.set(name, version);
		return true;
	}

	/** @param generation Empty when the log is gone. */
	#setNamed(log: string, generation: string): void {
		const existed = this.#named.has(log);
		if (generation === "") this.#named.delete(log);
		else this.#named.set(log, generation);
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
			}
		} catch (error) {
			if (!(error instanceof StoreError)) this.#context.onError(error as Error);
			this.#giveUp();
			// With the next connection it goes on.
			if (follower.ready) follower.drop("following the routes failed");
		} finally {
			this.#following = false;
			this.#sure = false;
		}
	}

	#apply([id, fields]: ChangeEntry): void {
		const [kind, name, , value] = fields;
		const version = versionOf(id);
		this.#version = version;
		this.#mark = markOf(fields);
		const isBucket = kind?.toString("latin1") === "bucket";
		const changed = isBucket ? Number((name as Buffer).toString("latin1")) : text(name as Buffer);
		const early = this.#early.get(changed);
		if (early === undefined || early < version) {
			const after = (value as Buffer).toString("latin1");
			if (typeof changed === "number") this.#exact.set(changed, after === "1");
			else this.#setNamed(changed, after);
		}
		if (early !== undefined && early <= version) this.#early.delete(changed);
		this.#wake();
	}

	/** A server that was restored, or that took over with less than was known, has gone back in time: nothing known here counts. */
	async #compare(follower: Connection): Promise<void> {
		const { keys, onError } = this.#context;
		const id = `${this.#version}-0`;
		const [[entry], stored] = (await Promise.all([
			follower.send("XRANGE", [keys.routeChanges, id, id]),
			follower.send("GET", [keys.routeVersion]),
		])) as [ChangeEntry[], Buffer | null];
		const mark = entry && markOf(entry[1]);
		if (mark !== this.#mark || (mark === undefined && this.#version > 0)) {
			const wentBack = mark !== undefined || Number(stored ?? 0) < this.#version;
			if (wentBack) this.#early.clear();
			await this.#load(follower);
			if (wentBack) {
				onError(new StoreError("fenced", "Redis has lost some of what it was given: sessions that it does not know are over"));
				this.onWentBack();
			}
		}
		this.#sure = true;
		this.#wake();
	}

	/**
	 * Loads all routes, page by page. What changes meanwhile is among the changes after the version that was read first: they
	 * are applied again afterwards, which brings every route to where it belongs.
	 */
	async #load(connection: Connection): Promise<void> {
		const { keys } = this.#context;
		this.#loading = true;
		let version: number;
		let change: ChangeEntry | undefined;
		let found: Map<string, string>;
		let exact: ExactRoutes;
		try {
			version = Number((await connection.send("GET", [keys.routeVersion])) ?? 0);
			[change] = (await connection.send("XRANGE", [keys.routeChanges, `${version}-0`, `${version}-0`])) as ChangeEntry[];
			found = await this.#loadNamed(connection);
			exact = await this.#loadExact(connection);
		} finally {
			this.#loading = false;
		}
		const isLater = (name: string | number) => (this.#early.get(name) ?? 0) > version;
		for (const log of [...this.#named.keys()]) if (!found.has(log) && !isLater(log)) this.#setNamed(log, "");
		for (const [log, generation] of found) if (!isLater(log)) this.#setNamed(log, generation);
		for (const name of this.#early.keys()) {
			if (!isLater(name)) this.#early.delete(name);
			else if (typeof name === "number") exact.set(name, this.#exact.has(name));
		}
		this.#exact = exact;
		this.#version = version;
		this.#mark = change && markOf(change[1]);
		this.#wake();
	}

	async #loadNamed(connection: Connection): Promise<Map<string, string>> {
		const found = new Map<string, string>();
		let cursor = "0";
		do {
			const [next, fields] = (await connection.send("HSCAN", [this.#context.keys.routes, cursor, "COUNT", PAGE])) as [Buffer, Buffer[]];
			for (let n = 0; n < fields.length; n += 2) found.set(text(fields[n] as Buffer), (fields[n + 1] as Buffer).toString("latin1"));
			cursor = next.toString("latin1");
		} while (cursor !== "0");
		return found;
	}

	async #loadExact(connection: Connection): Promise<ExactRoutes> {
		const { keys } = this.#context;
		const exact = new ExactRoutes();
		for (let first = 0; first < COUNTER_PAGES; first += COUNTER_BATCH) {
			const names = Array.from({ length: COUNTER_BATCH }, (_, n) => keys.routeCounters(first + n));
			const pages = (await connection.send("MGET", names)) as (Buffer | null)[];
			for (const [n, counters] of pages.entries()) if (counters !== null) exact.load(first + n, counters);
		}
		return exact;
	}

	#wake(): void {
		if (this.#waiting.length === 0 || !this.#sure) return;
		const still = [];
		for (const waiting of this.#waiting) {
			if (waiting.version <= this.#version) waiting.resolve();
			else still.push(waiting);
		}
		this.#waiting = still;
		this.#listen();
	}

	/** What waits for changes cannot know when they will come. */
	#giveUp(): void {
		const waiting = this.#waiting.splice(0);
		this.#listen();
		for (const { reject } of waiting) {
			reject(new StoreError("away", "Cannot know all routes: the connection on which they come was lost. It is made again"));
		}
	}
}

function versionOf(id: Buffer): number {
	return Number(id.toString("latin1", 0, id.indexOf(0x2d)));
}

/** Two changes that have the same are the same. */
function markOf(fields: readonly Buffer[]): string {
	return fields.map((field) => field.toString("latin1")).join(" ");
}

function text(bytes: Buffer): string {
	return decodeText(bytes, 0, bytes.length);
}
