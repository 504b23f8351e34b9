/** The files of `deploy/`, parsed, and what they say of Shoal: its settings, its ports, and how long it has to end. */

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parse as parseToml } from "smol-toml";
import { parseAllDocuments } from "yaml";
import { parseDockerfile } from "./dockerfile.ts";

/** Top of the repository. */
export const root = fileURLToPath(new URL("../..", import.meta.url));

/** What a file of a platform says. */
export interface Platform {
	readonly file: string;
	readonly settings: Readonly<Record<string, string>>;
	/** Ports of Shoal that the platform leads to. */
	readonly ports: readonly number[];
	/** Seconds between the signal and SIGKILL; `undefined` where the file does not set them. */
	readonly graceSeconds: number | undefined;
}

// biome-ignore lint/suspicious/noExplicitAny: files of others' formats, and a wrong step into one fails the test
type Document = any;

export function readDeployed(file: string): string {
	return readFileSync(new URL(`../../deploy/${file}`, import.meta.url), "utf8");
}

/** All files of `deploy/`. */
export const files: readonly string[] = readdirSync(new URL("../../deploy", import.meta.url)).sort();

/** The documents of a YAML file. Throws for errors and warnings alike. */
export function readYaml(file: string): Document[] {
	return parseAllDocuments(readDeployed(file)).map((document) => {
		const [problem] = [...document.errors, ...document.warnings];
		if (problem !== undefined) throw problem;
		return document.toJS();
	});
}

export const readToml = (file: string): Document => parseToml(readDeployed(file));

const seconds = (text: string): number => {
	const [, digits] = /^(\d+)s?$/.exec(text) ?? [];
	if (digits === undefined) throw new Error(`"${text}" is no number of seconds`);
	return Number(digits);
};

/** A stand-in for what comes from a secret or another service. */
const REFERENCES: Readonly<Record<string, string>> = { REDIS_URL: "redis://redis:6379", JWT_SECRET: "x".repeat(32) };

function named(list: readonly Document[], key: "key" | "name"): Record<string, string> {
	return Object.fromEntries(list.map((each) => [each[key], each.value ?? REFERENCES[each[key]]]));
}

function compose(): Platform {
	const [{ services }] = readYaml("compose.yaml");
	const { environment, stop_grace_period } = services.shoal;
	const ports = services.haproxy.ports.map((port: string) => Number(port.split(":").at(-1)));
	return { file: "compose.yaml", settings: environment, ports, graceSeconds: seconds(stop_grace_period) };
}

function dockerfile(file: string): Platform {
	const stage = parseDockerfile(readDeployed(file)).at(-1);
	if (stage === undefined) throw new Error(`${file} has no stage`);
	const ports = stage.steps.filter(({ name }) => name === "EXPOSE").flatMap(({ text }) => text.split(" ").map(Number));
	return { file, settings: stage.env, ports, graceSeconds: undefined };
}

function fly(): Platform {
	const { env, http_service, services, checks, metrics, kill_timeout } = readToml("fly.toml");
	const ports = [...[http_service, ...services].map(({ internal_port }) => internal_port), checks.alive.port, metrics.port];
	return { file: "fly.toml", settings: env, ports, graceSeconds: seconds(kill_timeout) };
}

function kubernetes(): Platform {
	const { template } = readYaml("kubernetes.yaml").find(({ kind }) => kind === "Deployment").spec;
	const [container] = template.spec.containers;
	return {
		file: "kubernetes.yaml",
		settings: named(container.env, "name"),
		ports: container.ports.map(({ containerPort }: Document) => containerPort),
		graceSeconds: template.spec.terminationGracePeriodSeconds - container.lifecycle.preStop.sleep.seconds,
	};
}

function render(): Platform {
	const [{ services }] = readYaml("render.yaml");
	const { envVars, maxShutdownDelaySeconds } = services.find(({ type }: Document) => type === "web");
	const settings = named(envVars, "key");
	return { file: "render.yaml", settings, ports: [Number(settings.PORT)], graceSeconds: maxShutdownDelaySeconds };
}

/** Its settings are not in a file: they are what README.md says to set. */
function railway(): Platform {
	const section =
		readDeployed("README.md")
			.split(/^## /m)
			.find((each) => each.startsWith("Railway")) ?? "";
	const settings = Object.fromEntries([...section.matchAll(/`([A-Z_]+)=([^`]+)`/g)].map(([, name, value]) => [name, value]));
	const { drainingSeconds } = JSON.parse(readDeployed("railway.json")).deploy;
	return { file: "railway.json", settings, ports: [settings.PORT, settings.MQTT_TCP_PORT].map(Number), graceSeconds: drainingSeconds };
}

function systemd(): Platform {
	const lines = readDeployed("shoal.service").split("\n");
	const values = (name: string) => lines.filter((line) => line.startsWith(`${name}=`)).map((line) => line.slice(name.length + 1));
	return {
		file: "shoal.service",
		settings: Object.fromEntries(values("Environment").map((assignment) => assignment.split("="))),
		ports: [],
		graceSeconds: seconds(values("TimeoutStopSec").join()),
	};
}

/** Every platform, read when it is asked for. */
export const PLATFORMS: readonly (() => Platform)[] = [
	() => dockerfile("Dockerfile.bun"),
	() => dockerfile("Dockerfile.deno"),
	compose,
	fly,
	kubernetes,
	railway,
	render,
	systemd,
];
