/** What is there after kill -9 and a start on the same DATA_DIR, one thing at a time. Under load: `crash_load.test.ts`. */

import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type AnyPacket, freshId, RawClient } from "../support/raw_client.ts";
import { createFolder, type ServerProcess, startServer } from "../support/server_process.ts";
import { acknowledge, durable, freshTopic, take, takeMany, text } from "../support/traffic.ts";

/** The clients of a server that starts have this long to come back before their wills and expiries count. */
const GRACE_MS = 5000;
/** Limit for tests that wait for it. */
const SLOW_MS = 60_000;

/** A server that keeps its state and can be killed and started again on it. */
class Server {
	readonly #t: TestContext;
	readonly #env: Readonly<Record<string, string>>;
	#process: ServerProcess | undefined;

	constructor(t: TestContext) {
		this.#t = t;
		this.#env = { STORE: "sqlite", DATA_DIR: createFolder(t) };
	}

	async start(): Promise<ServerProcess> {
		this.#process = await startServer(this.#t, this.#env);
		return this.#process;
	}

	async crash(): Promise<void> {
		assert.equal((await this.#process?.kill("SIGKILL"))?.signal, "SIGKILL");
	}

	async crashAndStart(): Promise<ServerProcess> {
		await this.crash();
		return this.start();
	}
}

/** Deliveries up to one with this payload. What a crash leaves open of earlier flows is none of the subject. */
async function deliveriesUpTo(client: RawClient, payload: string): Promise<string[]> {
	const payloads: string[] = [];
	while (payloads.at(-1) !== payload) {
		const packet = await client.receive();
		if (packet.cmd === "publish") payloads.push(text(packet));
		acknowledge(client, packet.cmd === "publish" ? packet : { qos: 0 });
	}
	return payloads;
}

describe("crash: messages", () => {
	it("retained messages of every QoS are there, the newest of each, and removed ones are not", async (t) => {
		const server = new Server(t);
		const topic = freshTopic();
		const publisher = await RawClient.connect(await server.start());
		for (const qos of [1, 2]) await publisher.publishAcked(`${topic}/${qos}`, "old", { qos, retain: true });
		await publisher.publishAcked(`${topic}/removed`, "old", { qos: 1, retain: true });
		await publisher.publishAcked(`${topic}/removed`, "", { qos: 1, retain: true });
		publisher.publish(`${topic}/0`, "new", { retain: true });
		for (const qos of [1, 2]) await publisher.publishAcked(`${topic}/${qos}`, "new", { qos, retain: true });

		const reader = await RawClient.connect(await server.crashAndStart());
		await reader.subscribe(`${topic}/#`, { qos: 2 });
		const retained = (await takeMany(reader, 3)).map((packet) => `${packet.topic} ${text(packet)} ${packet.qos} ${packet.retain}`);
		assert.deepEqual(
			retained.sort(),
			[0, 1, 2].map((qos) => `${topic}/${qos} new ${qos} true`),
		);
		await reader.expectNothing();
	});

	it("messages queued for an offline session are there, in their order [MQTT-3.1.2-23] [v3 MQTT-3.1.2-5]", async (t) => {
		for (const version of [4, 5] as const) {
			const server = new Server(t);
			const topic = freshTopic();
			const session = { ...durable(), version };
			const first = await server.start();
			const subscriber = await RawClient.connect(first, session);
			await subscriber.subscribe(topic, { qos: 2 });
			await subscriber.disconnect();
			const publisher = await RawClient.connect(first, { version });
			for (let i = 0; i < 20; i++) await publisher.publishAcked(topic, `${i}`, { qos: 1 + (i % 2) });

			const again = await RawClient.connect(await server.crashAndStart(), session);
			assert.equal(again.connack.sessionPresent, true);
			const got = await takeMany(again, 20);
			for (const qos of [1, 2]) {
				const sent = Array.from({ length: 20 }, (_, i) => `${i}`).filter((_, i) => 1 + (i % 2) === qos);
				assert.deepEqual(got.filter((packet) => packet.qos === qos).map(text), sent);
			}
			await again.expectNothing();
		}
	});

	it("messages in flight are sent again with their packet ids and DUP, in their order [MQTT-4.4.0-1] [v3 MQTT-4.4.0-1] [v3 MQTT-4.6.0-1]", async (t) => {
		for (const version of [4, 5] as const) {
			const server = new Server(t);
			const topic = freshTopic();
			const session = { ...durable(), version };
			const first = await server.start();
			const subscriber = await RawClient.connect(first, session);
			await subscriber.subscribe(topic, { qos: 2 });
			const publisher = await RawClient.connect(first, { version });
			// QoS 2 last: it is sent only once the ids of all before it are stored.
			for (const qos of [1, 2, 1, 2]) await publisher.publishAcked(topic, `QoS ${qos}`, { qos });
			const sent: AnyPacket[] = [];
			while (sent.length < 4) sent.push(await subscriber.expect("publish", { dup: false }));

			const again = await RawClient.connect(await server.crashAndStart(), session);
			const identity = (packet: AnyPacket) => `${packet.messageId} ${text(packet)}`;
			const resent: AnyPacket[] = [];
			for (const packet of sent) {
				resent.push(await again.expect("publish", { dup: true }));
				acknowledge(again, packet);
			}
			assert.deepEqual(resent.map(identity).sort(), sent.map(identity).sort());
			for (const qos of [1, 2]) {
				const ofQos = (packets: AnyPacket[]) => packets.filter((packet) => packet.qos === qos).map((packet) => packet.messageId);
				assert.deepEqual(ofQos(resent), ofQos(sent));
			}
		}
	});

	it("after PUBREC the PUBREL is sent again, and not the PUBLISH [MQTT-4.3.3-6] [MQTT-4.4.0-1]", async (t) => {
		const server = new Server(t);
		const topic = freshTopic();
		const session = durable();
		const first = await server.start();
		const subscriber = await RawClient.connect(first, session);
		await subscriber.subscribe(topic, { qos: 2 });
		await (await RawClient.connect(first)).publishAcked(topic, "once", { qos: 2 });
		const { messageId } = await subscriber.expect("publish");
		subscriber.send({ cmd: "pubrec", messageId });
		await subscriber.expect("pubrel", { messageId });

		const again = await RawClient.connect(await server.crashAndStart(), session);
		await again.expect("pubrel", { messageId });
		again.send({ cmd: "pubcomp", messageId });
		await again.expectNothing();
	});

	it("a QoS 2 PUBLISH that is sent again gets its PUBREC and is not delivered twice [MQTT-4.3.3-10]", async (t) => {
		const server = new Server(t);
		const topic = freshTopic();
		const [reading, writing] = [durable(), durable()];
		const first = await server.start();
		const subscriber = await RawClient.connect(first, reading);
		await subscriber.subscribe(topic, { qos: 2 });
		const publisher = await RawClient.connect(first, writing);
		publisher.publish(topic, "once", { qos: 2, messageId: 7 });
		await publisher.expect("pubrec", { messageId: 7 });
		await take(subscriber, { payload: "once" });

		const second = await server.crashAndStart();
		const publisherAgain = await RawClient.connect(second, writing);
		publisherAgain.publish(topic, "once", { qos: 2, messageId: 7, dup: true });
		await publisherAgain.expect("pubrec", { messageId: 7 });
		publisherAgain.send({ cmd: "pubrel", messageId: 7 });
		await publisherAgain.expect("pubcomp", { messageId: 7 });
		// The id is free now: what comes under it is a new message.
		await publisherAgain.publishAcked(topic, "next", { qos: 2, messageId: 7 });

		const subscriberAgain = await RawClient.connect(second, reading);
		assert.deepEqual(await deliveriesUpTo(subscriberAgain, "next"), ["next"]);
	});

	it("a message whose expiry has passed is dropped, another comes with what is left of it [MQTT-3.3.2-5] [MQTT-3.3.2-6]", async (t) => {
		const server = new Server(t);
		const topic = freshTopic();
		const session = durable();
		const first = await server.start();
		const subscriber = await RawClient.connect(first, session);
		await subscriber.subscribe(topic, { qos: 1 });
		await subscriber.disconnect();
		const publisher = await RawClient.connect(first);
		for (const retain of [false, true]) {
			await publisher.publishAcked(`${topic}${retain ? "/kept" : ""}`, "short", { retain, properties: { messageExpiryInterval: 1 } });
			await publisher.publishAcked(`${topic}${retain ? "/left" : ""}`, "long", { retain, properties: { messageExpiryInterval: 300 } });
		}
		await server.crash();
		await sleep(1500);

		const again = await RawClient.connect(await server.start(), session);
		const queued = await take(again, { payload: "long" });
		await again.subscribe(`${topic}/+`, { qos: 1 });
		const retained = await take(again, { topic: `${topic}/left`, payload: "long" });
		for (const { properties } of [queued, retained]) {
			const left = properties.messageExpiryInterval;
			assert.ok(left > 200 && left < 300, `${left} s are left`);
		}
		await again.expectNothing();
	});
});

describe("crash: subscriptions and sessions", () => {
	it("subscriptions are there with their options, and removed ones are not", async (t) => {
		const server = new Server(t);
		const topic = freshTopic();
		const session = durable();
		const subscriber = await RawClient.connect(await server.start(), session);
		await subscriber.subscribe(`${topic}/plain`, { qos: 1 });
		await subscriber.subscribe(`${topic}/zero`, { qos: 0 });
		await subscriber.subscribe(`${topic}/+/options`, { qos: 2, rap: true, nl: true }, { subscriptionIdentifier: 42 });
		await subscriber.subscribe(`${topic}/removed`, { qos: 2 });
		subscriber.send({ cmd: "unsubscribe", messageId: 9, unsubscriptions: [`${topic}/removed`] });
		await subscriber.expect("unsuback", { messageId: 9 });

		const second = await server.crashAndStart();
		const again = await RawClient.connect(second, session);
		assert.equal(again.connack.sessionPresent, true);
		const publisher = await RawClient.connect(second);
		await publisher.publishAcked(`${topic}/removed`, "no", { qos: 2 });
		await publisher.publishAcked(`${topic}/plain`, "yes", { qos: 2, retain: true });
		await take(again, { topic: `${topic}/plain`, payload: "yes", qos: 1, retain: false });
		await publisher.publishAcked(`${topic}/zero`, "yes", { qos: 2 });
		await take(again, { topic: `${topic}/zero`, payload: "yes", qos: 0 });
		await publisher.publishAcked(`${topic}/x/options`, "yes", { qos: 2, retain: true });
		const { properties } = await take(again, { topic: `${topic}/x/options`, payload: "yes", qos: 2, retain: true });
		assert.equal(properties.subscriptionIdentifier, 42);
		again.publish(`${topic}/x/options`, "its own", { qos: 1, messageId: 10 });
		await again.expect("puback", { messageId: 10 });
		await again.expectNothing();
	});

	it("a message that a member of a share group had not acknowledged goes to another member", async (t) => {
		const server = new Server(t);
		const topic = freshTopic();
		const [staying, leaving] = [durable(), durable()];
		const first = await server.start();
		const members = [await RawClient.connect(first, leaving), await RawClient.connect(first, staying)] as const;
		for (const member of members) await member.subscribe(`$share/group/${topic}`, { qos: 1 });
		await members[1].disconnect();
		await (await RawClient.connect(first)).publishAcked(topic, "work", { qos: 1 });
		await members[0].expect("publish", { payload: "work" });

		const successor = await RawClient.connect(await server.crashAndStart(), staying);
		await take(successor, { topic, payload: "work" });
	});

	it("sessions end when their time is over, that of the connected ones beginning with the start [MQTT-4.1.0-2]", {
		timeout: SLOW_MS,
	}, async (t) => {
		const server = new Server(t);
		const first = await server.start();
		const session = (seconds: number) => durable(freshId(), { sessionExpiryInterval: seconds });
		const [over, kept, connected, forgotten] = [session(1), session(300), session(1), session(1)];
		for (const each of [over, kept]) await (await RawClient.connect(first, each)).disconnect();
		for (const each of [connected, forgotten]) await RawClient.connect(first, each);
		const withoutExpiry = { clientId: freshId(), clean: false };
		await RawClient.connect(first, withoutExpiry);
		await server.crash();
		await sleep(1500);

		const second = await server.start();
		const present = async (options: object) => (await RawClient.connect(second, options)).connack.sessionPresent;
		assert.equal(await present(over), false);
		assert.equal(await present(kept), true);
		assert.equal(await present(connected), true);
		assert.equal(await present(withoutExpiry), false);
		await sleep(GRACE_MS + 1500);
		assert.equal(await present(forgotten), false);
	});
});

describe("crash: wills", () => {
	it("the will of a client that was connected and does not come back is published once [MQTT-3.1.2-8] [MQTT-3.1.2-10]", {
		timeout: SLOW_MS,
	}, async (t) => {
		const server = new Server(t);
		const topic = freshTopic();
		const watching = durable();
		const first = await server.start();
		const will = (payload: string) => ({ topic, payload, qos: 2, retain: false });
		const returning = { ...durable(), will: will("returned") };
		await (await RawClient.connect(first, watching)).subscribe(topic, { qos: 2 });
		await RawClient.connect(first, returning);
		await RawClient.connect(first, { ...durable(), will: will("lost") });
		await RawClient.connect(first, { will: will("lost without a session") });
		await (await RawClient.connect(first)).publishAcked(topic, "start");
		const leaving = await RawClient.connect(first, { ...durable(), will: will("left in order") });
		// The broker closes the connection when it has stored that there is no will any more.
		await leaving.disconnect();

		const second = await server.crashAndStart();
		const watcher = await RawClient.connect(second, watching);
		const { connack } = await RawClient.connect(second, returning);
		assert.equal(connack.sessionPresent, true);
		// Armed last and due at the same time as all others, so published last.
		assert.deepEqual(await deliveriesUpTo(watcher, "lost without a session"), ["start", "lost", "lost without a session"]);
		const publisher = await RawClient.connect(second);
		await publisher.publishAcked(topic, "middle", { qos: 2 });
		assert.deepEqual(await deliveriesUpTo(watcher, "middle"), ["middle"]);

		// Now the one that came back is lost as well. The wills of the others are not there any more.
		const last = await RawClient.connect(await server.crashAndStart(), watching);
		const deliveries = await deliveriesUpTo(last, "returned");
		assert.deepEqual(
			deliveries.filter((payload) => payload !== "middle"),
			["returned"],
		);
	});

	it("a will that was waiting for its delay is published after it", async (t) => {
		const server = new Server(t);
		const topic = freshTopic();
		const watching = durable();
		const first = await server.start();
		await (await RawClient.connect(first, watching)).subscribe(topic, { qos: 2 });
		for (const willDelayInterval of [1, 300]) {
			const will = { topic, payload: `after ${willDelayInterval} s`, qos: 2, retain: false, properties: { willDelayInterval } };
			const client = await RawClient.connect(first, { ...durable(), will });
			await client.disconnect({ reasonCode: 0x04 });
		}
		const witness = await RawClient.connect(first);
		await witness.publishAcked(topic, "start", { qos: 2 });

		const second = await server.crashAndStart();
		const watcher = await RawClient.connect(second, watching);
		assert.deepEqual(await deliveriesUpTo(watcher, "after 1 s"), ["start", "after 1 s"]);
		const publisher = await RawClient.connect(second);
		await publisher.publishAcked(topic, "end", { qos: 2 });
		assert.deepEqual(await deliveriesUpTo(watcher, "end"), ["end"]);
	});
});
