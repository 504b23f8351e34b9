/**
 * `npm run docs`: writes the parts of the documentation that stand elsewhere already: `docs/configuration.md` from the table of all
 * settings, and the figures for sizing in `docs/operating.md` from `docs/performance.md`. A test says when they are old; it writes nothing.
 */

import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { root } from "./setup.mjs";

/**
 * @typedef {{ variable: string, fallback?: unknown, unit: string, meaning: string, expected: string, secret?: boolean }} SettingRow
 */

/** Of `docs/configuration.md`. A section begins with the setting `from` and ends before the next one, in the order of the table. */
const SECTIONS = [
	{ from: "HOST", title: "Addresses and ports", words: "What each port is for: [connecting.md](connecting.md)." },
	{ from: "TLS_CERT_FILE", title: "TLS", words: "How to get certificates, and what a proxy does better: [tls.md](tls.md)." },
	{ from: "WS_REQUIRE_SUBPROTOCOL", title: "WebSocket", words: "" },
	{
		from: "REDIS_URL",
		title: "Many replicas on one Redis",
		words: "Forms of the address, and what each durability promises: [clustering.md](clustering.md).",
	},
	{
		from: "STORE",
		title: "The store of a single broker",
		words: "Without `REDIS_URL` only. Backup and restore: [operating.md](operating.md#backup-and-restore).",
	},
	{ from: "JWT_SECRET", title: "Tokens (JWT)", words: "How they are checked and renewed: [authentication.md](authentication.md#tokens)." },
	{
		from: "PASSWORD_FILE",
		title: "Passwords, certificates, a service of your own",
		words: "See [authentication.md](authentication.md).",
	},
	{ from: "ACL_FILE", title: "Rights", words: "Who may publish and subscribe to what: [authorization.md](authorization.md)." },
	{ from: "ADMIN_TOKEN", title: "Administration", words: "See [admin-api.md](admin-api.md)." },
	{
		from: "ALLOWED_ORIGINS",
		title: "The door",
		words: "What is decided before MQTT has a word: pages, proxies in front, rates, tokens in the WebSocket request.",
	},
	{ from: "METRICS_PORT", title: "Metrics", words: "What they say, and what to be woken for: [operating.md](operating.md#metrics)." },
	{
		from: "ALLOW_ANONYMOUS",
		title: "Clients without credentials",
		words: "See [authentication.md](authentication.md#without-credentials).",
	},
	{ from: "LOG_LEVEL", title: "Log", words: "On standard error, a line for each entry: [operating.md](operating.md#log)." },
	{
		from: "CONNECT_TIMEOUT_SECONDS",
		title: "Limits",
		words:
			"Everything that a stranger can make grow has one, and answers with an MQTT reason code: [connecting.md](connecting.md#reason-codes).",
	},
	{ from: "SYS_INTERVAL_SECONDS", title: "Running", words: "Shutdown step by step: [operating.md](operating.md#draining)." },
];

const HEAD = `# Configuration

<!-- Written by "npm run docs" from src/config/settings.ts. Change it there. -->

Settings are environment variables. One that is unset or empty has its default. A value that cannot be taken ends the start with exit
code 1 and a message that names every setting that is wrong, what it is and what is expected; so do settings that contradict each other.

\`node_modules/.bin/bun server.ts --help\` in a clone, or \`npx shoal --help\` where it is installed, prints the same table. A program that
embeds the broker gives the same settings to \`createBroker\` in camel case (\`MQTT_TCP_PORT\` is \`mqttTcpPort\`); what is wrong there is a
\`ConfigError\`.

Yes and no are \`true\` and \`false\`, or \`1\` and \`0\`. Files are read at the start; those with users and rules again when they change.
The value of a setting that may hold a password (*secret*) is never printed.
`;

