import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { createMetricsPage, type MetricsSources, renderMetrics, type StoreFigures } from "../../src/http/metrics_page.ts";
import { countByCode, EventLoopLag, Histogram, Metrics } from "../../src/metrics.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { runtimeName } from "../../src/transport/runtime.ts";
import { type Family, readExposition } from "./exposition.ts";

const STORE: StoreFigures = { sessions: 3, subscriptions: 4, retained: 5, logs: 6, logEntries: 7, logLag: 8 };

/** Sources with everything that there can be. */
function sources(metrics = new Metrics()): MetricsSources {
	return {
		metrics,
		build: { version: "1.2.3", runtime: runtimeName(), region: "fra", machine: "abc" },
		ready: () => true,
		connections: () => 2,
		subscriptions: () => 9,
		lag: new EventLoopLag(),
		redis: { roundTrip: new Histogram(), reconnects: () => 1, inboxLagSeconds: () => 0.5, replicas: () => 3, awaySeconds: () => 0 },
	};
}

/** Everything happened once. */
function busy(): Metrics {
	const metrics = new Metrics();
	metrics.packetsReceived[3] = 11;
	metrics.messagesSent[2] = 12;
	metrics.dropped.slowReader = 13;
	metrics.doorRefused.origin = 14;
	countByCode(metrics.connectsRefused, ReasonCode.notAuthorized);
	countByCode(metrics.disconnectsSent, 0xfe);
	countByCode(metrics.upgradesRefused, 429);
	metrics.publishToAck.observe(0.002);
	metrics.publishToAck.observe(99);
	return metrics;
}

/** The one sample of a page with these labels. */
function value(families: readonly Family[], name: string, labels: Readonly<Record<string, string>> = {}): number {
	const samples = families.flatMap((family) => family.samples);
	const found = samples.filter(
		(sample) => sample.name === name && Object.entries(labels).every(([label, text]) => sample.labels[label] === text),
	);
	assert.equal(found.length, 1, `${name} ${JSON.stringify(labels)}`);
	return found[0]?.value as number;
}

describe("renderMetrics", () => {
	test("the page keeps the rules of the format and of the names, idle and busy", () => {
		readExposition(renderMetrics(sources(), STORE));
		readExposition(renderMetrics(sources(busy()), STORE));
	});

	test("promtool, which comes with Prometheus, finds nothing to say", () => {
		const { status, stdout, stderr, error } = spawnSync("promtool", ["check", "metrics"], {
			input: renderMetrics(sources(busy()), STORE),
			encoding: "utf8",
		});
		assert.equal(error, undefined);
		assert.deepEqual([status, stdout, stderr], [0, "", ""]);
	});

	test("figures are where they belong", () => {
		const families = readExposition(renderMetrics(sources(busy()), STORE));
		assert.equal(value(families, "shoal_build_info", { version: "1.2.3", runtime: runtimeName(), region: "fra", machine: "abc" }), 1);
		assert.equal(value(families, "shoal_connections"), 2);
		assert.equal(value(families, "shoal_packets_received_total", { type: "publish" }), 11);
		assert.equal(value(families, "shoal_messages_sent_total", { qos: "2" }), 12);
		assert.equal(value(families, "shoal_messages_dropped_total", { reason: "slowReader" }), 13);
		assert.equal(value(families, "shoal_door_refused_total", { reason: "origin" }), 14);
		assert.equal(value(families, "shoal_connects_refused_total", { reason: "notAuthorized" }), 1);
		assert.equal(value(families, "shoal_connects_refused_total", { reason: "banned" }), 0);
		assert.equal(value(families, "shoal_disconnects_sent_total", { reason: "other" }), 1);
		assert.equal(value(families, "shoal_upgrades_refused_total", { status: "429" }), 1);
		assert.equal(value(families, "shoal_publish_ack_seconds_count"), 2);
		assert.equal(value(families, "shoal_publish_ack_seconds_bucket", { le: "0.001" }), 0);
		assert.equal(value(families, "shoal_publish_ack_seconds_bucket", { le: "0.0025" }), 1);
		assert.equal(value(families, "shoal_publish_ack_seconds_sum"), 99.002);
		assert.equal(value(families, "shoal_sessions"), 3);
		assert.equal(value(families, "shoal_log_lag_messages"), 8);
		assert.equal(value(families, "shoal_replicas"), 3);
		assert.ok(value(families, "process_resident_memory_bytes") > 1e6);
		assert.ok(Math.abs(value(families, "process_start_time_seconds") * 1000 - performance.timeOrigin) < 1);
	});

	test("the series are the same whatever happened, and whatever clients chose", () => {
		const series = (metrics: Metrics) =>
			readExposition(renderMetrics(sources(metrics), STORE)).flatMap(({ samples }) =>
				samples.map(({ name, labels }) => `${name} ${JSON.stringify(labels)}`),
			);
		const metrics = busy();
		for (let code = 0; code < 1000; code++) {
			for (const counter of [metrics.connectsRefused, metrics.disconnectsSent, metrics.upgradesRefused]) countByCode(counter, code);
		}
		assert.deepEqual(series(metrics), series(new Metrics()));
	});

	test("what nobody hands in is not shown", () => {
		const { metrics, build, ready, connections } = sources();
		const names = readExposition(renderMetrics({ metrics, build, ready, connections })).map(({ name }) => name);
		for (const name of ["shoal_sessions", "shoal_replicas", "shoal_redis_reconnects_total", "shoal_redis_round_trip_seconds"]) {
			assert.ok(!names.includes(name), name);
		}
		assert.ok(names.includes("shoal_connections"));
	});

	test("labels: quotes, backslashes and line ends in them are written so that nothing can be forged", () => {
		const machine = 'a"} 1\nshoal_forged 1 \\';
		const page = renderMetrics({ ...sources(), build: { version: "1", runtime: "r", machine } });
		const families = readExposition(page);
		assert.equal(value(families, "shoal_build_info", { machine, region: "" }), 1);
	});
});

