import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { decideUpgrade, refusalResponse, type UpgradeDecision } from "../../src/transport/upgrade.ts";

const GOOD: Readonly<Record<string, string>> = {
	Upgrade: "websocket",
	Connection: "Upgrade",
	"Sec-WebSocket-Version": "13",
	"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	"Sec-WebSocket-Protocol": "mqtt",
};

/** Decides on a good request with some headers in place of its own; an empty one is left out. */
function decide(headers: Readonly<Record<string, string>> = {}, { method = "GET", requireSubprotocol = true } = {}): UpgradeDecision {
	const all = Object.entries({ ...GOOD, ...headers }).filter(([, value]) => value !== "");
	return decideUpgrade({ method, headers: new Headers(all) }, { requireSubprotocol });
}

function assertRefused(decision: UpgradeDecision, status: number): UpgradeDecision & { kind: "refuse" } {
	if (decision.kind !== "refuse") assert.fail("accepted");
	assert.equal(decision.status, status);
	assert.ok(!decision.message.includes("\n"));
	return decision;
}

describe("decideUpgrade", () => {
	for (const [offered, chosen] of [
		["mqtt", "mqtt"],
		["mqttv3.1", "mqttv3.1"],
		["foo, mqtt", "mqtt"],
		["foo,bar ,  mqttv3.1,baz", "mqttv3.1"],
		["mqttv3.1, mqtt", "mqttv3.1"],
		["mqtt, mqttv3.1", "mqtt"],
		["mqtt, foo", "mqtt"],
	] as const) {
		test(`subprotocols "${offered}": "${chosen}" is chosen, the client's first that is spoken [MQTT-6.0.0-4]`, () => {
			const decision = decide({ "Sec-WebSocket-Protocol": offered });
			assert.deepEqual(decision, { kind: "accept", protocol: chosen });
		});
	}

	test("subprotocols in several headers: are one list", () => {
		const headers = new Headers(Object.entries(GOOD));
		headers.set("Sec-WebSocket-Protocol", "foo");
		headers.append("Sec-WebSocket-Protocol", "mqtt");
		assert.deepEqual(decideUpgrade({ method: "GET", headers }, { requireSubprotocol: true }), { kind: "accept", protocol: "mqtt" });
	});

	for (const offered of ["", "foo", "foo, bar", "MQTT", "mqtt5", "xmqtt", ","]) {
		test(`subprotocols "${offered}": refused with 400 and the ones that are spoken`, () => {
			const refusal = assertRefused(decide({ "Sec-WebSocket-Protocol": offered }), 400);
			assert.match(refusal.message, /"mqtt" and "mqttv3\.1"/);
		});

		test(`subprotocols "${offered}": accepted without choosing one when none is required`, () => {
			const decision = decide({ "Sec-WebSocket-Protocol": offered }, { requireSubprotocol: false });
			assert.deepEqual(decision, { kind: "accept", protocol: undefined });
		});
	}

	test("subprotocol: is chosen also when none is required", () => {
		assert.deepEqual(decide({}, { requireSubprotocol: false }), { kind: "accept", protocol: "mqtt" });
	});

	for (const upgrade of ["WebSocket", "WEBSOCKET", "h2c, websocket"]) {
		test(`Upgrade: "${upgrade}" is an upgrade`, () => assert.equal(decide({ Upgrade: upgrade }).kind, "accept"));
	}

	for (const connection of ["upgrade", "keep-alive, Upgrade", "Upgrade,close"]) {
		test(`Connection: "${connection}" is an upgrade`, () => assert.equal(decide({ Connection: connection }).kind, "accept"));
	}

	for (const headers of [{ Upgrade: "" }, { Upgrade: "h2c" }, { Connection: "" }, { Connection: "keep-alive" }]) {
		test(`${JSON.stringify(headers)}: 426 that names the upgrade`, () => {
			assert.equal(assertRefused(decide(headers), 426).headers.Upgrade, "websocket");
		});
	}

	for (const version of ["", "8", "14", "13, 8"]) {
		test(`Sec-WebSocket-Version "${version}": 426 that names the version`, () => {
			assert.equal(assertRefused(decide({ "Sec-WebSocket-Version": version }), 426).headers["Sec-WebSocket-Version"], "13");
		});
	}

	for (const key of ["", "short", "dGhlIHNhbXBsZSBub25jZQ"]) {
		test(`Sec-WebSocket-Key "${key}": refused with 400`, () => {
			assertRefused(decide({ "Sec-WebSocket-Key": key }), 400);
		});
	}

	for (const method of ["POST", "HEAD", "OPTIONS"]) {
		test(`${method}: 405 with Allow`, () => assert.equal(assertRefused(decide({}, { method }), 405).headers.Allow, "GET"));
	}
});

describe("refusalResponse", () => {
	test("carries status, headers and one line of text", async () => {
		const response = refusalResponse(assertRefused(decide({ Upgrade: "" }), 426));
		assert.equal(response.status, 426);
		assert.equal(response.headers.get("upgrade"), "websocket");
		assert.equal(response.headers.get("content-type"), "text/plain; charset=utf-8");
		assert.match(await response.text(), /^[^\n]+\n$/);
	});
});
