/** Revocations and bans in the store: they count in every replica, and a replica that cannot know lets nobody in. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Principal } from "../../src/auth/auth.ts";
import { TooManyRecords } from "../../src/auth/managed.ts";
import { Unavailable } from "../../src/auth/member.ts";
import type { Revocation } from "../../src/auth/revocations.ts";
import { type Ban, StoredRevocations } from "../../src/auth/stored_revocations.ts";
import { AddressList } from "../../src/transport/address.ts";
import { recordingLog, TestClock } from "./auth_support.ts";
import { type RecordsView, SharedRecords } from "./managed_support.ts";

const alice: Principal = {
	name: "alice",
	method: "jwt",
	expiresAtMs: Number.POSITIVE_INFINITY,
	username: "al",
	tokenId: "t1",
	issuedAtMs: 1000,
};

class Replica {
	readonly view: RecordsView;
	readonly list: StoredRevocations;
	readonly told: Revocation[] = [];
	readonly banned: Ban[] = [];
	readonly lines: string[];

	constructor(shared: SharedRecords, clock: TestClock, maxEntries = 100) {
		const { lines, log } = recordingLog();
		this.lines = lines;
		this.view = shared.view();
		this.list = new StoredRevocations({ records: this.view, clock, log, networks: (entries) => new AddressList(entries), maxEntries });
		this.list.onRevoked((revocation) => this.told.push(revocation));
		this.list.onBanned((ban) => this.banned.push(ban));
	}
}

async function pair(): Promise<{ a: Replica; b: Replica; shared: SharedRecords; clock: TestClock }> {
	const [shared, clock] = [new SharedRecords(), new TestClock()];
	const [a, b] = [new Replica(shared, clock), new Replica(shared, clock)];
	await a.list.start();
	await b.list.start();
	return { a, b, shared, clock };
}

const revocation = (kind: Revocation["kind"], value: string, clock: TestClock, lifeMs = 60_000) => ({
	kind,
	value,
	revokedAtMs: clock.ms,
	expiresAtMs: clock.ms + lifeMs,
	reason: "because",
});

const ban = (kind: Ban["kind"], value: string, clock: TestClock, lifeMs = Number.POSITIVE_INFINITY): Ban => ({
	kind,
	value,
	reason: "because",
	createdAtMs: clock.ms,
	expiresAtMs: clock.ms + lifeMs,
});

describe("stored revocations", () => {
	it("until it is loaded nobody gets in: isRevoked rejects and every address is banned", async () => {
		const { list } = new Replica(new SharedRecords(), new TestClock());
		await assert.rejects(async () => list.isRevoked(alice, "c"), Unavailable);
		assert.equal(list.isBanned("192.0.2.1"), true);
		await list.start();
		assert.deepEqual([list.isRevoked(alice, "c"), list.isBanned("192.0.2.1")], [false, false]);
	});

	it("a revocation counts here when its promise resolves, and in another replica when that is told", async () => {
		const { a, b, clock } = await pair();
		for (const [kind, value] of [
			["token", "t1"],
			["clientId", "c"],
			["user", "alice"],
			["user", "al"],
		] as const) {
			await a.list.revoke(revocation(kind, value, clock));
			assert.equal(a.list.isRevoked(alice, "c"), true, kind);
			assert.equal(b.list.isRevoked(alice, "c"), false);
			await b.view.hear();
			assert.equal(b.list.isRevoked(alice, "c"), true, kind);
			assert.deepEqual([a.told.length, b.told.length], [1, 1], "each is told once");
			assert.deepEqual(b.told[0]?.value, value);
			assert.equal(await a.list.restore(kind, value), true);
			await b.view.hear();
			assert.deepEqual([a.list.isRevoked(alice, "c"), b.list.isRevoked(alice, "c")], [false, false]);
			a.told.length = 0;
			b.told.length = 0;
		}
		assert.equal(await a.list.restore("token", "t1"), false);
	});

	it("what was given after the revocation of a user is good, and it ends in time", async () => {
		const { a, clock } = await pair();
		await a.list.revoke(revocation("user", "alice", clock));
		assert.equal(a.list.isRevoked({ ...alice, issuedAtMs: clock.ms + 1000 }, "c"), false);
		assert.equal(a.list.isRevoked(alice, "c"), true);
		clock.ms += 60_000;
		assert.equal(a.list.isRevoked(alice, "c"), false);
		assert.equal(a.list.revocation("user", "alice"), undefined);
	});

	it("a ban of a client id or user holds for whatever they bring, and is told to those who hold connections", async () => {
		const { a, b, clock } = await pair();
		const fresh = { ...alice, issuedAtMs: clock.ms + 1000 };
		for (const [kind, value] of [
			["clientId", "c"],
			["user", "alice"],
			["user", "al"],
		] as const) {
			await a.list.ban(ban(kind, value, clock));
			await b.view.hear();
			assert.deepEqual([a.list.isRevoked(fresh, "c"), b.list.isRevoked(fresh, "c")], [true, true], `${kind} ${value}`);
			assert.equal(b.told.at(-1)?.value, value);
			assert.equal(b.banned.at(-1)?.value, value);
			await a.list.unban(kind, value);
			await b.view.hear();
			assert.deepEqual([a.list.isRevoked(fresh, "c"), b.list.isRevoked(fresh, "c")], [false, false]);
		}
		const nobody: Principal = { name: "", method: "anonymous", expiresAtMs: Number.POSITIVE_INFINITY };
		assert.equal(a.list.isRevoked(nobody, "c"), false);
	});

	it("a banned address or network is banned everywhere until its end, and told once", async () => {
		const { a, b, clock } = await pair();
		await a.list.ban(ban("address", "192.0.2.1", clock));
		await a.list.ban(ban("address", "2001:db8::/32", clock, 1000));
		await b.view.hear();
		assert.deepEqual(
			["192.0.2.1", "192.0.2.2", "2001:db8:1::1", "2001:db9::1"].map((address) => b.list.isBanned(address)),
			[true, false, true, false],
		);
		assert.deepEqual([b.banned.length, b.told.length], [2, 0]);
		clock.ms += 1000;
		assert.deepEqual([b.list.isBanned("192.0.2.1"), b.list.isBanned("2001:db8:1::1")], [true, false]);
		await a.list.unban("address", "192.0.2.1");
		await b.view.hear();
		assert.equal(b.list.isBanned("192.0.2.1"), false);
	});

	it("who is told that anything may have changed finds what came, what went, and is not told of the rest again", async () => {
		const { a, b, clock } = await pair();
		await a.list.revoke(revocation("token", "stays", clock));
		await a.list.revoke(revocation("token", "t1", clock));
		await b.view.hear();
		await a.list.restore("token", "t1");
		await a.list.revoke(revocation("clientId", "c9", clock));
		b.told.length = 0;
		await b.view.hear(true);
		assert.equal(b.list.isRevoked(alice, "c"), false);
		assert.equal(b.list.isRevoked(alice, "c9"), true);
		assert.deepEqual(
			b.told.map(({ value }) => value),
			["c9"],
		);
	});

	it("a change while everything is being read is not lost, in either direction", async () => {
		const { a, b, clock } = await pair();
		await a.list.revoke(revocation("token", "t1", clock));
		await b.view.hear();
		b.view.whileListing = async () => {
			b.view.whileListing = undefined;
			await a.list.restore("token", "t1");
			await a.list.revoke(revocation("clientId", "new", clock));
			await b.view.hear();
		};
		await b.view.hear(true);
		await b.view.hear();
		assert.equal(b.list.isRevoked(alice, "c"), false);
		assert.equal(b.list.isRevoked(alice, "new"), true);
	});

	it("what was taken back here while everything is being read does not come back, not even for a moment", async () => {
		const { b, clock } = await pair();
		await b.list.revoke(revocation("token", "t1", clock));
		await b.view.hear();
		b.told.length = 0;
		b.view.whileListing = async () => {
			b.view.whileListing = undefined;
			await b.list.restore("token", "t1");
		};
		await b.view.hear(true);
		assert.deepEqual([b.list.isRevoked(alice, "c"), b.told], [false, []]);
	});

	it("while the store cannot be read, what is known stays; it is tried again until it works, and said once", async () => {
		const { a, b, shared, clock } = await pair();
		await a.list.revoke(revocation("token", "t1", clock));
		await b.view.hear();
		await a.list.revoke(revocation("clientId", "later", clock));
		shared.failure = new Error("it is away");
		await b.view.hear();
		await b.view.hear(true);
		assert.deepEqual([b.list.isRevoked(alice, "c"), b.list.isRevoked({ ...alice, tokenId: "t2" }, "later")], [true, false]);
		assert.ok(b.lines.filter((line) => line.includes("it is away")).length >= 1);
		await assert.rejects(a.list.revoke(revocation("token", "x", clock)), /it is away/);
		assert.equal(a.list.isRevoked({ ...alice, tokenId: "x" }, "c"), false);
		shared.failure = undefined;
		const deadline = performance.now() + 10_000;
		while (b.list.isRevoked({ ...alice, tokenId: "t2" }, "later") !== true) {
			assert.ok(performance.now() < deadline, "it is never read again");
			await sleep(20);
		}
		assert.ok(b.lines.filter((line) => line.includes("it is away")).length <= 2, "once for each kind");
		b.list.close();
	});

	it("start rejects when the store cannot be read", async () => {
		const shared = new SharedRecords();
		shared.failure = new Error("it is away");
		const { list } = new Replica(shared, new TestClock());
		await assert.rejects(list.start(), /it is away/);
		await assert.rejects(async () => list.isRevoked(alice, "c"), Unavailable);
	});

	it("beyond the limit a new entry is refused, a known one is renewed, and what has expired makes room", async () => {
		const [shared, clock] = [new SharedRecords(), new TestClock()];
		const { list } = new Replica(shared, clock, 10);
		await list.start();
		for (let n = 0; n < 10; n++) await list.revoke(revocation("token", `t${n}`, clock));
		await assert.rejects(
			async () => list.revoke(revocation("token", "more", clock)),
			(error) => error instanceof TooManyRecords && /10 entries/.test(error.message),
		);
		await list.revoke(revocation("token", "t3", clock, 120_000));
		clock.ms += 60_000;
		await list.revoke(revocation("token", "more", clock));
		assert.equal(list.isRevoked({ ...alice, tokenId: "t3" }, "c"), true);
	});

	it("more than one page is loaded", async () => {
		const [shared, clock] = [new SharedRecords(), new TestClock()];
		const writer = shared.view();
		for (let n = 0; n < 2500; n++) {
			shared.kind("revocation").set(`token t${n}`, {
				key: `token t${n}`,
				value: { kind: "token", value: `t${n}`, revokedAtMs: 1, reason: "" },
				expiresAtMs: clock.ms + 1000,
			});
		}
		assert.equal(writer.listeners, 0);
		const { list, told } = new Replica(shared, clock, 5000);
		await list.start();
		for (const n of [0, 999, 1000, 2499]) assert.equal(list.isRevoked({ ...alice, tokenId: `t${n}` }, "c"), true);
		assert.equal(told.length, 2500);
	});

	it("a record that cannot be read is passed over, and the log says so", async () => {
		const { a, b, shared } = await pair();
		shared.kind("ban").set("user x", { key: "user x", value: { kind: "planet" }, expiresAtMs: Number.POSITIVE_INFINITY });
		await b.view.hear(true);
		assert.equal(b.list.isRevoked(alice, "c"), false);
		assert.match(b.lines.join("\n"), /cannot be read.*user x/);
		a.list.close();
		b.list.close();
		assert.equal(b.view.listeners, 0);
	});
});
