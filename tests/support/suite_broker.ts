/** One broker for all tests of a suite: it starts before the first and ends after the last. */

import { after, before } from "node:test";
import type { Config, Shoal, ShoalParts } from "../../src/shoal.ts";
import { startBroker, type TestBroker } from "./test_broker.ts";

/** Starts a broker with the suite in whose body this is called. Its properties can be read from the first test on. */
export function suiteBroker(config: Partial<Config> = {}, parts: ShoalParts = {}): TestBroker {
	const endings: (() => void | Promise<void>)[] = [];
	let started: TestBroker | undefined;
	const broker = (): TestBroker => {
		if (started === undefined) throw new Error("the broker of a suite can be used within its tests only");
		return started;
	};
	before(async () => {
		started = await startBroker({ after: (ending: () => void | Promise<void>) => void endings.push(ending) }, config, parts);
	});
	after(async () => {
		for (const ending of endings) await ending();
	});
	return {
		get shoal(): Shoal {
			return broker().shoal;
		},
		get wsPort(): number {
			return broker().wsPort;
		},
		get tcpPort(): number {
			return broker().tcpPort;
		},
		get wsUrl(): string {
			return broker().wsUrl;
		},
		get tcpUrl(): string {
			return broker().tcpUrl;
		},
		stop: () => broker().stop(),
	};
}
