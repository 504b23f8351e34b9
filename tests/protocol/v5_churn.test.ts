/** Sessions of MQTT 5.0 whose connections end again and again at any point: what section 4.3 and 4.8.2 promise holds over all of them. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type Random, randomNumbers } from "../mqtt/random.ts";
import { type AnyPacket, type ConnectOptions, RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { acknowledge, breakOff, durable, freshTopic, numbers, text } from "../support/traffic.ts";

/** Connections of a session before it may come to rest. */
const CONNECTIONS = 12;

/** A session that receives, over all its connections, and forgets nothing of the protocol's state. */
class Receiver {
	readonly session: ConnectOptions;
	/** Messages in the order in which they came first. */
	readonly received: string[] = [];
	/** Messages whose flow is over. */
	readonly completed = new Set<string>();
	/** QoS 2 ids between PUBLISH and PUBREL. */
	readonly #open = new Map<number, string>();

	constructor(receiveMaximum: number) {
		this.session = durable(undefined, { receiveMaximum });
	}

	/** Does what the protocol asks for, but leaves a PUBLISH without answer where `answer` is false. */
	handle(client: RawClient, packet: AnyPacket, answer: boolean): void {
		const { cmd, messageId, qos } = packet;
		if (cmd === "pubrel") {
			const payload = this.#open.get(messageId);
			if (payload !== undefined) this.completed.add(payload);
			this.#open.delete(messageId);
			client.send({ cmd: "pubcomp", messageId });
		} else if (cmd === "publish") {
			if (qos === 1 || !this.#open.has(messageId)) this.received.push(text(packet));
			if (qos === 2) this.#open.set(messageId, text(packet));
			if (!answer) return;
			acknowledge(client, packet);
			if (qos === 1) this.completed.add(text(packet));
		}
	}

	/** Answers everything until nothing more comes. */
	async drain(client: RawClient): Promise<void> {
		for (let quiet = 0; quiet < 3; quiet++) {
			client.send({ cmd: "pingreq" });
			for (let packet = await client.receive(); packet.cmd !== "pingresp"; packet = await client.receive()) {
				this.handle(client, packet, true);
				quiet = 0;
			}
			await delay(5);
		}
	}
}

describe("sessions with ever new connections in MQTT 5.0", () => {
	const broker = suiteBroker();

	/** Ends a connection in one of the possible ways and begins the next one of the session. */
	async function reconnect(client: RawClient, session: ConnectOptions, random: Random): Promise<RawClient> {
		const fate = random.pick(["break", "break", "disconnect", "take over"]);
		if (fate === "break") await client.destroy();
		else if (fate === "disconnect") await client.disconnect();
		return RawClient.connect(broker, session);
	}

	/** Publishes as long as somebody needs messages; answers how many. */
	async function publishUntil(ended: Promise<unknown>, topic: string, qos: number): Promise<number> {
		let going = true;
		void ended.finally(() => {
			going = false;
		});
		const publisher = await RawClient.connect(broker);
		let published = 0;
		while (going) await publisher.publishAcked(topic, `${published++}`, { qos });
		return published;
	}

	/** Receives over many connections. */
	async function churn(receiver: Receiver, first: RawClient, random: Random): Promise<void> {
		let client = first;
		for (let connection = 0; connection < CONNECTIONS; connection++) {
			for (let budget = 1 + random.below(12); budget > 0; budget--) receiver.handle(client, await client.receive(), random.below(10) < 6);
			client = await reconnect(client, receiver.session, random);
		}
		await breakOff(broker, client);
	}

	for (const qos of [1, 2]) {
		const statement = qos === 1 ? "at least once" : "exactly once [MQTT-4.3.3-6] [MQTT-4.4.0-1]";
		test(`churn: a subscriber gets each message with QoS ${qos} ${statement}, in order, over ${CONNECTIONS} connections`, async () => {
			const topic = freshTopic();
			const random = randomNumbers(qos);
			const receiver = new Receiver(100);
			const first = await RawClient.connect(broker, receiver.session);
			await first.subscribe(topic, { qos });
			const ended = churn(receiver, first, random);
			const published = await publishUntil(ended, topic, qos);
			await ended;
			const last = await RawClient.connect(broker, receiver.session);
			await receiver.drain(last);
			assert.equal(receiver.completed.size, published, "every flow is over");
			const received = qos === 1 ? [...new Set(receiver.received)] : receiver.received;
			assert.deepEqual(received, numbers(published));
		});

		test(`churn: a publisher that repeats what was not answered publishes each message with QoS ${qos} ${qos === 1 ? "at least once" : "exactly once [MQTT-4.3.3-10]"}, in order`, async () => {
			const topic = freshTopic();
			const random = randomNumbers(10 + qos);
			const session = durable();
			const subscriber = new Receiver(65_535);
			const subscribed = await RawClient.connect(broker, subscriber.session);
			await subscribed.subscribe(topic, { qos });
			const total = 40;
			const messageIdOf = (index: number) => 1 + (index % 7);
			let client = await RawClient.connect(broker, session);
			for (let index = 0; index < total; index++) {
				const messageId = messageIdOf(index);
				let state: "publish" | "pubrel" | "over" = "publish";
				let dup = false;
				while (state !== "over") {
					if (state === "publish") client.publish(topic, `${index}`, { qos, messageId, dup });
					else client.send({ cmd: "pubrel", messageId });
					dup = true;
					// The connection may end before the answer, or with the answer unread.
					if (random.below(3) === 0) {
						client = await reconnect(client, session, random);
						continue;
					}
					const { cmd } = await client.expect(state === "pubrel" ? "pubcomp" : qos === 1 ? "puback" : "pubrec", { messageId });
					state = cmd === "pubrec" ? "pubrel" : "over";
				}
			}
			await subscriber.drain(subscribed);
			const received = qos === 1 ? [...new Set(subscriber.received)] : subscriber.received;
			assert.deepEqual(received, numbers(total));
		});

		test(`churn: each message with QoS ${qos} to a share group is completed by a member, however they come and go${qos === 1 ? "" : ", and by the one that got it first [MQTT-4.8.2-4]"}`, async () => {
			const topic = freshTopic();
			const random = randomNumbers(20 + qos);
			const members = [new Receiver(100), new Receiver(100), new Receiver(100)];
			const coming: Promise<void>[] = [];
			for (const member of members) {
				const client = await RawClient.connect(broker, member.session);
				await client.subscribe(`$share/g/${topic}`, { qos });
				coming.push(churn(member, client, random));
			}
			const ended = Promise.all(coming);
			const published = await publishUntil(ended, topic, qos);
			await ended;
			const completed = () => new Set(members.flatMap((member) => [...member.completed]));
			for (let pass = 0; pass < 20 && completed().size < published; pass++) {
				for (const member of members) {
					const client = await RawClient.connect(broker, member.session);
					await member.drain(client);
					await breakOff(broker, client);
				}
			}
			assert.equal(completed().size, published, "every message is completed");
			if (qos === 2)
				assert.equal(
					members.reduce((sum, member) => sum + new Set(member.received).size, 0),
					published,
					"no message had two members",
				);
		});
	}
});
