/**
 * The file of configured rules, in YAML (of which JSON is a part): read at the start, where anything wrong ends it, and read
 * again whenever it changes, where anything wrong keeps the rules that were good.
 *
 * Topics must be quoted, because ` #` begins a comment in YAML and would cut a filter short.
 */

import { readFileSync, statSync } from "node:fs";
import { stat } from "node:fs/promises";
import { clearInterval, setInterval } from "node:timers";
import { isAlias, isMap, isNode, isScalar, LineCounter, type Node, parseDocument, Scalar, visit } from "yaml";
import { z } from "zod";
import { type Logger, log } from "../log.ts";
import type { RuleSource } from "./authorizer.ts";
import type { Rule } from "./grants.ts";
import { problemsOf, ruleSchema } from "./rule_schema.ts";

/** A rule file that cannot be used. The message has a line `file:line: problem` for each problem. */
export class RuleFileError extends Error {
	override readonly name = "RuleFileError";
	readonly problems: readonly string[];

	constructor(problems: readonly string[], options?: ErrorOptions) {
		super(problems.join("\n"), options);
		this.problems = problems;
	}
}

const MAX_FILE_BYTES = 1_048_576;
const MAX_RULES = 10_000;
const MAX_ALIASES = 100;
/** Of the problems of one file, so that a file that is something else does not fill the log. */
const MAX_PROBLEMS = 20;

const fileSchema = z.strictObject({
	rules: z.array(ruleSchema).min(1, "there is no rule, so nobody could do anything: add one, or configure no rule file").max(MAX_RULES),
});

/**
 * The rules that a text is.
 * @param file Name for the messages
 * @throws {RuleFileError} with all that is wrong
 */
export function parseRules(text: string, file: string): readonly Rule[] {
	const lines = new LineCounter();
	const document = parseDocument(text, { lineCounter: lines, version: "1.2", prettyErrors: false });
	const at = (offset: number, problem: string): string => `${file}:${lines.linePos(offset).line}: ${problem}`;
	// A tag that is not known is only a warning to the library.
	const malformed = [...document.errors, ...document.warnings];
	if (malformed.length > 0) throw problemsError(malformed.map(({ pos, message }) => at(pos[0], message)));
	const read = (): unknown => document.toJS({ maxAliasCount: MAX_ALIASES });
	const result = fileSchema.safeParse(attempt(read, file));
	const unquoted = unquotedTopics(document.contents);
	const problems = unquoted.map((offset) => at(offset, 'a topic is not in quotes, and " #" would begin a comment: write "a/#"'));
	if (!result.success) {
		for (const { path, problem } of problemsOf(result.error)) {
			problems.push(at(offsetOf(document.contents, path), path.length === 0 ? problem : `${path.join(".")}: ${problem}`));
		}
	}
	if (problems.length > 0 || !result.success) throw problemsError(problems);
	return result.data.rules;
}

function attempt(read: () => unknown, file: string): unknown {
	try {
		return read();
	} catch (error) {
		throw new RuleFileError([`${file}:1: it has too many aliases`], { cause: error });
	}
}

function problemsError(problems: readonly string[]): RuleFileError {
	if (problems.length <= MAX_PROBLEMS) return new RuleFileError(problems);
	return new RuleFileError([...problems.slice(0, MAX_PROBLEMS), `and ${problems.length - MAX_PROBLEMS} more problems`]);
}

/** Where the topics stand that are plain scalars. */
function unquotedTopics(contents: Node | null): number[] {
	const offsets: number[] = [];
	visit(contents, {
		Pair(_key, { key, value }) {
			if (!isScalar(key) || (key.value !== "topic" && key.value !== "topics") || !isNode(value)) return;
			visit(value, {
				Scalar(_place, scalar) {
					if (scalar.type === Scalar.PLAIN) offsets.push(scalar.range?.[0] ?? 0);
				},
			});
		},
	});
	return offsets;
}

