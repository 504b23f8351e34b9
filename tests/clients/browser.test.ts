/** MQTT.js where most of its users have it: in a page, here in Chromium. The programs of tutorials are in `examples.test.ts`. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, describe, it, type TestContext } from "node:test";
import { Browser, type Page, serveFiles } from "../support/browser.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { freshId } from "../support/raw_client.ts";
import { createFolder, reservePorts, startServer, suiteCleanup, suiteServer } from "../support/server_process.ts";
import { freshTopic } from "../support/traffic.ts";

/** What the page has besides MQTT.js: a client to be, and what it received as lines of the console. */
const SCRIPT = `
	let client;
	function connect(url, options) {
		client = mqtt.connect(url, { reconnectPeriod: 50, ...options });
		client.on("connect", ({ sessionPresent }) => console.log("connected", sessionPresent));
		client.on("close", () => console.log("closed"));
		client.on("error", (error) => console.log("error", error.message));
		client.on("message", (topic, payload, { qos, retain }) => console.log("message", topic, payload.length, hex(payload), qos, retain));
	}
	const hex = (bytes) => (bytes.length > 1000 ? String(sum(bytes)) : [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(""));
	const sum = (bytes) => bytes.reduce((total, byte, index) => (total * 31 + byte + index) % 1000000007, 0);
`;

const hex = (text: string): string => Buffer.from(text).toString("hex");

