/** Messages by the dozen for tests with `RawClient`: publishing, taking and acknowledging, and the two kinds of session. */

import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { type AnyPacket, type ConnectOptions, freshId, type RawClient } from "./raw_client.ts";

/** CONNECT of a session that outlives its connection. With the same client id it is resumed. */
export function durable(clientId = freshId(), properties: AnyPacket = {}): ConnectOptions {
	return { clientId, clean: false, properties: { sessionExpiryInterval: 300, ...properties } };
}

/** Both kinds of session that a delivery may go to. */
export const SESSION_KINDS: readonly { readonly kind: string; options(properties?: AnyPacket): ConnectOptions }[] = [
	{ kind: "session that ends with its connection", options: (properties = {}) => ({ clientId: freshId(), properties }) },
	{ kind: "persistent session", options: (properties = {}) => durable(freshId(), properties) },
];

/** Topic that no other test has. */
export function freshTopic(): string {
	return freshId("topic");
}

/** Breaks a connection without DISCONNECT and waits until the broker has noticed. */
export async function breakOff({ shoal }: { readonly shoal: { readonly connections: number } }, client: RawClient): Promise<void> {
	const before = shoal.connections;
	await client.destroy();
	for (let waited = 0; shoal.connections >= before && waited < 5_000; waited++) await delay(1);
	assert.ok(shoal.connections < before, "the broker notices the end of the connection");
}

/** Sends what a PUBLISH of the broker asks for first: PUBACK, PUBREC or nothing. */
export function acknowledge(client: RawClient, { qos, messageId }: AnyPacket, reasonCode = 0): void {
	if (qos > 0) client.send({ cmd: qos === 1 ? "puback" : "pubrec", messageId, reasonCode });
}

/** Receives a PUBLISH with these fields and completes its flow. */
export async function take(client: RawClient, fields: AnyPacket = {}): Promise<AnyPacket> {
	const publish = await client.expect("publish", fields);
	acknowledge(client, publish);
	if (publish.qos === 2) {
		await client.expect("pubrel", { messageId: publish.messageId });
		client.send({ cmd: "pubcomp", messageId: publish.messageId });
	}
	return publish;
}

/** Receives so many PUBLISH packets, acknowledges each at once and completes all flows. */
export async function takeMany(client: RawClient, count: number): Promise<AnyPacket[]> {
	const publications: AnyPacket[] = [];
	let releases = 0;
	while (publications.length < count || releases > 0) {
		const packet = await client.receive();
		if (packet.cmd === "pubrel") {
			client.send({ cmd: "pubcomp", messageId: packet.messageId });
			releases--;
			continue;
		}
		assert.equal(packet.cmd, "publish", `expected publish, got ${JSON.stringify(packet)}`);
		publications.push(packet);
		acknowledge(client, packet);
		if (packet.qos === 2) releases++;
	}
	return publications;
}

/** Publishes payloads `0`, `1`, … in one go and completes all flows. At most as many as the broker's Receive Maximum. */
export async function publishMany(
	client: RawClient,
	topic: (index: number) => string,
	count: number,
	fields: AnyPacket = {},
): Promise<void> {
	const qos = fields.qos ?? 0;
	for (let index = 0; index < count; index++) client.publish(topic(index), `${index}`, { ...fields, qos, messageId: index + 1 });
	if (qos === 1) for (let index = 0; index < count; index++) await client.expect("puback", { messageId: index + 1 });
	if (qos === 2) {
		for (let index = 0; index < count; index++) await client.expect("pubrec", { messageId: index + 1 });
		for (let index = 0; index < count; index++) client.send({ cmd: "pubrel", messageId: index + 1 });
		for (let index = 0; index < count; index++) await client.expect("pubcomp", { messageId: index + 1 });
	}
	await client.expectNothing();
}

/** Payload as text. */
export function text({ payload }: AnyPacket): string {
	return Buffer.from(payload).toString();
}

/** Texts `0`, `1`, … up to `count`. */
export function numbers(count: number, first = 0): string[] {
	return Array.from({ length: count }, (_, index) => `${first + index}`);
}