describe("createMetricsPage", () => {
	const ask = (headers: Readonly<Record<string, string>>, token: string | undefined, method = "GET") =>
		createMetricsPage(sources(), { token })(new Request("http://localhost/metrics", { method, headers }));

	test("with the token: the page, not to be kept by anybody", async () => {
		const response = await ask({ Authorization: "Bearer secret" }, "secret");
		assert.equal(response.status, 200);
		assert.equal(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
		assert.equal(response.headers.get("cache-control"), "no-store");
		readExposition(await response.text());
	});

	for (const [title, headers] of [
		["nothing", {}],
		["another token", { Authorization: "Bearer secre" }],
		["a longer token", { Authorization: "Bearer secrets" }],
		["no bearer token", { Authorization: "Basic secret" }],
		["the token alone", { Authorization: "secret" }],
	] as const) {
		test(`with ${title}: 401 and no figure`, async () => {
			const response = await ask(headers, "secret");
			assert.equal(response.status, 401);
			assert.match(response.headers.get("www-authenticate") ?? "", /^Bearer/);
			assert.ok(!(await response.text()).includes("shoal_"));
		});
	}

	test("without a token to ask for: shown", async () => assert.equal((await ask({}, undefined)).status, 200));

	test("another method than GET: 405 with Allow", async () => {
		const response = await ask({}, undefined, "POST");
		assert.equal(response.status, 405);
		assert.equal(response.headers.get("allow"), "GET, HEAD");
	});

	const failing: readonly (readonly [string, NonNullable<MetricsSources["store"]>])[] = [
		["rejects", () => Promise.reject(new Error("away"))],
		[
			"throws",
			() => {
				throw new Error("away");
			},
		],
		["does not answer", () => new Promise(() => {})],
	];
	for (const [title, store] of failing) {
		test(`a store that ${title}: the page comes without its figures`, async () => {
			const page = createMetricsPage({ ...sources(), store }, { token: undefined, storeTimeoutMs: 20 });
			const names = readExposition(await (await page(new Request("http://localhost/metrics"))).text()).map(({ name }) => name);
			assert.ok(names.includes("shoal_connections"));
			assert.ok(!names.includes("shoal_sessions"));
		});
	}

	test("a store that answers: its figures are there", async () => {
		const page = createMetricsPage({ ...sources(), store: async () => STORE }, { token: undefined });
		const families = readExposition(await (await page(new Request("http://localhost/metrics"))).text());
		assert.equal(value(families, "shoal_retained_messages"), 5);
	});
});

describe("readExposition, which judges the page", () => {
	for (const [title, page] of [
		["a sample without type", "shoal_a 1\n"],
		["a type without help", "# TYPE shoal_a gauge\nshoal_a 1\n"],
		["a family twice", "# HELP shoal_a A.\n# TYPE shoal_a gauge\nshoal_a 1\n# HELP shoal_a A.\n# TYPE shoal_a gauge\nshoal_a 1\n"],
		["a series twice", '# HELP shoal_a A.\n# TYPE shoal_a gauge\nshoal_a{x="1"} 1\nshoal_a{x="1"} 2\n'],
		["a counter without _total", "# HELP shoal_a A.\n# TYPE shoal_a counter\nshoal_a 1\n"],
		["a gauge with _total", "# HELP shoal_a_total A.\n# TYPE shoal_a_total gauge\nshoal_a_total 1\n"],
		["milliseconds", "# HELP shoal_a_ms A.\n# TYPE shoal_a_ms gauge\nshoal_a_ms 1\n"],
		["a value that is none", "# HELP shoal_a A.\n# TYPE shoal_a gauge\nshoal_a undefined\n"],
		["a quote in a label", '# HELP shoal_a A.\n# TYPE shoal_a gauge\nshoal_a{x="a"b"} 1\n'],
		["camel case", "# HELP shoalA A.\n# TYPE shoalA gauge\nshoalA 1\n"],
		["no end of the last line", "# HELP shoal_a A.\n# TYPE shoal_a gauge\nshoal_a 1"],
		["a family without sample", "# HELP shoal_a A.\n# TYPE shoal_a gauge\n"],
		[
			"a histogram that shrinks",
			'# HELP a_seconds A.\n# TYPE a_seconds histogram\na_seconds_bucket{le="1"} 2\na_seconds_bucket{le="+Inf"} 1\na_seconds_sum 1\na_seconds_count 1\n',
		],
	] as const) {
		test(`${title}: is found`, () => assert.throws(() => readExposition(page)));
	}
});

describe("grafana/shoal.json", () => {
	interface Panel {
		readonly id: number;
		readonly title: string;
		readonly type: string;
		readonly targets?: readonly { readonly expr: string }[];
	}
	const text = readFileSync(new URL("../../grafana/shoal.json", import.meta.url), "utf8");
	const dashboard = JSON.parse(text) as {
		readonly panels: readonly Panel[];
		readonly templating: { readonly list: readonly { query?: unknown }[] };
	};
	const families = readExposition(renderMetrics(sources(), STORE));
	const expressions = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
	const METRIC = /\b(?:shoal|process)_[a-z_]+\b/g;

	test("every metric that it names exists", () => {
		const known = new Set(families.flatMap(({ name, samples }) => [name, ...samples.map((sample) => sample.name)]));
		const named = [...text.matchAll(METRIC)].map(([name]) => name);
		assert.ok(named.length > 20);
		assert.deepEqual(
			named.filter((name) => !known.has(name)),
			[],
		);
	});

	test("every label that it names exists", () => {
		const known = new Set(families.flatMap(({ samples }) => samples.flatMap(({ labels }) => Object.keys(labels))));
		// Of Prometheus itself.
		known.add("instance").add("job");
		const selected = expressions.flatMap((expr) => [...expr.matchAll(/([a-z_]+)(?:=|!=|=~|!~)"/g)].map(([, label]) => label ?? ""));
		const grouped = expressions.flatMap((expr) =>
			[...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, labels = ""]) => labels.split(/,\s*/)),
		);
		assert.ok(selected.length > 0 && grouped.length > 0);
		assert.deepEqual(
			[...selected, ...grouped].filter((label) => !known.has(label)),
			[],
		);
	});

	test("every family but a few facts is on a panel", () => {
		const facts = ["process_start_time_seconds", "shoal_connections_closed_total", "shoal_logs"];
		const missing = families.filter(({ name }) => !facts.includes(name) && !new RegExp(`\\b${name}(?:_bucket|_sum|_count)?\\b`).test(text));
		assert.deepEqual(
			missing.map(({ name }) => name),
			[],
		);
	});

	test("panels have a title, an id of their own, and something to show", () => {
		assert.equal(new Set(dashboard.panels.map(({ id }) => id)).size, dashboard.panels.length);
		for (const { title, type, targets } of dashboard.panels) {
			assert.ok(title.length > 0);
			assert.ok(type === "row" || (targets?.length ?? 0) > 0, title);
		}
	});

	test("rates are asked of counters, quantiles of histograms", () => {
		const typeOf = new Map(families.map(({ name, type }) => [name, type]));
		for (const expr of expressions) {
			for (const [, name = ""] of expr.matchAll(/\brate\(([a-z_]+)/g)) {
				assert.ok(typeOf.get(name) === "counter" || typeOf.get(name.replace(/_(?:bucket|sum|count)$/, "")) === "histogram", expr);
			}
			if (expr.includes("histogram_quantile")) assert.match(expr, /_bucket\{/);
		}
	});
});
