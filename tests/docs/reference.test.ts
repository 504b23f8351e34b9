/** What the documentation says of names and figures is what the code and the measurements say. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { figure, renderConfiguration, renderSizing } from "../../scripts/docs.mjs";
import { SETTINGS } from "../../src/config/settings.ts";
import { createMetricsPage } from "../../src/http/metrics_page.ts";
import { DROP_REASONS, EventLoopLag, Histogram, Metrics } from "../../src/metrics.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { startBroker } from "../support/test_broker.ts";
import { blocksOf, pages, readPage, root } from "./doc_blocks.ts";

const REMEDY = "npm run docs writes it anew";
const FENCED = /^```.*\n[\s\S]*?^```$/gm;
/** Read by what starts the broker, not by the broker. */
const START = ["SHOAL_RUNTIME"];

const prose = (page: string): string => readPage(page).replace(FENCED, "");
const everywhere = [...pages(), "docs/performance.md", "docs/architecture.md"];

/** As the site that shows Markdown makes it of a heading. */
function anchorOf(heading: string): string {
	const words = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replaceAll("`", "");
	return words
		.toLowerCase()
		.replace(/[^\p{L}\p{N}\p{M}_ -]/gu, "")
		.trim()
		.replaceAll(" ", "-");
}

function anchorsOf(page: string): string[] {
	return [...prose(page).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => anchorOf(heading));
}

/** What stands in backticks in the first cells of tables. */
function firstCells(markdown: string): string[] {
	return [...markdown.matchAll(/^\| `([^`]*)` +\|/gm)].map(([, text = ""]) => text);
}

function sectionOf(page: string, heading: string): string {
	const section = prose(page)
		.split(/^#+ /m)
		.find((part) => part.startsWith(`${heading}\n`));
	assert.ok(section, `${page} has a section "${heading}"`);
	return section;
}

describe("documentation: what comes from the code", () => {
	it("docs/configuration.md is that of the settings", () => {
		assert.equal(readPage("docs/configuration.md"), renderConfiguration(Object.values(SETTINGS)), REMEDY);
	});

	it("the figures for sizing are those of docs/performance.md", () => {
		const page = readPage("docs/operating.md");
		assert.equal(page, renderSizing(page, readPage("docs/performance.md")), REMEDY);
		assert.throws(() => renderSizing(page, "# Performance\n"), /docs\/performance\.md has no figure/);
	});

	it("the figures in README.md and docs/comparison.md are those of docs/performance.md", () => {
		const performance = readPage("docs/performance.md");
		const cpu = "Broker CPU, µs per delivered message";
		const loads = ["fan-out 1→100, QoS 0", "fan-out 1→100, QoS 1", "fan-out 1→1000, QoS 0", "fan-out 1→1000, QoS 1"];
		loads.push("fan-in 50→1, wildcard, QoS 0", "fan-in 50→1, wildcard, QoS 1", "50 pairs, QoS 0", "50 pairs, QoS 1", "50 pairs, QoS 2");
		const lowest = Math.min(...loads.flatMap((row) => ["Bun", "Deno"].map((column) => figure(performance, cpu, row, column))));
		const kilobytes = Math.round(figure(performance, "RSS, bytes per idle connection", "10,000 idle", "Bun") / 1000);
		const claim = `From ${lowest.toFixed(1)} µs of processor time per delivered message, ${kilobytes} KB per idle connection on Bun`;
		assert.ok(readPage("README.md").includes(claim), `README.md says "${claim}"`);

		const range = (peer: string) => {
			const ratios = loads.map((row) => figure(performance, cpu, row, `Bun : ${peer}`));
			return `${Math.min(...ratios).toFixed(1)} to ${Math.max(...ratios).toFixed(1)} times`;
		};
		const persistent = figure(performance, cpu, "50 persistent pairs", "Bun : Mosquitto");
		const comparison = readPage("docs/comparison.md").replace(/\s+/g, " ");
		for (const words of [
			`${range("Mosquitto")} less than Mosquitto`,
			`${persistent} times less with persistent`,
			`${range("Aedes")} less than Aedes`,
		])
			assert.ok(comparison.includes(words), `docs/comparison.md says "${words}"`);
	});
});

describe("documentation: names", () => {
	it("every setting that a page names is one", () => {
		const known = new Set<string>([...Object.values(SETTINGS).map(({ variable }) => variable), ...START]);
		const named = pages().flatMap((page) =>
			[...prose(page).matchAll(/`([A-Z][A-Z\d]*(?:_[A-Z\d]+)+)(?:=[^`]*)?`/g)].map(([, name = ""]) => `${page}: ${name}`),
		);
		assert.deepEqual(
			named.filter((each) => !known.has(each.split(": ")[1] ?? "")),
			[],
		);
		assert.ok(named.length > 100);
	});

	it("every metric that a page names is served", async () => {
		const page = createMetricsPage(
			{
				metrics: new Metrics(),
				build: { version: "1", runtime: "bun" },
				ready: () => true,
				connections: () => 0,
				subscriptions: () => 0,
				lag: new EventLoopLag(),
				store: () => ({ sessions: 0, subscriptions: 0, retained: 0, logs: 0, logEntries: 0, logLag: 0 }),
				redis: { roundTrip: new Histogram(), reconnects: () => 0, inboxLagSeconds: () => 0, replicas: () => 1, awaySeconds: () => 0 },
			},
			{ token: undefined },
		);
		const served = await (await page(new Request("http://localhost/metrics"))).text();
		const named = pages().flatMap((each) => readPage(each).match(/\b(?:shoal|process)_[a-z_]+\b/g) ?? []);
		assert.ok(named.length > 5);
		assert.deepEqual(
			named.filter((name) => !new RegExp(`^${name}[ {]|^# TYPE ${name} `, "m").test(served)),
			[],
		);
	});

	it("the reasons for dropped messages are all there", () => {
		const text = sectionOf("docs/operating.md", "Metrics");
		assert.deepEqual(firstCells(text.slice(text.indexOf("Why messages are dropped"))), [...DROP_REASONS]);
	});

	it("every reason code of the table is one of MQTT", () => {
		const codes = [...sectionOf("docs/connecting.md", "Reason codes").matchAll(/^\| 0x([0-9A-F]{2}) +\|/gm)].map(([, hex = ""]) =>
			Number.parseInt(hex, 16),
		);
		assert.ok(codes.length > 15);
		const known: readonly number[] = Object.values(ReasonCode);
		assert.deepEqual(
			codes.filter((code) => !known.includes(code)),
			[],
		);
	});

	it("the operations of the admin API are those that it has", async (t) => {
		const { wsPort } = await startBroker(t, { adminToken: "0123456789abcdef" });
		const answer = await fetch(`http://127.0.0.1:${wsPort}/api/v1/openapi.json`, { headers: { authorization: "Bearer 0123456789abcdef" } });
		assert.equal(answer.status, 200);
		const { paths } = (await answer.json()) as { readonly paths: Readonly<Record<string, Readonly<Record<string, unknown>>>> };
		const served = Object.entries(paths).flatMap(([path, methods]) =>
			Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
		);
		const described = firstCells(sectionOf("docs/admin-api.md", "Operations"));
		// Those of tokens are there with a key only.
		assert.deepEqual(
			described.filter((each) => !each.includes("/tokens")).sort(),
			served.filter((each) => !each.includes("/tokens")).sort(),
		);
	});
});

