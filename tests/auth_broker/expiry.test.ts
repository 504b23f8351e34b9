/** A token that ends while its client is connected (FAULTS 43), whichever way it came: the client is sent away within seconds, and told why. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EVERYWHERE, freshSubject, inSeconds, knock, login, RENEWAL_TOPIC, refusal, SECRET, token } from "../support/auth_clients.ts";
import { type ConnectOptions, freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";

const LIFETIME_SECONDS = 1;
/** What FAULTS 43 allows. */
const LATE_MS = 5000;

describe("the end of a token", () => {
	const broker = suiteBroker({ ...EVERYWHERE, jwtSecret: SECRET });

	const overTcp = async (options: ConnectOptions & { token: string }) =>
		RawClient.connect(broker, { ...options, username: "anything", password: options.token });

	it("fault 43: every client is disconnected at the end of its token, not before and at most 5 s after; its will is published, its session stays", async () => {
		const watcher = await login(broker, { token: await token() });
		const base = freshId("wills");
		await watcher.subscribe(`${base}/#`, { qos: 1 });

		const durable = { clean: false, properties: { sessionExpiryInterval: 300 } };
		const kinds: readonly (readonly [string, (shown: string, options: ConnectOptions) => Promise<RawClient>, 3 | 4 | 5])[] = [
			...(["password", "header", "cookie", "query", "auth"] as const).map(
				(carrier) =>
					[carrier, (shown: string, options: ConnectOptions) => login(broker, { ...options, carrier, token: shown }), 5] as const,
			),
			["3.1.1", (shown, options) => login(broker, { ...options, token: shown }), 4],
			["3.1", (shown, options) => login(broker, { ...options, token: shown }), 3],
			["5.0 over TCP", (shown, options) => overTcp({ ...options, token: shown }), 5],
			["3.1.1 over TCP", (shown, options) => overTcp({ ...options, token: shown }), 4],
		];
		await Promise.all(
			kinds.map(async ([kind, connect, version]) => {
				const clientId = freshId();
				const exp = inSeconds(LIFETIME_SECONDS);
				const will = { topic: `${base}/${kind}`, payload: kind, qos: 1, retain: false };
				const session = version === 5 ? durable : { clean: false };
				const client = await connect(await token({ exp }), { version, clientId, will, ...session });
				await client.expectDisconnect(0x87);
				const late = Date.now() - exp * 1000;
				assert.ok(late >= 0, `${kind}: ${-late} ms too early`);
				assert.ok(late <= LATE_MS, `${kind}: ${late} ms late`);
				if (client.closeCode !== undefined) assert.equal(client.closeCode, 1008, kind);
				const back = await connect(await token(), { version, clientId, ...session });
				if (version !== 3) assert.equal(back.connack.sessionPresent, true, kind);
				await back.disconnect();
			}),
		);
		const wills: string[] = [];
		for (const _kind of kinds) {
			const { payload, messageId } = await watcher.expect("publish", { qos: 1, retain: false });
			wills.push(payload.toString());
			watcher.send({ cmd: "puback", messageId });
		}
		assert.deepEqual(wills.toSorted(), kinds.map(([kind]) => kind).toSorted());
		await watcher.expectNothing();
	});

	it("fault 43: messages of the last moment are not lost: they wait for the client to come back with a new token", async () => {
		const clientId = freshId();
		const topic = freshId("topic");
		const session = { clientId, clean: false, properties: { sessionExpiryInterval: 300 } };
		const client = await login(broker, { ...session, token: await token({ exp: inSeconds(1) }) });
		await client.subscribe(topic, { qos: 1 });
		await client.expectDisconnect(0x87);
		await broker.shoal.publish(topic, "meanwhile", { qos: 1 });
		const back = await login(broker, { ...session, token: await token() });
		const { messageId } = await back.expect("publish", { topic, payload: "meanwhile", qos: 1 });
		back.send({ cmd: "puback", messageId });
		await back.disconnect();
	});

	it("fault 43: a client that shows an expired token to renew its own gains no time", async () => {
		const exp = inSeconds(1);
		const own = freshSubject();
		const [expired, good] = [await token({ sub: own, exp: inSeconds(-1) }), await token({ sub: own, exp })];
		const client = await login(broker, { version: 4, token: good });
		client.publish(RENEWAL_TOPIC, expired);
		await client.expectClosed();
		assert.ok(Date.now() >= exp * 1000);
	});

	it("the will of a client that was refused is not published, nor that of one whose token ended before its CONNECT", async () => {
		const watcher = await login(broker, { token: await token() });
		const topic = freshId("wills");
		await watcher.subscribe(topic);
		const will = { topic, payload: "no", qos: 0, retain: false };
		assert.equal(await refusal(await knock(broker, { token: await token({ exp: inSeconds(-1) }), will })), 0x86);
		await watcher.expectNothing();
	});
});
