/**
 * The connection to a Redis Cluster: a link to each master, kept to what the cluster says of itself. Knows nodes and their
 * links; which slot a command has and in which order those of a slot are sent stands in `slots.ts` and `slot_queues.ts`.
 *
 * The nodes are asked who serves what when the connection is made, when a link is lost or a command refused, and now and then
 * while answers are due: a master that is frozen does not say that another one has taken over.
 */

import type { RedisOptions } from "ioredis";
import type { StoreError } from "../store.ts";
import { type Argument, Link } from "./link.ts";
import { addressOf, nameOf, readRefusal, readSlots } from "./slot_map.ts";
import { type SlotCommand, SlotQueues } from "./slot_queues.ts";
import { SLOTS, slotOfCommand } from "./slots.ts";
import type { NodeAddress } from "./target.ts";
import { away, Doubt, needsAnother, retryDelay, translate, WATCH_MS, type Wire, type WireOptions } from "./wire.ts";

/** Between attempts while some masters answer, and while none does. */
const MAX_RETRY_MS = 500;
const MAX_LONELY_RETRY_MS = 5000;
/** How long a node may take to say who serves what before another is asked. */
const ASK_MS = 1000;
/** How often that is asked while answers are due and nothing is wrong. */
const REFRESH_MS = 30_000;
/** How long a node that is a master no longer may still answer what it was sent. */
const RETIRE_MS = 1000;
/** How long the link to a node that has no slots yet is kept after a command was sent there because its slot is on its way. */
const ARRIVAL_MS = 10_000;
const HOLD_TICK_MS = 20;

export class ClusterConnection implements Wire {
	readonly #common: RedisOptions;
	readonly #options: WireOptions;
	/** Names of all nodes that were ever told of, those of the address first. */
	readonly #known: string[];
	readonly #links = new Map<string, Link>();
	/** Nodes that are masters no longer or not yet, and when their links end. */
	readonly #retiring = new Map<string, number>();
	#owners: (string | undefined)[] = new Array(SLOTS).fill(undefined);
	#masters = new Set<string>();
	readonly #queues: SlotQueues;
	readonly #doubt = new Doubt();
	readonly #watchdog: ReturnType<typeof setInterval>;
	#timer: { readonly at: number; readonly handle: ReturnType<typeof setTimeout> } | undefined;
	#places = 0;
	#ready = false;
	/** Whether commands are taken at all: not before `onReady` was called for the first time. */
	#open = false;
	#closed = false;
	#told = false;
	#attempts = 0;
	/** What is known of slots may be wrong. */
	#stale = true;
	#askedAt = Number.NEGATIVE_INFINITY;
	#heardAt = 0;
	#asks = 0;
	batch = 0;
	lastError: Error | undefined;

