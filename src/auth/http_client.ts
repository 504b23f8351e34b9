/**
 * The only HTTP that authentication speaks: one JSON request to a configured place, with limits on time and size, and without
 * redirects. Any trouble is {@link Unavailable}. Knows nothing of what the answer means.
 */

import { Unavailable } from "./member.ts";

/** What is asked of the platform's `fetch`; tests put their own in its place. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface HttpLimits {
	/** For the whole exchange. */
	readonly timeoutMs: number;
	/** Of the body after decompression. */
	readonly maxBytes: number;
}

/**
 * Checks an address from the configuration: https, or http to the loopback interface, without user name, password or fragment.
 * @throws {TypeError} that says what is wrong; the address is named without its query, which may hold a secret.
 */
export function checkedUrl(address: string, what: string): URL {
	let url: URL;
	try {
		url = new URL(address);
	} catch {
		throw new TypeError(`${what} is not a URL: write it with https://`);
	}
	const shown = `${url.protocol}//${url.host}${url.pathname}`;
	if (url.username !== "" || url.password !== "") throw new TypeError(`${what} ${url.host} carries a user name or password: use a header`);
	if (url.hash !== "") throw new TypeError(`${what} ${shown} has a fragment: remove it`);
	if (url.protocol === "https:" || (url.protocol === "http:" && isLoopbackHost(url.hostname))) return url;
	throw new TypeError(`${what} ${shown} is not https: only the loopback interface may be asked without TLS`);
}

/** Whether a URL's host is this machine. */
function isLoopbackHost(hostname: string): boolean {
	return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/** Whether a URL's host is an address that only a private network reaches. Names are not looked up. */
export function isPrivateHost(hostname: string): boolean {
	const host = hostname.replace(/^\[|\]$/g, "");
	if (host.includes(":")) return /^(::|f[cde]|64:ff9b:)/i.test(host);
	return (
		isLoopbackHost(hostname) || /^(0|10|127|169\.254|192\.168|172\.(1[6-9]|2\d|3[01])|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7]))\./.test(host)
	);
}

/**
 * Sends one request and reads the JSON of a 200.
 * @throws {Unavailable} for every other status, redirects included, for a body that is too large or not JSON, and for silence.
 */
export async function requestJson(fetch: Fetch, url: URL, init: RequestInit, { timeoutMs, maxBytes }: HttpLimits): Promise<unknown> {
	const signal = AbortSignal.timeout(timeoutMs);
	let text: string;
	try {
		const response = await fetch(url.href, { ...init, signal, redirect: "manual" });
		if (response.status !== 200) {
			await response.body?.cancel();
			throw new Unavailable(`${url.host} answered with status ${response.status} where 200 was expected`);
		}
		text = await limitedText(response, maxBytes, url.host);
	} catch (error) {
		if (error instanceof Unavailable) throw error;
		if (signal.aborted) throw new Unavailable(`${url.host} did not answer within ${timeoutMs} ms`);
		throw new Unavailable(`${url.host} cannot be reached`, { cause: error });
	}
	try {
		return JSON.parse(text);
	} catch {
		// Without the cause: its message quotes the body.
		throw new Unavailable(`${url.host} answered something else than JSON`);
	}
}

async function limitedText(response: Response, maxBytes: number, host: string): Promise<string> {
	const reader = response.body?.getReader();
	const chunks: Uint8Array[] = [];
	let length = 0;
	for (let part = await reader?.read(); part?.value !== undefined; part = await reader?.read()) {
		length += part.value.length;
		if (length > maxBytes) {
			await reader?.cancel();
			throw new Unavailable(`${host} answered more than ${maxBytes} bytes`);
		}
		chunks.push(part.value);
	}
	return Buffer.concat(chunks).toString("utf8");
}
