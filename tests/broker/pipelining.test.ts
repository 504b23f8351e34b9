/** A client that does not wait for answers: what it sends behind a SUBSCRIBE reaches the subscription. */

import { describe, it } from "node:test";
import { RawClient } from "../support/raw_client.ts";
import { suiteBroker } from "../support/suite_broker.ts";

describe("pipelining", () => {
	const broker = suiteBroker();

	for (const sessionExpiryInterval of [0, 100]) {
		for (const qos of [0, 1] as const) {
			it(`a PUBLISH with QoS ${qos} right behind the SUBSCRIBE is delivered, session expiry ${sessionExpiryInterval}`, async () => {
				const client = await RawClient.connect(broker, { properties: { sessionExpiryInterval } });
				const topic = `pipelining/${sessionExpiryInterval}/${qos}`;
				client.sendTogether(
					{ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos: 0 }] },
					{ cmd: "publish", topic, payload: "behind", qos, messageId: 2 },
				);
				const wanted = new Set(qos === 0 ? ["suback", "publish"] : ["suback", "puback", "publish"]);
				while (wanted.size > 0) wanted.delete((await client.receive()).cmd);
				await client.disconnect();
			});
		}
	}
});
