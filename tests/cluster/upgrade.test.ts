/**
 * A replica of the next version joins a running cluster, leaves it, and takes its place one by one. The next version is a copy
 * of these sources that has one more field in its message records and parcels, and reads both formats.
 */

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import { type HistoryEvent, judge } from "../support/history.ts";
import { LoadPublisher, LoadSubscriber, type SubscriberOptions } from "../support/load_client.ts";
import { acknowledged, anyOf, drained, roaming, until } from "../support/load_run.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { startRedis } from "../support/redis_server.ts";
import { Replica } from "../support/replicas.ts";
import { OWN_RUNTIME, type Runtime, runServer } from "../support/server_process.ts";
import type { Cleanup } from "../support/test_broker.ts";
import { durable, freshTopic } from "../support/traffic.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OTHER_RUNTIME: Runtime = OWN_RUNTIME === "bun" ? "deno" : "bun";
const RUN_MS = 120_000;
const LEASE_SECONDS = 2;
const PUBLISH_EVERY_MS = 10;
const COPIED = ["server.ts", "package.json", "deno.json", "bunfig.toml", "tsconfig.json", "src"];

/** What makes the next version, by file: a text, and what stands in its place. */
const PATCHES: Readonly<Record<string, readonly (readonly [before: string, after: string])[]>> = {
	"src/store/message_record.ts": [
		["RECORD_VERSION = 1", "RECORD_VERSION = 2"],
		["MESSAGE_OVERHEAD = 26", "MESSAGE_OVERHEAD = 30"],
		["buffer[at++] = message.qos", "if (version > 1) at = write32(buffer, at, 0x7478656e);\n\tbuffer[at++] = message.qos"],
		[
			"const flags = bytes[1] as number;\n\tlet at = 2;",
			`const field = bytes[0] === 1 ? 0 : 4;
	if (field > 0 && read32(bytes, 1) !== 0x7478656e) throw new Error("the new field is not there");
	const flags = bytes[1 + field] as number;
	let at = 2 + field;`,
		],
	],
	"src/router/envelope.ts": [
		["Buffer.allocUnsafe(8 + sender.length)", "Buffer.allocUnsafe(8 + sender.length + (format > 1 ? 4 : 0))"],
		[
			"write48(head, 2 + sender.length, number);",
			"if (format > 1) write32(head, write48(head, 2 + sender.length, number), 0x7478656e);\n\telse write48(head, 2 + sender.length, number);",
		],
		["end: nameEnd + 6", "end: nameEnd + (parcel[0] === 1 ? 6 : 10)"],
	],
};

const PUBLISHERS = [{ pattern: [1] }, { pattern: [2] }, { pattern: [1, 2] }] as const;
const SUBSCRIBERS: readonly SubscriberOptions[] = [
	{ filter: "load/#", qos: 2, ackDelayMs: 0 },
	{ filter: "load/#", qos: 1, ackDelayMs: 20 },
	{ filter: "load/publisher-2/0", qos: 2, ackDelayMs: 5 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 10 },
	{ filter: "$share/group/load/#", qos: 2, ackDelayMs: 5 },
];

/** Makes the next version in a folder that goes with the test. */
function makeNextVersion(t: Cleanup): string {
	const folder = mkdtempSync(join(tmpdir(), "shoal-next-"));
	t.after(() => rmSync(folder, { recursive: true, force: true }));
	for (const name of COPIED) cpSync(join(ROOT, name), join(folder, name), { recursive: true });
	symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
	for (const [file, patches] of Object.entries(PATCHES)) {
		let text = readFileSync(join(folder, file), "utf8");
		for (const [before, after] of patches) {
			assert.equal(text.split(before).length, 2, `"${before}" stands once in ${file}`);
			text = text.replace(before, () => after);
		}
		writeFileSync(join(folder, file), text);
	}
	return folder;
}

