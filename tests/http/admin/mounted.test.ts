/** The admin API within the broker's own app, and within another one: it keeps its answers, and changes nobody else's. */

import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { Hono } from "hono";
import { createApp } from "../../../src/http/app.ts";
import { AdminBench, OPERATOR } from "./admin_support.ts";

let bench: AdminBench;

before(async () => {
	bench = await AdminBench.open();
});

after(() => bench.close());

const brokerApp = () => createApp({ path: "/mqtt", upgrade: () => new Response(null, { status: 204 }), ready: () => true });

it("admin API: mounted in the broker's app it answers problems, and the rest of the app is as before", async () => {
	const app = brokerApp();
	app.route("/", bench.app);
	assert.equal((await app.request("/api/v1/users", { headers: OPERATOR })).status, 200);
	for (const [path, headers, status] of [
		["/api/v1/users", {}, 401],
		["/api/v1/nowhere", OPERATOR, 404],
		["/api/v1/users/nobody", OPERATOR, 404],
		["/api/v1", OPERATOR, 404],
	] as const) {
		const response = await app.request(path, { headers });
		assert.deepEqual([response.status, response.headers.get("content-type")], [status, "application/problem+json"], path);
		assert.equal(response.headers.get("cache-control"), "no-store", path);
	}
	assert.equal((await app.request("/healthz")).status, 200);
	assert.match(await (await app.request("/api/v2")).text(), /MQTT is spoken at/);
	assert.equal((await app.request("/.well-known/jwks.json")).status, 200);
});

it("admin API: mounted under a prefix it works below it", async () => {
	const outer = new Hono();
	const app = brokerApp();
	app.route("/", bench.app);
	outer.route("/broker", app);
	assert.equal((await outer.request("/broker/api/v1/users", { headers: OPERATOR })).status, 200);
	assert.equal((await outer.request("/broker/api/v1/users")).status, 401);
	assert.equal((await outer.request("/api/v1/users", { headers: OPERATOR })).status, 404);
});
