/** Old connections are sent away, so that load spreads over replicas that came later; not all at once. Time is moved by hand. */

import assert from "node:assert/strict";
import { it } from "node:test";
import { type Ageing, ConnectionAge } from "../../src/broker/connection_age.ts";
import { TimerWheel } from "../../src/broker/timer_wheel.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { eventually } from "../support/eventually.ts";
import { numbers } from "../support/traffic.ts";

const HOUR_MS = 3_600_000;

class FakeConnection implements Ageing {
	reasonCode: ReasonCode | undefined;

	end(reasonCode: ReasonCode): void {
		this.reasonCode = reasonCode;
	}
}

it("ConnectionAge: connections that came together go between four and six fifths of the age, as at a restart; who has left before is left alone", async (t) => {
	let nowMs = HOUR_MS;
	const clock = { nowMs: () => nowMs };
	const wheel = new TimerWheel(clock);
	t.after(() => wheel.stop());
	const age = new ConnectionAge(wheel, clock, HOUR_MS);
	const connections = numbers(200).map(() => new FakeConnection());
	const [left, ...others] = connections as [FakeConnection, ...FakeConnection[]];
	for (const connection of connections) age.begin(connection);
	age.end(left);
	const gone = () => others.filter(({ reasonCode }) => reasonCode !== undefined).length;
	/** What the wheel has looked at by then. */
	const at = async (part: number) => {
		nowMs = HOUR_MS + part * HOUR_MS;
		let looked = false;
		wheel.schedule(
			{
				wheelTick: 0,
				onTimer: () => {
					looked = true;
				},
			},
			nowMs,
		);
		nowMs += 1000;
		await eventually("the wheel has turned", () => looked);
		return gone();
	};
	assert.equal(await at(0.79), 0);
	const half = await at(1);
	assert.ok(half > 0 && half < others.length, `${half} of ${others.length}`);
	assert.equal(await at(1.2), others.length);
	assert.ok(others.every(({ reasonCode }) => reasonCode === ReasonCode.serverShuttingDown));
	assert.equal(left.reasonCode, undefined);
});

it("ConnectionAge: an age of 0 sends nobody away and keeps nothing", () => {
	const age = new ConnectionAge(
		{
			schedule: () => assert.fail("nothing is to be scheduled"),
			cancel: () => assert.fail("nothing is to be cancelled"),
		} as unknown as TimerWheel,
		{ nowMs: () => HOUR_MS },
		0,
	);
	const connection = new FakeConnection();
	age.begin(connection);
	age.end(connection);
	assert.equal(connection.reasonCode, undefined);
});
