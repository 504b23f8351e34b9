/** The Redis router when Redis fails: killed, frozen, emptied, cut off, or answering into the void. */

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { messageEnvelope, writeHead } from "../../src/router/envelope.ts";
import { READS } from "../../src/store/redis/format.ts";
import { LossyProxy } from "../store/redis_proxy.ts";
import { allInOrder, forwardDuring, forwarded, message, persistently, RouterBench, until, working } from "./router_support.ts";

let bench: RouterBench;
let proxy: LossyProxy;

before(async () => {
	bench = await RouterBench.start();
	proxy = await LossyProxy.start(bench.server.port);
});

afterEach(() => bench.closeRouters());

after(async () => {
	await proxy.stop();
	await bench.stop();
});

/** Ends the connections that wait for something to read. */
async function killReaders(): Promise<void> {
	for (const [, id] of String(await bench.client.client("LIST")).matchAll(/^id=(\d+) .*cmd=xread /gm)) {
		await bench.client.client("KILL", "ID", Number(id));
	}
}

/** Number of the last entry. */
async function lastNumber(inbox: string): Promise<number> {
	const [entry] = await bench.client.xrevrange(inbox, "+", "-", "COUNT", 1);
	return Number(entry?.[0].split("-")[1]);
}

test("Redis router: Redis is killed and started again: nothing is lost or twice, the order is kept, and routes that were advertised meanwhile are known", async () => {
	const { a, b } = await bench.pair();
	await a.router.advertise("before/#");
	let advertised = false;
	const count = await forwardDuring(a, b, async () => {
		await bench.server.kill();
		await until("it is noticed", () => a.errors.length > 0 && b.errors.length > 0);
		const late = ["late/#", "late", "$share/late/t"].map((filter) => a.router.advertise(filter));
		void Promise.all(late).then(() => {
			advertised = true;
		});
		a.router.withdraw("before/#");
		a.router.publish("b", message("dropped", { qos: 0 }), []);
		await sleep(100);
		assert.ok(!advertised, "nothing can be stored now");
		await bench.server.restart();
	});
	await allInOrder(b, count);
	await until("advertise has resolved", () => advertised);
	await persistently(() => b.router.catchUp());
	assert.deepEqual([...b.routes.keys()].sort(), ["a $share/late/t", "a late/#"]);
	assert.deepEqual(b.wants("late"), ["a"]);
	assert.deepEqual([a.dropped, a.count("gap"), b.count("gap")], [1, 0, 0]);
	assert.ok(a.errors.length <= 4, `an outage is told once per connection: ${a.errors.join("; ")}`);
	await working(a, b, "after");
});

test("Redis router: Redis is frozen for 3 s: everything goes on, nothing is lost, and the order is kept", async () => {
	const { a, b } = await bench.pair({ selfTestMs: 300 });
	const count = await forwardDuring(a, b, async () => {
		bench.server.signal("SIGSTOP");
		try {
			await sleep(3000);
		} finally {
			bench.server.signal("SIGCONT");
		}
	});
	await allInOrder(b, count);
	assert.equal(b.count("gap"), 0);
	await working(a, b, "after");
});

test("Redis router: Redis is emptied: both are told of a gap, and find each other again", async () => {
	const { a, b, prefix } = await bench.pair({ selfTestMs: 50 });
	await Promise.all(["t/#", "$share/g/t", "x"].map((filter) => a.router.advertise(filter)));
	await b.router.catchUp();
	await bench.client.flushall();
	await Promise.all([a.told("gap"), b.told("gap")]);
	await until("b knows a's routes", () => b.routes.get("a t/#") === 1 && b.routes.get("a $share/g/t") === 1 && b.wants("x").length === 1);
	await working(a, b, "after");
	assert.equal(await bench.client.exists(`${prefix}{in:a}`, `${prefix}{in:b}`), 2);
	assert.deepEqual([a.count("gap"), b.count("gap")], [1, 1]);
});

