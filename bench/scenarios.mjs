/**
 * What the benchmark measures: each scenario with its arguments for the generator. Knows no broker and runs nothing.
 */

/**
 * @typedef {"flow" | "latency" | "connect" | "idle"} Kind
 * @typedef {"alone" | "redis" | "replicas"} Shape How many brokers of ours there are: one, one on a Redis, or two on a Redis with
 * the subscribers at the second.
 * @typedef {{ name: string, title: string, kind: Kind, persistent: boolean, shape: Shape, generator: Record<string, string | number> }} Scenario
 */

/**
 * @param {string} name
 * @param {string} title
 * @param {Record<string, string | number>} generator
 * @param {{ kind?: Kind, persistent?: boolean, shape?: Shape }} [rest]
 * @returns {Scenario}
 */
const scenario = (name, title, generator, { kind = "flow", persistent = false, shape = "alone" } = {}) => ({
	name,
	title,
	kind,
	persistent,
	shape,
	generator,
});

/** @param {number} subscribers @param {0 | 1} qos */
const fanOut = (subscribers, qos) =>
	scenario(`fanout${subscribers}-q${qos}`, `fan-out 1→${subscribers}, QoS ${qos}`, { topology: "fan-out", clients: subscribers, qos });

/** @param {0 | 1} qos */
const fanIn = (qos) => scenario(`fanin-q${qos}`, `fan-in 50→1, wildcard, QoS ${qos}`, { topology: "fan-in", clients: 50, qos });

/** @param {0 | 1 | 2} qos */
const pairs = (qos) => scenario(`pairs-q${qos}`, `50 pairs, QoS ${qos}`, { topology: "pairs", clients: 50, qos });

/** @param {number} rate @param {0 | 1} qos */
const latency = (rate, qos) =>
	scenario(
		`latency${rate}-q${qos}`,
		`10 pairs, ${rate.toLocaleString("en")} messages/s, QoS ${qos}`,
		{ topology: "pairs", clients: 10, qos, rate },
		{ kind: "latency" },
	);

/** @param {0 | 1} qos */
const crossReplica = (qos) =>
	scenario(`replicas-q${qos}`, `50 pairs across two replicas, QoS ${qos}`, { topology: "pairs", clients: 50, qos }, { shape: "replicas" });

/** Every scenario, in the order of the tables. @type {readonly Scenario[]} */
export const SCENARIOS = [
	fanOut(100, 0),
	fanOut(100, 1),
	fanOut(1000, 0),
	fanOut(1000, 1),
	fanIn(0),
	fanIn(1),
	pairs(0),
	pairs(1),
	pairs(2),
	scenario("pairs-window1-q0", "50 pairs, window 1, QoS 0", { topology: "pairs", clients: 50, qos: 0, window: 1 }),
	scenario("persistent-q1", "50 persistent pairs on a file, QoS 1", { topology: "pairs", clients: 50, qos: 1 }, { persistent: true }),
	scenario(
		"redis-persistent-q1",
		"50 persistent pairs on Redis, QoS 1",
		{ topology: "pairs", clients: 50, qos: 1 },
		{ persistent: true, shape: "redis" },
	),
	crossReplica(0),
	crossReplica(1),
	latency(1000, 0),
	latency(5000, 1),
	scenario(
		"fair-q0",
		"10 pairs, 1,000 messages/s, QoS 0, beside a flood",
		{ topology: "pairs", clients: 10, qos: 0, rate: 1000, flood: 1 },
		{ kind: "latency" },
	),
	scenario("connect", "10,000 connections at once", { task: "connect", clients: 10_000 }, { kind: "connect" }),
	scenario("idle", "10,000 idle connections, one subscription each", { task: "idle", clients: 10_000 }, { kind: "idle" }),
];

/**
 * The scenarios that a list of names stands for. A name may be the beginning of several.
 * @param {readonly string[]} names
 */
export function selectScenarios(names) {
	for (const name of names) {
		if (SCENARIOS.some((candidate) => candidate.name.startsWith(name))) continue;
		throw new Error(`"${name}" is not a scenario: expected ${SCENARIOS.map((candidate) => candidate.name).join(", ")}`);
	}
	return SCENARIOS.filter((candidate) => names.length === 0 || names.some((name) => candidate.name.startsWith(name)));
}
