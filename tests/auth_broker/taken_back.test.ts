/**
 * What operators take back over the admin API (FAULTS 44, 57–60): it counts on every replica within two seconds, for connections,
 * wills, queues and what is retained. On one replica, and on two of both runtimes where the API is asked at one and the clients
 * are at the other.
 */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { generateSigningKey } from "../../src/auth/token_issuer.ts";
import {
	freshAddress,
	granted,
	inSeconds,
	knock,
	type Login,
	login,
	reauthenticate,
	refusal,
	refusedWith,
	renew,
	SECRET,
	token,
} from "../support/auth_clients.ts";
import { type AnyPacket, freshId, type RawClient } from "../support/raw_client.ts";
import { requestUpgrade } from "../support/raw_websocket.ts";
import { startReplicas } from "../support/replicas.ts";
import { createFolder, startServer, suiteCleanup } from "../support/server_process.ts";

const ADMIN_TOKEN = "a-token-of-operators";
const NOT_AUTHORIZED = 0x87;
const BANNED = 0x8a;
const ADMINISTRATIVE_ACTION = 0x98;
/** What FAULTS 44 allows. */
const LATE_MS = 2000;
const durable = { clean: false, properties: { sessionExpiryInterval: 300 } };

interface Place {
	readonly wsPort: number;
}

