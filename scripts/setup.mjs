/**
 * Makes a fresh clone runnable: the packages, the two runtimes among them, and the programs that the tests talk to.
 * Does only what is missing. Runs on plain Node 20, because nothing else is there yet.
 */

import { spawnSync } from "node:child_process";
import { existsSync, lstatSync, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** Folder of the repository. */
export const root = fileURLToPath(new URL("..", import.meta.url));

/** Programs that the tests start, each under the names or the path that it may have, with the Debian package that brings it. */
const TOOLS = [
	{ commands: ["redis-server"], debian: "redis-server" },
	{ commands: ["mosquitto"], debian: "mosquitto" },
	{ commands: ["mosquitto_pub"], debian: "mosquitto-clients" },
	{ commands: ["chromium", "chromium-browser", "google-chrome"], debian: "chromium" },
	{ commands: ["openssl"], debian: "openssl" },
	{ commands: ["curl"], debian: "curl" },
	{ commands: ["promtool"], debian: "prometheus" },
	{ commands: ["haproxy"], debian: "haproxy" },
	{ commands: ["nginx"], debian: "nginx" },
	{ commands: ["/usr/lib/nginx/modules/ngx_stream_module.so"], debian: "libnginx-mod-stream" },
	{ commands: ["caddy"], debian: "caddy" },
	{ commands: ["systemd-analyze"], debian: "systemd" },
	{ commands: ["faketime"], debian: "faketime" },
];
const PAHO = "python3-paho-mqtt";

/** Installs the packages when they are missing or older than the lock file, and completes the runtimes. Throws with the remedy. */
export function installPackages() {
	const lock = statSync(join(root, "package-lock.json"));
	const installed = statSync(join(root, "node_modules/.package-lock.json"), { throwIfNoEntry: false });
	if (installed === undefined || installed.mtimeMs < lock.mtimeMs) {
		// npm ci would empty the folder that the link points to, which belongs to another copy of the repository.
		if (lstatSync(join(root, "node_modules"), { throwIfNoEntry: false })?.isSymbolicLink()) {
			throw new Error("node_modules is a link and older than package-lock.json: run npm ci where it points to, or remove the link");
		}
		console.error("Installing packages (npm ci)");
		const npm = process.env.npm_execpath;
		const [command, ...args] = npm === undefined ? ["npm"] : [process.execPath, npm];
		run(command, [...args, "ci", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]);
	}
	// Newer versions of npm do not run the install scripts of packages. Both put their binary in place, from packages that are already here.
	if (!answers("bun")) run(process.execPath, [join(root, "node_modules/bun/install.js")]);
	if (!existsSync(join(root, "node_modules/deno/deno"))) run(process.execPath, [join(root, "node_modules/deno/install.cjs")]);
	for (const name of ["bun", "deno"]) {
		if (!answers(name)) throw new Error(`node_modules/.bin/${name} does not run: delete node_modules and start again`);
	}
}

/**
 * Installs the programs that the tests need and that are missing, through apt-get.
 * @returns {string[]} what is still missing, by Debian package
 */
export function installTools() {
	const missing = missingTools();
	if (missing.length === 0) return [];
	const sudo = process.getuid?.() === 0 ? [] : ["sudo", "-n"];
	const [command = "", ...args] = [...sudo, "apt-get"];
	if (!onPath("apt-get") || (sudo.length > 0 && !onPath("sudo"))) return missing;
	console.error(`Installing ${missing.join(", ")} (apt-get)`);
	const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
	const install = () => spawnSync(command, [...args, "install", "-y", "--no-install-recommends", ...missing], { env, stdio: "ignore" });
	// The lists of a fresh image are empty or old.
	if (install().status !== 0 && spawnSync(command, [...args, "update"], { env, stdio: "ignore" }).status === 0) install();
	return missingTools();
}

function missingTools() {
	const missing = TOOLS.filter((tool) => !tool.commands.some(onPath)).map((tool) => tool.debian);
	// Debian's own Python: another one that comes first on PATH does not see Debian's packages.
	const paho = spawnSync("/usr/bin/python3", ["-c", "import paho.mqtt.client"], { stdio: "ignore" });
	return paho.status === 0 ? missing : [...missing, PAHO];
}

/** @param {string} command */
function onPath(command) {
	if (isAbsolute(command)) return existsSync(command);
	const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin"];
	return folders.some((folder) => existsSync(join(folder, command)));
}

/** @param {string} name */
function answers(name) {
	return spawnSync(join(root, "node_modules/.bin", name), ["--version"], { stdio: "ignore" }).status === 0;
}

/**
 * @param {string} command
 * @param {string[]} args
 */
function run(command, args) {
	// Standard output belongs to the caller: `npm start` reads it.
	const { status, error } = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2] });
	if (status !== 0) throw new Error(`"${[command, ...args].join(" ")}" failed: ${error?.message ?? "see above"}`);
}
