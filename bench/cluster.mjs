/**
 * What many replicas cost in Redis: `node bench/cluster.mjs [bun|deno]`. Two replicas and a Redis of our own with the
 * repository's `redis.conf`; counts commands and CPU time by what Redis says of itself. Prints Markdown tables.
 */

import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { connectAsync } from "mqtt";
import { end, endEverything, freePort, listening, start, temporaryFolder } from "./processes.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const runtime = process.argv[2] === "deno" ? "deno" : "bun";
const PAYLOAD = Buffer.alloc(64, "x");
const MESSAGES = 20_000;
const WINDOW = 100;
const PERSISTENT = { clean: false, properties: { sessionExpiryInterval: 3600 } };

/** @typedef {import("mqtt").MqttClient} Client */
/** @typedef {{ port: number, pid: number, started: ReturnType<typeof start> }} Replica */

process.on("exit", endEverything);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));

const redisPort = await freePort();
const redis = start([
	"redis-server",
	join(root, "redis.conf"),
	"--bind",
	"127.0.0.1",
	"--port",
	String(redisPort),
	"--dir",
	temporaryFolder(),
]);
await listening(redis, redisPort, "Redis");
const a = await replica();
const b = await replica();

console.log(
	`${runtime}, ${new Date().toISOString().slice(0, 10)}, Redis ${await redisVersion()}, payload ${PAYLOAD.length} bytes, window ${WINDOW}.\n`,
);
await messageCosts();
await memoryInRedis();
await latencies();
await filtersElsewhere();
await end(a.started);
await end(b.started);
await end(redis);
process.exit();

async function messageCosts() {
	console.log("| message | Redis commands | Redis CPU, µs | messages/s |\n| --- | ---: | ---: | ---: |");
	const subscriber = await client(a, "bench-live");
	const received = counter(subscriber);
	await subscriber.subscribeAsync("q0/+", { qos: 0 });
	await subscriber.subscribeAsync("q1/+", { qos: 1 });
	for (const qos of /** @type {const} */ ([0, 1])) {
		for (const [where, at] of /** @type {const} */ ([
			["same replica", a],
			["other replica", b],
		])) {
			const publisher = await client(at, `bench-publisher-${qos}-${where}`);
			await measure(`QoS ${qos}, one live subscriber on the ${where}`, publisher, `q${qos}/t`, qos, received);
			await publisher.endAsync();
		}
	}
	const nobody = await client(b, "bench-nobody");
	await measure("QoS 1 that nobody wants", nobody, "nobody/t", 1, undefined);
	await subscriber.endAsync();
	const session = await client(a, "bench-session", PERSISTENT);
	const taken = counter(session);
	await session.subscribeAsync("one/+", { qos: 1 });
	await measure("QoS 1 to one persistent session, connected to the other replica", nobody, "one/t", 1, taken);
	await session.endAsync();
	await measure("QoS 1 to one persistent session, offline", nobody, "one/t", 1, undefined);
	await manySessions("many/+", 10_000);
	await measure("QoS 1 to 10,000 persistent sessions, offline", nobody, "many/t", 1, undefined);
	await nobody.endAsync();
	console.log("");
}

/** @param {string} title @param {Client} publisher @param {string} topic @param {0 | 1} qos @param {{ count: number } | undefined} received */
async function measure(title, publisher, topic, qos, received) {
	await publish(publisher, topic, qos, 500);
	await sleep(300);
	const before = await usage();
	const expected = (received?.count ?? 0) + MESSAGES;
	const begun = performance.now();
	await publish(publisher, topic, qos, MESSAGES);
	for (const deadline = performance.now() + 20_000; received !== undefined && received.count < expected; await sleep(5)) {
		if (performance.now() > deadline) throw new Error(`${title}: ${expected - received.count} messages did not arrive`);
	}
	const seconds = (performance.now() - begun) / 1000;
	await sleep(200);
	const after = await usage();
	const commands = (after.commands - before.commands - 2) / MESSAGES;
	const cpu = ((after.cpu - before.cpu) * 1e6) / MESSAGES;
	console.log(`| ${title} | ${commands.toFixed(3)} | ${cpu.toFixed(2)} | ${Math.round(MESSAGES / seconds).toLocaleString("en")} |`);
}

async function memoryInRedis() {
	console.log("| in Redis | bytes each |\n| --- | ---: |");
	const publisher = await client(b, "bench-filler");
	let before = await usage();
	await manySessions("common/#", 2000);
	let after = await usage();
	console.log(`| offline session with one subscription to a common filter | ${Math.round((after.memory - before.memory) / 2000)} |`);
	before = after;
	await publish(publisher, "common/t", 1, 20_000);
	after = await usage();
	console.log(`| message of ${PAYLOAD.length} bytes in a log, whoever reads it | ${Math.round((after.memory - before.memory) / 20_000)} |`);
	before = after;
	await manySessions("own/%/#", 2000);
	after = await usage();
	console.log(`| offline session with one subscription of its own | ${Math.round((after.memory - before.memory) / 2000)} |`);
	console.log("");
	await publisher.endAsync();
}

