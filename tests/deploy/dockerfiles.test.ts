/** The Dockerfiles, done by hand: a clean folder instead of an image, the same steps, and what is in it started and asked. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { Program } from "../support/program.ts";
import { createFolder, reservePorts } from "../support/server_process.ts";
import { allowedBy, build, parseDockerfile } from "./dockerfile.ts";
import { readDeployed, root } from "./platform_files.ts";

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const allowed = allowedBy(readFileSync(join(root, ".dockerignore"), "utf8"));

for (const runtime of ["bun", "deno"] as const) {
	describe(`deploy/Dockerfile.${runtime}`, () => {
		const stages = parseDockerfile(readDeployed(`Dockerfile.${runtime}`));

		it("the image has the version of the runtime that the tests run on", () => {
			assert.match(
				stages.at(-1)?.image ?? "",
				new RegExp(`/${runtime}:(alpine-)?${manifest.devDependencies[runtime].replaceAll(".", "\\.")}(-|$)`),
			);
		});

		it("the steps make a folder that starts, is healthy, serves a client, and ends with SIGTERM and 0", async (t) => {
			const folder = createFolder(t);
			const env = {
				HOME: folder,
				PATH: `${join(root, "node_modules/.bin")}:${process.env.PATH}`,
				DENO_DIR: join(folder, "compiled"),
				NO_COLOR: "1",
				npm_config_cache: npmCache(),
				npm_config_prefer_offline: "true",
			};
			const image = build(stages, root, allowed, folder, env);
			assert.deepEqual(image.owners, [`${runtime}:${runtime} ${image.root}/data`]);
			assert.equal(image.user, runtime);
			assert.deepEqual(readdirSync(image.workdir).sort(), ["node_modules", "package.json", "server.ts", "src"]);
			const packages = readdirSync(join(image.workdir, "node_modules"));
			const development = Object.keys(manifest.devDependencies).filter((name) => packages.includes(name));
			assert.deepEqual(development, []);

			const { PORT } = await reservePorts();
			const settings = { ...env, ...image.env, HOST: "127.0.0.1", PORT };
			const inImage = ([command = "", ...args]: readonly string[]) =>
				Program.start(t, command, args, { cwd: image.workdir, env: settings });
			assert.equal((await inImage(image.healthcheck).ended).code, 1, "unhealthy before the start");
			const server = inImage(image.entrypoint);
			await server.until("server that is ready", () => (server.stderr.includes("Shoal is ready") ? true : undefined));
			const { code, stderr } = await inImage(image.healthcheck).ended;
			assert.equal(code, 0, stderr);
			const client = await MqttJsClient.connect(t, `ws://127.0.0.1:${PORT}/mqtt`);
			await client.mqtt.publishAsync("a", "stored", { qos: 1, retain: true });
			assert.deepEqual(readdirSync(join(image.root, "data")).includes("shoal.sqlite"), true);
			assert.equal((await server.kill("SIGTERM")).code, 0);

			const help = await inImage([...image.entrypoint, "--help"]).ended;
			assert.match(help.stdout, /Settings are environment variables/);
		});
	});
}

/** That of the machine, so that nothing is fetched that `npm ci` has fetched already. */
function npmCache(): string {
	return process.env.npm_config_cache ?? join(process.env.HOME ?? "", ".npm");
}
