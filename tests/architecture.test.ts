/** The shape of the source tree as rules that can fail: who may import whom, who owns which library, what a file looks like. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const MAX_LINES = 450;

interface Layer {
	/** Files or folders that it may import, besides itself. */
	readonly imports: readonly string[];
	/** Those of which it may import only types. */
	readonly types?: readonly string[];
}

/** Files beside the folders, for everybody but the core. */
const BASE = ["src/clock.ts", "src/log.ts", "src/metrics.ts"];

/** What the admin API shares with those who read what it writes: forms, names, limits. */
const ADMIN_SHARES = ["src/auth/rule_schema.ts", "src/auth/identity.ts", "src/auth/managed.ts"];

/** What each part may know: `server.ts` at the top, `src/mqtt` at the bottom. */
const LAYERS: Readonly<Record<string, Layer>> = {
	"server.ts": { imports: ["src/shoal.ts", "src/setup/commands.ts", "src/config.ts", ...BASE] },
	"src/shoal.ts": { imports: ["src", "package.json"] },
	"src/http": {
		imports: ["src/broker", "src/transport", "src/mqtt", "src/config.ts", ...ADMIN_SHARES, ...BASE],
		types: ["src/session", "src/store", "src/auth"],
	},
	"src/broker": { imports: ["src/session", "src/store", "src/router", "src/auth", "src/transport", "src/mqtt", "src/config.ts", ...BASE] },
	"src/session": { imports: ["src/mqtt"], types: ["src/store/store.ts", "src/auth/auth.ts", "src/transport/socket.ts"] },
	"src/router": { imports: ["src/store", "src/mqtt", ...BASE] },
	"src/store": { imports: ["src/mqtt", ...BASE] },
	"src/auth": { imports: ["src/mqtt", ...BASE], types: ["src/transport/socket.ts"] },
	"src/transport": { imports: ["src/mqtt", ...BASE] },
	"src/mqtt": { imports: [] },
	"src/config.ts": { imports: ["src/config"] },
	"src/config": { imports: [] },
	"src/setup": { imports: ["src"] },
	"src/log.ts": { imports: [], types: ["src/config.ts"] },
	"src/metrics.ts": { imports: [], types: ["src/mqtt"] },
	"src/clock.ts": { imports: [] },
};

/** The only places that may import a library. What is not listed here, nobody may import. */
const OWNERS: Readonly<Record<string, readonly string[]>> = {
	"mqtt-packet": ["src/mqtt"],
	hono: ["src/http", "src/setup/managed.ts", "src/shoal.ts"],
	"@logtape/logtape": ["src/log.ts"],
	"node:sqlite": ["src/store"],
	ioredis: ["src/store/redis"],
	jose: ["src/auth"],
	yaml: ["src/auth/rule_file.ts"],
	zod: ["src/auth", "src/http"],
	"@hono/zod-openapi": ["src/http"],
	"node:net": ["src/transport"],
	"node:tls": ["src/transport"],
};

/** Without input, output, time and chance. */
const PURE = ["src/mqtt", "src/session"];
/** Modules of the platform that even these may use. */
const PURE_MODULES = ["node:buffer"];

/** Comments, and strings without templates: regular expressions are left alone. */
const COMMENT_OR_STRING = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/g;
const NAMES = /(?:\{[^}]*\}|[\w$*]+)(?:\s+as\s+\w+)?(?:\s*,\s*(?:\{[^}]*\}|\*\s+as\s+\w+))?/.source;
const IMPORT = new RegExp(
	`^(?:import|export)\\s+(type\\s+)?(${NAMES})\\s+from\\s+["']([^"']+)["']|^import\\s+["']([^"']+)["']|\\bimport\\(\\s*["']([^"']+)["']`,
	"gm",
);

interface Import {
	readonly file: string;
	/** Path from the root where `local`, else the name of a module. */
	readonly target: string;
	readonly local: boolean;
	readonly typeOnly: boolean;
}

const within = (path: string, places: readonly string[]): boolean => places.some((place) => path === place || path.startsWith(`${place}/`));

const read = (file: string): string => readFileSync(join(root, file), "utf8");

function filesUnder(folder: string, extension: string): string[] {
	const files = readdirSync(join(root, folder), { recursive: true, encoding: "utf8" });
	return files.filter((file) => file.endsWith(extension)).map((file) => `${folder}/${file}`);
}

function importsOf(file: string, text: string): Import[] {
	const code = text.replace(COMMENT_OR_STRING, (match) => (match.startsWith("/") ? "" : match));
	return [...code.matchAll(IMPORT)].map(([, type, names = "", source, bare, dynamic]) => {
		const target = source ?? bare ?? dynamic ?? "";
		const list =
			/^\{([^}]*)\}\s*$/
				.exec(names)?.[1]
				?.split(",")
				.filter((name) => name.trim() !== "") ?? [];
		const typeOnly = type !== undefined || (list.length > 0 && list.every((name) => /^\s*type\s/.test(name)));
		const local = target.startsWith(".");
		return { file, target: local ? join(dirname(file), target) : target, local, typeOnly };
	});
}

const sources = [...filesUnder("src", ".ts"), ...readdirSync(root).filter((file) => file === "server.ts")];
const imports = sources.flatMap((file) => importsOf(file, read(file)));
const show = ({ file, target }: Import): string => `${file} imports ${target}`;

function mayImport({ file, target, typeOnly }: Import): boolean {
	const [place, layer] = Object.entries(LAYERS).find(([name]) => within(file, [name])) ?? [];
	if (place === undefined || layer === undefined) return false;
	return within(target, [place, ...layer.imports]) || (typeOnly && within(target, layer.types ?? []));
}

