import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";

const NEVER = 0xffffffff;

describe("limit MAX_SESSION_EXPIRY_SECONDS", () => {
	const none = suiteBroker({ maxSessionExpirySeconds: 0 });
	const short = suiteBroker({ maxSessionExpirySeconds: 1 });

	test("MQTT 5: CONNACK tells the expiry that was granted where it is not the one asked for", async () => {
		for (const [asked, told] of [
			[NEVER, 1],
			[2, 1],
			[1, undefined],
			[0, undefined],
		] as const) {
			const client = await RawClient.connect(short, { properties: { sessionExpiryInterval: asked } });
			assert.equal(client.connack.properties?.sessionExpiryInterval, told, `asked for ${asked}`);
		}
	});

	test("a limit of 0 keeps no session of any version beyond its connection", async () => {
		for (const version of [5, 4, 3] as const) {
			const topic = freshId("topic");
			const options = { version, clientId: freshId(), clean: false, properties: { sessionExpiryInterval: NEVER } };
			const first = await RawClient.connect(none, options);
			await first.subscribe(topic, { qos: 1 });
			await none.shoal.publish(topic, "live", { qos: 1 });
			await first.expect("publish", { payload: "live" });
			await first.disconnect();
			await none.shoal.publish(topic, "lost", { qos: 1 });
			const second = await RawClient.connect(none, options);
			assert.equal(second.connack.sessionPresent, false);
			await second.expectNothing();
		}
	});

	test("a session of any version that stays away for longer is gone, whatever CONNECT or DISCONNECT asked for", async () => {
		const sessions = ([5, 4, 3] as const).map((version) => ({
			version,
			topic: freshId("topic"),
			options: { version, clientId: freshId(), clean: false, properties: { sessionExpiryInterval: NEVER } },
		}));
		for (const { version, topic, options } of sessions) {
			const client = await RawClient.connect(short, options);
			await client.subscribe(topic, { qos: 1 });
			await client.disconnect(version === 5 ? { properties: { sessionExpiryInterval: NEVER } } : {});
		}
		await new Promise((resolve) => setTimeout(resolve, 1_100));
		for (const { topic, options } of sessions) {
			await short.shoal.publish(topic, "lost", { qos: 1 });
			const client = await RawClient.connect(short, options);
			assert.equal(client.connack.sessionPresent, false);
			await client.expectNothing();
		}
	});
});

describe("limit TOPIC_ALIAS_MAXIMUM", () => {
	const none = suiteBroker({ topicAliasMaximum: 0 });
	const three = suiteBroker({ topicAliasMaximum: 3 });

	test("CONNACK tells the limit, and nothing where there are no aliases", async () => {
		assert.equal((await RawClient.connect(three)).connack.properties.topicAliasMaximum, 3);
		assert.equal((await RawClient.connect(none)).connack.properties.topicAliasMaximum, undefined);
	});

	test("an alias above the limit is ended with 0x94, one up to it works", async () => {
		const client = await RawClient.connect(three);
		const topic = freshId("topic");
		await client.subscribe(topic);
		client.publish(topic, "set", { properties: { topicAlias: 3 } });
		client.publish("", "used", { properties: { topicAlias: 3 } });
		await client.expect("publish", { topic, payload: "set" });
		await client.expect("publish", { topic, payload: "used" });
		client.publish(topic, "over", { properties: { topicAlias: 4 } });
		await client.expectDisconnect(0x94);
		const other = await RawClient.connect(none);
		other.publish(topic, "over", { properties: { topicAlias: 1 } });
		await other.expectDisconnect(0x94);
	});

	test("the broker itself uses no more aliases than the lesser of both limits", async () => {
		for (const [broker, asked, most] of [
			[three, 65_535, 3],
			[three, 2, 2],
			[three, 0, 0],
			[none, 65_535, 0],
		] as const) {
			const root = freshId("topic");
			const client = await RawClient.connect(broker, { properties: { topicAliasMaximum: asked } });
			await client.subscribe(`${root}/+`);
			const used = new Set<number>();
			for (let round = 0; round < 2; round++) {
				for (let index = 0; index < 5; index++) await broker.shoal.publish(`${root}/${index}`, `${index}`);
				for (let index = 0; index < 5; index++) {
					const { topic, properties } = await client.expect("publish", { payload: `${index}` });
					const alias = properties?.topicAlias;
					if (alias !== undefined) used.add(alias);
					assert.ok(topic === `${root}/${index}` || alias !== undefined);
				}
			}
			assert.equal(used.size, most);
			assert.ok([...used].every((alias) => alias >= 1 && alias <= most));
		}
	});
});
