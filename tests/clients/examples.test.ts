/**
 * The examples of MQTT over WebSocket that people start from, as they stand in `seeds/` (the addresses among them are led to
 * this machine): those for a page in Chromium, those for a program in a folder of its own on the runtime of this test.
 */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Browser, serveFiles } from "../support/browser.ts";
import { createAuthority } from "../support/certificates.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { Program } from "../support/program.ts";
import { createFolder, suiteCleanup, suiteServer } from "../support/server_process.ts";
import type { Cleanup } from "../support/test_broker.ts";

const packages = fileURLToPath(new URL("../../node_modules", import.meta.url));
const seed = (name: string): string => readFileSync(new URL(`seeds/${name}.txt`, import.meta.url), "utf8");
const bundle = (name: string): string => readFileSync(join(packages, "mqtt/dist", name), "utf8");

const authority = createAuthority();
const pair = authority.server();

function tlsEnvironment(t: Cleanup): Record<string, string> {
	const folder = createFolder(t);
	const files = { TLS_CERT_FILE: pair.cert, TLS_KEY_FILE: pair.key };
	for (const [variable, pem] of Object.entries(files)) writeFileSync(join(folder, variable), pem);
	const paths = Object.keys(files).map((variable) => [variable, join(folder, variable)]);
	return { ...Object.fromEntries(paths), WSS_PORT: "0", MQTT_TLS_PORT: "0" };
}

describe("examples in a page", () => {
	const t = suiteCleanup();
	const server = suiteServer(tlsEnvironment);
	let browser: Browser;
	let site: string;

	/** The tutorial's page with these of its snippets below its own script. */
	const emqxPage = (...snippets: string[]): string =>
		[seed("emqx_page.html"), ...snippets.map((name) => `<script>\n${seed(name)}</script>\n`)].join("");
	/** A page for an example that imports MQTT.js, with what a bundler would do for it. */
	const modulePage = (script: string, before = ""): string =>
		`<!DOCTYPE html><script type="importmap">{ "imports": { "mqtt": "/mqtt_module.js" } }</script>
		<script>${before}</script><script type="module" src="${script}"></script>`;

	const cloudflarePage = (url: string): string => modulePage("/cloudflare.js", `const url = "${url}", topic = "a/topic", jwt = "j.w.t"`);

	before(async () => {
		const cdn = await serveFiles(t, { "/mqtt/dist/mqtt.min.js": bundle("mqtt.min.js") }, pair);
		const files = await serveFiles(t, {
			"/emqx.html": emqxPage("emqx_subscribe.js", "emqx_publish.js"),
			// As the tutorial says for TLS: another scheme and port.
			"/emqx_wss.html": emqxPage("emqx_subscribe.js", "emqx_publish.js").replace("ws://broker.emqx.io:8083", "wss://broker.emqx.io:8084"),
			"/enterprise.html": modulePage("/enterprise.js"),
			"/enterprise.js": seed("emqx_enterprise.mjs"),
			"/cloudflare_wss.html": cloudflarePage("wss://broker.cloudflarepubsub.com:8884/mqtt"),
			"/cloudflare_mqtts.html": cloudflarePage("mqtts://root.cloudflarepubsub.com:8884"),
			"/cloudflare.js": seed("cloudflare.mjs"),
			"/mqtt_module.js": 'import mqtt from "/mqtt.esm.js"; export const { connect } = mqtt; export default mqtt;',
			"/mqtt.esm.js": bundle("mqtt.esm.js"),
		});
		site = `http://localhost:${files}`;
		const { wsPort, wssPort } = server();
		browser = await Browser.start(t, {
			hosts: {
				"unpkg.com:443": cdn,
				"broker.emqx.io:8083": wsPort,
				"broker.emqx.io:8084": wssPort,
				"broker.example.com:8084": wssPort,
				"broker.cloudflarepubsub.com:8884": wssPort,
				"root.cloudflarepubsub.com:8884": server().wssPort,
			},
			trusted: pair.cert,
		});
	});

	for (const [page, scheme] of [
		["emqx.html", "ws"],
		["emqx_wss.html", "wss"],
	] as const) {
		it(`EMQX's tutorial over ${scheme}: connects, subscribes, publishes, receives, unsubscribes, and leaves its will when the page is closed`, async (t) => {
			const other = await MqttJsClient.connect(t, server().wsUrl);
			await other.mqtt.subscribeAsync("testtopic", { qos: 0 });
			const tab = await browser.open(`${site}/${page}`);
			const connected = await tab.line(/^Client connected: mqttjs_/);
			assert.equal((await other.next()).text, "ws connection demo...!");
			await other.mqtt.publishAsync("testtopic", "Hello from MQTTX", { qos: 1 });
			await tab.line("Received Message: Hello from MQTTX On topic: testtopic");
			await tab.run(seed("emqx_unsubscribe.js"));
			await tab.line("Unsubscribed");
			await other.mqtt.publishAsync("testtopic", "no longer", { qos: 1 });
			// The page's own publication leaves it before its subscription does, and may be missed.
			const lines = tab.console.filter((line) => line !== "Received Message: ws connection demo...! On topic: testtopic");
			assert.deepEqual(lines, [
				"Connecting mqtt client",
				connected,
				"Received Message: Hello from MQTTX On topic: testtopic",
				"Unsubscribed",
			]);
			const watcher = await MqttJsClient.connect(t, server().wsUrl);
			await watcher.mqtt.subscribeAsync("WillMsg", { qos: 0 });
			await tab.close();
			const { topic, text } = await watcher.next();
			assert.deepEqual([topic, text], ["WillMsg", "Connection Closed abnormally..!"]);
		});
	}

	it("EMQX Enterprise's example: connects with a name and password, and receives its own message", async () => {
		const tab = await browser.open(`${site}/enterprise.html`);
		await tab.line("test/topic Hello from browser");
		assert.deepEqual(tab.console, ["Connected over WebSockets", "test/topic Hello from browser"]);
		await tab.close();
	});

	// Of mqtts MQTT.js makes a secure WebSocket to the path "/" in a page, whatever path the address names.
	for (const scheme of ["wss", "mqtts"]) {
		it(`Cloudflare's example with an address in ${scheme}: subscribes with an empty client id, any user name and a token, and receives`, async (t) => {
			const tab = await browser.open(`${site}/cloudflare_${scheme}.html`);
			await tab.line("subscribed to a/topic");
			const publisher = await MqttJsClient.connect(t, server().tcpUrl);
			await publisher.mqtt.publishAsync("a/topic", "an update", { qos: 1 });
			await tab.line(/^\d+\/\d+\/\d+, \d+:\d+:\d+ [AP]M: an update\n$/);
			assert.equal(tab.console.length, 2);
			await tab.close();
		});
	}
});

