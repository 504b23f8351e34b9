/** HAProxy, nginx and Caddy with the files of `deploy/`: checked as they are, and run with nothing changed but addresses. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { KeyPair } from "../support/certificates.ts";
import { Program } from "../support/program.ts";
import type { Cleanup } from "../support/test_broker.ts";
import { readDeployed } from "./platform_files.ts";

const PATIENCE_MS = 15_000;
const PROXY_V2 = Buffer.from("0d0a0d0a000d0a515549540a21", "hex");
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };

/** Ports of a test for those of a file. */
export interface Places {
	/** Where clients connect. */
	readonly ws: string;
	readonly mqtt: string;
	/** WebSocket of the two brokers, and MQTT over TCP of whoever listens instead of them. */
	readonly replicas: readonly [number, number];
	readonly tcp: readonly number[];
}

/** Puts something else in the place of a text that must be there. */
function replace(text: string, changes: readonly (readonly [from: string, to: string])[]): string {
	return changes.reduce((changed, [from, to]) => {
		assert.ok(changed.includes(from), `the file says "${from}"`);
		return changed.replaceAll(from, to);
	}, text);
}

export interface Proxy {
	readonly name: string;
	/** What a connection over TCP begins with, the address of the client in it; `undefined` for a proxy without TCP. */
	readonly header: Uint8Array | undefined;
	/** Whether it asks for /readyz. One that does not finds out when it is refused. */
	readonly asks: boolean;
	readonly tls: boolean;
	check(folder: string, certificate: KeyPair): void;
	start(t: Cleanup, folder: string, certificate: KeyPair, places: Places): Program;
}

export const haproxy: Proxy = {
	name: "haproxy.cfg",
	header: PROXY_V2,
	asks: true,
	tls: false,
	check(folder) {
		writeFileSync(join(folder, "haproxy.cfg"), readDeployed("haproxy.cfg"));
		execFileSync("haproxy", ["-c", "-f", join(folder, "haproxy.cfg")], { env, stdio: "pipe" });
	},
	start(t, folder, _, { ws, mqtt, replicas, tcp }) {
		const http = replicas.map((port) => `server replica${port} 127.0.0.1:${port}`);
		const plain = tcp.map((port, index) => `server replica${port} 127.0.0.1:${port} port ${replicas[index]}`);
		const text = replace(readDeployed("haproxy.cfg"), [
			// Of which this machine may not allow as many.
			["maxconn 50000", "maxconn 1000"],
			["bind :8083", `bind 127.0.0.1:${ws}`],
			["bind :1883", `bind 127.0.0.1:${mqtt}`],
			["server-template replica 10 shoal:8083", http.join("\n\t")],
			["server-template replica 10 shoal:1883", plain.join("\n\t")],
			["check port 8083", "check"],
			// Docker's name server is not here, and addresses need none.
			[" resolvers names init-addr none", ""],
		]);
		writeFileSync(join(folder, "haproxy.cfg"), text);
		return Program.start(t, "haproxy", ["-db", "-f", join(folder, "haproxy.cfg")], { env });
	},
};

export const nginx: Proxy = {
	name: "nginx.conf",
	header: Buffer.from("PROXY TCP4 127.0.0.1 127.0.0.1 "),
	asks: false,
	tls: true,
	check(folder, certificate) {
		// Even a check opens the ports, which need not be free, and takes root below 1024.
		const text = readDeployed("nginx.conf").replace(/listen (\[::\]:)?\d+/g, "listen unix:$FOLDER/socket");
		let sockets = 0;
		const placed = text.replace(/\$FOLDER\/socket/g, () => join(folder, `socket${sockets++}`));
		execFileSync("nginx", ["-t", ...nginxArguments(folder, certificate, placed)], { env, stdio: "pipe" });
	},
	start(t, folder, certificate, { ws, mqtt, replicas, tcp }) {
		const text = replace(readDeployed("nginx.conf"), [
			["worker_rlimit_nofile 65536;", ""],
			["worker_connections 32768;", "worker_connections 1000;"],
			["listen 443 ssl", `listen 127.0.0.1:${ws} ssl`],
			["listen 8883 ssl", `listen 127.0.0.1:${mqtt} ssl`],
			["\t\tlisten 8884 ssl;\n", ""],
			["\t\tlisten [::]:443 ssl;\n", ""],
			["\t\tlisten [::]:8884 ssl;\n", ""],
			["\t\tlisten [::]:8883 ssl;\n", ""],
			["127.0.0.1:8083", `127.0.0.1:${replicas[0]}`],
			["127.0.0.1:8093", `127.0.0.1:${replicas[1]}`],
			["127.0.0.1:1883", `127.0.0.1:${tcp[0]}`],
			["\t\tserver 127.0.0.1:1893 max_fails=1 fail_timeout=5s;\n", ""],
		]);
		// Without workers: they would outlive a master that is killed.
		return Program.start(t, "nginx", [...nginxArguments(folder, certificate, text), "-g", "daemon off; master_process off;"], { env });
	},
};

/** With what it writes in the folder: it need not be root. */
function nginxArguments(folder: string, { cert, key }: KeyPair, text: string): string[] {
	writeFileSync(join(folder, "chain.pem"), cert);
	writeFileSync(join(folder, "key.pem"), key);
	const writable = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${join(folder, name)};`).join(" ");
	const placed = replace(text, [
		["/etc/nginx/shoal/", `${folder}/`],
		["http {", `pid ${join(folder, "pid")};\nhttp { access_log off; ${writable}`],
	]);
	writeFileSync(join(folder, "nginx.conf"), placed);
	return ["-c", join(folder, "nginx.conf"), "-e", "stderr"];
}

export const caddy: Proxy = {
	name: "Caddyfile",
	header: undefined,
	asks: true,
	tls: false,
	check(folder) {
		writeFileSync(join(folder, "Caddyfile"), readDeployed("Caddyfile"));
		const home = { HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
		const args = ["adapt", "--validate", "--adapter", "caddyfile", "--config", join(folder, "Caddyfile")];
		execFileSync("caddy", args, { env: { ...env, ...home }, stdio: "pipe" });
	},
	start(t, folder, _, { ws, replicas }) {
		const text = replace(readDeployed("Caddyfile"), [
			["mqtt.example.com, mqtt.example.com:8884 {", `{\n\tadmin off\n}\n\nhttp://127.0.0.1:${ws} {`],
			["127.0.0.1:8083", `127.0.0.1:${replicas[0]}`],
			["127.0.0.1:8093", `127.0.0.1:${replicas[1]}`],
		]);
		writeFileSync(join(folder, "Caddyfile"), text);
		const home = { HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
		return Program.start(t, "caddy", ["run", "--adapter", "caddyfile", "--config", join(folder, "Caddyfile")], {
			env: { ...env, ...home },
		});
	},
};

/** Waits until a proxy leads to a broker that takes clients. */
export async function untilReady(port: string, tls: boolean): Promise<void> {
	const deadline = Date.now() + PATIENCE_MS;
	while ((await status(`${tls ? "https" : "http"}://127.0.0.1:${port}/readyz`)) !== 200) {
		assert.ok(Date.now() < deadline, "the proxy leads to a broker");
		await sleep(50);
	}
}

/** That of an answer, whatever the certificate; `undefined` without one. */
function status(url: string): Promise<number | undefined> {
	return new Promise((resolve) => {
		const request = (url.startsWith("https") ? httpsRequest : httpRequest)(url, { rejectUnauthorized: false, agent: false }, (response) => {
			response.resume();
			resolve(response.statusCode);
		});
		request.on("error", () => resolve(undefined));
		request.end();
	});
}
