import assert from "node:assert/strict";
import { connect } from "node:net";
import { describe, test } from "node:test";
import { createRuntimeAdapter } from "../../src/transport/runtime.ts";
import { within } from "../support/recording_handler.ts";

const adapter = createRuntimeAdapter({
	maxPacketSize: 65_536,
	maxBufferedBytes: 65_536,
	pingSeconds: 0,
	compression: false,
	requireSubprotocol: true,
});

/** Serves one handler for as long as `use` takes. */
async function serving(handler: (request: Request) => Response | Promise<Response>, use: (url: string, port: number) => Promise<void>) {
	const { port, stop } = await adapter.serve({ hostname: "127.0.0.1", port: 0, fetch: handler });
	try {
		await use(`http://127.0.0.1:${port}`, port);
	} finally {
		await stop();
	}
}

/** Sends bytes as they are and answers what comes back until the end. */
function exchange(port: number, request: string): Promise<string> {
	return new Promise((resolve) => {
		const stream = connect({ host: "127.0.0.1", port }, () => stream.write(request));
		let answer = "";
		stream.on("error", () => {});
		stream.on("data", (chunk: Buffer) => {
			answer += chunk.toString();
		});
		stream.on("close", () => resolve(answer));
	});
}

describe("serve", () => {
	test("a request arrives with method, URL, headers and body", async () => {
		const seen: unknown[] = [];
		await serving(
			async (request) => {
				const { pathname, search } = new URL(request.url);
				seen.push(request.method, pathname, search, request.headers.get("x-one"), await request.text());
				return new Response(null, { status: 204 });
			},
			async (url) => {
				const body = "body ".repeat(50_000);
				const response = await fetch(`${url}/a/b?c=d`, { method: "PUT", headers: { "X-One": "1" }, body });
				assert.equal(response.status, 204);
				assert.deepEqual(seen, ["PUT", "/a/b", "?c=d", "1", body]);
			},
		);
	});

	test("a response leaves with status, headers, every cookie and body", async () => {
		const headers = new Headers([
			["X-One", "1"],
			["Set-Cookie", "a=1"],
			["Set-Cookie", "b=2"],
		]);
		await serving(
			() => new Response("hello", { status: 418, headers }),
			async (url) => {
				const response = await fetch(url);
				assert.equal(response.status, 418);
				assert.equal(response.headers.get("x-one"), "1");
				assert.deepEqual(response.headers.getSetCookie(), ["a=1", "b=2"]);
				assert.equal(await response.text(), "hello");
			},
		);
	});

	test("a streamed response arrives part by part", async () => {
		let push: (text: string) => void = () => {};
		let end = () => {};
		const body = new ReadableStream<Uint8Array>({
			start: (controller) => {
				push = (text) => controller.enqueue(new TextEncoder().encode(text));
				end = () => controller.close();
			},
		});
		await serving(
			() => new Response(body),
			async (url) => {
				push("first");
				const response = await within(fetch(url), "the head");
				const reader = (response.body as ReadableStream<Uint8Array>).getReader();
				assert.equal(Buffer.from((await within(reader.read(), "the first part")).value ?? []).toString(), "first");
				push("second");
				assert.equal(Buffer.from((await within(reader.read(), "the second part")).value ?? []).toString(), "second");
				end();
				assert.equal((await within(reader.read(), "the end")).done, true);
			},
		);
	});

	test("a streamed response ends its source when the client goes", async () => {
		const gone = Promise.withResolvers<void>();
		const body = new ReadableStream<Uint8Array>({
			start: (controller) => controller.enqueue(new TextEncoder().encode("first")),
			cancel: () => gone.resolve(),
		});
		await serving(
			() => new Response(body),
			async (_url, port) => {
				const stream = connect({ host: "127.0.0.1", port }, () => stream.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
				stream.on("error", () => {});
				stream.on("data", () => stream.destroy());
				await within(gone.promise, "the cancellation");
			},
		);
	});

	test("HEAD: has the headers and no body", async () => {
		await serving(
			() => new Response("hello"),
			async (_url, port) => {
				const answer = await within(exchange(port, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), "the answer");
				assert.match(answer, /^HTTP\/1\.1 200 /);
				assert.ok(answer.endsWith("\r\n\r\n"));
			},
		);
	});

	test("HEAD: ends the source of a streamed response", async () => {
		const cancelled = Promise.withResolvers<void>();
		const body = () => new ReadableStream<Uint8Array>({ cancel: () => cancelled.resolve() });
		await serving(
			() => new Response(body()),
			async (url) => {
				assert.equal((await fetch(url, { method: "HEAD" })).status, 200);
				await within(cancelled.promise, "the cancellation");
			},
		);
	});

	test("a handler that throws: 500 without a word of the inside", async () => {
		await serving(
			() => {
				throw new Error("secret detail");
			},
			async (url) => {
				const response = await fetch(url);
				assert.equal(response.status, 500);
				assert.equal(await response.text(), "Internal server error\n");
			},
		);
	});

	for (const [title, request] of [
		["rubbish", "\x01\x02\x03 rubbish\r\n\r\n"],
		["a Host that is none", "GET / HTTP/1.1\r\nHost: a b:c:d\r\nConnection: close\r\n\r\n"],
		["an upgrade to something else", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"],
	] as const) {
		test(`${title}: does not end the server`, async () => {
			await serving(
				() => new Response("alive"),
				async (url, port) => {
					await within(exchange(port, request), "the end of the connection");
					assert.equal(await (await fetch(url)).text(), "alive");
				},
			);
		});
	}
});
