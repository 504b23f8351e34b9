import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ConfigError, configHelp, createConfig, DEFAULTS, parseConfig } from "../src/config.ts";

function problemsOf(run: () => unknown): readonly string[] {
	try {
		run();
	} catch (error) {
		assert.ok(error instanceof ConfigError);
		return error.problems;
	}
	assert.fail("expected a ConfigError");
}

const TLS = { TLS_CERT_FILE: "cert.pem", TLS_KEY_FILE: "key.pem" };

describe("parseConfig", () => {
	it("an empty environment gives the defaults, frozen", () => {
		const config = parseConfig({});
		assert.deepEqual(config, DEFAULTS);
		assert.equal(config.port, 8083);
		assert.equal(config.allowAnonymous, false);
		assert.equal(config.mqttTcpPort, undefined);
		assert.ok(Object.isFrozen(config));
	});

	it("each kind of setting is read from its text", () => {
		const config = parseConfig({
			...TLS,
			HOST: "127.0.0.1",
			PORT: "0",
			WSS_PORT: "8084",
			MQTT_TCP_PORT: "off",
			ALLOW_ANONYMOUS: "TRUE",
			WS_REQUIRE_SUBPROTOCOL: "0",
			MQTT_PIGGYBACK: "Single",
			MAX_SESSION_EXPIRY_SECONDS: "4294967295",
			DATA_DIR: "/srv/a folder",
		});
		assert.equal(config.host, "127.0.0.1");
		assert.equal(config.port, 0);
		assert.equal(config.wssPort, 8084);
		assert.equal(config.mqttTcpPort, undefined);
		assert.equal(config.allowAnonymous, true);
		assert.equal(config.wsRequireSubprotocol, false);
		assert.equal(config.mqttPiggyback, "single");
		assert.equal(config.maxSessionExpirySeconds, 4_294_967_295);
		assert.equal(config.dataDir, "/srv/a folder");
	});

	it("a variable that is empty or only spaces counts as unset, and spaces around a value do not count", () => {
		assert.deepEqual(parseConfig({ PORT: "", LOG_LEVEL: "  ", MAX_INFLIGHT: undefined }), DEFAULTS);
		assert.equal(parseConfig({ PORT: " 9001 " }).port, 9001);
	});

	it("variables that are no settings are ignored", () => {
		assert.deepEqual(parseConfig({ PATH: "/bin", MQTT_UDP_PORT: "1", constructor: "x" }), DEFAULTS);
	});

	it("an error names the variable, the value and what is expected", () => {
		const problems = problemsOf(() => parseConfig({ MAX_PACKET_SIZE: "12 MB" }));
		assert.deepEqual(problems, ['MAX_PACKET_SIZE is "12 MB": expected a whole number of bytes from 128 to 268435460']);
	});

	it("several errors are reported together", () => {
		const run = () => parseConfig({ PORT: "x", LOG_LEVEL: "loud", WS_PATH: "mqtt", ALLOW_ANONYMOUS: "maybe" });
		const problems = problemsOf(run);
		assert.deepEqual(
			problems.map((problem) => problem.split(" ")[0]),
			["PORT", "WS_PATH", "ALLOW_ANONYMOUS", "LOG_LEVEL"],
		);
		assert.throws(run, (error: Error) => problems.every((problem) => error.message.includes(problem)));
	});

	for (const [variable, values] of Object.entries({
		PORT: ["-1", "65536", "1.5", "1e3", "0x10", "8083 8084"],
		RECEIVE_MAXIMUM: ["0", "65536"],
		TOPIC_ALIAS_MAXIMUM: ["65536"],
		MAX_KEEP_ALIVE_SECONDS: ["65536"],
		MAX_SESSION_EXPIRY_SECONDS: ["4294967296"],
		CONNECT_TIMEOUT_SECONDS: ["0"],
		MQTT_TCP_PORT: ["on", "70000"],
		WS_PATH: ["mqtt", "/a?b", "/a b", "/:name", "/*"],
		RESPONSE_INFORMATION: ["reply/#", "reply/+"],
		STORE: ["redis"],
	})) {
		for (const value of values) {
			it(`${variable} "${value}" is refused`, () => {
				const [problem, ...others] = problemsOf(() => parseConfig({ [variable]: value }));
				assert.ok([value, `"${value}"`].some((shown) => problem?.startsWith(`${variable} is ${shown}: expected `)));
				assert.deepEqual(others, []);
			});
		}
	}
});

