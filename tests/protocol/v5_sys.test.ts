/** `$SYS`: what the broker says of itself to clients of MQTT 5.0. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { VERSION } from "../../src/shoal.ts";
import { RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { SESSION_KINDS, text } from "../support/traffic.ts";

describe("$SYS in MQTT 5.0", () => {
	const broker = suiteBroker({ sysIntervalSeconds: 1 });
	const silent = suiteBroker({ sysIntervalSeconds: 0 });

	/** The values that a new subscriber gets until the one of this topic. */
	async function values(client: RawClient, last: string): Promise<Map<string, string>> {
		const found = new Map<string, string>();
		while (!found.has(last)) {
			const publication = await client.expect("publish");
			found.set(publication.topic, text(publication));
		}
		return found;
	}

	for (const { kind, options } of SESSION_KINDS) {
		test(`$SYS: a ${kind} can read each value at once, as a retained message`, async () => {
			const client = await RawClient.connect(broker, options());
			await client.subscribe("$SYS/broker/version", { qos: 1 });
			await client.expect("publish", { topic: "$SYS/broker/version", payload: `shoal ${VERSION}`, retain: true, qos: 0 });
			await client.expectNothing();
		});
	}

	test("$SYS: filters that begin with a wildcard do not show it to either kind of session, neither retained nor live [MQTT-4.7.2-1]", async () => {
		const hidden: RawClient[] = [];
		for (const { options } of SESSION_KINDS) {
			const client = await RawClient.connect(broker, options());
			for (const filter of ["#", "+/#", "+/broker/#", "+/broker/uptime", "$share/g/#"]) await client.subscribe(filter, { qos: 1 });
			hidden.push(client);
		}
		const shown = await RawClient.connect(broker);
		await shown.subscribe("$SYS/broker/uptime", { qos: 1, rh: 2 });
		await shown.expect("publish", { topic: "$SYS/broker/uptime", retain: false });
		for (const client of hidden) await client.expectNothing();
	});

	test("$SYS: $SYS/# shows the number of clients, messages, sessions and retained messages", async () => {
		const client = await RawClient.connect(broker);
		await client.publishAcked("sys/test", "x", { retain: true });
		await client.subscribe("$SYS/#");
		const last = "$SYS/broker/store/messages/count";
		const first = await values(client, last);
		for (const name of ["clients/connected", "clients/sessions", "messages/received", "messages/sent", "retained/count", "uptime"]) {
			assert.ok(first.has(`$SYS/broker/${name}`), name);
		}
		// Only what changes comes again: here the client itself and its message.
		const changed = new Map<string, string>();
		while ((changed.get("$SYS/broker/retained/count") ?? first.get("$SYS/broker/retained/count")) !== "1") {
			const publication = await client.expect("publish", { retain: false });
			changed.set(publication.topic, text(publication));
		}
		assert.ok(Number(changed.get("$SYS/broker/clients/connected") ?? first.get("$SYS/broker/clients/connected")) >= 1);
	});

	test("$SYS: with an interval of 0 there is none", async () => {
		const client = await RawClient.connect(silent);
		await client.subscribe("$SYS/#");
		await client.expectNothing();
	});

	for (const topic of ["$SYS/broker/version", "$SYS/own"]) {
		test(`$SYS: a client cannot publish to ${topic}, with any QoS`, async () => {
			const client = await RawClient.connect(broker);
			client.publish(topic, "x", { qos: 1, retain: true, messageId: 1 });
			await client.expect("puback", { reasonCode: 0x87 });
			client.publish(topic, "x", { qos: 2, retain: true, messageId: 1 });
			await client.expect("pubrec", { reasonCode: 0x87 });
			client.publish(topic, "x", { retain: true });
			await client.expectNothing();
			await client.subscribe(topic);
			if (topic.endsWith("version")) await client.expect("publish", { payload: `shoal ${VERSION}` });
			await client.expectNothing();
		});
	}
});
