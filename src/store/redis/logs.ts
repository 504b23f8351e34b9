/**
 * The logs: appending, reading, and who is a member. Knows streams and the members that hold their entries back, and nothing
 * of sessions. The log of a share group is one too; who takes its entries stands in `shared_logs.ts`.
 */

import type { Message } from "../../mqtt/message.ts";
import type { Appended, LogEntry, Position } from "../store.ts";
import { type Context, settled } from "./context.ts";
import { decodeEntry, decodeMember, decodeSubscription, encodeEntry, encodeMember, type Member } from "./records.ts";
import type { Routes } from "./routes.ts";
import { scripts } from "./scripts.ts";

/** How long a repeated QoS 2 publication or will is known as one: longer than any retry. */
const TOKEN_SECONDS = 600;
/** Logs looked after at a time. */
const AUDITED_LOGS = 16;
/** Entries fetched from one of several logs at a time, at least. */
const SMALLEST_FETCH = 16;
/** Logs whose length is asked; of more, a part stands for all. */
const COUNTED_LOGS = 2000;

/** As Redis answers it. */
export type StreamEntry = [id: Buffer, fields: [name: Buffer, value: Buffer]];

/** What joining a log answers. */
export interface Joined {
	/** Entries after it are the member's. */
	readonly floor: number;
	/** The membership was there before. */
	readonly existed: boolean;
}

export class Logs {
	readonly #context: Context;
	readonly #routes: Routes;
	/** Those still to be looked after in this round. */
	#audited: Iterator<string, undefined>;

	constructor(context: Context, routes: Routes) {
		this.#context = context;
		this.#routes = routes;
		this.#audited = routes.names();
	}

	/** Whether there is a log, as far as this replica knows. */
	exists(log: string): boolean {
		return this.#routes.generation(log) !== undefined;
	}

