/**
 * This replica's own routes: how many subscribers are behind which filter, and what of that the others have been told. Knows
 * how routes are stored, and nothing of anybody else's.
 *
 * Whenever it is in doubt whether a change was stored, and with every new connection, it stores all of its routes again. Each
 * time has a token, and changes name the token that they belong to: one that was held up on its way can undo nothing.
 */

import { encodeText } from "../../mqtt/utf8.ts";
import type { Argument } from "../../store/redis/connection.ts";
import { StoreError } from "../../store/store.ts";
import { bitsOf, bucketOf } from "./buckets.ts";
import { type Context, TurnEnd } from "./context.ts";
import { scripts } from "./scripts.ts";

/** Changes that a follower may be behind before it has to load all routes again. */
const REMEMBERED_CHANGES = 10_000;
/** Large ones take room, and with so many of them loading is quicker. */
const REMEMBERED_LARGE = 1000;
const LARGE = 100;
/** Routes in one script: more would hold up everybody else's commands. */
const PAGE = 1000;
/** More buckets than these are stored as bits. */
const MAX_LISTED = 4096;
const STAGED_MS = 60_000;
const RETRY_MS = 250;

/** Changes that will be known to have been stored at the same time. */
interface Batch {
	readonly stored: PromiseWithResolvers<void>;
	/** Filters and buckets whose first subscriber is among them. */
	readonly keys: (string | number)[];
}

export class Advertiser {
	readonly #context: Context;
	readonly #prepare: () => Promise<void>;
	readonly #onStored: () => void;
	/** Filter → subscribers. */
	readonly #filters = new Map<string, number>();
	/** Bucket → exact filters. */
	readonly #buckets = new Map<number, number>();
	/** What has changed since the last script: filter → subscribers, bucket → whether it has a filter. */
	#changedFilters = new Map<string, number>();
	#changedBuckets = new Map<number, boolean>();
	#batch: Batch | undefined;
	/** Sent, and perhaps not stored: the next time that all is stored decides. */
	#doubtful: Batch[] = [];
	/** Filter or bucket → the batch of its first subscriber, until it is stored. */
	readonly #unconfirmed = new Map<string | number, Batch>();
	readonly #turn = new TurnEnd(() => this.#send());
	#commits = 0;
	#changes = 0;
	/** All routes are stored under this token, as far as is known. */
	#token: string | undefined;
	#storing = false;
	#storeAgain = false;
	#retry: ReturnType<typeof setTimeout> | undefined;
	/** Why they could not be stored, as it was told last: not once for each time. */
	#complaint = "";
	#closed = false;

	/** @param prepare Called before all routes are stored: others will send here when they see them. */
	/**
	 * @param prepare Done before all routes are stored.
	 * @param onStored Called when they are.
	 */
	constructor(context: Context, prepare: () => Promise<void>, onStored: () => void) {
		this.#context = context;
		this.#prepare = prepare;
		this.#onStored = onStored;
	}

	/** Under which all routes of this replica are stored; `undefined` while that is in doubt. */
	get token(): string | undefined {
		return this.#token;
	}

