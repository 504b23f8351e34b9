/** The proof, after an attack, that the same broker still serves. */

import { freshId, RawClient, type Target } from "./raw_client.ts";

/** New clients over both transports connect, subscribe, publish and get what was published. */
export async function assertServes(broker: Target): Promise<void> {
	const topic = freshId("canary");
	const subscriber = await RawClient.connect(broker, { version: 4, transport: "ws" });
	const publisher = await RawClient.connect(broker, { version: 5, transport: "tcp" });
	await subscriber.subscribe(topic, { qos: 1 });
	await publisher.publishAcked(topic, topic);
	const { messageId } = await subscriber.expect("publish", { topic, payload: topic, qos: 1 });
	subscriber.sendTogether({ cmd: "puback", messageId }, { cmd: "disconnect" });
	await publisher.disconnect();
}
