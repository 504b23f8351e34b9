import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, test } from "node:test";
import type { DoorReason } from "../../src/metrics.ts";
import { Door, type DoorOptions } from "../../src/transport/door.ts";
import type { PeerInfo } from "../../src/transport/socket.ts";
import { withoutRequest } from "../../src/transport/upgrade.ts";
import { createAuthority } from "../support/certificates.ts";

const UPGRADE: Readonly<Record<string, string>> = {
	Upgrade: "websocket",
	Connection: "Upgrade",
	"Sec-WebSocket-Version": "13",
	"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	"Sec-WebSocket-Protocol": "mqtt",
};

interface Visit {
	readonly url?: string;
	readonly headers?: Readonly<Record<string, string>>;
	readonly address?: string;
}

/** A door, and what it has counted. */
function door(options: DoorOptions, nowMs: () => number = () => 0) {
	const refused: DoorReason[] = [];
	const subject = new Door({ ...options, onRefused: (reason) => refused.push(reason) }, nowMs);
	const judge = ({ url = "http://broker.example/mqtt", headers = {}, address = "10.0.0.1" }: Visit = {}) =>
		subject.judge(
			{ method: "GET", url, headers: new Headers({ ...UPGRADE, ...headers }) },
			{ address, port: 4711 },
			{ requireSubprotocol: true },
		);
	return { subject, judge, refused };
}

function peerOf(options: DoorOptions, visit: Visit): PeerInfo {
	const judgement = door(options).judge(visit);
	if (judgement.kind === "refuse") assert.fail(`${judgement.status} ${judgement.message}`);
	return judgement.peer;
}

describe("Door", () => {
	test("without options: everybody may, and is who the socket says", () => {
		const headers = {
			Origin: "https://any.example",
			"X-Forwarded-For": "192.0.2.66",
			"Fly-Client-IP": "192.0.2.66",
			Authorization: "Bearer abc",
		};
		const { request, ...peer } = peerOf({}, { headers, address: "::ffff:10.0.0.1" });
		assert.deepEqual(peer, { transport: "ws", address: "10.0.0.1", port: 4711 });
		assert.equal(request?.url, "http://broker.example/mqtt");
		assert.equal(request?.headers.get("authorization"), "Bearer abc");
	});

	test("an upgrade that is none is refused as ever", () => {
		const judgement = door({}).judge({ headers: { Upgrade: "h2c" } });
		assert.equal(judgement.kind === "refuse" && judgement.status, 426);
	});

	test("trustedProxies: address is the client's, socketAddress the proxy's", () => {
		const visit = { headers: { "X-Forwarded-For": "192.0.2.66, 192.0.2.1" } };
		const peer = peerOf({ trustedProxies: { hops: 1 } }, visit);
		assert.equal(peer.address, "192.0.2.1");
		assert.equal(peer.socketAddress, "10.0.0.1");
	});

	test("trustedProxies: a malformed header leaves the socket's address", () => {
		const peer = peerOf({ trustedProxies: { hops: 1 } }, { headers: { "X-Forwarded-For": "192.0.2.1, x" } });
		assert.equal(peer.address, "10.0.0.1");
		assert.equal(peer.socketAddress, undefined);
	});

	test("origins: a page of another origin gets 403 and is counted; who is no page may", () => {
		const { judge, refused } = door({ origins: ["https://app.example.com"] });
		assert.equal(judge({ headers: { Origin: "https://app.example.com" } }).kind, "accept");
		assert.equal(judge().kind, "accept");
		const judgement = judge({ headers: { Origin: "https://evil.example" } });
		assert.equal(judgement.kind === "refuse" && judgement.status, 403);
		assert.deepEqual(refused, ["origin"]);
	});

	test("rate: 429 with Retry-After in whole seconds, counted by whose limit it was", () => {
		let nowMs = 0;
		const options = { ratePerAddress: { perSecond: 0.4, burst: 1 }, rateTotal: { perSecond: 0.001, burst: 2 } };
		const { judge, refused } = door(options, () => nowMs);
		assert.equal(judge().kind, "accept");
		nowMs = 100;
		const judgement = judge();
		if (judgement.kind !== "refuse") assert.fail("accepted");
		assert.equal(judgement.status, 429);
		assert.equal(judgement.headers["Retry-After"], "3");
		assert.equal(judge({ address: "10.0.0.2" }).kind, "accept");
		assert.equal(judge({ address: "10.0.0.3" }).kind, "refuse");
		assert.deepEqual(refused, ["rateAddress", "rateTotal"]);
	});

	test("rate: is that of the client behind the proxies, and one for all listeners", () => {
		const { subject, judge } = door({ ratePerAddress: { perSecond: 1, burst: 1 }, trustedProxies: { hops: 1 } });
		assert.equal(judge({ headers: { "X-Forwarded-For": "192.0.2.1" } }).kind, "accept");
		assert.equal(judge({ headers: { "X-Forwarded-For": "192.0.2.2" } }).kind, "accept");
		assert.equal(judge({ headers: { "X-Forwarded-For": "192.0.2.1" } }).kind, "refuse");
		assert.equal(subject.admits("192.0.2.2"), false);
		assert.equal(subject.admits("192.0.2.3"), true);
	});

	test("rate: requests that are refused for another reason count, too: a flood of them costs as much", () => {
		const { judge } = door({ ratePerAddress: { perSecond: 1, burst: 1 } });
		assert.equal(judge({ headers: { Upgrade: "h2c" } }).kind, "refuse");
		const judgement = judge();
		assert.equal(judgement.kind === "refuse" && judgement.status, 429);
	});
});

