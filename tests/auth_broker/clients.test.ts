/** The libraries that people use, with tokens that end: MQTT.js in a program and in a page, Paho, and Cloudflare's example as it stood in its documentation. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { IClientOptions } from "mqtt";
import { authProperties, inSeconds, RENEWAL_TOPIC, SECRET, TOKEN_NAME, token } from "../support/auth_clients.ts";
import { Browser, serveFiles } from "../support/browser.ts";
import { eventually } from "../support/eventually.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { PahoClient } from "../support/paho_client.ts";
import { type AnyPacket, freshId } from "../support/raw_client.ts";
import { suiteCleanup } from "../support/server_process.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { freshTopic } from "../support/traffic.ts";

const LIFETIME_SECONDS = 1.5;
const NOT_AUTHORIZED = 0x87;

/** Until a token with this end is over, and a little more. */
const over = (exp: number): Promise<void> => sleep(exp * 1000 - Date.now() + 500);

describe("MQTT.js in a program", () => {
	const broker = suiteBroker({ jwtSecret: SECRET });
	const urls = () => [broker.wsUrl, broker.tcpUrl];

	/** Messages of QoS 1 go on over the end of the first token, which `renew` prevents. */
	async function keepsGoing(client: MqttJsClient, exp: number, renew: () => Promise<void>): Promise<void> {
		const topic = freshTopic();
		await client.mqtt.subscribeAsync(topic, { qos: 1 });
		await renew();
		const texts: string[] = [];
		while (Date.now() < exp * 1000 + 500) {
			texts.push(String(texts.length));
			await client.mqtt.publishAsync(topic, String(texts.length - 1), { qos: 1 });
			await sleep(20);
		}
		const received = await client.take(texts.length);
		assert.deepEqual(
			received.map(({ text }) => text),
			texts,
		);
		assert.ok(client.mqtt.connected);
	}

	it("renews by AUTH, or by a publication in every version, over WebSocket and TCP, and its subscription goes on", async (t) => {
		const byAuth = async (url: string): Promise<void> => {
			const sub = freshId();
			const exp = inSeconds(LIFETIME_SECONDS);
			const properties = authProperties(await token({ sub, exp }));
			const client = await MqttJsClient.connect(t, url, { protocolVersion: 5, properties });
			await keepsGoing(client, exp, async () => {
				const answered = new Promise<AnyPacket>((resolve) => {
					client.mqtt.on("packetreceive", (packet: AnyPacket) => {
						if (packet.cmd === "auth") resolve(packet);
					});
				});
				// It has no method of its own for this yet.
				(client.mqtt as AnyPacket)._sendPacket({ cmd: "auth", reasonCode: 0x19, properties: authProperties(await token({ sub })) });
				assert.equal((await answered).reasonCode, 0);
			});
		};
		const byTopic = async (url: string, protocolVersion: 3 | 4 | 5): Promise<void> => {
			const sub = freshId();
			const exp = inSeconds(LIFETIME_SECONDS);
			const client = await MqttJsClient.connect(t, url, { protocolVersion, username: "anything", password: await token({ sub, exp }) });
			await keepsGoing(client, exp, async () => {
				await client.mqtt.publishAsync(RENEWAL_TOPIC, await token({ sub }), { qos: 1 });
			});
		};
		const ways = urls().flatMap((url) => [byAuth(url), ...([3, 4, 5] as const).map((version) => byTopic(url, version))]);
		await Promise.all(ways);
	});

	it("that does not renew is disconnected, comes back by itself with the next token, and has lost nothing", async (t) => {
		const comesBack = async (url: string, protocolVersion: 4 | 5): Promise<void> => {
			const sub = freshId();
			const topic = freshTopic();
			const options: IClientOptions = { protocolVersion, clientId: freshId(), clean: false, reconnectPeriod: 100, username: "anything" };
			if (protocolVersion === 5) options.properties = { sessionExpiryInterval: 300 };
			const client = await MqttJsClient.connect(t, url, { ...options, password: await token({ sub, exp: inSeconds(1) }) });
			await client.mqtt.subscribeAsync(topic, { qos: 1 });
			const next = await token({ sub });
			const reason = protocolVersion === 5 ? (client.event("disconnect") as Promise<AnyPacket>) : undefined;
			client.mqtt.once("close", () => {
				client.mqtt.options.password = next;
				void broker.shoal.publish(topic, "meanwhile", { qos: 1 });
			});
			const back = client.event("connect") as Promise<AnyPacket>;
			assert.equal((await reason)?.reasonCode, protocolVersion === 5 ? NOT_AUTHORIZED : undefined);
			assert.equal((await back).sessionPresent, true);
			assert.equal((await client.next()).text, "meanwhile");
		};
		await Promise.all(urls().flatMap((url) => ([4, 5] as const).map((version) => comesBack(url, version))));
	});
});

