/** The next token in the same session: by AUTH 0x19, or by a publication for clients that have no AUTH. New rights and deadline count at once. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
	EVERYWHERE,
	freshSubject,
	granted,
	inSeconds,
	knock,
	type Login,
	login,
	METHOD,
	RENEWAL_TOPIC,
	reauthenticate,
	refusal,
	renew,
	SECRET,
	token,
} from "../support/auth_clients.ts";
import { type AnyPacket, freshId, type RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";

const NOT_AUTHORIZED = 0x87;
/** Of the tokens that are renewed. */
const LIFETIME_SECONDS = 1.5;
/** Between two messages to a client that renews. */
const EVERY_MS = 20;

interface Way {
	readonly name: string;
	readonly login: Login;
	/** Shows the next token, which is taken. */
	renew(client: RawClient, shown: string): Promise<void>;
}

/** Publishes the next token; answers the reason code of the PUBACK, which 3.1.1 has not. */
async function publishToken(client: RawClient, shown: string, fields: AnyPacket = {}): Promise<number | undefined> {
	const { reasonCode } = await client.publishAcked(RENEWAL_TOPIC, shown, fields);
	return reasonCode;
}

const BY_AUTH: Way = { name: "AUTH 0x19", login: { carrier: "auth" }, renew };
const BY_TOPIC: readonly Way[] = ([5, 4, 3] as const).map((version) => ({
	name: `a publication of MQTT level ${version}`,
	login: { version },
	renew: async (client, shown) => assert.equal((await publishToken(client, shown)) ?? 0, 0),
}));

const WAYS = [BY_AUTH, ...BY_TOPIC];

