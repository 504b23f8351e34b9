import { test } from "node:test";
import { startBroker } from "./support/test_broker.ts";
import { freshId, RawClient } from "./support/raw_client.ts";
test("smoke", async (t) => {
	const broker = await startBroker(t);
	for (const version of [3,4,5] as const) {
		const a = await RawClient.connect(broker, { version, clientId: freshId() });
		console.log(JSON.stringify(a.connack));
		const s = await a.subscribe(`x/${version}/+`, { qos: 2 });
		console.log(JSON.stringify(s));
		a.publish(`x/${version}/y`, "hello");
		console.log(JSON.stringify(await a.receive()));
		a.publish(`x/${version}/y`, "hello1", { qos: 1, messageId: 5 });
		console.log(JSON.stringify(await a.receive()));
		console.log(JSON.stringify(await a.receive()));
		a.publish(`x/${version}/y`, "hello2", { qos: 2, messageId: 6 });
		console.log(JSON.stringify(await a.receive()));
		console.log(JSON.stringify(await a.receive()));
		a.publish(`x/${version}/r`, "ret", { qos: 1, messageId: 7, retain: true });
		console.log(JSON.stringify(await a.receive()));
		console.log(JSON.stringify(await a.receive()));
		const b = await RawClient.connect(broker, { version, clientId: freshId() });
		await b.subscribe(`x/${version}/#`);
		console.log(JSON.stringify(await b.receive()));
	}
	const p = { clientId: freshId(), clean: false, properties: { sessionExpiryInterval: 1000 } };
	const c = await RawClient.connect(broker, p);
	await c.subscribe("d/#", { qos: 2 });
	await c.destroy();
	const pub = await RawClient.connect(broker, {});
	for (let i = 0; i < 5; i++) await pub.publishAcked("d/1", `m${i}`, { qos: (i % 2) + 1 });
	const c2 = await RawClient.connect(broker, p);
	console.log(JSON.stringify(c2.connack));
	for (let i = 0; i < 5; i++) console.log(JSON.stringify(await c2.receive()));
});
