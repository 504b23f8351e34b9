/**
 * The logs: appending, reading, and who is a member. Knows streams and the members that hold their entries back, and nothing
 * of sessions. The log of a share group is one too; who takes its entries stands in `shared_logs.ts`.
 */

import type { Message } from "../../mqtt/message.ts";
import { decodeText } from "../../mqtt/utf8.ts";
import { isShared } from "../log_name.ts";
import type { Appended, LogEntry, Position } from "../store.ts";
import { type Context, settled } from "./context.ts";
import { toLocalTime, toServerTime } from "./expiry.ts";
import { decodeEntry, decodeMember, decodeSubscription, encodeEntry, encodeMember, type Member } from "./records.ts";
import type { Routes } from "./routes.ts";
import { scripts } from "./scripts.ts";

/** How long a repeated QoS 2 publication or will is known as one: longer than any retry. */
const TOKEN_SECONDS = 600;
/** Logs looked after at a time. */
const AUDITED_LOGS = 16;
/** Looks for deadlines until some logs are looked after without a reason. */
const LOOKS_SKIPPED = 60;
/** Entries fetched from one of several logs at a time, at least. */
const SMALLEST_FETCH = 16;
/** Logs that an append has looked for in vain and need not be asked for again at once. */
const REMEMBERED_GUESSES = 1024;
/** Between two ids, which are whole numbers. */
const HALF = 0.5;
/** Logs whose length is asked; of more, a part stands for all. */
const COUNTED_LOGS = 100;

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
	/** Where the round of looking after logs has come. */
	readonly #round = { exact: false, cursor: "0", logs: [] as string[], isUrgent: false, at: Number.NEGATIVE_INFINITY };
	/** Logs that are being looked for, because an append has found none. */
	readonly #sought = new Set<string>();

	constructor(context: Context, routes: Routes) {
		this.#context = context;
		this.#routes = routes;
	}

	/** The entry of a message for {@link append}, complete before the caller can change its bytes. */
	encode(message: Message): Buffer {
		return encodeEntry(this.#context.clock.nextId(), toServerTime(message, this.#context), this.#context.format.writes);
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
			else this.#seek(log);
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

	/** Either somebody removed the log and could not say so, or it was never there: of exact filters only a guess is known. */
	#seek(log: string): void {
		if (this.#sought.has(log) || !this.#routes.mayExist(log)) return;
		if (this.#sought.size >= REMEMBERED_GUESSES) this.#sought.clear();
		this.#sought.add(log);
		this.#dropRoute(log).then((dropped) => {
			if (dropped) this.#sought.delete(log);
		}, this.#context.onError);
	}

	/** Removes a route without a log. Whether there was one. */
	async #dropRoute(log: string): Promise<boolean> {
		const { connection, keys } = this.#context;
		const generation = await this.#routes.generation(log);
		if (generation === undefined) return false;
		// Asked after the route, which follows its log: what is not there now was there before, or is another's.
		const present = (await connection.send("ZSCORE", [keys.log(log).members, "generation"])) as Buffer | null;
		if (present?.toString("latin1") === generation) return false;
		await this.#routes.remove(log, generation);
		return true;
	}

	/** Merges the logs by the ids of their entries. The first commands are sent before this returns. */
	async read(positions: readonly Position[], limit: number): Promise<LogEntry[]> {
		const page = positions.length === 1 ? limit : Math.min(limit, Math.max(SMALLEST_FETCH, Math.ceil((2 * limit) / positions.length)));
		const readers = positions.map(({ log, after }) => new Reader(log, after, this.#context));
		const entries: LogEntry[] = [];
		let lastValue: Buffer | undefined;
		while (entries.length < limit) {
			await Promise.all(readers.map((reader) => this.#fill(reader, page)));
			let open: Reader | undefined;
			do {
				open = undefined;
				for (const reader of readers) if (reader.id < (open?.id ?? Number.POSITIVE_INFINITY)) open = reader;
				if (open === undefined) return entries;
				const { value } = open;
				entries.push(apart(open.take(), value, entries.at(-1), lastValue));
				lastValue = value;
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
		return entry === undefined ? undefined : toLocalTime(decodeEntry(entry[1][1]).message, this.#context);
	}

	/** Makes a membership, or finds it; the log is known everywhere when this resolves. */
	async join(log: string, member: Member): Promise<Joined> {
		const { connection, keys } = this.#context;
		const { entries, members } = keys.log(log);
		const reply = await connection.run(scripts.logJoin, [entries, members], [encodeMember(member), sharedFlag(log)]);
		const [floor, generation, isNew, isFirst] = reply as [Buffer, Buffer, number, number];
		// A repetition cannot know whether its first was told.
		await this.#routes.put(log, generation.toString("latin1"), isFirst === 1 || isNew === 0);
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
		if (generation !== "none") await this.#routes.remove(log, generation);
		else if (this.#routes.mayExist(log)) await this.#dropRoute(log);
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
	 * Now and then some, unless there is a reason to look through all.
	 */
	async audit(): Promise<void> {
		const { connection, keys, lookMs } = this.#context;
		const round = this.#round;
		if (!round.isUrgent && performance.now() - round.at < LOOKS_SKIPPED * lookMs) return;
		round.at = performance.now();
		for (let pages = 0; pages < 2 && round.logs.length < AUDITED_LOGS; pages++) {
			const routes = round.exact ? keys.exactRoutes : keys.routes;
			const [next, fields] = (await connection.send("HSCAN", [routes, round.cursor, "COUNT", AUDITED_LOGS])) as [Buffer, Buffer[]];
			for (let n = 0; n < fields.length; n += 2) round.logs.push(nameOf(fields[n] as Buffer));
			round.cursor = next.toString("latin1");
			if (round.cursor !== "0") continue;
			round.exact = !round.exact;
			if (!round.exact) round.isUrgent = false;
		}
		await settled(round.logs.splice(0, AUDITED_LOGS).map((log) => this.#audit(log)));
	}

	/** Something was lost, or left behind: all logs are to be looked after from the start. */
	auditAll(): void {
		Object.assign(this.#round, { exact: false, cursor: "0", isUrgent: true });
	}

	async #audit(log: string): Promise<void> {
		const { connection, keys } = this.#context;
		// The lowest one holds entries back, and is the only one left when nobody else needs the log.
		const [lowest] = (await connection.send("ZRANGE", [keys.log(log).members, 0, 0])) as Buffer[];
		if (lowest === undefined) {
			await this.#dropRoute(log);
			return;
		}
		const member = decodeMember(lowest);
		const record = (await connection.send("HGET", [keys.session(member.clientId).subscriptions, log])) as Buffer | null;
		if (record === null || decodeSubscription(record).join !== member.join) await this.leave(log, member);
	}

	async count(): Promise<number> {
		const { connection, keys } = this.#context;
		const counts = await Promise.all([keys.routes, keys.exactRoutes].map((routes) => connection.send("HLEN", [routes])));
		return counts.reduce<number>((sum, count) => sum + Number(count), 0);
	}

	/** Entries in all logs; of many logs an estimate. */
	async countEntries(): Promise<number> {
		const { keys } = this.#context;
		const counts = await Promise.all([keys.routes, keys.exactRoutes].map((routes) => this.#countEntries(routes)));
		return counts.reduce((sum, count) => sum + count, 0);
	}

	async #countEntries(routes: string): Promise<number> {
		const { connection, keys } = this.#context;
		const [size, logs] = await Promise.all([connection.send("HLEN", [routes]), connection.send("HRANDFIELD", [routes, COUNTED_LOGS])]);
		const names = logs as Buffer[];
		const lengths = await Promise.all(names.map((log) => connection.send("XLEN", [keys.entries(nameOf(log))])));
		const entries = lengths.reduce<number>((sum, length) => sum + Number(length), 0);
		return names.length === 0 ? 0 : Math.round((entries * Number(size)) / names.length);
	}
}

function nameOf(bytes: Buffer): string {
	return decodeText(bytes, 0, bytes.length);
}

/**
 * Two replicas may have given two messages the same id, in the same µs. Copies of one message are in different logs and have
 * the same bytes: what stands next to such a one and is none gets an id of its own.
 */
function apart(entry: LogEntry, value: Buffer, last: LogEntry | undefined, lastValue: Buffer | undefined): LogEntry {
	if (last === undefined || Math.floor(last.id) !== entry.id) return entry;
	const isCopy = last.log !== entry.log && lastValue?.equals(value) === true;
	if (isCopy) return { ...entry, id: last.id };
	return last.id === entry.id ? { ...entry, id: entry.id + HALF } : entry;
}

export function toEntry(log: string, [id, [, value]]: StreamEntry, context: Context): LogEntry {
	const entry = decodeEntry(value);
	return { log, seq: seqOf(id), id: entry.id, message: toLocalTime(entry.message, context) };
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
	readonly #context: Context;
	#entries: LogEntry[] = [];
	#values: Buffer[] = [];
	#next = 0;
	#more = true;

	constructor(log: string, after: number, context: Context) {
		this.log = log;
		this.after = after;
		this.#context = context;
	}

	/** Id of the next entry, infinite when there is none. */
	get id(): number {
		return this.#entries[this.#next]?.id ?? Number.POSITIVE_INFINITY;
	}

	/** The next entry as it is stored. */
	get value(): Buffer {
		return this.#values[this.#next] as Buffer;
	}

	/** What was fetched is used up, and there may be more. */
	get mustFill(): boolean {
		return this.#more && this.#next === this.#entries.length;
	}

	fill(entries: readonly StreamEntry[], page: number): void {
		this.#entries = entries.map((entry) => toEntry(this.log, entry, this.#context));
		this.#values = entries.map(([, [, value]]) => value);
		this.#next = 0;
		this.#more = entries.length === page;
	}

	take(): LogEntry {
		const entry = this.#entries[this.#next++] as LogEntry;
		this.after = entry.seq;
		return entry;
	}
}
