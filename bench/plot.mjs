/**
 * Draws the results of a benchmark: `node bench/plot.mjs results.json folder`, with what `npm run bench -- --json results.json`
 * wrote. One SVG for each figure that is compared, bars on a logarithmic scale. Measures nothing.
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { SCENARIOS } from "./scenarios.mjs";

/** @typedef {import("./report.mjs").Run} Run */

const COLOURS = new Map([
	["bun", "#d9467a"],
	["deno", "#3b82c4"],
	["mosquitto", "#7d7d7d"],
	["aedes", "#c99a2e"],
]);
const TITLES = new Map([
	["bun", "Shoal on Bun"],
	["deno", "Shoal on Deno"],
	["mosquitto", "Mosquitto"],
	["aedes", "Aedes"],
]);
const BAR = 12;
const GAP = 14;
const LEFT = 300;
const WIDTH = 900;

const PLOTS = [
	{
		file: "cpu_per_message.svg",
		title: "Broker CPU per delivered message, µs (less is better)",
		kinds: ["flow"],
		value: (/** @type {Run["result"]} */ { brokerCpuSeconds, count }) => (brokerCpuSeconds * 1e6) / count,
	},
	{
		file: "messages_per_second.svg",
		title: "Messages delivered per second on one core (more is better)",
		kinds: ["flow"],
		value: (/** @type {Run["result"]} */ { seconds, count }) => count / seconds,
	},
];

const [source, folder] = process.argv.slice(2);
if (source === undefined || folder === undefined) {
	console.error("Usage: node bench/plot.mjs results.json folder");
	process.exit(1);
}
/** @type {readonly Run[]} */
const runs = JSON.parse(readFileSync(source, "utf8"));
mkdirSync(folder, { recursive: true });
for (const plot of PLOTS) writeFileSync(join(folder, plot.file), draw(plot));

/** @param {(typeof PLOTS)[number]} plot */
function draw({ title, kinds, value }) {
	const subjects = [...COLOURS.keys()].filter((key) => runs.some(({ subject }) => subject === key));
	const rows = SCENARIOS.filter(({ name, kind }) => kinds.includes(kind) && runs.some(({ scenario }) => scenario === name)).map(
		(scenario) => ({
			title: scenario.title,
			bars: subjects.flatMap((subject) => {
				const median = medianOf(
					runs.filter((run) => run.scenario === scenario.name && run.subject === subject).map(({ result }) => value(result)),
				);
				return median === undefined ? [] : [{ subject, median }];
			}),
		}),
	);
	const all = rows.flatMap(({ bars }) => bars.map(({ median }) => median));
	const low = 10 ** Math.floor(Math.log10(Math.min(...all)));
	const high = 10 ** Math.ceil(Math.log10(Math.max(...all)));
	const x = (/** @type {number} */ amount) => LEFT + ((WIDTH - LEFT - 80) * Math.log(amount / low)) / Math.log(high / low);
	let y = 64;
	const parts = [];
	for (const { title: name, bars } of rows) {
		parts.push(text(LEFT - 10, y + (bars.length * BAR) / 2 + 4, name, "end"));
		for (const { subject, median } of bars) {
			parts.push(
				`<rect x="${LEFT}" y="${y}" width="${(x(median) - LEFT).toFixed(1)}" height="${BAR - 2}" fill="${COLOURS.get(subject)}"/>`,
			);
			parts.push(text(x(median) + 5, y + BAR - 3, shown(median), "start", 10));
			y += BAR;
		}
		y += GAP;
	}
	const lines = [];
	for (let at = low; at <= high; at *= 10) {
		lines.push(
			`<line x1="${x(at)}" y1="56" x2="${x(at)}" y2="${y}" stroke="#999" stroke-opacity="0.35"/>`,
			text(x(at), 50, shown(at), "middle", 10),
		);
	}
	const legend = subjects.map((subject, n) => {
		const at = LEFT + n * 130;
		return `<rect x="${at}" y="${y + 6}" width="10" height="10" fill="${COLOURS.get(subject)}"/>${text(at + 15, y + 15, TITLES.get(subject) ?? subject, "start")}`;
	});
	// A grey that can be read on white and on black: pages have either.
	return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + 30}" font-family="system-ui, sans-serif" fill="#888">
<title>${title}</title>
${text(10, 22, title, "start", 15)}
${[...lines, ...parts, ...legend].join("\n")}
</svg>
`;
}

/** @param {number} x @param {number} y @param {string} content @param {"start" | "middle" | "end"} anchor */
function text(x, y, content, anchor, size = 12) {
	return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" font-size="${size}">${content}</text>`;
}

/** @param {readonly number[]} values */
function medianOf(values) {
	const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
	return sorted[Math.floor(sorted.length / 2)];
}

/** @param {number} value */
function shown(value) {
	return value < 10 ? String(Number(value.toPrecision(2))) : Math.round(value).toLocaleString("en");
}
