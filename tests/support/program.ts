/** Another program as a child process: started, watched by what it says, ended with a signal or with the test. */

import { spawn } from "node:child_process";
import process from "node:process";
import type { Writable } from "node:stream";
import type { Cleanup } from "./test_broker.ts";

const PATIENCE_MS = 20_000;
const NOT_STARTED = -1;

/** How a program ended: its exit code, or the signal that killed it. */
export interface Ended {
	readonly code: number | null;
	readonly signal: string | null;
	readonly stdout: string;
	readonly stderr: string;
}

export interface ProgramOptions {
	readonly cwd?: string;
	/** All of its environment; that of the test when absent. */
	readonly env?: Readonly<Record<string, string | undefined>>;
	/** What it reads on its standard input, which then ends; nothing when absent. */
	readonly input?: string;
	/** Its standard input stays open, for `write`. */
	readonly interactive?: boolean;
}

export class Program {
	readonly pid: number;
	/** Settles when it is gone and all its output has come. */
	readonly ended: Promise<Ended>;
	readonly #name: string;
	#stdin: Writable | undefined;
	#stdout = "";
	#stderr = "";
	#running = true;
	#changed: () => void = () => {};

	private constructor(t: Cleanup, command: string, args: readonly string[], options: ProgramOptions) {
		const { cwd, env = process.env, input = "", interactive = false } = options;
		this.#name = [command, ...args].join(" ");
		const child = spawn(command, args, { cwd, env: { ...env }, stdio: "pipe" });
		this.pid = child.pid ?? NOT_STARTED;
		child.stdin.on("error", () => {});
		if (interactive) this.#stdin = child.stdin;
		else child.stdin.end(input);
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			this.#stdout += text;
			this.#changed();
		});
		child.stderr.setEncoding("utf8").on("data", (text: string) => {
			this.#stderr += text;
			this.#changed();
		});
		for (const event of ["exit", "error"]) {
			child.once(event, () => {
				this.#running = false;
			});
		}
		this.ended = new Promise((resolve, reject) => {
			child.once("error", reject);
			child.once("close", (code, signal) => resolve({ code, signal, stdout: this.#stdout, stderr: this.#stderr }));
		});
		// Whoever waits for something gets it as well; a program that nobody waits for may fail in silence.
		this.ended.catch(() => {}).finally(() => this.#changed());
		t.after(async () => {
			this.send("SIGKILL");
			await this.ended.catch(() => {});
		});
	}

	/** Starts a program. One that cannot be started shows as a rejected `ended`. */
	static start(t: Cleanup, command: string, args: readonly string[] = [], options: ProgramOptions = {}): Program {
		return new Program(t, command, args, options);
	}

	/** All that it has said so far. */
	get stdout(): string {
		return this.#stdout;
	}

	get stderr(): string {
		return this.#stderr;
	}

	/** Gives an interactive program something to read. */
	write(text: string): void {
		this.#stdin?.write(text);
	}

	/** Looks at its output whenever there is more, until `look` finds something. Rejects when it ends first, or takes too long. */
	async until<T>(what: string, look: () => T | undefined): Promise<T> {
		const deadline = Date.now() + PATIENCE_MS;
		for (;;) {
			const found = look();
			if (found !== undefined) return found;
			const gone = this.#running ? undefined : await this.ended;
			// Its last output may have come with the end.
			const last = look();
			if (last !== undefined) return last;
			if (gone !== undefined || Date.now() >= deadline) throw new Error(this.#complaint(what, gone));
			await new Promise<void>((resolve) => {
				const timer = setTimeout(resolve, deadline - Date.now());
				this.#changed = () => {
					clearTimeout(timer);
					resolve();
				};
			});
		}
	}

	/** Sends a signal, if it still runs. */
	send(signal: NodeJS.Signals): void {
		// Not by child.kill: Deno then reports that signal as the end of a program that handled it and exited.
		if (this.#running && this.pid !== NOT_STARTED) process.kill(this.pid, signal);
	}

	/** Sends a signal and waits for the end. */
	kill(signal: NodeJS.Signals): Promise<Ended> {
		this.send(signal);
		return this.ended;
	}

	#complaint(what: string, gone: Ended | undefined): string {
		const end = gone === undefined ? `said nothing of it in ${PATIENCE_MS / 1000} s` : `ended with ${gone.signal ?? gone.code}`;
		return `no ${what}: "${this.#name}" ${end}\n${this.#stdout}\n${this.#stderr}`;
	}
}
