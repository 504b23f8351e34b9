/** A real HAProxy in front of replicas: round robin, and nothing that would keep a client at one of them. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Program } from "./program.ts";
import type { Replica } from "./replicas.ts";
import { createFolder, reservePorts } from "./server_process.ts";
import type { Cleanup } from "./test_broker.ts";

const START_MS = 10_000;

export interface HAProxy {
	readonly wsPort: number;
	readonly tcpPort: number;
	readonly url: string;
	readonly tcpUrl: string;
}

export interface HAProxyOptions {
	/** After which it cuts a connection on which nothing comes; an hour unless given. */
	readonly idleMs?: number;
	/**
	 * Says whose connection it is: with X-Forwarded-For, and over TCP with version 2 of the PROXY protocol, which the replicas
	 * must expect. It connects from {@link PROXY_ADDRESS} then, for the difference to show.
	 */
	readonly tellsAddress?: boolean;
	/** Leaves the connections of a replica that is not ready to the replica itself, rather than cutting them. */
	readonly letsGo?: boolean;
}

/** Where HAProxy connects from when it tells where its clients do. */
export const PROXY_ADDRESS = "127.0.0.9";

/** Starts it and waits until it takes connections for a replica that is ready. It ends with the test. */
export async function startHAProxy(t: Cleanup, replicas: readonly Replica[], options: HAProxyOptions = {}): Promise<HAProxy> {
	const ports = await reservePorts();
	const file = join(createFolder(t), "haproxy.cfg");
	writeFileSync(file, configuration(Number(ports.PORT), Number(ports.MQTT_TCP_PORT), replicas, options));
	// Debian has it where only root looks.
	const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };
	const program = Program.start(t, "haproxy", ["-db", "-f", file], { env });
	const failed = program.ended.then(({ stderr }) => {
		throw new Error(`HAProxy ended: ${stderr}`);
	});
	failed.catch(() => {});
	const deadline = Date.now() + START_MS;
	const ready = () =>
		fetch(`http://127.0.0.1:${ports.PORT}/readyz`).then(
			({ status }) => status === 200,
			() => false,
		);
	while (!(await Promise.race([ready(), failed]))) {
		if (Date.now() > deadline) throw new Error(`HAProxy was not ready after ${START_MS} ms\n${program.stderr}`);
		await sleep(20);
	}
	return {
		wsPort: Number(ports.PORT),
		tcpPort: Number(ports.MQTT_TCP_PORT),
		url: `ws://127.0.0.1:${ports.PORT}/mqtt`,
		tcpUrl: `mqtt://127.0.0.1:${ports.MQTT_TCP_PORT}`,
	};
}

/** Readiness is asked over HTTP for both ports; a replica that cannot be reached is tried no second time by one connection. */
function configuration(
	wsPort: number,
	tcpPort: number,
	replicas: readonly Replica[],
	{ idleMs = 3_600_000, tellsAddress = false, letsGo = false }: HAProxyOptions,
): string {
	const telling = tellsAddress ? `\n    source ${PROXY_ADDRESS}` : "";
	const servers = (portOf: (replica: Replica) => number, check: (replica: Replica) => string) =>
		replicas.map((replica, index) => `    server replica${index} 127.0.0.1:${portOf(replica)} ${check(replica)}`).join("\n");
	return `global
    maxconn 5000
defaults
    timeout connect 1s
    timeout client ${Math.min(idleMs, 60_000)}ms
    timeout server ${Math.min(idleMs, 60_000)}ms
    timeout tunnel ${idleMs}ms
    timeout check 1s
    option redispatch 1
    default-server check inter 200ms fall 1 rise 1${letsGo ? "" : " on-marked-down shutdown-sessions"}
frontend web
    mode http
    bind 127.0.0.1:${wsPort}
    default_backend web
backend web
    mode http
    balance roundrobin
    option httpchk GET /readyz${telling}${tellsAddress ? "\n    option forwardfor" : ""}
${servers(
	({ wsPort: port }) => port,
	() => "",
)}
listen mqtt
    mode tcp
    bind 127.0.0.1:${tcpPort}
    balance roundrobin
    option httpchk GET /readyz${telling}
${servers(
	({ tcpPort: port }) => port,
	({ wsPort: port }) => `port ${port}${tellsAddress ? " send-proxy-v2" : ""}`,
)}
`;
}