const RULES = `
## Rules between settings

- No two listeners have the same port, unless it is 0.
- \`WSS_PORT\` and \`MQTT_TLS_PORT\` need \`TLS_CERT_FILE\` and \`TLS_KEY_FILE\`.
- \`TLS_CLIENT_CERTIFICATE\` and \`WSS_CLIENT_CERTIFICATE\` other than \`none\` need \`TLS_CA_FILE\`.
- \`MAX_BUFFERED_BYTES\` is more than \`MAX_PACKET_SIZE\`: a packet that may be received must fit into what may wait.
- \`PUBLISH_BURST\` needs \`PUBLISH_RATE\`.
- \`CLIENT_CERTIFICATE_HEADER\` needs \`TRUSTED_PROXY_SOURCES\`, since anybody could send the header.
`;

/**
 * The reference of the settings in Markdown.
 * @param {readonly SettingRow[]} settings in the order of the table
 */
export function renderConfiguration(settings) {
	const missing = SECTIONS.filter(({ from }) => !settings.some(({ variable }) => variable === from));
	if (missing.length > 0) throw new Error(`No setting ${missing.map(({ from }) => from).join(", ")} begins a section: see SECTIONS`);
	const lines = [HEAD];
	for (const setting of settings) {
		const section = SECTIONS.find(({ from }) => from === setting.variable);
		if (section !== undefined) {
			lines.push(`\n## ${section.title}\n\n`);
			if (section.words !== "") lines.push(`${section.words}\n\n`);
			lines.push("| variable | default | value | meaning |\n| --- | --- | --- | --- |\n");
		}
		const cells = [`\`${setting.variable}\``, shownDefault(setting), shownValue(setting), setting.meaning];
		lines.push(`| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |\n`);
	}
	return `${lines.join("")}${RULES}`;
}

/** @param {SettingRow} setting */
function shownDefault({ fallback }) {
	if (fallback === undefined) return "off";
	if (fallback === "" || (Array.isArray(fallback) && fallback.length === 0)) return "empty";
	return `\`${fallback}\``;
}

/** @param {SettingRow} setting */
function shownValue({ expected, secret }) {
	const value = expected.replaceAll(/"([^"]*)"/g, "`$1`");
	return secret === true ? `*secret*, ${value}` : value;
}

/** Rows for sizing: what they are called, and where the figures of Bun and Deno stand. `show` makes text of a figure. */
const SIZING = [
	{
		name: "memory with 10,000 idle connections, one subscription each",
		table: "RSS at the end, MB",
		row: "10,000 idle",
		show: (/** @type {number} */ mb) => `${mb} MB`,
	},
	{ name: "of which each connection", table: "RSS, bytes per idle connection", row: "10,000 idle", show: kilobytes },
	{ name: "processor time for a new connection", table: "Broker CPU, µs per connection", row: "10,000 connections", show: microseconds },
	{
		name: "processor time for a delivered message, 50 pairs, 16 under way each: QoS 0",
		table: "Broker CPU, µs per delivered message",
		row: "50 pairs, QoS 0",
		show: microseconds,
	},
	{ name: "QoS 1", table: "Broker CPU, µs per delivered message", row: "50 pairs, QoS 1", show: microseconds },
	{ name: "QoS 2", table: "Broker CPU, µs per delivered message", row: "50 pairs, QoS 2", show: microseconds },
	{
		name: "QoS 1, persistent sessions on a file",
		table: "Broker CPU, µs per delivered message",
		row: "50 persistent pairs",
		show: microseconds,
	},
	{
		name: "one message at a time, 5,000 a second, QoS 1",
		table: "Broker CPU, µs per delivered message",
		row: "10 pairs, 5,000",
		show: microseconds,
	},
];

const SIZING_PLACE = /(<!-- sizing: [^>]* -->\n)[\s\S]*?(<!-- end of sizing -->)/;

/**
 * A figure of `docs/performance.md`.
 * @param {string} performance the page
 * @param {string} table heading of the section
 * @param {string} row beginning of the first cell
 * @param {string} column
 */
