/** Reads a CPU profile in the format of V8 and lists the functions with the most time of their own. Runs nothing. */

import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";

/**
 * @typedef {{ functionName: string, url: string, lineNumber: number }} CallFrame
 * @typedef {{ id: number, callFrame: CallFrame, children?: number[] }} ProfileNode
 */

const IDLE = "(idle)";
const CALLERS = 2;

/**
 * The functions that took the most time by themselves, a line each, built-in ones with who called them most. Shares are of
 * the time that was not idle.
 * @param {string} folder which holds one profile
 * @param {number} limit
 */
export function topFunctions(folder, limit) {
	const file = readdirSync(folder).find((name) => name.endsWith(".cpuprofile"));
	if (file === undefined) throw new Error("The broker left no CPU profile");
	/** @type {{ nodes: ProfileNode[], samples: number[], timeDeltas: number[] }} */
	const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(join(folder, file), "utf8"));
	const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
	const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));

	/** @type {Map<string, { time: number, callers: Map<string, number> }>} */
	const functions = new Map();
	let total = 0;
	for (const [index, id] of samples.entries()) {
		const frame = frames.get(id);
		if (frame === undefined || frame.functionName === IDLE) continue;
		const time = timeDeltas[index] ?? 0;
		total += time;
		const entry = functions.get(nameOf(frame)) ?? { time: 0, callers: new Map() };
		functions.set(nameOf(frame), entry);
		entry.time += time;
		const caller = frame.url === "" ? frames.get(parents.get(id) ?? Number.NaN) : undefined;
		if (caller !== undefined) entry.callers.set(nameOf(caller), (entry.callers.get(nameOf(caller)) ?? 0) + time);
	}
	return topOf(new Map([...functions].map(([name, { time }]) => [name, time])), limit)
		.map(([name, time]) => {
			const callers = topOf(functions.get(name)?.callers ?? new Map(), CALLERS);
			const from = callers.map(([caller, part]) => `${caller} ${percent(part, time).trim()}`).join(", ");
			return `${percent(time, total)}  ${name}${from === "" ? "" : `  from ${from}`}`;
		})
		.join("\n");
}

/** @param {ReadonlyMap<string, number>} times @param {number} limit */
function topOf(times, limit) {
	return [...times].sort(([, a], [, b]) => b - a).slice(0, limit);
}

/** @param {number} part @param {number} whole */
function percent(part, whole) {
	return `${((100 * part) / whole).toFixed(1).padStart(5)} %`;
}

/** @param {CallFrame} frame */
function nameOf({ functionName, url, lineNumber }) {
	const name = functionName || "(anonymous)";
	return url === "" ? name : `${name} ${basename(url)}:${lineNumber + 1}`;
}
