/**
 * The settings of a broker: one table with the variable, default, unit and meaning of each, and the frozen `Config` made of
 * them. Knows names and limits only: it reads no file, opens nothing, and gets the environment as an argument.
 *
 * Keys are named by file, so a message may quote the value that it refuses; what can hold a password is marked as secret.
 */

import type { Setting } from "./config/setting.ts";
import { SETTINGS } from "./config/settings.ts";

type Settings = typeof SETTINGS;

/** The settings of a broker, checked and frozen. `undefined` means off. `configHelp` says what each is. */
export type Config = { readonly [Key in keyof Settings]: Settings[Key] extends Setting<infer T> ? T : never };

/** Settings that are not valid. The message names every one, its value and what is expected. */
export class ConfigError extends Error {
	override readonly name = "ConfigError";
	readonly problems: readonly string[];

	constructor(problems: readonly string[]) {
		super(problems.length === 1 ? problems.join() : [`${problems.length} settings are not valid:`, ...problems].join("\n- "));
		this.problems = problems;
	}
}

const entries: readonly (readonly [key: string, setting: Setting<unknown>])[] = Object.entries(SETTINGS);

/** What a `Config` is without any setting given. */
export const DEFAULTS: Config = freeze(new Map(entries.map(([key, setting]) => [key, setting.fallback])));

/**
 * Reads the settings from environment variables. A variable that is unset or empty leaves the default; others are ignored.
 * @throws {ConfigError} with all that is wrong
 */
export function parseConfig(env: Readonly<Record<string, string | undefined>>): Config {
	const given = new Map<string, unknown>();
	for (const [key, setting] of entries) {
		const value = env[setting.variable]?.trim();
		if (value !== undefined && value !== "") given.set(key, setting.read(value));
	}
	return complete(given);
}

/**
 * Completes some settings with the defaults, for programs that embed the broker.
 * @throws {ConfigError} with all that is wrong
 */
export function createConfig(partial: { readonly [Key in keyof Config]?: Config[Key] | undefined }): Config {
	return complete(new Map(Object.entries(partial).filter(([, value]) => value !== undefined)));
}

/** The table of all settings as text, for `--help`. */
export function configHelp(): string {
	const rows = entries.map(([, { variable, fallback, unit, meaning }]) => [variable, shown(fallback), unit, meaning] as const);
	const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => String(row[column]).length)));
	const lines = rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
	return `Settings are environment variables: name, default, unit, meaning.\n\n${lines.join("\n")}\n`;
}

function shown(fallback: unknown): string {
	if (fallback === undefined) return "off";
	return fallback === "" || (Array.isArray(fallback) && fallback.length === 0) ? "(empty)" : String(fallback);
}

function complete(given: ReadonlyMap<string, unknown>): Config {
	const problems: string[] = [];
	for (const key of given.keys()) {
		if (!Object.hasOwn(SETTINGS, key)) problems.push(`"${key}" is not a setting`);
	}
	const values = new Map<string, unknown>();
	for (const [key, setting] of entries) {
		const value = given.has(key) ? given.get(key) : setting.fallback;
		if (!setting.accepts(value)) {
			problems.push(`${setting.variable} is ${setting.secret === true ? "not valid" : quoted(value)}: expected ${setting.expected}`);
		}
		values.set(key, value);
	}
	// Rules between settings make sense only where each one is valid by itself.
	const config = freeze(values);
	if (problems.length === 0) problems.push(...contradictions(config));
	if (problems.length > 0) throw new ConfigError(problems);
	return config;
}

function quoted(value: unknown): string {
	return typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** The keys and the types of the values are those of the table: `complete` checked each of them. */
function freeze(values: ReadonlyMap<string, unknown>): Config {
	return Object.freeze(Object.fromEntries(values)) as Config;
}

function contradictions(config: Config): string[] {
	const problems: string[] = [];
	const listeners = [
		{ variable: "PORT", port: config.port, tls: false },
		{ variable: "WSS_PORT", port: config.wssPort, tls: true },
		{ variable: "MQTT_TCP_PORT", port: config.mqttTcpPort, tls: false },
		{ variable: "MQTT_TLS_PORT", port: config.mqttTlsPort, tls: true },
		{ variable: "METRICS_PORT", port: config.metricsPort, tls: false },
	];
	for (const [index, { variable, port, tls }] of listeners.entries()) {
		if (port === undefined) continue;
		const earlier = port === 0 ? undefined : listeners.slice(0, index).find((other) => other.port === port);
		if (earlier) problems.push(`${variable} is ${port}: expected another port than ${earlier.variable}`);
		if (tls && config.tlsCertFile === undefined) problems.push(`${variable} is ${port}: expected TLS_CERT_FILE to be set, too`);
		if (tls && config.tlsKeyFile === undefined) problems.push(`${variable} is ${port}: expected TLS_KEY_FILE to be set, too`);
	}
	const asked = { TLS_CLIENT_CERTIFICATE: config.tlsClientCertificate, WSS_CLIENT_CERTIFICATE: config.wssClientCertificate };
	for (const [variable, asks] of Object.entries(asked)) {
		if (asks !== "none" && config.tlsCaFile === undefined) problems.push(`${variable} is "${asks}": expected TLS_CA_FILE to be set, too`);
	}
	if (config.maxBufferedBytes <= config.maxPacketSize) {
		problems.push(`MAX_BUFFERED_BYTES is ${config.maxBufferedBytes}: expected more than MAX_PACKET_SIZE, which is ${config.maxPacketSize}`);
	}
	if (config.publishBurst > 0 && config.publishRate === 0) {
		problems.push(`PUBLISH_BURST is ${config.publishBurst}: expected PUBLISH_RATE to be set, too`);
	}
	if (config.clientCertificateHeader !== undefined && config.trustedProxySources.length === 0) {
		problems.push("CLIENT_CERTIFICATE_HEADER is set: expected TRUSTED_PROXY_SOURCES to be set, too, since anybody could send the header");
	}
	return problems;
}
