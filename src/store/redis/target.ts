/**
 * Where Redis is: the address that the configuration names, taken apart. Knows the forms of addresses and what to say of a
 * wrong one, and connects to nothing.
 *
 * - `redis://[user:password@]host[:6379][/db]`: one server.
 * - `redis+sentinel://[user:password@]host[:26379],host2[:26379]/name[/db]`: whichever server the Sentinels say is the primary of
 *   that name. User and password are those of the servers; `?sentinelUser=` and `?sentinelPassword=` those of the Sentinels.
 * - `redis+cluster://[user:password@]host[:6379],host2[:6379]`: Redis Cluster, found through any of these nodes.
 *
 * `rediss` instead of `redis` encrypts, the connections to Sentinels too. Then `?ca=`, `?cert=` and `?key=` name PEM files: the
 * authority to trust, and what this client shows; `?servername=` is the name that certificates must have instead of the host's.
 * What is special in a user, password or file is percent-encoded. An IPv6 address stands in brackets.
 */

import { readFileSync } from "node:fs";
import type { RedisOptions } from "ioredis";
import { StoreError } from "../store.ts";

/** Where Redis is: an address as above, or options of ioredis for one server or Sentinel. */
export type RedisTarget = string | RedisOptions;

export interface NodeAddress {
	readonly host: string;
	readonly port: number;
}

/** `options` has what every connection needs to log in; of a `cluster` without a host. */
export type ParsedTarget =
	| { readonly kind: "single" | "sentinel"; readonly options: RedisOptions }
	| { readonly kind: "cluster"; readonly options: RedisOptions; readonly nodes: readonly NodeAddress[] };

const FORM = /^(rediss?)(?:\+(sentinel|cluster))?:\/\/(?:([^/?#]*)@)?([^/?#@]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/;
const HOST = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/;
const TLS_PARAMETERS = ["ca", "cert", "key", "servername"];
const SENTINEL_PARAMETERS = ["sentinelUser", "sentinelPassword"];

/** Throws `StoreError` `unavailable` for an address that cannot be used. It never contains the address: that may have a password. */
export function parseTarget(target: RedisTarget): ParsedTarget {
	if (typeof target !== "string") return { kind: target.sentinels === undefined ? "single" : "sentinel", options: target };
	const [match, scheme, kind = "single", login, hosts = "", path = "", query = ""] = FORM.exec(target) ?? [];
	if (match === undefined) {
		throw refused("it is no address", "Write redis://host:6379, or see the documentation for Sentinel, Cluster and TLS");
	}
	const encrypted = scheme === "rediss";
	const parameters = parseQuery(query, [...(encrypted ? TLS_PARAMETERS : []), ...(kind === "sentinel" ? SENTINEL_PARAMETERS : [])]);
	const nodes = hosts.split(",").map((host) => parseHost(host, kind === "sentinel" ? 26_379 : 6379));
	const tls = encrypted ? { tls: readTls(parameters) } : {};
	const common: RedisOptions = { ...parseLogin(login), ...tls };
	const parts = path.split("/").filter((part) => part !== "");
	if (kind === "cluster") {
		if (parts.length > 0 && path !== "0") throw refused("a cluster has only the database 0", "Leave the part after the hosts out");
		return { kind, options: common, nodes };
	}
	if (kind === "sentinel") return { kind, options: { ...common, ...parseSentinel(nodes, parts, parameters, encrypted) } };
	const [node, second] = nodes;
	if (node === undefined || second !== undefined) {
		throw refused("it names several hosts", "Write redis+sentinel:// or redis+cluster:// before them");
	}
	if (parts.length > 1) throw refused("it has more than a database after the host", "Write redis://host:6379/0");
	return { kind: "single", options: { ...common, ...node, db: parseDatabase(parts[0]) } };
}

function parseSentinel(
	nodes: readonly NodeAddress[],
	[name, db, ...more]: readonly string[],
	parameters: ReadonlyMap<string, string>,
	encrypted: boolean,
): RedisOptions {
	if (name === undefined || more.length > 0) {
		throw refused("it does not name the primary that the Sentinels watch", "Write redis+sentinel://host:26379/mymaster");
	}
	const user = parameters.get("sentinelUser");
	const password = parameters.get("sentinelPassword");
	return {
		sentinels: nodes.map((node) => ({ ...node })),
		name: decode(name, "name of the primary"),
		db: parseDatabase(db),
		...(user === undefined ? {} : { sentinelUsername: user }),
		...(password === undefined ? {} : { sentinelPassword: password }),
		...(encrypted ? { enableTLSForSentinelMode: true, sentinelTLS: readTls(parameters) } : {}),
	};
}

function parseLogin(login: string | undefined): RedisOptions {
	if (login === undefined || login === "") return {};
	const colon = login.indexOf(":");
	if (colon < 0) throw refused("it names a user without a password", "Write user:password@ before the host, or :password@ without a user");
	const username = decode(login.slice(0, colon), "user");
	const password = decode(login.slice(colon + 1), "password");
	return username === "" ? { password } : { username, password };
}

function parseHost(text: string, defaultPort: number): NodeAddress {
	const [match, ipv6, name, port = String(defaultPort)] = HOST.exec(text) ?? [];
	const host = ipv6 ?? name;
	if (match === undefined || host === undefined || Number(port) < 1 || Number(port) > 65_535) {
		throw refused("a host or port in it is wrong or missing", "Write host:port, and an IPv6 address as [address]:port");
	}
	return { host, port: Number(port) };
}

function parseDatabase(text = "0"): number {
	if (!/^\d{1,4}$/.test(text)) throw refused("its database is not a number", "Write /0 or leave it out");
	return Number(text);
}

function parseQuery(query: string, allowed: readonly string[]): ReadonlyMap<string, string> {
	const parameters = new Map<string, string>();
	for (const part of query.split("&").filter((each) => each !== "")) {
		const equals = part.indexOf("=");
		const name = equals < 0 ? part : part.slice(0, equals);
		if (equals < 0 || !allowed.includes(name)) {
			const known = allowed.length === 0 ? "There are none for this kind of address" : `Those for this kind are ${allowed.join(", ")}`;
			// A name alone may be part of a password whose special characters were not encoded.
			throw refused("a parameter after the question mark is unknown", known);
		}
		parameters.set(name, decode(part.slice(equals + 1), name));
	}
	return parameters;
}

function readTls(parameters: ReadonlyMap<string, string>): NonNullable<RedisOptions["tls"]> {
	const tls: NonNullable<RedisOptions["tls"]> = {};
	for (const name of ["ca", "cert", "key"] as const) {
		const path = parameters.get(name);
		if (path !== undefined) tls[name] = readPem(name, path);
	}
	const servername = parameters.get("servername");
	if (servername !== undefined) tls.servername = servername;
	if ((tls.cert === undefined) !== (tls.key === undefined)) throw refused("it has only one of cert and key", "Name both files, or neither");
	return tls;
}

function readPem(name: string, path: string): string {
	try {
		return readFileSync(path, "utf8");
	} catch (error) {
		throw refused(`its file ${name} "${path}" cannot be read (${(error as NodeJS.ErrnoException).code})`, "Name a PEM file");
	}
}

function decode(text: string, what: string): string {
	try {
		return decodeURIComponent(text);
	} catch {
		throw refused(`the ${what} in it is not percent-encoded`, "Write % as %25");
	}
}

function refused(why: string, remedy: string): StoreError {
	return new StoreError("unavailable", `Cannot use REDIS_URL: ${why}. ${remedy}`);
}
