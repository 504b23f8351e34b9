/** A broker in the test's own process, on free ports of the loopback interface, that ends with the test. */

import type { TestContext } from "node:test";
import { type Config, createBroker, type Shoal, type ShoalParts } from "../../src/shoal.ts";

export interface TestBroker {
	readonly shoal: Shoal;
	readonly wsPort: number;
	readonly tcpPort: number;
	readonly wsUrl: string;
	readonly tcpUrl: string;
	/** Stops it before the test ends. */
	stop(): Promise<void>;
}

/** What a test registers its end with: a `TestContext`, or an object with `after` of a suite. */
export interface Cleanup {
	after(fn: () => void | Promise<void>): void;
}

/** Starts a broker in memory, with WebSocket and TCP. */
export async function startBroker(t: Cleanup | TestContext, config: Partial<Config> = {}, parts: ShoalParts = {}): Promise<TestBroker> {
	const shoal = createBroker({ host: "127.0.0.1", port: 0, mqttTcpPort: 0, store: "memory", sysIntervalSeconds: 0, ...config }, parts);
	await shoal.start();
	const ports = await shoal.listen();
	let stopped = false;
	const stop = async () => {
		if (stopped) return;
		stopped = true;
		await shoal.stop();
	};
	t.after(stop);
	const wsPort = ports.find((port) => port.transport === "ws")?.port ?? 0;
	const tcpPort = ports.find((port) => port.transport === "tcp")?.port ?? 0;
	return {
		shoal,
		wsPort,
		tcpPort,
		wsUrl: `ws://127.0.0.1:${wsPort}${shoal.config.wsPath}`,
		tcpUrl: `mqtt://127.0.0.1:${tcpPort}`,
		stop,
	};
}
