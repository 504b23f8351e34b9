/** The core under every order of events: seeds are few in CI and as many as `SIMULATION_SEEDS` says by hand. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Simulation } from "./simulation.ts";

const SEEDS = Number(process.env.SIMULATION_SEEDS ?? 2_000);
const FIRST = Number(process.env.SIMULATION_FIRST ?? 1);

test(`core: nothing acknowledged is lost, QoS 2 comes once and in order, over ${SEEDS} histories of broken connections and crashes [MQTT-4.3.3-10] [MQTT-4.4.0-1] [MQTT-4.6.0-5]`, () => {
	let acknowledged = 0;
	let crashes = 0;
	for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
		const outcome = new Simulation(seed).run(800);
		assert.deepEqual(outcome.violations, [], `seed ${seed}`);
		acknowledged += outcome.acknowledged;
		crashes += outcome.crashes;
	}
	assert.ok(acknowledged >= SEEDS * 30, "the histories get somewhere");
	assert.ok(crashes >= SEEDS, "the histories have crashes in them");
});
