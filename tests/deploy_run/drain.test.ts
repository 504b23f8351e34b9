/** How a replica goes: it says so first, takes its time, leaves nothing undone, and its clients are at home at the others at once. */

import assert from "node:assert/strict";
import { type AddressInfo, connect, createServer } from "node:net";
import { describe, it, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type ConnectOptions, freshId, RawClient } from "../support/raw_client.ts";
import { startRedis } from "../support/redis_server.ts";
import { startReplicas } from "../support/replicas.ts";
import { type ServerProcess, startServer } from "../support/server_process.ts";
import { durable, freshTopic, numbers, take } from "../support/traffic.ts";

const RUN_MS = 60_000;
const SHUTTING_DOWN = 0x8b;
/** Longer than a client that was sent away is waited for. */
const GRACE_MS = 12_000;

async function status({ wsPort }: ServerProcess, path: string): Promise<number> {
	const response = await fetch(`http://127.0.0.1:${wsPort}${path}`);
	await response.text();
	return response.status;
}

async function untilNotReady(server: ServerProcess): Promise<void> {
	while ((await status(server, "/readyz")) !== 503) await sleep(10);
}

describe("the end of a replica", () => {
	it("DRAIN_NOTICE_SECONDS: it is not ready at once, and serves old and new clients until the notice is over", {
		timeout: RUN_MS,
	}, async (t) => {
		const server = await startServer(t, { DRAIN_NOTICE_SECONDS: "2" });
		const old = await RawClient.connect(server);
		await old.subscribe("notice", { qos: 1 });
		const ended = server.kill("SIGTERM");
		await untilNotReady(server);
		assert.equal(await status(server, "/healthz"), 200);
		const clients = [await RawClient.connect(server), await RawClient.connect(server, { transport: "ws" })];
		await clients[0]?.publishAcked("notice", "still here");
		await take(old, { payload: "still here" });
		for (const client of [old, ...clients]) await client.expectDisconnect(SHUTTING_DOWN);
		assert.equal((await ended).code, 0);
	});

	it("DRAIN_SECONDS: while some clients are told others still work, nobody new is taken, and all are told in the end", {
		timeout: RUN_MS,
	}, async (t) => {
		const server = await startServer(t, { DRAIN_SECONDS: "3" });
		const clients = await Promise.all(
			numbers(40).map((_, index) => RawClient.connect(server, { transport: index % 2 === 0 ? "ws" : "tcp" })),
		);
		let told = 0;
		const all = clients.map(async (client) => {
			await client.expect("disconnect", { reasonCode: SHUTTING_DOWN });
			told++;
			await client.expectClosed();
		});
		const ended = server.kill("SIGTERM");
		await Promise.race(all);
		assert.ok(told < clients.length, `${told} were told at once`);
		assert.equal(await status(server, "/readyz"), 503);
		assert.equal(await status(server, "/mqtt"), 503);
		const late = await RawClient.open(server);
		await late.expectClosed();
		await Promise.all(all);
		assert.equal((await ended).code, 0);
	});

	for (const [second, code] of [
		["SIGINT", 130],
		["SIGTERM", 143],
	] as const) {
		it(`a second signal, ${second}, ends it at once`, { timeout: RUN_MS }, async (t) => {
			const server = await startServer(t, { DRAIN_NOTICE_SECONDS: "600", DRAIN_SECONDS: "600" });
			const client = await RawClient.connect(server);
			void server.kill("SIGTERM");
			await untilNotReady(server);
			const ended = await server.kill(second);
			assert.equal(ended.code, code);
			await client.expectClosed();
		});
	}

	it("with Redis away it ends all the same", { timeout: RUN_MS }, async (t) => {
		const { redis, a } = await startReplicas(t, { runtimes: ["own"], env: { DRAIN_SECONDS: "1" } });
		const client = await RawClient.connect(a, { ...durable(), will: { topic: "will", payload: "x", qos: 1, retain: false } });
		redis.signal("SIGSTOP");
		await a.kill("SIGTERM");
		redis.signal("SIGCONT");
		await client.expectDisconnect(SHUTTING_DOWN);
	});
});

