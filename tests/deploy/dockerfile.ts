/**
 * Dockerfiles and `.dockerignore`, as far as ours go: the stages with their steps, and the steps done without Docker in a folder
 * that stands for the root of the image. Commands run on this machine, with its programs.
 */

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import process from "node:process";

export interface Step {
	/** In capitals, such as `COPY`. */
	readonly name: string;
	readonly text: string;
}

export interface Stage {
	/** What it begins with, such as `oven/bun:1.4.5-alpine`. */
	readonly image: string;
	readonly alias: string | undefined;
	readonly env: Readonly<Record<string, string>>;
	readonly steps: readonly Step[];
}

/** @throws {Error} for a line that is none */
export function parseDockerfile(text: string): Stage[] {
	const lines = text
		.replace(/^#.*\n/gm, "")
		.replace(/\\\n\s*/g, "")
		.split("\n")
		.filter((line) => line.trim() !== "");
	const stages: { image: string; alias: string | undefined; env: Record<string, string>; steps: Step[] }[] = [];
	for (const line of lines) {
		const [, name = "", rest = ""] = /^([A-Z]+) (.+)$/.exec(line) ?? [];
		const stage = stages.at(-1);
		if (name === "FROM") {
			const [image = "", , alias] = rest.split(" ");
			stages.push({ image, alias, env: {}, steps: [] });
		} else if (stage === undefined || name === "") throw new Error(`"${line}" is no step`);
		else {
			stage.steps.push({ name, text: rest });
			if (name === "ENV") for (const pair of rest.split(" ")) Object.assign(stage.env, Object.fromEntries([pair.split("=")]));
		}
	}
	return stages;
}

/** The paths that a `.dockerignore` of "everything but" lets through. */
export function allowedBy(dockerignore: string): string[] {
	const lines = dockerignore.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
	if (lines[0] !== "*" || lines.slice(1).some((line) => !/^![\w./-]+$/.test(line))) throw new Error("expected * and then exceptions only");
	return lines.slice(1).map((line) => line.slice(1));
}

/** What an image is started with. */
export interface Image {
	/** The folder that is its root. */
	readonly root: string;
	/** Where it is started, a path of this machine. */
	readonly workdir: string;
	readonly env: Readonly<Record<string, string>>;
	readonly user: string;
	readonly entrypoint: readonly string[];
	readonly healthcheck: readonly string[];
	/** Who was to become the owner of what, which takes users of the image. */
	readonly owners: readonly string[];
}

/**
 * Does all steps.
 * @param context the folder that `docker build` is given
 * @param folder empty; gets the root of each stage
 * @param env for commands, such as where a runtime keeps what it has compiled
 */
export function build(
	stages: readonly Stage[],
	context: string,
	allowed: readonly string[],
	folder: string,
	env: NodeJS.ProcessEnv,
): Image {
	const roots = new Map<string | undefined, string>();
	let image: Image | undefined;
	for (const [index, stage] of stages.entries()) {
		const root = join(folder, `stage${index}`);
		roots.set(stage.alias, root);
		image = new Builder(root, context, allowed, roots, env).build(stage);
	}
	if (image === undefined) throw new Error("no stage");
	return image;
}

class Builder {
	readonly #root: string;
	readonly #context: string;
	readonly #allowed: readonly string[];
	readonly #roots: ReadonlyMap<string | undefined, string>;
	readonly #env: NodeJS.ProcessEnv;
	readonly #owners: string[] = [];
	#workdir: string;

	constructor(
		root: string,
		context: string,
		allowed: readonly string[],
		roots: ReadonlyMap<string | undefined, string>,
		env: NodeJS.ProcessEnv,
	) {
		this.#root = root;
		this.#workdir = root;
		this.#context = context;
		this.#allowed = allowed;
		this.#roots = roots;
		this.#env = env;
		mkdirSync(root, { recursive: true });
	}

	build({ steps, env }: Stage): Image {
		let user = "root";
		let entrypoint: string[] = [];
		let healthcheck: string[] = [];
		for (const { name, text } of steps) {
			if (name === "WORKDIR") this.#enter(text);
			else if (name === "COPY") this.#copy(text.split(" "));
			else if (name === "RUN") this.#run(text);
			else if (name === "USER") user = text;
			else if (name === "ENTRYPOINT") entrypoint = JSON.parse(text);
			else if (name === "HEALTHCHECK") healthcheck = JSON.parse(text.replace(/^.*? CMD /, ""));
			else if (name !== "ENV" && name !== "EXPOSE") throw new Error(`nothing here knows ${name}`);
		}
		const own = Object.fromEntries(Object.entries(env).map(([key, value]) => [key, this.#inside(value)]));
		return { root: this.#root, workdir: this.#workdir, env: own, user, entrypoint, healthcheck, owners: this.#owners };
	}

	#enter(path: string): void {
		this.#workdir = this.#inside(path);
		mkdirSync(this.#workdir, { recursive: true });
	}

	#copy(words: readonly string[]): void {
		const stage = /^--from=(.+)$/.exec(words[0] ?? "")?.[1];
		const paths = stage === undefined ? words : words.slice(1);
		const target = paths.at(-1) ?? "";
		for (const source of paths.slice(0, -1)) {
			if (stage === undefined && !this.#allowed.includes(source)) throw new Error(`.dockerignore keeps ${source} out`);
			const from = stage === undefined ? join(this.#context, source) : join(this.#roots.get(stage) ?? "", source);
			cpSync(from, join(this.#workdir, target, target.endsWith("/") ? basename(source) : ""), { recursive: true });
		}
	}

	/** In a shell, with a `chown` that only notes what it was asked for: the users are those of the image. */
	#run(command: string): void {
		const bin = join(dirname(this.#root), "bin");
		mkdirSync(bin, { recursive: true });
		const notes = join(bin, "chown.txt");
		writeFileSync(notes, "");
		writeFileSync(join(bin, "chown"), `#!/bin/sh\necho "$@" >> "${notes}"\n`, { mode: 0o755 });
		const path = `${bin}:${this.#env.PATH ?? process.env.PATH}`;
		const rooted = command.replace(/(^| )\/(?=\w)/g, `$1${this.#root}/`);
		execFileSync("sh", ["-ec", rooted], {
			cwd: this.#workdir,
			env: { ...this.#env, PATH: path },
			stdio: ["ignore", "ignore", "inherit"],
		});
		this.#owners.push(...execFileSync("cat", [notes], { encoding: "utf8" }).split("\n").filter(Boolean));
	}

	/** An absolute path of the image as one of this machine; anything else as it is. */
	#inside(value: string): string {
		return value.startsWith("/") ? join(this.#root, value) : value;
	}
}
