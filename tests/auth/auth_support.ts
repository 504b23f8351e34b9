/** What the tests of authentication share: a clock that stands, credentials, and a log that keeps its lines. */

import assert from "node:assert/strict";
import type { AuthOutcome, Credentials, Principal } from "../../src/auth/auth.ts";
import type { MemberOutcome } from "../../src/auth/member.ts";
import type { LogFields, Logger } from "../../src/log.ts";
import { reasonName } from "../../src/mqtt/reason_code.ts";

/** A clock that a test moves. */
export class TestClock {
	ms: number;

	constructor(ms = 1_800_000_000_000) {
		this.ms = ms;
	}

	nowMs(): number {
		return this.ms;
	}

	/** In seconds, as claims have it. */
	get seconds(): number {
		return this.ms / 1000;
	}
}

/** A log that keeps everything as text. */
export function recordingLog(): { readonly lines: string[]; readonly log: Logger } {
	const lines: string[] = [];
	const write = (message: string, fields: LogFields = {}) => {
		const shown = Object.entries(fields).map(
			([name, value]) => `${name}=${value instanceof Error ? errorText(value) : JSON.stringify(value)}`,
		);
		lines.push([message, ...shown].join(" "));
	};
	return { lines, log: { debug: write, info: write, warn: write, error: write } };
}

const errorText = (error: Error): string =>
	`${error.stack ?? error.message}${error.cause instanceof Error ? ` / ${errorText(error.cause)}` : ""}`;

/** Credentials of a client at 192.0.2.1 that brings nothing but these. */
export function credentials(
	fields: Partial<Omit<Credentials, "password">> & { readonly password?: string | Uint8Array; readonly address?: string } = {},
): Credentials {
	const { password, address = "192.0.2.1", ...rest } = fields;
	return {
		clientId: "",
		username: undefined,
		authenticationMethod: undefined,
		authenticationData: undefined,
		peer: { transport: "wss", address, port: 50_000 },
		...rest,
		password: typeof password === "string" ? Buffer.from(password) : password,
	};
}

/** An outcome in one word or sentence: the reason's name, with what the log would say. */
export function shown(outcome: MemberOutcome): string {
	if (outcome.kind !== "refused") return outcome.kind;
	return `${reasonName(outcome.reasonCode)}${outcome.why === undefined ? "" : `: ${outcome.why}`}`;
}

/** The principal of a login that succeeded. */
export function grantedTo(outcome: MemberOutcome | AuthOutcome): Principal {
	assert.equal(shown(outcome), "granted");
	return (outcome as Extract<AuthOutcome, { kind: "granted" }>).principal;
}