/** Where the deepest part of a path stands that there is. */
function offsetOf(contents: Node | null, path: readonly PropertyKey[]): number {
	let node: unknown = contents;
	let offset = 0;
	for (const key of [undefined, ...path]) {
		if (key !== undefined) {
			if (isMap(node)) node = node.items.find((pair) => isScalar(pair.key) && pair.key.value === key)?.value;
			else node = isNode(node) && "items" in node && Array.isArray(node.items) ? node.items[Number(key)] : undefined;
		}
		if (!isNode(node) || isAlias(node)) break;
		offset = node.range?.[0] ?? offset;
	}
	return offset;
}

/** What a file looked like: any write changes it. */
type FileState = string;

/** A rule file that is watched. */
export class RuleFile implements RuleSource {
	readonly #path: string;
	readonly #log: Logger;
	readonly #listeners = new Set<() => void>();
	readonly #timer: ReturnType<typeof setInterval>;
	#rules: readonly Rule[];
	/** Of the file that was read last, good or not. */
	#read: FileState;
	/** At the last look: a file is read only when it has stayed the same for a look, because half a list may be a good one. */
	#seen: FileState;
	#looking = false;

	/**
	 * Reads the file, and looks at it again every `pollMs`.
	 * @param options.pollMs Half the time that a change takes to be noticed, 500 by default
	 * @throws {RuleFileError} when it cannot be read, is malformed, or has no rule
	 */
	constructor(path: string, options: { readonly pollMs?: number; readonly log?: Logger } = {}) {
		this.#path = path;
		this.#log = options.log ?? log("rules");
		this.#read = stateNow(path);
		this.#seen = this.#read;
		this.#rules = readRules(path);
		this.#timer = setInterval(() => void this.look(), options.pollMs ?? 500);
		this.#timer.unref();
	}

	get rules(): readonly Rule[] {
		return this.#rules;
	}

	onChange(listener: () => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	/** Stops looking. */
	close(): void {
		clearInterval(this.#timer);
		this.#listeners.clear();
	}

	/** Looks at the file now, as it does by itself: a changed file that is as it was at the last look is read. */
	async look(): Promise<void> {
		if (this.#looking) return;
		this.#looking = true;
		const state = await stat(this.#path, { bigint: true }).then(stateOf, () => "missing");
		this.#looking = false;
		const settled = state === this.#seen;
		this.#seen = state;
		if (settled && state !== this.#read) this.#reload(state);
	}

	#reload(state: FileState): void {
		this.#read = state;
		try {
			this.#rules = readRules(this.#path);
		} catch (error) {
			const problem = error instanceof Error ? error.message : String(error);
			this.#log.error("The rule file cannot be used; the rules stay as they were: {problem}", { problem });
			return;
		}
		this.#log.info("Read {count} rules from {file}", { count: this.#rules.length, file: this.#path });
		for (const listener of this.#listeners) listener();
	}
}

function stateNow(path: string): FileState {
	const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
	return stats === undefined ? "missing" : stateOf(stats);
}

function stateOf({ ino, size, mtimeNs, ctimeNs }: { ino: bigint; size: bigint; mtimeNs: bigint; ctimeNs: bigint }): FileState {
	return `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
}

function readRules(path: string): readonly Rule[] {
	let bytes: Uint8Array;
	try {
		const { size } = statSync(path);
		if (size > MAX_FILE_BYTES) throw new RangeError(`it has ${size} bytes, ${MAX_FILE_BYTES} is the limit`);
		bytes = readFileSync(path);
	} catch (error) {
		const problem = error instanceof Error ? error.message : String(error);
		throw new RuleFileError([`${path}:1: the file cannot be read: ${problem}`], { cause: error });
	}
	try {
		return parseRules(new TextDecoder("utf-8", { fatal: true }).decode(bytes), path);
	} catch (error) {
		if (error instanceof RuleFileError) throw error;
		throw new RuleFileError([`${path}:1: it is not UTF-8`], { cause: error });
	}
}
