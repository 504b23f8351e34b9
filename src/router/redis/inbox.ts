/**
 * What other replicas send here and must arrive: a stream that is read from the last entry known, on a connection of its own.
 * Its numbers are dense and its entries say whose they are, so that what was lost is noticed: trimmed before it was read,
 * removed with the whole inbox, or gone with a server that had not passed it on.
 */

import { Connection, type RedisTarget } from "../../store/redis/connection.ts";
import { type SessionRef, StoreError } from "../../store/store.ts";
import { type ParcelReader, readEnvelopes, readHead, writeHead } from "../envelope.ts";
import type { Forwarded, RouterHandlers } from "../router.ts";
import type { Context } from "./context.ts";
import { scripts } from "./scripts.ts";

/** Parcels in one answer. */
const PAGE = 64;
const STALL_MS = 2000;
const TRIM_MS = 100;
const TRIM_ENTRIES = 256;
const REMEMBERED_TOKENS = 16_384;
const REMEMBERED_SENDERS = 1024;

type Entry = [id: Buffer, fields: [name: Buffer, parcel: Buffer]];

export class Inbox implements ParcelReader {
	readonly #context: Context;
	readonly #handlers: RouterHandlers;
	readonly #blockMs: number;
	readonly #key: string;
	#connection: Connection | undefined;
	#following = false;
	/** Number and identity of the last entry that was read; 0: whatever comes next is the next one. */
	#last = 0;
	#lastIdentity = "";
	/** The inbox was removed, and is another one now. */
	#lost = false;
	#made = 0;
	/** Sender → number of its last parcel. */
	readonly #senders = new Map<string, number>();
	readonly #tokens = new Set<string>();
	#trimmed = 0;
	#trimTimer: ReturnType<typeof setTimeout> | undefined;
	/** What was said last of a parcel that could not be read: not once for each. */
	#complaint = "";

	constructor(context: Context, handlers: RouterHandlers, blockMs: number) {
		this.#context = context;
		this.#handlers = handlers;
		this.#blockMs = blockMs;
		this.#key = context.keys.inbox(context.replicaId);
	}

