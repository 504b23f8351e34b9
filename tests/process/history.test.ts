/** The judge of histories is judged: it passes what is right and finds each kind of wrong. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type HistoryEvent, judge, type Verdict } from "../support/history.ts";

const message = (seq: number, qos: number) => ({ client: "p", seq, topic: "load/p", qos, payload: `p ${seq}` });
const published = (seq: number, qos: number, dup = false): HistoryEvent => ({ kind: "published", dup, ...message(seq, qos) });
const acknowledged = (seq: number): HistoryEvent => ({ kind: "acknowledged", client: "p", seq });
const delivered = (seq: number, qos: number, subscriber = "s", connection = 1): HistoryEvent => ({
	kind: "delivered",
	subscriber,
	connection,
	...message(seq, qos),
});
const connected = (client: string, sessionPresent: boolean): HistoryEvent => ({ kind: "connected", client, sessionPresent });
const closed = (client: string, connection: number): HistoryEvent => ({ kind: "closed", client, connection });
const subscribed = (client: string, qos = 2, filter = "load/#"): HistoryEvent => ({ kind: "subscribed", client, filter, qos });

function verdictOf(...events: HistoryEvent[]): Verdict {
	return judge([connected("s", false), subscribed("s"), ...events]);
}

/** The run is faulted with this sentence alone. */
function assertFaulted(sentence: RegExp, ...events: HistoryEvent[]): void {
	const { violations } = verdictOf(...events);
	assert.equal(violations.length, 1, violations.join("\n"));
	assert.match(violations[0] ?? "", sentence);
}

