/** What the parts of the store contract share: a store for each test, and short words for what they do with it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Message } from "../../../src/mqtt/message.ts";
import { NO_PROPERTIES } from "../../../src/mqtt/packet.ts";
import { Topic } from "../../../src/mqtt/topic.ts";
import type {
	Checkpoint,
	CloseSession,
	InflightRecord,
	LogEntry,
	OpenedSession,
	OpenSession,
	PublishRequest,
	PublishResult,
	SessionRef,
	Store,
	StoreErrorCode,
	StoreLimits,
	SubscriptionOptions,
} from "../../../src/store/store.ts";
import { StoreError } from "../../../src/store/store.ts";

/** Time at which the stores of the tests start. */
export const NOW = 1_700_000_000_000;
const LIMITS: StoreLimits = { logMaxMessages: 100_000, maxRetained: 100_000 };

/** A store under test and what can be done to it from outside. */
export interface StoreHarness {
	/** Not started yet. */
	readonly store: Store;
	/** Answers a store, not started, on what would be left if the process were killed now. `undefined` without persistence. */
	readonly reopen: (() => Promise<Store>) | undefined;
	/** Ends all stores and removes their data. */
	dispose(): Promise<void>;
}

export type OpenHarness = (limits: StoreLimits) => Promise<StoreHarness>;

export interface Suite {
	readonly name: string;
	readonly open: OpenHarness;
	readonly persistent: boolean;
}

/** A connected session. */
export interface Client extends OpenedSession {
	readonly ref: SessionRef;
}

export class Fixture {
	store: Store;
	readonly #harness: StoreHarness;
	/** What `onLog` said since the last look, such as `+a/b` and `-a/b`. */
	#logEvents: string[] = [];

	constructor(harness: StoreHarness) {
		this.store = harness.store;
		this.#harness = harness;
	}

