/** Topic Alias of MQTT 5.0, section 3.3.2.3.4, in both directions. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { field, packet, props, u16 } from "../mqtt/wire.ts";
import { type AnyPacket, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { acknowledge, breakOff, durable, freshTopic, SESSION_KINDS, take } from "../support/traffic.ts";

const MAXIMUM = 7;

/** Reads the messages of a broker that may use aliases: whatever it does, each must say its topic. */
class AliasReader {
	readonly #client: RawClient;
	readonly #maximum: number;
	readonly #topics = new Map<number, string>();
	/** Messages that came without a topic name. */
	shortened = 0;

	constructor(client: RawClient, maximum: number) {
		this.#client = client;
		this.#maximum = maximum;
	}

	async take(fields: AnyPacket = {}): Promise<AnyPacket> {
		const publication = await this.#client.expect("publish", fields);
		acknowledge(this.#client, publication);
		const alias = publication.properties?.topicAlias;
		if (alias === undefined) assert.notEqual(publication.topic, "", "without alias there is a topic name");
		else {
			assert.ok(alias >= 1 && alias <= this.#maximum, `alias ${alias} is within 1 to ${this.#maximum}`);
			if (publication.topic !== "") this.#topics.set(alias, publication.topic);
			else {
				this.shortened++;
				publication.topic = this.#topics.get(alias);
				assert.notEqual(publication.topic, undefined, `alias ${alias} has been set`);
			}
		}
		return publication;
	}
}

describe("topic aliases in MQTT 5.0", () => {
	const broker = suiteBroker({ topicAliasMaximum: MAXIMUM });

	async function subscribed(filter: string, qos = 2): Promise<RawClient> {
		const client = await RawClient.connect(broker);
		await client.subscribe(filter, { qos });
		return client;
	}

	function aliased(client: RawClient, topic: string, topicAlias: number, payload: string, fields: AnyPacket = {}): void {
		client.publish(topic, payload, { ...fields, properties: { topicAlias } });
	}

	test("topic alias: the broker takes every alias from 1 to its own maximum, and an alias stands for its topic [MQTT-3.3.2-12]", async () => {
		const topic = freshTopic();
		const subscriber = await subscribed(`${topic}/#`);
		const publisher = await RawClient.connect(broker);
		assert.equal(publisher.connack.properties.topicAliasMaximum, MAXIMUM);
		for (let alias = 1; alias <= MAXIMUM; alias++) aliased(publisher, `${topic}/${alias}`, alias, "name and alias");
		for (let alias = MAXIMUM; alias >= 1; alias--) {
			const qos = alias % 3;
			aliased(publisher, "", alias, "alias", { qos, ...(qos > 0 && { messageId: alias }) });
		}
		for (let alias = 1; alias <= MAXIMUM; alias++) await take(subscriber, { topic: `${topic}/${alias}`, payload: "name and alias" });
		const publications: AnyPacket[] = [];
		while (publications.length < MAXIMUM) {
			const received = await subscriber.receive();
			if (received.cmd === "publish") publications.push(received);
			acknowledge(subscriber, received);
		}
		const names = publications.map(({ topic: name }) => name).toSorted();
		assert.deepEqual(
			names,
			Array.from({ length: MAXIMUM }, (_, index) => `${topic}/${index + 1}`),
		);
	});

	test("topic alias: an alias can be given to another topic, and a topic can have several aliases", async () => {
		const topic = freshTopic();
		const subscriber = await subscribed(`${topic}/#`, 0);
		const publisher = await RawClient.connect(broker);
		aliased(publisher, `${topic}/a`, 1, "1");
		aliased(publisher, `${topic}/b`, 1, "2");
		aliased(publisher, "", 1, "3");
		aliased(publisher, `${topic}/b`, 2, "4");
		aliased(publisher, "", 2, "5");
		aliased(publisher, "", 1, "6");
		publisher.publish(`${topic}/a`, "7");
		for (const [level, payload] of ["a1", "b2", "b3", "b4", "b5", "b6", "a7"].map(([level, payload]) => [level, payload])) {
			await take(subscriber, { topic: `${topic}/${level}`, payload });
		}
	});

	test("topic alias: the alias of a publisher is not forwarded, stored or retained", async () => {
		const topic = freshTopic();
		const session = durable();
		const offline = await RawClient.connect(broker, session);
		await offline.subscribe(`${topic}/#`, { qos: 1 });
		await breakOff(broker, offline);
		const online = await subscribed(`${topic}/#`);
		const publisher = await RawClient.connect(broker);
		aliased(publisher, `${topic}/a`, 3, "first", { qos: 1, messageId: 1, retain: true });
		await publisher.expect("puback");
		aliased(publisher, "", 3, "second", { qos: 1, messageId: 2, retain: true });
		await publisher.expect("puback");
		const back = await RawClient.connect(broker, session);
		for (const client of [online, back]) {
			for (const payload of ["first", "second"]) {
				const { properties } = await take(client, { topic: `${topic}/a`, payload });
				assert.equal(properties?.topicAlias, undefined);
			}
		}
		const later = await subscribed(`${topic}/a`);
		const { properties } = await take(later, { topic: `${topic}/a`, payload: "second", retain: true });
		assert.equal(properties?.topicAlias, undefined);
	});

	for (const { kind, options } of SESSION_KINDS) {
		test(`topic alias: the aliases of a ${kind} that publishes end with its connection [MQTT-3.3.2-7]`, async () => {
			const session = options();
			const first = await RawClient.connect(broker, session);
			aliased(first, freshTopic(), 1, "x");
			aliased(first, "", 1, "x");
			await first.expectNothing();
			await first.disconnect();
			const second = await RawClient.connect(broker, session);
			aliased(second, "", 1, "x");
			await second.expectDisconnect(0x82);
		});
	}

	const refused: readonly (readonly [what: string, bytes: Uint8Array, reasonCode: number])[] = [
		["alias 0 is refused [MQTT-3.3.2-8]", packet(0x30, field("a"), props([0x23], u16(0))), 0x94],
		["alias 0 without a name is refused [MQTT-3.3.2-8]", packet(0x30, field(""), props([0x23], u16(0))), 0x94],
		["an alias above the broker's maximum is refused", packet(0x30, field("a"), props([0x23], u16(MAXIMUM + 1))), 0x94],
		["an alias that stands for no topic yet is refused", packet(0x32, field(""), u16(1), props([0x23], u16(1))), 0x82],
		["a second alias in one packet is refused", packet(0x30, field("a"), props([0x23], u16(1), [0x23], u16(1))), 0x82],
	];
	for (const [what, bytes, reasonCode] of refused) {
		test(`topic alias: ${what}`, async () => {
			const client = await RawClient.connect(broker);
			client.sendBytes(bytes);
			await client.expectDisconnect(reasonCode);
		});
	}

	for (const { kind, options } of SESSION_KINDS) {
		for (const qos of [0, 1]) {
			for (const maximum of [0, 1, 3, 65_535]) {
				test(`topic alias: a ${kind} with Topic Alias Maximum ${maximum} gets messages with QoS ${qos} with aliases within that, and each under its topic [MQTT-3.3.2-11] [MQTT-3.3.2-8]`, async () => {
					const topic = freshTopic();
					const client = await RawClient.connect(broker, options({ topicAliasMaximum: maximum }));
					await client.subscribe(`${topic}/#`, { qos });
					const reader = new AliasReader(client, maximum);
					const publisher = await RawClient.connect(broker);
					for (let index = 0; index < 40; index++) {
						const name = `${topic}/${(index * 7) % 10}`;
						publisher.publish(name, name, { qos, ...(qos > 0 && { messageId: index + 1 }) });
						const publication = await reader.take({ payload: name, qos });
						assert.equal(publication.topic, name);
					}
					assert.equal(reader.shortened > 0, maximum > 0, "aliases are used where the client has any");
				});
			}
		}
	}

	test("topic alias: what is sent again after a reconnect has its topic name or an alias of the new connection [MQTT-3.3.2-7]", async () => {
		const topic = freshTopic();
		const session = durable(undefined, { topicAliasMaximum: 5 });
		const first = await RawClient.connect(broker, session);
		await first.subscribe(`${topic}/#`, { qos: 1 });
		const publisher = await RawClient.connect(broker);
		for (const level of ["a", "b", "a", "b"]) {
			await publisher.publishAcked(`${topic}/${level}`, `${topic}/${level}`);
			await first.expect("publish");
		}
		await breakOff(broker, first);
		const second = await RawClient.connect(broker, session);
		const reader = new AliasReader(second, 5);
		for (const level of ["a", "b", "a", "b"]) {
			const publication = await reader.take({ dup: true });
			assert.equal(publication.topic, `${topic}/${level}`);
		}
	});

	test("topic alias: a message too large for the client does not set its alias", async () => {
		const topic = freshTopic();
		const client = await RawClient.connect(broker, { properties: { topicAliasMaximum: 5, maximumPacketSize: 100 } });
		await client.subscribe(`${topic}/#`, { qos: 1 });
		const reader = new AliasReader(client, 5);
		const publisher = await RawClient.connect(broker);
		for (const qos of [0, 1]) {
			for (const payload of ["x".repeat(100), "small", "x".repeat(100), "small"]) {
				publisher.publish(`${topic}/${qos}`, payload, { qos, messageId: 1 });
				if (qos === 1) await publisher.expect("puback");
			}
			for (let times = 0; times < 2; times++) {
				assert.equal((await reader.take({ payload: "small", qos })).topic, `${topic}/${qos}`);
			}
		}
	});
});
