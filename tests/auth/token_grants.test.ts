// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RuleSet } from "../../src/auth/rules.ts";
import { grantsFromClaims, TokenGrantsError, textClaims } from "../../src/auth/token_grants.ts";

type Claims = Readonly<Record<string, unknown>>;

function rights(claims: Claims) {
	const grants = grantsFromClaims(claims);
	assert.ok(grants !== undefined);
	const bound = new RuleSet(grants.rules).bind({
		clientId: "d1",
		username: "ann",
		tenant: undefined,
		claims: grants.claims,
		method: "jwt",
	});
	return {
		publish: (topic: string, qos: 0 | 1 | 2 = 0, retain = false) => bound.publish(topic, qos, retain),
		subscribe: (filter: string, qos: 0 | 1 | 2 = 0) => bound.subscribe(filter, qos),
	};
}

describe("token grants: acl as a list of rules", () => {
	it("permission, action, topic, qos and retain count, in both spellings of the action", () => {
		const { publish, subscribe } = rights({
			acl: [
				{ permission: "deny", action: "publish", topic: "t/secret" },
				{ permission: "allow", action: "pub", topic: "t/+", qos: [0, 1], retain: false },
				{ permission: "allow", action: "sub", topics: ["s/${clientid}/#", "eq s/#"], qos: 1 },
				{ permission: "allow", action: "all", topic: "u/${username}", retain: "all" },
			],
		});
		assert.equal(publish("t/secret"), "deny");
		assert.equal(publish("t/x", 1), "allow");
		assert.equal(publish("t/x", 2), undefined);
		assert.equal(publish("t/x", 0, true), undefined);
		assert.equal(subscribe("t/x"), undefined);
		assert.equal(subscribe("s/d1/x", 1), "allow");
		assert.equal(subscribe("s/d1/x", 0), undefined);
		assert.equal(subscribe("s/#", 1), "allow");
		assert.equal(subscribe("s/d2/x", 1), undefined);
		assert.equal(publish("u/ann", 2, true), "allow");
		assert.equal(subscribe("u/ann"), "allow");
	});

	it("an empty list is a grant of nothing, not the absence of grants", () => {
		assert.deepEqual(grantsFromClaims({ acl: [] }), { rules: [], claims: {}, unmatched: "deny" });
		assert.deepEqual(grantsFromClaims({ acl: {} })?.rules, []);
	});
});

describe("token grants: acl as lists of topics", () => {
	it("pub, sub and all grant what they are named for", () => {
		const { publish, subscribe } = rights({ acl: { pub: ["p/${username}"], sub: ["s/#"], all: ["a/${clientid}/#"] } });
		assert.equal(publish("p/ann"), "allow");
		assert.equal(subscribe("p/ann"), undefined);
		assert.equal(subscribe("s/+/x"), "allow");
		assert.equal(publish("s/x"), undefined);
		assert.equal(publish("a/d1"), "allow");
		assert.equal(subscribe("a/d1/#"), "allow");
	});
});

describe("token grants: scopes", () => {
	it("mqtt:pub, mqtt:sub and mqtt:all grant topics, percent-encoded where scopes need it", () => {
		const { publish, subscribe } = rights({ scope: "openid mqtt:pub:p/a%20b/${clientid} mqtt:sub:s/# profile mqtt:all:x%25" });
		assert.equal(publish("p/a b/d1"), "allow");
		assert.equal(subscribe("s/#"), "allow");
		assert.equal(publish("s/x"), undefined);
		assert.equal(publish("x%"), "allow");
	});

	it("scp is read as a text and as a list", () => {
		assert.equal(rights({ scp: "mqtt:pub:a" }).publish("a"), "allow");
		assert.equal(rights({ scp: ["read", "mqtt:pub:a:b"] }).publish("a:b"), "allow");
	});

	it("a token whose scopes are about something else says nothing", () => {
		assert.equal(grantsFromClaims({ scope: "openid profile", scp: ["read"] }), undefined);
	});
});

describe("token grants: topicAcl", () => {
	it("a topic or a list of topics is granted in both directions", () => {
		assert.equal(rights({ topicAcl: "#" }).publish("a/b"), "allow");
		assert.equal(rights({ topicAcl: "#" }).subscribe("#"), "allow");
		assert.equal(rights({ topicAcl: ["a", "b/#"] }).subscribe("b/+"), "allow");
		assert.equal(rights({ topicAcl: ["a", "b/#"] }).publish("c"), undefined);
	});
});

describe("token grants: several claims", () => {
	it("they add up, the denials of acl before everything else", () => {
		const { publish } = rights({ acl: [{ permission: "deny", action: "all", topic: "a/x" }], scope: "mqtt:pub:a/#", topicAcl: "b" });
		assert.equal(publish("a/x"), "deny");
		assert.equal(publish("a/y"), "allow");
		assert.equal(publish("b"), "allow");
	});

	it("no claim about rights leaves everything to the configured rules", () => {
		assert.equal(grantsFromClaims({ sub: "ann", exp: 1 }), undefined);
	});

	it("the claim with rules can have another name, and another end", () => {
		assert.equal(grantsFromClaims({ rights: [], acl: "ignored" }, { aclClaim: "rights", unmatched: "rules" })?.unmatched, "rules");
	});
});

