/**
 * Publications that other replicas and the store have a word in: QoS 1 and 2, retained messages, wills. They keep their
 * order; each is matched after all routes are known that were acknowledged before it came (P3), and waits for as long as the
 * store is away (P11). Knows when, and asks `Spreading` who.
 */

import { randomBytes } from "node:crypto";
import { kept, type Message } from "../mqtt/message.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Router } from "../router/router.ts";
import type { Appended, PublishResult, SharedStore } from "../store/store.ts";
import { NotStored, notStored, type PublishContext } from "./routing.ts";
import type { Matching, Spreading } from "./spreading.ts";
import { isAway, untilBack } from "./until_back.ts";

/** Between two looks whether the store is back. */
const RETRY_MS = 100;
/** What a waiting publication takes besides its payload, roughly. */
const PER_MESSAGE_BYTES = 512;

interface Publication {
	readonly message: Message;
	readonly context: PublishContext | undefined;
	/** See `PublishRequest.name`. */
	readonly name: string | undefined;
	/** Who is to get it, once that is known. */
	matching: Matching | undefined;
	/** Whether the receivers here have got it. */
	delivered: boolean;
	/** Whether the store is at it. */
	storing: boolean;
	readonly resolve: (reasonCode: ReasonCode) => void;
	readonly reject: (error: unknown) => void;
}

/** Publications that came in one event-loop turn, and so share one question for the routes. */
interface Batch {
	readonly publications: Publication[];
	readonly asked: Promise<unknown>;
	ready: boolean;
}

export class OrderedPublishing {
	readonly #store: SharedStore;
	readonly #router: Router;
	readonly #spreading: Spreading;
	readonly #maxWaitingBytes: number;
	/** In the order in which they came, until each has its result. */
	readonly #open = new Set<Publication>();
	#waitingBytes = 0;
	#batches: Batch[] = [];
	#storing = 0;
	#retry: ReturnType<typeof setTimeout> | undefined;
	#stopped = false;
	#asked: { readonly store: Promise<void>; readonly router: Promise<void>; readonly both: Promise<unknown> } | undefined;
	readonly #nonce = randomBytes(9).toString("base64url");
	#count = 0;

	constructor(store: SharedStore, router: Router, spreading: Spreading, maxWaitingBytes: number) {
		this.#store = store;
		this.#router = router;
		this.#spreading = spreading;
		this.#maxWaitingBytes = maxWaitingBytes;
	}

	/** Whether publications wait for the store. */
	get away(): boolean {
		return this.#retry !== undefined;
	}

	/**
	 * Publishes when its turn has come. See `Publish`.
	 * @param matching Given for QoS 0: the receivers have got it already, and only the store has not.
	 */
	publish(message: Message, context: PublishContext | undefined, matching?: Matching): Promise<ReasonCode> {
		const bytes = message.payload.length + PER_MESSAGE_BYTES;
		if (this.#waitingBytes + bytes > this.#maxWaitingBytes) {
			return Promise.reject(new NotStored(ReasonCode.quotaExceeded, new Error("too many messages wait for the store")));
		}
		this.#waitingBytes += bytes;
		const { promise, resolve, reject } = Promise.withResolvers<ReasonCode>();
		const settled = (publication: Publication): void => {
			this.#open.delete(publication);
			this.#waitingBytes -= bytes;
		};
		const once = message.qos === 2 && context === undefined;
		const publication: Publication = {
			message: kept(message),
			context,
			name: once ? `${this.#nonce}:${++this.#count}` : undefined,
			matching,
			delivered: matching !== undefined,
			storing: false,
			resolve: (reasonCode) => {
				settled(publication);
				resolve(reasonCode);
			},
			reject: (error) => {
				settled(publication);
				reject(error);
			},
		};
		this.#open.add(publication);
		if (!this.away) this.#enqueue(publication);
		return promise;
	}

