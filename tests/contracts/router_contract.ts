/** What every router promises when there is no other replica, as tests. Knows no implementation. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { NO_PROPERTIES } from "../../src/mqtt/packet.ts";
import { Topic } from "../../src/mqtt/topic.ts";
import type { Forwarded, Router } from "../../src/router/router.ts";

const FILTERS = ["exact", "a/b", "wild/+", "wild/#", "$share/g/t", "$share/g/wild/+"];

const forwarded: Forwarded = {
	message: {
		topic: Topic.of("exact"),
		payload: Buffer.from("x"),
		qos: 1,
		retain: false,
		forwarded: NO_PROPERTIES,
		expiresAtMs: Number.POSITIVE_INFINITY,
		publisher: "",
	},
	appended: [{ log: "exact", seq: 1 }],
	groups: [],
};

/**
 * Defines the contract's tests for one implementation.
 * @param open Makes a router that is not started; called once for each test.
 */
export function routerContract(name: string, open: () => Router): void {
	const it = (title: string, check: (router: Router, events: string[]) => Promise<void>): void => {
		test(`${name}: ${title}`, async () => {
			const events: string[] = [];
			const router = open();
			await router.start({
				onRoute: (replica, filter, members) => events.push(`route ${replica} ${filter} ${members}`),
				onMessage: () => events.push("message"),
				onGroup: (group) => events.push(`group ${group}`),
				onTakeover: ({ clientId }) => events.push(`takeover ${clientId}`),
				onRoutesStored: () => {},
				onGap: () => events.push("gap"),
				onNotice: (notice) => {
					if (notice !== undefined) events.push(`notice ${notice}`);
				},
			});
			try {
				await check(router, events);
			} finally {
				await router.close();
			}
		});
	};

	it("its own routes are not told, and no topic is wanted elsewhere", async (router, events) => {
		await Promise.all(FILTERS.map((filter) => router.advertise(filter)));
		await router.catchUp();
		for (const filter of FILTERS) router.withdraw(filter);
		await router.catchUp();
		assert.deepEqual(events, []);
		assert.deepEqual([...router.exact(Topic.of("exact"))], []);
	});

	it("a filter that is advertised already needs no waiting", async (router) => {
		for (const filter of FILTERS) {
			await router.advertise(filter);
			assert.equal(router.advertise(filter), undefined, filter);
		}
	});

	it("a filter may be withdrawn and advertised again in one turn", async (router) => {
		for (const filter of FILTERS) {
			await router.advertise(filter);
			router.withdraw(filter);
			await router.advertise(filter);
			assert.equal(router.advertise(filter), undefined, filter);
		}
	});

	it("a message for no replica is forwarded at once, and one for a replica that does not exist is skipped", async (router, events) => {
		await router.forward([], forwarded, undefined);
		await router.forward(["nobody"], forwarded, "token");
		router.publish("nobody", forwarded.message, ["$share/g/t"]);
		router.ring(["nobody"], "$share/g/t");
		router.notifyTakeover("nobody", { clientId: "c", epoch: "e" });
		await router.catchUp();
		assert.deepEqual(events, []);
	});

	it("a replica that has left nothing can be forgotten", async (router, events) => {
		await router.forget("nobody");
		await router.catchUp();
		assert.deepEqual(events, []);
	});

	it("what it announces itself is not told to it", async (router, events) => {
		await router.announce("ban bob");
		await router.announce("ban bob");
		await router.catchUp();
		assert.deepEqual(events, []);
	});

	it("it can be closed twice", async (router) => {
		await router.close();
	});
}