	constructor(nodes: readonly NodeAddress[], common: RedisOptions, options: WireOptions) {
		this.#common = common;
		this.#options = options;
		this.#known = nodes.map(nameOf);
		this.#queues = new SlotQueues(
			(command) => this.#dispatch(command),
			(command) => command.reject(away(command.label, this.lastError)),
		);
		this.#watchdog = setInterval(() => this.#watch(), WATCH_MS);
		this.#tend();
	}

	get ready(): boolean {
		return this.#ready;
	}

	send(label: string, name: string, args: readonly Argument[]): Promise<unknown> {
		if (!this.#open) return Promise.reject(away(label, this.lastError));
		return new Promise((resolve, reject) => {
			const slot = slotOfCommand(name, args);
			const place = ++this.#places;
			this.#queues.add({ label, name, args, slot, place, since: performance.now(), askAt: undefined, notBefore: 0, resolve, reject });
		});
	}

	async sendToAll(name: string, args: readonly Argument[]): Promise<readonly unknown[]> {
		if (!this.#ready) throw away(name, this.lastError);
		return Promise.all([...this.#masters].map((master) => this.#sendTo(this.#links.get(master), name, args)));
	}

	async #sendTo(link: Link | undefined, name: string, args: readonly Argument[]): Promise<unknown> {
		if (link === undefined) throw away(name, this.lastError);
		try {
			return await link.send(name, args);
		} catch (error) {
			throw this.#failure(name, link, error as Error);
		}
	}

	async confirm(): Promise<void> {
		this.#doubt.check();
		const unsafe = [...this.#links.values()].filter((link) => link.unsafe);
		await Promise.all(
			unsafe.map((link) =>
				link.confirm().catch((error: Error) => {
					throw this.#failure("WAIT", link, error);
				}),
			),
		);
		// One of them, or one that had nothing to confirm any more, may have ended meanwhile.
		this.#doubt.check();
	}

	drop(reason: string): void {
		this.lastError = new Error(reason);
		for (const link of [...this.#links.values()]) link.end(reason);
	}

	close(): void {
		this.#closed = true;
		this.#open = false;
		clearInterval(this.#watchdog);
		clearTimeout(this.#timer?.handle);
		for (const link of [...this.#links.values()]) link.end();
		this.#queues.clear();
	}

	#dispatch(command: SlotCommand): string | undefined {
		const node = command.askAt ?? this.#owners[command.slot];
		if (node === undefined) return undefined;
		const link = this.#links.get(node);
		if (link?.ready !== true) {
			if (link === undefined) this.#soon(0);
			return undefined;
		}
		// The next command on this link, and nothing is sent in between.
		if (command.askAt !== undefined) link.send("ASKING", []).catch(() => {});
		link.send(command.name, command.args).then(
			(reply) => {
				this.#queues.over(command);
				command.resolve(reply);
			},
			(error: Error) => this.#failed(command, node, link, error),
		);
		return node;
	}

	#failed(command: SlotCommand, node: string, link: Link, error: Error): void {
		const refusal = readRefusal(error.message, node);
		if (refusal?.kind === "moved") this.#move(command.slot, refusal.master);
		if (refusal?.kind === "ask") this.#expect(refusal.master);
		if (refusal !== undefined || error.message.startsWith("CLUSTERDOWN")) this.#doubtMap();
		if (refusal !== undefined && !this.#closed && this.#queues.refused(command, refusal)) {
			this.#soon(HOLD_TICK_MS);
			return;
		}
		this.#queues.over(command);
		command.reject(this.#failure(command.label, link, error));
	}

	#failure(label: string, link: Link, error: Error): StoreError {
		if (needsAnother(error)) {
			this.lastError = error;
			link.end(error.message);
		}
		return link.ready ? translate(label, error) : away(label, this.lastError ?? error);
	}

	#doubtMap(): void {
		this.#stale = true;
		this.#soon(0);
	}

	#learn(node: string): void {
		if (!this.#known.includes(node)) this.#known.push(node);
	}

	#move(slot: number, master: string): void {
		if (this.#owners[slot] === master) return;
		this.#owners[slot] = master;
		this.#learn(master);
		this.#queues.moved(slot);
		this.#masters.add(master);
		this.#retiring.delete(master);
		if (!this.#links.has(master)) this.#ready = false;
	}

	/** A slot is on its way to a node, which may be its first. */
	#expect(node: string): void {
		if (this.#masters.has(node) || this.#closed) return;
		this.#retiring.set(node, performance.now() + ARRIVAL_MS);
		if (!this.#links.has(node)) this.#connect(node);
	}

	/** Takes over what a node says of all slots. */
	#heard(owners: (string | undefined)[]): void {
		const before = this.#owners;
		this.#owners = owners;
		this.#masters = new Set(owners.filter((owner) => owner !== undefined));
		for (let slot = 0; slot < SLOTS; slot++) if (owners[slot] !== before[slot]) this.#queues.moved(slot);
		for (const master of this.#masters) this.#learn(master);
		this.#stale = owners.includes(undefined);
		if (this.#stale) this.lastError = new Error("the cluster has slots that no node serves");
		this.#heardAt = performance.now();
		const end = performance.now() + RETIRE_MS;
		for (const node of this.#links.keys()) {
			if (this.#masters.has(node)) this.#retiring.delete(node);
			else if (!this.#retiring.has(node)) this.#retiring.set(node, end);
		}
	}

	#connect(node: string): void {
		const { scripts, stallMs, onError } = this.#options;
		const link: Link = new Link(
			{ ...this.#common, ...addressOf(node) },
			{
				scripts,
				stallMs,
				onReady: () => this.#tend(),
				onEnd: (reason) => {
					this.#links.delete(node);
					this.#retiring.delete(node);
					this.#doubt.lost(link.unsafe);
					if (this.#masters.size > 0 && !this.#masters.has(node)) return;
					this.lastError = reason ?? this.lastError;
					this.#lost();
				},
				onWrite: () => {
					this.batch++;
				},
				onError,
			},
		);
		this.#links.set(node, link);
	}

	#lost(): void {
		this.#ready = false;
		this.#stale = true;
		if (this.#closed) return;
		if (!this.#told) {
			this.#told = true;
			this.#options.onError(away("connect", this.lastError));
		}
		this.#later();
	}

	/** Another attempt, after a while. */
	#later(): void {
		const lonely = ![...this.#links.values()].some((link) => link.ready);
		if (this.#timer === undefined) this.#soon(retryDelay(this.#attempts++, lonely ? MAX_LONELY_RETRY_MS : MAX_RETRY_MS));
	}

	#soon(delayMs: number): void {
		const at = performance.now() + delayMs;
		if (this.#closed || (this.#timer !== undefined && this.#timer.at <= at)) return;
		clearTimeout(this.#timer?.handle);
		this.#timer = { at, handle: setTimeout(() => this.#tend(this.#stale || !this.#ready), delayMs) };
	}

	/** Does what can be done now for a link to every master, and comes again as long as something is wrong. */
	#tend(ask = this.#stale): void {
		if (this.#closed) return;
		clearTimeout(this.#timer?.handle);
		this.#timer = undefined;
		if (ask) this.#ask();
		for (const master of this.#masters) if (!this.#links.has(master)) this.#connect(master);
		this.#becomeReady();
		this.#queues.tend();
		if (this.#queues.holding) this.#soon(HOLD_TICK_MS);
		else if (this.#stale || !this.#ready) this.#later();
	}

	#becomeReady(): void {
		if (this.#ready || this.#stale || this.#masters.size === 0) return;
		for (const master of this.#masters) if (this.#links.get(master)?.ready !== true) return;
		this.#ready = true;
		this.#open = true;
		this.#told = false;
		this.#attempts = 0;
		this.#options.onReady();
	}

	/** Asks a node that answers, each time another one; without any, connects to the next that is known. */
	#ask(): void {
		if (performance.now() - this.#askedAt < ASK_MS) return;
		const ready = [...this.#links].filter(([, link]) => link.ready);
		const turn = this.#asks++;
		const [node, link] = ready[turn % ready.length] ?? [];
		if (node === undefined || link === undefined) {
			const next = this.#known[turn % this.#known.length] as string;
			if (!this.#links.has(next)) this.#connect(next);
			return;
		}
		const askedAt = performance.now();
		this.#askedAt = askedAt;
		const over = () => {
			if (this.#askedAt === askedAt) this.#askedAt = Number.NEGATIVE_INFINITY;
		};
		link.send("CLUSTER", ["SLOTS"]).then(
			(reply) => {
				// A late answer of one that was frozen is old news.
				if (this.#askedAt !== askedAt || this.#closed) return;
				over();
				this.#heard(readSlots(reply, node));
				this.#tend(false);
			},
			(error: Error) => {
				over();
				this.lastError = error;
			},
		);
	}

	#watch(): void {
		const now = performance.now();
		for (const [node, link] of [...this.#links]) {
			link.watch();
			const end = this.#retiring.get(node);
			if (end !== undefined && now >= end) link.end("it is a master no longer");
		}
		const busy = [...this.#links.values()].some((link) => link.busy);
		if (busy && this.#ready && now - this.#heardAt >= REFRESH_MS) this.#doubtMap();
	}
}