	/** Makes the inbox, without what an earlier process of this name has left, and begins to read. */
	async open(target: RedisTarget): Promise<void> {
		await this.#make("fresh");
		this.#connection = new Connection({
			target,
			scripts: [scripts.inboxCreate],
			stallMs: this.#blockMs + STALL_MS,
			onReady: () => void this.#follow(),
			onError: (error) => this.#context.onError(error),
		});
	}

	/** Stops reading; the inbox stays. */
	close(): void {
		this.#connection?.close();
		this.#connection = undefined;
		clearTimeout(this.#trimTimer);
	}

	/** The connection may be lost without a word: use another one. */
	doubt(reason: string): void {
		if (this.#connection?.ready === true) this.#connection.drop(reason);
	}

	/** Resolves when there is an inbox. If there was none, its reader learns that something was lost. */
	async ensure(): Promise<void> {
		if (this.#connection === undefined || !(await this.#make("missing"))) return;
		this.#lost = true;
		this.doubt("the inbox was removed");
	}

	onMessage(forwarded: Forwarded, token: string | undefined): void {
		if (token === undefined || this.claim(token)) this.#handlers.onMessage(forwarded);
	}

	/** Whether nobody has handed out the publication of this token here yet; from now on somebody has. */
	claim(token: string): boolean {
		if (this.#tokens.has(token)) return false;
		this.#tokens.add(token);
		if (this.#tokens.size > REMEMBERED_TOKENS) this.#tokens.delete(this.#tokens.values().next().value as string);
		return true;
	}

	onGroup(group: string): void {
		this.#handlers.onGroup(group);
	}

	onTakeover(session: SessionRef): void {
		this.#handlers.onTakeover(session);
	}

	onTest(): void {}

	/** Answers whether there was none. */
	async #make(what: "fresh" | "missing", connection = this.#context.connection): Promise<boolean> {
		const { replicated, process, format } = this.#context;
		const hello = writeHead(process, ++this.#made, format.writes);
		const made = await connection.run(scripts.inboxCreate, [this.#key], [hello, what]);
		if (made !== 1) return false;
		if (replicated) await connection.confirm();
		if (what === "fresh") {
			this.#last = 1;
			this.#lastIdentity = identityOf(hello);
		}
		return true;
	}

	/** Reads until the connection is gone; the next one begins again. */
	async #follow(): Promise<void> {
		const connection = this.#connection;
		if (connection === undefined || this.#following) return;
		this.#following = true;
		try {
			await this.#compare(connection);
			for (;;) {
				const position = `0-${this.#last}`;
				const reply = await connection.send("XREAD", ["COUNT", PAGE, "BLOCK", this.#blockMs, "STREAMS", this.#key, position]);
				if (reply !== null) this.#take((reply as [[Buffer, Entry[]]])[0][1]);
			}
		} catch (error) {
			if (!(error instanceof StoreError)) this.#context.onError(error as Error);
			// With the next connection it goes on.
			if (connection.ready) connection.drop("reading the inbox failed");
		} finally {
			this.#following = false;
		}
	}

	/** Looks whether the entry that was read last is still what it was. If not, all there is will be read. */
	async #compare(connection: Connection): Promise<void> {
		const id = `0-${this.#last}`;
		const [entry] = (await connection.send("XRANGE", [this.#key, id, id])) as Entry[];
		const known = this.#last === 0 || (entry !== undefined && identityOf(entry[1][1]) === this.#lastIdentity);
		if (known && !this.#lost) return;
		await this.#make("missing", connection);
		this.#lost = false;
		this.#last = 0;
		this.#trimmed = 0;
		this.#handlers.onGap();
	}

	#take(entries: readonly Entry[]): void {
		let gap = false;
		for (const [id, [, parcel]] of entries) {
			const number = numberOf(id);
			if (this.#last !== 0 && number !== this.#last + 1) gap = true;
			this.#last = number;
			this.#lastIdentity = identityOf(parcel);
			// In front of what came after it.
			if (gap) this.#handlers.onGap();
			gap = !this.#open(parcel);
		}
		if (gap) this.#handlers.onGap();
		this.#trimSoon();
	}

	/** Answers whether it could be read. */
	#open(parcel: Buffer): boolean {
		try {
			const { sender, number, end } = readHead(parcel);
			// One sender's parcels come in order: this one was read before the inbox had to be read again.
			if (number <= (this.#senders.get(sender) ?? 0)) return true;
			this.#senders.set(sender, number);
			if (this.#senders.size > REMEMBERED_SENDERS) this.#senders.delete(this.#senders.keys().next().value as string);
			readEnvelopes(parcel, end, this.#context.clock.nowMs(), this);
			return true;
		} catch (error) {
			const { message } = error as Error;
			if (message !== this.#complaint) this.#context.onError(error as Error);
			this.#complaint = message;
			return false;
		}
	}

	#trimSoon(): void {
		if (this.#last - this.#trimmed >= TRIM_ENTRIES) this.#trim();
		else this.#trimTimer ??= setTimeout(() => this.#trim(), TRIM_MS);
	}

	#trim(): void {
		clearTimeout(this.#trimTimer);
		this.#trimTimer = undefined;
		const { connection } = this.#context;
		if (this.#last === 0 || !connection.ready) return;
		this.#trimmed = this.#last;
		const identity = Buffer.from(this.#lastIdentity, "latin1");
		// What could not be trimmed now is trimmed with the next entries.
		connection.run(scripts.inboxTrim, [this.#key], [`0-${this.#last}`, identity]).catch(() => {});
	}
}

/** How a parcel begins: its sender and number, of whatever version. */
function identityOf(parcel: Buffer): string {
	return parcel.toString("latin1", 0, Math.min(parcel.length, 8 + (parcel[1] ?? 0)));
}

function numberOf(id: Buffer): number {
	return Number(id.toString("latin1", id.indexOf(0x2d) + 1));
}