async function latencies() {
	console.log("| one message at a time, publish to delivery | p50, ms | p99, ms |\n| --- | ---: | ---: |");
	const subscriber = await client(a, "bench-clock");
	await subscriber.subscribeAsync("clock/#", { qos: 1 });
	for (const qos of /** @type {const} */ ([0, 1])) {
		for (const [where, at] of /** @type {const} */ ([
			["same replica", a],
			["other replica", b],
		])) {
			const publisher = await client(at, `bench-clock-${qos}-${where}`);
			/** @type {number[]} */
			const times = [];
			for (let n = 0; n < 1000; n++) {
				const arrived = new Promise((resolve) => subscriber.once("message", resolve));
				const begun = performance.now();
				publisher.publish("clock/t", PAYLOAD, { qos });
				await arrived;
				times.push(performance.now() - begun);
				await sleep(1);
			}
			times.sort((x, y) => x - y);
			console.log(`| QoS ${qos}, ${where} | ${times[500]?.toFixed(2)} | ${times[990]?.toFixed(2)} |`);
			await publisher.endAsync();
		}
	}
	await subscriber.endAsync();
	console.log("");
}

/** What a replica knows of the others' exact filters: they are subscribed through one, and the other one is weighed. */
async function filtersElsewhere() {
	console.log("| exact filters on another replica | memory of a replica, MB | start of a new one, s |\n| --- | ---: | ---: |");
	const holders = [];
	const startOf = async () => {
		const begun = performance.now();
		const fresh = await replica();
		const seconds = (performance.now() - begun) / 1000;
		await sleep(500);
		const memory = residentMegabytes(fresh.pid);
		await end(fresh.started);
		return { seconds, memory };
	};
	const base = await startOf();
	console.log(`| 0 | ${base.memory.toFixed(1)} | ${base.seconds.toFixed(2)} |`);
	for (const target of [100_000, 1_000_000]) {
		for (let n = holders.length; n < target / 1000; n++) {
			const holder = await client(a, `bench-holder-${n}`);
			await holder.subscribeAsync(
				Array.from({ length: 1000 }, (_, i) => `device/${n}/sensor/${i}`),
				{ qos: 1 },
			);
			holders.push(holder);
		}
		const with_ = await startOf();
		console.log(
			`| ${target.toLocaleString("en")} | ${with_.memory.toFixed(1)} (+${(with_.memory - base.memory).toFixed(1)}) | ${with_.seconds.toFixed(2)} |`,
		);
	}
}

/** Sessions that subscribe and leave. @param {string} filter `%` stands for a number @param {number} count */
async function manySessions(filter, count) {
	const prefix = `bench-${filter.replaceAll("/", "-")}`;
	for (let n = 0; n < count; n += 50) {
		const some = Array.from({ length: Math.min(50, count - n) }, async (_, i) => {
			const one = await client(a, `${prefix}-${n + i}`, PERSISTENT);
			await one.subscribeAsync(filter.replace("%", String(n + i)), { qos: 1 });
			await one.endAsync();
		});
		await Promise.all(some);
	}
	await sleep(500);
}

/** @param {Client} publisher @param {string} topic @param {0 | 1} qos @param {number} count */
async function publish(publisher, topic, qos, count) {
	if (qos === 0) {
		for (let n = 0; n < count; n++) {
			publisher.publish(topic, PAYLOAD, { qos });
			if (n % WINDOW === WINDOW - 1) await sleep(1);
		}
		return;
	}
	let sent = 0;
	const next = async () => {
		while (sent < count) {
			sent++;
			await publisher.publishAsync(topic, PAYLOAD, { qos });
		}
	};
	await Promise.all(Array.from({ length: WINDOW }, next));
}

/** @param {Replica} at @param {string} clientId @param {object} [options] @returns {Promise<Client>} */
function client(at, clientId, options = {}) {
	return connectAsync(`mqtt://127.0.0.1:${at.port}`, { protocolVersion: 5, clientId, reconnectPeriod: 0, ...options });
}

/** @param {Client} subscriber */
function counter(subscriber) {
	const received = { count: 0 };
	subscriber.on("message", () => {
		received.count++;
	});
	return received;
}

/** @returns {Promise<Replica>} */
async function replica() {
	const port = await freePort();
	const env = {
		HOST: "127.0.0.1",
		PORT: "0",
		MQTT_TCP_PORT: String(port),
		REDIS_URL: `redis://127.0.0.1:${redisPort}`,
		LOG_LEVEL: "error",
		SYS_INTERVAL_SECONDS: "0",
	};
	const started = start([join(root, "node_modules/.bin", runtime), ...(runtime === "deno" ? ["run", "-A"] : []), "server.ts"], {
		cwd: root,
		env,
	});
	return { port, started, pid: await listening(started, port, "A replica") };
}

/** @param {number} pid Of the process or of what started it. */
function residentMegabytes(pid) {
	const kilobytes = (/** @type {number} */ id) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1] ?? 0);
	const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number);
	return Math.max(kilobytes(pid), ...children.map(kilobytes)) / 1024;
}

/** What Redis has done and holds. Asking costs one command. */
async function usage() {
	const text = await info();
	const field = (/** @type {string} */ name) => Number(new RegExp(`^${name}:([\\d.]+)`, "m").exec(text)?.[1] ?? Number.NaN);
	const cpu = field("used_cpu_user") + field("used_cpu_sys");
	return { commands: field("total_commands_processed"), cpu, memory: field("used_memory") };
}

async function redisVersion() {
	return /^redis_version:(\S+)/m.exec(await info())?.[1];
}

/** @returns {Promise<string>} */
function info() {
	return new Promise((resolve, reject) => {
		const socket = connect({ host: "127.0.0.1", port: redisPort }, () => socket.write("INFO everything\r\nQUIT\r\n"));
		let text = "";
		socket.on("data", (data) => {
			text += data;
		});
		socket.on("end", () => resolve(text));
		socket.on("error", reject);
	});
}