test("Redis router: each of its connections is killed, again and again: nothing is lost or twice, the order is kept", async () => {
	const { a, b } = await bench.pair();
	const count = await forwardDuring(a, b, async () => {
		for (let round = 0; round < 4; round++) {
			const ids = [...String(await bench.client.client("LIST")).matchAll(/^id=(\d+) .*cmd=(\S+)/gm)];
			for (const [, id, command] of ids) {
				if (command?.startsWith("client") === true) continue;
				await bench.client.client("KILL", "ID", Number(id));
				await sleep(15);
			}
		}
	});
	await allInOrder(b, count);
	assert.deepEqual([a.count("gap"), b.count("gap")], [0, 0]);
	await working(a, b, "after");
});

test("Redis router: answers are lost: what is unknown is repeated, and nothing is lost or twice", async () => {
	const prefix = bench.freshPrefix();
	const a = await bench.router(prefix, "a", { redis: proxy.url });
	const b = await bench.router(prefix, "b");
	let stored = false;
	const count = await forwardDuring(a, b, async () => {
		for (let round = 0; round < 5; round++) {
			proxy.loseAnswers();
			await sleep(30);
			void Promise.all([a.router.advertise(`${round}/#`), a.router.advertise(`${round}`)]).then(() => {
				stored = round === 4;
			});
			proxy.cut();
			await sleep(30);
		}
	});
	await allInOrder(b, count);
	await until("advertise has resolved", () => stored);
	await b.router.catchUp();
	assert.deepEqual(
		[...b.routes.keys()].sort(),
		[0, 1, 2, 3, 4].map((round) => `a ${round}/#`),
	);
	for (let round = 0; round < 5; round++) assert.deepEqual(b.wants(String(round)), ["a"]);
	assert.equal(b.count("gap"), 0);
});

test("Redis router: rings and takeover notices that Redis was away for come when it is back", async () => {
	const prefix = bench.freshPrefix();
	const a = await bench.router(prefix, "a", { redis: proxy.url });
	const b = await bench.router(prefix, "b");
	proxy.loseAnswers();
	proxy.cut();
	await until("it is noticed", () => a.errors.length > 0);
	a.router.ring(["b"], "$share/g/t");
	a.router.notifyTakeover("b", { clientId: "c", epoch: "e" });
	await b.told("group $share/g/t");
	await b.told("takeover c e");
});

test("Redis router: a replica whose reading was held up for so long that its inbox was trimmed is told of the gap", async () => {
	const prefix = bench.freshPrefix();
	const a = await bench.router(prefix, "a", { inboxMax: 10 });
	const b = await bench.router(prefix, "b", { redis: proxy.url });
	await a.router.forward(["b"], forwarded("first"), undefined);
	await b.told("message first");
	proxy.loseAnswers();
	for (let n = 0; n < 1000; n++) await a.router.forward(["b"], forwarded(String(n)), undefined);
	assert.equal(b.messages.length, 1);
	proxy.cut();
	await b.told("message 999");
	const [, ...rest] = b.payloads.map(Number);
	const first = rest[0] as number;
	assert.ok(first > 900, `the inbox kept what is from ${first} on`);
	assert.deepEqual(
		rest,
		Array.from({ length: 1000 - first }, (_, n) => first + n),
	);
	assert.deepEqual(b.events.slice(0, 3), ["message first", "gap", `message ${first}`]);
	assert.equal(b.count("gap"), 1);
});

test("Redis router: numbers that are missing in the inbox are a gap, and what follows is read", async () => {
	const { a, b, prefix } = await bench.pair();
	await a.router.forward(["b"], forwarded("1"), undefined);
	await b.told("message 1");
	await bench.client.xadd(`${prefix}{in:b}`, "0-1000", "b", writeHead("somebody", 1, READS));
	await b.told("gap");
	await a.router.forward(["b"], forwarded("2"), undefined);
	await b.told("message 2");
	assert.equal(b.count("gap"), 1);
});

