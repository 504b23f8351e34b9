import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { anonymousAuthenticator } from "../../src/auth/anonymous.ts";
import type { AuthOutcome, Credentials } from "../../src/auth/auth.ts";
import { ReasonCode } from "../../src/mqtt/reason_code.ts";
import { RawClient } from "../support/raw_client.ts";
import { startBroker } from "../support/test_broker.ts";

const LOOPBACK = ["127.0.0.1", "127.0.0.53", "127.255.255.254", "::1"];
const FOREIGN = ["192.0.2.1", "10.0.0.1", "169.254.1.1", "0.0.0.0", "128.0.0.1", "12.7.0.1", "2001:db8::1", "fe80::1", "::", "::11", ""];

/** What is decided for a client from this address, and who was named as refused. */
function decide(allowAll: boolean, address: string, credentials: Partial<Credentials> = {}): { outcome: AuthOutcome; refused: string[] } {
	const refused: string[] = [];
	const authenticator = anonymousAuthenticator({ allowAll, onRefused: (from) => refused.push(from) });
	const outcome = authenticator.authenticate({
		clientId: "c",
		username: undefined,
		password: undefined,
		authenticationMethod: undefined,
		authenticationData: undefined,
		peer: { transport: "ws", address, port: 50_000 },
		...credentials,
	});
	assert.ok(!(outcome instanceof Promise), "it is decided at once");
	return { outcome, refused };
}

describe("anonymous access", () => {
	test("without authentication whoever is on this machine may connect", () => {
		for (const address of LOOPBACK) {
			const { outcome, refused } = decide(false, address);
			assert.equal(outcome.kind, "granted", address);
			assert.deepEqual(refused, []);
		}
	});

	test("without authentication others are refused with 0x87 and named, whatever user name and password they have", () => {
		for (const address of FOREIGN) {
			for (const credentials of [{}, { username: "admin", password: new Uint8Array([1]) }]) {
				const { outcome, refused } = decide(false, address, credentials);
				assert.deepEqual(outcome, { kind: "refused", reasonCode: ReasonCode.notAuthorized }, address);
				assert.deepEqual(refused, [address]);
			}
		}
	});

	test("headers of a proxy are not believed: an upgrade request that claims loopback changes nothing", () => {
		const headers = new Headers({ "X-Forwarded-For": "127.0.0.1", "X-Real-IP": "::1", Forwarded: "for=127.0.0.1" });
		const peer = { transport: "ws", address: "192.0.2.1", port: 1, request: { url: "http://localhost/mqtt", headers } } as const;
		assert.equal(decide(false, "", { peer }).outcome.kind, "refused");
	});

	test("ALLOW_ANONYMOUS lets everybody in", () => {
		for (const address of [...LOOPBACK, ...FOREIGN]) {
			const { outcome, refused } = decide(true, address);
			assert.equal(outcome.kind, "granted", address);
			assert.deepEqual(refused, []);
		}
	});

	test("an anonymous client has no name and rights without end", () => {
		const { outcome } = decide(true, "192.0.2.1", { username: "mallory" });
		assert.ok(outcome.kind === "granted");
		assert.deepEqual(outcome.principal, { name: "", method: "anonymous", expiresAtMs: Number.POSITIVE_INFINITY });
	});

	test("an authentication method that nobody knows is refused with 0x8C, from this machine too", () => {
		for (const allowAll of [false, true]) {
			const { outcome } = decide(allowAll, "127.0.0.1", { authenticationMethod: "SCRAM-SHA-256" });
			assert.deepEqual(outcome, { kind: "refused", reasonCode: ReasonCode.badAuthenticationMethod });
		}
	});

	for (const allowAnonymous of [false, true]) {
		test(`a broker with ALLOW_ANONYMOUS=${allowAnonymous} serves clients over the loopback interface, with and without credentials`, async (t) => {
			const broker = await startBroker(t, { allowAnonymous });
			for (const transport of ["ws", "tcp"] as const) {
				for (const version of [5, 4, 3] as const) {
					await RawClient.connect(broker, { version, transport });
					await RawClient.connect(broker, { version, transport, username: "anybody", password: "anything" });
				}
			}
			const client = await RawClient.open(broker);
			client.sendConnect({ properties: { authenticationMethod: "PLAIN" } });
			await client.expect("connack", { reasonCode: 0x8c });
			await client.expectClosed();
		});
	}
});
