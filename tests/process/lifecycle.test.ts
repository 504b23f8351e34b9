/** The life of the process: how it ends on a signal, and what it says when it cannot start. */

import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, it, type TestContext } from "node:test";
import { createAuthority } from "../support/certificates.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { createFolder, type Ended, reservePorts, runServer, startServer } from "../support/server_process.ts";
import { durable, freshTopic, take } from "../support/traffic.ts";

const SHUTTING_DOWN = 0x8b;
const SERVICE_RESTART = 1012;

/** Settings of a server that keeps its state, in a folder of its own. */
function stored(t: TestContext): { STORE: string; DATA_DIR: string } {
	return { STORE: "sqlite", DATA_DIR: createFolder(t) };
}

describe("lifecycle: the end", () => {
	for (const signal of ["SIGTERM", "SIGINT"] as const) {
		it(`${signal}: an MQTT 5 client gets DISCONNECT 0x8B over TCP and WebSocket, and the exit code is 0`, async (t) => {
			const server = await startServer(t);
			const clients = [await RawClient.connect(server), await RawClient.connect(server, { transport: "ws" })];
			const ended = server.kill(signal);
			for (const client of clients) await client.expectDisconnect(SHUTTING_DOWN);
			const { code, stdout } = await ended;
			assert.equal(code, 0);
			assert.equal(stdout, "");
		});

		it(`${signal}: a client of 3.1 and of 3.1.1 sees its WebSocket closed with 1012 and gets no packet`, async (t) => {
			const server = await startServer(t);
			const clients = [
				await RawClient.connect(server, { version: 3, transport: "ws" }),
				await RawClient.connect(server, { version: 4, transport: "ws" }),
			];
			const ended = server.kill(signal);
			for (const client of clients) {
				await client.expectClosed();
				assert.equal(client.closeCode, SERVICE_RESTART);
			}
			assert.equal((await ended).code, 0);
		});

		it(`${signal}: sessions, queued messages and retained messages are there after the next start`, async (t) => {
			const env = stored(t);
			const first = await startServer(t, env);
			const topic = freshTopic();
			const session = durable();
			const subscriber = await RawClient.connect(first, session);
			await subscriber.subscribe(topic, { qos: 2 });
			await subscriber.disconnect();
			const publisher = await RawClient.connect(first);
			await publisher.publishAcked(topic, "queued", { qos: 2 });
			await publisher.publishAcked(`${topic}/retained`, "kept", { qos: 1, retain: true });
			const { code } = await first.kill(signal);
			assert.equal(code, 0);

			const second = await startServer(t, env);
			const again = await RawClient.connect(second, session);
			assert.equal(again.connack.sessionPresent, true);
			await take(again, { topic, payload: "queued", qos: 2 });
			await again.subscribe(`${topic}/#`, { qos: 1 });
			await take(again, { topic: `${topic}/retained`, payload: "kept", retain: true });
		});
	}

	it("a client that comes back in time after SIGTERM has its will withheld", async (t) => {
		const env = stored(t);
		const first = await startServer(t, env);
		const topic = freshTopic();
		const clientId = freshId();
		const session = (payload: string) => ({ ...durable(clientId), will: { topic, payload, qos: 1, retain: false } });
		const watcher = durable();
		await (await RawClient.connect(first, watcher)).subscribe(topic, { qos: 1 });
		await RawClient.connect(first, session("first will"));
		await first.kill("SIGTERM");

		const second = await startServer(t, env);
		const returned = await RawClient.connect(second, session("second will"));
		assert.equal(returned.connack.sessionPresent, true);
		const watching = await RawClient.connect(second, watcher);
		await returned.destroy();
		// Wills are published in the order in which they fall due.
		await take(watching, { topic, payload: "second will" });
		await watching.expectNothing();
	});

	it("while it drains it is not ready and takes nobody in", async (t) => {
		const server = await startServer(t, { DRAIN_SECONDS: "4" });
		const [first, second] = [await RawClient.connect(server), await RawClient.connect(server)];
		assert.equal((await fetch(`http://127.0.0.1:${server.wsPort}/readyz`)).status, 200);
		const ended = server.kill("SIGTERM");
		await first.expectDisconnect(SHUTTING_DOWN);
		assert.equal((await fetch(`http://127.0.0.1:${server.wsPort}/readyz`)).status, 503);
		const late = await RawClient.open(server);
		await late.expectClosed();
		await second.expectDisconnect(SHUTTING_DOWN);
		assert.equal((await ended).code, 0);
	});

	it("a client that reads nothing does not hold up the end", async (t) => {
		const server = await startServer(t);
		const topic = freshTopic();
		const reader = await RawClient.connect(server);
		await reader.subscribe(topic);
		reader.pause();
		const publisher = await RawClient.connect(server);
		for (let i = 0; i < 50; i++) publisher.publish(topic, Buffer.alloc(500_000));
		await publisher.expectNothing();
		assert.equal((await server.kill("SIGTERM")).code, 0);
	});
});

