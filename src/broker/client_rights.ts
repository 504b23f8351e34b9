/**
 * What one client may do, for as long as it is connected: asked for each publication and subscription, and judged again when
 * rules, tokens or bans have changed (P12). Decides nothing itself: the authorizer and the list of revocations do.
 */

import { type Authorizer, type Principal, permitted } from "../auth/auth.ts";
import { authorOf } from "../auth/identity.ts";
import { PublishRights } from "../auth/publish_rights.ts";
import { isTakenBack, type RevocationList } from "../auth/revocations.ts";
import type { Author, Message } from "../mqtt/message.ts";
import type { QoS, WillFields } from "../mqtt/packet.ts";
import { clientIdOf, type Tenancy } from "../mqtt/tenancy.ts";
import type { Topic } from "../mqtt/topic.ts";
import type { Subscription } from "../session/subscription.ts";
import type { SubscriptionOptions } from "../store/store.ts";

/** What a client has that takes rights. */
export interface Held {
	readonly subscriptions: Iterable<Subscription>;
	readonly will: WillFields | undefined;
}

/** What is left of a client's rights: it goes on, it has lost some, or all of them and its will with them. */
export type Judgement = "unchanged" | "reduced" | "revoked";

/** Topics, filters and client ids are judged by the names that the client has for them, whatever tenant it is of. */
export class ClientRights {
	/** Where the things are that the client names; `undefined` for a client of no tenant. */
	readonly tenancy: Tenancy | undefined;
	readonly #authorizer: Authorizer;
	readonly #revocations: RevocationList | undefined;
	#principal: Principal;
	#clientId: string;
	#publish: PublishRights | undefined;
	#author: Author | undefined;

	/** @param clientId The client's own name for itself. */
	constructor(authorizer: Authorizer, revocations: RevocationList | undefined, principal: Principal, clientId: string, tenancy?: Tenancy) {
		this.#authorizer = authorizer;
		this.#revocations = revocations;
		this.#principal = principal;
		this.#clientId = clientId;
		this.tenancy = tenancy;
	}

	get principal(): Principal {
		return this.#principal;
	}

	/** What is remembered of the client with what it leaves behind. */
	get author(): Author | undefined {
		this.#author ??= authorOf(this.#principal);
		return this.#author;
	}

	/** The client is somebody else, or the same with other rights. */
	change(principal: Principal, clientId: string): void {
		this.#principal = principal;
		this.#author = undefined;
		this.#clientId = clientId;
		this.#publish?.reset(principal, clientId);
	}

	/** Whether it may publish this, by its own name for the topic. The promise of an answer never rejects. */
	mayPublish(topic: Topic, qos: QoS, retain: boolean): boolean | Promise<boolean> {
		if (this.#authorizer.permitsAll === true) return true;
		this.#publish ??= new PublishRights(this.#authorizer, this.#principal, this.#clientId);
		return this.#publish.decide(topic, qos, retain);
	}

	/** Whether a retained message may be given to it: the rights of its publisher may have been taken back. Never rejects. */
	mayBeGiven(message: Message): boolean | Promise<boolean> {
		const takenBack = isTakenBack(this.#revocations, message);
		if (typeof takenBack === "boolean") return !takenBack;
		return takenBack.then(
			(yes) => !yes,
			() => false,
		);
	}

	/** Whether it may subscribe to this filter of the broker, given without `$share/…/`. The promise of an answer never rejects. */
	maySubscribe(filter: string, qos: QoS): boolean | Promise<boolean> {
		if (this.#authorizer.permitsAll === true) return true;
		const seen = this.tenancy === undefined ? filter : this.tenancy.seen(filter);
		if (seen === undefined) return false;
		const ask = () => permitted(this.#authorizer, this.#principal, this.#clientId, { action: "subscribe", filter: seen, qos });
		const decision = ask();
		return typeof decision === "boolean" ? decision : this.#byRulesInForce(decision, ask);
	}

	/** Of the subscriptions of an earlier connection, those that it may still have. The same list, at once, when nobody needs to be asked. */
	stillPermitted<Options extends SubscriptionOptions>(stored: readonly Options[]): readonly Options[] | Promise<readonly Options[]> {
		if (this.#authorizer.permitsAll === true || stored.length === 0) return stored;
		const ask = async () => {
			const decisions = await Promise.all(stored.map(({ filter, qos }) => this.maySubscribe(withoutShare(filter), qos)));
			return stored.filter((_one, n) => decisions[n]);
		};
		return this.#byRulesInForce(ask(), ask);
	}

	/** An answer that took its time counts only while the rules are those that it was given by. */
	async #byRulesInForce<Answer>(first: Promise<Answer>, ask: () => Answer | Promise<Answer>): Promise<Answer> {
		let { generation } = this.#authorizer;
		let answer = await first;
		while (this.#authorizer.generation !== generation) {
			({ generation } = this.#authorizer);
			answer = await ask();
		}
		return answer;
	}

	/** Judges again what the client has. */
	async judge({ subscriptions, will }: Held): Promise<Judgement> {
		try {
			if ((await this.#revocations?.isRevoked(this.#principal, clientIdOf(this.#principal.tenant, this.#clientId))) === true)
				return "revoked";
		} catch {
			return "revoked";
		}
		if (will !== undefined && !(await this.mayPublish(will.topic, will.qos, will.retain))) return "revoked";
		for (const { matchFilter, options } of [...subscriptions]) {
			if (!(await this.maySubscribe(matchFilter, options.qos))) return "reduced";
		}
		return "unchanged";
	}
}

function withoutShare(filter: string): string {
	return filter.startsWith("$share/") ? filter.slice(filter.indexOf("/", "$share/".length) + 1) : filter;
}
