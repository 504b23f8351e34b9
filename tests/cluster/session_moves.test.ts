/**
 * P4, P5: a persistent session moves to another replica between any two packets of its flows, because another connection takes
 * it over, or because its replica is killed or frozen. Every step of QoS 1 and 2 in both directions is stopped at, at once by
 * as many clients, so that one fault strikes all of them.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Collector } from "../support/collector.ts";
import { type ConnectOptions, RawClient } from "../support/raw_client.ts";
import { MIXED, type Replica, suiteReplicas, THREE } from "../support/replicas.ts";
import { type Flow, MESSAGES, Receiver, Sender } from "../support/stepwise.ts";
import { durable, numbers } from "../support/traffic.ts";

const RUN_MS = 60_000;
const TAKEN_OVER = 0x8e;

interface Case {
	readonly flow: Flow;
	/** Steps on the first replica. */
	readonly steps: number;
	/** Whether the broker is known to have heard the last of them. */
	readonly heard: boolean;
}

/** A case for each step of each flow, heard and not. */
function everyStep(createFlow: () => Flow): Case[] {
	const { steps } = createFlow();
	const places = Array.from({ length: (steps + 1) * 2 }, (_, index) => ({ steps: index >> 1, heard: index % 2 === 0 }));
	return places.map((place) => ({ flow: createFlow(), ...place }));
}

function session(flow: Flow): ConnectOptions {
	return durable(flow.clientId);
}

/** Connects again and finds the session there. */
async function resume(replica: Replica, flow: Flow): Promise<RawClient> {
	const client = await RawClient.connect(replica, session(flow));
	assert.equal(client.connack.sessionPresent, true, "the session is there");
	flow.resume();
	return client;
}

/** What happens to the replica that has the sessions. */
const FAULTS = [
	{ fault: "that is taken over by another connection", strike: async () => {}, repair: async () => {} },
	{
		fault: "whose replica is frozen and later goes on",
		strike: async (replica: Replica) => replica.freeze(),
		repair: async (replica: Replica) => replica.thaw(),
	},
	{
		fault: "whose replica is killed",
		strike: (replica: Replica) => replica.kill(),
		repair: (replica: Replica) => replica.restart(),
	},
] as const;

for (const [composition, runtimes] of [
	["three replicas", THREE],
	["replicas on both runtimes", MIXED],
] as const) {
	describe(`session on ${composition}`, () => {
		const replicas = suiteReplicas({ runtimes, env: { REPLICA_LEASE_SECONDS: "5" } });

		for (const [index, { fault, strike, repair }] of FAULTS.entries()) {
			/** The one with the sessions, then the two that they go to. */
			const places = (): [Replica, Replica, Replica] => {
				const { all } = replicas();
				return [0, 1, 2].map((place) => all[(index + place) % all.length]) as [Replica, Replica, Replica];
			};

			/** Stops each case at its step, moves it on twice, and lets it end. Answers the connections before the fault, and those at the end. */
			async function move(cases: readonly Case[], started: readonly RawClient[]) {
				const [owner, second, third] = places();
				await Promise.all(
					cases.map(async ({ flow, steps, heard }, each) => {
						const client = started[each] as RawClient;
						await flow.run(client, steps);
						if (heard) await flow.ping(client);
					}),
				);
				await strike(owner);
				const ended = await Promise.all(
					cases.map(async ({ flow }, each) => {
						const between = await resume(each % 2 === 0 ? second : third, flow);
						await flow.run(between, 1 + (each % 3));
						const last = await resume(each % 2 === 0 ? third : second, flow);
						await flow.run(last);
						await flow.settle(last);
						return last;
					}),
				);
				return ended;
			}

			it(`a client ${fault} between two packets gets QoS 1 at least once, QoS 2 exactly once, in order`, {
				timeout: RUN_MS,
			}, async () => {
				const [owner, , third] = places();
				const kinds = [1, 2].flatMap((qos) => [true, false].map((late) => () => new Receiver(qos as 1 | 2, late)));
				const cases = kinds.flatMap((create) => everyStep(create));
				const receivers = cases.map(({ flow }) => flow as Receiver);
				const publisher = await RawClient.connect(third);
				const first = await Promise.all(
					receivers.map(async (flow) => {
						const client = await RawClient.connect(owner, session(flow));
						await client.subscribe(flow.topic, { qos: flow.qos });
						return client;
					}),
				);
				for (const { topic, qos } of receivers)
					for (const payload of numbers(MESSAGES)) await publisher.publishAcked(topic, payload, { qos });
				const last = await move(cases, first);
				for (const receiver of receivers) receiver.assertDelivered();

				await repair(owner);
				await assertGone(first, owner);
				// The old owner, back or new, has no say: what comes now comes once, where the session is.
				for (const { topic, qos } of receivers) await publisher.publishAcked(topic, `${MESSAGES}`, { qos });
				await Promise.all(
					receivers.map(async (receiver, each) => {
						await receiver.until(last[each] as RawClient, `${MESSAGES}`);
						receiver.assertDelivered(numbers(MESSAGES + 1));
					}),
				);
				await Promise.all([...last, publisher].map((client) => client.destroy()));
			});

			it(`a client ${fault} between two packets has published QoS 1 at least once, QoS 2 exactly once, in order`, {
				timeout: RUN_MS,
			}, async () => {
				const [owner, , third] = places();
				const cases = ([1, 2] as const).flatMap((qos) => everyStep(() => new Sender(qos)));
				const collector = await Collector.connect(third);
				await collector.subscribe("steps/#", { qos: 2 });
				const first = await Promise.all(cases.map(({ flow }) => RawClient.connect(owner, session(flow))));
				const last = await move(cases, first);
				await repair(owner);
				await assertGone(first, owner);

				const arrived = () => cases.every(({ flow }) => new Set(collector.texts(flow.topic)).size === MESSAGES);
				await collector.wait("all messages", arrived);
				// A packet id whose flow is done is free for another message.
				await Promise.all(cases.map(({ flow }, each) => last[each]?.publishAcked(flow.topic, "again", { qos: flow.qos, messageId: 1 })));
				await collector.wait("the last messages", () => cases.every(({ flow }) => collector.texts(flow.topic).includes("again")));
				for (const { flow, steps } of cases) {
					const texts = collector.texts(flow.topic);
					const got = flow.qos === 2 ? texts : [...new Set(texts)];
					assert.deepEqual(got, [...numbers(MESSAGES), "again"], `${flow.clientId}, moved after ${steps} steps, sent ${texts}`);
				}
				await Promise.all([...last.map((client) => client.destroy()), collector.destroy()]);
			});

			/** Nobody is served on a connection whose session has moved. */
			async function assertGone(clients: readonly RawClient[], owner: Replica): Promise<void> {
				await Promise.all(
					clients.map(async (client) => {
						const packets = await client.receiveUntilClosed();
						const codes = packets.filter(({ cmd }) => cmd === "disconnect").map(({ reasonCode }) => reasonCode);
						if (fault === "that is taken over by another connection") assert.deepEqual(codes, [TAKEN_OVER]);
					}),
				);
				assert.equal(await owner.status("/healthz"), 200);
			}
		}
	});
}
