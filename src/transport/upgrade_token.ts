/**
 * The token that a client brings with its upgrade request, before MQTT has a word: from where, and how it is taken out, so
 * that nothing that looks at the request later can show it. Does not know what a token is.
 */

/** Where a token may be. Looked at in this order; whatever is not named is not looked at. */
export interface TokenSources {
	/** `Authorization: Bearer …`. */
	readonly authorization?: boolean;
	/** Name of a cookie. */
	readonly cookie?: string;
	/** Name of a query parameter, for browsers, which can set no header. It shows in the logs of proxies. */
	readonly query?: string;
}

interface UpgradeRequest {
	readonly url: string;
	readonly headers: Headers;
}

const BEARER = /^Bearer +([\w.~+/-]+=*) *$/i;

/** Longer than any header that a server takes by default. */
const MAX_LENGTH = 16_384;

/** Finds the token, and answers a copy of the request without any of the places where one may be. */
export function takeToken(
	{ url, headers }: UpgradeRequest,
	sources: TokenSources,
): { readonly token: string | undefined; readonly request: UpgradeRequest } {
	const kept = new Headers(headers);
	const found: (string | undefined)[] = [];
	if (sources.authorization) {
		found.push(BEARER.exec(headers.get("authorization") ?? "")?.[1]);
		kept.delete("authorization");
	}
	if (sources.cookie !== undefined) {
		found.push(cookie(headers.get("cookie") ?? "", sources.cookie));
		kept.delete("cookie");
	}
	let shownUrl = url;
	if (sources.query !== undefined) {
		// Bun tells the path alone where a request names no host.
		const parsed = new URL(url, "http://localhost");
		const values = parsed.searchParams.getAll(sources.query);
		// Several are ambiguous: a proxy may have judged another one.
		found.push(values.length === 1 ? values[0] : undefined);
		parsed.searchParams.delete(sources.query);
		if (values.length > 0) shownUrl = parsed.href;
	}
	const token = found.find((value) => value !== undefined && value !== "" && value.length <= MAX_LENGTH);
	return { token, request: { url: shownUrl, headers: kept } };
}

function cookie(header: string, name: string): string | undefined {
	const values = header
		.split(";")
		.map((pair) => pair.trim())
		.filter((pair) => pair.startsWith(`${name}=`))
		.map((pair) => pair.slice(name.length + 1).replace(/^"(.*)"$/, "$1"));
	return values.length === 1 ? values[0] : undefined;
}
