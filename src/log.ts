/**
 * The log of the process, on stderr: what happened, with fields. The only place that knows the logging library.
 * Says nothing until `configureLog` is called, so that a program that embeds the broker decides for itself.
 * Callers pass neither secrets nor payloads; bytes are shown by their length only.
 */

import { writeSync } from "node:fs";
import { configureSync, getLogger, type LogLevel, type LogRecord } from "@logtape/logtape";
import type { Config } from "./config.ts";

export type LogFields = Readonly<Record<string, unknown>>;

/** Logs under one category. Messages are constant sentences; whatever varies is a field, which `{name}` puts into the sentence. */
export interface Logger {
	debug(message: string, fields?: LogFields): void;
	info(message: string, fields?: LogFields): void;
	warn(message: string, fields?: LogFields): void;
	error(message: string, fields?: LogFields): void;
}

/** First part of every category, under which a program that embeds the broker can configure the library itself. */
const ROOT = "shoal";
const STDERR = 2;
const RETRY_MS = 1;
const RETRIES = 100;

const nameOf = (level: LogLevel): string => (level === "warning" ? "warn" : level);

/** Decides what is logged and how. The last call counts. */
export function configureLog({ level, format }: { readonly level: Config["logLevel"]; readonly format: Config["logFormat"] }): void {
	const toLine = format === "json" ? jsonLine : textLine;
	const sinks = level === "off" ? [] : ["stderr"];
	const lowestLevel = level === "warn" ? "warning" : level === "off" ? null : level;
	configureSync({
		reset: true,
		sinks: { stderr: (record) => writeLine(toLine(record)) },
		loggers: [
			{ category: ROOT, lowestLevel, sinks },
			{ category: ["logtape", "meta"], lowestLevel: "warning", sinks },
		],
	});
}

/** Makes a logger for a part of the broker, such as `connection`. Cheap, and may be called before `configureLog`. */
export function log(category: string): Logger {
	const logger = getLogger([ROOT, category]);
	return {
		debug: (message, fields = {}) => logger.debug(message, fields),
		info: (message, fields = {}) => logger.info(message, fields),
		warn: (message, fields = {}) => logger.warn(message, fields),
		error: (message, fields = {}) => logger.error(message, fields),
	};
}

function jsonLine(record: LogRecord): string {
	const head = { time: timeOf(record), level: nameOf(record.level), category: categoryOf(record), message: sentence(record) };
	// Twice: the first decides the order of the keys, the second that no field takes the place of one.
	return JSON.stringify({ ...head, ...record.properties, ...head }, showSpecial);
}

function textLine(record: LogRecord): string {
	const head = `${timeOf(record)} ${nameOf(record.level).padEnd(5)} ${categoryOf(record)}: ${sentence(record)}`;
	const said = new Set(String(record.rawMessage).match(/(?<=\{)\w+(?=\})/g));
	const fields = Object.entries(record.properties).filter(
		([name, value]) => value !== undefined && (!said.has(name) || value instanceof Error),
	);
	return [head, ...fields.map(([name, value]) => `${name}=${textOf(value)}`)].join(" ");
}

/** The message with the fields that it names, which the library has put at the odd places. The stack of an error stays a field. */
const sentence = (record: LogRecord): string =>
	record.message.map((part, index) => (index % 2 === 0 ? part : textOf(part instanceof Error ? part.message : part))).join("");

const timeOf = (record: LogRecord): string => new Date(record.timestamp).toISOString();

const categoryOf = (record: LogRecord): string => (record.category[0] === ROOT ? record.category.slice(1) : record.category).join(".");

/** Replacer for `JSON.stringify`. Looks at the holder's value, because `Buffer` has already become JSON in `value`. */
function showSpecial(this: unknown, key: string, value: unknown): unknown {
	const original: unknown = Reflect.get(Object(this), key);
	if (original instanceof Error) return errorText(original);
	if (original instanceof Uint8Array) return `${original.length} bytes`;
	return typeof original === "bigint" ? original.toString() : value;
}

function errorText(error: Error): string {
	const own = error.stack ?? String(error);
	return error.cause instanceof Error ? `${own}\ncaused by ${errorText(error.cause)}` : own;
}

/** Anything a client can choose is quoted unless it is a plain word, so that it can forge neither a field nor a line. */
function textOf(value: unknown): string {
	const json = JSON.stringify(value, showSpecial) ?? String(value);
	return typeof value === "string" && /^[\w.:/@+-]+$/.test(value) ? value : json;
}

/** Writes at once, so that nothing is lost at exit. A line that a full pipe does not take in time is given up. */
function writeLine(line: string): void {
	let bytes = new TextEncoder().encode(`${line}\n`);
	for (let tries = 0; bytes.length > 0 && tries < RETRIES; tries++) {
		try {
			bytes = bytes.subarray(writeSync(STDERR, bytes));
		} catch (error) {
			// EAGAIN: the pipe is full and non-blocking. Anything else (EPIPE) means that nobody reads, and nobody can be told.
			if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) return;
			Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
		}
	}
}