describe("documentation: links and files", () => {
	it("every link leads to a file that is there, and to a heading of it", () => {
		const broken = everywhere.flatMap((page) =>
			[...prose(page).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target = ""]) => {
				if (/^https?:/.test(target)) return [];
				const [path = "", anchor] = target.split("#");
				const file = path === "" ? page : join(dirname(page), path);
				if (!existsSync(join(root, file))) return [`${page}: ${target}`];
				return anchor === undefined || anchorsOf(file).includes(anchor) ? [] : [`${page}: ${target}`];
			}),
		);
		assert.deepEqual(broken, []);
	});

	it("every test that docs/conformance.md names is there", () => {
		const rows = sectionOf("docs/conformance.md", "Features")
			.split("\n")
			.filter((line) => line.startsWith("|"));
		const named = rows.flatMap((row) => [...(row.split("|").at(-2) ?? "").matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name));
		assert.ok(named.length > 30);
		const missing = named
			.map((name) => (name.includes("/") ? name : `tests/protocol/${name}.test.ts`))
			.filter((file) => !existsSync(join(root, file)));
		assert.deepEqual(missing, []);
	});

	it("every page can be reached from README.md", () => {
		const readme = readPage("README.md");
		assert.deepEqual(
			pages().filter((page) => page !== "README.md" && !readme.includes(`(${page}`)),
			[],
		);
	});

	it("every picture has a text that says what it shows", () => {
		const pictures = pages().flatMap((page) => [...prose(page).matchAll(/!\[([^\]]*)\]\(([^)]*)\)/g)].map(([, words = ""]) => words));
		assert.ok(pictures.length > 1);
		assert.deepEqual(
			pictures.filter((words) => words.length < 20),
			[],
		);
		assert.match(readFileSync(join(root, "docs/images/shoal.svg"), "utf8"), /<title[\s\S]*prefers-color-scheme: dark/);
	});

	it("there are blocks that run on every page with code", () => {
		const kinds = new Set(pages().flatMap((page) => blocksOf(page).map(({ kind }) => kind)));
		for (const kind of ["sh run", "js run", "ts run", "html run", "env start", "yaml acl", "json claims", "text output"] as const)
			assert.ok(kinds.has(kind), kind);
	});
});
