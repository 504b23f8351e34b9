import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it, type TestContext } from "node:test";
import { type Access, NOBODY, type Principal } from "../../src/auth/auth.ts";
import { HttpRules, type HttpRulesOptions } from "../../src/auth/http_rules.ts";
import type { LogFields, Logger } from "../../src/log.ts";

const ann: Principal = { ...NOBODY, name: "ann", username: "ann", method: "password" };
const publish = (topic: string, retain = false): Access => ({ action: "publish", topic, qos: 1, retain });

class Log implements Logger {
	readonly lines: string[] = [];
	debug = (message: string): number => this.lines.push(message);
	info = (message: string): number => this.lines.push(`info ${message}`);
	warn = (message: string): number => this.lines.push(message);
	error = (message: string, fields?: LogFields): number => this.lines.push(`error ${message} ${String(fields?.error)}`);
}

/** A service that answers what `respond` writes, rules that ask it, and what it was asked. */
async function service(
	context: TestContext,
	respond: (response: ServerResponse, body: string) => void,
	options: Partial<HttpRulesOptions> = {},
) {
	const asked: { headers: IncomingMessage["headers"]; body: unknown }[] = [];
	const server = createServer((request, response) => {
		let body = "";
		request.on("data", (chunk) => {
			body += chunk;
		});
		request.on("end", () => {
			asked.push({ headers: request.headers, body: JSON.parse(body) });
			respond(response, body);
		});
	});
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	context.after(() => {
		server.closeAllConnections();
		server.close();
	});
	const clock = { ms: 1_000_000, nowMs: () => clock.ms };
	const log = new Log();
	const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/rules`;
	return { rules: new HttpRules({ url, clock, log, ...options }), asked, clock, log };
}

const answering = (answer: unknown) => (response: ServerResponse) => {
	response.setHeader("content-type", "application/json").end(JSON.stringify(answer));
};

describe("HttpRules: question and answer", () => {
	it("the service hears who wants what, with the configured headers, and nothing secret", async (context) => {
		const { rules, asked } = await service(context, answering({ result: "allow" }), { headers: { authorization: "Bearer broker" } });
		assert.equal(await rules.decide(ann, "c1", publish("a/b", true)), "allow");
		assert.deepEqual(asked[0]?.body, {
			action: "publish",
			topic: "a/b",
			qos: 1,
			retain: true,
			clientId: "c1",
			name: "ann",
			method: "password",
			username: "ann",
		});
		assert.equal(asked[0]?.headers.authorization, "Bearer broker");
		await rules.decide(ann, "c1", { action: "subscribe", filter: "a/#", qos: 2 });
		assert.deepEqual((asked[1]?.body as { filter?: string } | undefined)?.filter, "a/#");
	});

	it("deny and ignore are understood", async (context) => {
		const denied = await service(context, answering({ result: "deny" }));
		assert.equal(await denied.rules.decide(ann, "c", publish("a")), "deny");
		const ignored = await service(context, answering({ result: "ignore" }));
		assert.equal(await ignored.rules.decide(ann, "c", publish("a")), undefined);
	});
});

describe("HttpRules: kept answers", () => {
	it("an answer counts for its time, for the very same question", async (context) => {
		const { rules, asked, clock } = await service(context, answering({ result: "allow" }), { cacheSeconds: 10 });
		assert.equal(await rules.decide(ann, "c", publish("a")), "allow");
		assert.equal(rules.decide(ann, "c", publish("a")), "allow");
		clock.ms += 9_999;
		assert.equal(rules.decide(ann, "c", publish("a")), "allow");
		assert.equal(asked.length, 1);
		await rules.decide(ann, "d", publish("a"));
		await rules.decide(ann, "c", publish("a", true));
		await rules.decide(ann, "c", { action: "subscribe", filter: "a", qos: 1 });
		await rules.decide({ ...ann }, "c", publish("a"));
		assert.equal(asked.length, 5);
		clock.ms += 1;
		await rules.decide(ann, "c", publish("a"));
		assert.equal(asked.length, 6);
	});

	it("the service may say for how long, or that it must be asked every time", async (context) => {
		const long = await service(context, answering({ result: "deny", cacheSeconds: 60 }));
		await long.rules.decide(ann, "c", publish("a"));
		long.clock.ms += 59_999;
		assert.equal(long.rules.decide(ann, "c", publish("a")), "deny");
		const never = await service(context, answering({ result: "allow", cacheSeconds: 0 }));
		await never.rules.decide(ann, "c", publish("a"));
		await never.rules.decide(ann, "c", publish("a"));
		assert.equal(never.asked.length, 2);
	});

	it("no more answers are kept than the limit", async (context) => {
		const { rules, asked } = await service(context, answering({ result: "allow" }), { maxCached: 2 });
		for (const topic of ["a", "b", "c"]) await rules.decide(ann, "c", publish(topic));
		assert.equal(rules.decide(ann, "c", publish("c")), "allow");
		await rules.decide(ann, "c", publish("a"));
		assert.equal(asked.length, 4);
	});

	it("forget makes every answer void and tells the listeners", async (context) => {
		const { rules, asked } = await service(context, answering({ result: "allow" }));
		let told = 0;
		const stop = rules.onChange(() => told++);
		await rules.decide(ann, "c", publish("a"));
		rules.forget();
		await rules.decide(ann, "c", publish("a"));
		assert.equal(asked.length, 2);
		stop();
		rules.forget();
		assert.equal(told, 1);
	});

	it("the same question is asked once at a time", async (context) => {
		const { rules, asked } = await service(context, answering({ result: "allow" }));
		const answers = await Promise.all([1, 2, 3].map(() => rules.decide(ann, "c", publish("a"))));
		assert.deepEqual(answers, ["allow", "allow", "allow"]);
		assert.equal(asked.length, 1);
	});
});

describe("HttpRules: fails closed", () => {
	const failures: readonly (readonly [string, (response: ServerResponse) => void])[] = [
		["an error status", (response) => response.writeHead(500).end('{"result":"allow"}')],
		["no content", (response) => response.writeHead(204).end()],
		["a redirect", (response) => response.writeHead(307, { location: "/allowed" }).end()],
		["something else than JSON", (response) => response.end("allow")],
		["JSON that is no decision", answering({ allow: true })],
		["another result", answering({ result: "ALLOW" })],
		["an absurd time", answering({ result: "allow", cacheSeconds: -1 })],
		["too much", (response) => response.end(`{"result":"allow","x":"${"x".repeat(70_000)}"}`)],
		["a broken connection", (response) => response.socket?.destroy()],
	];
	for (const [what, respond] of failures) {
		it(`${what} is no answer, is not kept, and is logged once`, async (context) => {
			const { rules, asked, log } = await service(context, respond);
			await assert.rejects(async () => rules.decide(ann, "c", publish("a")));
			await assert.rejects(async () => rules.decide(ann, "c", publish("a")));
			assert.ok(asked.length >= 2);
			assert.equal(log.lines.length, 1);
			assert.match(log.lines[0] ?? "", /^error The rules service fails/);
		});
	}

	it("silence ends after the time-out", async (context) => {
		const { rules } = await service(context, () => {}, { timeoutMs: 20 });
		await assert.rejects(async () => rules.decide(ann, "c", publish("a")), /20 ms/);
	});

	it("more open questions than the limit are refused at once, and answered again later", async (context) => {
		const waiting: ServerResponse[] = [];
		const { rules } = await service(context, (response) => waiting.push(response), { maxPending: 2 });
		const open = [rules.decide(ann, "c", publish("a")), rules.decide(ann, "c", publish("b"))];
		assert.throws(() => rules.decide(ann, "c", publish("c")), /2 questions/);
		while (waiting.length < 2) await new Promise((resolve) => setTimeout(resolve, 2));
		for (const response of waiting) answering({ result: "allow" })(response);
		assert.deepEqual(await Promise.all(open), ["allow", "allow"]);
		const later = rules.decide(ann, "c", publish("c"));
		while (waiting.length < 3) await new Promise((resolve) => setTimeout(resolve, 2));
		answering({ result: "deny" })(waiting[2] as ServerResponse);
		assert.equal(await later, "deny");
	});

	it("the return of the service is logged once", async (context) => {
		let broken = true;
		const { rules, log } = await service(context, (response) => {
			if (broken) response.writeHead(503).end();
			else answering({ result: "allow" })(response);
		});
		await assert.rejects(async () => rules.decide(ann, "c", publish("a")));
		broken = false;
		await rules.decide(ann, "c", publish("a"));
		await rules.decide(ann, "c", publish("b"));
		assert.deepEqual(
			log.lines.map((line) => line.split(" ")[0]),
			["error", "info"],
		);
	});

	it("only https, or http to this machine, may be asked", () => {
		for (const url of ["http://example.org/", "ftp://127.0.0.1/", "x"]) assert.throws(() => new HttpRules({ url }), TypeError);
	});
});
