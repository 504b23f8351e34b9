/** Headless Chromium through its DevTools protocol: pages that a test opens, asks and closes, and what they write to the console. */

import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { delimiter, join } from "node:path";
import process from "node:process";
import type { KeyPair } from "./certificates.ts";
import { Program } from "./program.ts";
import type { AnyPacket } from "./raw_client.ts";
import { createFolder } from "./server_process.ts";
import type { Cleanup } from "./test_broker.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const FLAGS = [
	"--headless",
	"--no-sandbox",
	"--disable-gpu",
	"--disable-quic",
	"--no-first-run",
	"--disable-background-networking",
	"--disable-component-update",
	"--disable-sync",
	"--disable-dev-shm-usage",
	// A page that is left would be kept alive for a return, connections included.
	"--disable-features=BackForwardCache",
	"--remote-debugging-port=0",
	"--remote-allow-origins=*",
];
const PATIENCE_MS = 15_000;

export interface BrowserOptions {
	/** Where the browser finds hosts: `name:port` in the page's eyes, and the port of this machine that it is led to. */
	readonly hosts?: Readonly<Record<string, number>>;
	/** A certificate that it takes for every host. */
	readonly trusted?: string;
}

export class Browser {
	readonly #program: Program;
	readonly #devTools: WebSocket;
	readonly #answers = new Map<number, { resolve(result: AnyPacket): void; reject(error: Error): void }>();
	readonly #pages = new Map<string, Page>();
	#id = 0;

	private constructor(program: Program, devTools: WebSocket) {
		this.#program = program;
		this.#devTools = devTools;
		devTools.addEventListener("message", ({ data }) => this.#take(JSON.parse(String(data))));
	}

	static async start(t: Cleanup, { hosts = {}, trusted }: BrowserOptions = {}): Promise<Browser> {
		const rules = Object.entries(hosts).map(([name, port]) => `MAP ${name} 127.0.0.1:${port}`);
		const program = Program.start(t, findChromium(), [
			...FLAGS,
			`--user-data-dir=${createFolder(t)}`,
			...(rules.length > 0 ? [`--host-resolver-rules=${rules.join(", ")}`] : []),
			...(trusted === undefined ? [] : [`--ignore-certificate-errors-spki-list=${fingerprint(trusted)}`]),
			"about:blank",
		]);
		const url = await program.until("DevTools", () => /^DevTools listening on (ws:\S+)$/m.exec(program.stderr)?.[1]);
		const devTools = new WebSocket(url);
		await new Promise<void>((resolve, reject) => {
			devTools.addEventListener("open", () => resolve());
			devTools.addEventListener("error", () => reject(new Error(`no connection to ${url}`)));
		});
		const browser = new Browser(program, devTools);
		t.after(async () => {
			await browser.#program.kill("SIGKILL");
			devTools.close();
		});
		return browser;
	}

	/** Opens a page and answers when it is loaded. */
	async open(url: string): Promise<Page> {
		const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
		const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
		const page = new Page(this, targetId, sessionId);
		this.#pages.set(sessionId, page);
		for (const domain of ["Runtime", "Page"]) await this.send(`${domain}.enable`, {}, sessionId);
		await page.navigate(url);
		return page;
	}

	/** Ends the browser as a crash would. */
	async kill(): Promise<void> {
		await this.#program.kill("SIGKILL");
	}

	/** A command of the DevTools protocol and its result. */
	send(method: string, params: AnyPacket = {}, sessionId?: string): Promise<AnyPacket> {
		const id = ++this.#id;
		this.#devTools.send(JSON.stringify({ id, method, params, sessionId }));
		return new Promise((resolve, reject) => this.#answers.set(id, { resolve, reject }));
	}

	#take(message: AnyPacket): void {
		const answer = this.#answers.get(message.id);
		if (answer === undefined) this.#pages.get(message.sessionId)?.take(message);
		else if (message.error === undefined) answer.resolve(message.result);
		else answer.reject(new Error(message.error.message));
		this.#answers.delete(message.id);
	}
}

export class Page {
	/** What the page has written to the console, and errors that nobody caught. */
	readonly console: string[] = [];
	readonly #browser: Browser;
	readonly #targetId: string;
	readonly #sessionId: string;
	#loaded: () => void = () => {};
	#wake: () => void = () => {};

