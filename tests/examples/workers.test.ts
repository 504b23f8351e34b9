/** `examples/workers.ts`: a group shares what comes, and loses nothing when part of it dies. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import type { Program } from "../support/program.ts";
import { startBroker } from "../support/test_broker.ts";
import { line, linesOf, startExample } from "./example_program.ts";

/** What workers have finished: by whom, and which. */
function finished(...programs: readonly Program[]): { worker: string; payload: string }[] {
	return programs.flatMap(linesOf).flatMap((text) => {
		const [, worker, payload] = /^(worker-\S+) devices\/one\/temperature (\d+)$/.exec(text) ?? [];
		return worker === undefined || payload === undefined ? [] : [{ worker, payload }];
	});
}

describe("examples/workers.ts", () => {
	it("each message is worked on once, and every worker takes part", async (t) => {
		const { wsUrl } = await startBroker(t);
		const program = startExample(t, "workers.ts", [wsUrl, "3", "20"]);
		await line(program, "workers that are ready: 3");
		const device = await MqttJsClient.connect(t, wsUrl);
		const payloads = Array.from({ length: 30 }, (_, index) => `${index}`);
		await Promise.all(payloads.map((payload) => device.mqtt.publishAsync("devices/one/temperature", payload, { qos: 1 })));
		await program.until("end of the work", () => (finished(program).length >= payloads.length ? true : undefined));
		const { code } = await program.kill("SIGTERM");
		assert.equal(code, 0);
		const done = finished(program);
		assert.deepEqual(
			done.map(({ payload }) => Number(payload)).sort((a, b) => a - b),
			payloads.map(Number),
		);
		assert.equal(new Set(done.map(({ worker }) => worker)).size, 3);
	});

	it("what workers had not finished when they were killed goes to those of another process", async (t) => {
		const { wsUrl } = await startBroker(t);
		const slow = startExample(t, "workers.ts", [wsUrl, "2", "600000"]);
		await line(slow, "workers that are ready: 2");
		const other = startExample(t, "workers.ts", [wsUrl, "1", "5"]);
		await line(other, "workers that are ready: 1");
		const device = await MqttJsClient.connect(t, wsUrl);
		const payloads = Array.from({ length: 30 }, (_, index) => `${index}`);
		await Promise.all(payloads.map((payload) => device.mqtt.publishAsync("devices/one/temperature", payload, { qos: 1 })));
		await slow.kill("SIGKILL");
		await other.until("all of the work", () => (new Set(finished(other).map(({ payload }) => payload)).size === 30 ? true : undefined));
		assert.deepEqual(finished(slow), []);
	});
});
