// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of rules look like that.

/** Clients that are known by their certificate: over TLS, over a secure WebSocket, and through a proxy that has checked it. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { connect as connectTls } from "node:tls";
import { type Config, createBroker } from "../../src/shoal.ts";
import { granted, login, refusedWith, SECRET, token } from "../support/auth_clients.ts";
import { createAuthority, type KeyPair } from "../support/certificates.ts";
import { type ConnectOptions, freshId, RawClient } from "../support/raw_client.ts";
import { createFolder, suiteCleanup } from "../support/server_process.ts";
import { startBroker } from "../support/test_broker.ts";
import { WebSocketStream } from "../support/websocket_stream.ts";

const NOT_AUTHORIZED = 0x87;
const BAD = 0x86;
const RULES = 'rules:\n  - { permission: allow, action: all, topics: ["devices/${username}/#"], methods: ["certificate"] }\n';

const authority = createAuthority();
const server = authority.server();
const device = authority.client("/O=Example/CN=device-1");
const neighbour = authority.client("/O=Example/CN=device-2");
const nameless = authority.client("/O=Example");
const wild = authority.client("/CN=devices%2f#");
const stranger = createAuthority("Another CA").client("/CN=device-1");

type Transport = "tls" | "wss";
type Open = (transport: Transport, pair: KeyPair | undefined, options?: ConnectOptions) => Promise<RawClient>;

describe("client certificates", () => {
	const t = suiteCleanup();
	let required: Open;
	let requested: Open;

	/** A broker whose clients are opened by what is answered. */
	async function start(tlsClientCertificate: Config["tlsClientCertificate"]): Promise<Open> {
		const folder = createFolder(t);
		const files = { tlsCertFile: server.cert, tlsKeyFile: server.key, tlsCaFile: authority.cert, aclFile: RULES };
		for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
		const paths = Object.fromEntries(Object.keys(files).map((name) => [name, join(folder, name)]));
		const shoal = createBroker({
			...paths,
			...{ host: "127.0.0.1", port: 0, wssPort: 0, mqttTlsPort: 0, store: "memory", sysIntervalSeconds: 0 },
			...{ tlsClientCertificate, wssClientCertificate: tlsClientCertificate, clientCertificateName: "commonName", jwtSecret: SECRET },
		});
		await shoal.start();
		t.after(shoal.stop);
		const ports = await shoal.listen();
		return async (transport, pair, options = {}) => {
			const port = ports.find((each) => each.transport === transport)?.port ?? 0;
			const tls = { ca: authority.cert, ...pair };
			const { version = 5 } = options;
			let client: RawClient;
			if (transport === "wss") client = RawClient.over(await WebSocketStream.connect(port, "mqtt", { tls }), version);
			else {
				const socket = connectTls({ host: "127.0.0.1", port, ...tls });
				await once(socket, "secureConnect");
				client = RawClient.over(socket as never, version);
			}
			client.sendConnect(options);
			return client;
		};
	}

	before(async () => {
		[required, requested] = await Promise.all([start("require"), start("request")]);
	});

	for (const transport of ["tls", "wss"] as const) {
		it(`${transport}: the common name is user name and client id, and rules speak of it`, async () => {
			for (const [pair, name] of [
				[device, "device-1"],
				[neighbour, "device-2"],
			] as const) {
				for (const open of [required, requested]) {
					const client = await open(transport, pair, { clientId: "" });
					const { properties } = await client.expect("connack", { reasonCode: 0 });
					assert.equal(properties.assignedClientIdentifier, name);
					assert.deepEqual(granted(await client.subscribe(`devices/${name}/#`)), [0]);
					for (const filter of ["devices/+/x", "devices/device-3/#", "#"])
						assert.deepEqual(granted(await client.subscribe(filter)), [NOT_AUTHORIZED]);
					assert.equal((await client.publishAcked("devices/device-3/a", "x")).reasonCode, NOT_AUTHORIZED);
					client.publish(`devices/${name}/a`, "mine");
					await client.expect("publish", { payload: "mine" });
					await client.disconnect();
				}
			}
			const v3 = await required(transport, device, { version: 4 });
			await v3.expect("connack", { returnCode: 0 });
			await v3.disconnect();
		});

		it(`${transport}: a certificate of another authority, and none where one is required, do not get as far as CONNACK`, async () => {
			for (const pair of [stranger, undefined]) {
				const client = await required(transport, pair).catch(() => undefined);
				if (client === undefined) continue;
				await client.expectClosed();
			}
			const refused = await requested(transport, stranger).catch(() => undefined);
			await refused?.expectClosed();
		});

		it(`${transport}: where a certificate is only asked for, a token does as well; who brings neither is told 0x86`, async () => {
			const client = await requested(transport, undefined, { username: "x", password: await token() });
			await client.expect("connack", { reasonCode: 0 });
			await client.disconnect();
			const refused = await requested(transport, undefined);
			await refused.expect("connack", { reasonCode: BAD });
			await refused.expectClosed();
		});

		it(`${transport}: a password beside the certificate is judged instead of it`, async () => {
			const bad = await required(transport, device, { username: "x", password: `${await token()}x` });
			await bad.expect("connack", { reasonCode: BAD });
			const good = await required(transport, device, { clientId: "", username: "x", password: await token({ sub: "by-token" }) });
			assert.equal((await good.expect("connack", { reasonCode: 0 })).properties.assignedClientIdentifier, "by-token");
			await good.disconnect();
		});

		it(`${transport}: a certificate without a name is told 0x86, and one whose name rules could misread 0x85 [fault 55]`, async () => {
			await (await required(transport, nameless)).expect("connack", { reasonCode: BAD });
			await (await required(transport, wild)).expect("connack", { reasonCode: 0x85 });
		});
	}

	it("through a proxy: its header counts from where it is believed, and nobody else's", async (t) => {
		const header = { "x-client-cert": encodeURIComponent(device.cert) };
		const settings = {
			clientCertificateName: "commonName",
			clientCertificateHeader: "x-client-cert",
			trustedProxies: "1",
			aclDefault: "allow",
		} as const;
		const believed = await startBroker(t, { ...settings, trustedProxySources: ["127.0.0.1"] });
		const client = await login(believed, { clientId: "", headers: header });
		assert.equal(client.connack.properties.assignedClientIdentifier, "device-1");
		await client.disconnect();
		assert.equal(await refusedWith(believed, { clientId: freshId() }), BAD);
		const elsewhere = await startBroker(t, { ...settings, trustedProxySources: ["10.0.0.0/8"] });
		assert.equal(await refusedWith(elsewhere, { headers: header }), BAD);
	});
});
