/**
 * A connection to Redis that is always being kept up: commands in order, all of one event-loop turn in one write, errors as
 * `StoreError`s. Says what its users may rely on; how that is done for one server and for a cluster stands in the files beside.
 * Knows nothing of what is stored.
 *
 * A command is never sent twice: when the connection goes, or answers nothing for a while, all that is under way is rejected
 * as `away` though it may have been done, and the caller repeats it or not. Of a cluster, commands to one slot keep their order.
 */

import { ClusterConnection } from "./cluster_connection.ts";
import type { Argument } from "./link.ts";
import type { Script } from "./scripts.ts";
import { SingleConnection } from "./single_connection.ts";
import { parseTarget, type RedisTarget } from "./target.ts";
import type { Wire, WireOptions } from "./wire.ts";

export type { Argument } from "./link.ts";
export type { RedisTarget } from "./target.ts";

export interface ConnectionOptions extends WireOptions {
	readonly target: RedisTarget;
}

export class Connection {
	readonly #wire: Wire;

	/** Begins to connect. Throws `StoreError` `unavailable` for a target that is no address. */
	constructor(options: ConnectionOptions) {
		const target = parseTarget(options.target);
		this.#wire =
			target.kind === "cluster"
				? new ClusterConnection(target.nodes, target.options, options)
				: new SingleConnection(target.options, options);
	}

	/** Whether commands can be sent; of a cluster, to all slots. */
	get ready(): boolean {
		return this.#wire.ready;
	}

	/** Number of the write that the next command leaves with: those of one turn share one, unless they are very many. */
	get batch(): number {
		return this.#wire.batch;
	}

	/** Why there is no connection, as far as that is known. */
	get lastError(): Error | undefined {
		return this.#wire.lastError;
	}

	/** Sends a command. Replies are buffers, numbers, null and arrays of these. */
	send(name: string, args: readonly Argument[]): Promise<unknown> {
		return this.#wire.send(name, name, args);
	}

	/** Sends a command without keys to the server, or to every master of a cluster. One reply for each. */
	sendToAll(name: string, args: readonly Argument[]): Promise<readonly unknown[]> {
		return this.#wire.sendToAll(name, args);
	}

	/** Runs a script. */
	run(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<unknown> {
		return this.#wire.send(script.name, "EVALSHA", [script.digest, keys.length, ...keys, ...args]);
	}

	/**
	 * Resolves when one replica of each server has all that was sent to it before, and rejects with `away` when that takes too
	 * long or cannot be known any more. One command per turn and server.
	 */
	confirm(): Promise<void> {
		return this.#wire.confirm();
	}

	/** Gives the connection up; another is made, with the next address if there are several. */
	drop(reason: string): void {
		this.#wire.drop(reason);
	}

	/** Ends it for good. What is under way is rejected. */
	close(): void {
		this.#wire.close();
	}
}
