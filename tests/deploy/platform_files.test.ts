/** The files of `deploy/`: each can be read by its platform as far as this machine can tell, and says of Shoal what is so. */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { configHelp, parseConfig } from "../../src/shoal.ts";
import { createFolder } from "../support/server_process.ts";
import { files, PLATFORMS, readDeployed, readToml, readYaml, root } from "./platform_files.ts";

/** Names in capitals that are none of Shoal's. */
const FOREIGN = ["AF_INET", "AF_INET6", "AF_UNIX", "DENO_DIR"];
/** The setting that each file has, and why it must: nobody could look into the files for all of them. */
const settings = new Set([...configHelp().matchAll(/^([A-Z][A-Z0-9_]*) {2}/gm)].map(([, name]) => name));

describe("deploy: settings", () => {
	it("the help names the settings to compare with", () => {
		assert.ok(settings.has("PORT") && settings.has("REDIS_URL") && settings.size > 30);
	});

	for (const read of PLATFORMS) {
		const { file, settings: given, ports, graceSeconds } = read();

		it(`${file}: every variable is a setting, and together they are valid`, () => {
			assert.deepEqual(
				Object.keys(given).filter((name) => !settings.has(name)),
				[],
			);
			parseConfig(given);
		});

		it(`${file}: its ports are those that Shoal opens`, () => {
			const { port, mqttTcpPort, metricsPort } = parseConfig(given);
			// 1883 is an offer of the images: it opens when the variable is set.
			const open = file.startsWith("Dockerfile") ? [port, 1883] : [port, mqttTcpPort, metricsPort];
			assert.deepEqual(
				ports.filter((each) => !open.includes(each)),
				[],
			);
		});

		it(`${file}: there is time to send the clients away before the platform kills`, () => {
			const { drainNoticeSeconds, drainSeconds } = parseConfig(given);
			const seconds = drainNoticeSeconds + drainSeconds;
			assert.ok(graceSeconds === undefined || seconds < graceSeconds, `${seconds} of ${graceSeconds} s`);
		});
	}

	it("text and comments name settings that exist, too", () => {
		const named = files.flatMap((file) =>
			[...readDeployed(file).matchAll(/\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b/g)].map(([name]) => `${file} ${name}`),
		);
		assert.ok(named.length > 20);
		assert.deepEqual(
			named.filter((each) => ![...settings, ...FOREIGN].includes(each.split(" ")[1] ?? "")),
			[],
		);
	});
});

describe("deploy: files", () => {
	for (const file of files.filter((each) => each.endsWith(".yaml"))) {
		it(`${file}: is YAML without a warning`, () => {
			for (const document of readYaml(file)) assert.equal(typeof document, "object");
		});
	}

	it("compose.yaml: what it builds from and mounts is there", () => {
		const [{ services }] = readYaml("compose.yaml");
		const deploy = join(root, "deploy");
		const { context, dockerfile } = services.shoal.build;
		assert.ok(existsSync(join(deploy, context, dockerfile)));
		const mounted = [...services.redis.volumes, ...services.haproxy.volumes].map((volume: string) => volume.split(":")[0] ?? "");
		for (const path of mounted.filter((each) => each.startsWith("."))) assert.ok(existsSync(join(deploy, path)), path);
		assert.equal(services.shoal.deploy.replicas, 2);
		// Everybody may come in, so it must be this machine only.
		for (const port of services.haproxy.ports) assert.match(port, /^127\.0\.0\.1:/);
	});

	it("redis.conf: keeps the durability that compose.yaml asks for", () => {
		const [{ services }] = readYaml("compose.yaml");
		assert.equal(services.shoal.environment.REDIS_DURABILITY, "aof");
		const server = spawnSync("redis-server", [join(root, "redis.conf"), "--check-system"], { encoding: "utf8" });
		assert.equal(server.error, undefined);
		const conf = execFileSync("cat", [join(root, "redis.conf")], { encoding: "utf8" });
		assert.match(conf, /^appendonly yes$/m);
		assert.match(conf, /^appendfsync always$/m);
	});

	it("fly.toml: connections are counted with real limits, machines with clients stay, and raw MQTT carries the client's address", () => {
		const { build, http_service, services, checks, deploy } = readToml("fly.toml");
		assert.ok(existsSync(join(root, "deploy", build.dockerfile)));
		for (const { concurrency, auto_stop_machines, min_machines_running } of [http_service, ...services]) {
			assert.equal(concurrency.type, "connections");
			assert.ok(concurrency.soft_limit >= 1000 && concurrency.soft_limit < concurrency.hard_limit);
			assert.deepEqual([auto_stop_machines, min_machines_running], ["off", 2]);
		}
		assert.deepEqual([http_service.checks[0].path, checks.alive.path, deploy.strategy], ["/readyz", "/healthz", "rolling"]);
		const { ports } = services.find((each: { internal_port: number }) => each.internal_port === 1883);
		assert.deepEqual(structuredClone(ports), [
			{ port: 8883, handlers: ["tls", "proxy_proto"], tls_options: { alpn: ["mqtt"] }, proxy_proto_options: { version: "v2" } },
		]);
	});

	it("render.yaml and railway.json: build from a Dockerfile that is there, and ask for readiness", () => {
		const [{ services }] = readYaml("render.yaml");
		const [web] = services;
		const { build, deploy } = JSON.parse(readDeployed("railway.json"));
		for (const path of [web.dockerfilePath, build.dockerfilePath]) assert.ok(existsSync(join(root, path)), path);
		assert.deepEqual([web.healthCheckPath, deploy.healthcheckPath], ["/readyz", "/readyz"]);
	});

	it("kubernetes.yaml: the parts select the same pods, which run without root and are probed where Shoal answers", () => {
		const [deployment, service, budget] = readYaml("kubernetes.yaml");
		const { selector, template } = deployment.spec;
		for (const labels of [template.metadata.labels, service.spec.selector, budget.spec.selector.matchLabels]) {
			assert.deepEqual(labels, selector.matchLabels);
		}
		const [container] = template.spec.containers;
		const names = container.ports.map(({ name }: { name: string }) => name);
		const targets = [container.livenessProbe.httpGet.port, container.readinessProbe.httpGet.port];
		for (const port of [...targets, ...service.spec.ports.map((each: { targetPort: string }) => each.targetPort)])
			assert.ok(names.includes(port));
		assert.deepEqual([container.livenessProbe.httpGet.path, container.readinessProbe.httpGet.path], ["/healthz", "/readyz"]);
		assert.equal(template.spec.securityContext.runAsNonRoot, true);
		assert.equal(container.securityContext.readOnlyRootFilesystem, true);
	});

	it("shoal.service: systemd takes it as it is and finds it safe", (t) => {
		// Bun is elsewhere on this machine, and the folders are not there.
		const unit = readDeployed("shoal.service").replace("/usr/local/bin/bun", process.execPath);
		const path = join(createFolder(t), "shoal.service");
		writeFileSync(path, unit);
		const verified = spawnSync("systemd-analyze", ["verify", "--man=no", path], { encoding: "utf8" });
		const own = verified.stderr.split("\n").filter((line) => line.includes(basename(path)));
		assert.deepEqual([verified.status, own], [0, []]);
		const judged = spawnSync("systemd-analyze", ["security", "--offline=yes", "--threshold=20", path], { encoding: "utf8" });
		assert.equal(judged.status, 0, judged.stdout);
	});
});