	async start(nowMs = NOW): Promise<void> {
		await this.store.start(nowMs, (name, exists) => this.#logEvents.push(`${exists ? "+" : "-"}${name}`));
	}

	/** Kills the store and starts one on what is left. */
	async restart(nowMs = NOW): Promise<void> {
		assert.ok(this.#harness.reopen);
		this.store = await this.#harness.reopen();
		this.#logEvents = [];
		await this.start(nowMs);
	}

	takeLogEvents(): string[] {
		const events = this.#logEvents;
		this.#logEvents = [];
		return events;
	}

	async connect(clientId: string, options: Partial<OpenSession> = {}): Promise<Client> {
		const opened = await this.store.openSession({
			clientId,
			user: "",
			cleanStart: false,
			sessionExpirySeconds: 3600,
			will: undefined,
			nowMs: NOW,
			...options,
		});
		return { ...opened, ref: { clientId, epoch: opened.epoch } };
	}

	close(client: Client, options: Partial<CloseSession> = {}): Promise<void> {
		return this.store.closeSession(client.ref, { nowMs: NOW, sessionExpirySeconds: undefined, will: "keep", ...options });
	}

	async subscribe(
		client: Client,
		filter: string,
		options: Partial<SubscriptionOptions> = {},
	): Promise<{ existed: boolean; cursor: number }> {
		const [answer] = await this.store.subscribe(client.ref, [subscription(filter, options)]);
		assert.ok(answer);
		return answer;
	}

	publish(topic: string, logs: readonly string[], options: Partial<PublishRequest> = {}): Promise<PublishResult> {
		return this.store.publish({
			message: message(topic),
			logs,
			retain: false,
			reserve: undefined,
			willId: undefined,
			name: undefined,
			forward: undefined,
			...options,
		});
	}

	/** Publishes `count` messages with payloads `{first}`, `{first + 1}`, … to one log. */
	async fill(log: string, count: number, first = 1): Promise<void> {
		const publishing = [];
		for (let n = first; n < first + count; n++)
			publishing.push(this.publish("t", [log], { message: message("t", { payload: String(n) }) }));
		await Promise.all(publishing);
	}

	read(log: string, after = 0, limit = 1000): Promise<readonly LogEntry[]> {
		return this.store.read([{ log, after }], limit);
	}

	checkpoint(client: Client, checkpoint: Partial<Checkpoint>): Promise<void> {
		return this.store.checkpoint(client.ref, { cursors: [], inflight: [], lastPacketId: 0, ...checkpoint });
	}

	retain(topic: string, payload = topic, options: Partial<Omit<Message, "payload">> = {}): Promise<PublishResult> {
		return this.publish(topic, [], { message: message(topic, { ...options, payload, retain: true }), retain: true });
	}

	/** Topics of the retained messages that match, in the order of all pages of `pageSize`. */
	async retainedTopics(filter: string, pageSize = 1000, nowMs = NOW): Promise<string[]> {
		const topics: string[] = [];
		let after: string | undefined;
		do {
			const page = await this.store.retained(filter, after, pageSize, nowMs);
			assert.ok(page.messages.length <= pageSize, `${page.messages.length} messages in a page of ${pageSize}`);
			topics.push(...page.messages.map(({ topic }) => topic.name));
			after = page.next;
		} while (after !== undefined);
		return topics;
	}

	/** Client ids whose wills are due. */
	async dueWills(nowMs: number): Promise<string[]> {
		return (await this.store.due(nowMs, 1000)).wills.map(({ clientId }) => clientId);
	}

	dispose(): Promise<void> {
		return this.#harness.dispose();
	}
}

export function message(topic: string, options: Partial<Omit<Message, "payload">> & { payload?: string | Uint8Array } = {}): Message {
	const { payload = "", ...rest } = options;
	return {
		topic: Topic.of(topic),
		payload: typeof payload === "string" ? new TextEncoder().encode(payload) : payload,
		qos: 1,
		retain: false,
		forwarded: NO_PROPERTIES,
		expiresAtMs: Number.POSITIVE_INFINITY,
		publisher: "",
		...rest,
	};
}

export function subscription(filter: string, options: Partial<SubscriptionOptions> = {}): SubscriptionOptions {
	return { filter, qos: 1, noLocal: false, retainAsPublished: false, retainHandling: 0, subscriptionId: 0, ...options };
}

export function inflight(packetId: number, options: Partial<InflightRecord> = {}): InflightRecord {
	return { packetId, qos: 1, state: "sent", log: "", seq: 0, retain: false, subscriptionIds: [], message: undefined, ...options };
}

export function will(topic: string, delaySeconds = 0, expirySeconds?: number): NonNullable<OpenSession["will"]> {
	return { message: message(topic), delaySeconds, expirySeconds };
}

export function seqs(entries: readonly LogEntry[]): number[] {
	return entries.map(({ seq }) => seq);
}

export function texts(entries: readonly LogEntry[]): string[] {
	return entries.map((entry) => text(entry.message));
}

export function text({ payload }: Message): string {
	return new TextDecoder().decode(payload);
}

/** Buffers and typed arrays of the same bytes are equal for a store's user, who is told of a revision where replicas share the store. */
export function assertMessage(actual: Message | undefined, expected: Message): void {
	assert.ok(actual);
	const plain = ({ revision, ...m }: Message) => ({ ...m, topic: m.topic.name, payload: [...m.payload], forwarded: [...m.forwarded] });
	assert.deepEqual(plain(actual), plain(expected));
}

export function numbers(from: number, to: number): number[] {
	return Array.from({ length: to - from + 1 }, (_, n) => from + n);
}

export async function assertRejects(promise: Promise<unknown>, code: StoreErrorCode): Promise<void> {
	await assert.rejects(promise, (error) => error instanceof StoreError && error.code === code);
}

type Body = (f: Fixture) => Promise<void>;

/** Defines a test with a started store of its own. */
export function contract(suite: Suite, title: string, body: Body, limits: Partial<StoreLimits> = {}): void {
	test(`${suite.name}: ${title}`, async () => {
		const fixture = new Fixture(await suite.open({ ...LIMITS, ...limits }));
		try {
			await fixture.start();
			await body(fixture);
		} finally {
			await fixture.dispose();
		}
	});
}

/** Defines a test for stores that outlive their process. */
export function persistenceContract(suite: Suite, title: string, body: Body, limits: Partial<StoreLimits> = {}): void {
	if (suite.persistent) contract(suite, title, body, limits);
}
