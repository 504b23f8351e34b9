// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.
/**
 * Where a tenant comes from, and that nobody gets out of it or into another one: names in the space of tenants, names that are
 * too long there, rules, wills, and what comes behind a decision.
 */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import {
	authProperties,
	knock,
	login,
	METHOD,
	reauthenticate,
	refusal,
	refusedWith,
	renew,
	SECRET,
	token,
} from "../support/auth_clients.ts";
import { type AnyPacket, freshId, type RawClient } from "../support/raw_client.ts";
import { RawWebSocket } from "../support/raw_websocket.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { credentials, member, SPACES, subscribes, TENANTS, takes } from "../support/tenants.ts";
import { startBroker } from "../support/test_broker.ts";

const NOT_AUTHORIZED = 0x87;
const CLIENT_ID_NOT_VALID = 0x85;
const TOPIC_FILTER_INVALID = 0x8f;
const TOPIC_NAME_INVALID = 0x90;
const NO_SUBSCRIPTION = 0x11;
const V3_FAILURE = 0x80;
const V3_CLIENT_ID = 2;
const V3_NOT_AUTHORIZED = 5;
const MAX_BYTES = 65_535;

const BOLT = "$tenant/bolt/secret";
const codes = (suback: AnyPacket): number[] => [...suback.granted];

async function filterCode(client: RawClient, filter: string): Promise<number | undefined> {
	return codes(await client.subscribe(filter, { qos: 1 }))[0];
}

describe("names in the space of tenants", () => {
	const broker = suiteBroker(TENANTS);

	it("a client id there is refused with 0x85, whoever asks for it", async () => {
		for (const tenant of SPACES) {
			for (const clientId of ["$tenant/bolt/x", "$tenant/acme/x", "$tenant/"]) {
				const bring = await credentials(tenant);
				assert.equal(await refusedWith(broker, { ...bring, clientId }), CLIENT_ID_NOT_VALID);
				assert.equal(await refusedWith(broker, { ...bring, clientId, version: 4 }), V3_CLIENT_ID);
			}
		}
	});

	it("a client id there is not assigned from a token either", async () => {
		const claims = { tenant: "acme", sub: "$tenant/bolt/x" };
		assert.equal(await refusedWith(broker, { token: await token(claims), clientId: "" }), CLIENT_ID_NOT_VALID);
	});

	it("a filter there is refused with 0x87 (3.1.1: 0x80), and so is every filter of the server's for a tenant", async () => {
		const owner = await member(broker, "bolt");
		await owner.publishAcked("secret", "treasure", { retain: true });
		const reserved = [BOLT, "$tenant/#", "$tenant/+/secret", "$tenant/bolt/#", `$share/g/${BOLT}`, "$share/g/$tenant/#"];
		const servers = ["$SYS/#", "$share/g/$SYS/#", "$any/thing"];
		for (const tenant of SPACES) {
			const [v5, v4] = [await member(broker, tenant), await member(broker, tenant, { version: 4 })];
			for (const filter of tenant === undefined ? reserved : [...reserved, ...servers]) {
				assert.equal(await filterCode(v5, filter), NOT_AUTHORIZED, `${filter} for ${tenant}`);
				assert.equal(await filterCode(v4, filter), V3_FAILURE, `${filter} for ${tenant}`);
			}
			await v5.publishAcked("secret", "again");
			await v5.expectNothing();
			await v4.expectNothing();
		}
	});

	it("UNSUBSCRIBE finds no filter there, not even the client's own", async () => {
		const client = await member(broker, "acme");
		await subscribes(client, "mine");
		await subscribes(client, "$share/g/mine");
		const filters = ["$tenant/acme/mine", "$share/g/$tenant/acme/mine", "mine", "$share/g/mine", "$share/g"];
		client.send({ cmd: "unsubscribe", messageId: 3, unsubscriptions: filters });
		assert.deepEqual(codes(await client.expect("unsuback")), [NO_SUBSCRIPTION, NO_SUBSCRIPTION, 0, 0, NO_SUBSCRIPTION]);
	});

	it("a publication there is refused with 0x87 and reaches nobody, with a topic or by an alias; so is a will", async () => {
		const topic = freshId("forged");
		const reserved = `$tenant/bolt/${topic}`;
		const owner = await member(broker, "bolt");
		await subscribes(owner, topic);
		for (const tenant of SPACES) {
			const client = await member(broker, tenant);
			const alias = { properties: { topicAlias: 1 } };
			assert.equal((await client.publishAcked(reserved, "forged", alias)).reasonCode, NOT_AUTHORIZED);
			assert.equal((await client.publishAcked("", "forged", alias)).reasonCode, NOT_AUTHORIZED);
			client.publish(reserved, "forged");
			const will = { topic: reserved, payload: "forged", qos: 1, retain: false };
			assert.equal(await refusedWith(broker, { ...(await credentials(tenant)), will }), NOT_AUTHORIZED);
			assert.equal(await refusedWith(broker, { ...(await credentials(tenant)), will, version: 4 }), V3_NOT_AUTHORIZED);
			await client.expectNothing();
		}
		await (await member(broker, "bolt")).publishAcked(topic, "genuine");
		await takes(owner, topic, "genuine");
	});

	it("what fits alone but not behind the tenant is refused: topic 0x90, filter 0x8F, client id 0x85, will topic 0x90 [MQTT-4.7.3-3]", async () => {
		const prefix = "$tenant/acme/".length;
		const [fits, long] = ["a".repeat(MAX_BYTES - prefix), "a".repeat(MAX_BYTES - prefix + 1)];
		const client = await member(broker, "acme", { clientId: fits });
		await subscribes(client, fits);
		client.publish(fits, "x", { qos: 1, messageId: 5 });
		const got = [await client.receive(), await client.receive()].map(({ cmd }) => cmd as string);
		assert.deepEqual(got.sort(), ["puback", "publish"]);
		assert.equal((await client.publishAcked(long, "x")).reasonCode, TOPIC_NAME_INVALID);
		assert.equal((await client.publishAcked(long, "x", { qos: 1 })).reasonCode, TOPIC_NAME_INVALID);
		assert.equal(await filterCode(client, long), TOPIC_FILTER_INVALID);
		assert.equal(await filterCode(client, `$share/g/${"a".repeat(MAX_BYTES - prefix - 8)}`), TOPIC_FILTER_INVALID);
		client.send({ cmd: "unsubscribe", messageId: 3, unsubscriptions: [long] });
		assert.deepEqual(codes(await client.expect("unsuback")), [NO_SUBSCRIPTION]);
		const bring = await credentials("acme");
		assert.equal(await refusedWith(broker, { ...bring, clientId: long }), CLIENT_ID_NOT_VALID);
		assert.equal(await refusedWith(broker, { ...bring, will: { topic: long, payload: "x", qos: 0, retain: false } }), TOPIC_NAME_INVALID);
		const outside = await member(broker, undefined);
		await outside.publishAcked(long, "x");
	});
});

