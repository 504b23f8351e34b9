/**
 * The brokers that are measured: how each is started so that nothing but its own work limits it. All of them listen for
 * WebSockets on a free port of the loopback interface, keep everything in memory unless a scenario asks for a file, and know
 * no authentication. Measures nothing.
 */

import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { end, findProgram, freePort, listening, removeFolder, run, start, temporaryFolder } from "./processes.mjs";

/**
 * @typedef {import("./scenarios.mjs").Scenario} Scenario
 * @typedef {{ port: number, pid: number, subscriberPort?: number, otherPid?: number, stop: () => Promise<string> }} Running
 * `stop` answers the last line that the broker logged, empty as a rule.
 * @typedef {{ core: number | undefined, profiles?: string | undefined }} StartOptions
 * `profiles` is a folder for a CPU profile, which is there after `stop`.
 * @typedef {{ key: string, title: string, clusters?: boolean, start: (scenario: Scenario, options: StartOptions) => Promise<Running> }} Subject
 */

const root = fileURLToPath(new URL("..", import.meta.url));
const AEDES_PACKAGES = ["aedes@1.2.0", "ws@8.23.0"];

/** Higher than any scenario reaches. */
const LIMITS = {
	MAX_INFLIGHT: "65535",
	RECEIVE_MAXIMUM: "65535",
	MAX_QUEUED_MESSAGES: "10000000",
	LOG_MAX_MESSAGES: "1000000000",
	MAX_BUFFERED_BYTES: "1073741824",
	MAX_CONNECTIONS: "1000000",
};

/**
 * Shoal on a runtime, from this folder or from another copy of the repository.
 * @param {"bun" | "deno"} runtime
 * @param {string} [folder]
 * @returns {Subject}
 */
export function shoal(runtime, folder) {
	const title = runtime === "bun" ? "Bun" : "Deno";
	const home = folder ?? root;
	const binary = join(root, "node_modules/.bin", runtime);
	for (const name of ["server.ts", "node_modules"]) {
		if (!existsSync(join(home, name))) throw new Error(`"${home}" has no ${name}: expected a copy of the repository, with its packages`);
	}
	return {
		key: folder === undefined ? runtime : `${runtime}-before`,
		title: folder === undefined ? title : `${title}, before`,
		clusters: true,
		start: async (scenario, { core, profiles }) => {
			const redis = scenario.shape === "alone" ? undefined : await startRedis();
			const port = await freePort();
			const data = temporaryFolder();
			const profile = profiles === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profiles}`];
			const args = runtime === "bun" ? profile : ["run", "-A", ...profile];
			const env = {
				...LIMITS,
				HOST: "127.0.0.1",
				...(redis === undefined ? { STORE: scenario.persistent ? "sqlite" : "memory" } : { REDIS_URL: `redis://127.0.0.1:${redis.port}` }),
				DATA_DIR: data,
				LOG_LEVEL: "error",
				SYS_INTERVAL_SECONDS: "0",
				DRAIN_SECONDS: "0",
				WS_PING_SECONDS: "0",
			};
			const run = (/** @type {number} */ at) =>
				supervise(title, start([binary, ...args, "server.ts"], { core, env: { ...env, PORT: String(at) }, cwd: home }), at, data);
			const first = await run(port);
			if (redis === undefined) return first;
			const second = scenario.shape === "replicas" ? await run(await freePort()) : undefined;
			const stop = async () => {
				const complaints = [await first.stop(), (await second?.stop()) ?? ""];
				await redis.stop();
				return complaints.find((complaint) => complaint !== "") ?? "";
			};
			return { ...first, ...(second !== undefined && { subscriberPort: second.port, otherPid: second.pid }), stop };
		},
	};
}

/** A Redis of our own, with the repository's configuration, but writing to disk once a second: the disk is not what is measured. */
async function startRedis() {
	const program = findProgram("redis-server");
	if (program === undefined) throw new Error("redis-server is not installed: apt-get install redis-server");
	const port = await freePort();
	const data = temporaryFolder();
	const address = ["--bind", "127.0.0.1", "--port", String(port), "--dir", data, "--appendfsync", "everysec"];
	return supervise("Redis", start([program, join(root, "redis.conf"), ...address]), port, data);
}

/** @returns {Subject} */
export function mosquitto() {
	const program = findProgram("mosquitto");
	if (program === undefined) throw new Error("mosquitto is not installed: apt-get install mosquitto, or leave it out with --peers");
	return {
		key: "mosquitto",
		title: "Mosquitto",
		start: async (scenario, { core }) => {
			const [plain, port] = [await freePort(), await freePort()];
			const data = temporaryFolder();
			const lines = [
				"allow_anonymous true",
				`persistence ${scenario.persistent}`,
				`persistence_location ${data}/`,
				"log_type error",
				"sys_interval 0",
				"max_inflight_messages 0",
				"max_queued_messages 0",
				"set_tcp_nodelay true",
				// As root it would become another user, who cannot read the folder.
				...(process.getuid?.() === 0 ? ["user root"] : []),
				// 2.0 does not start with a WebSocket listener alone.
				`listener ${plain} 127.0.0.1`,
				`listener ${port} 127.0.0.1`,
				"protocol websockets",
				"socket_domain ipv4",
			];
			const file = join(data, "mosquitto.conf");
			writeFileSync(file, `${lines.join("\n")}\n`);
			return supervise("Mosquitto", start([program, "-c", file], { core }), port, data);
		},
	};
}

/** Aedes on Node, installed into a temporary folder for this run. @returns {Promise<Subject>} */
export async function aedes() {
	const folder = temporaryFolder();
	const npm = process.env.npm_execpath;
	const command = npm?.endsWith(".js") ? [process.execPath, npm] : ["npm"];
	const install = [...command, "install", "--prefix", folder, "--no-audit", "--no-fund", "--loglevel=error", ...AEDES_PACKAGES];
	const { status, stderr } = await run(install, { timeoutMs: 120_000 });
	if (status !== 0) throw new Error(`Aedes cannot be installed: ${stderr.trim()}`);
	const program = fileURLToPath(new URL("aedes.mjs", import.meta.url));
	return {
		key: "aedes",
		title: "Aedes",
		start: async (_scenario, { core }) => {
			const port = await freePort();
			return supervise("Aedes", start([process.execPath, program, folder, String(port)], { core }), port, undefined);
		},
	};
}

/**
 * @param {string} name
 * @param {ReturnType<typeof start>} started
 * @param {number} port
 * @param {string | undefined} folder
 * @returns {Promise<Running>}
 */
async function supervise(name, started, port, folder) {
	const stop = async () => {
		await end(started);
		if (folder !== undefined) removeFolder(folder);
		return `${started.said.stdout}${started.said.stderr}`.trim().split("\n").at(-1) ?? "";
	};
	try {
		return { port, pid: await listening(started, port, name), stop };
	} catch (error) {
		await stop();
		throw error;
	}
}