describe("wills of clients that were sent away", () => {
	const topic = freshTopic();
	const will = (name: string) => ({ topic, payload: name, qos: 1, retain: false });
	/** Every kind of session, each with a will without delay. */
	const kinds: Readonly<Record<string, () => ConnectOptions>> = {
		"clean session of 3.1.1": () => ({ version: 4, clientId: freshId(), transport: "ws" }),
		"clean session of 5.0": () => ({ clientId: freshId() }),
		"kept session of 3.1.1": () => ({ version: 4, clientId: freshId(), clean: false }),
		"kept session of 5.0": () => durable(),
	};

	it("a client that is back at another replica has none published, whatever its session; that of one that stays away is", {
		timeout: RUN_MS,
	}, async (t) => {
		const { a, b, c } = await startReplicas(t, { env: { DRAIN_SECONDS: "1" } });
		const watcher = await RawClient.connect(c);
		await watcher.subscribe(topic, { qos: 1 });
		const clients = await Promise.all(
			Object.entries(kinds).map(async ([name, make]) => {
				const options = { ...make(), will: will(name) };
				return { options, client: await RawClient.connect(a, options) };
			}),
		);
		await RawClient.connect(a, { ...durable(), will: will("of one that stays away") });
		const ended = a.kill("SIGTERM");
		const returned = await Promise.all(
			clients.map(async ({ options, client }) => {
				await client.receiveUntilClosed();
				return RawClient.connect(b, options);
			}),
		);
		await ended;
		await sleep(GRACE_MS);
		await take(watcher, { payload: "of one that stays away" });
		await watcher.expectNothing();
		await returned[0]?.destroy();
		await take(watcher, { payload: "clean session of 3.1.1" });
	});

	it("sessions that are opened while the replica goes have no will published", { timeout: RUN_MS }, async (t) => {
		const { a, b } = await startReplicas(t, { runtimes: ["own", "own"], env: { DRAIN_SECONDS: "0" } });
		const options = numbers(50).map(() => ({ ...durable(), will: will("of one that was on its way") }));
		const watcher = await RawClient.connect(b);
		await watcher.subscribe(topic, { qos: 1 });
		const early = await Promise.all(
			options.map(async (each) => {
				const client = await RawClient.open(a);
				client.sendConnect(each);
				return client;
			}),
		);
		await a.kill("SIGTERM");
		await Promise.all(early.map((client) => client.receiveUntilClosed()));
		await Promise.all(options.map((each) => RawClient.connect(b, each)));
		await watcher.expectNothing();
	});

	it("a replica that reaches Redis late tells its clients later still: their sessions are free when they come to another", {
		timeout: RUN_MS,
	}, async (t) => {
		const redis = await startRedis();
		t.after(() => redis.stop());
		const way = await slowWay(t, redis.port);
		const [a, b] = [await startServer(t, { REDIS_URL: way.url }), await startServer(t, { REDIS_URL: redis.url })];
		const watcher = await RawClient.connect(b);
		await watcher.subscribe(topic, { qos: 1 });
		const options = durable();
		const client = await RawClient.connect(a, { ...options, will: will("first") });
		// Longer than it takes the other replica to look for wills, and shorter than what counts as the end of Redis.
		way.delayMs = 1500;
		const ended = a.kill("SIGTERM");
		await client.expectDisconnect(SHUTTING_DOWN);
		const returned = await RawClient.connect(b, { ...options, will: will("second") });
		await ended;
		await returned.destroy();
		// Wills are published in the order in which they fall due.
		await take(watcher, { payload: "second" });
		await watcher.expectNothing();
	});
});

/** A way to a server on this machine on which questions take this long, and answers no time. */
async function slowWay(t: TestContext, port: number): Promise<{ readonly url: string; delayMs: number }> {
	const server = createServer((socket) => {
		const upstream = connect(port, "127.0.0.1");
		socket.on("data", (data) => void setTimeout(() => upstream.write(data), way.delayMs));
		upstream.on("data", (data) => void socket.write(data));
		for (const [one, other] of [
			[socket, upstream],
			[upstream, socket],
		] as const) {
			one.on("error", () => {});
			one.on("close", () => other.destroy());
		}
	});
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	t.after(() => void server.close());
	const way = { url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`, delayMs: 0 };
	return way;
}