describe("where a tenant comes from", () => {
	const broker = suiteBroker(TENANTS);

	it("a token without a tenant, with an empty one, or with one that is no level of a topic is refused with 0x87", async () => {
		for (const tenant of [undefined, "", "a/b", "+", "#", "a+", "$SYS", "a\0", 7, ["acme"], null]) {
			assert.equal(await refusedWith(broker, { token: await token({ tenant }) }), NOT_AUTHORIZED, JSON.stringify(tenant));
			assert.equal(await refusedWith(broker, { token: await token({ tenant }), version: 4 }), V3_NOT_AUTHORIZED);
		}
	});

	it("an authenticator that names no level of a topic is not believed: 0x87", async (t) => {
		for (const tenant of ["", "a/b", "+", "#"]) {
			const principal = { name: "x", method: "test", expiresAtMs: Number.POSITIVE_INFINITY, tenant };
			const own = await startBroker(t, {}, { authenticator: { authenticate: () => ({ kind: "granted", principal }) } });
			assert.equal(await refusedWith(own), NOT_AUTHORIZED);
		}
	});

	it("a token of another tenant renews no session, by AUTH or by the topic, while one of the same does", async () => {
		const acme = { properties: authProperties(await token({ tenant: "acme" })) };
		const client = await login(broker, acme);
		await subscribes(client, "still/here");
		await renew(client, await token({ tenant: "acme" }));
		await client.publishAcked("still/there", "");
		reauthenticate(client, await token({ tenant: "bolt" }));
		await client.expectDisconnect(NOT_AUTHORIZED);
		const v4 = await member(broker, "acme", { version: 4 });
		await subscribes(v4, "renewed");
		await v4.publishAcked("$SYS/auth/renew", await token({ tenant: "bolt" }));
		await (await member(broker, "bolt")).publishAcked("renewed", "of bolt");
		await (await member(broker, "acme")).publishAcked("renewed", "of acme");
		await takes(v4, "renewed", "of acme");
	});

	it("an authenticator that moves a client into another tenant when it authenticates again is not followed", async (t) => {
		const principal = (tenant: string) => ({ name: "x", method: METHOD, expiresAtMs: Number.POSITIVE_INFINITY, tenant });
		const authenticator = {
			authenticate: (_: unknown, current: unknown) =>
				({ kind: "granted", principal: principal(current === undefined ? "acme" : "bolt") }) as const,
		};
		const own = await startBroker(t, {}, { authenticator });
		const client = await login(own, { properties: authProperties("anything") });
		reauthenticate(client, "anything");
		await client.expectDisconnect(NOT_AUTHORIZED);
	});

	it("no path leads into a tenant: HTTP 404", async () => {
		for (const path of ["/mqtt/bolt", "/bolt/mqtt", "/mqtt/..%2fbolt", "/$tenant/bolt/mqtt"]) {
			const socket = await RawWebSocket.open({ port: broker.wsPort, path });
			assert.equal(socket.response.status, 404, path);
			socket.destroy();
		}
	});
});