	/** See `Router.advertise`. */
	advertise(filter: string): Promise<void> | undefined {
		if (this.#closed) return Promise.reject(closed());
		const count = (this.#filters.get(filter) ?? 0) + 1;
		this.#filters.set(filter, count);
		if (isNamed(filter)) {
			if (count === 1 || isGroup(filter)) this.#changeFilter(filter, count);
			if (count === 1) return this.#whenStored(filter);
			return this.#unconfirmed.get(filter)?.stored.promise;
		}
		const bucket = bucketOf(encodeText(filter));
		if (count === 1) {
			const filters = (this.#buckets.get(bucket) ?? 0) + 1;
			this.#buckets.set(bucket, filters);
			if (filters === 1) {
				this.#changeBucket(bucket, true);
				return this.#whenStored(bucket);
			}
		}
		return this.#unconfirmed.get(bucket)?.stored.promise;
	}

	/** See `Router.withdraw`. */
	withdraw(filter: string): void {
		const count = (this.#filters.get(filter) ?? 0) - 1;
		if (count < 0 || this.#closed) return;
		if (count === 0) this.#filters.delete(filter);
		else this.#filters.set(filter, count);
		if (isNamed(filter)) {
			if (count === 0 || isGroup(filter)) this.#changeFilter(filter, count);
			return;
		}
		if (count > 0) return;
		const bucket = bucketOf(encodeText(filter));
		const filters = (this.#buckets.get(bucket) as number) - 1;
		if (filters > 0) {
			this.#buckets.set(bucket, filters);
			return;
		}
		this.#buckets.delete(bucket);
		this.#changeBucket(bucket, false);
	}

	/**
	 * Stores all routes, instead of whatever is stored. Resolves when that is done or has to wait for another connection; called
	 * again meanwhile it begins again.
	 */
	async storeAll(): Promise<void> {
		this.#token = undefined;
		this.#storeAgain = true;
		if (this.#storing || this.#closed) return;
		this.#storing = true;
		clearTimeout(this.#retry);
		while (this.#storeAgain && !this.#closed) {
			this.#storeAgain = false;
			await this.#storeOnce();
		}
		this.#storing = false;
		this.#send();
	}

	/** Removes all routes, and rejects who still waits. */
	async close(): Promise<void> {
		this.#closed = true;
		clearTimeout(this.#retry);
		for (const batch of [...this.#doubtful, ...new Set(this.#unconfirmed.values())]) batch.stored.reject(closed());
		this.#unconfirmed.clear();
		await this.forget(this.#context.replicaId);
	}

	/** Removes all routes of a replica. */
	async forget(replica: string): Promise<void> {
		const { keys, connection, replicated } = this.#context;
		const { named, exact } = keys.routes(replica);
		await connection.run(
			scripts.routeForget,
			[keys.replicas, keys.version, keys.changes, named, exact],
			[replica, this.#mark(), REMEMBERED_CHANGES],
		);
		if (replicated) await connection.confirm();
	}

	/** See `Router.announce`. What is lost with the connection is made good when all routes are stored over the next one. */
	async announce(notice: string): Promise<void> {
		if (this.#closed) throw new StoreError("unavailable", "Cannot announce anything: the router was closed");
		const { keys, connection, replicaId, replicated } = this.#context;
		const added = connection.run(scripts.noticeAdd, [keys.version, keys.changes], [replicaId, this.#mark(), REMEMBERED_CHANGES, notice]);
		await Promise.all([added, replicated ? connection.confirm() : undefined]);
	}

	#changeFilter(filter: string, members: number): void {
		this.#changedFilters.set(filter, members);
		if (members === 0) this.#unconfirmed.delete(filter);
		this.#turn.schedule();
	}

	#changeBucket(bucket: number, present: boolean): void {
		this.#changedBuckets.set(bucket, present);
		if (!present) this.#unconfirmed.delete(bucket);
		this.#turn.schedule();
	}

	/** Resolves when the changes of this turn are stored. */
	#whenStored(key: string | number): Promise<void> {
		if (this.#batch === undefined) {
			this.#batch = { stored: Promise.withResolvers(), keys: [] };
			// It may be that nobody waits when it is closed.
			this.#batch.stored.promise.catch(() => {});
		}
		this.#batch.keys.push(key);
		this.#unconfirmed.set(key, this.#batch);
		return this.#batch.stored.promise;
	}

	#confirm(batch: Batch): void {
		for (const key of batch.keys) if (this.#unconfirmed.get(key) === batch) this.#unconfirmed.delete(key);
		batch.stored.resolve();
	}

	/** Sends what has changed; while all has to be stored anyway, that will contain it. */
	#send(): void {
		const token = this.#token;
		if (token === undefined || this.#closed || this.#changedFilters.size + this.#changedBuckets.size === 0) return;
		const batch = this.#batch;
		const filters = [...this.#changedFilters];
		const buckets = [...this.#changedBuckets];
		this.#forgetChanges();
		const { keys, connection, replicaId, replicated } = this.#context;
		const { named, exact } = keys.routes(replicaId);
		const sent: Promise<unknown>[] = [];
		for (let at = 0; at < filters.length || at < buckets.length; at += PAGE) {
			const packed = packBuckets(buckets.slice(at, at + PAGE).map(([bucket, present]) => bucket * 2 + (present ? 1 : 0)));
			const page = filters.slice(at, at + PAGE);
			const remembered = page.length + packed.length / 4 > LARGE ? REMEMBERED_LARGE : REMEMBERED_CHANGES;
			const args: Argument[] = [replicaId, token, this.#mark(), remembered, packed, ...page.flat()];
			sent.push(connection.run(scripts.routeChange, [keys.replicas, keys.version, keys.changes, named, exact], args));
		}
		if (replicated) sent.push(connection.confirm());
		Promise.all(sent).then(
			(versions) => {
				if (versions.includes(-1)) this.#doubt(batch);
				else if (batch !== undefined) this.#confirm(batch);
			},
			() => this.#doubt(batch),
		);
	}

	#doubt(batch: Batch | undefined): void {
		if (this.#closed) return;
		if (batch !== undefined) this.#doubtful.push(batch);
		this.#token = undefined;
		this.#retryLater();
	}

	/** With a new connection it is tried at once, see `storeAll`. */
	#retryLater(): void {
		clearTimeout(this.#retry);
		this.#retry = setTimeout(() => void this.storeAll(), RETRY_MS);
	}

	async #storeOnce(): Promise<void> {
		const { connection, keys, replicaId, process, replicated, onError } = this.#context;
		const batches = this.#doubtful;
		this.#doubtful = [];
		if (this.#batch !== undefined) batches.push(this.#batch);
		this.#forgetChanges();
		const commit = ++this.#commits;
		const staged = keys.staged(`${process}:${commit}`);
		const { named, exact } = keys.routes(replicaId);
		try {
			await Promise.all([this.#prepare(), ...this.#stage(staged.named, staged.exact)]);
			// Its routes are not to come back behind the word that they are gone.
			if (this.#closed) return;
			const committed = connection.run(
				scripts.routeCommit,
				[keys.replicas, keys.version, keys.changes, named, exact, staged.named, staged.exact],
				[replicaId, process, commit, this.#mark(), REMEMBERED_CHANGES],
			);
			const [version] = await Promise.all([committed, replicated ? connection.confirm() : undefined]);
			if (version === -1) this.#storeAgain = true;
		} catch (error) {
			this.#doubtful.push(...batches);
			if (connection.ready && !this.#closed) {
				const { message } = error as Error;
				if (message !== this.#complaint) onError(error as Error);
				this.#complaint = message;
				this.#retryLater();
			}
			return;
		}
		if (this.#storeAgain) {
			this.#doubtful.push(...batches);
			return;
		}
		this.#complaint = "";
		this.#token = `${process} ${commit}`;
		for (const batch of batches) this.#confirm(batch);
		this.#onStored();
	}

	/** Sends all routes as they are now, page by page. */
	#stage(named: string, exact: string): Promise<unknown>[] {
		const { connection } = this.#context;
		const sent: Promise<unknown>[] = [];
		const stage = (packed: Buffer, bits: Buffer, filters: readonly (string | number)[]) =>
			connection.run(scripts.routeStage, [named, exact], [STAGED_MS, packed, bits, ...filters]);
		if (this.#buckets.size > MAX_LISTED) sent.push(stage(NOTHING, bitsOf(this.#buckets.keys()), []));
		else if (this.#buckets.size > 0) sent.push(stage(packBuckets([...this.#buckets.keys()]), NOTHING, []));
		let page: (string | number)[] = [];
		for (const [filter, members] of this.#filters) {
			if (!isNamed(filter)) continue;
			page.push(filter, isGroup(filter) ? members : 1);
			if (page.length < 2 * PAGE) continue;
			sent.push(stage(NOTHING, NOTHING, page));
			page = [];
		}
		if (page.length > 0) sent.push(stage(NOTHING, NOTHING, page));
		return sent;
	}

	#forgetChanges(): void {
		this.#changedFilters = new Map();
		this.#changedBuckets = new Map();
		this.#batch = undefined;
	}

	/** No two changes have the same. */
	#mark(): string {
		return `${this.#context.process} ${++this.#changes}`;
	}
}

const NOTHING = Buffer.alloc(0);

/** Whether others know the filter by its name: those with wildcards and those of share groups. */
function isNamed(filter: string): boolean {
	return filter.includes("+") || filter.includes("#") || isGroup(filter);
}

function isGroup(filter: string): boolean {
	return filter.startsWith("$share/");
}

function packBuckets(numbers: readonly number[]): Buffer {
	const packed = Buffer.allocUnsafe(numbers.length * 4);
	for (const [index, number] of numbers.entries()) packed.writeUInt32LE(number, index * 4);
	return packed;
}

function closed(): StoreError {
	return new StoreError("unavailable", "Cannot advertise a filter: the router was closed");
}
