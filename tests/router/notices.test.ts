/** What replicas announce to one another over the Redis router, and that nobody misses it unknowingly. */

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { StoreError } from "../../src/store/store.ts";
import { RouterBench, type Told, until } from "./router_support.ts";

let bench: RouterBench;

before(async () => {
	bench = await RouterBench.start();
});

afterEach(() => bench.closeRouters());

after(() => bench.stop());

/** Waits until all that was told because replicas have begun has been told. */
async function quiet(...routers: readonly Told[]): Promise<void> {
	for (const { router } of routers) await router.catchUp();
	for (const { notices } of routers) notices.length = 0;
}

test("Redis router: a notice is told to every other replica, in order, with every character", async () => {
	const { a, b, prefix } = await bench.pair();
	const c = await bench.router(prefix, "c");
	await quiet(a, b, c);
	const notices = ["record user bob", "", "a b\nc ü 日本 \u0000", "x".repeat(10_000)];
	for (const notice of notices) await a.router.announce(notice);
	await Promise.all([b, c].map((each) => until("all have come", () => each.notices.length >= notices.length)));
	assert.deepEqual(b.notices, notices);
	assert.deepEqual(c.notices, notices);
	assert.deepEqual(a.notices, []);
});

test("Redis router: when announce has resolved, catchUp elsewhere brings the notice", async () => {
	const { a, b } = await bench.pair();
	await quiet(a, b);
	for (let n = 0; n < 200; n++) {
		await a.router.announce(String(n));
		await b.router.catchUp();
		assert.equal(b.notices.at(-1), String(n));
	}
});

test("Redis router: notices among routes disturb no routes", async () => {
	const { a, b } = await bench.pair();
	await a.router.advertise("t/#");
	const before = b.routes.size;
	await b.router.announce("x");
	await a.router.announce("y");
	await a.router.advertise("u/#");
	await b.router.catchUp();
	assert.deepEqual([before, [...b.routes.keys()]], [1, ["a t/#", "a u/#"]]);
	assert.deepEqual([...a.routes.keys()], []);
});

test("Redis router: who starts is told to look at everything, and so is everybody when another begins or ends", async () => {
	const { a, b, prefix } = await bench.pair();
	assert.ok(a.notices.includes(undefined));
	assert.ok(b.notices.includes(undefined));
	await quiet(a, b);
	const c = await bench.router(prefix, "c");
	await until("a is told of the beginning", () => a.notices.length > 0);
	await quiet(a, b);
	await c.router.close();
	await until("a is told of the end", () => a.notices.length > 0);
	assert.deepEqual(a.notices, [undefined]);
});

test("Redis router: after Redis was killed and started, both are told to look at everything, and notices come again", async () => {
	const { a, b } = await bench.pair();
	await quiet(a, b);
	await bench.server.kill();
	await until("it is noticed", () => a.errors.length > 0 && b.errors.length > 0);
	await assert.rejects(a.router.announce("lost"), (error) => error instanceof StoreError && error.code === "away");
	await bench.server.restart();
	await until("both are told", () => a.notices.includes(undefined) && b.notices.includes(undefined));
	await until("a notice comes", async () => {
		await a.router.announce("again").catch(() => {});
		return b.notices.includes("again");
	});
});

test("Redis router: who is further behind than changes are remembered is told to look at everything", async () => {
	const { a, b, prefix } = await bench.pair({ selfTestMs: 50 });
	await quiet(a, b);
	const version = Number(await bench.client.get(`${prefix}{live}:version`));
	// As if the changes in between had been trimmed.
	await bench.client.set(`${prefix}{live}:version`, version + 100);
	await a.router.announce("later");
	await until("b is told", () => b.notices.length > 0);
	assert.ok(b.notices.includes(undefined));
});

test("Redis router: announce rejects when it is not started, and when it was closed", async () => {
	const told = bench.make(bench.freshPrefix(), "a");
	const refused = (error: unknown): boolean => error instanceof StoreError && error.code === "unavailable";
	await assert.rejects(told.router.announce("x"), refused);
	await told.start();
	await told.router.close();
	await assert.rejects(told.router.announce("x"), refused);
});
