/**
 * `examples/browser`: its page in Chromium, used as a reader would. With SCREENSHOT=docs/images/browser_example.png the last
 * test also takes the picture that the documentation shows.
 */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import process from "node:process";
import { before, describe, it } from "node:test";
import { Browser, type Page } from "../support/browser.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { reservePorts, suiteCleanup } from "../support/server_process.ts";
import { line, startExample } from "./example_program.ts";

const PATIENCE_MS = 10_000;

/** Waits in the page until an expression is true. */
function until(page: Page, expression: string): Promise<void> {
	return page.run(`new Promise((resolve, reject) => {
		const deadline = Date.now() + ${PATIENCE_MS};
		const look = () => {
			if (${expression}) resolve();
			else if (Date.now() > deadline) reject(new Error("waited too long, and the page says: " + document.body.innerText));
			else setTimeout(look, 20);
		};
		look();
	})`);
}

const submit = (id: string): string => `document.querySelector("#${id} button[type=submit]").click()`;
const fill = (id: string, name: string, value: string): string => `document.querySelector("#${id} [name=${name}]").value = "${value}"`;
const state = (value: string): string => `document.querySelector("#state").textContent === "${value}"`;
const rows = `[...document.querySelectorAll("#messages tr")].map((row) => [...row.cells].slice(1).map((cell) => cell.textContent))`;

describe("examples/browser", () => {
	const suite = suiteCleanup();
	let browser: Browser;

	before(async () => {
		browser = await Browser.start(suite);
	});

	it("the page connects to the broker that serves it, publishes, and receives its own message and that of a device", async (t) => {
		const { PORT } = await reservePorts();
		const program = startExample(t, "browser/server.ts", [], { PORT, STORE: "memory", LOG_LEVEL: "off" });
		await line(program, `Open http://localhost:${PORT}`);
		const page = await browser.open(`http://localhost:${PORT}/`);
		assert.equal(await page.ask(`document.querySelector("[name=address]").value`), `ws://localhost:${PORT}/mqtt`);

		await page.run(submit("connect"));
		await until(page, state("connected"));
		await page.run(submit("subscribe"));
		const device = await MqttJsClient.connect(t, `ws://localhost:${PORT}/mqtt`);
		await device.mqtt.subscribeAsync("hello/world", { qos: 1 });
		await page.run(submit("publish"));
		assert.equal((await device.next()).text, "from the browser");
		await until(page, `${rows}.length === 1`);
		await device.mqtt.publishAsync("hello/device", "21.5 °C", { qos: 0 });
		await until(page, `${rows}.length === 2`);
		assert.deepEqual(await page.ask(rows), [
			["hello/device", "21.5 °C", "0"],
			["hello/world", "from the browser", "1"],
		]);
		assert.deepEqual(page.console, []);

		const picture = process.env.SCREENSHOT;
		if (picture !== undefined) writeFileSync(picture, await screenshot(browser, page));
		const { code } = await program.kill("SIGTERM");
		assert.equal(code, 0);
	});

	it("the page says what went wrong, says that the broker is gone, and comes back by itself", async (t) => {
		const { PORT } = await reservePorts();
		const env = { PORT, STORE: "memory", LOG_LEVEL: "off" };
		const program = startExample(t, "browser/server.ts", [], env);
		await line(program, /^Open/);
		const page = await browser.open(`http://localhost:${PORT}/`);
		await page.run(submit("publish"));
		await until(page, `document.querySelector("#problem").textContent === "Connect first"`);
		await page.run(submit("connect"));
		await until(page, state("connected"));
		await page.run(fill("subscribe", "filter", "a/#/b"));
		await page.run(submit("subscribe"));
		await until(page, `document.querySelector("#problem").textContent.includes("a/#/b")`);

		await program.kill("SIGKILL");
		await until(page, `["closed", "connecting again"].includes(document.querySelector("#state").textContent)`);
		await line(startExample(t, "browser/server.ts", [], env), /^Open/);
		await until(page, state("connected"));
	});
});

async function screenshot(browser: Browser, page: Page): Promise<Buffer> {
	// What differs from run to run would make a new picture of the same page each time.
	await page.run(`for (const row of document.querySelectorAll("#messages tr")) row.cells[0].textContent = "12:00:00"`);
	await page.run(fill("connect", "address", "ws://localhost:8083/mqtt"));
	const url = await page.ask("location.href");
	const { targetInfos } = await browser.send("Target.getTargets");
	const { targetId } = targetInfos.find((target: { url: string }) => target.url === url);
	const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
	await browser.send("Emulation.setDeviceMetricsOverride", { width: 900, height: 600, deviceScaleFactor: 2, mobile: false }, sessionId);
	const { data } = await browser.send("Page.captureScreenshot", {}, sessionId);
	return Buffer.from(data, "base64");
}
