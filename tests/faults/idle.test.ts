import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { assertServes } from "../support/canary.ts";
import { freshId, RawClient } from "../support/raw_client.ts";
import { encodeFrame, RawWebSocket, requestUpgrade } from "../support/raw_websocket.ts";
import { suiteBroker } from "../support/suite_broker.ts";
import { startBroker } from "../support/test_broker.ts";

const VERSIONS = [5, 4, 3] as const;
const TRANSPORTS = ["ws", "tcp"] as const;

describe("idle and half-open connections (fault 34)", () => {
	test("who is silent for 1.5 times the keep alive, even without reading or closing any more, is ended with 0x8D and its will is published; keep alive 0 and 65,535 go on", async (t) => {
		const broker = await startBroker(t);
		const topic = freshId("will");
		const watcher = await RawClient.connect(broker);
		await watcher.subscribe(`${topic}/+`);
		const silent: RawClient[] = [];
		const gone: RawClient[] = [];
		const living: RawClient[] = [];
		for (const version of VERSIONS) {
			for (const transport of TRANSPORTS) {
				const will = { topic: `${topic}/${version}-${transport}`, payload: "dead", qos: 0, retain: false };
				silent.push(await RawClient.connect(broker, { version, transport, keepalive: 1, will }));
				gone.push(await RawClient.connect(broker, { version, transport, keepalive: 1, will }));
				for (const keepalive of [0, 65_535]) living.push(await RawClient.connect(broker, { version, transport, keepalive }));
			}
		}
		for (const client of gone) client.pause();
		for (const client of silent) await client.expectDisconnect(0x8d);
		for (const _client of [...silent, ...gone]) await watcher.expect("publish", { payload: "dead" });
		for (const client of living) await client.expectNothing();
		assert.equal(broker.shoal.connections, living.length + 1);
		await assertServes(broker);
	});

	test("MAX_KEEP_ALIVE_SECONDS: a v5 client is told the Server Keep Alive and held to it, also when it asked for none; an older one, which cannot be told, is not", async (t) => {
		const broker = await startBroker(t, { maxKeepAliveSeconds: 1 });
		const modern: RawClient[] = [];
		for (const keepalive of [0, 65_535]) modern.push(await RawClient.connect(broker, { keepalive }));
		for (const { connack } of modern) assert.equal(connack.properties.serverKeepAlive, 1);
		const content = await RawClient.connect(broker, { keepalive: 1 });
		assert.equal(content.connack.properties.serverKeepAlive, undefined);
		const old = await RawClient.connect(broker, { version: 4, keepalive: 0 });
		for (const client of [...modern, content]) await client.expectDisconnect(0x8d);
		await old.expectNothing();
	});
});

describe("compression (fault 21)", () => {
	const broker = suiteBroker();

	test("permessage-deflate is not negotiated, whatever the client offers", async () => {
		for (const offer of ["permessage-deflate", "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame"]) {
			const { status, headers } = await requestUpgrade({ port: broker.wsPort, headers: { "Sec-WebSocket-Extensions": offer } });
			assert.equal(status, 101);
			assert.equal(headers.get("sec-websocket-extensions"), null);
		}
	});

	test("a frame that claims to be compressed ends the connection with 1002", async () => {
		const socket = await RawWebSocket.connect({ port: broker.wsPort, headers: { "Sec-WebSocket-Extensions": "permessage-deflate" } });
		socket.sendRaw(encodeFrame(Buffer.from([0xc0, 0]), { rsv1: true }));
		await socket.ended;
		assert.equal(socket.closeCode, 1002);
		await assertServes(broker);
	});
});

describe("topics of the broker (fault 62)", () => {
	const broker = suiteBroker({ sysIntervalSeconds: 1 });

	for (const version of VERSIONS) {
		test(`MQTT level ${version}: nobody can publish to $SYS, $CONTROL or other topics that begin with $`, async () => {
			const watcher = await RawClient.connect(broker, { version });
			for (const filter of ["$SYS/forged", "$CONTROL/#", "$other/+", "$"]) await watcher.subscribe(filter, { qos: 1 });
			const client = await RawClient.connect(broker, { version });
			for (const topic of ["$SYS/forged", "$CONTROL/dynamic-security/v1", "$other/x", "$", "$share/g/t"]) {
				client.publish(topic, "forged");
				client.publish(topic, "forged", { retain: true });
				client.publish(topic, "forged", { qos: 1, messageId: 1 });
				const puback = await client.expect("puback");
				client.publish(topic, "forged", { qos: 2, messageId: 2, retain: true });
				const pubrec = await client.expect("pubrec");
				if (version === 5) assert.deepEqual([puback.reasonCode, pubrec.reasonCode], [0x87, 0x87]);
			}
			await watcher.expectNothing();
			const late = await RawClient.connect(broker, { version });
			for (const filter of ["$SYS/forged", "$CONTROL/#", "$other/+"]) await late.subscribe(filter);
			await late.expectNothing();
			await assertServes(broker);
		});

		test(`MQTT level ${version}: a will to such a topic is refused with 0x87`, async () => {
			for (const topic of ["$SYS/forged", "$CONTROL/x", "$x"]) {
				const client = await RawClient.open(broker, version);
				client.sendConnect({ will: { topic, payload: "", qos: 0, retain: false } });
				await client.expect("connack", version === 5 ? { reasonCode: 0x87 } : { returnCode: 5 });
				await client.expectClosed();
			}
		});
	}

	test("# and + show nothing of $SYS in any version, $SYS/# shows it", async () => {
		const wild: RawClient[] = [];
		for (const version of VERSIONS) {
			const client = await RawClient.connect(broker, { version });
			for (const filter of ["#", "+/broker/#", "+/#", "$share/g/#"]) await client.subscribe(filter, { qos: 1 });
			wild.push(client);
		}
		const exact = await RawClient.connect(broker);
		await exact.subscribe("$SYS/broker/uptime");
		const { topic, payload } = await exact.expect("publish", { retain: true });
		assert.equal(topic, "$SYS/broker/uptime");
		// The next one was published since, and to the others as well if they had a right to it.
		for (let one = payload; `${one}` === `${payload}`; ) one = (await exact.expect("publish", { topic })).payload;
		for (const client of wild) await client.expectNothing();
	});
});
