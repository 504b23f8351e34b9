/** Revocations, bans and rules over Redis: what one replica's operator says counts at the other, also when connections fail. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Principal } from "../../src/auth/auth.ts";
import { StoredRevocations } from "../../src/auth/stored_revocations.ts";
import { StoredRules } from "../../src/auth/stored_rules.ts";
import { systemClock } from "../../src/clock.ts";
import { AddressList } from "../../src/transport/address.ts";
import { recordingLog } from "../auth/auth_support.ts";
import { RecordReplica } from "./record_replica.ts";
import { RedisBench, until } from "./redis_support.ts";

const WITHIN_MS = 2000;
const alice: Principal = { name: "alice", method: "jwt", expiresAtMs: Number.POSITIVE_INFINITY, tokenId: "t1", issuedAtMs: 1000 };

let bench: RedisBench;

before(async () => {
	bench = await RedisBench.start();
});

after(() => bench.stop());

interface Replica {
	readonly base: RecordReplica;
	readonly revocations: StoredRevocations;
	readonly rules: StoredRules;
	stop(): Promise<void>;
}

async function start(prefix: string, replicaId: string): Promise<Replica> {
	const base = await RecordReplica.start(bench, prefix, replicaId);
	const { log } = recordingLog();
	const { records } = base;
	const revocations = new StoredRevocations({ records, clock: systemClock, log, networks: (entries) => new AddressList(entries) });
	const rules = new StoredRules({ records, log });
	await revocations.start();
	await rules.start();
	return {
		base,
		revocations,
		rules,
		async stop() {
			revocations.close();
			rules.close();
			await base.stop();
		},
	};
}

const revocation = (value: string) => ({
	kind: "token" as const,
	value,
	revokedAtMs: Date.now(),
	expiresAtMs: Date.now() + 60_000,
	reason: "",
});

async function persistently(call: () => Promise<unknown>): Promise<void> {
	await until(() =>
		call().then(
			() => true,
			() => false,
		),
	);
}

test("stored revocations over Redis: within 2 s what is revoked, banned or forbidden at one replica is so at the other, and the listeners there are told", async () => {
	const prefix = bench.freshPrefix();
	const [a, b] = [await start(prefix, "a"), await start(prefix, "b")];
	const told: string[] = [];
	b.revocations.onRevoked(({ value }) => told.push(value));
	b.revocations.onBanned(({ value }) => told.push(value));
	const began = performance.now();
	await a.revocations.revoke(revocation("t1"));
	await a.revocations.ban({
		kind: "address",
		value: "192.0.2.0/24",
		reason: "",
		createdAtMs: Date.now(),
		expiresAtMs: Number.POSITIVE_INFINITY,
	});
	await a.rules.put("r", { permission: "deny", action: "all", topics: ["#"] });
	await until(
		async () => b.revocations.isRevoked(alice, "c") === true && b.revocations.isBanned("192.0.2.9") && b.rules.rules.length === 1,
	);
	assert.ok(performance.now() - began < WITHIN_MS);
	assert.deepEqual(told, ["t1", "192.0.2.0/24"]);
	await b.revocations.restore("token", "t1");
	await until(async () => a.revocations.isRevoked(alice, "c") === false);
	await a.stop();
	await b.stop();
});

test("stored revocations over Redis: who starts later has them from its start", async () => {
	const prefix = bench.freshPrefix();
	const a = await start(prefix, "a");
	await a.revocations.revoke(revocation("t1"));
	await a.rules.put("r", { permission: "deny", action: "all", topics: ["x"] });
	const b = await start(prefix, "b");
	assert.equal(b.revocations.isRevoked(alice, "c"), true);
	assert.deepEqual(b.rules.rules, a.rules.rules);
	await a.stop();
	await b.stop();
});

test("stored revocations over Redis: while connections are killed again and again, every revocation whose promise resolved arrives", async () => {
	const prefix = bench.freshPrefix();
	const [a, b] = [await start(prefix, "a"), await start(prefix, "b")];
	for (let round = 0; round < 10; round++) {
		const revoking = persistently(() => a.revocations.revoke(revocation(`t${round}`)));
		const ids = [...String(await bench.client.client("LIST")).matchAll(/^id=(\d+) .*cmd=(\S+)/gm)];
		for (const [, id, command] of ids) if (command?.startsWith("client") !== true) await bench.client.client("KILL", "ID", Number(id));
		await revoking;
	}
	await until(async () =>
		Array.from({ length: 10 }, (_, n) => b.revocations.isRevoked({ ...alice, tokenId: `t${n}` }, "c")).every((revoked) => revoked === true),
	);
	await a.stop();
	await b.stop();
});

test("stored revocations over Redis: one that was stored by a replica that died before it could tell counts when the others hear of its end", async () => {
	const prefix = bench.freshPrefix();
	const [a, b] = [await start(prefix, "a"), await start(prefix, "b")];
	const silent = bench.make(prefix, { replicaId: "silent" });
	await silent.start(Date.now(), () => {});
	await silent.records.put("revocation", "token t1", { kind: "token", value: "t1", revokedAtMs: Date.now(), reason: "" });
	assert.equal(b.revocations.isRevoked(alice, "c"), false);
	// It ends as if it had been the one.
	await a.stop();
	await until(async () => b.revocations.isRevoked(alice, "c") === true);
	await silent.close();
	await b.stop();
});