export function figure(performance, table, row, column) {
	const section = performance.split(/^### /m).find((part) => part.startsWith(`${table}\n`)) ?? "";
	const cells = section.split("\n").flatMap((line) => (line.startsWith("|") ? [line.split("|").map((cell) => cell.trim())] : []));
	const at = cells[0]?.indexOf(column) ?? -1;
	const text = cells.find(([, first = ""]) => first.startsWith(row))?.[at];
	const value = Number(text?.replaceAll(",", "").replace(/ ×$/, ""));
	if (at < 0 || text === undefined || Number.isNaN(value))
		throw new Error(`docs/performance.md has no figure "${row}" of ${column} in "${table}"`);
	return value;
}

/**
 * `docs/operating.md` with the figures for sizing as they are now.
 * @param {string} operating the page
 * @param {string} performance
 */
export function renderSizing(operating, performance) {
	if (!SIZING_PLACE.test(operating)) throw new Error("docs/operating.md has no place for the figures");
	const values = SIZING.map(({ table, row }) => ["Bun", "Deno"].map((column) => figure(performance, table, row, column)));
	const rows = SIZING.map(({ name, show }, index) => `| ${[name, ...(values[index] ?? []).map(show)].join(" | ")} |`);
	const onBun = values.map(([bun = 0]) => bun);
	const [idleMb = 0, connectionBytes = 0, connectMicros = 0] = onBun;
	const singleMicros = onBun.at(-1) ?? 0;
	const baseMb = Math.round(idleMb - connectionBytes / 100);
	const text = `Figures are those of [performance.md](performance.md): medians on one core of a virtual machine, with 64-byte payloads. They differ by 20 % and more
between machines, so measure on yours before you buy: \`npm run bench\`.

| what | Bun | Deno |
| --- | ---: | ---: |
${rows.join("\n")}

The last row is what to reckon with where messages come one by one: most of it is the price of waking up, and it falls as the load grows.

A reckoning with these, on Bun: 50,000 devices that each publish with QoS 1 every ten seconds are 5,000 messages a second. At ${microseconds(singleMicros)} that is
${Math.round(singleMicros / 2)} % of a core, and 50,000 × ${kilobytes(connectionBytes)} + ${baseMb} MB are ${Math.round((50_000 * connectionBytes) / 1e6 + baseMb)} MB. If all of them come back at once, their connections alone take
${((50_000 * connectMicros) / 1e6).toFixed(1)} s of a core (50,000 × ${microseconds(connectMicros)}), TLS not included: leave room, or set \`CONNECT_RATE\`.
`;
	return operating.replace(SIZING_PLACE, (_, begin, end) => `${begin}${text}${end}`);
}

/** @param {number} bytes */
function kilobytes(bytes) {
	return `${(bytes / 1000).toFixed(1)} KB`;
}

/** @param {number} value */
function microseconds(value) {
	return `${value < 10 ? value.toFixed(1) : Math.round(value)} µs`;
}

/** The table comes from a runtime that reads TypeScript. @returns {SettingRow[]} */
function readSettings() {
	const program = 'import { SETTINGS } from "./src/config/settings.ts"; console.log(JSON.stringify(Object.values(SETTINGS)))';
	const { status, stdout, stderr } = spawnSync(join(root, "node_modules/.bin/bun"), ["-e", program], { cwd: root, encoding: "utf8" });
	if (status !== 0) throw new Error(`Cannot read src/config/settings.ts; without packages, run npm ci first:\n${stderr}`);
	return JSON.parse(stdout);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
	const [operating, performance] = ["docs/operating.md", "docs/performance.md"].map((page) => readFileSync(join(root, page), "utf8"));
	writeFileSync(join(root, "docs/configuration.md"), renderConfiguration(readSettings()));
	writeFileSync(join(root, "docs/operating.md"), renderSizing(operating ?? "", performance ?? ""));
}
