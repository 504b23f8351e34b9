/** Topic aliases of one connection, each way. They die with the connection [MQTT-3.3.2-7]. */

import type { Topic } from "../mqtt/topic.ts";

/** Aliases that the client has set. */
export class InboundAliases {
	readonly #maximum: number;
	readonly #topics = new Map<number, Topic>();

	/** @param maximum Topic Alias Maximum that the CONNACK announced. */
	constructor(maximum: number) {
		this.#maximum = maximum;
	}

	/** Whether a client may use this alias at all [MQTT-3.3.2-8] [MQTT-3.3.2-12]. */
	allows(alias: number): boolean {
		return alias >= 1 && alias <= this.#maximum;
	}

	set(alias: number, topic: Topic): void {
		this.#topics.set(alias, topic);
	}

	get(alias: number): Topic | undefined {
		return this.#topics.get(alias);
	}
}

/** Aliases that the server sets: first come, first served, up to the client's maximum [MQTT-3.1.2-26] [MQTT-3.1.2-27]. */
export class OutboundAliases {
	readonly #maximum: number;
	readonly #aliases = new Map<string, number>();

	/** @param maximum Topic Alias Maximum of the CONNECT; at least 1, for a client without aliases needs none of this. */
	constructor(maximum: number) {
		this.#maximum = maximum;
	}

	/** Alias to send with a topic, 0 for none. `known` says that the client has it already, so that the name can stay away. */
	assign(topic: Topic): { readonly alias: number; readonly known: boolean } {
		const known = this.#aliases.get(topic.name);
		if (known !== undefined) return { alias: known, known: true };
		if (this.#aliases.size >= this.#maximum) return { alias: 0, known: false };
		const alias = this.#aliases.size + 1;
		this.#aliases.set(topic.name, alias);
		return { alias, known: false };
	}

	/** Undoes the latest `assign` of a new alias, when the packet was not sent after all. */
	forget(topic: Topic): void {
		this.#aliases.delete(topic.name);
	}
}
