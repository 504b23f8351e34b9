/**
 * One page of the documentation as its reader goes through it: block after block, with a broker, files and programs of its own
 * that end with the test. Ports that pages name are replaced by free ones, and files by some in a folder of the test.
 */

import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseRules } from "../../src/auth/rule_file.ts";
import { grantsFromClaims } from "../../src/auth/token_grants.ts";
import { SETTINGS } from "../../src/config/settings.ts";
import { parseConfig } from "../../src/shoal.ts";
import { type Browser, type Page, serveFiles } from "../support/browser.ts";
import { Program } from "../support/program.ts";
import { type RedisServer, startRedis } from "../support/redis_server.ts";
import { createFolder, OWN_RUNTIME, reservePorts, type ServerProcess, startServer } from "../support/server_process.ts";
import type { Cleanup } from "../support/test_broker.ts";
import { type Block, root } from "./doc_blocks.ts";

type Environment = Readonly<Record<string, string>>;

/** Ports in blocks that run: of the broker, of its Redis, and of a program of the reader's own. */
const PORTS = /\b(?:8083|8093|8084|1883|8883|9091|6379|9000)\b/g;
const REDIS_PORT = "6379";
/** Files that blocks make and use. Any other name is of a file of the repository. */
const FILES =
	/(?<![\w./-])(?:users\.txt|rules\.yaml|tokens\.json|(?:ca|server|client)(?:-key)?\.pem|[a-z]+\.(?:csr|srl|cnf)|backup\.\w+)(?![\w.-])|(?<=[ =])(?:\.\/)?(?:data|backup)(?=[\s/]|$)/g;
/** Where pages load MQTT.js from, and where it is here. */
const REMOTE = "https://unpkg.com/mqtt/dist/";
const LOCAL = "node_modules/mqtt/dist/";
const SCRIPTS = ["mqtt.min.js", "mqtt.esm.js"];
const OWN_SOURCE = /from "shoal"/g;
/** Commands of `sh names` that come from elsewhere. */
const FOREIGN = new Set([
	"git",
	"cd",
	"npm",
	"npx",
	"docker",
	"fly",
	"kubectl",
	"sudo",
	"systemctl",
	"journalctl",
	"curl",
	"openssl",
	"redis-cli",
	"redis-server",
	"cp",
	"promtool",
]);
/** Of what may be a path of the repository, those that begin with one of these must be. */
const OWN_PATHS = /(?<![\w:/.-])(?:deploy|examples|grafana|scripts|src|docs|node_modules\/\.bin)\/[\w./-]+|\bredis\.conf\b|\bserver\.ts\b/g;

/** What a block has said, for `text output`. */
type Said = { readonly lines: readonly string[] } | { readonly page: Page };

export class DocPage {
	readonly #t: Cleanup;
	readonly #browser: () => Promise<Browser>;
	readonly #folder: string;
	readonly #ports = new Map<string, string>();
	#broker: ServerProcess | undefined;
	#redis: RedisServer | undefined;
	#said: Said | undefined;

	/** @param browser Starts the browser, or answers the one that runs. */
	constructor(t: Cleanup, browser: () => Promise<Browser>) {
		this.#t = t;
		this.#browser = browser;
		this.#folder = createFolder(t);
	}

	/** Goes through the blocks. Rejects with the place of the first that does not do what its page says. */
	async go(blocks: readonly Block[]): Promise<void> {
		for (const block of blocks) {
			try {
				await this.#take(block);
			} catch (error) {
				throw new Error(`${block.place}: ${error instanceof Error ? error.message : error}`, { cause: error });
			}
		}
	}

	async #take({ kind, text, file }: Block): Promise<void> {
		if (file !== undefined) writeFileSync(this.#path(file), text);
		switch (kind) {
			case "env":
				parseConfig(settingsIn(text));
				break;
			case "env start":
				await this.#broker?.kill("SIGTERM");
				this.#broker = await this.#start(settingsIn(await this.#own(text)));
				break;
			case "env add":
				await this.#start(settingsIn(await this.#own(text)));
				break;
			case "sh run":
				await this.#run("bash", ["-euo", "pipefail", "-c", await this.#readied(text)], "");
				break;
			case "sh names":
				checkNames(text);
				break;
			case "js run":
			case "ts run":
				await this.#run(process.execPath, OWN_PROGRAM, (await this.#readied(text)).replace(OWN_SOURCE, 'from "./src/shoal.ts"'));
				break;
			case "js start": {
				const program = this.#program(process.execPath, OWN_PROGRAM, await this.#own(text));
				await program.until("first line", () => (program.stdout.includes("\n") ? true : undefined));
				break;
			}
			case "html run":
				await this.#open(await this.#readied(text));
				break;
			case "text output":
				await this.#compare(text.trimEnd().split("\n"));
				break;
			case "yaml acl":
				parseRules(text, file ?? "rules.yaml");
				break;
			case "json claims":
				assert.ok(grantsFromClaims(JSON.parse(text)), "the claims grant something");
				break;
			case "json":
				JSON.parse(text);
				break;
			default:
		}
	}