describe("renewing a token in the session", () => {
	const broker = suiteBroker({ ...EVERYWHERE, jwtSecret: SECRET });

	it("a client that renews twice keeps its QoS 1 subscription, loses no message, and is disconnected when it does not renew any more: by AUTH, or by a publication of any version", async () => {
		const renewsTwice = async (way: Way): Promise<void> => {
			const sub = freshSubject();
			const topic = freshId("topic");
			const next = () => token({ sub, exp: inSeconds(LIFETIME_SECONDS) });
			const client = await login(broker, { ...way.login, token: await next() });
			await client.subscribe(topic, { qos: 1 });

			const received: string[] = [];
			let sent = 0;
			const publish = async (): Promise<void> => {
				await broker.shoal.publish(topic, String(sent++), { qos: 1 });
				const { payload, messageId } = await client.expect("publish", { topic, qos: 1, dup: false });
				received.push(payload.toString());
				client.send({ cmd: "puback", messageId });
				await sleep(EVERY_MS);
			};
			for (let renewal = 0; renewal < 2; renewal++) {
				const until = Date.now() + LIFETIME_SECONDS * 600;
				while (Date.now() < until) await publish();
				await way.renew(client, await next());
				await publish();
			}
			assert.deepEqual(
				received,
				Array.from({ length: sent }, (_, n) => String(n)),
				way.name,
			);
			await client.expectDisconnect(NOT_AUTHORIZED);
		};
		await Promise.all(WAYS.map(renewsTwice));
	});

	it("a deadline may come nearer, too: by AUTH, or by a publication of any version", async () => {
		const comesNearer = async (way: Way): Promise<void> => {
			const sub = freshSubject();
			const client = await login(broker, { ...way.login, token: await token({ sub }) });
			await way.renew(client, await token({ sub, exp: inSeconds(1) }));
			await client.expectDisconnect(NOT_AUTHORIZED);
		};
		await Promise.all(WAYS.map(comesNearer));
	});

	for (const way of WAYS) {
		it(`by ${way.name}: rights that are wider or narrower count for the next publication and subscription`, async () => {
			const sub = freshSubject();
			const base = freshId("base");
			const client = await login(broker, { ...way.login, token: await token({ sub, acl: { pub: [`${base}/a`] } }) });
			const watcher = await login(broker, { token: await token() });
			await watcher.subscribe(`${base}/#`);
			const publish = async (): Promise<void> => {
				for (const level of ["a", "b"]) client.publish(`${base}/${level}`, level);
				await client.expectNothing();
			};
			await publish();
			await watcher.expect("publish", { payload: "a" });
			await watcher.expectNothing();

			await way.renew(client, await token({ sub, acl: { pub: [`${base}/+`], sub: [`${base}/b`] } }));
			await publish();
			for (const payload of ["a", "b"]) await watcher.expect("publish", { payload });
			assert.deepEqual(
				granted(await client.subscribe(`${base}/c`)).at(0),
				way.login.version === undefined || way.login.version === 5 ? NOT_AUTHORIZED : 0x80,
			);

			await way.renew(client, await token({ sub, acl: { pub: [`${base}/b`] } }));
			await publish();
			await watcher.expect("publish", { payload: "b" });
			await watcher.expectNothing();
			await client.disconnect();
			await watcher.disconnect();
		});

		it(`by ${way.name}: a client that has a subscription which it may not have any more gets nothing of it, is sent away at once, and comes back without it`, async () => {
			const sub = freshSubject();
			const base = freshId("base");
			const clientId = freshId();
			const version = way.login.version ?? 5;
			const session = { clientId, clean: false, ...(version === 5 && { properties: { sessionExpiryInterval: 300 } }) };
			const wide = await token({ sub, acl: { sub: [`${base}/+`] } });
			const narrow = await token({ sub, acl: { sub: [`${base}/b`] } });
			const client = await login(broker, { ...way.login, ...session, token: wide });
			for (const level of ["a", "b"]) await client.subscribe(`${base}/${level}`, { qos: 1 });
			await way.renew(client, narrow);
			await client.expectDisconnect(NOT_AUTHORIZED);
			for (const level of ["a", "b"]) await broker.shoal.publish(`${base}/${level}`, level, { qos: 1 });
			const back = await login(broker, { ...way.login, ...session, token: narrow });
			if (version > 3) assert.equal(back.connack.sessionPresent, true);
			const { messageId } = await back.expect("publish", { topic: `${base}/b`, payload: "b" });
			back.send({ cmd: "puback", messageId });
			await broker.shoal.publish(`${base}/a`, "live", { qos: 1 });
			await back.expectNothing();
			await back.disconnect();
		});

		it(`by ${way.name}: a will that the new token does not allow is not published; one that it allows is`, async () => {
			const base = freshId("wills");
			const watcher = await login(broker, { token: await token() });
			await watcher.subscribe(`${base}/#`);
			for (const [allowed, payload] of [
				["other", "no"],
				["#", "yes"],
			] as const) {
				const sub = freshSubject();
				const will = { topic: `${base}/${payload}`, payload, qos: 0, retain: false };
				const client = await login(broker, { ...way.login, will, token: await token({ sub }) });
				const next = await token({ sub, acl: { pub: [allowed] } });
				if (payload === "yes") {
					await way.renew(client, next);
					await client.destroy();
				} else {
					if (way === BY_AUTH) reauthenticate(client, next);
					else client.publish(RENEWAL_TOPIC, next);
					const last = (await client.receiveUntilClosed()).at(-1);
					if (way === BY_AUTH) assert.equal(last.reasonCode, NOT_AUTHORIZED);
				}
			}
			await watcher.expect("publish", { payload: "yes" });
			await watcher.expectNothing();
			await watcher.disconnect();
		});
	}

	it("by AUTH: a token of somebody else, a bad one, none, and one that has ended close the connection with 0x87; the session stays, and is taken up with a good one", async () => {
		const sub = freshSubject();
		const session = { clean: false, clientId: freshId(), properties: { sessionExpiryInterval: 300 } };
		const bad = [await token({ sub: freshSubject() }), `${await token({ sub })}x`, "", await token({ sub, exp: inSeconds(-1) })];
		for (const [index, shown] of bad.entries()) {
			const client = await login(broker, { ...session, carrier: "auth", token: await token({ sub }) });
			assert.equal(client.connack.sessionPresent, index > 0);
			reauthenticate(client, shown);
			await client.expectDisconnect(NOT_AUTHORIZED);
		}
		const client = await login(broker, { ...session, carrier: "auth", token: await token({ sub }) });
		client.send({ cmd: "auth", reasonCode: 0x19, properties: { authenticationMethod: METHOD } });
		await client.expectDisconnect(NOT_AUTHORIZED);
	});

	for (const version of [5, 4] as const) {
		it(`by a publication of MQTT level ${version}: a bad token changes nothing, and MQTT 5 is told 0x87`, async () => {
			const sub = freshSubject();
			const topic = freshId("topic");
			const client = await login(broker, { version, token: await token({ sub }) });
			await client.subscribe(topic);
			for (const shown of [
				await token({ sub: freshSubject() }),
				`${await token({ sub })}x`,
				"",
				await token({ sub, exp: inSeconds(-1) }),
			]) {
				const told = await publishToken(client, shown);
				if (version === 5) assert.equal(told, NOT_AUTHORIZED);
			}
			client.publish(topic, "still here");
			await client.expect("publish", { payload: "still here" });
			await client.disconnect();
		});
	}

	it("a token that is published reaches nobody: no subscriber of any kind, no retained message, no later one", async () => {
		const sub = freshSubject();
		const watcher = await login(broker, { token: await token({ acl: { all: ["#", "$SYS/#"] } }) });
		const filters = ["#", "+/+/+", "$SYS/#", RENEWAL_TOPIC, `$share/g/${RENEWAL_TOPIC}`];
		for (const filter of filters) await watcher.subscribe(filter, { qos: 2 });
		const client = await login(broker, { token: await token({ sub }) });
		for (const qos of [1, 2]) {
			const { reasonCode } = await client.publishAcked(RENEWAL_TOPIC, await token({ sub }), { qos, retain: true });
			assert.equal(reasonCode ?? 0, 0);
		}
		client.publish(RENEWAL_TOPIC, await token({ sub }), { retain: true });
		await client.expectNothing();
		for (const filter of filters) await watcher.subscribe(filter, { qos: 2 });
		await watcher.expectNothing();
		const will = { topic: RENEWAL_TOPIC, payload: "x", qos: 0, retain: false };
		assert.equal(await refusal(await knock(broker, { token: await token(), will })), NOT_AUTHORIZED);
	});

	it("a token that came with the upgrade request is renewed by a publication", async () => {
		const renews = async (carrier: "cookie" | "header" | "query"): Promise<void> => {
			const sub = freshSubject();
			const exp = inSeconds(1);
			const client = await login(broker, { carrier, token: await token({ sub, exp }) });
			assert.equal(await publishToken(client, await token({ sub })), 0);
			await sleep(exp * 1000 - Date.now() + 500);
			await client.expectNothing();
			await client.disconnect();
		};
		await Promise.all((["cookie", "header", "query"] as const).map(renews));
	});
});