describe("token grants: claims in topics", () => {
	it("a claim that a topic names is kept with the grants, others are not", () => {
		const claims = { site: "oslo", other: "x", topicAcl: "s/${claims.site}/#" };
		assert.deepEqual(grantsFromClaims(claims)?.claims, { site: "oslo" });
		assert.equal(rights(claims).publish("s/oslo/1"), "allow");
		assert.equal(rights(claims).publish("s/rome/1"), undefined);
	});

	for (const site of [undefined, "", 7, "a/b", "+", "#", "a\0b"]) {
		it(`a token whose topic names a claim that is ${JSON.stringify(site)} is refused`, () => {
			assert.throws(() => grantsFromClaims({ site, topicAcl: "s/${claims.site}" }), TokenGrantsError);
		});
	}

	it("textClaims keeps short texts only", () => {
		assert.deepEqual(textClaims({ a: "x", b: 1, c: null, d: ["x"], e: "y".repeat(257) }), { a: "x" });
		assert.equal(Object.keys(textClaims(Object.fromEntries(Array.from({ length: 99 }, (_each, at) => [`c${at}`, "x"])))).length, 32);
	});
});

describe("token grants: malformed claims are refused, never ignored", () => {
	const rule = { permission: "allow", action: "publish", topic: "a" };
	const malformed: Claims[] = [
		{ acl: null },
		{ acl: "" },
		{ acl: "#" },
		{ acl: 1 },
		{ acl: true },
		{ acl: ["#"] },
		{ acl: [null] },
		{ acl: [{ ...rule, permission: "Allow" }] },
		{ acl: [{ ...rule, permission: undefined }] },
		{ acl: [{ ...rule, action: "read" }] },
		{ acl: [{ ...rule, topic: undefined }] },
		{ acl: [{ ...rule, topics: ["b"] }] },
		{ acl: [{ ...rule, topic: undefined, topics: [] }] },
		{ acl: [{ ...rule, topic: "a/#/b" }] },
		{ acl: [{ ...rule, topic: "a+" }] },
		{ acl: [{ ...rule, topic: "" }] },
		{ acl: [{ ...rule, topic: "${unknown}/x" }] },
		{ acl: [{ ...rule, topic: "${clientid" }] },
		{ acl: [{ ...rule, topic: "$share/g/a" }] },
		{ acl: [{ ...rule, topic: "a".repeat(1025) }] },
		{ acl: [{ ...rule, qos: 3 }] },
		{ acl: [{ ...rule, qos: [] }] },
		{ acl: [{ ...rule, qos: "1" }] },
		{ acl: [{ ...rule, retain: "yes" }] },
		{ acl: [{ ...rule, ipaddr: "10.0.0.0/8" }] },
		{ acl: [{ ...rule, users: ["ann"] }] },
		{ acl: Array.from({ length: 257 }, () => rule) },
		{ acl: [{ ...rule, topic: undefined, topics: Array.from({ length: 257 }, () => "a") }] },
		{ acl: Array.from({ length: 129 }, () => ({ ...rule, topic: undefined, topics: ["a", "b"] })) },
		{ acl: { publish: ["a"] } },
		{ acl: { pub: "a" } },
		{ acl: { pub: [1] } },
		{ acl: { pub: null } },
		{ acl: { pub: ["a/#/b"] } },
		{ scope: ["mqtt:pub:a"] },
		{ scope: 1 },
		{ scope: "mqtt:" },
		{ scope: "mqtt:pub" },
		{ scope: "mqtt:pub:" },
		{ scope: "mqtt:publish:a" },
		{ scope: "mqtt:PUB:a" },
		{ scope: "mqtt:pub:%zz" },
		{ scope: "mqtt:pub:%00" },
		{ scope: "mqtt:pub:a/#/b" },
		{ scp: { "mqtt:pub:a": true } },
		{ scp: ["mqtt:pub:a", 1] },
		{ topicAcl: "" },
		{ topicAcl: null },
		{ topicAcl: { all: true } },
		{ topicAcl: [["#"]] },
	];
	for (const claims of malformed) {
		it(JSON.stringify(claims).slice(0, 90), () => {
			assert.throws(() => grantsFromClaims(claims), TokenGrantsError);
		});
	}

	it("the message names the claim and quotes nothing of it", () => {
		const claims = { acl: [{ permission: "allow", action: "publish", topic: "planted/#/secret", planted: "secret" }] };
		assert.throws(
			() => grantsFromClaims(claims),
			(error: Error) => error.message.includes("acl.0") && !error.message.includes("secret"),
		);
	});
});
