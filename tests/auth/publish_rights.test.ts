import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { allowEverything } from "../../src/auth/anonymous.ts";
import { type Access, type Authorizer, NOBODY } from "../../src/auth/auth.ts";
import { PublishRights } from "../../src/auth/publish_rights.ts";
import { Topic } from "../../src/mqtt/topic.ts";

/** Allows what does not begin with "no", and writes down what it was asked. */
class Recording implements Authorizer {
	readonly asked: string[] = [];
	generation = 0;
	volatile = false;
	allowed = (topic: string): boolean => !topic.startsWith("no");

	permits(_principal: unknown, clientId: string, access: Access): boolean {
		assert.equal(access.action, "publish");
		if (access.action !== "publish") return false;
		this.asked.push(`${clientId} ${access.topic} ${access.qos} ${access.retain}`);
		return this.allowed(access.topic);
	}
}

const yes = Topic.of("yes");
const no = Topic.of("no");

describe("PublishRights", () => {
	it("an answer is asked for once for each topic, QoS and RETAIN", () => {
		const authorizer = new Recording();
		const rights = new PublishRights(authorizer, NOBODY, "c");
		for (let round = 0; round < 3; round++) {
			for (const topic of [yes, no]) {
				for (const qos of [0, 1, 2] as const) {
					for (const retain of [false, true]) assert.equal(rights.decide(topic, qos, retain), topic === yes);
				}
			}
		}
		assert.equal(new Set(authorizer.asked).size, 12);
		assert.equal(authorizer.asked.length, 12);
	});

	it("answers of one topic may differ by QoS and RETAIN", () => {
		const only: Authorizer = {
			permits: (_principal, _clientId, access) => access.qos === 1 && access.action === "publish" && access.retain,
		};
		const rights = new PublishRights(only, NOBODY, "c");
		for (let round = 0; round < 2; round++) {
			for (const qos of [0, 1, 2] as const) {
				for (const retain of [false, true]) assert.equal(rights.decide(yes, qos, retain), qos === 1 && retain);
			}
		}
	});

	it("a topic is known by its name, whichever object it is", () => {
		const authorizer = new Recording();
		const rights = new PublishRights(authorizer, NOBODY, "c");
		void rights.decide(yes, 0, false);
		void rights.decide(no, 0, false);
		assert.equal(rights.decide(Topic.of("yes"), 0, false), true);
		assert.equal(rights.decide(Topic.of("no"), 0, false), false);
		assert.equal(authorizer.asked.length, 2);
	});

	it("a new generation of rules makes it forget everything", () => {
		const authorizer = new Recording();
		const rights = new PublishRights(authorizer, NOBODY, "c");
		assert.equal(rights.decide(yes, 0, false), true);
		authorizer.allowed = () => false;
		assert.equal(rights.decide(yes, 0, false), true);
		authorizer.generation++;
		assert.equal(rights.decide(yes, 0, false), false);
		assert.equal(rights.decide(yes, 0, false), false);
		assert.equal(authorizer.asked.length, 2);
	});

	it("after another authentication it asks for the new principal and client id", () => {
		const authorizer = new Recording();
		const rights = new PublishRights(authorizer, NOBODY, "c");
		void rights.decide(yes, 0, false);
		rights.reset({ ...NOBODY, name: "ann" }, "d");
		void rights.decide(yes, 0, false);
		assert.deepEqual(authorizer.asked, ["c yes 0 false", "d yes 0 false"]);
	});

	it("no more topics are remembered than the capacity: the oldest goes", () => {
		const authorizer = new Recording();
		const rights = new PublishRights(authorizer, NOBODY, "c", 2);
		for (const name of ["a", "b", "c", "b", "a"]) void rights.decide(Topic.of(name), 0, false);
		assert.deepEqual(
			authorizer.asked.map((each) => each.split(" ")[1]),
			["a", "b", "c", "a"],
		);
	});

	it("another kind of publication to a topic that is known takes no other topic's place", () => {
		const authorizer = new Recording();
		const rights = new PublishRights(authorizer, NOBODY, "c", 2);
		void rights.decide(yes, 0, false);
		for (const qos of [0, 1, 2] as const) void rights.decide(no, qos, false);
		void rights.decide(yes, 0, false);
		assert.equal(authorizer.asked.length, 4);
	});

	it("nobody is asked where everything is permitted", () => {
		const authorizer: Authorizer = { permitsAll: true, permits: () => assert.fail("it was asked") };
		assert.equal(new PublishRights(authorizer, NOBODY, "c").decide(yes, 2, true), true);
		assert.equal(new PublishRights(allowEverything, NOBODY, "c").decide(yes, 2, true), true);
	});

	it("answers of an authorizer whose decisions may change by themselves are not remembered", () => {
		const authorizer = new Recording();
		authorizer.volatile = true;
		const rights = new PublishRights(authorizer, NOBODY, "c");
		for (let round = 0; round < 3; round++) void rights.decide(yes, 0, false);
		assert.equal(authorizer.asked.length, 3);
	});

	it("an answer that comes later is not remembered, and one that fails is no", async () => {
		let asked = 0;
		const later: Authorizer = { permits: () => (++asked === 1 ? Promise.resolve(true) : Promise.reject(new Error("away"))) };
		const rights = new PublishRights(later, NOBODY, "c");
		assert.equal(await rights.decide(yes, 0, false), true);
		assert.equal(await rights.decide(yes, 0, false), false);
		const throwing: Authorizer = {
			permits: () => {
				throw new Error("broken");
			},
		};
		assert.equal(new PublishRights(throwing, NOBODY, "c").decide(yes, 0, false), false);
	});
});