describe("lifecycle: a start that cannot be", () => {
	/** Exit code 1, nothing on stdout, and one line on stderr that begins with the program and has these words. */
	function assertRefused({ code, stdout, stderr }: Ended, ...words: (string | RegExp)[]): void {
		assert.equal(stdout, "");
		assert.match(stderr, /^shoal: [^\n]+\n$/);
		for (const word of words) assert.ok(typeof word === "string" ? stderr.includes(word) : word.test(stderr), `"${word}" in: ${stderr}`);
		assert.equal(code, 1);
	}

	/** Runs a server that says only what is wrong. */
	const run = (t: TestContext, env: Record<string, string>) => runServer(t, [], { LOG_LEVEL: "warn", ...env });

	for (const variable of ["PORT", "MQTT_TCP_PORT"]) {
		it(`a port in use: the message names the port of ${variable}`, async (t) => {
			const other = createServer();
			t.after(() => other.close());
			await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
			const { port } = other.address() as { port: number };
			assertRefused(await run(t, { [variable]: String(port) }), `127.0.0.1:${port}`, "in use", "choose another port");
		});
	}

	it("a port that another server of the same kind has: refused as well", async (t) => {
		const { wsPort } = await startServer(t);
		assertRefused(await run(t, { PORT: String(wsPort) }), `127.0.0.1:${wsPort}`, "in use", "choose another port");
	});

	it("a bad variable: the message names it, its value and what is expected", async (t) => {
		assertRefused(await run(t, { MAX_PACKET_SIZE: "huge" }), "MAX_PACKET_SIZE", '"huge"', "expected a whole number of bytes");
	});

	it("several bad variables: the message names all", async (t) => {
		const { code, stderr } = await run(t, { PORT: "-1", STORE: "floppy" });
		assert.match(stderr, /^shoal: 2 settings are not valid:\n- PORT is "-1": .*\n- STORE is "floppy": .*\n$/);
		assert.equal(code, 1);
	});

	const tls = { MQTT_TLS_PORT: "0" };

	it("a certificate that is not there: the message names the variable and the file", async (t) => {
		const missing = join(createFolder(t), "missing.pem");
		assertRefused(await run(t, { ...tls, TLS_CERT_FILE: missing, TLS_KEY_FILE: missing }), "TLS_CERT_FILE", missing, "readable PEM file");
	});

	it("a certificate or key that is no PEM file: the message names the variable and the file", async (t) => {
		const folder = createFolder(t);
		const [cert, key, garbage] = [join(folder, "cert.pem"), join(folder, "key.pem"), join(folder, "garbage.pem")];
		const pair = createAuthority().server();
		writeFileSync(cert, pair.cert);
		writeFileSync(key, pair.key);
		writeFileSync(garbage, "garbage");
		const files = { TLS_CERT_FILE: cert, TLS_KEY_FILE: key, TLS_CA_FILE: cert };
		for (const variable of Object.keys(files)) assertRefused(await run(t, { ...tls, ...files, [variable]: garbage }), variable, garbage);
	});

	it("a key of another certificate is refused", async (t) => {
		const folder = createFolder(t);
		const authority = createAuthority();
		const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
		writeFileSync(cert, authority.server().cert);
		writeFileSync(key, authority.server().key);
		assertRefused(await run(t, { ...tls, TLS_CERT_FILE: cert, TLS_KEY_FILE: key }), "TLS_KEY_FILE", "TLS_CERT_FILE", "not that of");
	});

	it("DATA_DIR that is a file: the message names it", async (t) => {
		const file = join(createFolder(t), "file");
		writeFileSync(file, "");
		assertRefused(await run(t, { STORE: "sqlite", DATA_DIR: file }), "DATA_DIR", file);
	});

	// Nobody may create files there, not even root, whom permissions do not stop.
	it("DATA_DIR that is not writable: the message names it and what to do", async (t) => {
		assertRefused(await run(t, { STORE: "sqlite", DATA_DIR: "/proc/self" }), "/proc/self", "may write to it");
	});

	it("a store of a newer version is refused and left as it is", async (t) => {
		const { env, file, expectState } = await createState(t);
		setVersion(file, 1_000_000);
		const before = readFileSync(file);
		assertRefused(await run(t, env), file, "newer version", "1000000");
		assert.deepEqual(readFileSync(file), before);
		setVersion(file, 1);
		await expectState(env);
	});

	it("a store that is no database is refused and left as it is", async (t) => {
		const env = stored(t);
		const file = join(env.DATA_DIR, "shoal.sqlite");
		writeFileSync(file, "not a database, but a file of some length".repeat(100));
		const before = readFileSync(file);
		assertRefused(await run(t, env), file, "damaged or not a store");
		assert.deepEqual(readFileSync(file), before);
	});

	it("the database of another program is refused and left as it is", async (t) => {
		const env = stored(t);
		const file = join(env.DATA_DIR, "shoal.sqlite");
		const db = new DatabaseSync(file);
		db.exec("CREATE TABLE theirs (id INTEGER)");
		db.close();
		const before = readFileSync(file);
		assertRefused(await run(t, env), file, "another program");
		assert.deepEqual(readFileSync(file), before);
	});

	it("a second process on the same DATA_DIR is refused, the first serves on, and its state is whole afterwards", async (t) => {
		const { env, topic, expectState } = await createState(t);
		const first = await startServer(t, env);
		const client = await RawClient.connect(first);
		assertRefused(await run(t, env), "Another process has it open");
		await client.publishAcked(topic, "after the attempt", { qos: 1, retain: true });
		await first.kill("SIGTERM");
		await expectState(env, "after the attempt");
	});

	it("a copy of the store made after the end is a backup that a server starts from", async (t) => {
		const { env, expectState } = await createState(t);
		const copy = stored(t);
		cpSync(env.DATA_DIR, copy.DATA_DIR, { recursive: true });
		await expectState(copy);
	});

	/** A stopped server with a retained message. `expectState` starts one and finds it. */
	async function createState(t: TestContext) {
		const env = stored(t);
		const topic = freshTopic();
		const server = await startServer(t, env);
		const client = await RawClient.connect(server);
		await client.publishAcked(topic, "kept", { qos: 1, retain: true });
		await server.kill("SIGTERM");
		const expectState = async (where: { STORE: string; DATA_DIR: string }, payload = "kept") => {
			const reader = await RawClient.connect(await startServer(t, where));
			await reader.subscribe(topic, { qos: 0 });
			await reader.expect("publish", { topic, payload, retain: true });
		};
		return { env, topic, file: join(env.DATA_DIR, "shoal.sqlite"), expectState };
	}

	function setVersion(file: string, version: number): void {
		const db = new DatabaseSync(file);
		db.exec(`PRAGMA user_version = ${version}`);
		db.close();
	}
});

describe("lifecycle: what needs no start", () => {
	it("--version prints the version of package.json", async (t) => {
		const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
		const { code, stdout, stderr } = await runServer(t, ["--version"], { PORT: "not even looked at" });
		assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: `${version}\n`, stderr: "" });
	});

	it("--help prints every setting with its default", async (t) => {
		const { code, stdout, stderr } = await runServer(t, ["--help"], { PORT: "not even looked at" });
		assert.match(stdout, /^PORT +8083 /m);
		assert.match(stdout, /^DATA_DIR +\.\/data /m);
		assert.match(stdout, /^MQTT_TCP_PORT +off /m);
		assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
	});

	it("the log says where it listens and that it is ready", async (t) => {
		const ports = await reservePorts();
		const { log } = await startServer(t, ports);
		const listening = log.filter(({ message }) => message === "Listening").map(({ transport, port }) => `${transport} ${port}`);
		assert.deepEqual(listening, [`ws ${ports.PORT}`, `tcp ${ports.MQTT_TCP_PORT}`]);
		assert.equal(log.at(-1)?.address, `ws://localhost:${ports.PORT}/mqtt`);
	});
});
