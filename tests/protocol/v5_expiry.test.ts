/** Message Expiry Interval of MQTT 5.0, section 3.3.2.3.3: what is dropped, what is forwarded, and what goes on regardless. */

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { durable, freshTopic, SESSION_KINDS, take, takeMany, text } from "../support/traffic.ts";

/** Longer than the intervals of a second that the tests use. */
const WAIT_MS = 1_300;
const LONG = 1_000;

/** What happens before the wait; answers what is to be seen after it. */
type Scenario = readonly [title: string, prepare: () => Promise<() => Promise<void>>];

function expiring(seconds: number): AnyPacket {
	return { properties: { messageExpiryInterval: seconds } };
}

/** Asserts that some of the interval has passed, and not all of it. */
function assertReduced(publication: AnyPacket): void {
	const remaining = publication.properties.messageExpiryInterval;
	assert.ok(remaining < LONG && remaining > LONG - 60, `${remaining} s remain of ${LONG}`);
}

describe("message expiry in MQTT 5.0", () => {
	const broker = suiteBroker();

	async function subscribed(options: AnyPacket, filter: string, qos = 1): Promise<RawClient> {
		const client = await RawClient.connect(broker, options);
		await client.subscribe(filter, { qos });
		return client;
	}

	/** One message that expires during the wait, one that does not, one that never does. */
	async function publishThree(topic: (name: string) => string, qos: number, fields: AnyPacket = {}): Promise<void> {
		const publisher = await RawClient.connect(broker);
		await publisher.publishAcked(topic("expired"), "expired", { qos, messageId: 1, ...fields, ...expiring(1) });
		await publisher.publishAcked(topic("kept"), "kept", { qos, messageId: 2, ...fields, ...expiring(LONG) });
		await publisher.publishAcked(topic("unlimited"), "unlimited", { qos, messageId: 3, ...fields });
	}

	/** Asserts that the last two of them come, and nothing else. */
	async function expectTwo(subscriber: RawClient, fields: AnyPacket): Promise<void> {
		const [kept, unlimited] = await takeMany(subscriber, 2);
		assert.deepEqual([text(kept), text(unlimited)], ["kept", "unlimited"]);
		for (const [name, value] of Object.entries(fields)) assert.deepEqual([kept[name], unlimited[name]], [value, value], name);
		assertReduced(kept);
		assert.equal(unlimited.properties?.messageExpiryInterval, undefined);
		await subscriber.expectNothing();
	}

	const scenarios: Scenario[] = [];

	for (const { kind, options } of SESSION_KINDS) {
		for (const qos of [1, 2]) {
			scenarios.push([
				`of what waits for the window of a ${kind} with QoS ${qos} the expired is dropped and the rest has its remaining interval [MQTT-3.3.2-5] [MQTT-3.3.2-6]`,
				async () => {
					const topic = freshTopic();
					const subscriber = await subscribed(options({ receiveMaximum: 1 }), topic, qos);
					const publisher = await RawClient.connect(broker);
					await publisher.publishAcked(topic, "first", { qos });
					const { messageId } = await subscriber.expect("publish", { payload: "first" });
					await publishThree(() => topic, qos);
					return async () => {
						subscriber.send({ cmd: qos === 1 ? "puback" : "pubrec", messageId });
						if (qos === 2) {
							await subscriber.expect("pubrel");
							subscriber.send({ cmd: "pubcomp", messageId });
						}
						await expectTwo(subscriber, { qos });
					};
				},
			]);
		}
		scenarios.push([
			`a QoS 2 delivery to a ${kind} that has begun is completed after the expiry [MQTT-4.3.3-7] [MQTT-4.3.3-13]`,
			async () => {
				const topic = freshTopic();
				const subscriber = await subscribed(options(), topic, 2);
				const publisher = await RawClient.connect(broker);
				await publisher.publishAcked(topic, "x", { qos: 2, ...expiring(1) });
				const { messageId } = await subscriber.expect("publish", { payload: "x" });
				return async () => {
					subscriber.send({ cmd: "pubrec", messageId });
					await subscriber.expect("pubrel", { messageId, reasonCode: 0 });
					subscriber.send({ cmd: "pubcomp", messageId });
					await subscriber.expectNothing();
				};
			},
		]);
		scenarios.push([
			`a QoS 2 publication of a ${kind} is completed after the expiry [MQTT-4.3.3-13]`,
			async () => {
				const publisher = await RawClient.connect(broker, options());
				publisher.publish(freshTopic(), "x", { qos: 2, messageId: 5, ...expiring(1) });
				await publisher.expect("pubrec", { messageId: 5 });
				return async () => {
					publisher.send({ cmd: "pubrel", messageId: 5 });
					await publisher.expect("pubcomp", { messageId: 5, reasonCode: 0 });
				};
			},
		]);
	}

	scenarios.push([
		"a QoS 2 delivery that has begun is sent again under its id after a reconnect beyond the expiry [MQTT-4.3.3-7]",
		async () => {
			const topic = freshTopic();
			const session = durable();
			const first = await subscribed(session, topic, 2);
			const publisher = await RawClient.connect(broker);
			await publisher.publishAcked(topic, "x", { qos: 2, ...expiring(1) });
			const { messageId } = await first.expect("publish", { payload: "x" });
			await first.destroy();
			return async () => {
				const subscriber = await RawClient.connect(broker, session);
				await take(subscriber, { payload: "x", messageId, dup: true });
			};
		},
	]);

	for (const [what, filter] of [
		["an offline session gets", ""],
		["an offline member of a share group gets", "$share/group/"],
	]) {
		scenarios.push([
			`${what} what has not expired, with the interval that remains [MQTT-3.3.2-5] [MQTT-3.3.2-6]`,
			async () => {
				const topic = freshTopic();
				const session = durable();
				await (await subscribed(session, filter + topic)).destroy();
				await publishThree(() => topic, 1);
				return async () => expectTwo(await RawClient.connect(broker, session), { qos: 1 });
			},
		]);
	}

	for (const qos of [0, 1, 2]) {
		scenarios.push([
			`of retained messages a new subscription with QoS ${qos} gets those that have not expired, with the interval that remains [MQTT-3.3.2-5] [MQTT-3.3.2-6]`,
			async () => {
				const topic = freshTopic();
				await publishThree((name) => `${topic}/${name}`, 2, { retain: true });
				return async () => expectTwo(await subscribed({}, `${topic}/#`, qos), { qos, retain: true });
			},
		]);
	}

	const checks = new Map<string, () => Promise<void>>();
	before(async () => {
		for (const [title, prepare] of scenarios) checks.set(title, await prepare());
		await delay(WAIT_MS);
	});
	for (const [title] of scenarios) test(`message expiry: ${title}`, async () => await (checks.get(title) as () => Promise<void>)());

	for (const { kind, options } of SESSION_KINDS) {
		test(`message expiry: a ${kind} that gets a message at once gets its whole interval`, async () => {
			const topic = freshTopic();
			const subscriber = await subscribed(options(), topic, 2);
			const publisher = await RawClient.connect(broker);
			for (const qos of [0, 1, 2]) {
				publisher.publish(topic, "x", { qos, messageId: qos + 1, ...expiring(3_000_000_000) });
				const { messageExpiryInterval } = (await take(subscriber, { qos })).properties;
				assert.ok(messageExpiryInterval > 3_000_000_000 - 60 && messageExpiryInterval <= 3_000_000_000);
			}
		});
	}
});