	/** Nothing is tried any more; what waits is never acknowledged. */
	stop(): void {
		this.#stopped = true;
		clearTimeout(this.#retry);
	}

	#enqueue(publication: Publication): void {
		const last = this.#batches.at(-1);
		const asked = this.#askForRoutes();
		if (last?.asked === asked) {
			last.publications.push(publication);
			return;
		}
		const batch: Batch = { publications: [publication], asked, ready: false };
		this.#batches.push(batch);
		asked.then(
			() => {
				batch.ready = true;
				while (this.#batches[0]?.ready) for (const next of this.#batches.shift()?.publications ?? []) this.#begin(next);
			},
			(error) => this.#failed(error),
		);
	}

	/** The same promise for all calls of one turn. */
	#askForRoutes(): Promise<unknown> {
		const store = this.#store.catchUp();
		const router = this.#router.catchUp();
		if (this.#asked?.store !== store || this.#asked.router !== router) {
			this.#asked = { store, router, both: Promise.all([store, router]) };
		}
		return this.#asked.both;
	}

	#begin(publication: Publication): void {
		if (this.away) return;
		const { message, context } = publication;
		publication.matching ??= this.#spreading.match(message);
		const { matching } = publication;
		const { logs, replicas } = matching;
		if (logs === undefined && replicas === undefined && !message.retain && context === undefined) {
			this.#deliverHere(publication);
			publication.resolve(matching.wanted ? ReasonCode.success : ReasonCode.noMatchingSubscribers);
			return;
		}
		publication.storing = true;
		this.#storing++;
		// A will may be found due by two replicas, and QoS 2 repeated on another one: handed out when it is known not to have been.
		const mayBeElsewhere = context !== undefined;
		const forward = (appended: readonly Appended[], token: string | undefined, revision: number | undefined): Promise<void> => {
			if (token !== undefined && !publication.delivered && !this.#router.claim(token)) publication.delivered = true;
			this.#deliverHere(publication);
			return this.#spreading.forward(revised(message, revision), matching, appended, token);
		};
		const stored = this.#store.publish({
			message,
			logs: logs ?? [],
			retain: message.retain,
			reserve: context?.reserve,
			willId: context?.willId,
			name: publication.name,
			forward: mayBeElsewhere || (replicas !== undefined && message.qos > 0) ? forward : undefined,
		});
		if (!mayBeElsewhere) this.#deliverHere(publication);
		stored.then(
			(result) => this.#stored(publication, matching, result),
			(error) => {
				publication.storing = false;
				this.#storing--;
				if (isAway(error)) this.#failed(error);
				else publication.reject(notStored(error));
			},
		);
	}

	#deliverHere(publication: Publication): void {
		if (publication.delivered) return;
		publication.delivered = true;
		this.#spreading.deliverHere(publication.message, publication.matching as Matching);
	}

	#stored(publication: Publication, matching: Matching, { appended, duplicate, revision }: PublishResult): void {
		publication.storing = false;
		this.#storing--;
		const { message } = publication;
		this.#spreading.appended(message, appended);
		const reasonCode = matching.wanted || appended.length > 0 ? ReasonCode.success : ReasonCode.noMatchingSubscribers;
		if (!message.retain || duplicate) {
			publication.resolve(reasonCode);
			return;
		}
		// Whoever subscribed elsewhere while the retained message was being written has read the one before it (P8).
		const again = () => this.#askForRoutes().then(() => this.#spreading.reachLateComers(revised(message, revision), matching));
		untilBack(again, () => !this.#stopped).then(
			() => publication.resolve(ReasonCode.success),
			(error) => publication.reject(notStored(error)),
		);
	}

	/** Nothing is begun until the store is back: what failed now must come before what came later. */
	#failed(error: unknown): void {
		if (!isAway(error)) {
			for (const publication of this.#open) if (!publication.storing) publication.reject(notStored(error));
			return;
		}
		this.#batches = [];
		if (this.#retry === undefined && !this.#stopped) this.#retry = setTimeout(this.#tryAgain, RETRY_MS);
	}

	readonly #tryAgain = (): void => {
		const wait = () => {
			if (!this.#stopped) this.#retry = setTimeout(this.#tryAgain, RETRY_MS);
		};
		// Those under way end soon, one way or the other.
		if (this.#storing > 0) {
			wait();
			return;
		}
		const asking = new Set(this.#open);
		this.#askForRoutes().then(() => {
			this.#retry = undefined;
			for (const publication of asking) if (this.#open.has(publication)) this.#begin(publication);
			// Routes may have come between the question and these.
			for (const publication of this.#open) if (!asking.has(publication)) this.#enqueue(publication);
		}, wait);
	};
}

function revised(message: Message, revision: number | undefined): Message {
	return revision === undefined ? message : { ...message, revision };
}
