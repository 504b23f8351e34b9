/** A real nginx in front of replicas: round robin, and nothing that would keep a client at one of them. It finds out who is gone when it is refused. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Program } from "./program.ts";
import type { Replica } from "./replicas.ts";
import { createFolder, reservePorts } from "./server_process.ts";
import type { Cleanup } from "./test_broker.ts";

const START_MS = 10_000;

export interface Nginx {
	readonly wsPort: number;
	readonly tcpPort: number;
	readonly url: string;
	readonly tcpUrl: string;
}

/**
 * Starts it and waits until it takes connections for a replica. It ends with the test.
 * @param idleMs After which it cuts a connection on which nothing comes.
 */
export async function startNginx(t: Cleanup, replicas: readonly Replica[], { idleMs = 60_000 } = {}): Promise<Nginx> {
	const { PORT, MQTT_TCP_PORT } = await reservePorts();
	const [wsPort, tcpPort] = [Number(PORT), Number(MQTT_TCP_PORT)];
	const folder = createFolder(t);
	const file = join(folder, "nginx.conf");
	writeFileSync(file, configuration(folder, wsPort, tcpPort, replicas, idleMs));
	// Debian has it where only root looks.
	const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };
	const program = Program.start(t, "nginx", ["-c", file, "-e", "stderr", "-g", "daemon off;"], { env });
	const failed = program.ended.then(({ stderr }) => {
		throw new Error(`nginx ended: ${stderr}`);
	});
	failed.catch(() => {});
	const deadline = Date.now() + START_MS;
	const ready = () =>
		fetch(`http://127.0.0.1:${wsPort}/readyz`).then(
			({ status }) => status === 200,
			() => false,
		);
	while (!(await Promise.race([ready(), failed]))) {
		if (Date.now() > deadline) throw new Error(`nginx was not ready after ${START_MS} ms\n${program.stderr}`);
		await sleep(20);
	}
	return { wsPort, tcpPort, url: `ws://127.0.0.1:${wsPort}/mqtt`, tcpUrl: `mqtt://127.0.0.1:${tcpPort}` };
}

/** All that it writes is in the folder: it need not be root. One process, which ends with the signal that the test has for it. */
function configuration(folder: string, wsPort: number, tcpPort: number, replicas: readonly Replica[], idleMs: number): string {
	const servers = (portOf: (replica: Replica) => number) =>
		replicas.map((replica) => `\t\tserver 127.0.0.1:${portOf(replica)} max_fails=1 fail_timeout=1s;`).join("\n");
	const writable = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
		.map((name) => `\t${name}_temp_path ${join(folder, name)};`)
		.join("\n");
	return `include /etc/nginx/modules-enabled/*.conf;
master_process off;
pid ${join(folder, "pid")};
events {
	worker_connections 1000;
}
http {
	access_log off;
${writable}
	upstream websocket {
${servers(({ wsPort: port }) => port)}
	}
	server {
		listen 127.0.0.1:${wsPort};
		location / {
			proxy_pass http://websocket;
			proxy_http_version 1.1;
			proxy_set_header Host $http_host;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $http_connection;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_connect_timeout 1s;
			proxy_read_timeout ${idleMs}ms;
			proxy_send_timeout ${idleMs}ms;
			proxy_next_upstream error timeout http_503;
		}
	}
}
stream {
	upstream mqtt {
${servers(({ tcpPort: port }) => port)}
	}
	server {
		listen 127.0.0.1:${tcpPort};
		proxy_pass mqtt;
		proxy_connect_timeout 1s;
		proxy_timeout ${idleMs}ms;
	}
}
`;
}
