/** The door as the settings make it: whose pages may connect, whose word on addresses counts, and how often somebody may come (FAULTS 17, 48, 94). */

import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import type { Authenticator } from "../../src/auth/auth.ts";
import { freshAddress, login, refusedWith, SECRET, TOKEN_NAME, token } from "../support/auth_clients.ts";
import { Browser, serveFiles } from "../support/browser.ts";
import { RawClient } from "../support/raw_client.ts";
import { requestUpgrade } from "../support/raw_websocket.ts";
import { suiteCleanup } from "../support/server_process.ts";
import { type Cleanup, startBroker, type TestBroker } from "../support/test_broker.ts";

const NOT_AUTHORIZED = 0x87;
const PAGE = "<!DOCTYPE html><title>a page</title>";
/** What a page learns of a WebSocket: that it is open, or that it is not. */
const OPENS = (url: string) => `new Promise((resolve) => {
	const socket = new WebSocket(${JSON.stringify(url)}, "mqtt");
	socket.onopen = () => { socket.close(); resolve("open"); };
	socket.onerror = () => resolve("refused");
})`;

describe("pages in a browser", () => {
	const t = suiteCleanup();
	let browser: Browser;
	let port: number;
	let broker: TestBroker;

	before(async () => {
		port = await serveFiles(t, { "/": PAGE });
		const hosts = { "app.example:80": port, "sub.app.example:80": port, "app.example.evil.example:80": port, "evilapp.example:80": port };
		browser = await Browser.start(t, { hosts });
		broker = await startBroker(t, { allowedOrigins: ["http://app.example"], jwtSecret: SECRET, tokenCookie: TOKEN_NAME });
	});

	it("fault 94: a page of an allowed origin connects; one of another, and of a host that only looks alike do not", async () => {
		for (const [url, outcome] of [
			["http://app.example/", "open"],
			["http://sub.app.example/", "refused"],
			["http://app.example.evil.example/", "refused"],
			["http://evilapp.example/", "refused"],
			[`http://127.0.0.1:${port}/`, "refused"],
		] as const) {
			const page = await browser.open(url);
			assert.equal(await page.ask(OPENS(broker.wsUrl)), outcome, url);
			await page.close();
		}
		assert.equal(broker.shoal.metrics.doorRefused.origin, 4);
	});

	it("fault 94: a page of another origin cannot use its visitor's cookie", async () => {
		const cookie = `${TOKEN_NAME}=${await token()}`;
		const upgrade = (origin: string) => requestUpgrade({ port: broker.wsPort, headers: { origin, cookie } });
		assert.equal((await upgrade("http://evil.example")).status, 403);
		assert.equal((await upgrade("http://app.example")).status, 101);
	});

	it("a program, which has no origin, connects", async () => {
		await (await login(broker, { token: await token() })).disconnect();
	});
});

describe("addresses behind proxies", () => {
	/** The address that the authenticator is told of a client whose request has these headers. */
	const addressSeen = async (t: Cleanup, config: Parameters<typeof startBroker>[1], headers: Record<string, string>): Promise<string> => {
		let address = "";
		const principal = { name: "", method: "test", expiresAtMs: Number.POSITIVE_INFINITY };
		const authenticator: Authenticator = {
			authenticate({ peer }) {
				({ address } = peer);
				return { kind: "granted", principal };
			},
		};
		const client = await login(await startBroker(t, config, { authenticator }), { headers });
		await client.disconnect();
		return address;
	};

	it("without TRUSTED_PROXIES what X-Forwarded-For says does not count", async (t) => {
		assert.equal(await addressSeen(t, {}, { "x-forwarded-for": "203.0.113.7" }), "127.0.0.1");
	});

	it("with TRUSTED_PROXIES the address that the outermost of them saw counts, and not what the client put before it", async (t) => {
		for (const [forwarded, expected] of [
			["203.0.113.7, 10.0.0.1", "203.0.113.7"],
			["127.0.0.1, 203.0.113.7, 10.0.0.1", "203.0.113.7"],
			["203.0.113.7, 198.51.100.1, 10.0.0.1", "198.51.100.1"],
			// Not through both of them: nobody has seen the client.
			["203.0.113.7", "127.0.0.1"],
		] as const) {
			assert.equal(await addressSeen(t, { trustedProxies: "2" }, { "x-forwarded-for": forwarded }), expected, forwarded);
		}
	});

	it("with TRUSTED_PROXY_SOURCES only these are believed", async (t) => {
		const headers = { "x-forwarded-for": "203.0.113.7" };
		assert.equal(await addressSeen(t, { trustedProxies: "1", trustedProxySources: ["127.0.0.0/8"] }, headers), "203.0.113.7");
		assert.equal(await addressSeen(t, { trustedProxies: "1", trustedProxySources: ["10.0.0.0/8"] }, headers), "127.0.0.1");
	});

	it("Fly-Client-IP counts where that was said, and X-Forwarded-For then does not", async (t) => {
		const headers = { "fly-client-ip": "203.0.113.7", "x-forwarded-for": "198.51.100.1" };
		assert.equal(await addressSeen(t, { trustedProxies: "fly-client-ip" }, headers), "203.0.113.7");
	});

	it("while nothing is configured, whoever comes through a proxy on this machine is not of this machine", async (t) => {
		const broker = await startBroker(t);
		for (const headers of [{ "x-forwarded-for": "127.0.0.1" }, { forwarded: "for=127.0.0.1" }, { "x-real-ip": "127.0.0.1" }]) {
			assert.equal(await refusedWith(broker, { headers }), NOT_AUTHORIZED);
		}
		await (await RawClient.connect(broker)).disconnect();
	});
});

describe("the rate of connections", () => {
	const PER_SECOND = 3;
	/** Twice a second's. */
	const BURST = 6;
	const TRIES = 20;

	const upgrades = async (broker: TestBroker, address: () => string): Promise<number[]> => {
		const tries = Array.from({ length: TRIES }, () => requestUpgrade({ port: broker.wsPort, headers: { "x-forwarded-for": address() } }));
		return (await Promise.all(tries)).map(({ status, headers }) => {
			if (status === 429) assert.ok(Number(headers.get("retry-after")) >= 1);
			return status;
		});
	};
	const count = (statuses: readonly number[], status: number): number => statuses.filter((each) => each === status).length;

	it("fault 17: of one address that comes too often the rest gets 429; another address is let in, and the broker serves", async (t) => {
		const broker = await startBroker(t, { trustedProxies: "1", connectRatePerAddress: PER_SECOND });
		const one = freshAddress();
		const statuses = await upgrades(broker, () => one);
		// More than the burst only if the tries took longer than it takes for another.
		assert.ok(count(statuses, 101) >= BURST && count(statuses, 101) < TRIES, String(statuses));
		assert.equal(count(statuses, 101) + count(statuses, 429), TRIES);
		assert.equal(count(await upgrades(broker, freshAddress), 101), TRIES);
		assert.equal(broker.shoal.metrics.doorRefused.rateAddress, count(statuses, 429));
	});

	it("fault 17: of all addresses together the rest gets 429, over TCP a close", async (t) => {
		const broker = await startBroker(t, { trustedProxies: "1", connectRate: PER_SECOND });
		const statuses = await upgrades(broker, freshAddress);
		assert.ok(count(statuses, 101) >= BURST && count(statuses, 101) < TRIES, String(statuses));
		assert.equal(count(statuses, 101) + count(statuses, 429), TRIES);
		const client = await RawClient.open(broker);
		client.sendConnect();
		await client.expectClosed();
		assert.ok(broker.shoal.metrics.doorRefused.rateTotal > 0);
	});
});