describe("examples as programs", () => {
	const server = suiteServer(tlsEnvironment);
	const onDeno = "Deno" in globalThis;

	/** Saves a program as its text says, in a folder where MQTT.js is installed, and runs it. */
	function run(t: Cleanup, name: string, text: string, env: Readonly<Record<string, string>> = {}): Program {
		const folder = createFolder(t);
		mkdirSync(join(folder, "node_modules"));
		symlinkSync(join(packages, "mqtt"), join(folder, "node_modules/mqtt"));
		writeFileSync(join(folder, "package.json"), '{ "type": "commonjs", "dependencies": { "mqtt": "*" } }');
		writeFileSync(join(folder, name), text);
		return Program.start(t, process.execPath, [...(onDeno ? ["run", "-A"] : []), name], { cwd: folder, env: { ...process.env, ...env } });
	}

	/** What TBMQ's page says is printed, of each packet only which way it goes and what it is. */
	const EXPECTED = [
		...[
			"Connecting client...",
			"receive connack",
			"Client connected!",
			"send subscribe",
			"receive suback",
			"send publish",
			"receive publish",
		],
		...["Received message. Payload: Hello World. Topic: sensors/temperature", "send disconnect", "Closing client..."],
	];

	async function assertRuns(program: Program): Promise<void> {
		const { code, stdout, stderr } = await program.ended;
		assert.equal(code, 0, stderr);
		const said = [...stdout.matchAll(/^(?:Packet (receive|send)\.\.\. [\s\S]*?cmd: ["'](\w+)["']|(?!Packet)([A-Z].*))/gm)];
		const lines = said.map(([, way, packet, line]) => line ?? `${way} ${packet}`);
		assert.deepEqual(
			lines.filter((line) => line !== "send connect"),
			EXPECTED,
			stdout,
		);
	}

	it("TBMQ's ws_example.js prints what its page promises", async (t) => {
		await assertRuns(run(t, "ws_example.js", seed("tbmq_ws_example.js").replace("ws://localhost:8084/mqtt", server().wsUrl)));
	});

	it("TBMQ's wss_example.js does so over TLS", async (t) => {
		const folder = createFolder(t);
		const { cert, key } = authority.client("/CN=tbmq_websockets_client_id");
		const files = {
			"/path/to/your/client/key/file.pem": key,
			"/path/to/your/client/cert/file.pem": cert,
			"/path/to/your/ca/cert/file.pem": authority.cert,
		};
		let text = seed("tbmq_wss_example.js").replace("wss://example.com:8085/mqtt", `wss://localhost:${server().wssPort}/mqtt`);
		for (const [index, [path, pem]] of Object.entries(files).entries()) {
			const file = join(folder, `${index}.pem`);
			writeFileSync(file, pem);
			text = text.replace(path, file);
		}
		await assertRuns(run(t, "wss_example.js", text));
	});

	it("Cloudflare's example runs over mqtts as well", async (t) => {
		const around = `globalThis.url = "mqtts://localhost:${server().tlsPort}"; globalThis.topic = "a/topic"; globalThis.jwt = "j.w.t";`;
		const authorityFile = join(createFolder(t), "ca.pem");
		writeFileSync(authorityFile, authority.cert);
		// That the authority is to be trusted is for the machine to say, to Bun and to Deno.
		const trust = { NODE_EXTRA_CA_CERTS: authorityFile, DENO_CERT: authorityFile };
		const program = run(t, "example.mjs", `${around}\n${seed("cloudflare.mjs")}`, trust);
		await program.until("subscription", () => /^subscribed to a\/topic$/m.exec(program.stdout) ?? undefined);
		const publisher = await MqttJsClient.connect(t, server().wsUrl);
		await publisher.mqtt.publishAsync("a/topic", "an update", { qos: 1 });
		await program.until("message", () => /M: an update$/m.exec(program.stdout) ?? undefined);
	});
});
