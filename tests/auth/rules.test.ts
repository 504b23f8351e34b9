// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Rule } from "../../src/auth/grants.ts";
import { RuleSet, type Subject } from "../../src/auth/rules.ts";
import { matches } from "../../src/mqtt/topic.ts";
import { randomNumbers } from "../mqtt/random.ts";

const device: Subject = { clientId: "d1", username: "ann", tenant: "acme", claims: { site: "oslo" }, method: "jwt" };
const allow = (action: Rule["action"], ...topics: string[]): Rule => ({ permission: "allow", action, topics });
const deny = (action: Rule["action"], ...topics: string[]): Rule => ({ permission: "deny", action, topics });
const publish = (rules: Rule[], topic: string, subject = device) => new RuleSet(rules).bind(subject).publish(topic, 0, false);
const subscribe = (rules: Rule[], filter: string, subject = device) => new RuleSet(rules).bind(subject).subscribe(filter, 0);

describe("rules: order", () => {
	it("the first rule that matches decides, whichever it is", () => {
		const rules = [allow("all", "a/b"), deny("all", "a/#"), allow("all", "#")];
		assert.equal(publish(rules, "a/b"), "allow");
		assert.equal(publish(rules, "a/c"), "deny");
		assert.equal(publish(rules, "x"), "allow");
		assert.equal(publish([...rules].reverse(), "a/c"), "allow");
	});

	it("without a rule that matches there is no verdict", () => {
		assert.equal(publish([allow("all", "a/#")], "b"), undefined);
		assert.equal(publish([], "b"), undefined);
		assert.equal(subscribe([allow("all", "a/#")], "b"), undefined);
	});

	it("a rule is for its action only, or for both", () => {
		assert.equal(publish([allow("subscribe", "a")], "a"), undefined);
		assert.equal(subscribe([allow("publish", "a")], "a"), undefined);
		assert.equal(publish([allow("all", "a")], "a"), "allow");
		assert.equal(subscribe([allow("all", "a")], "a"), "allow");
	});

	it("each of the topics of a rule counts", () => {
		const rules = [allow("publish", "a", "b/+")];
		assert.equal(publish(rules, "a"), "allow");
		assert.equal(publish(rules, "b/x"), "allow");
		assert.equal(publish(rules, "c"), undefined);
	});
});

describe("rules: subscriptions", () => {
	it("a filter wider than the grant is not covered", () => {
		const rules = [allow("subscribe", "a/+")];
		for (const filter of ["#", "+/+", "+/x", "a/#", "a"]) assert.equal(subscribe(rules, filter), undefined, filter);
		assert.equal(subscribe(rules, "a/x"), "allow");
		assert.equal(subscribe(rules, "a/+"), "allow");
	});

	it("a filter that touches what an earlier rule denies is denied, though a later one covers it", () => {
		const rules = [deny("subscribe", "a/secret/#"), allow("subscribe", "a/#")];
		for (const filter of ["a/#", "a/+/x", "a/secret", "a/+"]) assert.equal(subscribe(rules, filter), "deny", filter);
		assert.equal(subscribe(rules, "a/open/#"), "allow");
	});

	it("a denial behind the rule that covers the filter does not count", () => {
		assert.equal(subscribe([allow("subscribe", "a/#"), deny("subscribe", "a/secret/#")], "a/#"), "allow");
	});

	it("# grants nothing that begins with $ [MQTT-4.7.2-1]", () => {
		assert.equal(subscribe([allow("all", "#")], "$SYS/#"), undefined);
		assert.equal(subscribe([allow("all", "+/broker")], "$SYS/broker"), undefined);
		assert.equal(subscribe([allow("all", "$SYS/#")], "$SYS/broker/+"), "allow");
	});
});