test("Redis router: an inbox that was removed is made anew, and its replica told of the gap", async () => {
	const { a, b, prefix } = await bench.pair({ selfTestMs: 50 });
	await bench.client.del(`${prefix}{in:b}`);
	await b.told("gap");
	await a.router.forward(["b"], forwarded("x"), undefined);
	await b.told("message x");
	assert.deepEqual([a.count("gap"), b.count("gap")], [0, 1]);
});

test("Redis router: an inbox that went back in time, as after a failover that lost entries, is a gap even when it has as many entries again", async () => {
	const { a, b, prefix } = await bench.pair();
	for (const payload of ["1", "2", "3"]) await a.router.forward(["b"], forwarded(payload), undefined);
	await b.told("message 3");
	const inbox = `${prefix}{in:b}`;
	const last = `0-${await lastNumber(inbox)}`;
	await bench.client
		.multi()
		.del(inbox)
		.xadd(inbox, last, "b", writeHead("somebody", 1, READS))
		.exec();
	await killReaders();
	await b.told("gap");
	await a.router.forward(["b"], forwarded("4"), undefined);
	await b.told("message 4");
	assert.deepEqual([b.payloads, b.count("gap")], [["1", "2", "3", "4"], 1]);
});

test("Redis router: what is read again after a gap is handed out once", async () => {
	const { b, prefix } = await bench.pair();
	const inbox = `${prefix}{in:b}`;
	const parcel = (number: number): Buffer =>
		Buffer.concat([writeHead("somebody", number, READS), messageEnvelope(forwarded(String(number)), undefined, Date.now(), READS)]);
	for (const number of [1, 2, 3]) await bench.client.xadd(inbox, "0-*", "b", parcel(number));
	await b.told("message 3");
	const again = bench.client.multi().del(inbox);
	for (const number of [1, 2, 3, 4]) again.xadd(inbox, "0-*", "b", parcel(number));
	await again.exec();
	await killReaders();
	await b.told("message 4");
	assert.deepEqual(b.events, ["message 1", "message 2", "message 3", "gap", "message 4"]);
});

test("Redis router: a change of routes that the server has lost is stored again", async () => {
	const { a, b, prefix } = await bench.pair();
	for (const filter of ["t/#", "u/#"]) await a.router.advertise(filter);
	await b.router.catchUp();
	const live = `${prefix}{live}`;
	const version = Number(await bench.client.get(`${live}:version`));
	const changes = `${live}:changes`;
	const lose = bench.client.multi().hdel(`${live}:named:a`, "u/#").decr(`${live}:version`).xdel(changes, `${version}-0`);
	await lose.call("XSETID", changes, `${version - 1}-0`).exec();
	await killReaders();
	await until("it is stored again", async () => (await bench.client.hexists(`${live}:named:a`, "u/#")) === 1);
	await persistently(() => b.router.catchUp());
	assert.deepEqual([...b.routes.keys()].sort(), ["a t/#", "a u/#"]);
});

test("Redis router: what is advertised while all routes are being stored again is stored too", async () => {
	const prefix = bench.freshPrefix();
	const b = await bench.router(prefix, "b");
	proxy.slowDown("{live}", 40);
	const a = await bench.router(prefix, "a", { redis: proxy.url });
	const token = (): Promise<string | null> => bench.client.hget(`${prefix}{live}`, "a");
	const earlier = await token();
	proxy.cut();
	const waiting = [];
	let n = 0;
	// Until Redis has stored all, which its answer does not say yet: what comes after the last call must leave by itself.
	do {
		waiting.push(a.router.advertise(`${++n}/#`), a.router.advertise(`${n}`));
		await sleep(5);
	} while ((await token()) === earlier);
	await Promise.all(waiting);
	await b.router.catchUp();
	assert.equal(b.routes.size, n);
	for (let each = 1; each <= n; each++) assert.deepEqual(b.wants(String(each)), ["a"]);
	proxy.slowDown("{live}", 0);
});

