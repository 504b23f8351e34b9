/** The clients of Mosquitto, a library in C of its own descent, over TCP and TLS. Debian builds them without WebSocket. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createAuthority } from "../support/certificates.ts";
import { MosquittoSubscriber, publish, publishWell } from "../support/mosquitto_client.ts";
import { MqttJsClient } from "../support/mqttjs_client.ts";
import { Program } from "../support/program.ts";
import { freshId } from "../support/raw_client.ts";
import { createFolder, suiteServer } from "../support/server_process.ts";
import { freshTopic } from "../support/traffic.ts";

const VERSIONS = ["mqttv31", "mqttv311", "mqttv5"] as const;

describe("mosquitto clients: TCP", () => {
	const server = suiteServer();
	const on = (version: string) => ["-h", "127.0.0.1", "-p", `${server().tcpPort}`, "-V", version];

	for (const version of VERSIONS) {
		/** Options of a session that outlives its connection. */
		const durable = (id: string) => ["-i", id, "-c", ...(version === "mqttv5" ? ["-x", "300"] : [])];

		it(`${version}: messages of every QoS arrive at the lesser QoS of both sides`, async (t) => {
			const topic = freshTopic();
			for (const granted of [0, 1, 2]) {
				const subscriber = await MosquittoSubscriber.start(t, [...on(version), "-t", topic, "-q", `${granted}`]);
				assert.deepEqual(subscriber.granted, [granted]);
				for (const qos of [0, 1, 2]) {
					await publishWell(t, [...on(version), "-t", topic, "-m", `QoS ${qos}`, "-q", `${qos}`]);
					const message = await subscriber.next();
					assert.deepEqual([message.topic, message.payload, message.qos], [topic, `QoS ${qos}`, Math.min(qos, granted)]);
				}
			}
		});

		it(`${version}: a thousand lines of QoS 2 arrive once and in order`, async (t) => {
			const topic = freshTopic();
			const subscriber = await MosquittoSubscriber.start(t, [...on(version), "-t", topic, "-q", "2"]);
			const lines = Array.from({ length: 1000 }, (_, index) => `line ${index}`);
			await publishWell(t, [...on(version), "-t", topic, "-q", "2", "-l"], `${lines.join("\n")}\n`);
			assert.deepEqual(
				(await subscriber.take(1000)).map(({ payload }) => payload),
				lines,
			);
		});

		it(`${version}: a retained message comes with the subscription, until it is cleared`, async (t) => {
			const topic = freshTopic();
			await publishWell(t, [...on(version), "-t", `${topic}/a`, "-m", "kept", "-q", "1", "-r"]);
			await publishWell(t, [...on(version), "-t", `${topic}/b`, "-m", "cleared", "-q", "1", "-r"]);
			await publishWell(t, [...on(version), "-t", `${topic}/b`, "-n", "-q", "1", "-r"]);
			const subscriber = await MosquittoSubscriber.start(t, [...on(version), "-t", `${topic}/#`, "-q", "1"]);
			const { payload, retain } = await subscriber.next();
			assert.deepEqual([payload, retain], ["kept", 1]);
			await publishWell(t, [...on(version), "-t", `${topic}/b`, "-m", "live", "-q", "1"]);
			assert.deepEqual((await subscriber.next()).payload, "live");
		});

		it(`${version}: the will of a killed client is published, that of one that disconnects is not`, async (t) => {
			const topic = freshTopic();
			const watcher = await MosquittoSubscriber.start(t, [...on(version), "-t", topic, "-q", "1"]);
			const withWill = (payload: string) => [...on(version), "--will-topic", topic, "--will-payload", payload, "--will-qos", "1"];
			const other = freshTopic();
			const leaving = await MosquittoSubscriber.start(t, [...withWill("left"), "-t", other, "-C", "1"]);
			await publishWell(t, [...on(version), "-t", other, "-m", "go"]);
			assert.equal((await leaving.program.ended).code, 0);
			const killed = await MosquittoSubscriber.start(t, [...withWill("killed"), "-t", other]);
			await killed.program.kill("SIGKILL");
			assert.equal((await watcher.next()).payload, "killed");
		});

		it(`${version}: a persistent session gets what was published while it was away`, async (t) => {
			const topic = freshTopic();
			const session = durable(freshId("mosq"));
			const first = Program.start(t, "mosquitto_sub", [...on(version), ...session, "-t", topic, "-q", "2", "-E"]);
			assert.equal((await first.ended).code, 0);
			for (const qos of [1, 2]) await publishWell(t, [...on(version), "-t", topic, "-m", `QoS ${qos}`, "-q", `${qos}`]);
			const again = await MosquittoSubscriber.start(t, [...on(version), ...session, "-t", topic, "-q", "2"]);
			assert.deepEqual((await again.take(2)).map(({ payload }) => payload).sort(), ["QoS 1", "QoS 2"]);
		});

		it(`${version}: after -U nothing comes from that filter`, async (t) => {
			const topic = freshTopic();
			const filters = ["-t", `${topic}/#`, "-t", `${topic}/a`, "-U", `${topic}/#`];
			const subscriber = await MosquittoSubscriber.start(t, [...on(version), ...filters, "-q", "1"]);
			assert.deepEqual(subscriber.granted, [1, 1]);
			await subscriber.program.until("UNSUBACK", () => /received UNSUBACK/.exec(subscriber.program.stdout) ?? undefined);
			await publishWell(t, [...on(version), "-t", `${topic}/b`, "-m", "no", "-q", "1"]);
			await publishWell(t, [...on(version), "-t", `${topic}/a`, "-m", "yes", "-q", "1"]);
			assert.equal((await subscriber.next()).payload, "yes");
		});

		it(`${version}: a payload of 500 KB from a file arrives whole`, async (t) => {
			const topic = freshTopic();
			const file = join(createFolder(t), "payload");
			const payload = "0123456789".repeat(50_000);
			writeFileSync(file, payload);
			const subscriber = await MosquittoSubscriber.start(t, [...on(version), "-t", topic, "-q", "1"]);
			await publishWell(t, [...on(version), "-t", topic, "-f", file, "-q", "1"]);
			assert.ok((await subscriber.next()).payload === payload);
		});
	}

	it("every version: PINGREQ keeps a connection past one and a half times its keep alive", { timeout: 60_000 }, async (t) => {
		const keptAlive = VERSIONS.map(async (version) => {
			const topic = freshTopic();
			// Less than 5 s the client does not allow.
			const { program } = await MosquittoSubscriber.start(t, [...on(version), "-t", topic, "-k", "5"]);
			await program.until("two PINGRESP", () => /(received PINGRESP.*){2}/s.exec(program.stdout) ?? undefined);
			assert.doesNotMatch(program.stdout, /(sending CONNECT.*){2}/s);
		});
		await Promise.all(keptAlive);
	});

	it("mqttv5: a client that is told to end says DISCONNECT 0x04, and its will is published", async (t) => {
		const topic = freshTopic();
		const watcher = await MosquittoSubscriber.start(t, [...on("mqttv5"), "-t", topic, "-q", "1"]);
		const will = ["--will-topic", topic, "--will-payload", "left", "--will-qos", "1"];
		const leaving = await MosquittoSubscriber.start(t, [...on("mqttv5"), ...will, "-t", freshTopic()]);
		await leaving.program.kill("SIGTERM");
		assert.equal((await watcher.next()).payload, "left");
	});

	it("mqttv5: properties arrive as they were sent", async (t) => {
		const topic = freshTopic();
		const options = ["-t", topic, "-q", "1", "-D", "subscribe", "subscription-identifier", "7"];
		const subscriber = await MosquittoSubscriber.start(t, [...on("mqttv5"), ...options]);
		const properties = [
			["content-type", "text/plain"],
			["response-topic", "answers"],
			["correlation-data", "42"],
			["payload-format-indicator", "1"],
			["message-expiry-interval", "1000"],
			["user-property", "name", "value"],
		].flatMap((property) => ["-D", "publish", ...property]);
		await publishWell(t, [...on("mqttv5"), "-t", topic, "-m", "hello", "-q", "1", ...properties]);
		const received = (await subscriber.next()).properties;
		assert.ok(received["message-expiry-interval"] > 990);
		assert.deepEqual(
			{ ...received, "message-expiry-interval": 0 },
			{
				"message-expiry-interval": 0,
				"content-type": "text/plain",
				"response-topic": "answers",
				"correlation-data": "42",
				"payload-format-indicator": 1,
				"subscription-identifier": 7,
				"user-properties": { name: "value" },
			},
		);
	});

	it("mqttv5: a Receive Maximum of 2 and small packets only are respected", async (t) => {
		const topic = freshTopic();
		const limits = ["-D", "connect", "receive-maximum", "2", "-D", "connect", "maximum-packet-size", "1000"];
		const subscriber = await MosquittoSubscriber.start(t, [...on("mqttv5"), "-t", topic, "-q", "2", ...limits]);
		const lines = Array.from({ length: 100 }, (_, index) => (index === 50 ? "x".repeat(2000) : `line ${index}`));
		await publishWell(t, [...on("mqttv5"), "-t", topic, "-q", "2", "-l"], `${lines.join("\n")}\n`);
		assert.deepEqual(
			(await subscriber.take(99)).map(({ payload }) => payload),
			lines.filter((line) => line.length < 1000),
		);
	});

	it("mqttv5: two members of a share group get each message once between them", async (t) => {
		const topic = freshTopic();
		const options = [...on("mqttv5"), "-t", `$share/group/${topic}`, "-q", "1"];
		const members = [await MosquittoSubscriber.start(t, options), await MosquittoSubscriber.start(t, options)] as const;
		const lines = Array.from({ length: 100 }, (_, index) => `${index}`);
		await publishWell(t, [...on("mqttv5"), "-t", topic, "-q", "1", "-l"], `${lines.join("\n")}\n`);
		const received = () => members.flatMap((member) => member.messages.map(({ payload }) => payload));
		for (let waited = 0; received().length < lines.length && waited < 1000; waited++) await sleep(10);
		assert.deepEqual(received().sort(), lines.sort());
		for (const member of members) assert.ok(member.messages.length > 0, "every member got some");
	});

	it("mqttv5: mosquitto_rr gets the response to its request", async (t) => {
		const topic = freshTopic();
		const responder = await MqttJsClient.connect(t, server().wsUrl, { protocolVersion: 5 });
		await responder.mqtt.subscribeAsync(`${topic}/request`, { qos: 1 });
		const requester = Program.start(t, "mosquitto_rr", [
			...on("mqttv5"),
			"-t",
			`${topic}/request`,
			"-e",
			`${topic}/response`,
			"-m",
			"question",
			"-q",
			"1",
		]);
		const { text, properties } = await responder.next();
		assert.equal(text, "question");
		const { responseTopic = "", correlationData } = properties;
		await responder.mqtt.publishAsync(responseTopic, "answer", { qos: 1, properties: { ...(correlationData && { correlationData }) } });
		const { code, stdout } = await requester.ended;
		assert.deepEqual([code, stdout], [0, "answer\n"]);
	});

	it("a packet above the largest is not even sent by a client of MQTT 5, who was told, and ends the connection of an older one", async (t) => {
		const topic = freshTopic();
		const file = join(createFolder(t), "payload");
		writeFileSync(file, Buffer.alloc(1_100_000));
		const large = ["-d", "-t", topic, "-f", file, "-q", "1"];
		assert.doesNotMatch((await publish(t, [...on("mqttv5"), ...large])).stdout, /sending PUBLISH/);
		const { code, stdout, stderr } = await publish(t, [...on("mqttv311"), ...large]);
		assert.notEqual(code, 0);
		assert.match(stdout, /sending PUBLISH/);
		assert.match(stderr, /connection was lost/);
		await publishWell(t, [...on("mqttv311"), "-t", topic, "-m", "small", "-q", "1"]);
	});
});