describe("rules: subscriptions and publications agree", () => {
	it("whatever a granted filter matches, the same rules grant by itself: 20,000 random lists", () => {
		const random = randomNumbers(6);
		const levels = ["", "a", "b", "$s", "+"];
		const filterOf = (): string => {
			const parts = random.list(1 + random.below(3), levels);
			if (random.below(3) === 0) parts.push("#");
			const filter = parts.join("/");
			return filter === "" ? "#" : filter;
		};
		const names = ["", "a", "b", "c", "$s"];
		const topics = names.flatMap((x) => [x, ...names.flatMap((y) => [`${x}/${y}`, ...names.map((z) => `${x}/${y}/${z}`)])]);
		let granted = 0;
		for (let round = 0; round < 20_000; round++) {
			const rules = Array.from({ length: 1 + random.below(5) }, () => random.pick([allow, deny])("all", filterOf()));
			const bound = new RuleSet(rules).bind(device);
			const filter = filterOf();
			if (bound.subscribe(filter, 0) !== "allow") continue;
			granted++;
			for (const topic of topics) {
				if (topic === "" || !matches(filter, topic)) continue;
				assert.equal(bound.publish(topic, 0, false), "allow", `${filter} was granted, ${topic} is not: ${JSON.stringify(rules)}`);
			}
		}
		assert.ok(granted > 500, `${granted} filters were granted`);
	});
});

describe("rules: literal topics", () => {
	it("eq matches the very filter, and neither what it covers nor its placeholders", () => {
		const rules = [allow("all", "eq a/#"), allow("all", "eq b/${clientid}")];
		assert.equal(subscribe(rules, "a/#"), "allow");
		assert.equal(subscribe(rules, "a/b"), undefined);
		assert.equal(publish(rules, "a/b"), undefined);
		assert.equal(publish(rules, "b/${clientid}"), "allow");
		assert.equal(publish(rules, "b/d1"), undefined);
	});

	it("eq denies the very filter", () => {
		const rules = [deny("subscribe", "eq #"), allow("subscribe", "#")];
		assert.equal(subscribe(rules, "#"), "deny");
		assert.equal(subscribe(rules, "a/#"), "allow");
	});
});

describe("rules: QoS and RETAIN", () => {
	it("a rule with QoS matches these only, in both actions", () => {
		const bound = new RuleSet([{ ...allow("all", "a"), qos: [0, 2] }]).bind(device);
		for (const [qos, verdict] of [[0, "allow"] as const, [1, undefined] as const, [2, "allow"] as const]) {
			assert.equal(bound.publish("a", qos, false), verdict);
			assert.equal(bound.subscribe("a", qos), verdict);
		}
	});

	it("a rule with retain is for publications of that kind, and says nothing of subscriptions", () => {
		const only = new RuleSet([{ ...deny("all", "a"), retain: true }, allow("all", "a")]).bind(device);
		assert.equal(only.publish("a", 0, true), "deny");
		assert.equal(only.publish("a", 0, false), "allow");
		assert.equal(only.subscribe("a", 0), "deny");
		const never = new RuleSet([{ ...allow("publish", "a"), retain: false }]).bind(device);
		assert.equal(never.publish("a", 0, true), undefined);
		assert.equal(never.publish("a", 0, false), "allow");
	});
});

describe("rules: conditions", () => {
	it("every condition must hold, exactly or by the beginning before a final *", () => {
		const rule: Rule = { ...allow("publish", "a"), users: ["bob", "an*"], clientIds: ["d*"], tenants: ["acme"], methods: ["jwt"] };
		assert.equal(publish([rule], "a"), "allow");
		for (const other of [{ username: "bo" }, { clientId: "e1" }, { tenant: "acm" }, { method: "password" }]) {
			assert.equal(publish([rule], "a", { ...device, ...other }), undefined, JSON.stringify(other));
		}
	});

	it("a condition about what a client does not have does not hold", () => {
		const nobody: Subject = { clientId: "d1", username: undefined, tenant: undefined, claims: undefined, method: "anonymous" };
		assert.equal(publish([{ ...allow("publish", "a"), users: ["*"] }], "a", nobody), undefined);
		assert.equal(publish([{ ...allow("publish", "a"), tenants: ["*"] }], "a", nobody), undefined);
	});
});

