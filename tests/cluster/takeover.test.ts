/**
 * P6: one live connection per client id in all replicas. Many connections at once fight for one, and a replica that was
 * stopped for longer than its lease comes back to sessions that are no longer its own.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Collector } from "../support/collector.ts";
import { type AnyPacket, type ConnectOptions, freshId, RawClient } from "../support/raw_client.ts";
import { MIXED, type Replica, suiteReplicas, THREE } from "../support/replicas.ts";
import { durable, freshTopic, numbers, take, text } from "../support/traffic.ts";

const RUN_MS = 60_000;
const TAKEN_OVER = 0x8e;
const CONNECTIONS = 50;
const LEASE_SECONDS = 3;

/** Opens so many connections over all replicas, and sends the CONNECT of each in one go. Answers them once one is left. */
async function storm(replicas: readonly Replica[], options: (index: number) => ConnectOptions) {
	const clients = await Promise.all(
		Array.from({ length: CONNECTIONS }, (_, index) => RawClient.open(replicas[index % replicas.length] as Replica, options(index).version)),
	);
	for (const [index, client] of clients.entries()) client.sendConnect(options(index));
	const deadline = Date.now() + 10_000;
	const open = () => clients.filter((client) => !client.closed);
	while (open().length > 1 && Date.now() < deadline) await sleep(10);
	const losers = await Promise.all(clients.filter((client) => client.closed).map((client) => client.receiveUntilClosed()));
	return { survivors: open(), losers };
}

for (const [composition, runtimes] of [
	["three replicas", THREE],
	["replicas on both runtimes", MIXED],
] as const) {
	describe(`one client id on ${composition}`, () => {
		const replicas = suiteReplicas({ runtimes });

		for (const [kind, options] of [
			["clean", () => ({ clean: true })],
			["persistent", () => durable("")],
			["mixed", (index: number) => (index % 2 === 0 ? durable("") : { clean: true })],
		] as const) {
			it(`of ${CONNECTIONS} simultaneous connections one survives and the others get 0x8E: ${kind} sessions`, async () => {
				const clientId = freshId();
				const { survivors, losers } = await storm(replicas().all, (index) => ({ ...options(index), clientId }));
				assert.equal(survivors.length, 1);
				// Whoever is overtaken before its CONNACK can be told nothing: a DISCONNECT may not come first.
				for (const packets of losers) {
					const told = packets.map(({ cmd, reasonCode }) => `${cmd} ${reasonCode}`);
					if (told.length > 0) assert.deepEqual(told, ["connack 0", `disconnect ${TAKEN_OVER}`]);
				}

				const [survivor] = survivors as [RawClient];
				await survivor.expect("connack", { reasonCode: 0 });
				const topic = freshTopic();
				await survivor.subscribe(topic, { qos: 1 });
				for (const [index, replica] of replicas().all.entries()) {
					const publisher = await RawClient.connect(replica);
					await publisher.publishAcked(topic, `${index}`);
					assert.equal(text(await take(survivor)), `${index}`);
					await publisher.destroy();
				}
				await survivor.expectNothing();
				await survivor.disconnect();
			});
		}

		it("of many simultaneous connections of MQTT 3.1.1 one survives and the others are closed", async () => {
			const clientId = freshId();
			const { survivors } = await storm(replicas().all, () => ({ clientId, clean: false, version: 4 }));
			assert.equal(survivors.length, 1);
			await survivors[0]?.expect("connack", { returnCode: 0 });
			await survivors[0]?.expectNothing();
			await survivors[0]?.destroy();
		});
	});
}

