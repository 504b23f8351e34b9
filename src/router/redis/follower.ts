/**
 * The routes of all other replicas, kept by following their changes on a connection of its own. Knows how to be up to date
 * (P3), and how to notice that the server has gone back in time.
 */

import type { Topic } from "../../mqtt/topic.ts";
import { decodeText } from "../../mqtt/utf8.ts";
import { Connection, type RedisTarget } from "../../store/redis/connection.ts";
import { StoreError } from "../../store/store.ts";
import type { ReplicaId } from "../router.ts";
import { Buckets, bucketOf } from "./buckets.ts";
import type { Context } from "./context.ts";

const PAGE = 1000;
/** How long the follower may take for what is stored already, before its connection counts as lost. */
const CATCH_UP_MS = 2000;

type Entry = [id: Buffer, fields: Buffer[]];

interface Remote {
	readonly id: ReplicaId;
	/** Wildcard filter or share group → members. */
	readonly named: Map<string, number>;
	exact: Buckets;
}

export interface FollowerEvents {
	/** As `RouterHandlers.onRoute`. */
	onRoute(replica: ReplicaId, filter: string, members: number): void;
	/** The token under which this replica's routes are stored, `undefined` when there are none: told after all were loaded. */
	onOwnToken(token: string | undefined): void;
	/** As `RouterHandlers.onNotice`. */
	onNotice(notice: string | undefined): void;
	/** Somebody has removed this replica's routes. */
	onForgotten(): void;
	/** The server has lost some of what it was told. */
	onWentBack(): void;
}

export class Follower {
	readonly #context: Context;
	readonly #events: FollowerEvents;
	readonly #blockMs: number;
	readonly #remotes = new Map<ReplicaId, Remote>();
	/** The same, for those who go through them for every message. */
	#list: readonly Remote[] = [];
	readonly #matching: ReplicaId[] = [];
	/** Last change that is known, and what it is called: after the server has lost some, another has its version. */
	#version = 0;
	#mark: string | undefined;
	/** Whether the server is known to have what was read from it, since there is this connection. */
	#sure = true;
	#connection: Connection | undefined;
	#following = false;
	#waiting: { readonly version: number; readonly resolve: () => void; readonly reject: (error: Error) => void }[] = [];
	#patience: ReturnType<typeof setTimeout> | undefined;
	/** Answers that came on its connection. */
	#answers = 0;
	#asked: { readonly batch: number; readonly answer: Promise<void> } | undefined;

	constructor(context: Context, events: FollowerEvents, blockMs: number) {
		this.#context = context;
		this.#events = events;
		this.#blockMs = blockMs;
	}