describe("MQTT.js in a page", () => {
	const suite = suiteCleanup();
	const server = suiteServer();
	let browser: Browser;
	let site: string;

	before(async () => {
		const bundle = readFileSync(new URL("../../node_modules/mqtt/dist/mqtt.min.js", import.meta.url), "utf8");
		const page = '<!DOCTYPE html><title>MQTT</title><script src="/mqtt.min.js"></script><script src="/script.js"></script>';
		const port = await serveFiles(suite, { "/": page, "/index.html": page, "/mqtt.min.js": bundle, "/script.js": SCRIPT });
		site = `http://localhost:${port}/index.html`;
		browser = await Browser.start(suite);
	});

	/** A page whose client is connected. */
	async function connect(t: TestContext, url: string, options: object = {}): Promise<Page> {
		const page = await browser.open(site);
		t.after(() => page.close().catch(() => {}));
		await page.run(`connect(${JSON.stringify(url)}, ${JSON.stringify({ clientId: freshId("page"), ...options })})`);
		await page.line(/^connected/);
		return page;
	}

	for (const [version, options] of [
		["3.1", { protocolId: "MQIsdp", protocolVersion: 3 }],
		["3.1.1", { protocolVersion: 4 }],
		["5.0", { protocolVersion: 5 }],
	] as const) {
		it(`MQTT ${version}: binary messages of every QoS go from page to page and arrive whole`, async (t) => {
			const topic = freshTopic();
			const [publisher, subscriber] = [await connect(t, server().wsUrl, options), await connect(t, server().wsUrl, options)];
			await subscriber.run(`client.subscribeAsync("${topic}/#", { qos: 2 })`);
			const all = Array.from({ length: 256 }, (_, byte) => byte);
			for (const qos of [0, 1, 2]) {
				await publisher.run(`client.publishAsync("${topic}/${qos}", new Uint8Array([${all}]), { qos: ${qos} })`);
				await subscriber.line(`message ${topic}/${qos} 256 ${Buffer.from(all).toString("hex")} ${qos} false`);
			}
			assert.equal(subscriber.console.filter((line) => line.startsWith("message")).length, 3);
		});
	}

	it("a payload of 500 KB goes there and back", async (t) => {
		const topic = freshTopic();
		const page = await connect(t, server().wsUrl, { protocolVersion: 5 });
		await page.run(`client.subscribeAsync("${topic}", { qos: 2 })`);
		await page.run(`const large = Uint8Array.from({ length: 500000 }, (_, index) => index * 7)`);
		await page.run(`client.publishAsync("${topic}", large, { qos: 2 })`);
		await page.line(`message ${topic} 500000 ${await page.ask("sum(large)")} 2 false`);
	});

	it("five hundred messages of QoS 2 published at once arrive once and in order", async (t) => {
		const topic = freshTopic();
		const [publisher, subscriber] = [await connect(t, server().wsUrl), await connect(t, server().wsUrl)];
		await subscriber.run(`client.subscribeAsync("${topic}", { qos: 2 })`);
		const texts = Array.from({ length: 500 }, (_, index) => `${index}`);
		await publisher.run(`Promise.all(${JSON.stringify(texts)}.map((text) => client.publishAsync("${topic}", text, { qos: 2 })))`);
		await subscriber.line(`message ${topic} 3 ${hex("499")} 2 false`);
		const received = subscriber.console
			.filter((line) => line.startsWith("message"))
			.map((line) => Buffer.from(line.split(" ")[3] ?? "", "hex"));
		assert.deepEqual(received.map(String), texts);
	});

	it("a page and a program over TCP talk to each other", async (t) => {
		const topic = freshTopic();
		const page = await connect(t, server().wsUrl);
		const program = await MqttJsClient.connect(t, server().tcpUrl);
		await page.run(`client.subscribeAsync("${topic}/page", { qos: 1 })`);
		await program.mqtt.subscribeAsync(`${topic}/program`, { qos: 1 });
		await program.mqtt.publishAsync(`${topic}/page`, "to the page", { qos: 1 });
		await page.line(`message ${topic}/page 11 ${hex("to the page")} 1 false`);
		await page.run(`client.publishAsync("${topic}/program", "from the page", { qos: 1, retain: true })`);
		assert.equal((await program.next()).text, "from the page");
	});

	it("a page that is closed, and one that goes elsewhere, leave their will; one that ends its client does not", async (t) => {
		const topic = freshTopic();
		const watcher = await MqttJsClient.connect(t, server().tcpUrl);
		await watcher.mqtt.subscribeAsync(topic, { qos: 2 });
		const will = (payload: string) => ({ protocolVersion: 5, will: { topic, payload, qos: 2, retain: false } });
		const ending = await connect(t, server().wsUrl, will("ended"));
		await ending.run("client.endAsync()");
		const closing = await connect(t, server().wsUrl, will("closed"));
		await closing.close();
		assert.equal((await watcher.next()).text, "closed");
		const leaving = await connect(t, server().wsUrl, will("elsewhere"));
		await leaving.navigate(new URL("/", site).href);
		assert.equal((await watcher.next()).text, "elsewhere");
		assert.deepEqual(watcher.waiting, []);
	});

	it("a page that is loaded again resumes its session and gets what it missed", async (t) => {
		const topic = freshTopic();
		const session = { protocolVersion: 5, clientId: freshId("page"), clean: false, properties: { sessionExpiryInterval: 300 } };
		const first = await connect(t, server().wsUrl, session);
		await first.run(`client.subscribeAsync("${topic}", { qos: 2 })`);
		await first.close();
		const publisher = await MqttJsClient.connect(t, server().wsUrl);
		await publisher.mqtt.publishAsync(topic, "missed", { qos: 2 });
		const second = await connect(t, server().wsUrl, session);
		await second.line(`message ${topic} 6 ${hex("missed")} 2 false`);
		assert.equal(second.console[0], "connected true");
	});

	for (const signal of ["SIGTERM", "SIGKILL"] as const) {
		for (const protocolVersion of [4, 5] as const) {
			it(`version ${protocolVersion}: a page comes back by itself after the server was restarted with ${signal}, and misses nothing`, async (t) => {
				const topic = freshTopic();
				const env = { ...(await reservePorts()), STORE: "sqlite", DATA_DIR: createFolder(t) };
				const first = await startServer(t, env);
				const properties = protocolVersion === 5 ? { properties: { sessionExpiryInterval: 300 } } : {};
				const page = await connect(t, first.wsUrl, { protocolVersion, clean: false, ...properties });
				await page.run(`client.subscribeAsync("${topic}", { qos: 2 })`);
				await page.run(`client.publishAsync("${topic}", "before", { qos: 2 })`);
				await page.line(`message ${topic} 6 ${hex("before")} 2 false`);
				await first.kill(signal);
				await page.line("closed");
				await page.run(`const published = client.publishAsync("${topic}", "meanwhile", { qos: 2 }); null`);

				const second = await startServer(t, env);
				const publisher = await MqttJsClient.connect(t, second.tcpUrl);
				await publisher.mqtt.publishAsync(topic, "after", { qos: 2 });
				await page.line("connected true");
				await page.run("published");
				for (const text of ["meanwhile", "after"]) await page.line(`message ${topic} ${text.length} ${hex(text)} 2 false`);
				assert.equal(page.console.filter((line) => line.startsWith("message")).length, 3);
			});
		}
	}

	it("a page behind a lost network gets its messages after it is back", async (t) => {
		const topic = freshTopic();
		const page = await connect(t, server().wsUrl, { protocolVersion: 5, clean: false, properties: { sessionExpiryInterval: 300 } });
		await page.run(`client.subscribeAsync("${topic}", { qos: 2 })`);
		await page.run("client.stream.destroy()");
		await page.line("closed");
		const publisher = await MqttJsClient.connect(t, server().wsUrl);
		await publisher.mqtt.publishAsync(topic, "in the meantime", { qos: 2 });
		await page.line("connected true");
		await page.line(`message ${topic} 15 ${hex("in the meantime")} 2 false`);
	});

	it("a browser that is killed leaves the wills of its pages", async (t) => {
		const topic = freshTopic();
		const watcher = await MqttJsClient.connect(t, server().tcpUrl);
		await watcher.mqtt.subscribeAsync(topic, { qos: 1 });
		const own = await Browser.start(t);
		const page = await own.open(site);
		const options = { will: { topic, payload: "killed", qos: 1, retain: false } };
		await page.run(`connect("${server().wsUrl}", ${JSON.stringify(options)})`);
		await page.line(/^connected/);
		await own.kill();
		assert.equal((await watcher.next()).text, "killed");
	});
});