describe("mosquitto clients: TLS", () => {
	const authority = createAuthority();
	const stranger = createAuthority("Another CA");
	const certificates = { server: authority.server(), client: authority.client("/CN=device-1"), stranger: stranger.client("/CN=device-1") };
	const paths = new Map<string, string>();
	const writePems = (folder: string) => {
		const pems = Object.entries(certificates).flatMap(([name, { cert, key }]) => [
			[`${name}.cert`, cert] as const,
			[`${name}.key`, key] as const,
		]);
		for (const [name, pem] of [...pems, ["ca", authority.cert] as const, ["stranger.ca", stranger.cert] as const]) {
			paths.set(name, join(folder, name));
			writeFileSync(join(folder, name), pem);
		}
	};
	const path = (name: string) => paths.get(name) ?? "";
	const tls = () => ({ MQTT_TLS_PORT: "0", TLS_CERT_FILE: path("server.cert"), TLS_KEY_FILE: path("server.key"), TLS_CA_FILE: path("ca") });
	const open = suiteServer((t) => {
		writePems(createFolder(t));
		return { ...tls(), TLS_CLIENT_CERTIFICATE: "none" };
	});
	const closed = suiteServer(() => ({ ...tls(), TLS_CLIENT_CERTIFICATE: "require" }));
	const on = (server: typeof open, version: string, ca = "ca") => [
		"-h",
		"localhost",
		"-p",
		`${server().tlsPort}`,
		"-V",
		version,
		"--cafile",
		path(ca),
	];
	const certificate = (name: string) => ["--cert", path(`${name}.cert`), "--key", path(`${name}.key`)];

	for (const version of VERSIONS) {
		it(`${version}: messages pass over TLS, without and with a client certificate`, async (t) => {
			for (const options of [on(open, version), [...on(closed, version), ...certificate("client")]]) {
				const topic = freshTopic();
				const subscriber = await MosquittoSubscriber.start(t, [...options, "-t", topic, "-q", "2"]);
				await publishWell(t, [...options, "-t", topic, "-m", "secret", "-q", "2"]);
				assert.equal((await subscriber.next()).payload, "secret");
			}
		});
	}

	it("a client that does not know the authority does not connect", async (t) => {
		const { code, stderr } = await publish(t, [...on(open, "mqttv5", "stranger.ca"), "-t", "t", "-m", "m"]);
		assert.notEqual(code, 0);
		assert.match(stderr, /certificate verify failed|TLS/);
	});

	it("where a client certificate is required, none or a stranger's does not get in", async (t) => {
		const message = ["-t", freshTopic(), "-m", "m", "-q", "1"];
		for (const options of [[], certificate("stranger")]) {
			assert.notEqual((await publish(t, [...on(closed, "mqttv5"), ...options, ...message])).code, 0);
		}
		await publishWell(t, [...on(closed, "mqttv5"), ...certificate("client"), ...message]);
	});
});