describe("parseConfig: settings that belong together", () => {
	for (const port of ["WSS_PORT", "MQTT_TLS_PORT"]) {
		it(`${port} needs a certificate and a key`, () => {
			assert.equal(problemsOf(() => parseConfig({ [port]: "8443" })).length, 2);
			assert.match(String(problemsOf(() => parseConfig({ [port]: "8443", TLS_CERT_FILE: "cert.pem" }))), /TLS_KEY_FILE/);
			assert.doesNotThrow(() => parseConfig({ [port]: "8443", ...TLS }));
		});
	}

	it("asking for client certificates needs the authorities", () => {
		assert.match(
			String(problemsOf(() => parseConfig({ ...TLS, MQTT_TLS_PORT: "8883", TLS_CLIENT_CERTIFICATE: "require" }))),
			/TLS_CA_FILE/,
		);
		assert.doesNotThrow(() => parseConfig({ TLS_CLIENT_CERTIFICATE: "require", TLS_CA_FILE: "ca.pem" }));
	});

	it("two listeners cannot have one port, unless each takes any free one", () => {
		assert.deepEqual(
			problemsOf(() => parseConfig({ PORT: "1883", MQTT_TCP_PORT: "1883" })),
			["MQTT_TCP_PORT is 1883: expected another port than PORT"],
		);
		assert.doesNotThrow(() => parseConfig({ PORT: "0", MQTT_TCP_PORT: "0" }));
	});

	it("the buffer of a connection must hold more than the largest packet", () => {
		const equal = { MAX_PACKET_SIZE: "2000", MAX_BUFFERED_BYTES: "2000" };
		assert.match(
			String(problemsOf(() => parseConfig(equal))),
			/MAX_BUFFERED_BYTES is 2000: expected more than MAX_PACKET_SIZE, which is 2000/,
		);
		assert.doesNotThrow(() => parseConfig({ ...equal, MAX_BUFFERED_BYTES: "2001" }));
	});

	it("a burst without a rate is refused", () => {
		assert.match(String(problemsOf(() => parseConfig({ PUBLISH_BURST: "5" }))), /PUBLISH_RATE/);
		assert.equal(parseConfig({ PUBLISH_BURST: "5", PUBLISH_RATE: "2" }).publishBurst, 5);
	});
});

describe("createConfig", () => {
	it("completes what is given with the defaults, frozen", () => {
		const config = createConfig({ port: 0, allowAnonymous: true, mqttTcpPort: undefined });
		assert.deepEqual(config, { ...DEFAULTS, port: 0, allowAnonymous: true });
		assert.ok(Object.isFrozen(config));
	});

	it("values of the wrong type or range are refused by name", () => {
		const wrong: object = { port: "8083", maxInflight: 0, store: "redis" };
		assert.deepEqual(
			problemsOf(() => createConfig(wrong)).map((problem) => problem.split(":")[0]),
			['PORT is "8083"', 'STORE is "redis"', "MAX_INFLIGHT is 0"],
		);
	});

	it("a name that is no setting is refused", () => {
		const wrong: object = { prot: 1883 };
		assert.deepEqual(
			problemsOf(() => createConfig(wrong)),
			['"prot" is not a setting'],
		);
	});

	it("rules between settings hold here, too", () => {
		assert.match(String(problemsOf(() => createConfig({ mqttTlsPort: 8883 }))), /TLS_CERT_FILE/);
	});
});

describe("configHelp", () => {
	it("lists the variable of every setting once, with its default", () => {
		const lines = configHelp().split("\n");
		for (const [key, value] of Object.entries(DEFAULTS)) {
			const variable = key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
			const rows = lines.filter((line) => line.startsWith(`${variable} `));
			assert.equal(rows.length, 1, variable);
			const shown = value === undefined ? "off" : value === "" ? "(empty)" : String(value);
			assert.ok(rows[0]?.slice(variable.length).trim().startsWith(shown), variable);
		}
	});

	it("no default contradicts its own table", () => {
		assert.doesNotThrow(() => createConfig(DEFAULTS));
	});
});
