/**
 * The figures of a broker as Prometheus reads them (text exposition 0.0.4), and the page that shows them. The series are
 * always the same, whatever clients do: no label has a value that a client chooses. Knows names and formats; the figures
 * come from `Metrics` and from functions that are handed in.
 */

import { createHash, timingSafeEqual } from "node:crypto";
import { type EventLoopLag, type Histogram, type Metrics, PACKET_TYPES } from "../metrics.ts";
import { ReasonCode, reasonName } from "../mqtt/reason_code.ts";

/** What the store tells when it is asked. What is left out is not shown. */
export interface StoreFigures {
	readonly sessions?: number;
	readonly subscriptions?: number;
	readonly retained?: number;
	readonly logs?: number;
	/** Messages stored for sessions. */
	readonly logEntries?: number;
	/** Messages that the session furthest behind has not read. */
	readonly logLag?: number;
}

/** What a replica knows of its Redis and of the others. */
export interface RedisFigures {
	readonly roundTrip?: Histogram;
	readonly reconnects?: () => number;
	/** Age of the oldest message from other replicas that was not handed out yet. */
	readonly inboxLagSeconds?: () => number;
	/** Replicas that are alive, with this one. */
	readonly replicas?: () => number;
	/** For how long Redis cannot be reached; 0 while it can. */
	readonly awaySeconds?: () => number;
}

/** Where the figures come from. */
export interface MetricsSources {
	readonly metrics: Metrics;
	/** `region` and `machine` as the platform names them, such as `FLY_REGION` and `FLY_MACHINE_ID`. */
	readonly build: { readonly version: string; readonly runtime: string; readonly region?: string; readonly machine?: string };
	readonly ready: () => boolean;
	/** Connections that are open. */
	readonly connections: () => number;
	/** Subscriptions of connected clients. */
	readonly subscriptions?: () => number;
	readonly lag?: EventLoopLag;
	/** Asked each time; figures that do not come in time are left out. */
	readonly store?: () => StoreFigures | Promise<StoreFigures>;
	readonly redis?: RedisFigures;
}

export interface MetricsPageOptions {
	/** Who asks must send it as `Authorization: Bearer …`; `undefined` shows the page to everybody who reaches it. */
	readonly token: string | undefined;
	/** Default 2000. */
	readonly storeTimeoutMs?: number;
}

const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";
const STORE_TIMEOUT_MS = 2_000;
/** What an upgrade can be answered with; anything else is `other`. */
const STATUSES = [400, 403, 404, 405, 426, 429, 500, 503];
const ERROR_CODES: readonly number[] = Object.values(ReasonCode).filter((code) => code >= 0x80);

type Labels = Readonly<Record<string, string | number>>;

/** Lines of one page. A family is written in one piece, with its help and type first. */
class Page {
	readonly #lines: string[] = [];

	counter(name: string, help: string, samples: Iterable<readonly [labels: Labels, value: number]>): void {
		this.#family(name, "counter", help, samples);
	}

	gauge(name: string, help: string, value: number | undefined, labels: Labels = {}): void {
		if (value !== undefined) this.#family(name, "gauge", help, [[labels, value]]);
	}

	histogram(name: string, help: string, histogram: Histogram | undefined): void {
		if (histogram === undefined) return;
		this.#head(name, "histogram", help);
		let count = 0;
		histogram.counts.forEach((inBucket, index) => {
			count += inBucket;
			this.#sample(`${name}_bucket`, { le: histogram.bounds[index] ?? "+Inf" }, count);
		});
		this.#sample(`${name}_sum`, {}, histogram.sum);
		this.#sample(`${name}_count`, {}, count);
	}

	toString(): string {
		return `${this.#lines.join("\n")}\n`;
	}

	#family(name: string, type: string, help: string, samples: Iterable<readonly [labels: Labels, value: number]>): void {
		this.#head(name, type, help);
		for (const [labels, value] of samples) this.#sample(name, labels, value);
	}

	#head(name: string, type: string, help: string): void {
		this.#lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
	}

	#sample(name: string, labels: Labels, value: number): void {
		const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escaped(String(text))}"`);
		this.#lines.push(`${name}${pairs.length > 0 ? `{${pairs.join(",")}}` : ""} ${value}`);
	}
}

