/**
 * P9: a shared subscription gives each message to one member in all replicas, and what a dead member or replica held goes on
 * to others: nothing is lost, nothing is left with members that are not there.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Collector } from "../support/collector.ts";
import type { HistoryEvent } from "../support/history.ts";
import { LoadPublisher, LoadSubscriber } from "../support/load_client.ts";
import { acknowledged, anyOf, drained, roaming, until } from "../support/load_run.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { MIXED, type Replica, suiteReplicas, THREE } from "../support/replicas.ts";
import { durable, freshTopic, numbers, SESSION_KINDS } from "../support/traffic.ts";

const RUN_MS = 60_000;
const COUNT = 300;
const BACKLOG = 500;

for (const [composition, runtimes] of [
	["three replicas", THREE],
	["replicas on both runtimes", MIXED],
] as const) {
	describe(`shared subscription on ${composition}`, () => {
		const replicas = suiteReplicas({ runtimes });

		for (const { kind, options } of SESSION_KINDS) {
			for (const qos of [0, 1, 2]) {
				it(`each QoS ${qos} message goes to one of six members: ${kind}`, async () => {
					const { all } = replicas();
					const topic = freshTopic();
					const members = await Promise.all(numbers(6).map((_, index) => Collector.connect(all[index % all.length] as Replica, options())));
					for (const member of members) await member.subscribe(`$share/group/${topic}/+`, { qos });
					const publishers = await Promise.all(all.map((replica) => RawClient.connect(replica)));
					if (qos === 0) await routed(publishers, members, topic);
					await Promise.all(
						publishers.map(async (publisher, each) => {
							for (let index = each; index < COUNT; index += publishers.length) {
								if (qos === 0) publisher.publish(`${topic}/${index % 7}`, `${index}`);
								else await publisher.publishAcked(`${topic}/${index % 7}`, `${index}`, { qos });
							}
							await publisher.expectNothing();
						}),
					);
					const got = () => members.flatMap((member) => member.texts()).filter((text) => text !== "probe");
					await members[0]?.wait("all messages", () => got().length >= COUNT);
					await sleep(100);
					assert.deepEqual(got().toSorted(), numbers(COUNT).toSorted());
					const serving = members.filter((member) => member.texts().some((text) => text !== "probe"));
					assert.ok(serving.length > 1, `the work is shared, ${serving.length} of ${members.length} got any`);
					await Promise.all([...members, ...publishers].map((client) => client.destroy()));
				});
			}
		}

		for (const qos of [1, 2]) {
			it(`what members hold unacknowledged when they end goes to others: QoS ${qos}`, async () => {
				const { a, b, c } = replicas();
				const topic = freshTopic();
				const filter = `$share/group/${topic}`;
				const holders = await Promise.all([a, b].map((replica) => RawClient.connect(replica, { clientId: freshId() })));
				for (const holder of holders) await holder.subscribe(filter, { qos: 1 });
				const publisher = await RawClient.connect(c);
				for (const payload of numbers(50)) await publisher.publishAcked(topic, payload, { qos });
				for (const holder of holders) await holder.expect("publish");
				const member = await Collector.connect(c, durable());
				await member.subscribe(filter, { qos });
				await Promise.all(holders.map((holder) => holder.destroy()));
				await member.until(50);
				await sleep(100);
				assert.deepEqual(member.texts().toSorted(), numbers(50).toSorted());
				await Promise.all([member.destroy(), publisher.destroy()]);
			});

			it(`the whole backlog goes to the first member that is back, on whichever replica: QoS ${qos}`, async () => {
				const { a, b, c } = replicas();
				const topic = freshTopic();
				const sessions = [durable(), durable()];
				for (const [index, replica] of [a, b].entries()) {
					const member = await Collector.connect(replica, sessions[index]);
					await member.subscribe(`$share/group/${topic}`, { qos });
					await member.leave();
				}
				const publishers = await Promise.all([a, b, c].map((replica) => RawClient.connect(replica)));
				await Promise.all(
					publishers.map(async (publisher, each) => {
						for (let index = each; index < BACKLOG; index += publishers.length) await publisher.publishAcked(topic, `${index}`, { qos });
					}),
				);
				const back = await Collector.connect(c, sessions[0]);
				assert.equal(back.client.connack.sessionPresent, true);
				await back.until(BACKLOG);
				await sleep(100);
				assert.deepEqual(back.texts().toSorted(), numbers(BACKLOG).toSorted());
				await Promise.all([back, ...publishers].map((client) => client.destroy()));
			});
		}
	});
}

describe("a shared subscription whose members and replicas are killed, on both runtimes", () => {
	const replicas = suiteReplicas({ runtimes: MIXED, env: { REPLICA_LEASE_SECONDS: "3" } });

	it("over killed members and replicas nothing is lost or stranded, and QoS 2 comes once", { timeout: RUN_MS }, async (t) => {
		const { all } = replicas();
		const events: HistoryEvent[] = [];
		const options = (clientId: string, index: number) =>
			roaming(() => anyOf(all), { clientId, version: index % 2 === 0 ? 5 : 4, transport: index % 3 === 0 ? "ws" : "tcp", events });
		const run = freshId();
		const publishers = [1, 2, 2].map(
			(qos, index) => new LoadPublisher(options(`${run}-publisher-${index}`, index), { pattern: [qos as 1 | 2], window: 50 }),
		);
		const members = [1, 1, 1, 2, 2, 2].map(
			(qos, index) =>
				new LoadSubscriber(options(`${run}-member-${index}`, index), {
					filter: `$share/qos${qos}/load/#`,
					qos: qos as 1 | 2,
					ackDelayMs: index * 4,
				}),
		);
		const clients = [...publishers, ...members];
		t.after(() => Promise.all(clients.map((client) => client.stop())).then(() => {}));
		for (const client of clients) client.start();
		await until("all have subscribed", () => members.every((member) => member.subscribed));
		const load = setInterval(() => {
			for (const publisher of publishers) publisher.publish(3);
		}, 10);
		t.after(() => clearInterval(load));
		for (const victim of all.slice(0, 2)) {
			await sleep(500);
			const cut = anyOf([...members.keys()]);
			const client = `${run}-member-${cut}`;
			const connection = events.filter((event) => event.kind === "connected" && event.client === client).length;
			// The broker may know of the end before the client does.
			events.push({ kind: "closed", client, connection });
			members[cut]?.cut();
			await victim.kill();
			await sleep(500);
			await victim.restart();
		}
		clearInterval(load);
		await acknowledged(publishers);
		const { violations, lost, ...figures } = await drained(events);
		assert.deepEqual(violations, []);
		assert.equal(lost, 0);
		assert.ok(figures.acknowledged > 100, `${figures.acknowledged} messages were a load`);
	});
});

/** Waits until QoS 0 finds its way from everywhere: routes for it may lag. */
async function routed(publishers: readonly RawClient[], members: readonly Collector[], topic: string): Promise<void> {
	for (const publisher of publishers) {
		const before = members.flatMap((member) => member.messages).length;
		const timer = setInterval(() => publisher.publish(`${topic}/x`, "probe"), 20);
		await members[0]?.wait("a probe", () => members.flatMap((member) => member.messages).length > before);
		clearInterval(timer);
	}
}