for (const replicas of [1, 2] as const) {
	describe(`what is taken back, with ${replicas === 1 ? "one replica" : "two replicas"}`, () => {
		const t = suiteCleanup();
		/** Where operators are. */
		let office: Place;
		/** Where clients are. */
		let field: Place;

		before(async () => {
			const tokenKey = join(createFolder(t), "key.json");
			writeFileSync(tokenKey, JSON.stringify(await generateSigningKey()));
			const env = {
				ADMIN_TOKEN,
				JWT_SECRET: SECRET,
				JWT_USERNAME_CLAIM: "name",
				STORED_USERS: "true",
				STORED_RULES: "true",
				TOKEN_KEY_FILE: tokenKey,
				TRUSTED_PROXIES: "1",
			};
			if (replicas === 1) {
				office = await startServer(t, env);
				field = office;
			} else {
				const { a, b } = await startReplicas(t, { runtimes: ["own", "other"], env });
				[office, field] = [a, b];
			}
		});

		async function api(method: string, path: string, body?: object): Promise<AnyPacket> {
			const response = await fetch(`http://127.0.0.1:${office.wsPort}/api/v1${path}`, {
				method,
				headers: { authorization: `Bearer ${ADMIN_TOKEN}`, "content-type": "application/json" },
				...(body !== undefined && { body: JSON.stringify(body) }),
			});
			const text = await response.text();
			assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
			return text === "" ? undefined : JSON.parse(text);
		}
		const revoke = (kind: string, value: string) => api("POST", "/revocations", { kind, value });
		const ban = (kind: string, value: string) => api("PUT", `/bans/${kind}/${encodeURIComponent(value)}`, {});

		const shown = (claims: object = {}): Promise<string> => token({ name: freshId("name"), iat: inSeconds(-60), ...claims });
		const free = (options: Login = {}) => shown().then((made) => login(field, { ...options, token: made }));

		/** Ways to lose everything: what the client is, how it is taken back, and what its connection and its next CONNECT are told. */
		interface Way {
			readonly name: string;
			readonly claims: (id: string) => object;
			readonly takeBack: (id: string) => Promise<unknown>;
			readonly told: readonly number[];
			readonly refused: readonly number[];
		}
		const WAYS: readonly Way[] = [
			{
				name: "a token by its jti",
				claims: (id) => ({ jti: id }),
				takeBack: (id) => revoke("token", id),
				told: [NOT_AUTHORIZED],
				refused: [NOT_AUTHORIZED],
			},
			{
				name: "what a client id was given",
				claims: () => ({}),
				takeBack: (id) => revoke("clientId", id),
				told: [NOT_AUTHORIZED],
				refused: [NOT_AUTHORIZED],
			},
			{
				name: "what a user was given",
				claims: (id) => ({ name: id }),
				takeBack: (id) => revoke("user", id),
				told: [NOT_AUTHORIZED],
				refused: [NOT_AUTHORIZED],
			},
			{
				name: "a client id by a ban",
				claims: () => ({}),
				takeBack: (id) => ban("clientId", id),
				told: [NOT_AUTHORIZED, ADMINISTRATIVE_ACTION],
				refused: [NOT_AUTHORIZED, BANNED],
			},
			{
				name: "a user by a ban",
				claims: (id) => ({ name: id }),
				takeBack: (id) => ban("user", id),
				told: [NOT_AUTHORIZED, ADMINISTRATIVE_ACTION],
				refused: [NOT_AUTHORIZED, BANNED],
			},
		];

		for (const { name, claims, takeBack, told, refused } of WAYS) {
			it(`faults 44 and 57: ${name}: connections end within 2 s without their will, the next is refused, whichever way it comes; others stay`, async () => {
				const [id, topic] = [freshId("id"), freshId("topic")];
				const bystander = await free();
				await bystander.subscribe(`${topic}/#`, { qos: 1 });
				const made = await shown(claims(id));
				const will = { topic: `${topic}/will`, payload: "no", qos: 1, retain: true };
				const client = await login(field, { clientId: id, will, ...durable, token: made });
				await client.subscribe(`${topic}/a`, { qos: 1 });
				const from = Date.now();
				await takeBack(id);
				const packets = await client.receiveUntilClosed();
				assert.ok(Date.now() - from <= LATE_MS, `${Date.now() - from} ms`);
				assert.ok(told.includes(packets.at(-1)?.reasonCode), JSON.stringify(packets));
				assert.equal(client.closeCode, 1008);
				for (const place of [office, field]) {
					for (const version of [4, 5] as const) {
						const code = await refusedWith(place, { clientId: id, version, token: made });
						assert.ok(version === 5 ? refused.includes(code) : code === 5, String(code));
					}
				}
				const again = await knock(field, { clientId: id, ...durable, carrier: "auth", token: made });
				assert.ok(refused.includes(await refusal(again)));
				await bystander.expectNothing();
				await bystander.subscribe(`${topic}/will`);
				await bystander.expectNothing();
				await bystander.disconnect();
			});
		}

		/** What stays behind when a client is gone: of those of client ids the store knows whose it is, of the others it would have to remember. */
		for (const [whose, ways] of [
			["a client id", WAYS.filter(({ name }) => name.includes("client id"))],
			["a token or a user", WAYS.filter(({ name }) => !name.includes("client id"))],
		] as const) {
			it(`fault 57: a will that waits for its delay is not published when ${whose} is taken back meanwhile`, async () => {
				const topic = freshId("topic");
				const bystander = await free();
				await bystander.subscribe(`${topic}/#`);
				const will = (level: string, willDelayInterval: number) => ({
					topic: `${topic}/${level}`,
					payload: level,
					qos: 0,
					retain: false,
					properties: { willDelayInterval },
				});
				for (const { name, claims, takeBack } of ways) {
					const id = freshId("id");
					const client = await login(field, { clientId: id, will: will(name, 1), ...durable, token: await shown(claims(id)) });
					await client.destroy();
					await takeBack(id);
				}
				await (await free({ will: will("of another", 2), ...durable })).destroy();
				await bystander.expect("publish", { payload: "of another" });
				await bystander.expectNothing();
				await bystander.disconnect();
			});

			it(`fault 58: what a writer has retained is withheld when ${whose} is taken back`, async () => {
				const topic = freshId("topic");
				const writer = await free();
				await writer.publishAcked(`${topic}/z`, "of another", { retain: true });
				for (const [n, { name, claims, takeBack }] of ways.entries()) {
					const id = freshId("id");
					const client = await login(field, { clientId: id, token: await shown(claims(id)) });
					await client.publishAcked(`${topic}/${n}`, name, { retain: true });
					await takeBack(id);
					await client.receiveUntilClosed();
				}
				const reader = await free();
				await reader.subscribe(`${topic}/#`);
				await reader.expect("publish", { payload: "of another", retain: true });
				await reader.expectNothing();
				for (const each of [writer, reader]) await each.disconnect();
			});
		}

		it("fault 44: a token that was issued after the revocation is good; one that renews by AUTH with a revoked token is sent away", async () => {
			const clientId = freshId();
			const old = await shown({ sub: clientId, name: "n" });
			await revoke("clientId", clientId);
			const fresh = await shown({ sub: clientId, name: "n", iat: inSeconds(1) });
			await sleep(LATE_MS / 2);
			const client = await login(field, { clientId, carrier: "auth", token: fresh });
			await renew(client, await shown({ sub: clientId, name: "n", iat: inSeconds(1) }));
			reauthenticate(client, old);
			await client.expectDisconnect(NOT_AUTHORIZED);
		});

		it("the will of a client that was let in again after a revocation is published", async () => {
			const [clientId, topic] = [freshId(), freshId("topic")];
			const bystander = await free();
			await bystander.subscribe(topic);
			await revoke("clientId", clientId);
			await sleep(LATE_MS / 2);
			const will = { topic, payload: "gone", qos: 0, retain: false };
			const client = await login(field, { clientId, will, token: await shown({ iat: inSeconds(1) }) });
			await client.destroy();
			await bystander.expect("publish", { payload: "gone" });
			await bystander.disconnect();
		});

		it("fault 44: an address that is banned is refused, and its connections end; another is not", async () => {
			const address = freshAddress();
			const client = await free({ address });
			const other = await free();
			await ban("address", address);
			const packets = await client.receiveUntilClosed();
			assert.ok([NOT_AUTHORIZED, ADMINISTRATIVE_ACTION].includes(packets.at(-1)?.reasonCode), JSON.stringify(packets));
			for (const { wsPort: port } of [office, field])
				assert.equal((await requestUpgrade({ port, headers: { "x-forwarded-for": address } })).status, 403);
			await other.expectNothing();
			await other.disconnect();
		});

		it("fault 44: a client that is kicked is told 0x98, its session stays, and it may come again", async () => {
			const clientId = freshId();
			const options = { clientId, ...durable, token: await shown() };
			const client = await login(field, options);
			await api("DELETE", `/clients/${clientId}`);
			await client.expectDisconnect(ADMINISTRATIVE_ACTION);
			const back = await login(field, options);
			assert.equal(back.connack.sessionPresent, true);
			await back.disconnect();
		});

		it("faults 59 and 60: rules that change over the API count within 2 s, live and for sessions that are resumed", async () => {
			const [id, topic] = [freshId("rule"), freshId("topic")];
			const rule = (topics: string[]) => api("PUT", `/rules/${id}`, { position: 1, rule: { permission: "allow", action: "all", topics } });
			const connect = (clientId: string) =>
				shown({ acl: undefined, name: "ruled" }).then((made) => login(field, { clientId, ...durable, token: made }));
			await rule([`${topic}/a`, `${topic}/b`]);
			const [live, offline] = [freshId(), freshId()];
			const subscribed = async (clientId: string): Promise<RawClient> => {
				const client = await connect(clientId);
				const until = Date.now() + LATE_MS;
				for (const level of ["a", "b"]) {
					let [code] = granted(await client.subscribe(`${topic}/${level}`, { qos: 1 }));
					while (code !== 1 && Date.now() < until) [code] = granted(await client.subscribe(`${topic}/${level}`, { qos: 1 }));
					assert.equal(code, 1);
				}
				return client;
			};
			const [first, second] = [await subscribed(live), await subscribed(offline)];
			await second.disconnect();
			const publisher = await free();
			for (const level of ["a", "b"]) await publisher.publishAcked(`${topic}/${level}`, level);
			for (let n = 0; n < 2; n++) {
				const { messageId } = await first.expect("publish");
				first.send({ cmd: "puback", messageId });
			}
			const from = Date.now();
			await rule([`${topic}/b`]);
			await first.expectDisconnect(NOT_AUTHORIZED);
			assert.ok(Date.now() - from <= LATE_MS, `${Date.now() - from} ms`);
			for (const level of ["a", "b"]) await publisher.publishAcked(`${topic}/${level}`, `${level} later`);
			for (const [clientId, expected] of [
				[live, ["b later"]],
				[offline, ["b", "b later"]],
			] as const) {
				const client = await connect(clientId);
				assert.equal(client.connack.sessionPresent, true);
				for (const payload of expected) {
					const { messageId } = await client.expect("publish", { payload });
					client.send({ cmd: "puback", messageId });
				}
				await client.expectNothing();
				await client.disconnect();
			}
			await publisher.disconnect();
		});

		it("users and tokens that operators make are good everywhere at once, and no more when they are deleted", async () => {
			const [username, clientId] = [freshId("user"), freshId("issued")];
			await api("PUT", `/users/${username}`, { password: "correct horse", rules: [{ permission: "allow", action: "all", topics: ["#"] }] });
			const user = await login(field, { username, password: "correct horse" });
			assert.deepEqual(granted(await user.subscribe("a")), [0]);
			const { token: issued, jti } = await api("POST", "/tokens", { clientId, acl: { all: ["#"] }, lifetimeSeconds: 60 });
			const holder = await login(field, { clientId: "", token: issued });
			assert.equal(holder.connack.properties.assignedClientIdentifier, clientId);
			assert.equal(await refusedWith(field, { clientId: freshId(), token: issued }), 0x85);
			const from = Date.now();
			await api("DELETE", `/users/${username}`);
			await api("DELETE", `/tokens/${jti}`);
			for (const client of [user, holder]) {
				const packets = await client.receiveUntilClosed();
				assert.ok(packets.at(-1)?.reasonCode >= 0x80);
			}
			assert.ok(Date.now() - from <= LATE_MS, `${Date.now() - from} ms`);
			assert.ok((await refusedWith(field, { username, password: "correct horse" })) >= 0x80);
			assert.equal(await refusedWith(field, { token: issued, clientId }), NOT_AUTHORIZED);
		});
	});
}
