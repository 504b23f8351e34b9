/** The address of Redis: what its forms mean, what is said of wrong ones, and that encryption and users work. */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Redis } from "ioredis";
import { Connection } from "../../src/store/redis/connection.ts";
import { parseTarget } from "../../src/store/redis/target.ts";
import { createRedisStore, type RedisStore } from "../../src/store/redis_store.ts";
import { StoreError } from "../../src/store/store.ts";
import { createAuthority } from "../support/certificates.ts";
import { startRedis } from "../support/redis_server.ts";
import { until } from "./redis_support.ts";

test("parseTarget: one server, with and without what has a default", () => {
	assert.deepEqual(parseTarget("redis://r"), { kind: "single", options: { host: "r", port: 6379, db: 0 } });
	assert.deepEqual(parseTarget("redis://u:p%40%2F@r:1/2"), {
		kind: "single",
		options: { username: "u", password: "p@/", host: "r", port: 1, db: 2 },
	});
	assert.deepEqual(parseTarget("rediss://:p@[::1]/"), {
		kind: "single",
		options: { password: "p", host: "::1", port: 6379, db: 0, tls: {} },
	});
	assert.deepEqual(parseTarget({ host: "r" }), { kind: "single", options: { host: "r" } });
});

test("parseTarget: Sentinels, the name of their primary, and the users of both", () => {
	const sentinels = [
		{ host: "a", port: 26_379 },
		{ host: "b", port: 7 },
	];
	assert.deepEqual(parseTarget("redis+sentinel://a,b:7/main"), { kind: "sentinel", options: { sentinels, name: "main", db: 0 } });
	assert.deepEqual(parseTarget("rediss+sentinel://u:p@a,b:7/main/3?sentinelUser=s&sentinelPassword=q%26&servername=r"), {
		kind: "sentinel",
		options: {
			...{ username: "u", password: "p", sentinels, name: "main", db: 3, tls: { servername: "r" } },
			...{ sentinelUsername: "s", sentinelPassword: "q&", enableTLSForSentinelMode: true, sentinelTLS: { servername: "r" } },
		},
	});
	assert.equal(parseTarget({ sentinels, name: "main" }).kind, "sentinel");
});

test("parseTarget: the nodes of a cluster", () => {
	const nodes = [
		{ host: "a", port: 6379 },
		{ host: "::1", port: 7 },
	];
	assert.deepEqual(parseTarget("redis+cluster://a,[::1]:7"), { kind: "cluster", options: {}, nodes });
	assert.deepEqual(parseTarget("rediss+cluster://:p@a,[::1]:7/0"), { kind: "cluster", options: { password: "p", tls: {} }, nodes });
});

test("parseTarget: a wrong address is refused with the remedy, and nothing of it is told", () => {
	const refusals: readonly [string, RegExp][] = [
		["", /no address.*Write redis:\/\/host:6379/],
		["http://u:secret@r", /no address/],
		["redis://u:secret/x@r", /host or port|user without|more than a database|no address/],
		["redis://u:secret#x@r", /no address/],
		["redis://u:secret?x@r", /no address|host or port|parameter/],
		["redis://u:secret%@r", /password in it is not percent-encoded/],
		["redis://secret@r", /user without a password/],
		["redis://", /host or port/],
		["redis://u:secret@r:70000", /host or port/],
		["redis://::1", /host or port.*\[address\]:port/],
		["redis://a,b", /several hosts.*redis\+sentinel/],
		["redis://r/x", /database is not a number/],
		["redis://r?ca=secret", /parameter.*none for this kind/],
		["rediss://r?cb=secret", /parameter.*ca, cert, key, servername/],
		["rediss://r?cert=nowhere.pem", /cert "nowhere\.pem" cannot be read \(ENOENT\)/],
		["redis+sentinel://u:secret@a", /does not name the primary.*mymaster/],
		["redis+cluster://a/1", /only the database 0/],
	];
	for (const [address, expected] of refusals) {
		assert.throws(
			() => parseTarget(address),
			(error: Error) => {
				assert.ok(error instanceof StoreError && error.code === "unavailable");
				assert.match(error.message, expected);
				assert.match(error.message, /REDIS_URL/);
				assert.doesNotMatch(error.message, /secret/);
				return true;
			},
			address,
		);
	}
});

function make(redis: string): RedisStore {
	const limits = { logMaxMessages: 10, maxRetained: 10 };
	return createRedisStore({ redis, prefix: "test:", replicaId: "r1", durability: "aof", limits });
}

const startAndClose = async (store: RedisStore): Promise<void> => {
	await store.start(Date.now(), () => {});
	await store.close();
};

test("Redis store: a server whose certificate a private authority signed is trusted by its file, and by no other", async (t: TestContext) => {
	const directory = mkdtempSync(join(tmpdir(), "redis-tls-"));
	t.after(() => rmSync(directory, { recursive: true }));
	const file = (name: string, text: string): string => {
		writeFileSync(join(directory, name), text);
		return join(directory, name);
	};
	const authority = createAuthority();
	const pair = authority.server();
	const shown = authority.client("/CN=shoal");
	const ca = file("ca.pem", authority.cert);
	const plain = await startRedis();
	t.after(() => plain.stop());
	const port = plain.port;
	const client = new Redis(plain.url);
	t.after(() => client.disconnect());
	await client.config(
		"SET",
		"tls-cert-file",
		file("server.pem", pair.cert),
		"tls-key-file",
		file("server.key", pair.key),
		"tls-ca-cert-file",
		ca,
	);
	// The same port from now on, for encrypted connections; the client above has its connection.
	await client.config("SET", "port", "0");
	await client.config("SET", "tls-port", String(port));
	const query = `ca=${encodeURIComponent(ca)}&cert=${encodeURIComponent(file("client.pem", shown.cert))}&key=${encodeURIComponent(file("client.key", shown.key))}`;
	await startAndClose(make(`rediss://localhost:${port}?${query}`));
	const other = file("other.pem", createAuthority("Other").cert);
	const errors: Error[] = [];
	const connection = new Connection({
		target: `rediss://localhost:${port}?${query.replace(encodeURIComponent(ca), encodeURIComponent(other))}`,
		scripts: [],
		stallMs: 1000,
		onReady: () => assert.fail("it trusts another authority"),
		onError: (error) => errors.push(error),
	});
	t.after(() => connection.close());
	await until(async () => errors.length > 0);
	assert.match(String(errors[0]), /self.signed|certificate/i);
});

test("Redis store: a user with a password has what the store needs, and a wrong password is told", async (t: TestContext) => {
	const server = await startRedis();
	t.after(() => server.stop());
	const { port } = server;
	const client = new Redis(server.url);
	t.after(() => client.disconnect());
	const rights = ["~test:*", "&test:*", "+@all", "-@admin", "-@dangerous", "+info", "+config|get"];
	await client.acl("SETUSER", "shoal", "on", ">p@ss/word", ...rights);
	await client.acl("SETUSER", "default", "off");
	await startAndClose(make(`redis://shoal:p%40ss%2Fword@127.0.0.1:${port}`));
	const errors: Error[] = [];
	const connection = new Connection({
		target: `redis://shoal:wrong@127.0.0.1:${port}`,
		scripts: [],
		stallMs: 1000,
		onReady: () => {},
		onError: (error) => errors.push(error),
	});
	t.after(() => connection.close());
	await until(async () => errors.length > 0);
	assert.match(String(errors[0]), /WRONGPASS/);
});
