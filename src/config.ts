/**
 * The settings of a broker: one table with the variable, default, unit and meaning of each, and the frozen `Config` made of
 * them. Knows names and limits only: it reads no file, opens nothing, and gets the environment as an argument.
 *
 * No setting is a secret (keys are named by file), so a message may quote the value that it refuses.
 */

interface Setting<T> {
	/** Environment variable. */
	readonly variable: string;
	readonly fallback: T;
	readonly unit: string;
	readonly meaning: string;
	/** What a value must be, to follow "expected". */
	readonly expected: string;
	/** The value that a text stands for, or the text itself when it stands for none: `accepts` then refuses it. */
	read(text: string): unknown;
	accepts(value: unknown): boolean;
}

type Range = readonly [min: number, max: number];

const DAY_SECONDS = 86_400;
const DIGITS = /^\d+$/;

const readInteger = (text: string): unknown => (DIGITS.test(text) ? Number(text) : text);

const within = (value: unknown, [min, max]: Range): boolean => Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max;

function integer(variable: string, fallback: number, unit: string, range: Range, meaning: string): Setting<number> {
	const expected = `a whole number${unit === "" ? "" : ` of ${unit}`} from ${range[0]} to ${range[1]}`;
	return { variable, fallback, unit, meaning, expected, read: readInteger, accepts: (value) => within(value, range) };
}

function flag(variable: string, fallback: boolean, meaning: string): Setting<boolean> {
	const words = new Map<string, boolean>([
		["true", true],
		["1", true],
		["false", false],
		["0", false],
	]);
	return {
		variable,
		fallback,
		unit: "",
		meaning,
		expected: '"true" or "false"',
		read: (text) => words.get(text.toLowerCase()) ?? text,
		accepts: (value) => typeof value === "boolean",
	};
}

function choice<const T extends string>(variable: string, options: readonly T[], fallback: NoInfer<T>, meaning: string): Setting<T> {
	return {
		variable,
		fallback,
		unit: options.join("|"),
		meaning,
		expected: `one of ${options.map((option) => `"${option}"`).join(", ")}`,
		read: (text) => text.toLowerCase(),
		accepts: (value) => options.some((option) => option === value),
	};
}

function text(variable: string, fallback: string, pattern: RegExp, expected: string, meaning: string): Setting<string> {
	const accepts = (value: unknown): boolean => typeof value === "string" && pattern.test(value);
	return { variable, fallback, unit: "", meaning, expected, read: (value) => value, accepts };
}

/** A listener that is off unless it is given a port. */
function optionalPort(variable: string, meaning: string): Setting<number | undefined> {
	return {
		variable,
		fallback: undefined,
		unit: "",
		meaning,
		expected: 'a port from 0 (any free one) to 65535, or "off"',
		read: (value) => (value.toLowerCase() === "off" ? undefined : readInteger(value)),
		accepts: (value) => value === undefined || within(value, [0, 65_535]),
	};
}

function optionalFile(variable: string, meaning: string): Setting<string | undefined> {
	return {
		variable,
		fallback: undefined,
		unit: "",
		meaning,
		expected: "the path of a file",
		read: (value) => value,
		accepts: (value) => value === undefined || (typeof value === "string" && value !== ""),
	};
}