describe("rules: placeholders", () => {
	it("each placeholder stands for the client's own value, also inside a level", () => {
		const rules = [allow("all", "${tenant}/${username}/x-${clientid}/${claims.site}/#")];
		assert.equal(subscribe(rules, "acme/ann/x-d1/oslo/#"), "allow");
		assert.equal(subscribe(rules, "acme/ann/x-d2/oslo/#"), undefined);
		assert.equal(publish(rules, "acme/ann/x-d1/oslo/t"), "allow");
		assert.equal(publish(rules, "acme/ann/x-d1/rome/t"), undefined);
	});

	for (const value of ["+", "#", "a/b", "a+", "#a", "a\0b", "\ud800"]) {
		it(`the client id ${JSON.stringify(value)} grants nothing by an allowing rule, is denied everything by a denying one, and is not admitted`, () => {
			const subject = { ...device, clientId: value };
			const allowing = [allow("all", "t/${clientid}/#")];
			for (const filter of ["t/#", "t/+/#", `t/${value}/#`, "t/a/b", "t/a/x", "t/d2/x"]) {
				assert.equal(subscribe(allowing, filter, subject), undefined, filter);
				assert.equal(publish(allowing, filter, subject), undefined, filter);
			}
			const denying = [deny("publish", "t/${clientid}/#"), allow("all", "#")];
			assert.equal(publish(denying, "quite/else", subject), "deny");
			assert.equal(subscribe(denying, "quite/else", subject), "allow");
			assert.equal(new RuleSet(allowing).admits(subject), false);
			assert.equal(new RuleSet(denying).admits(subject), false);
		});
	}

	it("a value that begins with $ opens no topic of the broker, and may stand elsewhere", () => {
		const subject = { ...device, clientId: "$SYS" };
		assert.equal(subscribe([allow("all", "${clientid}/#")], "$SYS/#", subject), undefined);
		assert.equal(new RuleSet([allow("all", "${clientid}/#")]).admits(subject), false);
		assert.equal(subscribe([allow("all", "t/${clientid}/#")], "t/$SYS/#", subject), "allow");
		assert.equal(new RuleSet([allow("all", "t/${clientid}/#")]).admits(subject), true);
	});

	it("a value that is not there grants nothing and denies everything, and the client is admitted", () => {
		const subject = { ...device, username: undefined, claims: undefined };
		const rules = [allow("all", "u/${username}/#"), allow("all", "c/${claims.site}")];
		for (const topic of ["u//x", "u/undefined/x", "u", "c/undefined", "c/"]) assert.equal(publish(rules, topic, subject), undefined, topic);
		assert.equal(publish([deny("all", "u/${username}"), allow("all", "#")], "x", subject), "deny");
		assert.equal(new RuleSet(rules).admits(subject), true);
		assert.equal(publish(rules, "u//x", { ...device, username: "" }), undefined);
	});

	it("a claim is never read from the prototype", () => {
		assert.equal(publish([allow("all", "c/${claims.constructor}/#")], "c/x", device), undefined);
	});

	it("the other topics of an allowing rule still count", () => {
		assert.equal(publish([allow("all", "t/${clientid}", "open")], "open", { ...device, clientId: "+" }), "allow");
	});

	it("a rule that is not for this client does not keep it out", () => {
		const rules: Rule[] = [{ ...allow("all", "t/${clientid}"), methods: ["password"] }];
		assert.equal(new RuleSet(rules).admits({ ...device, clientId: "a/b" }), true);
		assert.equal(new RuleSet(rules).admits({ ...device, clientId: "a/b", method: "password" }), false);
	});

	it("a value is not read for placeholders again", () => {
		const subject = { ...device, username: "${clientid}" };
		assert.equal(publish([allow("all", "t/${username}")], "t/d1", subject), undefined);
		assert.equal(publish([allow("all", "t/${username}")], "t/${clientid}", subject), "allow");
	});

	it("a topic that values make longer than 65,535 bytes grants nothing", () => {
		const subject = { ...device, clientId: "ä".repeat(32_767) };
		assert.equal(publish([allow("all", "t/${clientid}/#")], `t/${subject.clientId}`, subject), undefined);
	});
});

describe("rules: what is no topic", () => {
	for (const topic of ["", "a/#/b", "a+", "${client}", "${clientid", "a/${}", "${clientid}+", "eq ", "$share/g/a", "a\0", "${claims.}"]) {
		it(`${JSON.stringify(topic)} is refused`, () => {
			assert.throws(() => new RuleSet([allow("all", topic)]), RangeError);
		});
	}
});