const escaped = (text: string): string => text.replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n");

const one = (value: number): readonly (readonly [Labels, number])[] => [[{}, value]];

const byQos = (counts: readonly number[]) => counts.map((count, qos) => [{ qos }, count] as const);

const byType = (counts: readonly number[]) => Object.entries(PACKET_TYPES).map(([type, index]) => [{ type }, counts[index] ?? 0] as const);

const byReason = (counts: Readonly<Record<string, number>>) =>
	Object.entries(counts).map(([reason, count]) => [{ reason }, count] as const);

/** All codes from the start: a series that begins with its first event hides that event from `rate`. */
function byCode(counts: ReadonlyMap<number, number>, codes: readonly number[], label: string, nameOf: (code: number) => string | number) {
	let other = 0;
	for (const [code, count] of counts) if (!codes.includes(code)) other += count;
	return [...codes.map((code) => [{ [label]: nameOf(code) }, counts.get(code) ?? 0] as const), [{ [label]: "other" }, other] as const];
}

/** Makes the page of one moment. */
export function renderMetrics(sources: MetricsSources, store: StoreFigures = {}): string {
	const { metrics, build, lag, redis = {} } = sources;
	const page = new Page();
	const { version, runtime, region = "", machine = "" } = build;
	page.gauge("shoal_build_info", "Always 1; what runs, and where.", 1, { version, runtime, region, machine });
	page.gauge("shoal_ready", "Whether clients may come: 1 or 0.", sources.ready() ? 1 : 0);
	connectionFamilies(page, sources);
	trafficFamilies(page, metrics);
	refusalFamilies(page, metrics);
	page.histogram("shoal_publish_ack_seconds", "From a PUBLISH of QoS 1 or 2 to its acknowledgement, of a sample.", metrics.publishToAck);
	page.histogram(
		"shoal_publish_deliver_seconds",
		"From a PUBLISH to its delivery to a connected client, of a sample.",
		metrics.publishToDeliver,
	);
	page.histogram("shoal_event_loop_lag_seconds", "How late a timer is, measured all the time.", lag?.histogram);
	page.gauge("shoal_sessions", "Sessions in the store, connected or not.", store.sessions);
	page.gauge("shoal_stored_subscriptions", "Subscriptions in the store.", store.subscriptions);
	page.gauge("shoal_retained_messages", "Retained messages in the store.", store.retained);
	page.gauge("shoal_logs", "Logs in the store, one for a filter or share group.", store.logs);
	page.gauge("shoal_log_messages", "Messages in the logs.", store.logEntries);
	page.gauge("shoal_log_lag_messages", "Messages that the session furthest behind has not read.", store.logLag);
	page.histogram("shoal_redis_round_trip_seconds", "From a command to its answer.", redis.roundTrip);
	if (redis.reconnects) page.counter("shoal_redis_reconnects_total", "Connections to Redis made again.", one(redis.reconnects()));
	page.gauge("shoal_redis_away_seconds", "For how long Redis cannot be reached; 0 while it can.", redis.awaySeconds?.());
	page.gauge("shoal_inbox_lag_seconds", "Age of the oldest message of other replicas not handed out yet.", redis.inboxLagSeconds?.());
	page.gauge("shoal_replicas", "Replicas alive, as this one sees it.", redis.replicas?.());
	processFamilies(page);
	return page.toString();
}

function connectionFamilies(page: Page, { metrics, connections, subscriptions }: MetricsSources): void {
	page.gauge("shoal_connections", "Connections that are open.", connections());
	page.counter("shoal_connections_opened_total", "Connections accepted.", one(metrics.connectionsOpened));
	page.counter("shoal_connections_closed_total", "Connections ended, whoever ended them.", one(metrics.connectionsClosed));
	page.gauge("shoal_subscriptions", "Subscriptions of connected clients.", subscriptions?.());
}

