/** Whether Redis can keep what it is given, asked once at the start of the server, or of every master of a cluster. Each refusal says what to set. */

import { StoreError } from "../store.ts";
import type { Connection } from "./connection.ts";

/** When a write counts: `memory`: the primary has it; `aof`: it is on its disk; `replicated`: another server has it too. */
export type Durability = "memory" | "aof" | "replicated";

const MIN_MAJOR = 7;

/** Throws `StoreError` `unavailable` for a server that must not be used. */
export async function checkServer(connection: Connection, durability: Durability): Promise<void> {
	for (const reply of await connection.sendToAll("INFO", ["server"])) checkVersion(parseInfo(String(reply)));
	for (const policy of await settings(connection, "maxmemory-policy")) {
		if (policy === undefined || policy === "noeviction") continue;
		throw refused(`its maxmemory-policy is ${policy}, so it may throw stored messages away`, "Set maxmemory-policy noeviction");
	}
	if (durability !== "aof") return;
	const fsyncs = await settings(connection, "appendfsync");
	for (const [at, appendOnly] of (await settings(connection, "appendonly")).entries()) {
		const fsync = fsyncs[at];
		if (appendOnly === undefined || (appendOnly === "yes" && fsync === "always")) continue;
		throw refused(
			`a crash would lose acknowledged messages (appendonly ${appendOnly}, appendfsync ${fsync})`,
			"Set appendonly yes and appendfsync always, or choose the durability memory",
		);
	}
}

function checkVersion(info: ReadonlyMap<string, string>): void {
	const valkey = info.get("valkey_version");
	const version = valkey ?? info.get("redis_version") ?? "";
	if (valkey === undefined && Number.parseInt(version, 10) < MIN_MAJOR) {
		throw refused(`it is version ${version}`, `Use Redis ${MIN_MAJOR} or newer, or Valkey`);
	}
}

/** One for each server; `undefined` or none where they do not tell: many managed ones forbid CONFIG. */
async function settings(connection: Connection, name: string): Promise<readonly (string | undefined)[]> {
	try {
		const replies = (await connection.sendToAll("CONFIG", ["GET", name])) as Buffer[][];
		return replies.map(([, value]) => value?.toString());
	} catch (error) {
		if (!connection.ready) throw error;
		return [];
	}
}

function parseInfo(text: string): Map<string, string> {
	const fields = new Map<string, string>();
	for (const line of text.split("\r\n")) {
		const colon = line.indexOf(":");
		if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1));
	}
	return fields;
}

function refused(why: string, remedy: string): StoreError {
	return new StoreError("unavailable", `Cannot use this Redis: ${why}. ${remedy}`);
}