describe("history", () => {
	it("a run in which everything comes once and in order is good", () => {
		const events = [1, 2, 3].flatMap((seq) => [published(seq, 2), acknowledged(seq), delivered(seq, 2)]);
		const expected = { acknowledged: 3, delivered: 3, repeated: 0, lost: 0, faults: 1, violations: [] };
		assert.deepEqual(verdictOf(...events, { kind: "fault", what: "kill" }), expected);
	});

	it("a publication without acknowledgement may be missing", () => {
		assert.deepEqual(verdictOf(published(1, 1)).violations, []);
	});

	it("between SUBSCRIBE and SUBACK a message may come or be missing", () => {
		const start: HistoryEvent[] = [{ kind: "subscribing", client: "t", filter: "load/#", qos: 1 }, published(1, 1), acknowledged(1)];
		assert.deepEqual(judge([...start, subscribed("t", 1)]).violations, []);
		assert.deepEqual(judge([...start, delivered(1, 1, "t"), subscribed("t", 1)]).violations, []);
		assert.match(judge([published(1, 1), delivered(1, 1, "t")]).violations.join(), /t got p:1 before it subscribed/);
	});

	it("a publication from before the SUBACK may be missing, one after it not", () => {
		const events = [published(1, 1), acknowledged(1), connected("t", false), subscribed("t"), published(2, 1), acknowledged(2)];
		const { lost, violations } = verdictOf(...events, delivered(1, 1), delivered(2, 1));
		assert.equal(lost, 1);
		assert.match(violations.join(), /^t never got p:2, as all others of that publisher$/);
	});

	it("a loss is found and said to be at the beginning, in the middle or at the end", () => {
		for (const [gone, place] of [
			[1, /^s never got p:1, which is before all/],
			[2, /^s never got p:2, which is in the middle/],
			[3, /^s never got p:3, which is after all/],
		] as const) {
			const events = [1, 2, 3].flatMap((seq) => [published(seq, 1), acknowledged(seq), ...(seq === gone ? [] : [delivered(seq, 1)])]);
			assertFaulted(place, ...events);
		}
	});

	it("a message that does not match the filter is not owed", () => {
		const { violations } = judge([subscribed("s", 1, "load/+/x"), published(1, 1), acknowledged(1)]);
		assert.deepEqual(violations, []);
	});

	it("a delivery that nobody sent is found", () => {
		assertFaulted(/s got p:1, which nobody sent/, delivered(1, 1));
	});

	it("a delivery with another topic or payload is found", () => {
		assertFaulted(/s got p:1 altered/, published(1, 1), { ...delivered(1, 1), topic: "load/q" } as HistoryEvent);
		assertFaulted(/s got p:1 altered/, published(1, 1), { ...delivered(1, 1), payload: "p 2" } as HistoryEvent);
	});

	it("a delivery with another QoS than the lesser of both is found", () => {
		assertFaulted(/s got p:1 with QoS 1 instead of 2/, published(1, 2), delivered(1, 1));
	});

	it("QoS 2 twice is found, on another connection as well", () => {
		assertFaulted(/twice with QoS 2/, published(1, 2), delivered(1, 2), delivered(1, 2));
		assertFaulted(/twice with QoS 2/, published(1, 2), delivered(1, 2), closed("s", 1), delivered(1, 2, "s", 2));
	});

	it("QoS 1 twice is allowed after the connection of the first has ended, or when the publisher sent it twice", () => {
		assert.equal(verdictOf(published(1, 1), delivered(1, 1), closed("s", 1), delivered(1, 1, "s", 2)).violations.length, 0);
		const { repeated, violations } = verdictOf(published(1, 1), published(1, 1, true), delivered(1, 1), delivered(1, 1));
		assert.deepEqual(violations, []);
		assert.equal(repeated, 1);
	});

	it("QoS 1 twice without a reason is found", () => {
		assertFaulted(/s got p:1 twice without need/, published(1, 1), delivered(1, 1), delivered(1, 1));
	});

	it("a QoS 2 publication repeated by its publisher is no reason for two deliveries with QoS 1", () => {
		const { violations } = judge([subscribed("s", 1), published(1, 2), published(1, 2, true), delivered(1, 1), delivered(1, 1)]);
		assert.match(violations.join(), /^s got p:1 twice without need/);
	});

	it("first deliveries out of order are found, repetitions out of order are not", () => {
		assertFaulted(/s got p:1 first after p:2/, published(1, 1), published(2, 1), delivered(2, 1), delivered(1, 1));
		const again = [published(1, 1), published(2, 1), delivered(1, 1), delivered(2, 1), closed("s", 1), delivered(1, 1, "s", 2)];
		assert.deepEqual(verdictOf(...again).violations, []);
	});

	it("two levels of QoS have no order between them", () => {
		assert.deepEqual(verdictOf(published(1, 1), published(2, 2), delivered(2, 2), delivered(1, 1)).violations, []);
	});

	it("a share group as a whole gets each message, in no order", () => {
		const group = ["a", "b"].map((client) => subscribed(client, 2, "$share/g/load/#"));
		const sent = [1, 2].flatMap((seq) => [published(seq, 2), acknowledged(seq)]);
		assert.deepEqual(judge([...group, ...sent, delivered(2, 2, "a"), delivered(1, 2, "b")]).violations, []);
		const { violations } = judge([...group, ...sent, delivered(2, 2, "a"), delivered(2, 2, "b")]);
		assert.equal(violations.length, 2);
		assert.match(violations.join(), /\$share\/g\/load\/# got p:2 twice with QoS 2/);
		assert.match(violations.join(), /\$share\/g\/load\/# never got p:1/);
	});

	it("a second member of a share group gets a QoS 1 message only after the first has gone", () => {
		const group = ["a", "b"].map((client) => subscribed(client, 1, "$share/g/load/#"));
		const start = [...group, published(1, 1), delivered(1, 1, "a")];
		assert.match(judge([...start, delivered(1, 1, "b")]).violations.join(), /twice without need/);
		assert.deepEqual(judge([...start, closed("a", 1), delivered(1, 1, "b")]).violations, []);
	});

	it("the first may learn of its end after that, if nothing more comes to it", () => {
		const group = ["a", "b"].map((client) => subscribed(client, 1, "$share/g/load/#"));
		const both = [...group, published(1, 1), published(2, 1), delivered(1, 1, "a"), delivered(1, 1, "b")];
		const { violations, repeated } = judge([...both, closed("a", 1)]);
		assert.deepEqual([violations, repeated], [[], 1]);
		assert.match(judge([...both, delivered(2, 1, "a"), closed("a", 1)]).violations.join(), /p:1 twice without need/);
	});

	it("a session that is not present when its client comes back is found", () => {
		assertFaulted(/the session of s is gone/, connected("s", false));
		assert.deepEqual(verdictOf(connected("s", true)).violations, []);
	});

	it("an acknowledgement of what was never sent, and whatever a client complains of, is found", () => {
		assertFaulted(/p:9 was acknowledged and never sent/, acknowledged(9));
		assertFaulted(/s: packet id 5 was reused/, { kind: "broken", client: "s", rule: "packet id 5 was reused" });
	});
});