describe("tenants by host name", () => {
	const settings = { allowAnonymous: true, tenantFromHost: ".mqtt.example.com" } as const;
	const open = suiteBroker(settings);
	const both = suiteBroker({ ...TENANTS, ...settings });
	const at = (host: string) => ({ headers: { host } });

	it("the label before the suffix is the tenant, in any case, with any port, for anonymous clients as well", async () => {
		const topic = freshId("host");
		const hosts = ["acme.mqtt.example.com", "ACME.Mqtt.Example.com:8083", "acme.mqtt.example.com."];
		const acme = await Promise.all(hosts.map((host) => login(open, at(host))));
		const others = await Promise.all(
			["bolt.mqtt.example.com", "mqtt.example.com", "acme.example.com", "acme-mqtt.example.com", "localhost"].map((host) =>
				login(open, at(host)),
			),
		);
		for (const client of [...acme, ...others]) await subscribes(client, topic);
		await (await login(open, at("acme.mqtt.example.com"))).publishAcked(topic, "for acme");
		for (const client of acme) await takes(client, topic, "for acme");
		for (const client of others) await client.expectNothing();
	});

	it("a host name with no label, or more than one, before the suffix is refused with 0x87", async () => {
		for (const label of ["", "a.b", "-a", "a+", "%61", "$SYS", "a b"]) {
			const client = await knock(open, at(`${label}.mqtt.example.com`)).catch(() => undefined);
			// Some of these no HTTP server lets through.
			if (client !== undefined) assert.equal(await refusal(client), NOT_AUTHORIZED, label);
		}
		assert.equal(await refusedWith(open, at(".mqtt.example.com")), NOT_AUTHORIZED);
		assert.equal(await refusedWith(open, at("a.b.mqtt.example.com")), NOT_AUTHORIZED);
	});

	it("the tenant of a token must be that of the host name, also when it authenticates again", async () => {
		const shown = await token({ tenant: "acme" });
		assert.equal(await refusedWith(both, { token: shown, ...at("bolt.mqtt.example.com") }), NOT_AUTHORIZED);
		const elsewhere = await login(both, { token: shown, ...at("mqtt.example.com") });
		const here = await login(both, { properties: authProperties(shown), ...at("acme.mqtt.example.com") });
		await renew(here, await token({ tenant: "acme" }));
		await subscribes(here, "met");
		await elsewhere.publishAcked("met", "x");
		await takes(here, "met", "x");
	});

	it("a token that names no tenant gets that of the host name, and keeps it when it is renewed", async (t) => {
		const own = await startBroker(t, { jwtSecret: SECRET, trustedProxies: "1", tenantFromHost: settings.tenantFromHost });
		const client = await login(own, { properties: authProperties(await token()), ...at("acme.mqtt.example.com") });
		await renew(client, await token());
		await subscribes(client, "met");
		await (await login(own, { token: await token(), ...at("bolt.mqtt.example.com") })).publishAcked("met", "of bolt");
		await (await login(own, { token: await token(), ...at("acme.mqtt.example.com") })).publishAcked("met", "of acme");
		await takes(client, "met", "of acme");
	});
});

