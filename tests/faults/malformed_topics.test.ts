import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { field, packet, props, u16 } from "../mqtt/wire.ts";
import { assertServes } from "../support/canary.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";

/** Names that mean something to JavaScript objects. */
const HOSTILE = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "valueOf"];

describe("malformed topics and hostile names", () => {
	const broker = suiteBroker();

	for (const version of [5, 4, 3] as const) {
		const failure = version === 5 ? 0x8f : 0x80;
		const empty = version === 5 ? [0] : [];

		for (const transport of ["ws", "tcp"] as const) {
			test(`fault 10, MQTT level ${version} over ${transport}: an invalid filter fails alone, its neighbours are granted`, async () => {
				const client = await RawClient.connect(broker, { version, transport });
				const root = freshId("topic");
				const bad = ["a/#/b", "a+", "+a", "a#", "#/", "", "$share//t", "$share/g", "$share/g/", "$share/+/t", "$share/#/t", "$share/g/a+"];
				const filters = bad.flatMap((filter, index) => [`${root}/${index}`, filter]);
				client.sendBytes(packet(0x82, u16(9), empty, ...filters.flatMap((filter) => [field(filter), [1]])));
				const { granted } = await client.expect("suback", { messageId: 9 });
				assert.deepEqual(
					granted,
					bad.flatMap(() => [1, failure]),
				);
				await broker.shoal.publish(`${root}/3`, "hit");
				await client.expect("publish", { topic: `${root}/3` });
				await assertServes(broker);
			});

			test(`fault 11, MQTT level ${version} over ${transport}: a filter with too many levels fails alone, one with the most levels allowed works`, async () => {
				const client = await RawClient.connect(broker, { version, transport });
				const filters = [
					"/".repeat(65_535),
					"/".repeat(128),
					"+/".repeat(128),
					`${"+/".repeat(127)}#`,
					`$share/g/${"/".repeat(128)}`,
					"/".repeat(127),
				];
				client.sendBytes(packet(0x82, u16(9), empty, ...filters.flatMap((filter) => [field(filter), [0]])));
				const { granted } = await client.expect("suback", { messageId: 9 });
				assert.deepEqual(granted, [failure, failure, failure, 0, failure, 0]);
				client.publish("/".repeat(127), "deep");
				await client.expect("publish", { topic: "/".repeat(127), payload: "deep" });
				await assertServes(broker);
			});

			test(`fault 14, MQTT level ${version} over ${transport}: names that JavaScript knows are data as client ids, levels and filters`, async () => {
				for (const name of HOSTILE) {
					const session = { version, transport, clientId: name, clean: false, properties: { sessionExpiryInterval: 1000 } };
					const first = await RawClient.connect(broker, session);
					await first.subscribe(`${name}/${name}`, { qos: 1 });
					await first.subscribe(`${name}/+/retained`, { qos: 1 });
					await first.disconnect();
					await broker.shoal.publish(`${name}/${name}`, name, { qos: 1 });
					await broker.shoal.publish(`${name}/${name}/retained`, name, { qos: 1, retain: true });
					const second = await RawClient.connect(broker, session);
					const topics = [await second.expect("publish", { payload: name }), await second.expect("publish", { payload: name })].map(
						(one) => one.topic,
					);
					assert.deepEqual(topics.sort(), [`${name}/${name}`, `${name}/${name}/retained`]);
					await second.disconnect();
					const clean = await RawClient.connect(broker, { version, transport, clientId: name, clean: true });
					await clean.subscribe(`${name}/#`);
					await clean.expect("publish", { payload: name, retain: true });
					await clean.disconnect();
					await broker.shoal.publish(`${name}/${name}/retained`, "", { retain: true });
				}
				assertUnharmed();
				await assertServes(broker);
			});
		}
	}

	for (const transport of ["ws", "tcp"] as const) {
		test(`fault 14, MQTT 5 over ${transport}: names that JavaScript knows are data as user properties, in PUBLISH, will and CONNECT`, async () => {
			const topic = freshId("topic");
			const watcher = await RawClient.connect(broker, { transport });
			await watcher.subscribe(topic);
			const pairs = HOSTILE.flatMap((name) => [[0x26], field(name), field(name)]);
			const publisher = await RawClient.open(broker, 5, transport);
			const will = [props(...pairs), field(topic), field("will")];
			publisher.sendBytes(packet(0x10, field("MQTT"), [5, 6], u16(0), props(...pairs), field(freshId()), ...will));
			await publisher.expect("connack", { reasonCode: 0 });
			publisher.sendBytes(packet(0x30, field(topic), props(...pairs), [0x78]));
			// Looked for in the bytes: mqtt-packet itself cannot show these names.
			const expected = Buffer.concat([Buffer.from(props(...pairs)), Buffer.from("x")]);
			await watcher.expect("publish", { payload: "x" });
			assert.ok(Buffer.concat(watcher.bytes).includes(expected), "the user properties of the PUBLISH");
			await publisher.destroy();
			await watcher.expect("publish", { payload: "will" });
			const ofWill = Buffer.concat([Buffer.from(props(...pairs)), Buffer.from("will")]);
			assert.ok(Buffer.concat(watcher.bytes).includes(ofWill), "the user properties of the will");
			assertUnharmed();
			await assertServes(broker);
		});
	}
});

/** No object has got a property that it had not. */
function assertUnharmed(): void {
	const fresh: Record<string, unknown> = {};
	for (const name in fresh) assert.fail(`objects have inherited "${name}"`);
	assert.equal(Object.getPrototypeOf(fresh), Object.prototype);
	assert.equal(Object.keys(Object.prototype).length, 0);
	assert.equal(typeof fresh.toString, "function");
}
