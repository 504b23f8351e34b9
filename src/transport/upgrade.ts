/**
 * Judges the HTTP request that wants to become a WebSocket: is it one, and which subprotocol is spoken on it. Knows HTTP
 * headers only, no runtime: both runtimes would otherwise echo whatever subprotocol comes first.
 */

import type { PeerInfo } from "./socket.ts";

export type UpgradeDecision =
	/** `protocol` is the subprotocol to answer; `undefined` to answer none. */
	| { readonly kind: "accept"; readonly protocol: string | undefined }
	/** `message` is one line for the body. */
	| { readonly kind: "refuse"; readonly status: number; readonly message: string; readonly headers: Readonly<Record<string, string>> };

/** The subprotocols of MQTT 3.1.1 and 5.0, and of 3.1 [MQTT-6.0.0-4]. */
const SUBPROTOCOLS: readonly string[] = ["mqtt", "mqttv3.1"];

const SPOKEN = SUBPROTOCOLS.map((name) => `"${name}"`).join(" and ");
/** Sixteen bytes in base64. */
const KEY = /^[A-Za-z0-9+/]{22}==$/;

/**
 * Decides on an upgrade request.
 *
 * @param requireSubprotocol Refuses a client that offers no subprotocol of MQTT. Without it such a client is accepted, and
 * none is chosen.
 */
export function decideUpgrade(
	request: { readonly method: string; readonly headers: Headers },
	{ requireSubprotocol }: { readonly requireSubprotocol: boolean },
): UpgradeDecision {
	const { method, headers } = request;
	if (method !== "GET") return refuse(405, `This is a WebSocket: ask with GET, not with ${method}`, { Allow: "GET" });
	const upgrades = list(headers, "upgrade").some((name) => name.toLowerCase() === "websocket");
	if (!upgrades || !list(headers, "connection").some((name) => name.toLowerCase() === "upgrade")) {
		return refuse(426, `This is a WebSocket that speaks the subprotocols ${SPOKEN}`, { Upgrade: "websocket", Connection: "Upgrade" });
	}
	if (headers.get("sec-websocket-version")?.trim() !== "13") {
		return refuse(426, "Only version 13 of the WebSocket protocol is spoken here", {
			"Sec-WebSocket-Version": "13",
			Upgrade: "websocket",
			Connection: "Upgrade",
		});
	}
	if (!KEY.test(headers.get("sec-websocket-key")?.trim() ?? "")) return refuse(400, "Sec-WebSocket-Key must be 16 bytes in base64");
	const protocol = list(headers, "sec-websocket-protocol").find((name) => SUBPROTOCOLS.includes(name));
	if (protocol === undefined && requireSubprotocol) return refuse(400, `Offer a WebSocket subprotocol that is spoken here: ${SPOKEN}`);
	return { kind: "accept", protocol };
}

/** The HTTP response to a refused upgrade. */
export function refusalResponse(refusal: UpgradeDecision & { readonly kind: "refuse" }): Response {
	return new Response(`${refusal.message}\n`, {
		status: refusal.status,
		headers: { ...refusal.headers, "Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff" },
	});
}

function refuse(status: number, message: string, headers: Readonly<Record<string, string>> = {}): UpgradeDecision {
	return { kind: "refuse", status, message, headers };
}

/** Elements of a comma-separated header; several headers of one name are one list. */
function list(headers: Headers, name: string): string[] {
	return (headers.get(name) ?? "").split(",").map((element) => element.trim());
}

/** What stays known of a peer once its upgrade request, with the token, is forgotten. */
export function withoutRequest({ request: _request, token: _token, ...kept }: PeerInfo): PeerInfo {
	return kept;
}