describe("rules and tenants", () => {
	async function withRules(t: TestContext, rules: string) {
		const folder = mkdtempSync(join(tmpdir(), "tenant-rules-"));
		t.after(() => rmSync(folder, { recursive: true }));
		const aclFile = join(folder, "rules.yaml");
		writeFileSync(aclFile, rules);
		return startBroker(t, { ...TENANTS, aclDefault: "deny", aclFile });
	}

	/** A token that leaves everything to the rules. */
	const bare = async (tenant: string, sub: string) => ({ token: await token({ tenant, sub, acl: undefined }), clientId: sub });

	it("rules are about the names that clients use, and may say which tenants they mean", async (t) => {
		const broker = await withRules(
			t,
			`rules:
  - { permission: allow, action: all, topic: "shop/#", tenants: [acme] }
  - { permission: allow, action: all, topic: "\${tenant}/\${clientid}/#" }
  - { permission: allow, action: all, topics: ["$tenant/bolt/#", "$tenant/#"] }
`,
		);
		const acme = await login(broker, await bare("acme", "one"));
		const bolt = await login(broker, await bare("bolt", "one"));
		assert.equal(await filterCode(acme, "shop/+"), 1);
		assert.equal(await filterCode(bolt, "shop/+"), NOT_AUTHORIZED);
		assert.equal(await filterCode(bolt, "bolt/one/#"), 1);
		assert.equal(await filterCode(acme, "bolt/one/#"), NOT_AUTHORIZED);
		assert.equal(await filterCode(acme, "#"), NOT_AUTHORIZED);
		for (const client of [acme, bolt]) assert.equal(await filterCode(client, "$tenant/bolt/#"), NOT_AUTHORIZED);
		assert.equal((await bolt.publishAcked("shop/a", "")).reasonCode, NOT_AUTHORIZED);
		assert.equal((await acme.publishAcked("$tenant/bolt/one/x", "")).reasonCode, NOT_AUTHORIZED);
		assert.equal((await acme.publishAcked("bolt/one/x", "")).reasonCode, NOT_AUTHORIZED);
		const outside = await login(broker, {});
		for (const filter of ["shop/#", "$tenant/bolt/#"]) assert.equal(await filterCode(outside, filter), NOT_AUTHORIZED);
		const will = { topic: "shop/will", payload: "", qos: 0, retain: false };
		assert.equal(await refusedWith(broker, { ...(await bare("bolt", "two")), will }), NOT_AUTHORIZED);
		await login(broker, { ...(await bare("acme", "two")), will });
	});

	it("a topic that an alias stands for is decided by the client's own name for it, each time", async (t) => {
		const broker = await withRules(t, 'rules: [{ permission: allow, action: all, topic: "open/#" }]');
		const client = await login(broker, await bare("acme", "one"));
		const properties = { topicAlias: 1 };
		assert.equal((await client.publishAcked("open/x", "", { properties })).reasonCode, 0x10);
		assert.equal((await client.publishAcked("", "", { properties })).reasonCode, 0x10);
		assert.equal((await client.publishAcked("closed", "", { properties })).reasonCode, NOT_AUTHORIZED);
		assert.equal((await client.publishAcked("", "", { properties })).reasonCode, NOT_AUTHORIZED);
	});

	it("what a tenant's client may not have any more is gone from its session when it comes back", async (t) => {
		const broker = await withRules(t, 'rules: [{ permission: allow, action: publish, topic: "#" }]');
		const granting = async (...sub: string[]) => ({
			token: await token({ tenant: "acme", acl: { pub: ["#"], sub } }),
			clientId: "lasting",
			clean: false,
			properties: { sessionExpiryInterval: 600 },
		});
		const first = await login(broker, await granting("kept/#", "lost/#"));
		await subscribes(first, "kept/+");
		await subscribes(first, "lost/+");
		await first.disconnect();
		const publisher = await login(broker, { ...(await granting()), clientId: "other" });
		for (const topic of ["lost/1", "kept/1"]) await publisher.publishAcked(topic, "x");
		const second = await login(broker, await granting("kept/#"));
		assert.equal(second.connack.sessionPresent, true);
		await takes(second, "kept/1", "x");
		await second.expectNothing();
	});
});
