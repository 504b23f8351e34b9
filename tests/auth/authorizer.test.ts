// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Access, NOBODY, type Principal, permitted } from "../../src/auth/auth.ts";
import { type AccessHook, createAuthorizer, type RuleSource } from "../../src/auth/authorizer.ts";
import type { Grants, Rule } from "../../src/auth/grants.ts";
import { PublishRights } from "../../src/auth/publish_rights.ts";
import type { Verdict } from "../../src/auth/rules.ts";
import { Topic } from "../../src/mqtt/topic.ts";

class Listeners {
	readonly all = new Set<() => void>();
	onChange(listener: () => void): () => void {
		this.all.add(listener);
		return () => this.all.delete(listener);
	}
	tell(): void {
		for (const listener of this.all) listener();
	}
}

class Source extends Listeners implements RuleSource {
	rules: readonly Rule[];
	constructor(...rules: Rule[]) {
		super();
		this.rules = rules;
	}
	change(...rules: Rule[]): void {
		this.rules = rules;
		this.tell();
	}
}

class Hook extends Listeners implements AccessHook {
	asked = 0;
	readonly answer: () => Verdict | Promise<Verdict>;
	constructor(answer: () => Verdict | Promise<Verdict>) {
		super();
		this.answer = answer;
	}
	decide(): Verdict | Promise<Verdict> {
		this.asked++;
		return this.answer();
	}
}

const allow = (action: Rule["action"], ...topics: string[]): Rule => ({ permission: "allow", action, topics });
const deny = (action: Rule["action"], ...topics: string[]): Rule => ({ permission: "deny", action, topics });
const publish = (topic: string): Access => ({ action: "publish", topic, qos: 0, retain: false });
const subscribe = (filter: string): Access => ({ action: "subscribe", filter, qos: 0 });
const holding = (unmatched: Grants["unmatched"], ...rules: Rule[]): Principal => ({
	...NOBODY,
	name: "ann",
	grants: { rules, claims: {}, unmatched },
});

describe("authorizer: how grants and rules combine", () => {
	const source = new Source(deny("all", "denied/#"), allow("all", "ruled/#"));
	const authorizer = createAuthorizer({ sources: [source] });
	const asked = (principal: Principal, topic: string) => authorizer.permits(principal, "c", publish(topic));

	it("what nobody decided is denied, unless the default says otherwise", () => {
		assert.equal(asked(NOBODY, "else"), false);
		assert.equal(createAuthorizer({}).permits(NOBODY, "c", publish("else")), false);
		assert.equal(createAuthorizer({ defaultDecision: "allow" }).permits(NOBODY, "c", publish("else")), true);
	});

	it("without grants the configured rules decide", () => {
		assert.equal(asked(NOBODY, "ruled/x"), true);
		assert.equal(asked(NOBODY, "denied/x"), false);
	});

	it("grants allow without the rules, and restrict what the rules allow", () => {
		const ann = holding("deny", allow("all", "own/#"));
		assert.equal(asked(ann, "own/x"), true);
		assert.equal(asked(ann, "ruled/x"), false);
		assert.equal(asked(holding("deny"), "ruled/x"), false);
		const open = createAuthorizer({ defaultDecision: "allow" });
		assert.equal(open.permits(ann, "c", publish("else")), false);
	});

	it("grants may leave to the rules what they say nothing about", () => {
		const ann = holding("rules", allow("all", "own/#"), deny("all", "ruled/secret"));
		assert.equal(asked(ann, "own/x"), true);
		assert.equal(asked(ann, "ruled/x"), true);
		assert.equal(asked(ann, "ruled/secret"), false);
		assert.equal(asked(ann, "else"), false);
	});

	it("a denial wins, wherever it stands", () => {
		assert.equal(asked(holding("deny", allow("all", "#")), "denied/x"), false);
		assert.equal(asked(holding("rules", deny("all", "ruled/#")), "ruled/x"), false);
	});

	it("several sources count like one list, in order", () => {
		const both = createAuthorizer({ sources: [new Source(deny("all", "a")), new Source(allow("all", "#"))] });
		assert.equal(both.permits(NOBODY, "c", publish("a")), false);
		assert.equal(both.permits(NOBODY, "c", publish("b")), true);
	});

	it("subscriptions need a grant that covers the whole filter", () => {
		const ann = holding("deny", allow("subscribe", "own/${clientid}/#"));
		assert.equal(authorizer.permits(ann, "c", subscribe("own/c/+")), true);
		assert.equal(authorizer.permits(ann, "d", subscribe("own/c/+")), false);
		assert.equal(authorizer.permits(ann, "c", subscribe("own/#")), false);
		assert.equal(authorizer.permits(holding("deny", allow("all", "#")), "c", subscribe("#")), false);
	});
});