	/** The entry of a message for {@link append}, complete before the caller can change its bytes. */
	encode(message: Message): Buffer {
		return encodeEntry(this.#context.clock.nextId(), message);
	}

	/**
	 * Appends an entry to those of the logs that exist. The commands are sent before this returns.
	 * @param token Makes a repetition with the same token change nothing.
	 */
	async append(entry: Buffer, logs: readonly string[], token: string | undefined): Promise<Appended[]> {
		const replies = await Promise.all(logs.map((log) => this.#append(entry, log, token)));
		const appended: Appended[] = [];
		for (let n = 0; n < logs.length; n++) {
			const log = logs[n] as string;
			const id = replies[n];
			if (id !== null) appended.push({ log, seq: seqOf(id as Buffer) });
			else this.#dropRoute(log);
		}
		return appended;
	}

	#append(entry: Buffer, log: string, token: string | undefined): Promise<unknown> {
		const { connection, keys, limits } = this.#context;
		const { logMaxMessages } = limits;
		if (token === undefined) {
			return connection.send("XADD", [keys.entries(log), "NOMKSTREAM", "MAXLEN", "=", logMaxMessages, "0-*", "m", entry]);
		}
		return connection.run(scripts.logAppendOnce, [keys.entries(log), keys.appended(log, token)], [logMaxMessages, TOKEN_SECONDS, entry]);
	}

	/** Somebody removed the log and could not say so. */
	#dropRoute(log: string): void {
		const generation = this.#routes.generation(log);
		if (generation !== undefined) this.#routes.remove(log, generation).catch(this.#context.onError);
	}

	/** Merges the logs by the ids of their entries. The first commands are sent before this returns. */
	async read(positions: readonly Position[], limit: number): Promise<LogEntry[]> {
		const page = positions.length === 1 ? limit : Math.min(limit, Math.max(SMALLEST_FETCH, Math.ceil((2 * limit) / positions.length)));
		const readers = positions.map(({ log, after }) => new Reader(log, after));
		const entries: LogEntry[] = [];
		while (entries.length < limit) {
			await Promise.all(readers.map((reader) => this.#fill(reader, page)));
			let open: Reader | undefined;
			do {
				open = undefined;
				for (const reader of readers) if (reader.id < (open?.id ?? Number.POSITIVE_INFINITY)) open = reader;
				if (open === undefined) return entries;
				entries.push(open.take());
			} while (!open.mustFill && entries.length < limit);
		}
		return entries;
	}

	async #fill(reader: Reader, page: number): Promise<void> {
		if (!reader.mustFill) return;
		const { connection, keys } = this.#context;
		const reply = await connection.send("XRANGE", [keys.entries(reader.log), `0-${reader.after + 1}`, "+", "COUNT", page]);
		reader.fill(reply as StreamEntry[], page);
	}

	/** One message, `undefined` when it is gone. */
	async message(log: string, seq: number): Promise<Message | undefined> {
		const { connection, keys } = this.#context;
		const id = `0-${seq}`;
		const [entry] = (await connection.send("XRANGE", [keys.entries(log), id, id])) as StreamEntry[];
		return entry === undefined ? undefined : decodeEntry(entry[1][1]).message;
	}

	/** Makes a membership, or finds it; the log is known everywhere when this resolves. */
	async join(log: string, member: Member): Promise<Joined> {
		const { connection, keys } = this.#context;
		const { entries, members } = keys.log(log);
		const reply = await connection.run(scripts.logJoin, [entries, members], [encodeMember(member), sharedFlag(log)]);
		const [floor, generation, isNew] = reply as [Buffer, Buffer, number];
		await this.#routes.put(log, generation.toString("latin1"));
		return { floor: Number(floor), existed: isNew === 0 };
	}

	/** Ends a membership; if it was the last one, the log is known to be gone everywhere when this resolves. */
	async leave(log: string, member: Member): Promise<void> {
		const { connection, keys } = this.#context;
		const { entries, members } = keys.log(log);
		const gone = (await connection.run(scripts.logLeave, [entries, members], [encodeMember(member), sharedFlag(log)])) as Buffer;
		const generation = gone.toString("latin1");
		if (generation === "") return;
		// Without a log, somebody may have removed it and could not say so.
		const known = generation === "none" ? this.#routes.generation(log) : generation;
		if (known !== undefined) await this.#routes.remove(log, known);
	}

	/** The member needs nothing up to here any more. */
	async moveFloor(log: string, member: Member, floor: number): Promise<void> {
		const { connection, keys } = this.#context;
		const { entries, members } = keys.log(log);
		await connection.run(scripts.logFloor, [entries, members], [encodeMember(member), floor]);
	}

	/**
	 * Looks after some logs, others each time: a membership whose subscription is gone ends, and a route without a log goes.
	 * They are left by a join that came after its session had moved on, and by a server that lost some of what it was told.
	 */
	async audit(): Promise<void> {
		const audited: Promise<void>[] = [];
		while (audited.length < Math.min(AUDITED_LOGS, this.#routes.size)) {
			const { value: log } = this.#audited.next();
			if (log === undefined) this.#audited = this.#routes.names();
			else audited.push(this.#audit(log));
		}
		await settled(audited);
	}

	async #audit(log: string): Promise<void> {
		const { connection, keys } = this.#context;
		// The lowest one holds entries back, and is the only one left when nobody else needs the log.
		const [lowest] = (await connection.send("ZRANGE", [keys.log(log).members, 0, 0])) as Buffer[];
		if (lowest === undefined) {
			this.#dropRoute(log);
			return;
		}
		const member = decodeMember(lowest);
		const record = (await connection.send("HGET", [keys.session(member.clientId).subscriptions, log])) as Buffer | null;
		if (record === null || decodeSubscription(record).join !== member.join) await this.leave(log, member);
	}

	/** Entries in all logs; of many logs an estimate. */
	async countEntries(): Promise<number> {
		const { connection, keys } = this.#context;
		const step = Math.ceil(this.#routes.size / COUNTED_LOGS);
		const lengths: Promise<unknown>[] = [];
		let n = 0;
		for (const log of this.#routes.names()) if (n++ % step === 0) lengths.push(connection.send("XLEN", [keys.entries(log)]));
		let entries = 0;
		for (const length of await Promise.all(lengths)) entries += Number(length);
		return lengths.length === 0 ? 0 : Math.round((entries * n) / lengths.length);
	}
}

export function isShared(log: string): boolean {
	return log.startsWith("$share/");
}

export function toEntry(log: string, [id, [, value]]: StreamEntry): LogEntry {
	return { log, seq: seqOf(id), ...decodeEntry(value) };
}

/** Entry ids are `0-{seq}`. */
export function seqOf(id: Buffer): number {
	let seq = 0;
	for (let at = 2; at < id.length; at++) seq = seq * 10 + (id[at] as number) - 0x30;
	return seq;
}

function sharedFlag(log: string): number {
	return isShared(log) ? 1 : 0;
}

/** One log within a read: stands on its next entry. */
class Reader {
	readonly log: string;
	after: number;
	#entries: LogEntry[] = [];
	#next = 0;
	#more = true;

	constructor(log: string, after: number) {
		this.log = log;
		this.after = after;
	}

	/** Id of the next entry, infinite when there is none. */
	get id(): number {
		return this.#entries[this.#next]?.id ?? Number.POSITIVE_INFINITY;
	}

	/** What was fetched is used up, and there may be more. */
	get mustFill(): boolean {
		return this.#more && this.#next === this.#entries.length;
	}

	fill(entries: readonly StreamEntry[], page: number): void {
		this.#entries = entries.map((entry) => toEntry(this.log, entry));
		this.#next = 0;
		this.#more = entries.length === page;
	}

	take(): LogEntry {
		const entry = this.#entries[this.#next++] as LogEntry;
		this.after = entry.seq;
		return entry;
	}
}
