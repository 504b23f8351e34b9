/**
 * The order of commands within each slot of a cluster, also while the slot moves. Knows which commands are under way, and holds
 * the others back when they could overtake; where nodes are and how they are reached is told by whoever asks.
 *
 * A node that refuses a command has not done it, so it is sent again, to the right node, when all that was under way in its
 * slot is answered, in front of later ones. When a later one was done in spite of that, or may have been, the refused one
 * is rejected: its turn is over.
 */

import type { Argument } from "./link.ts";
import type { Refusal } from "./slot_map.ts";
import { SLOTS } from "./slots.ts";

export interface SlotCommand {
	readonly label: string;
	readonly name: string;
	readonly args: readonly Argument[];
	readonly slot: number;
	/** Place in the order of calls. */
	readonly place: number;
	/** When it was called or, of one that was sent, first refused: by `performance.now()`. */
	since: number;
	/** Where it is to be sent this once, if not to the master of its slot. */
	askAt: string | undefined;
	/** Not sent again before this time. */
	notBefore: number;
	readonly resolve: (reply: unknown) => void;
	readonly reject: (error: Error) => void;
}

/** Sends it, if its node is there; tells which one it was. */
export type Dispatch = (command: SlotCommand) => string | undefined;

/** How long a command is held back in all. */
const HOLD_MS = 2000;
const TRY_AGAIN_MS = 50;

export class SlotQueues {
	readonly #dispatch: Dispatch;
	readonly #giveUp: (command: SlotCommand) => void;
	readonly #underWay = new Uint32Array(SLOTS);
	/** Commands held back, in the order of calls. A slot without an entry holds nothing back. */
	readonly #held = new Map<number, SlotCommand[]>();

	/** @param giveUp Rejects a command that is not sent again. */
	constructor(dispatch: Dispatch, giveUp: (command: SlotCommand) => void) {
		this.#dispatch = dispatch;
		this.#giveUp = giveUp;
	}

	/** Whether any slot holds commands back. */
	get holding(): boolean {
		return this.#held.size > 0;
	}

	/** Sends a new command, or holds it back behind others of its slot. */
	add(command: SlotCommand): void {
		const held = this.#held.get(command.slot);
		if (held !== undefined) held.push(command);
		else if (this.#dispatch(command) === undefined) this.#giveUp(command);
		else this.#count(command.slot, 1);
	}

	/** The master of a slot is another one from now on. What is under way at the old one is waited for. */
	moved(slot: number): void {
		if (this.#underWay[slot] !== 0 && !this.#held.has(slot)) this.#held.set(slot, []);
	}

	/** A command was done, or it is unknown whether it was. To be called before that is told. */
	over({ slot, place }: SlotCommand): void {
		this.#count(slot, -1);
		const held = this.#held.get(slot);
		if (held === undefined) return;
		const later = held.findIndex((other) => other.place > place);
		for (const missed of held.splice(0, later < 0 ? held.length : later)) this.#giveUp(missed);
		this.#release(slot, held);
	}

	/** A command was refused. False when it has been tried for too long: the caller rejects it. */
	refused(command: SlotCommand, refusal: Refusal): boolean {
		const { slot, place } = command;
		const now = performance.now();
		// Not the time before: a blocking read may have waited long for what it asked.
		if (command.notBefore === 0) command.since = now;
		if (now - command.since >= HOLD_MS) return false;
		this.#count(slot, -1);
		command.askAt = refusal.kind === "ask" ? refusal.master : undefined;
		// One that was sent again has already waited once: two nodes that name each other must not keep it spinning.
		command.notBefore = refusal.kind === "tryAgain" || command.notBefore > 0 ? now + TRY_AGAIN_MS : 1;
		const held = this.#held.get(slot) ?? [];
		this.#held.set(slot, held);
		const later = held.findIndex((other) => other.place > place);
		held.splice(later < 0 ? held.length : later, 0, command);
		this.#release(slot, held);
		return true;
	}

	/** Sends what can be sent by now, and gives up what was held back for too long. To be called often while `holding`. */
	tend(): void {
		const oldest = performance.now() - HOLD_MS;
		for (const [slot, held] of [...this.#held]) {
			while (held[0] !== undefined && held[0].since < oldest) this.#giveUp(held.shift() as SlotCommand);
			this.#release(slot, held);
		}
	}

	/** Gives up all that is held back. */
	clear(): void {
		for (const held of this.#held.values()) for (const command of held.splice(0)) this.#giveUp(command);
	}

	#count(slot: number, change: 1 | -1): void {
		this.#underWay[slot] = (this.#underWay[slot] as number) + change;
	}

	#release(slot: number, held: SlotCommand[]): void {
		if (this.#underWay[slot] !== 0) return;
		let node: string | undefined;
		let asked = false;
		const now = performance.now();
		while (held[0] !== undefined && held[0].notBefore <= now) {
			const [next] = held as [SlotCommand];
			// Those behind go elsewhere, and would overtake.
			if (node !== undefined && (next.askAt !== undefined) !== asked) return;
			asked = next.askAt !== undefined;
			if (asked && node !== undefined && next.askAt !== node) return;
			const sentTo = this.#dispatch(next);
			if (sentTo === undefined) return;
			node = sentTo;
			this.#count(slot, 1);
			held.shift();
		}
		if (held.length === 0 && !asked) this.#held.delete(slot);
	}
}