function trafficFamilies(page: Page, metrics: Metrics): void {
	page.counter("shoal_received_bytes_total", "Bytes of MQTT received.", one(metrics.bytesReceived));
	page.counter("shoal_sent_bytes_total", "Bytes of MQTT sent.", one(metrics.bytesSent));
	page.counter("shoal_packets_received_total", "MQTT packets received.", byType(metrics.packetsReceived));
	page.counter("shoal_packets_sent_total", "MQTT packets sent.", byType(metrics.packetsSent));
	page.counter("shoal_messages_received_total", "PUBLISH packets received.", byQos(metrics.messagesReceived));
	page.counter("shoal_messages_sent_total", "PUBLISH packets sent.", byQos(metrics.messagesSent));
	page.counter("shoal_messages_dropped_total", "Messages that somebody did not get, by why.", byReason(metrics.dropped));
}

function refusalFamilies(page: Page, metrics: Metrics): void {
	const byReasonCode = (counts: ReadonlyMap<number, number>) => byCode(counts, ERROR_CODES, "reason", reasonName);
	page.counter("shoal_connects_refused_total", "CONNECT packets refused.", byReasonCode(metrics.connectsRefused));
	page.counter("shoal_disconnects_sent_total", "Connections that the broker ended.", byReasonCode(metrics.disconnectsSent));
	page.counter("shoal_publishes_refused_total", "PUBLISH packets refused.", byReasonCode(metrics.publishesRefused));
	page.counter("shoal_subscriptions_refused_total", "Subscriptions refused.", byReasonCode(metrics.subscriptionsRefused));
	page.counter(
		"shoal_upgrades_refused_total",
		"WebSocket upgrades refused, by HTTP status.",
		byCode(metrics.upgradesRefused, STATUSES, "status", (status) => status),
	);
	page.counter("shoal_door_refused_total", "Connections refused before MQTT had a word.", byReason(metrics.doorRefused));
}

/** By the names that all programs use. */
function processFamilies(page: Page): void {
	const { user, system } = process.cpuUsage();
	page.counter("process_cpu_seconds_total", "Processor time used.", one((user + system) / 1e6));
	page.gauge("process_resident_memory_bytes", "Memory in use.", process.memoryUsage().rss);
	page.gauge("process_start_time_seconds", "When the process began, in seconds since 1970.", performance.timeOrigin / 1000);
}

/**
 * Makes the handler of the page: for a port of its own, or for a route such as `/metrics`. Answers 401 without the token,
 * and always within the time for the store.
 */
export function createMetricsPage(sources: MetricsSources, options: MetricsPageOptions): (request: Request) => Promise<Response> {
	const { storeTimeoutMs = STORE_TIMEOUT_MS } = options;
	const expected = options.token === undefined ? undefined : digest(`Bearer ${options.token}`);
	return async (request) => {
		if (expected && !timingSafeEqual(digest(request.headers.get("authorization") ?? ""), expected)) {
			return plain(401, "Send the token of the metrics as a bearer token", { "WWW-Authenticate": 'Bearer realm="metrics"' });
		}
		if (request.method !== "GET" && request.method !== "HEAD") return plain(405, "Ask with GET", { Allow: "GET, HEAD" });
		const store = await figuresInTime(sources.store, storeTimeoutMs);
		return new Response(renderMetrics(sources, store), { headers: { "Content-Type": CONTENT_TYPE, ...NO_STORE } });
	};
}

const NO_STORE = { "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff" } as const;

/** A store that is away must not take the rest of the page with it: that is when somebody looks. */
async function figuresInTime(store: MetricsSources["store"], timeoutMs: number): Promise<StoreFigures> {
	if (!store) return {};
	let timer: ReturnType<typeof setTimeout> | undefined;
	const late = new Promise<StoreFigures>((resolve) => {
		timer = setTimeout(() => resolve({}), timeoutMs);
	});
	const ask = async () => store();
	try {
		return await Promise.race([ask().catch(() => ({})), late]);
	} finally {
		clearTimeout(timer);
	}
}

/** Of equal length whatever the text, so that it can be compared in constant time. */
function digest(text: string): Buffer {
	return createHash("sha256").update(text).digest();
}

function plain(status: number, line: string, headers: Readonly<Record<string, string>>): Response {
	return new Response(`${line}\n`, { status, headers: { ...headers, "Content-Type": "text/plain; charset=utf-8", ...NO_STORE } });
}