describe("authorizer: who asks", () => {
	it("the same client id with another principal, and the same principal with another client id, have their own rules", () => {
		const authorizer = createAuthorizer({ sources: [new Source(allow("all", "t/${clientid}"), allow("all", "u/${username}"))] });
		const ann = { ...NOBODY, username: "ann" };
		const bob = { ...NOBODY, username: "bob" };
		for (let round = 0; round < 2; round++) {
			assert.equal(authorizer.permits(ann, "c", publish("u/ann")), true);
			assert.equal(authorizer.permits(bob, "c", publish("u/ann")), false);
			assert.equal(authorizer.permits(ann, "c", publish("t/c")), true);
			assert.equal(authorizer.permits(ann, "d", publish("t/c")), false);
		}
	});

	it("an identity whose name would change the meaning of a rule is not admitted", () => {
		const authorizer = createAuthorizer({ sources: [new Source(allow("all", "t/${clientid}"))] });
		assert.equal(authorizer.admits(NOBODY, "fine"), true);
		for (const clientId of ["+", "#", "a/b"]) assert.equal(authorizer.admits(NOBODY, clientId), false);
		const plain = createAuthorizer({ sources: [new Source(allow("all", "t"))] });
		assert.equal(plain.admits(NOBODY, "a/b"), true);
		assert.equal(plain.admits(holding("deny", allow("all", "${clientid}/#")), "a/b"), false);
	});

	it("more clients than are kept are judged all the same", () => {
		const authorizer = createAuthorizer({ sources: [new Source(allow("all", "t/${clientid}"))] });
		for (let round = 0; round < 2; round++) {
			for (let at = 0; at < 5000; at++) {
				assert.equal(authorizer.permits(NOBODY, `c${at}`, publish(`t/c${at}`)), true);
				assert.equal(authorizer.permits(NOBODY, `c${at}`, publish(`t/c${at + 1}`)), false);
			}
		}
	});
});

describe("authorizer: changes", () => {
	it("a change of the rules counts at once, is told, and makes remembered answers void", () => {
		const source = new Source(allow("all", "a"));
		const authorizer = createAuthorizer({ sources: [source] });
		const rights = new PublishRights(authorizer, NOBODY, "c");
		const topic = Topic.of("a");
		const told: number[] = [];
		const stop = authorizer.onChange(() => told.push(authorizer.generation));
		assert.equal(rights.decide(topic, 0, false), true);
		source.change(deny("all", "a"));
		assert.equal(rights.decide(topic, 0, false), false);
		assert.equal(authorizer.permits(NOBODY, "c", subscribe("a")), false);
		assert.deepEqual(told, [1]);
		stop();
		source.change(allow("all", "a"));
		assert.equal(rights.decide(topic, 0, false), true);
		assert.deepEqual(told, [1]);
	});

	it("after close it does not follow its sources any more", () => {
		const source = new Source(allow("all", "a"));
		const authorizer = createAuthorizer({ sources: [source] });
		authorizer.close();
		assert.equal(source.all.size, 0);
	});
});

describe("authorizer: the hook", () => {
	it("is asked only for what grants and rules left undecided", () => {
		const hook = new Hook(() => "allow");
		const authorizer = createAuthorizer({ sources: [new Source(deny("all", "denied"), allow("all", "allowed"))], hook });
		assert.equal(authorizer.permits(NOBODY, "c", publish("denied")), false);
		assert.equal(authorizer.permits(NOBODY, "c", publish("allowed")), true);
		assert.equal(authorizer.permits(holding("deny", allow("all", "own")), "c", publish("else")), false);
		assert.equal(hook.asked, 0);
		assert.equal(authorizer.permits(NOBODY, "c", publish("else")), true);
		assert.equal(hook.asked, 1);
	});

	it("its verdict counts, at once or later, and where it has none the default", async () => {
		for (const [verdict, expected] of [["allow", true] as const, ["deny", false] as const, [undefined, false] as const]) {
			assert.equal(createAuthorizer({ hook: new Hook(() => verdict) }).permits(NOBODY, "c", publish("a")), expected);
			const later = createAuthorizer({ hook: new Hook(() => Promise.resolve(verdict)) });
			assert.equal(await later.permits(NOBODY, "c", publish("a")), expected);
		}
		const open = createAuthorizer({ hook: new Hook(() => undefined), defaultDecision: "allow" });
		assert.equal(open.permits(NOBODY, "c", publish("a")), true);
	});

	it("one that throws or rejects has not said yes, even where the default is to allow", async () => {
		const throwing = new Hook(() => {
			throw new Error("away");
		});
		const rejecting = new Hook(() => Promise.reject(new Error("away")));
		for (const hook of [throwing, rejecting]) {
			const authorizer = createAuthorizer({ hook, defaultDecision: "allow" });
			assert.equal(await permitted(authorizer, NOBODY, "c", publish("a")), false);
			assert.equal(await permitted(authorizer, NOBODY, "c", subscribe("a")), false);
		}
	});

	it("a change that it tells is passed on", () => {
		const hook = new Hook(() => "allow");
		const authorizer = createAuthorizer({ hook });
		hook.tell();
		assert.equal(authorizer.generation, 1);
		assert.equal(authorizer.volatile, true);
	});
});
