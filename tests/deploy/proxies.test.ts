/** HAProxy, nginx and Caddy with our files: each accepted as it is, then run before two brokers with nothing changed but addresses. */

import assert from "node:assert/strict";
import { connect as connectTcp, createServer } from "node:net";
import { before, describe, it, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { createAuthority, type KeyPair } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { createFolder, reservePorts } from "../support/server_process.ts";
import { startBroker, type TestBroker } from "../support/test_broker.ts";
import { caddy, haproxy, nginx, untilReady } from "./proxies.ts";

const PATIENCE_MS = 15_000;
for (const proxy of [haproxy, nginx, caddy]) {
	describe(`deploy/${proxy.name}`, () => {
		let certificate: KeyPair;

		before(() => {
			certificate = createAuthority().server();
		});

		/** Two brokers behind the proxy, when it leads to them. */
		async function start(t: TestContext, tcp = 1): Promise<{ brokers: readonly [TestBroker, TestBroker]; url: string; mqtt: string }> {
			// Who comes through a proxy is not of this machine.
			const config = { allowAnonymous: true };
			const brokers = [await startBroker(t, config), await startBroker(t, config)] as const;
			const { PORT: ws, MQTT_TCP_PORT: mqtt } = await reservePorts();
			proxy.start(t, createFolder(t), certificate, { ws, mqtt, replicas: [brokers[0].wsPort, brokers[1].wsPort], tcp: [tcp] });
			const url = `${proxy.tls ? "wss" : "ws"}://127.0.0.1:${ws}/mqtt`;
			await untilReady(ws, proxy.tls);
			return { brokers, url, mqtt };
		}

		it("the program that it is for accepts it", (t) => {
			proxy.check(createFolder(t), certificate);
		});

		it("clients are spread over the brokers, and a broker that goes gets no new ones", async (t) => {
			const { brokers, url } = await start(t);
			const connect = () => MqttJsClient.connect(t, url, { protocolVersion: 5, rejectUnauthorized: false });
			for (let index = 0; index < 4; index++) await connect();
			assert.deepEqual(
				brokers.map(({ shoal }) => shoal.connections),
				[2, 2],
			);
			await (proxy.asks ? brokers[0].shoal.drain(0) : brokers[0].stop());
			await eventually("its clients are gone", () => brokers[0].shoal.connections === 0);
			// A proxy that asks only now and then may try once more, and the client with it.
			const deadline = Date.now() + PATIENCE_MS;
			let newcomers = 0;
			while (newcomers < 3) {
				assert.ok(Date.now() < deadline, "new clients find the other broker");
				newcomers += await connect().then(
					() => 1,
					() => sleep(100).then(() => 0),
				);
			}
			assert.deepEqual(
				brokers.map(({ shoal }) => shoal.connections),
				[0, 5],
			);
		});

		if (proxy.header !== undefined) {
			const header = proxy.header;
			it("MQTT over TCP arrives with the client's address in front", async (t) => {
				const received: Buffer[] = [];
				const target = createServer((socket) => void socket.on("data", (data) => received.push(Buffer.from(data))).on("error", () => {}));
				await new Promise<void>((resolve) => target.listen(0, "127.0.0.1", resolve));
				t.after(() => void target.close());
				const address = target.address();
				assert.ok(typeof address === "object" && address !== null);
				const { mqtt } = await start(t, address.port);
				const place = { host: "127.0.0.1", port: Number(mqtt) };
				const socket = proxy.tls ? connectTls({ ...place, rejectUnauthorized: false, ALPNProtocols: ["mqtt"] }) : connectTcp(place);
				t.after(() => void socket.destroy());
				socket.on("error", () => {});
				socket.write("the first bytes");
				await eventually("the bytes arrive", () => Buffer.concat(received).includes("the first bytes"));
				assert.deepEqual(Buffer.concat(received).subarray(0, header.length), Buffer.from(header));
			});

			it("a broker that is told of the PROXY protocol serves MQTT over TCP", async (t) => {
				const broker = await startBroker(t, { proxyProtocol: true });
				const { mqtt } = await start(t, broker.tcpPort);
				const client = await MqttJsClient.connect(t, `${proxy.tls ? "mqtts" : "mqtt"}://127.0.0.1:${mqtt}`, { rejectUnauthorized: false });
				await client.mqtt.subscribeAsync("a", { qos: 1 });
				await client.mqtt.publishAsync("a", "there and back", { qos: 1 });
				assert.equal((await client.next()).text, "there and back");
			});
		}
	});
}