describe("a session on replicas on both runtimes", () => {
	const replicas = suiteReplicas({ runtimes: MIXED, env: { REPLICA_LEASE_SECONDS: `${LEASE_SECONDS}` } });

	it("a connection elsewhere ends the old one with 0x8E at once, and its will waits for its delay in vain [MQTT-3.1.4-3]", async () => {
		const { a, b, c } = replicas();
		const [clientId, topic] = [freshId(), freshTopic()];
		const watcher = await Collector.connect(c);
		await watcher.subscribe(topic, { qos: 1 });
		const will = { topic, payload: "gone", qos: 1, retain: false, properties: { willDelayInterval: 1 } };
		const old = await RawClient.connect(a, { ...durable(clientId), will });
		const young = await RawClient.connect(b, durable(clientId));
		assert.equal(young.connack.sessionPresent, true);
		await old.expectDisconnect(TAKEN_OVER);
		await sleep(2500);
		await young.publishAcked(topic, "still here");
		await watcher.until(1);
		assert.deepEqual(watcher.texts(), ["still here"]);
		await Promise.all([young.destroy(), watcher.destroy()]);
	});

	it("a replica that was stopped past its lease and goes on changes nothing", { timeout: RUN_MS }, async () => {
		const { a, b, c } = replicas();
		const wills = freshTopic();
		const will = (payload: string, properties: AnyPacket = {}) => ({
			will: { topic: `${wills}/${payload}`, payload, qos: 1, retain: false, properties },
		});
		const watcher = await Collector.connect(c);
		await watcher.subscribe(`${wills}/#`, { qos: 1 });
		const publisher = await RawClient.connect(c);

		// One session moves on; one is left to the reapers; one ends with its connection and so with the lease.
		const [moved, left, mortal] = [freshId("moved"), freshId("left"), freshId("mortal")];
		const [movedTopic, leftTopic, mortalTopic] = [freshTopic(), freshTopic(), freshTopic()];
		const onA = {
			moved: await RawClient.connect(a, { ...durable(moved), ...will("moved", { willDelayInterval: 60 }) }),
			left: await RawClient.connect(a, { ...durable(left), ...will("left") }),
			mortal: await RawClient.connect(a, { clientId: mortal, ...will("mortal") }),
		};
		await onA.moved.subscribe(movedTopic, { qos: 2 });
		await onA.left.subscribe(leftTopic, { qos: 1 });
		await onA.mortal.subscribe(mortalTopic, { qos: 1 });
		// In flight on A, unacknowledged.
		await publisher.publishAcked(movedTopic, "0", { qos: 2 });
		const { messageId } = await onA.moved.expect("publish");

		a.freeze();
		// What its clients send meanwhile waits in its sockets, and it hears it only when it is no longer the owner.
		onA.moved.send({ cmd: "pubrec", messageId });
		onA.moved.publish(movedTopic, "from the past", { qos: 2, messageId: 1000 });
		onA.left.publish(leftTopic, "from the past", { qos: 2, messageId: 1000 });
		onA.left.send({ cmd: "unsubscribe", messageId: 1001, unsubscriptions: [leftTopic] });
		onA.mortal.send({ cmd: "disconnect" });
		const onB = await Collector.connect(b, { ...durable(moved), ...will("moved again") });
		assert.equal(onB.client.connack.sessionPresent, true);
		for (const payload of numbers(3, 1)) await publisher.publishAcked(movedTopic, payload, { qos: 2 });
		for (const payload of numbers(3)) await publisher.publishAcked(leftTopic, payload);
		await onB.until(4);
		await watcher.until(2);
		await sleep(LEASE_SECONDS * 1000);

		a.thaw();
		// Neither an ack nor a message: these connections are over.
		for (const [name, client] of Object.entries(onA)) {
			const packets = await client.receiveUntilClosed();
			const said = packets.map(({ cmd }) => cmd).filter((cmd) => cmd !== "disconnect");
			assert.deepEqual(said, [], `${name} is told nothing but its end`);
		}
		await sleep(LEASE_SECONDS * 500);
		assert.equal(onB.client.closed, false, "the new connection stays");
		assert.deepEqual(onB.texts(), numbers(4), "each message once");
		await publisher.publishAcked(movedTopic, "after", { qos: 2 });
		await onB.until(5);
		assert.deepEqual(onB.texts(), [...numbers(4), "after"]);

		const back = await Collector.connect(a, durable(left));
		assert.equal(back.client.connack.sessionPresent, true);
		await back.until(3);
		await publisher.publishAcked(leftTopic, "after");
		await back.until(4);
		assert.deepEqual(back.texts(), [...numbers(3), "after"]);
		const reborn = await RawClient.connect(b, durable(mortal));
		assert.equal(reborn.connack.sessionPresent, false);
		// Each will once, none of the session that moved.
		assert.deepEqual(watcher.texts().toSorted(), ["left", "mortal"]);
		await Promise.all([onB.leave(), back.leave(), reborn.destroy(), watcher.destroy(), publisher.destroy()]);
	});
});