	constructor(browser: Browser, targetId: string, sessionId: string) {
		this.#browser = browser;
		this.#targetId = targetId;
		this.#sessionId = sessionId;
	}

	async navigate(url: string): Promise<void> {
		const loaded = new Promise<void>((resolve) => {
			this.#loaded = resolve;
		});
		const { errorText } = await this.#send("Page.navigate", { url });
		assert.equal(errorText, undefined, `${url} can be loaded`);
		await loaded;
	}

	/** Runs a program text in the page as its console would; a promise is awaited. */
	async run(expression: string): Promise<void> {
		await this.#evaluate(expression, false);
	}

	/** Like `run`, and answers the value of the expression. */
	// biome-ignore lint/suspicious/noExplicitAny: whatever the page says
	async ask(expression: string): Promise<any> {
		return (await this.#evaluate(expression, true)).value;
	}

	/** Waits for a line on the console, now or later, and answers it. */
	async line(wanted: string | RegExp): Promise<string> {
		const matches = (line: string) => (typeof wanted === "string" ? line === wanted : wanted.test(line));
		const deadline = Date.now() + PATIENCE_MS;
		for (;;) {
			const line = this.console.find(matches);
			if (line !== undefined) return line;
			assert.ok(Date.now() < deadline, `the page says "${wanted}", among:\n${this.console.join("\n")}`);
			await new Promise<void>((resolve) => {
				const timer = setTimeout(resolve, deadline - Date.now());
				this.#wake = () => {
					clearTimeout(timer);
					resolve();
				};
			});
		}
	}

	/** Closes the page as its user would. */
	async close(): Promise<void> {
		await this.#browser.send("Target.closeTarget", { targetId: this.#targetId });
	}

	/** An event of this page. */
	take({ method, params }: AnyPacket): void {
		if (method === "Page.loadEventFired") this.#loaded();
		if (method === "Runtime.consoleAPICalled") this.console.push(params.args.map(shown).join(" "));
		if (method === "Runtime.exceptionThrown") this.console.push(`Uncaught: ${params.exceptionDetails.exception?.description}`);
		this.#wake();
	}

	async #evaluate(expression: string, returnByValue: boolean): Promise<AnyPacket> {
		const { result, exceptionDetails } = await this.#send("Runtime.evaluate", {
			expression,
			returnByValue,
			awaitPromise: true,
		});
		if (exceptionDetails !== undefined) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
		return result;
	}

	#send(method: string, params: AnyPacket = {}): Promise<AnyPacket> {
		return this.#browser.send(method, params, this.#sessionId);
	}
}

/**
 * Serves files from memory over HTTP, or HTTPS with a certificate, and answers the port. Each is a page or a script by the
 * end of its name.
 */
export async function serveFiles(t: Cleanup, files: Readonly<Record<string, string>>, tls?: KeyPair): Promise<number> {
	const listener: RequestListener = (request, response) => {
		const path = new URL(request.url ?? "/", "http://localhost").pathname;
		const content = files[path];
		const type = path.endsWith(".html") ? "text/html; charset=utf-8" : "text/javascript; charset=utf-8";
		response.writeHead(content === undefined ? 404 : 200, { "Content-Type": type, "Access-Control-Allow-Origin": "*" });
		response.end(content);
	};
	const server = tls === undefined ? createHttpServer(listener) : createHttpsServer({ cert: tls.cert, key: tls.key }, listener);
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	t.after(
		() =>
			new Promise<void>((resolve) => {
				server.close(() => resolve());
				server.closeAllConnections();
			}),
	);
	return (server.address() as AddressInfo).port;
}

function findChromium(): string {
	const folders = (process.env.PATH ?? "").split(delimiter);
	const found = NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path));
	if (found === undefined) throw new Error(`no browser: install the package chromium, or have one of ${NAMES.join(", ")} on the PATH`);
	return found;
}

/** What Chromium knows a certificate by: its public key. */
function fingerprint(certificate: string): string {
	const key = new X509Certificate(certificate).publicKey.export({ type: "spki", format: "der" });
	return createHash("sha256").update(key).digest("base64");
}

function shown(value: AnyPacket): string {
	return String(value.value ?? value.description ?? value.type);
}
