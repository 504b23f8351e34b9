/** The order of commands within a slot while it moves, with nodes that answer when and as the test says. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Refusal } from "../../src/store/redis/slot_map.ts";
import { type SlotCommand, SlotQueues } from "../../src/store/redis/slot_queues.ts";

const SLOT = 7;
const MOVED: Refusal = { kind: "moved", master: "new" };
const ASK: Refusal = { kind: "ask", master: "new" };

/** Two nodes. A command is named by its place. */
class Nodes {
	master = "old";
	/** Those whose links are there. */
	reachable = ["old", "new"];
	/** What was sent, such as `1@old`, since the last look. */
	#sent: string[] = [];
	readonly givenUp: number[] = [];
	readonly #commands = new Map<number, SlotCommand>();
	readonly queues = new SlotQueues(
		(command) => {
			const node = command.askAt ?? this.master;
			if (!this.reachable.includes(node)) return undefined;
			this.#sent.push(`${command.place}@${node}`);
			return node;
		},
		({ place }) => this.givenUp.push(place),
	);

	add(place: number, since = performance.now()): void {
		const command: SlotCommand = {
			...{ label: "X", name: "X", args: [], slot: SLOT, place, since, askAt: undefined, notBefore: 0 },
			...{ resolve: () => {}, reject: () => {} },
		};
		this.#commands.set(place, command);
		this.queues.add(command);
	}

	/** As if two seconds had gone by. */
	age(place: number): void {
		(this.#commands.get(place) as SlotCommand).since -= 2000;
	}

	done(place: number): void {
		this.queues.over(this.#commands.get(place) as SlotCommand);
	}

	refuse(place: number, refusal: Refusal): boolean {
		if (refusal.kind === "moved") this.master = refusal.master;
		return this.queues.refused(this.#commands.get(place) as SlotCommand, refusal);
	}

	take(): string[] {
		return this.#sent.splice(0);
	}
}

/** Three commands are at the old node. */
function threeSent(): Nodes {
	const nodes = new Nodes();
	for (const place of [1, 2, 3]) nodes.add(place);
	assert.deepEqual(nodes.take(), ["1@old", "2@old", "3@old"]);
	return nodes;
}

test("SlotQueues: refused commands are sent again in their order when all are answered, and later ones behind them", () => {
	const nodes = threeSent();
	nodes.done(1);
	nodes.refuse(2, MOVED);
	nodes.add(4);
	assert.deepEqual(nodes.take(), [], "3 is still to be answered");
	nodes.refuse(3, MOVED);
	assert.deepEqual(nodes.take(), ["2@new", "3@new", "4@new"]);
	nodes.add(5);
	assert.deepEqual(nodes.take(), ["5@new"]);
	assert.equal(nodes.queues.holding, false);
});

test("SlotQueues: another slot is not held back", () => {
	const nodes = threeSent();
	nodes.refuse(1, MOVED);
	const other = { label: "X", name: "X", args: [], slot: SLOT + 1, place: 4, since: performance.now(), askAt: undefined, notBefore: 0 };
	nodes.queues.add({ ...other, resolve: () => {}, reject: () => {} });
	assert.deepEqual(nodes.take(), ["4@new"]);
});

test("SlotQueues: a refused command is given up when a later one was done, and not when an earlier one was", () => {
	const nodes = threeSent();
	nodes.refuse(2, ASK);
	nodes.done(1);
	assert.deepEqual(nodes.givenUp, []);
	nodes.done(3);
	assert.deepEqual(nodes.givenUp, [2]);
	assert.deepEqual(nodes.take(), []);
	assert.equal(nodes.queues.holding, false);
});

test("SlotQueues: what is asked at the new node comes first, and the rest goes to the master when that is answered", () => {
	const nodes = threeSent();
	nodes.refuse(1, ASK);
	nodes.refuse(2, ASK);
	nodes.add(4);
	nodes.refuse(3, ASK);
	assert.deepEqual(nodes.take(), ["1@new", "2@new", "3@new"]);
	nodes.done(1);
	nodes.add(5);
	nodes.done(2);
	assert.deepEqual(nodes.take(), []);
	nodes.done(3);
	assert.deepEqual(nodes.take(), ["4@old", "5@old"]);
});

test("SlotQueues: when a slot gets another master, new commands wait for those at the old one", () => {
	const nodes = threeSent();
	nodes.master = "new";
	nodes.queues.moved(SLOT);
	nodes.add(4);
	nodes.done(1);
	nodes.done(2);
	assert.deepEqual(nodes.take(), []);
	nodes.refuse(3, MOVED);
	assert.deepEqual(nodes.take(), ["3@new", "4@new"]);
});

test("SlotQueues: commands wait for a link to the new master, but not for ever", () => {
	const nodes = new Nodes();
	nodes.add(1, performance.now() - 60_000);
	nodes.add(2);
	nodes.take();
	nodes.reachable = ["old"];
	assert.equal(nodes.refuse(1, MOVED), true, "how long its answer took does not count");
	assert.equal(nodes.refuse(2, MOVED), true);
	nodes.queues.tend();
	assert.deepEqual([nodes.givenUp, nodes.take()], [[], []]);
	nodes.age(1);
	nodes.queues.tend();
	assert.deepEqual([nodes.givenUp, nodes.take()], [[1], []]);
	nodes.reachable = ["new"];
	nodes.queues.tend();
	assert.deepEqual(nodes.take(), ["2@new"]);
	nodes.add(3);
	assert.deepEqual(nodes.take(), ["3@new"]);
});

test("SlotQueues: a command that has been refused for too long is not tried again, and one without a link not at all", () => {
	const nodes = new Nodes();
	nodes.add(1);
	assert.equal(nodes.refuse(1, MOVED), true);
	nodes.age(1);
	assert.equal(nodes.refuse(1, MOVED), false);
	nodes.reachable = [];
	nodes.add(2);
	assert.deepEqual(nodes.givenUp, [2]);
});

test("SlotQueues: all that is held back is given up when asked", () => {
	const nodes = threeSent();
	nodes.refuse(1, MOVED);
	nodes.add(4);
	nodes.queues.clear();
	assert.deepEqual(nodes.givenUp, [1, 4]);
});
