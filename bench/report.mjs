/** Makes tables of results: medians of the rounds, and ratios between brokers. Measures nothing. */

/**
 * @typedef {import("./scenarios.mjs").Scenario} Scenario
 * @typedef {import("./generator.mjs").Result} Result
 * @typedef {{ subject: string, scenario: string, round: number, result: Result }} Run
 * @typedef {{ key: string, title: string }} Column
 * @typedef {{ title: string, kinds: readonly Scenario["kind"][], better: "less" | "more" | "neither", value: (result: Result) => number | undefined }} Figure
 */

const MEGABYTE = 1_000_000;
/** % of a core from which on the generator is no longer waiting for the broker. */
const SATURATED = 90;

/** @type {readonly Figure[]} */
const FIGURES = [
	{ title: "Broker CPU, µs per delivered message", kinds: ["flow", "latency"], better: "less", value: brokerMicros },
	{ title: "Messages delivered per second", kinds: ["flow"], better: "more", value: ({ count, seconds }) => count / seconds },
	{ title: "Latency p50, µs", kinds: ["latency"], better: "less", value: ({ p50 }) => p50 },
	{ title: "Latency p99, µs", kinds: ["latency"], better: "less", value: ({ p99 }) => p99 },
	{ title: "Latency p99.9, µs", kinds: ["latency"], better: "less", value: ({ p999 }) => p999 },
	{ title: "Broker CPU, µs per connection", kinds: ["connect"], better: "less", value: brokerMicros },
	{ title: "Connections per second", kinds: ["connect"], better: "more", value: ({ count, seconds }) => count / seconds },
	{ title: "RSS, bytes per idle connection", kinds: ["idle"], better: "less", value: ({ bytesPerConnection }) => bytesPerConnection },
	{
		title: "RSS at the end, MB",
		kinds: ["flow", "latency", "connect", "idle"],
		better: "less",
		value: ({ rssBytes }) => rssBytes / MEGABYTE,
	},
	{ title: "Packets per frame received", kinds: ["flow"], better: "neither", value: ({ packetsPerFrame }) => packetsPerFrame },
	{
		title: "Broker busy, % of a core",
		kinds: ["flow", "connect"],
		better: "neither",
		value: (result) => share(result.brokerCpuSeconds, result),
	},
	{
		title: "Generator busy, % of a core",
		kinds: ["flow"],
		better: "neither",
		value: (result) => share(result.generatorCpuSeconds, result),
	},
	{
		title: "Generator CPU, µs per message",
		kinds: ["flow"],
		better: "neither",
		value: ({ generatorCpuSeconds, count }) => micros(generatorCpuSeconds, count),
	},
];

/** @param {Result} result */
function brokerMicros({ brokerCpuSeconds, count }) {
	return micros(brokerCpuSeconds, count);
}

/** @param {number} seconds @param {number} count */
function micros(seconds, count) {
	return count > 0 ? (seconds * 1e6) / count : undefined;
}

/** @param {number} cpuSeconds @param {Result} result */
function share(cpuSeconds, { seconds }) {
	return (100 * cpuSeconds) / seconds;
}

/**
 * All tables as Markdown, with the ratio of each pair of columns.
 * @param {readonly Run[]} runs
 * @param {readonly Scenario[]} scenarios
 * @param {readonly Column[]} columns
 * @param {readonly { ours: Column, peer: Column }[]} pairs
 */
export function tables(runs, scenarios, columns, pairs) {
	return FIGURES.map((figure) => {
		const ratios = figure.better === "neither" ? [] : pairs;
		const rows = scenarios
			.filter((scenario) => figure.kinds.includes(scenario.kind))
			.map((scenario) => {
				const medians = new Map(columns.map(({ key }) => [key, medianOf(runs, scenario, key, figure)]));
				const cells = columns.map(({ key }) => shown(medians.get(key)));
				const quotients = ratios.map(({ peer, ours }) => times(medians.get(peer.key), medians.get(ours.key), figure.better));
				return [scenario.title, ...cells, ...quotients];
			});
		if (rows.length === 0) return "";
		const head = ["", ...columns.map(({ title }) => title), ...ratios.map(({ peer, ours }) => `${ours.title} : ${peer.title}`)];
		return `### ${figure.title}\n\n${markdown([head, ...rows])}\n`;
	})
		.filter((table) => table !== "")
		.join("\n");
}

/** What went wrong, a line each. @param {readonly Run[]} runs */
export function problems(runs) {
	return runs.flatMap(({ subject, scenario, round, result }) =>
		result.problems.map((problem) => `${scenario}, ${subject}, round ${round}: ${problem}`),
	);
}

/** The runs in which the load generator had no time left, a line each: they say less of the broker than they seem to. @param {readonly Run[]} runs */
export function bottlenecks(runs) {
	return runs
		.filter(({ result }) => result.problems.length === 0 && share(result.generatorCpuSeconds, result) > SATURATED)
		.map(({ subject, scenario, round, result }) => {
			return `${scenario}, ${subject}, round ${round}: ${Math.round(share(result.generatorCpuSeconds, result))} % busy`;
		});
}

/** @param {readonly Run[]} runs @param {Scenario} scenario @param {string} subject @param {Figure} figure */
function medianOf(runs, scenario, subject, figure) {
	const sorted = runs
		.filter((run) => run.scenario === scenario.name && run.subject === subject && run.result.problems.length === 0)
		.map(({ result }) => figure.value(result))
		.filter((value) => value !== undefined)
		.sort((a, b) => a - b);
	const middle = sorted.length / 2;
	const [low, high] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]];
	return low === undefined || high === undefined ? undefined : (low + high) / 2;
}

/** How many times better we are. @param {number | undefined} theirs @param {number | undefined} ours @param {Figure["better"]} better */
function times(theirs, ours, better) {
	if (theirs === undefined || ours === undefined || theirs <= 0 || ours <= 0) return "–";
	const ratio = better === "less" ? theirs / ours : ours / theirs;
	return `${ratio.toFixed(ratio < 1 ? 2 : 1)} ×`;
}

/** @param {number | undefined} value */
function shown(value) {
	if (value === undefined) return "–";
	return Math.abs(value) < 100 ? value.toFixed(Math.abs(value) < 10 ? 2 : 1) : Math.round(value).toLocaleString("en");
}

/** @param {readonly (readonly string[])[]} rows */
function markdown([head = [], ...rows]) {
	const rule = head.map((_, index) => (index === 0 ? "---" : "---:"));
	return [head, rule, ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}