it("replicas of the next version join, leave and take over under load: nothing is lost, and the old version then refuses to start", {
	timeout: RUN_MS,
}, async (t) => {
	const next = makeNextVersion(t);
	const redis = await startRedis();
	t.after(() => redis.stop());
	const admin = new Redis(redis.url);
	t.after(() => admin.disconnect());
	const env = { REDIS_URL: redis.url, REPLICA_LEASE_SECONDS: `${LEASE_SECONDS}`, LOG_MAX_MESSAGES: "1000000" };
	const start = (version: "old" | "new", runtime: Runtime) => Replica.start(t, env, runtime, version === "new" ? next : undefined);
	/** Versions with which a retained message and the entry of a log are stored now. */
	const written = async (replica: Replica): Promise<number[]> => {
		const topic = freshTopic();
		const offline = await RawClient.connect(replica, durable());
		await offline.subscribe(topic, { qos: 1 });
		await offline.disconnect();
		const client = await RawClient.connect(replica);
		await client.publishAcked(topic, "x", { retain: true });
		const record = await admin.hgetBuffer("shoal:{ret}", topic);
		const [[, [, entry]]] = (await admin.xrangeBuffer(`shoal:{l:${topic}}`, "-", "+")) as unknown as [[Buffer, [Buffer, Buffer]]];
		await client.destroy();
		// Behind the version and the id of the entry.
		return [record?.[0] ?? 0, entry[9] ?? 0];
	};

	const [first, second] = await Promise.all([start("old", OWN_RUNTIME), start("old", OTHER_RUNTIME)]);
	const guest = await start("new", OWN_RUNTIME);
	let living: Replica[] = [first, second, guest];
	const events: HistoryEvent[] = [];
	const options = (clientId: string, index: number) =>
		roaming(() => anyOf(living), { clientId, events, version: index % 2 === 0 ? 5 : 4, transport: index % 3 === 0 ? "ws" : "tcp" });
	const publishers = PUBLISHERS.map((each, index) => new LoadPublisher(options(`publisher-${index}`, index), { ...each, window: 50 }));
	const subscribers = SUBSCRIBERS.map((each, index) => new LoadSubscriber(options(freshId(), index), each));
	const clients = [...publishers, ...subscribers];
	t.after(() => Promise.all(clients.map((client) => client.stop())).then(() => {}));
	for (const client of clients) client.start();
	await until("all have subscribed", () => subscribers.every((subscriber) => subscriber.subscribed));
	const load = setInterval(() => {
		for (const publisher of publishers) publisher.publish(2);
	}, PUBLISH_EVERY_MS);
	t.after(() => clearInterval(load));
	/** Lets everybody be somewhere else, for as long as leases are renewed. */
	const mix = async (): Promise<void> => {
		for (const client of clients) {
			client.cut();
			await sleep((LEASE_SECONDS * 1000) / clients.length);
		}
	};

	await mix();
	for (const replica of living) assert.deepEqual(await written(replica), [1, 1], "who is new writes what all can read");
	living = [first, second];
	await guest.kill("SIGTERM");
	await mix();
	const third = await start("new", OTHER_RUNTIME);
	living = [first, second, third];
	await first.kill("SIGTERM");
	living = [second, third];
	const fourth = await start("new", OWN_RUNTIME);
	living = [second, third, fourth];
	await mix();
	for (const replica of living) assert.deepEqual(await written(replica), [1, 1], "one old one is left");

	// The last old one is not ended but away, and comes back when the others have gone on.
	living = [third, fourth];
	second.freeze();
	let format: string | null = null;
	const look = setInterval(() => {
		void admin.get("shoal:{reps}:format").then((now) => {
			format = now;
		});
	}, 50);
	t.after(() => clearInterval(look));
	await until("the new format is used", () => format === "2");
	clearInterval(look);
	await sleep(LEASE_SECONDS * 600);
	second.thaw();
	for (const replica of living) assert.deepEqual(await written(replica), [2, 2]);
	const told = () =>
		second.log.some(({ error }) => /data of format 2, and this version of Shoal reads formats up to 1/.test(String(error)));
	await until("the old one says why it cannot go on", told);
	assert.equal(await second.status("/readyz"), 503);
	const refused = await RawClient.open(second);
	refused.sendConnect();
	await refused.expect("connack", { reasonCode: 0x88 });
	await second.kill("SIGTERM");

	clearInterval(load);
	await acknowledged(publishers);
	await drained(events);
	const { violations, ...figures } = judge(events);
	console.log(JSON.stringify(figures));
	assert.deepEqual(violations, []);
	assert.equal(figures.lost, 0);
	assert.ok(figures.acknowledged > 500, "the load was a load");

	const { code, stderr } = await runServer(t, [], env);
	assert.equal(code, 1);
	assert.match(stderr, /it has data of format 2.*Run the version that wrote it, restore a backup from before/);
});