/** Every setting by its name in {@link Config}. The order is that of `configHelp`. */
const SETTINGS = {
	host: text("HOST", "::", /^[^\s]+$/, "an address or a host name", "Address to listen on; :: is every address, IPv6 and IPv4"),
	port: integer("PORT", 8083, "", [0, 65_535], "Port of HTTP and WebSocket; 0 takes any free one"),
	wsPath: text("WS_PATH", "/mqtt", /^\/[\w.~/-]*$/, 'a path such as "/mqtt"', "Path of the WebSocket"),
	wssPort: optionalPort("WSS_PORT", "Port of HTTPS and secure WebSocket"),
	mqttTcpPort: optionalPort("MQTT_TCP_PORT", "Port of MQTT over TCP, 1883 by custom"),
	mqttTlsPort: optionalPort("MQTT_TLS_PORT", "Port of MQTT over TLS, 8883 by custom"),
	tlsCertFile: optionalFile("TLS_CERT_FILE", "Certificate chain in PEM"),
	tlsKeyFile: optionalFile("TLS_KEY_FILE", "Private key in PEM"),
	tlsCaFile: optionalFile("TLS_CA_FILE", "Authorities in PEM that client certificates are checked against"),
	tlsClientCertificate: choice(
		"TLS_CLIENT_CERTIFICATE",
		["none", "request", "require"],
		"none",
		"Whether a TLS client is asked for a certificate, and refused without",
	),
	wsRequireSubprotocol: flag("WS_REQUIRE_SUBPROTOCOL", true, "Refuses a WebSocket that offers no MQTT subprotocol"),
	wsCompression: flag("WS_COMPRESSION", false, "Offers permessage-deflate to WebSocket clients"),
	wsPingSeconds: integer("WS_PING_SECONDS", 25, "seconds", [0, 3600], "Between WebSocket pings, against idle proxies; 0 sends none"),
	mqttPiggyback: choice("MQTT_PIGGYBACK", ["multiple", "single"], "multiple", "Packets that one WebSocket frame may carry"),
	store: choice("STORE", ["sqlite", "memory"], "sqlite", "Where sessions and messages are kept; memory loses them at exit"),
	dataDir: text("DATA_DIR", "./data", /[^\s]/, "the path of a folder", "Folder of the SQLite store"),
	storeSync: choice("STORE_SYNC", ["normal", "full"], "normal", "full also survives the loss of power, for slower acknowledgements"),
	allowAnonymous: flag("ALLOW_ANONYMOUS", false, "Lets clients in without credentials"),
	logLevel: choice("LOG_LEVEL", ["debug", "info", "warn", "error", "off"], "info", "Least level that is logged"),
	logFormat: choice("LOG_FORMAT", ["text", "json"], "text", "Lines to read, or one JSON object a line"),
	connectTimeoutSeconds: integer("CONNECT_TIMEOUT_SECONDS", 10, "seconds", [1, 3600], "For a client to send its CONNECT"),
	maxPacketSize: integer("MAX_PACKET_SIZE", 1_048_576, "bytes", [128, 268_435_460], "Largest packet that a client may send"),
	maxConnections: integer("MAX_CONNECTIONS", 100_000, "", [1, 10_000_000], "Clients at a time"),
	maxTopicLevels: integer("MAX_TOPIC_LEVELS", 128, "", [1, 32_768], "Levels of a topic or filter"),
	maxSubscriptions: integer("MAX_SUBSCRIPTIONS", 1000, "", [1, 1_000_000], "Subscriptions of a client"),
	receiveMaximum: integer("RECEIVE_MAXIMUM", 1000, "", [1, 65_535], "Publications that a client may have unacknowledged"),
	maxInflight: integer("MAX_INFLIGHT", 256, "", [1, 65_535], "Deliveries that a client may leave unacknowledged"),
	maxQueuedMessages: integer("MAX_QUEUED_MESSAGES", 1000, "", [1, 10_000_000], "Messages waiting in memory for a connected client"),
	logMaxMessages: integer("LOG_MAX_MESSAGES", 100_000, "", [1, 1_000_000_000], "Messages stored for offline clients, for each filter"),
	maxRetainedMessages: integer("MAX_RETAINED_MESSAGES", 1_000_000, "", [0, 1_000_000_000], "Retained messages"),
	maxBufferedBytes: integer("MAX_BUFFERED_BYTES", 4_194_304, "bytes", [1024, 2_147_483_647], "Unsent data of a connection"),
	stallTimeoutSeconds: integer("STALL_TIMEOUT_SECONDS", 30, "seconds", [1, 3600], "That a client may read nothing of what waits for it"),
	publishRate: integer("PUBLISH_RATE", 0, "messages a second", [0, 1_000_000], "That a connection may publish; 0 sets no limit"),
	publishBurst: integer("PUBLISH_BURST", 0, "messages", [0, 1_000_000], "That a connection may publish at once; 0 is PUBLISH_RATE"),
	maxKeepAliveSeconds: integer("MAX_KEEP_ALIVE_SECONDS", 0, "seconds", [0, 65_535], "Longest keep alive; 0 leaves it to the client"),
	maxSessionExpirySeconds: integer(
		"MAX_SESSION_EXPIRY_SECONDS",
		7 * DAY_SECONDS,
		"seconds",
		[0, 4_294_967_295],
		"That a session outlives its connection; 4294967295 is for ever",
	),
	topicAliasMaximum: integer("TOPIC_ALIAS_MAXIMUM", 32, "", [0, 65_535], "Topic aliases in each direction; 0 uses none"),
	sysIntervalSeconds: integer("SYS_INTERVAL_SECONDS", 10, "seconds", [0, DAY_SECONDS], "Between $SYS messages; 0 sends none"),
	drainSeconds: integer("DRAIN_SECONDS", 3, "seconds", [0, 3600], "At shutdown, to tell the clients"),
	responseInformation: text(
		"RESPONSE_INFORMATION",
		"",
		/^[^+#\0]{0,1024}$/,
		"the beginning of a topic, without wildcards",
		"Beginning of the response topics that clients are told to use; empty tells none",
	),
} as const satisfies Record<string, Setting<unknown>>;

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
	return fallback === "" ? "(empty)" : String(fallback);
}

function complete(given: ReadonlyMap<string, unknown>): Config {
	const problems: string[] = [];
	for (const key of given.keys()) {
		if (!Object.hasOwn(SETTINGS, key)) problems.push(`"${key}" is not a setting`);
	}
	const values = new Map<string, unknown>();
	for (const [key, setting] of entries) {
		const value = given.has(key) ? given.get(key) : setting.fallback;
		if (!setting.accepts(value)) problems.push(`${setting.variable} is ${quoted(value)}: expected ${setting.expected}`);
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
	];
	for (const [index, { variable, port, tls }] of listeners.entries()) {
		if (port === undefined) continue;
		const earlier = port === 0 ? undefined : listeners.slice(0, index).find((other) => other.port === port);
		if (earlier) problems.push(`${variable} is ${port}: expected another port than ${earlier.variable}`);
		if (tls && config.tlsCertFile === undefined) problems.push(`${variable} is ${port}: expected TLS_CERT_FILE to be set, too`);
		if (tls && config.tlsKeyFile === undefined) problems.push(`${variable} is ${port}: expected TLS_KEY_FILE to be set, too`);
	}
	if (config.tlsClientCertificate !== "none" && config.tlsCaFile === undefined) {
		problems.push(`TLS_CLIENT_CERTIFICATE is "${config.tlsClientCertificate}": expected TLS_CA_FILE to be set, too`);
	}
	if (config.maxBufferedBytes <= config.maxPacketSize) {
		problems.push(`MAX_BUFFERED_BYTES is ${config.maxBufferedBytes}: expected more than MAX_PACKET_SIZE, which is ${config.maxPacketSize}`);
	}
	if (config.publishBurst > 0 && config.publishRate === 0) {
		problems.push(`PUBLISH_BURST is ${config.publishBurst}: expected PUBLISH_RATE to be set, too`);
	}
	return problems;
}