	/** Loads all routes and begins to follow their changes. */
	async open(target: RedisTarget): Promise<void> {
		await this.#load(this.#context.connection);
		this.#connection = new Connection({
			target,
			scripts: [],
			stallMs: this.#blockMs + CATCH_UP_MS,
			onReady: () => void this.#follow(),
			onError: (error) => this.#context.onError(error),
		});
	}

	close(): void {
		this.#connection?.close();
		this.#connection = undefined;
		this.#giveUp("the router was closed");
	}

	/** The connection may be lost without a word: use another one. */
	doubt(reason: string): void {
		this.#sure = false;
		if (this.#connection?.ready === true) this.#connection.drop(reason);
	}

	/** Looks whether the server still has what is known from it. */
	async verify(): Promise<void> {
		const known = this.#version;
		const version = await this.#context.connection.send("GET", [this.#context.keys.version]);
		if (Number(version ?? 0) < known) this.doubt("the server has gone back in time");
	}

	/** See `Router.exact`. */
	exact(topic: Topic): readonly ReplicaId[] {
		const matching = this.#matching;
		matching.length = 0;
		if (this.#list.length === 0) return matching;
		const bucket = bucketOf(topic.bytes);
		for (const { id, exact } of this.#list) if (exact.has(bucket)) matching.push(id);
		return matching;
	}

	/** See `Router.catchUp`. One question for all calls of one turn: it leaves after the last of them. */
	catchUp(): Promise<void> {
		const { connection, keys } = this.#context;
		if (this.#asked?.batch !== connection.batch) {
			// The answer may be overtaken by changes on the other connection, so only what was known before can have been lost.
			const known = this.#version;
			const answer = connection.send("GET", [keys.version]).then((version) => this.#reached(Number(version ?? 0), known));
			this.#asked = { batch: connection.batch, answer };
		}
		return this.#asked.answer;
	}

	#reached(version: number, known: number): Promise<void> | undefined {
		if (version < known) {
			this.doubt("the server has gone back in time");
			throw new StoreError("away", "Cannot know all routes: Redis has lost some. They are being loaded again");
		}
		if (this.#sure && version <= this.#version) return undefined;
		if (this.#waiting.length === 0) this.#expectChanges();
		return new Promise((resolve, reject) => this.#waiting.push({ version, resolve, reject }));
	}

	#expectChanges(): void {
		const before = this.#answers;
		this.#patience = setTimeout(() => {
			// While many routes are being loaded it only takes its time.
			if (this.#answers === before) this.doubt(`no changes came for ${CATCH_UP_MS} ms`);
			this.#giveUp("their changes did not come");
		}, CATCH_UP_MS);
	}

	#wake(): void {
		if (this.#waiting.length === 0 || !this.#sure) return;
		const still = [];
		for (const waiting of this.#waiting) {
			if (waiting.version <= this.#version) waiting.resolve();
			else still.push(waiting);
		}
		this.#waiting = still;
		clearTimeout(this.#patience);
		if (still.length > 0) this.#expectChanges();
	}

	#giveUp(why: string): void {
		clearTimeout(this.#patience);
		const error = new StoreError("away", `Cannot know all routes: ${why}. It is tried again until they are known`);
		for (const { reject } of this.#waiting.splice(0)) reject(error);
	}

	/** Reads changes until the connection is gone; the next one begins again. */
	async #follow(): Promise<void> {
		const connection = this.#connection;
		if (connection === undefined || this.#following) return;
		this.#following = true;
		try {
			await this.#compare(connection);
			this.#sure = true;
			this.#wake();
			for (;;) {
				const position = `${this.#version}-0`;
				const args = ["COUNT", PAGE, "BLOCK", this.#blockMs, "STREAMS", this.#context.keys.changes, position];
				const reply = await connection.send("XREAD", args);
				this.#answers++;
				const entries = reply === null ? [] : (reply as [[Buffer, Entry[]]])[0][1];
				const first = entries[0] === undefined ? undefined : versionOf(entries[0][0]);
				if (first !== undefined && first !== this.#version + 1) await this.#load(connection);
				else for (const entry of entries) await this.#apply(connection, entry);
			}
		} catch (error) {
			if (!(error instanceof StoreError)) this.#context.onError(error as Error);
			// With the next connection it goes on.
			if (connection.ready) connection.drop("following the routes failed");
		} finally {
			this.#following = false;
			this.#sure = false;
		}
	}

	async #apply(connection: Connection, [id, fields]: Entry): Promise<void> {
		const [, replicaName, , kindName, , markName] = fields as [Buffer, Buffer, Buffer, Buffer, Buffer, Buffer];
		const replica = text(replicaName);
		const kind = kindName.toString("latin1");
		if (replica === this.#context.replicaId) {
			if (kind === "gone") this.#events.onForgotten();
		} else if (kind === "gone") {
			this.#remove(replica);
			this.#events.onNotice(undefined);
		} else if (kind === "all") {
			await this.#loadReplica(connection, replica);
			this.#events.onNotice(undefined);
		} else if (kind === "notice") {
			this.#events.onNotice(text(fields[7] as Buffer));
		} else {
			this.#change(replica, fields);
		}
		this.#version = versionOf(id);
		this.#mark = markName.toString("latin1");
		this.#wake();
	}

	#change(replica: ReplicaId, fields: Buffer[]): void {
		const remote = this.#remote(replica);
		const buckets = fields[7] as Buffer;
		for (let at = 0; at < buckets.length; at += 4) {
			const bucket = buckets.readUInt32LE(at);
			remote.exact.set(bucket >>> 1, (bucket & 1) === 1);
		}
		for (let at = 8; at < fields.length; at += 2) this.#setNamed(remote, text(fields[at] as Buffer), Number(fields[at + 1]));
	}

	#remote(id: ReplicaId): Remote {
		let remote = this.#remotes.get(id);
		if (remote === undefined) {
			remote = { id, named: new Map(), exact: new Buckets() };
			this.#remotes.set(id, remote);
			this.#list = [...this.#remotes.values()];
		}
		return remote;
	}

	#remove(replica: ReplicaId): void {
		const remote = this.#remotes.get(replica);
		if (remote === undefined) return;
		this.#remotes.delete(replica);
		this.#list = [...this.#remotes.values()];
		for (const filter of remote.named.keys()) this.#events.onRoute(replica, filter, 0);
	}

	#setNamed({ id, named }: Remote, filter: string, members: number): void {
		if ((named.get(filter) ?? 0) === members) return;
		if (members === 0) named.delete(filter);
		else named.set(filter, members);
		this.#events.onRoute(id, filter, members);
	}

	/** Looks whether the change that was read last is still the one of its version. */
	async #compare(connection: Connection): Promise<void> {
		const id = `${this.#version}-0`;
		const [[entry], stored] = (await Promise.all([
			connection.send("XRANGE", [this.#context.keys.changes, id, id]),
			connection.send("GET", [this.#context.keys.version]),
		])) as [Entry[], Buffer | null];
		const mark = entry === undefined ? undefined : (entry[1][5] as Buffer).toString("latin1");
		if (mark === this.#mark && (mark !== undefined || this.#version === 0)) return;
		const wentBack = mark !== undefined || Number(stored ?? 0) < this.#version;
		await this.#load(connection);
		if (wentBack) this.#events.onWentBack();
	}

	/**
	 * Loads all routes. What changes meanwhile is among the changes after the version that was read first: they are applied
	 * again afterwards, which brings every route to where it belongs.
	 */
	async #load(connection: Connection): Promise<void> {
		const { keys, replicaId } = this.#context;
		const version = Number((await connection.send("GET", [keys.version])) ?? 0);
		const [fields, entries] = (await Promise.all([
			connection.send("HGETALL", [keys.replicas]),
			connection.send("XRANGE", [keys.changes, `${version}-0`, `${version}-0`]),
		])) as [Buffer[], Entry[]];
		const tokens = new Map<ReplicaId, string>();
		for (let at = 0; at < fields.length; at += 2) tokens.set(text(fields[at] as Buffer), (fields[at + 1] as Buffer).toString("latin1"));
		for (const replica of [...this.#remotes.keys()]) if (!tokens.has(replica)) this.#remove(replica);
		for (const replica of tokens.keys()) if (replica !== replicaId) await this.#loadReplica(connection, replica);
		this.#version = version;
		this.#mark = (entries[0]?.[1][5] as Buffer | undefined)?.toString("latin1");
		this.#events.onOwnToken(tokens.get(replicaId));
		this.#events.onNotice(undefined);
		this.#wake();
	}

	/** Loads the routes of one replica, all of the same token. */
	async #loadReplica(connection: Connection, replica: ReplicaId): Promise<void> {
		const { keys } = this.#context;
		const { named, exact } = keys.routes(replica);
		const askToken = async (): Promise<string> => String(await connection.send("HGET", [keys.replicas, replica]));
		let token = await askToken();
		for (;;) {
			const found = new Map<string, number>();
			let cursor = "0";
			do {
				const [next, fields] = (await connection.send("HSCAN", [named, cursor, "COUNT", PAGE])) as [Buffer, Buffer[]];
				for (let at = 0; at < fields.length; at += 2) found.set(text(fields[at] as Buffer), Number(fields[at + 1]));
				cursor = next.toString("latin1");
				this.#answers++;
			} while (cursor !== "0");
			const bits = (await connection.send("GET", [exact])) as Buffer | null;
			const before = token;
			token = await askToken();
			// It stored all of them anew meanwhile: what was found may be some of both.
			if (token !== before) continue;
			const remote = this.#remote(replica);
			remote.exact = bits === null ? new Buckets() : Buckets.from(bits);
			for (const filter of [...remote.named.keys()]) if (!found.has(filter)) this.#setNamed(remote, filter, 0);
			for (const [filter, members] of found) this.#setNamed(remote, filter, members);
			return;
		}
	}
}

function versionOf(id: Buffer): number {
	return Number(id.toString("latin1", 0, id.indexOf(0x2d)));
}

function text(bytes: Buffer): string {
	return decodeText(bytes, 0, bytes.length);
}
