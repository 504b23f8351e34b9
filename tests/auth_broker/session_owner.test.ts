/**
 * Client ids that somebody else has (FAULTS 66): on one replica, and on two of both runtimes where the other one comes to either.
 * Only the name counts: neither the token that it was shown nor the way it was proven.
 */

import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { knock, type Login, login, refusedWith, SECRET, token } from "../support/auth_clients.ts";
import { freshId, type RawClient } from "../support/raw_client.ts";
import { startReplicas } from "../support/replicas.ts";
import { startServer, suiteCleanup } from "../support/server_process.ts";

const NOT_VALID = 0x85;
const NOT_VALID_V3 = 2;
const RACES = 20;
const durable = { clean: false, properties: { sessionExpiryInterval: 300 } };

interface Place {
	readonly wsPort: number;
}

for (const replicas of [1, 2] as const) {
	describe(`client ids of somebody else, with ${replicas === 1 ? "one replica" : "two replicas"}`, () => {
		const t = suiteCleanup();
		let places: readonly Place[];

		before(async () => {
			const env = { JWT_SECRET: SECRET, ALLOW_ANONYMOUS: "true", TRUSTED_PROXIES: "1" };
			if (replicas === 1) places = [await startServer(t, env)];
			else {
				const { a, b } = await startReplicas(t, { runtimes: ["own", "other"], env });
				places = [a, b];
			}
		});

		const home = (): Place => places[0] as Place;
		const as = async (sub: string, options: Login): Promise<Login> => ({ ...options, token: await token({ sub }) });

		async function assertAllRefused(clientId: string, others: readonly Login[]): Promise<void> {
			for (const place of places) {
				for (const other of others) {
					for (const clean of [true, false]) {
						assert.equal(await refusedWith(place, { ...other, clientId, ...durable, clean }), NOT_VALID);
						assert.equal(await refusedWith(place, { ...other, clientId, version: 4, clean }), NOT_VALID_V3);
					}
				}
			}
		}

		/** That it is connected, and hears of its topic. */
		async function assertThere(client: RawClient, topic: string): Promise<void> {
			client.publish(topic, "there");
			await client.expect("publish", { topic, payload: "there" });
		}

		for (const [what, how] of [
			["a session of 300 s", durable],
			["a session that ends with its connection", {}],
		] as const) {
			it(`fault 66: who comes with another name or with none is told 0x85 while the owner of ${what} is connected, who does not notice`, async () => {
				const [clientId, topic] = [freshId(), freshId("topic")];
				const will = { topic, payload: "will", qos: 0, retain: false };
				const owner = await login(home(), await as("alice", { clientId, ...how, will }));
				await owner.subscribe(topic);
				await assertAllRefused(clientId, [await as("bob", {}), {}]);
				await assertThere(owner, topic);
				await owner.disconnect();
			});
		}

		it("fault 66: a session without a connection waits for its owner, and an anonymous client's for one without a name", async () => {
			const [clientId, anonymousId] = [freshId(), freshId()];
			await (await login(home(), await as("alice", { clientId, ...durable }))).disconnect();
			await (await login(home(), { clientId: anonymousId, ...durable })).disconnect();
			await assertAllRefused(clientId, [await as("bob", {}), {}]);
			await assertAllRefused(anonymousId, [await as("bob", {})]);
			for (const place of places) {
				const owner = await login(place, await as("alice", { clientId, ...durable }));
				assert.equal(owner.connack.sessionPresent, true);
				await owner.disconnect();
				const anonymous = await login(place, { clientId: anonymousId, ...durable });
				assert.equal(anonymous.connack.sessionPresent, true);
				await anonymous.disconnect();
			}
		});

		it("the owner takes its own session over, with another token and from wherever it is", async () => {
			const clientId = freshId();
			let before = await login(home(), await as("alice", { clientId, ...durable }));
			for (const place of [...places, ...places]) {
				const next = await login(place, { clientId, ...durable, carrier: "auth", token: await token({ sub: "alice", jti: freshId() }) });
				assert.equal(next.connack.sessionPresent, true);
				await before.expectDisconnect(0x8e);
				before = next;
			}
			await before.disconnect();
		});

		it("a client id that nobody uses any more is anybody's", async () => {
			const clientId = freshId();
			for (const sub of ["alice", "bob", "alice"]) {
				const client = await login(places.at(-1) as Place, await as(sub, { clientId }));
				assert.equal(client.connack.sessionPresent, false);
				await client.disconnect();
			}
		});

		it(`fault 66: of those who come at the same time the owner gets in, ${RACES} times, and nobody else`, async () => {
			const clientId = freshId();
			const [alice, bob] = [await as("alice", { clientId, ...durable }), await as("bob", { clientId, ...durable })];
			await (await login(home(), alice)).disconnect();
			for (let race = 0; race < RACES; race++) {
				const thieves = await Promise.all(places.map((place) => knock(place, bob)));
				const owner = await login(places[race % places.length] as Place, alice);
				assert.equal(owner.connack.sessionPresent, true);
				for (const thief of thieves) await thief.expect("connack", { reasonCode: NOT_VALID });
				await owner.disconnect();
			}
		});
	});
}
