/**
 * This replica as one of many: publishing to all of them, what the others send here, and what is done now and then because
 * another may be gone. Only there when the store is shared.
 */

import type { Logger } from "../log.ts";
import type { Message } from "../mqtt/message.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Forwarded, Router, RouterHandlers } from "../router/router.ts";
import type { SessionRef, SharedStore } from "../store/store.ts";
import { OrderedPublishing } from "./ordered_publishing.ts";
import type { Publish, PublishContext, Routing } from "./routing.ts";
import type { Sessions } from "./sessions.ts";
import { Spreading } from "./spreading.ts";
import { isAway } from "./until_back.ts";

const REAP_MS = 2500;
/** What a lost reply has hidden in the logs of share groups is found by then. */
const PUMP_MS = 10_000;
const KICK = "kick ";

/** Whom an operator sends away: who has a client id, or whatever a user has connected. */
export interface Kick {
	readonly kind: "clientId" | "user";
	readonly value: string;
}

export interface ClusterOptions {
	readonly store: SharedStore;
	readonly router: Router;
	readonly routing: Routing;
	readonly sessions: Sessions;
	readonly log: Logger;
	/** Bytes of publications that may wait for the store. */
	readonly maxWaitingBytes: number;
	/** Another replica has sent these clients away. */
	readonly onKick: (kick: Kick) => void;
	/** Logs may have entries that nobody has told of. */
	readonly onRoutesStored: () => void;
	/** Messages for this replica may have been lost. */
	readonly onGap: () => void;
}

export class Cluster {
	readonly #options: ClusterOptions;
	readonly #spreading: Spreading;
	readonly #ordered: OrderedPublishing;
	#timers: ReturnType<typeof setInterval>[] = [];

	constructor(options: ClusterOptions) {
		this.#options = options;
		const { store, router, routing, maxWaitingBytes } = options;
		this.#spreading = new Spreading(store, router, routing);
		this.#ordered = new OrderedPublishing(store, router, this.#spreading, maxWaitingBytes);
	}

	/** Whether publications wait for the store. */
	get away(): boolean {
		return this.#ordered.away;
	}

	async start(): Promise<void> {
		await this.#options.router.start(this.#handlers);
		this.#timers = [setInterval(this.#reap, REAP_MS), setInterval(() => this.#options.routing.pumpGroups(), PUMP_MS)];
	}

	async stop(): Promise<void> {
		for (const timer of this.#timers) clearInterval(timer);
		this.#ordered.stop();
		await this.#options.router.close();
	}

	/** Publishes to all replicas. The broker's own topics concern this one alone. */
	readonly publish: Publish = (message: Message, context?: PublishContext): ReasonCode | Promise<ReasonCode> => {
		if (message.topic.ofServer) return this.#options.routing.publish(message, context);
		if (message.qos > 0 || context !== undefined) return this.#ordered.publish(message, context);
		const matching = this.#spreading.publishQos0(message);
		if (message.retain) return this.#ordered.publish(message, undefined, matching);
		return matching.wanted ? ReasonCode.success : ReasonCode.noMatchingSubscribers;
	};

	/** Tells the other replicas to send these clients away. */
	kick(kick: Kick): Promise<void> {
		return this.#options.router.announce(`${KICK}${kick.kind} ${kick.value}`);
	}

	/** A session has moved to another replica, or was ended there: its connection here ends and touches nothing. */
	readonly takenOver = (session: SessionRef): void => this.#options.sessions.takenOver(session);

	readonly #handlers: RouterHandlers = {
		onRoute: (replica, filter, members) => this.#options.routing.setRoute(replica, filter, members),
		onMessage: (forwarded) => this.#receive(forwarded),
		onGroup: (log) => this.#options.routing.lookAgain(log),
		onTakeover: this.takenOver,
		onNotice: (notice) => {
			const kick = notice === undefined ? undefined : parseKick(notice);
			if (kick === undefined) this.#options.store.records.noticed(notice);
			else this.#options.onKick(kick);
		},
		onRoutesStored: () => this.#options.onRoutesStored(),
		onGap: () => {
			this.#options.log.warn("Messages from other replicas may have been lost: what is stored is read again");
			this.#options.onGap();
		},
	};

	#receive({ message, appended, groups }: Forwarded): void {
		const { routing } = this.#options;
		const served = groups.map((name) => routing.group(name)).filter((group) => group !== undefined);
		routing.deliverLive(message, routing.match(message.topic), served);
		if (appended.length > 0) routing.deliverAppended(message, appended);
	}

	readonly #reap = (): void => {
		this.#options.store.reapDead().catch((error) => {
			if (!isAway(error)) this.#options.log.error("Looking after dead replicas failed", { error });
		});
	};
}

function parseKick(notice: string): Kick | undefined {
	if (!notice.startsWith(KICK)) return undefined;
	const [kind = ""] = notice.slice(KICK.length).split(" ", 1);
	return { kind: kind === "user" ? "user" : "clientId", value: notice.slice(KICK.length + kind.length + 1) };
}
