/** Reads a CPU profile in the format of V8 and lists the functions with the most time of their own. Runs nothing. */

import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";

const WAITING = new Set(["(idle)"]);

/**
 * The functions that took the most time by themselves, as Markdown; shares are of the time that was not idle.
 * @param {string} folder which holds one profile
 * @param {number} limit
 */
export function topFunctions(folder, limit) {
	const file = readdirSync(folder).find((name) => name.endsWith(".cpuprofile"));
	if (file === undefined) throw new Error("The broker left no CPU profile");
	/** @type {{ nodes: { id: number, callFrame: { functionName: string, url: string, lineNumber: number } }[], samples: number[], timeDeltas: number[] }} */
	const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(join(folder, file), "utf8"));
	const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
	/** @type {Map<string, number>} */
	const times = new Map();
	let total = 0;
	for (const [index, id] of samples.entries()) {
		const name = names.get(id) ?? "?";
		if (WAITING.has(name)) continue;
		const time = timeDeltas[index] ?? 0;
		times.set(name, (times.get(name) ?? 0) + time);
		total += time;
	}
	const sorted = [...times].sort(([, a], [, b]) => b - a).slice(0, limit);
	return sorted.map(([name, time]) => `${((100 * time) / total).toFixed(1).padStart(5)} %  ${name}`).join("\n");
}

/** @param {{ functionName: string, url: string, lineNumber: number }} frame */
function nameOf({ functionName, url, lineNumber }) {
	const name = functionName || "(anonymous)";
	return url === "" ? name : `${name}  ${basename(url)}:${lineNumber + 1}`;
}