/** All files of the repository; a copy without git has at least these. */
function trackedFiles(): string[] {
	const git = spawnSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], { cwd: root, encoding: "utf8" });
	const folders = ["src", "tests", "scripts", "docs"].flatMap((folder) => filesUnder(folder, ""));
	const files = git.status === 0 ? git.stdout.split("\n") : ["package.json", "package-lock.json", ...folders];
	return files.filter((file) => statSync(join(root, file), { throwIfNoEntry: false })?.isFile());
}

describe("architecture: imports", () => {
	it("the reader of imports finds every form and knows types from values", () => {
		const text = `/* import "./no.ts" */
import type { A } from "./a.ts";
import { type B, type C } from "../b.ts";
import {
	type D,
	e,
} from "hono"; // import "./neither.ts"
export * from "./f.ts";
export type { G } from "./g.ts";
import "./h.ts";
import * as i from 'node:net';
export const later = () => import("./j.ts");
export const from = "k.ts";
`;
		const found = importsOf("src/mqtt/x.ts", text).map(({ target, typeOnly }) => `${target} ${typeOnly ? "type" : "value"}`);
		const expected = ["src/mqtt/a.ts type", "src/b.ts type", "hono value", "src/mqtt/f.ts value", "src/mqtt/g.ts type"];
		assert.deepEqual(found, [...expected, "src/mqtt/h.ts value", "node:net value", "src/mqtt/j.ts value"]);
	});

	it("there are sources and imports to judge", () => {
		assert.ok(sources.length > 0);
		assert.ok(imports.filter((each) => each.local).length > 0);
	});

	it("every import points down the layers", () => {
		assert.deepEqual(imports.filter((each) => each.local && !mayImport(each)).map(show), []);
	});

	it("every library and every owned module is imported by its owner only", () => {
		const packageOf = (target: string): string =>
			target
				.split("/")
				.slice(0, target.startsWith("@") ? 2 : 1)
				.join("/");
		const strangers = imports.filter((each) => {
			const owners = OWNERS[each.target] ?? OWNERS[packageOf(each.target)];
			if (owners !== undefined) return !within(each.file, owners);
			return !each.local && !each.target.startsWith("node:");
		});
		assert.deepEqual(strangers.map(show), []);
	});

	it("the pure core imports no input, output, time or chance", () => {
		const impure = imports.filter(({ file, target }) => within(file, PURE) && target.startsWith("node:") && !PURE_MODULES.includes(target));
		assert.deepEqual(impure.map(show), []);
	});

	it("only the transport names the globals of a runtime", () => {
		const naming = sources.filter(
			(file) => !within(file, ["src/transport"]) && /\b(Bun|Deno)\b/.test(read(file).replace(COMMENT_OR_STRING, "")),
		);
		assert.deepEqual(naming, []);
	});
});

describe("architecture: files", () => {
	it(`no source or test has more than ${MAX_LINES} lines`, () => {
		const long = [...sources, ...filesUnder("tests", ".ts")].filter((file) => read(file).trimEnd().split("\n").length > MAX_LINES);
		assert.deepEqual(long, []);
	});

	it("every source opens with a comment that says what it is", () => {
		assert.deepEqual(
			sources.filter((file) => !read(file).startsWith("/**")),
			[],
		);
	});

	it("no file names a path of one machine or the host of a registry", () => {
		// Pieces, so that this file does not name them either.
		const names = ["work", "root", "Users"]
			.map((folder) => `/${folder}/`)
			.concat(["registry", "npmjs"].join("."), ["registry", "yarnpkg"].join("."));
		const found = trackedFiles().flatMap((file) => {
			const text = read(file);
			return names.filter((name) => text.includes(name)).map((name) => `${file} names ${name}`);
		});
		assert.deepEqual(found, []);
	});

	it("only the temporary folder that the system names is used", () => {
		const found = [...sources, ...filesUnder("tests", ".ts"), ...filesUnder("scripts", ".mjs")].filter((file) =>
			/["'`]\/tmp\b/.test(read(file)),
		);
		assert.deepEqual(found, []);
	});
});

describe("architecture: package-lock.json", () => {
	interface Package {
		readonly version?: string;
		readonly resolved?: string;
		readonly dependencies?: Readonly<Record<string, string>>;
		readonly optionalDependencies?: Readonly<Record<string, string>>;
	}
	const { packages } = JSON.parse(read("package-lock.json")) as { readonly packages: Readonly<Record<string, Package>> };

	it("no package is bound to a host", () => {
		const bound = Object.entries(packages).filter(([, { resolved }]) => resolved !== undefined);
		assert.deepEqual(
			bound.map(([path]) => path),
			[],
		);
	});

	it("every package that another one names is there, for other platforms too, as npm ci insists", () => {
		const present = new Set(Object.keys(packages).map((path) => path.split("node_modules/").at(-1)));
		const missing = Object.entries(packages).flatMap(([path, each]) => {
			const named = Object.keys({ ...each.dependencies, ...each.optionalDependencies });
			return named.filter((name) => !present.has(name)).map((name) => `${path} needs ${name}`);
		});
		assert.deepEqual(missing, []);
	});

	it("package.json names exact versions", () => {
		const { dependencies, devDependencies } = JSON.parse(read("package.json")) as Record<string, Readonly<Record<string, string>>>;
		const loose = Object.entries({ ...dependencies, ...devDependencies }).filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version));
		assert.deepEqual(loose, []);
	});
});