describe("Door with tokens", () => {
	const everywhere = { token: { authorization: true, cookie: "session", query: "access_token" } };
	for (const [title, visit, token] of [
		["Authorization", { headers: { Authorization: "Bearer a.b-c_d=" } }, "a.b-c_d="],
		["Authorization in lower case", { headers: { Authorization: "bearer abc" } }, "abc"],
		["another scheme", { headers: { Authorization: "Basic dXNlcjpwYXNz" } }, undefined],
		["Authorization with a word behind", { headers: { Authorization: "Bearer abc def" } }, undefined],
		["a cookie among others", { headers: { Cookie: "a=1; session=abc; b=2" } }, "abc"],
		["a quoted cookie", { headers: { Cookie: 'session="abc"' } }, "abc"],
		["a cookie twice", { headers: { Cookie: "session=abc; session=def" } }, undefined],
		["a cookie whose name ends like it", { headers: { Cookie: "xsession=abc" } }, undefined],
		["a query parameter", { url: "http://broker.example/mqtt?a=1&access_token=ab%2Bc" }, "ab+c"],
		["a query parameter twice", { url: "http://broker.example/mqtt?access_token=abc&access_token=def" }, undefined],
		["an empty query parameter", { url: "http://broker.example/mqtt?access_token=" }, undefined],
		[
			"all three: Authorization first",
			{ url: "http://b/?access_token=3", headers: { Authorization: "Bearer 1", Cookie: "session=2" } },
			"1",
		],
		["a request without a host", { url: "/mqtt?access_token=abc" }, "abc"],
		["none", {}, undefined],
	] as readonly (readonly [string, Visit, string | undefined])[]) {
		test(`${title}: the token is ${token}`, () => assert.equal(peerOf(everywhere, visit).token, token));
	}

	test("a place that is not named is not looked at", () => {
		const visit = { url: "http://b/?access_token=3", headers: { Authorization: "Bearer 1", Cookie: "session=2" } };
		assert.equal(peerOf({ token: { cookie: "other" } }, visit).token, undefined);
		assert.equal(peerOf({ token: { query: "access_token" } }, visit).token, "3");
	});

	test("the request that others see shows no token, used or not; what else it has stays", () => {
		const visit = {
			url: "http://b/mqtt?a=1&access_token=secret3",
			headers: { Authorization: "Bearer secret1", Cookie: "session=secret2" },
		};
		const { request } = peerOf(everywhere, visit);
		assert.equal(request?.url, "http://b/mqtt?a=1");
		assert.ok(![...(request?.headers ?? [])].flat().some((text) => text.includes("secret")));
		assert.equal(request?.headers.get("upgrade"), "websocket");
	});

	test("withoutRequest: forgets request and token, and nothing else", () => {
		const visit = { headers: { Authorization: "Bearer abc", "X-Forwarded-For": "192.0.2.1" } };
		const peer = peerOf({ ...everywhere, trustedProxies: { hops: 1 } }, visit);
		const expected = { transport: "ws", address: "192.0.2.1", port: 4711, socketAddress: "10.0.0.1" };
		assert.deepEqual(withoutRequest(peer), expected);
	});
});

describe("Door with certificates from a proxy", () => {
	const pem = createAuthority("CA").client("/O=Example, Ltd/CN=device-1", { subjectAltName: "DNS:device-1.example" }).cert;
	const options = { trustedProxies: { hops: 1, from: ["10.0.0.0/8"] }, certificateHeader: "Client-Cert" };
	const base64 = pem.replace(/-----[A-Z ]+-----|\s/g, "");

	for (const [form, value] of [
		["PEM with percent signs", encodeURIComponent(pem)],
		["base64", base64],
		["a byte sequence of RFC 9440", `:${base64}:`],
	] as const) {
		test(`${form}: is the identity`, () => {
			const { certificate } = peerOf(options, { headers: { "Client-Cert": value } });
			assert.equal(certificate?.commonName, "device-1");
			assert.equal(certificate?.subject, "CN=device-1,O=Example\\, Ltd");
			assert.equal(certificate?.issuer, "CN=CA");
			assert.equal(certificate?.subjectAltName, "DNS:device-1.example");
			assert.equal(certificate?.fingerprint256, new X509Certificate(pem).fingerprint256.replaceAll(":", "").toLowerCase());
		});
	}

	for (const [title, value] of [
		["nothing", ""],
		["rubbish", "rubbish"],
		["half a certificate", base64.slice(0, 200)],
		["a broken escape", "%E0%A4%A"],
		["far too much", base64.repeat(100)],
	] as const) {
		test(`${title}: is none`, () => assert.equal(peerOf(options, { headers: { "Client-Cert": value } }).certificate, undefined));
	}

	test("from elsewhere than the proxies: is none", () => {
		const visit = { headers: { "Client-Cert": base64, "X-Forwarded-For": "10.0.0.1" }, address: "192.0.2.66" };
		assert.equal(peerOf(options, visit).certificate, undefined);
	});

	test("a header without the networks of the proxies is a TypeError that says what to name", () => {
		assert.throws(() => new Door({ certificateHeader: "Client-Cert" }), { name: "TypeError", message: /trustedProxies\.from/ });
		assert.throws(() => new Door({ certificateHeader: "Client-Cert", trustedProxies: { hops: 1 } }), TypeError);
	});
});
