/**
 * P8: a retained message is one value for all replicas. Whoever subscribes anywhere after the PUBACK gets the newest one, by
 * whatever filter, and nobody gets an older one after a newer one.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Collector } from "../support/collector.ts";
import { RawClient } from "../support/raw_client.ts";
import { MIXED, type Replica, suiteReplicas, THREE } from "../support/replicas.ts";
import { freshTopic, numbers } from "../support/traffic.ts";

const RUN_MS = 60_000;
const STORM_MS = 2000;
/** Subscribers at a time in the storm. */
const SUBSCRIBERS = 12;
const SITES = 5;
/** For what should not come. */
const EMPTY_MS = 100;

const filtersFor = (base: string, site: number): string[] => [`${base}/${site}/state`, `${base}/+/state`, `${base}/${site}/+`, `${base}/#`];

for (const [composition, runtimes] of [
	["three replicas", THREE],
	["replicas on both runtimes", MIXED],
] as const) {
	describe(`retained messages on ${composition}`, () => {
		const replicas = suiteReplicas({ runtimes });

		/** A new subscriber of the filter gets these, each a topic below the first level and a payload, and no others. */
		async function assertRetained(replica: Replica, filter: string, expected: readonly string[]): Promise<void> {
			const collector = await Collector.connect(replica);
			await collector.subscribe(filter, { qos: 1 });
			await collector.until(expected.length);
			// Nothing tells the end of what is retained.
			await sleep(expected.length === 0 ? EMPTY_MS : 0);
			const found = collector.messages.map(({ topic, text }) => `${topic.split("/").slice(1).join("/")} ${text}`);
			assert.deepEqual(found.toSorted(), expected);
			assert.ok(collector.messages.every(({ retain }) => retain));
			await collector.destroy();
		}

		it("one set on any replica is seen on every other right after its PUBACK, by exact and wildcard filters", async () => {
			for (const [index, origin] of replicas().all.entries()) {
				for (const qos of [1, 2]) {
					const base = freshTopic();
					const publisher = await RawClient.connect(origin);
					for (const site of numbers(SITES)) await publisher.publishAcked(`${base}/${site}/state`, `${index}`, { qos, retain: true });
					await Promise.all(
						replicas().all.map(async (replica) => {
							for (const site of [0, SITES - 1]) {
								const [exact, plus, level, all] = filtersFor(base, site) as [string, string, string, string];
								const one = [`${site}/state ${index}`];
								const every = numbers(SITES).map((each) => `${each}/state ${index}`);
								await assertRetained(replica, exact, one);
								await assertRetained(replica, plus, every);
								await assertRetained(replica, level, one);
								await assertRetained(replica, all, every);
							}
						}),
					);
					await publisher.destroy();
				}
			}
		});

		it("one replaced on another replica shows its new value everywhere right after the PUBACK", async () => {
			const topic = freshTopic();
			for (let round = 0; round < 12; round++) {
				const { all } = replicas();
				const publisher = await RawClient.connect(all[round % all.length] as Replica);
				await publisher.publishAcked(`${topic}/x`, `${round}`, { retain: true });
				for (const replica of all) await assertRetained(replica, `${topic}/+`, [`x ${round}`]);
				await publisher.destroy();
			}
		});

		it("one that is deleted is gone everywhere right after the PUBACK", async () => {
			const { a, all } = replicas();
			const base = freshTopic();
			const publisher = await RawClient.connect(a);
			for (const site of numbers(SITES)) await publisher.publishAcked(`${base}/${site}/state`, "x", { retain: true });
			const remover = await RawClient.connect(all.at(-1) as Replica);
			await remover.publishAcked(`${base}/0/state`, "", { retain: true });
			for (const replica of all) {
				await assertRetained(replica, `${base}/0/state`, []);
				await assertRetained(
					replica,
					`${base}/#`,
					numbers(SITES - 1, 1).map((site) => `${site}/state x`),
				);
			}
			await Promise.all([publisher.destroy(), remover.destroy()]);
		});

		it("one with an expiry is gone everywhere when that has passed", async () => {
			const { b, all } = replicas();
			const topic = freshTopic();
			const publisher = await RawClient.connect(b);
			await publisher.publishAcked(`${topic}/short`, "x", { retain: true, properties: { messageExpiryInterval: 1 } });
			await publisher.publishAcked(`${topic}/long`, "x", { retain: true, properties: { messageExpiryInterval: 1000 } });
			await sleep(2000);
			for (const replica of all) {
				await assertRetained(replica, `${topic}/short`, []);
				await assertRetained(replica, `${topic}/#`, ["long x"]);
			}
			await publisher.destroy();
		});

		it("of a counter everybody gets the newest and then newer ones, whenever and wherever they subscribe", {
			timeout: RUN_MS,
		}, async () => {
			const { all } = replicas();
			const topic = freshTopic();
			const publisher = await RawClient.connect(all[0] as Replica);
			let acknowledged = 0;
			let running = true;
			const publish = async () => {
				while (running) {
					await publisher.publishAcked(`${topic}/x`, `${acknowledged + 1}`, { retain: true });
					acknowledged++;
				}
			};
			const problems: string[] = [];
			const last: Collector[] = [];
			let subscribed = 0;
			const subscribe = async (index: number) => {
				for (let round = 0; running; round++) {
					const collector = await Collector.connect(all[(index + round) % all.length] as Replica);
					const known = acknowledged;
					await collector.subscribe([`${topic}/x`, `${topic}/+`, `${topic}/#`][round % 3] as string, { qos: (round % 2) + 1 });
					subscribed++;
					await sleep(Math.random() * 40);
					// Live ones that are older may come first, as long as the newest follows.
					await collector.wait(`value ${known}`, () => known === 0 || Number(collector.texts().at(-1)) >= known);
					if (running) {
						problems.push(...problemsOf(collector, known));
						await collector.destroy();
					} else last.push(collector);
				}
			};
			const work = [publish(), ...Array.from({ length: SUBSCRIBERS }, (_, index) => subscribe(index))];
			await sleep(STORM_MS);
			running = false;
			await Promise.all(work);
			for (const collector of last) {
				await collector.wait("the last value", () => collector.texts().at(-1) === `${acknowledged}`);
				problems.push(...problemsOf(collector, 0));
				await collector.destroy();
			}
			assert.deepEqual(problems, []);
			assert.ok(
				subscribed > SUBSCRIBERS && acknowledged > SUBSCRIBERS,
				`${subscribed} subscribers and ${acknowledged} values were a storm`,
			);
			await publisher.destroy();
		});
	});
}

/** What is wrong with what came, when `known` had been acknowledged before the SUBSCRIBE. */
function problemsOf({ messages }: Collector, known: number): string[] {
	const values = messages.map((message) => Number(message.text));
	const shown = messages.slice(0, 5).map(({ text, retain, qos }) => `${text}${retain ? " retained" : ""} with QoS ${qos}`);
	const problems: string[] = [];
	if (values.slice(1).some((value, index) => value < (values[index] as number))) problems.push("older after newer");
	if (new Set(values).size < values.length) problems.push("one came twice, as the retained one and as a live one");
	if (messages.some(({ retain, text }) => retain && Number(text) < known)) problems.push(`older than ${known}, acknowledged before`);
	if (messages.filter((message) => message.retain).length > 1) problems.push("two retained messages of one topic");
	return problems.map((problem) => `${problem}: ${shown}`);
}
