/** What `npm publish` would send, and what `npx shoal` does with it: packed, unpacked beside its dependencies, and started. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { before, describe, it } from "node:test";
import { VERSION } from "../../src/shoal.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { type Ended, Program } from "../support/program.ts";
import { createFolder, OWN_RUNTIME, reservePorts, suiteCleanup } from "../support/server_process.ts";
import type { Cleanup } from "../support/test_broker.ts";
import { root } from "./platform_files.ts";

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const NOT_COPIED = ["node_modules", ".git", "coverage", "data", "dist"];
const INHERITED = { HOME: process.env.HOME, TMPDIR: process.env.TMPDIR, NO_COLOR: "1" };
const node = execFileSync("node", ["-p", "process.execPath"], { encoding: "utf8" }).trim();

describe("the npm package", () => {
	const suite = suiteCleanup();
	/** A project that has it installed. */
	let project: string;
	let packed: string[];
	let bin: string;

	before(() => {
		const clone = createFolder(suite);
		for (const name of readdirSync(root).filter((each) => !NOT_COPIED.includes(each)))
			cpSync(join(root, name), join(clone, name), { recursive: true });
		execFileSync(node, [join(root, "scripts/build.mjs"), join(clone, "dist")], { stdio: "pipe" });
		const output = execFileSync("npm", ["pack", "--ignore-scripts", "--json", "--loglevel=error"], { cwd: clone, encoding: "utf8" });
		const [{ filename, files }] = JSON.parse(output);
		packed = files.map(({ path }: { path: string }) => path);

		project = createFolder(suite);
		const place = join(project, "node_modules/shoal");
		mkdirSync(place, { recursive: true });
		execFileSync("tar", ["-xzf", join(clone, filename), "-C", place, "--strip-components=1"]);
		for (const path of productionPackages()) cpSync(join(root, path), join(project, path), { recursive: true });
		writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module", dependencies: { shoal: VERSION } }));
		bin = join(place, manifest.bin.shoal);
	});

	/** `npx shoal`, which is Node running the bin; nothing but `path` is searched for a runtime. */
	function shoal(t: Cleanup, args: readonly string[], env: Readonly<Record<string, string>> = {}, path: readonly string[] = []): Program {
		return Program.start(t, node, [bin, ...args], { cwd: project, env: { ...INHERITED, PATH: path.join(":"), ...env } });
	}

	/** A folder in which a command of this name answers what it was started with. */
	function echoing(t: Cleanup, name: string): string {
		const folder = createFolder(t);
		writeFileSync(join(folder, name), `#!/bin/sh\necho "${name}: $*"\nexit 7\n`, { mode: 0o755 });
		return folder;
	}

	/** The test's runtime as a command of its usual name. */
	function runtimeFolder(t: Cleanup): string {
		const folder = createFolder(t);
		writeFileSync(join(folder, OWN_RUNTIME), `#!/bin/sh\nexec "${process.execPath}" "$@"\n`, { mode: 0o755 });
		return folder;
	}

	it("has the program, the library with its types, and the words around them, and nothing else", () => {
		const known = [/^bin\/shoal\.mjs$/, /^dist\/(?:server|chunk)(?:-\w+)?\.js$/, /^dist\/src\/shoal\.js$/, /^dist\/src\/[\w/]+\.d\.ts$/];
		const words = ["CHANGELOG.md", "LICENSE", "README.md", "package.json", "redis.conf"];
		assert.deepEqual(
			packed.filter((path) => !words.includes(path) && !known.some((pattern) => pattern.test(path))),
			[],
		);
		for (const path of [...words, "bin/shoal.mjs", "dist/server.js", "dist/src/shoal.js", "dist/src/shoal.d.ts"])
			assert.ok(packed.includes(path), path);
	});

	it("is built by npm before it packs, and may be published", () => {
		assert.equal(manifest.scripts.prepack, "node scripts/build.mjs");
		assert.equal(manifest.private, undefined);
		assert.match(readFileSync(join(root, "CHANGELOG.md"), "utf8"), new RegExp(`^## ${VERSION.replaceAll(".", "\\.")}`, "m"));
	});

	it("without a runtime it says how to get one, and exits with 1", async (t) => {
		const { code, stderr } = await shoal(t, []).ended;
		assert.equal(code, 1);
		assert.match(stderr, /^ {2}npx -p bun -p shoal shoal$/m);
	});

	it("a runtime on the PATH gets the program and all arguments, and its exit code is passed on", async (t) => {
		for (const name of ["bun", "deno"]) {
			const { code, stdout } = await shoal(t, ["--help", "two words"], {}, [echoing(t, name)]).ended;
			assert.equal(code, 7);
			assert.ok(stdout.startsWith(`${name}: `) && stdout.endsWith("dist/server.js --help two words\n"), stdout);
		}
	});

	it("SHOAL_RUNTIME chooses among several, a package comes before the PATH, and another name is refused", async (t) => {
		const path = [echoing(t, "bun"), echoing(t, "deno")];
		assert.match((await shoal(t, [], { SHOAL_RUNTIME: "deno" }, path).ended).stdout, /^deno: run --no-prompt /);
		assert.match((await shoal(t, [], {}, path).ended).stdout, /^bun: /);
		const { code, stderr } = await shoal(t, [], { SHOAL_RUNTIME: "node" }, path).ended;
		assert.deepEqual([code, stderr], [1, 'shoal: SHOAL_RUNTIME is "node": expected "bun" or "deno"\n']);
		// In a project that has a runtime from npm: this repository.
		const env = { ...INHERITED, PATH: path.join(":"), SHOAL_RUNTIME: OWN_RUNTIME };
		const { stdout } = await Program.start(t, node, [bin, "--version"], { cwd: root, env }).ended;
		assert.equal(stdout, `${VERSION}\n`);
	});

	it("it starts, serves a client, and ends with SIGTERM and 0", async (t) => {
		const { PORT } = await reservePorts();
		const settings = { HOST: "127.0.0.1", PORT, STORE: "memory", DRAIN_SECONDS: "0" };
		const program = shoal(t, [], settings, [runtimeFolder(t)]);
		await program.until("broker that is ready", () => (program.stderr.includes("Shoal is ready") ? true : undefined));
		const client = await MqttJsClient.connect(t, `ws://127.0.0.1:${PORT}/mqtt`);
		await client.mqtt.publishAsync("a", "x", { qos: 2 });
		assert.equal((await program.kill("SIGTERM")).code, 0);
	});

	it("it exits with 1 and says why when it cannot start", async (t) => {
		const { code, stderr }: Ended = await shoal(t, [], { PORT: "many" }, [runtimeFolder(t)]).ended;
		assert.equal(code, 1);
		assert.match(stderr, /^shoal: PORT is "many"/);
	});

	it("a runtime that runs the bin itself needs no other", async (t) => {
		const run = OWN_RUNTIME === "deno" ? ["run", "-A"] : [];
		const { code, stdout } = await Program.start(t, process.execPath, [...run, bin, "--version"], { cwd: project }).ended;
		assert.deepEqual([code, stdout], [0, `${VERSION}\n`]);
	});

	it("a program that imports it gets a broker, and the types that go with it", async (t) => {
		const text = `import { createBroker, type Shoal } from "shoal";
const broker: Shoal = createBroker({ store: "memory", sysIntervalSeconds: 0 });
await broker.start();
await broker.subscribe("a", ({ payload }) => console.log(new TextDecoder().decode(payload)));
await broker.publish("a", "received", { qos: 1 });
await broker.stop();
`;
		writeFileSync(join(project, "program.ts"), text);
		const run = OWN_RUNTIME === "deno" ? ["run", "-A"] : [];
		const { stdout, stderr } = await Program.start(t, process.execPath, [...run, "program.ts"], { cwd: project }).ended;
		assert.equal(stdout, "received\n", stderr);
		const options = ["--ignoreConfig", "--noEmit", "--strict", "--skipLibCheck", "--target", "esnext", "--module", "nodenext"];
		const types = ["--typeRoots", join(root, "node_modules/@types"), "--types", "node"];
		const check = await Program.start(t, join(root, "node_modules/.bin/tsc"), [...options, ...types, "program.ts"], { cwd: project }).ended;
		assert.deepEqual([check.stdout, check.code], ["", 0]);
		writeFileSync(join(project, "program.ts"), text.replace('"memory"', '"paper"'));
		const wrong = await Program.start(t, join(root, "node_modules/.bin/tsc"), [...options, ...types, "program.ts"], { cwd: project }).ended;
		assert.match(wrong.stdout, /error TS2322: Type '"paper"'/);
	});
});

/** Folders of all packages that an installation without those for development has. */
function productionPackages(): string[] {
	const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
	return Object.keys(packages).filter(
		(path) => path !== "" && !packages[path].dev && !packages[path].devOptional && !packages[path].optional,
	);
}
