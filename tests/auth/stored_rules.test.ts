/** Rules in the store: the same list in every replica, and a denial that is never lost. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Principal } from "../../src/auth/auth.ts";
import { createAuthorizer } from "../../src/auth/authorizer.ts";
import type { Rule } from "../../src/auth/grants.ts";
import { StoredRules } from "../../src/auth/stored_rules.ts";
import { recordingLog } from "./auth_support.ts";
import { type RecordsView, SharedRecords } from "./managed_support.ts";

const bob: Principal = { name: "bob", method: "password", expiresAtMs: Number.POSITIVE_INFINITY, username: "bob" };
const rule = (permission: "allow" | "deny", topic: string): Rule => ({ permission, action: "all", topics: [topic] });

function replica(shared: SharedRecords): { view: RecordsView; rules: StoredRules; lines: string[] } {
	const { lines, log } = recordingLog();
	const view = shared.view();
	return { view, rules: new StoredRules({ records: view, log }), lines };
}

describe("stored rules", () => {
	it("until they are loaded everything is denied, also what another list allows", async () => {
		const { rules } = replica(new SharedRecords());
		const authorizer = createAuthorizer({ sources: [rules], defaultDecision: "allow" });
		assert.equal(authorizer.permits(bob, "c", { action: "publish", topic: "a/b", qos: 0, retain: false }), false);
		await rules.start();
		assert.deepEqual(rules.rules, []);
		assert.equal(authorizer.permits(bob, "c", { action: "publish", topic: "a/b", qos: 0, retain: false }), true);
	});

	it("a change counts here when its promise resolves and elsewhere when that is told: rights follow", async () => {
		const shared = new SharedRecords();
		const [a, b] = [replica(shared), replica(shared)];
		await a.rules.start();
		await b.rules.start();
		const authorizer = createAuthorizer({ sources: [b.rules] });
		let changes = 0;
		authorizer.onChange(() => changes++);
		const may = (topic: string) => authorizer.permits(bob, "c", { action: "publish", topic, qos: 0, retain: false });
		await a.rules.put("r1", rule("allow", "a/#"));
		assert.deepEqual(a.rules.rules, [rule("allow", "a/#")]);
		assert.equal(may("a/b"), false);
		await b.view.hear();
		assert.deepEqual([may("a/b"), changes], [true, 1]);
		await a.rules.put("r0", rule("deny", "a/b"), 0);
		await b.view.hear();
		assert.deepEqual([may("a/b"), may("a/c"), changes], [false, true, 2]);
		await a.rules.delete("r0");
		await b.view.hear();
		assert.deepEqual([may("a/b"), changes], [true, 3]);
		await b.view.hear(true);
		assert.equal(changes, 3, "nothing has changed");
	});

	it("rules are in the order of their positions, then of their ids", async () => {
		const { rules } = replica(new SharedRecords());
		await rules.start();
		await rules.put("z", rule("allow", "first"), -5);
		await rules.put("b", rule("allow", "third"), 7);
		await rules.put("a", rule("allow", "second"), 7);
		await rules.put("c", rule("allow", "last"));
		assert.deepEqual(
			rules.rules.map(({ topics }) => topics[0]),
			["first", "second", "third", "last"],
		);
		await rules.put("c", rule("allow", "last again"));
		assert.equal(rules.get("c")?.position, 8, "it stays where it was");
	});

	it("a rule that cannot be read denies everything in its place, and in no other", async () => {
		const shared = new SharedRecords();
		const good = { permission: "allow", action: "all", topics: ["open/#"] };
		const put = (key: string, value: unknown) => shared.kind("rule").set(key, { key, value, expiresAtMs: Number.POSITIVE_INFINITY });
		put("1", { position: 1, rule: good });
		put("2", { position: 2, rule: { permission: "deny", action: "all", topics: ["x"], planets: ["mars"] } });
		put("3", { position: 3, rule: { ...good, topics: ["#"] } });
		const { rules, lines } = replica(shared);
		await rules.start();
		const authorizer = createAuthorizer({ sources: [rules] });
		const may = (topic: string) => authorizer.permits(bob, "c", { action: "publish", topic, qos: 0, retain: false });
		assert.deepEqual([may("open/a"), may("b"), may("$SYS/x")], [true, false, false]);
		assert.match(lines.join("\n"), /cannot be read.*id="2"/);
		put("0", "nonsense");
		const again = replica(shared);
		await again.rules.start();
		const strict = createAuthorizer({ sources: [again.rules] });
		assert.equal(strict.permits(bob, "c", { action: "publish", topic: "open/a", qos: 0, retain: false }), false);
	});
});