	/** With ports and files of the test, when the broker runs. */
	async #readied(text: string): Promise<string> {
		this.#broker ??= await this.#start({});
		return this.#own(text);
	}

	async #own(text: string): Promise<string> {
		for (const [port] of text.matchAll(PORTS)) await this.#reserve(port);
		const withPorts = text.replace(PORTS, (port) => this.#ports.get(port) ?? port);
		return withPorts.replace(FILES, (file) => this.#path(file));
	}

	async #reserve(port: string): Promise<void> {
		if (this.#ports.has(port)) return;
		if (port === REDIS_PORT) {
			this.#redis = await startRedis();
			const redis = this.#redis;
			this.#t.after(() => redis.stop());
			this.#ports.set(port, String(redis.port));
		} else this.#ports.set(port, (await reservePorts()).PORT);
	}

	#path(file: string): string {
		return join(this.#folder, file);
	}

	async #start(settings: Environment): Promise<ServerProcess> {
		const port = await this.#own("8083");
		const store = settings.DATA_DIR === undefined ? {} : { STORE: "sqlite" };
		// A page may leave out what is the default, and the log is read by the test.
		return startServer(this.#t, { HOST: "::", PORT: port, MQTT_TCP_PORT: "", ...store, ...settings, LOG_FORMAT: "json" });
	}

	#program(command: string, args: readonly string[], input: string): Program {
		return Program.start(this.#t, command, args, { cwd: root, env: { ...process.env, NO_COLOR: "1" }, input });
	}

	async #run(command: string, args: readonly string[], input: string): Promise<void> {
		const program = this.#program(command, args, input);
		const end = await program.until("end", () => this.#ended(program));
		assert.equal(end.code, 0, `it ends with ${end.signal ?? end.code}:\n${end.stdout}\n${end.stderr}`);
		this.#said = { lines: end.stdout.split("\n") };
	}

	/** `until` looks whenever there is something new; the end is. */
	#ended(program: Program): Awaited<Program["ended"]> | undefined {
		const known = ENDS.get(program);
		if (known === undefined) void program.ended.then((end) => ENDS.set(program, end));
		return known;
	}

	async #open(html: string): Promise<void> {
		const scripts = SCRIPTS.map((name) => [`/${name}`, readText(`${LOCAL}${name}`)] as const);
		const files = { "/page.html": html.replaceAll(REMOTE, "/"), ...Object.fromEntries(scripts) };
		const port = await serveFiles(this.#t, files);
		const browser = await this.#browser();
		this.#said = { page: await browser.open(`http://localhost:${port}/page.html`) };
	}

	async #compare(expected: readonly string[]): Promise<void> {
		const said = this.#said;
		assert.ok(said, "a block before it has run");
		if ("page" in said) {
			for (const line of expected) await said.page.line(pattern(line));
			return;
		}
		let at = 0;
		for (const line of expected) {
			const found = said.lines.findIndex((each, index) => index >= at && pattern(line).test(each.trimEnd()));
			assert.ok(found >= 0, `it says "${line}", among:\n${said.lines.join("\n")}`);
			at = found + 1;
		}
	}
}

const OWN_PROGRAM = OWN_RUNTIME === "deno" ? ["run", "-A", "-"] : ["run", "-"];
const ENDS = new WeakMap<Program, Awaited<Program["ended"]>>();

function pattern(line: string): RegExp {
	return new RegExp(
		`^${line
			.split("…")
			.map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"))
			.join(".*")}$`,
	);
}

/** The settings in lines `NAME=value`; throws for a line that is none. */
function settingsIn(text: string): Environment {
	const known = new Set<string>(Object.values(SETTINGS).map(({ variable }) => variable));
	const lines = text.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));
	return Object.fromEntries(
		lines.map((line) => {
			const [, name = "", value = ""] = /^([A-Z_]+)=(.*)$/.exec(line) ?? [];
			assert.ok(known.has(name), `"${line}" begins with a setting`);
			return [name, value.replace(/^"(.*)"$/, "$1")];
		}),
	);
}

/** Every line begins with a command that is known, and what looks like a file of the repository is one. */
function checkNames(text: string): void {
	const scripts = Object.keys(JSON.parse(readText("package.json")).scripts);
	const lines = text
		.replaceAll("\\\n", " ")
		.split("\n")
		.filter((line) => line.trim() !== "" && !line.startsWith("#"));
	for (const line of lines.flatMap((each) => each.split(/ && | \| /))) {
		const words = line.trim().split(/\s+/);
		const [command = "", second = "", third = ""] = words.filter((word) => !/^[A-Z_]+=/.test(word));
		const own = existsSync(join(root, command.replace(/^shoal\//, "")));
		assert.ok(own || FOREIGN.has(command), `"${command}" is a command that is known, or a file of the repository`);
		if (command === "npm" && second === "run") assert.ok(scripts.includes(third), `"npm run ${third}" is a script of package.json`);
	}
	for (const [path] of text.matchAll(OWN_PATHS)) assert.ok(existsSync(join(root, path)), `${path} exists`);
}

function readText(path: string): string {
	return readFileSync(join(root, path), "utf8");
}
