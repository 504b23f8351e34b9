/** What belongs to a publication besides the store: when it is called, and what a repetition does. */

import assert from "node:assert/strict";
import type { PublishRequest } from "../../../src/store/store.ts";
import { assertRejects, contract, message, NOW, numbers, type Suite, seqs, will } from "./fixture.ts";

type Forward = NonNullable<PublishRequest["forward"]>;
type Call = Parameters<Forward>;

/** Notes what it is called with; fails so many times first. */
function recorder(failures = 0): { readonly calls: Call[]; readonly forward: Forward } {
	const calls: Call[] = [];
	return {
		calls,
		forward(...call) {
			calls.push(call);
			return calls.length <= failures ? Promise.reject(new Error("not there")) : Promise.resolve();
		},
	};
}

export function forwardContract(suite: Suite): void {
	contract(suite, "forward: is told what was appended, and the result waits for it", async (f) => {
		await f.subscribe(await f.connect("a"), "t");
		const { promise, resolve } = Promise.withResolvers<void>();
		const events: string[] = [];
		const published = f.publish("t", ["t", "nobody"], {
			forward: async (appended, token) => {
				assert.deepEqual(appended, [{ log: "t", seq: 1 }]);
				assert.equal(token, undefined);
				setTimeout(resolve, 1);
				await promise;
				events.push("forwarded");
			},
		});
		const result = await published.finally(() => events.push("told"));
		assert.deepEqual(result, { appended: [{ log: "t", seq: 1 }], duplicate: false });
		assert.deepEqual(events, ["forwarded", "told"]);
	});

	contract(suite, "forward: is called in the order of the calls, whatever they store", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		const order: number[] = [];
		await Promise.all(
			numbers(1, 300).map((n) =>
				f.publish("t", n % 3 === 0 ? [] : ["t"], {
					message: message("t", { payload: "x", retain: n % 7 === 0 }),
					retain: n % 7 === 0,
					reserve: n % 5 === 0 ? { session: client.ref, packetId: n } : undefined,
					name: n % 5 !== 0 && n % 2 === 0 ? `n${n}` : undefined,
					forward: async () => void order.push(n),
				}),
			),
		);
		assert.deepEqual(order, numbers(1, 300));
	});

	contract(suite, "forward: when it fails so does the publication, and its repetition stores nothing twice [MQTT-4.3.3-10]", async (f) => {
		const client = await f.connect("a");
		await f.subscribe(client, "t");
		const { calls, forward } = recorder(2);
		const reserve = { session: client.ref, packetId: 7 };
		const publish = () => f.publish("t", ["t"], { message: message("t", { payload: "x", retain: true }), retain: true, reserve, forward });
		await assert.rejects(publish(), /not there/);
		await assert.rejects(publish(), /not there/);
		const { appended, duplicate } = await publish();
		assert.deepEqual({ appended, duplicate }, { appended: [{ log: "t", seq: 1 }], duplicate: false });
		assert.deepEqual(await publish(), { appended: [], duplicate: true });
		assert.equal(calls.length, 3, "not called for a duplicate");
		assert.ok(calls[0]?.[1]);
		for (const call of calls) assert.deepEqual(call, calls[0]);
		assert.deepEqual(seqs(await f.read("t")), [1]);
		assert.deepEqual((await f.connect("a")).reservedIds, [7]);
	});

	contract(suite, "forward: another publication of the same packet id has another token", async (f) => {
		const client = await f.connect("a");
		const { calls, forward } = recorder();
		for (let n = 0; n < 2; n++) {
			await f.publish("t", [], { reserve: { session: client.ref, packetId: 1 }, forward });
			await f.store.release(client.ref, 1);
		}
		assert.notEqual(calls[0]?.[1], calls[1]?.[1]);
	});

	contract(suite, "forward: a repetition that comes while the first is under way shares its fate", async (f) => {
		const client = await f.connect("a");
		const { calls, forward } = recorder(1);
		const publish = () => f.publish("t", [], { reserve: { session: client.ref, packetId: 1 }, forward });
		const both = await Promise.allSettled([publish(), publish()]);
		assert.deepEqual(
			both.map(({ status }) => status),
			["rejected", "rejected"],
		);
		assert.equal(calls.length, 1);
		const again = await Promise.all([publish(), publish()]);
		assert.deepEqual(
			again.map(({ duplicate }) => duplicate),
			[false, true],
		);
	});

	contract(suite, "forward: a will is due until it is forwarded", async (f) => {
		await f.subscribe(await f.connect("reader"), "w");
		await f.close(await f.connect("a", { will: will("w") }));
		const { calls, forward } = recorder(1);
		const publish = async () => {
			const [due] = (await f.store.due(NOW, 10)).wills;
			assert.ok(due);
			return f.publish("w", ["w"], { message: due.message, willId: due.id, forward });
		};
		await assert.rejects(publish(), /not there/);
		assert.deepEqual(await publish(), { appended: [{ log: "w", seq: 1 }], duplicate: false });
		assert.deepEqual((await f.store.due(NOW, 10)).wills, []);
		assert.deepEqual(calls[0], calls[1]);
		assert.deepEqual(seqs(await f.read("w")), [1]);
	});

	contract(suite, "forward: a named publication that is repeated is stored once", async (f) => {
		await f.subscribe(await f.connect("reader"), "t");
		const { calls, forward } = recorder(1);
		const publish = (name: string) => f.publish("t", ["t"], { message: message("t", { qos: 2 }), name, forward });
		await assert.rejects(publish("one"), /not there/);
		assert.deepEqual((await publish("one")).appended, [{ log: "t", seq: 1 }]);
		assert.deepEqual((await publish("two")).appended, [{ log: "t", seq: 2 }]);
		assert.ok(calls[0]?.[1]);
		assert.deepEqual(calls[0], calls[1]);
		assert.notEqual(calls[1]?.[1], calls[2]?.[1]);
		assert.deepEqual(seqs(await f.read("t")), [1, 2]);
	});

	contract(
		suite,
		"forward: is not called for what is refused",
		async (f) => {
			const { calls, forward } = recorder();
			const old = await f.connect("a");
			await f.connect("a");
			await assertRejects(f.publish("t", [], { reserve: { session: old.ref, packetId: 1 }, forward }), "fenced");
			const full = { message: message("t", { payload: "x", retain: true }), retain: true, forward };
			await f.retain("r");
			await assertRejects(f.publish("t", [], full), "full");
			await assertRejects(f.publish("t", [], { ...full, name: "n" }), "full");
			await f.retain("r", "");
			await f.publish("t", [], { ...full, name: "n" });
			assert.equal(calls.length, 1);
		},
		{ maxRetained: 1 },
	);
}