test("Redis router: a replica that is forgotten while it lives comes back with all its routes, and is told of a gap", async () => {
	const { a, b } = await bench.pair();
	await Promise.all(["t/#", "$share/g/t", "x"].map((filter) => b.router.advertise(filter)));
	await a.router.catchUp();
	await a.router.forget("b");
	await b.told("gap");
	await until("a knows b's routes", () => a.routes.get("b t/#") === 1 && a.routes.get("b $share/g/t") === 1 && a.wants("x").length === 1);
	await working(a, b, "after");
	assert.deepEqual([a.count("gap"), b.count("gap")], [0, 1]);
	// Between the gap and its routes nobody has told it of anything: only now can it look for what it has missed.
	await until("b hears that its routes are stored again", () => b.stored === 2);
});

test("Redis router: an advertise that meets routes which somebody has removed stores all of them again", async () => {
	const prefix = bench.freshPrefix();
	const a = await bench.router(prefix, "a");
	await a.router.advertise("t/#");
	await bench.client.del(`${prefix}{live}`, `${prefix}{live}:named:a`);
	await a.router.advertise("u/#");
	const b = await bench.router(prefix, "b");
	assert.deepEqual([...b.routes.keys()].sort(), ["a t/#", "a u/#"]);
});

test("Redis router: a commit that was held up on its way cannot undo a later one, nor a change one that belongs to it", async () => {
	const { a, b, prefix } = await bench.pair();
	await a.router.advertise("t/#");
	const [process, number] = String(await bench.client.hget(`${prefix}{live}`, "a")).split(" ");
	await bench.client.hset(`${prefix}{live}`, "a", `${process} ${Number(number) + 5}`);
	await a.router.advertise("u/#");
	assert.ok(Number(String(await bench.client.hget(`${prefix}{live}`, "a")).split(" ")[1]) >= Number(number) + 5);
	await b.router.catchUp();
	assert.deepEqual([...b.routes.keys()].sort(), ["a t/#", "a u/#"]);
});

test("Redis router: a subscription that has gone deaf is noticed by the self-test and replaced", async () => {
	const prefix = bench.freshPrefix();
	proxy.slowDown("subscribe", 0);
	const a = await bench.router(prefix, "a");
	const b = await bench.router(prefix, "b", { redis: proxy.url, selfTestMs: 100 });
	try {
		await sleep(300);
		assert.deepEqual(b.errors, []);
		// Later than the test: the connection stays, and nothing comes.
		proxy.slowDown("subscribe", 20_000);
		await until("it is noticed", () => b.errors.some(({ message: text }) => /deaf/.test(text)));
	} finally {
		proxy.slowDown("subscribe", 0);
	}
	await until("QoS 0 comes through again", async () => {
		a.router.publish("b", message("x", { qos: 0 }), []);
		await sleep(20);
		return b.messages.length > 0;
	});
	assert.deepEqual([b.errors.length, b.count("gap")], [1, 0]);
});

test("Redis router: parcels of an unknown version are told once, and are a gap where they had to arrive", async () => {
	const { a, b, prefix } = await bench.pair();
	const later = writeHead("later", 1, READS);
	later[0] = 2;
	for (let n = 0; n < 3; n++) await bench.client.xadd(`${prefix}{in:b}`, "0-*", "b", later);
	await b.told("gap", 1);
	await a.router.forward(["b"], forwarded("x"), undefined);
	await b.told("message x");
	assert.equal(b.errors.length, 1);
	assert.match(String(b.errors[0]?.message), /format is 2.*Restart it with the version/);
	await bench.client.publish(`${prefix}{bus:a}`, later);
	await bench.client.publish(`${prefix}{bus:a}`, Buffer.from([1, 200, 1]));
	await until("a says so", () => a.errors.length === 2);
	assert.equal(a.count("gap"), 0);
});