describe("Paho for Python", () => {
	const broker = suiteBroker({ jwtSecret: SECRET });

	it("renews by a publication, is disconnected when it does not, and comes back to its session with the next token", async (t) => {
		const tries = async (transport: "websockets" | "tcp", version: 4 | 5): Promise<void> => {
			const sub = freshId();
			const topic = freshTopic();
			const port = transport === "tcp" ? broker.tcpPort : broker.wsPort;
			const options = { port, transport, version, id: freshId("paho"), clean: false, expiry: 300 };
			const connect = async (password: string): Promise<PahoClient> => {
				const client = new PahoClient(t);
				client.do("connect", { ...options, password });
				assert.equal((await client.expect("connected")).code, 0);
				return client;
			};
			const exp = inSeconds(LIFETIME_SECONDS);
			const client = await connect(await token({ sub, exp }));
			await client.subscribe(topic, 1);
			const second = exp + 1;
			await client.publish(RENEWAL_TOPIC, await token({ sub, exp: second }), 1);
			await over(exp);
			await broker.shoal.publish(topic, "after the first token", { qos: 1 });
			assert.equal((await client.message()).payload, "after the first token");
			await client.expect("disconnected");
			assert.ok(Date.now() >= second * 1000);
			await client.kill();
			await broker.shoal.publish(topic, "after the second token", { qos: 1 });
			const back = await connect(await token({ sub }));
			assert.equal((await back.message()).payload, "after the second token");
			await back.disconnect();
		};
		await Promise.all(
			(["websockets", "tcp"] as const).flatMap((transport) => ([4, 5] as const).map((version) => tries(transport, version))),
		);
	});
});

describe("pages in a browser", () => {
	const t = suiteCleanup();
	const broker = suiteBroker({ jwtSecret: SECRET, tokenCookie: TOKEN_NAME });
	const files: Record<string, string> = {};
	let browser: Browser;
	let site: string;

	before(async () => {
		const bundle = fileURLToPath(new URL("../../node_modules/mqtt/dist/mqtt.esm.js", import.meta.url));
		files["/mqtt.esm.js"] = readFileSync(bundle, "utf8");
		files["/mqtt_module.js"] = 'import mqtt from "/mqtt.esm.js"; export const { connect } = mqtt; export default mqtt;';
		files["/cloudflare.js"] = readFileSync(new URL("../clients/seeds/cloudflare.mjs.txt", import.meta.url), "utf8");
		site = `http://127.0.0.1:${await serveFiles(t, files)}`;
		browser = await Browser.start(t);
	});

	/** Opens a page that gives the example what it asks for: an address, a topic and a token. */
	async function example(topic: string, jwt: string) {
		const given = `const url = "${broker.wsUrl}", topic = "${topic}", jwt = "${jwt}"`;
		const name = `/${freshId("page")}.html`;
		files[name] = `<!DOCTYPE html><script type="importmap">{ "imports": { "mqtt": "/mqtt_module.js" } }</script>
			<script>${given}</script><script type="module" src="/cloudflare.js"></script>`;
		return browser.open(site + name);
	}

	it("Cloudflare's example, unchanged but for the address: any user name, an empty client id, and a token with its claims, which decides", async () => {
		const claims = { sub: freshId("page"), iat: Math.floor(inSeconds(0)), acl: undefined, topicAcl: "a/topic" };
		const page = await example("a/topic", await token(claims));
		await page.line("subscribed to a/topic");
		await broker.shoal.publish("a/topic", "an update", { qos: 1 });
		await page.line(/M: an update\n$/);
		await page.close();
	});

	it("the same with a token for another topic is not subscribed, and with a bad one not connected", async () => {
		const sub = freshId("page");
		const watch = broker.shoal.metrics;
		const elsewhere = await example("a/topic", await token({ sub, acl: undefined, topicAcl: "b" }));
		await eventually("the subscription is refused", () => watch.subscriptionsRefused.get(NOT_AUTHORIZED) === 1);
		const bad = await example("a/topic", `${await token({ sub })}x`);
		await eventually("the connection is refused", () => watch.connectsRefused.get(0x86) === 1);
		await broker.shoal.publish("a/topic", "not for these");
		for (const page of [elsewhere, bad]) {
			assert.ok(page.console.every((line) => !line.startsWith("subscribed") && !line.includes("not for these")));
			await page.close();
		}
	});

	it("a page whose token is in a cookie connects without showing it, and renews it by a publication", async () => {
		const sub = freshId("page");
		const exp = inSeconds(LIFETIME_SECONDS);
		files["/cookie.html"] =
			'<!DOCTYPE html><script type="module">import mqtt from "/mqtt.esm.js"; globalThis.mqtt = mqtt; console.log("ready");</script>';
		const page = await browser.open(`${site}/cookie.html`);
		await page.line("ready");
		await page.run(`document.cookie = "${TOKEN_NAME}=${await token({ sub, exp })}; path=/; SameSite=Strict"`);
		await page.run(`
			globalThis.client = mqtt.connect("${broker.wsUrl}", { protocolVersion: 5, clientId: "", reconnectPeriod: 0 });
			client.on("connect", ({ properties }) => console.log("connected", properties.assignedClientIdentifier));
			client.on("message", (topic, payload) => console.log("message", payload.toString()));
		`);
		await page.line(`connected ${sub}`);
		await page.run(`client.subscribeAsync("cookies", { qos: 1 })`);
		await page.run(`client.publishAsync("${RENEWAL_TOPIC}", "${await token({ sub })}", { qos: 1 })`);
		await over(exp);
		await broker.shoal.publish("cookies", "still there", { qos: 1 });
		await page.line("message still there");
		await page.close();
	});
});
