import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Message } from "../../src/mqtt/message.ts";
import { NO_PROPERTIES } from "../../src/mqtt/packet.ts";
import { publishSize, writePublish } from "../../src/mqtt/publish_encoder.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { clientIdOf, filterRefusal, Tenancy } from "../../src/mqtt/tenancy.ts";
import { Topic, TopicTable } from "../../src/mqtt/topic.ts";

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
const acme = () => new Tenancy("acme", new TopicTable());

describe("topic: what is on the wire", () => {
	it("a topic of no tenant is the same there, in the same bytes", () => {
		for (const name of ["a/b", "$SYS/x", "$tenant", "$tenant/", "$tenant/acme", "$tenant/acme/", "$tenants/acme/x", "tenant/acme/x"]) {
			const topic = Topic.of(name);
			assert.equal(topic.wire, topic.bytes, name);
			assert.equal(topic.ofServer, name.startsWith("$"), name);
		}
	});

	it("a topic of a tenant goes without the tenant, as a view of its bytes", () => {
		for (const [name, wire] of [
			["$tenant/acme/a/b", "a/b"],
			["$tenant/acme//", "/"],
			["$tenant/é/ü", "ü"],
			["$tenant//x", "x"],
		] as const) {
			const decoded = Topic.decode(Buffer.from(name), 0, Buffer.byteLength(name));
			for (const topic of [Topic.of(name), decoded]) {
				assert.equal(text(topic.wire), wire);
				assert.equal(topic.wire.buffer, topic.bytes.buffer);
				assert.equal(topic.name, name);
				assert.equal(topic.ofServer, false);
			}
		}
	});

	it("PUBLISH has the tenant's own name, and the size to it", () => {
		const fields = { qos: 1, retain: false, dup: false, packetId: 1, subscriptionIds: undefined, topicAlias: 0, omitTopic: false } as const;
		for (const version of [4, 5] as const) {
			const [one, other] = ["$tenant/acme/a/b", "a/b"].map((name) => {
				const message: Message = {
					topic: Topic.of(name),
					payload: Buffer.from("x"),
					qos: 1,
					retain: false,
					forwarded: NO_PROPERTIES,
					expiresAtMs: Number.POSITIVE_INFINITY,
					publisher: "",
				};
				const all = { ...fields, version, expirySeconds: undefined };
				const packet = new Uint8Array(publishSize(message, all));
				assert.equal(writePublish(packet, 0, message, all), packet.length);
				return packet;
			});
			assert.deepEqual(one, other);
		}
	});
});

describe("Tenancy: names of clients and of the broker", () => {
	it("a topic is the same object each time, and the one that the store's bytes are", () => {
		const topics = new TopicTable();
		const tenancy = new Tenancy("acme", topics);
		const [a, b] = [Topic.of("a"), Topic.of("b/c")];
		const mounted = tenancy.topic(a);
		assert.equal(mounted?.name, "$tenant/acme/a");
		assert.equal(tenancy.topic(b)?.name, "$tenant/acme/b/c");
		assert.equal(tenancy.topic(a), mounted);
		assert.equal(new Tenancy("acme", topics).topic(Topic.of("a")), mounted);
		assert.equal(topics.intern(Buffer.from("$tenant/acme/a"), 0, 14), mounted);
		assert.equal(new Tenancy("bolt", topics).topic(a)?.name, "$tenant/bolt/a");
	});

	it("a filter is in the tenant's space, a share group too, and is seen without", () => {
		for (const [filter, mounted, seen] of [
			["#", "$tenant/acme/#", "#"],
			["+/b", "$tenant/acme/+/b", "+/b"],
			["/", "$tenant/acme//", "/"],
			["$share/g/a/#", "$share/g/$tenant/acme/a/#", "a/#"],
			["$share/$tenant/a", "$share/$tenant/$tenant/acme/a", "a"],
			["$shared/x", "$tenant/acme/$shared/x", "$shared/x"],
		] as const) {
			assert.equal(acme().filter(filter), mounted);
			const plain = mounted.startsWith("$share/") ? mounted.split("/").slice(2).join("/") : mounted;
			assert.equal(acme().seen(plain), seen);
			assert.equal(new Tenancy("acm", new TopicTable()).seen(plain), undefined);
		}
	});

	it("client ids, with a tenant and without one", () => {
		assert.equal(acme().clientId("x"), "$tenant/acme/x");
		assert.equal(clientIdOf("acme", "x"), "$tenant/acme/x");
		assert.equal(clientIdOf(undefined, "x"), "x");
	});

	it("what has more than 65,535 bytes in the broker is no name, counted in UTF-8 [MQTT-4.7.3-3]", () => {
		const room = 65_535 - "$tenant/acme/".length;
		const euros = "€".repeat(Math.floor(room / 3));
		for (const name of ["a".repeat(room), euros]) {
			assert.equal(acme().topic(Topic.of(name))?.name, `$tenant/acme/${name}`);
			assert.equal(acme().filter(name), `$tenant/acme/${name}`);
			assert.equal(acme().clientId(name), `$tenant/acme/${name}`);
		}
		for (const name of ["a".repeat(room + 1), `${euros}€`.slice(0, 21_845)]) {
			assert.equal(acme().topic(Topic.of(name)), undefined);
			assert.equal(acme().filter(name), undefined);
			assert.equal(acme().clientId(name), undefined);
		}
	});
});

describe("filterRefusal: filters that no right can open", () => {
	it("names in the space of tenants are refused to all, and the server's to tenants", () => {
		for (const filter of ["$tenant/#", "$tenant/acme/x", "$share/g/$tenant/acme/x"]) {
			assert.equal(filterRefusal(filter, undefined), ReasonCode.notAuthorized, filter);
			assert.equal(filterRefusal(filter, acme()), ReasonCode.notAuthorized, filter);
		}
		for (const filter of ["$SYS/#", "$share/g/$SYS/#"]) {
			assert.equal(filterRefusal(filter, undefined), ReasonCode.success, filter);
			assert.equal(filterRefusal(filter, acme()), ReasonCode.notAuthorized, filter);
		}
		for (const filter of ["#", "a/$tenant/x", "$share/$tenant/x", "tenant/x"]) {
			assert.equal(filterRefusal(filter, undefined), ReasonCode.success, filter);
			assert.equal(filterRefusal(filter, acme()), ReasonCode.success, filter);
		}
	});
});
