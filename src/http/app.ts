/**
 * The HTTP face of the broker as a Hono app: the way to the WebSocket, and health. Works by itself and mounted in another
 * app. Knows routes only; how a request becomes a WebSocket is handed in.
 */

import { type Context, Hono } from "hono";
import { getPath } from "hono/utils/url";
import { log } from "../log.ts";

const logger = log("http");

const HEADERS = {
	"Content-Type": "text/plain; charset=utf-8",
	"X-Content-Type-Options": "nosniff",
	"Cache-Control": "no-store",
} as const;

/** Where the admin API answers. */
const ADMIN_PLACES = ["/api/v1/*", "/.well-known/jwks.json"];

export interface AppOptions {
	/** Path of the WebSocket, such as `/mqtt`. */
	readonly path: string;
	/** See `RuntimeAdapter.upgrade`; `env` is the second argument of the app's `fetch`. */
	readonly upgrade: (request: Request, env: unknown) => Response | Promise<Response>;
	/** Whether clients may come; a word why where they may not. */
	readonly ready: () => boolean | string;
	readonly onUpgradeRefused?: (status: number) => void;
	/** Answers `/metrics`; `undefined` where that is not on this port. */
	readonly metricsPage?: ((request: Request) => Promise<Response>) | undefined;
	/** The admin API once the broker is started; `undefined` where there is none. */
	readonly admin?: () => Hono | undefined;
}

/** Makes the app. Under a prefix all paths are below it. */
export function createApp({ path, upgrade, ready, onUpgradeRefused, metricsPage, admin }: AppOptions): Hono {
	const app = new Hono({ getPath: pathOf });
	const upgradeRequest = async (context: Context) => {
		const response = await upgrade(context.req.raw, context.env);
		if (response.status >= 400) onUpgradeRefused?.(response.status);
		return response;
	};
	app.all(path, upgradeRequest);
	// In a browser MQTT.js makes `wss://host/` of `mqtts://host` and drops any path: those clients come here.
	if (path !== "/") app.get("/", (context, next) => (context.req.header("upgrade") === undefined ? next() : upgradeRequest(context)));
	// The process answers, so it lives.
	app.get("/healthz", () => text(200, "ok"));
	app.get("/readyz", () => {
		const state = ready();
		return state === true ? text(200, "ready") : text(503, state === false ? "not ready" : state);
	});
	if (metricsPage !== undefined) app.get("/metrics", (context) => metricsPage(context.req.raw));
	for (const place of ADMIN_PLACES) {
		app.all(place, (context, next) => {
			const api = admin?.();
			return api === undefined ? next() : api.fetch(withoutPrefix(context.req.raw), context.env);
		});
	}
	app.notFound(() => text(404, `Not found; MQTT is spoken at ${path} over a WebSocket with the subprotocol "mqtt"`));
	app.onError((error) => {
		logger.error("HTTP request failed", { error });
		return text(500, "Internal server error");
	});
	return app;
}

/** The request as the API knows it, where the app is mounted below a prefix of another. */
function withoutPrefix(request: Request): Request {
	const url = new URL(request.url);
	const at = Math.max(url.pathname.indexOf("/api/v1/"), url.pathname.indexOf("/.well-known/"));
	if (at <= 0) return request;
	url.pathname = url.pathname.slice(at);
	return new Request(url, request);
}

/** Bun tells the path alone where a request names no host, as the health checks of HAProxy do over HTTP/1.0. */
function pathOf(request: Request): string {
	return getPath(request.url.startsWith("/") ? ({ url: `http://localhost${request.url}` } as Request) : request);
}

function text(status: number, line: string): Response {
	return new Response(`${line}\n`, { status, headers: HEADERS });
}
