/** Which web pages may connect, by the Origin header that no script of a page can forge. Knows the form of origins only. */

/** Whether a page of an origin may connect. */
export type OriginCheck = (origin: string) => boolean;

const PATTERN = /^([a-z][a-z0-9+.-]*):\/\/(\*\.)?(\[[0-9a-f:.]+\]|[^\s/:?#@*[\]]+)(?::(\d{1,5}|\*))?$/;
const DEFAULT_PORTS: Readonly<Record<string, string>> = { http: "80", https: "443", ws: "80", wss: "443" };

/**
 * Makes the check of a list.
 *
 * @param allowed Origins such as `https://app.example.com`; `https://*.example.com` for all hosts below one (not the one
 * itself), `http://localhost:*` for any port, `null` for pages without an origin (files, sandboxed frames), and `*` for all.
 * @throws {TypeError} that names the entry which is none
 */
export function originCheck(allowed: readonly string[]): OriginCheck {
	const exact = new Set<string>();
	const patterns: Origin[] = [];
	for (const entry of allowed) {
		const origin = parse(entry);
		if (entry === "*" || entry === "null") exact.add(entry);
		else if (origin === undefined) {
			throw new TypeError(`"${entry}" is no origin: write "https://app.example.com", "https://*.example.com", "null" or "*"`);
		} else if (origin.below || origin.port === "*") patterns.push(origin);
		else exact.add(textOf(origin));
	}
	if (exact.has("*")) return () => true;
	return (text) => {
		if (text === "null") return exact.has(text);
		const origin = parse(text);
		if (origin === undefined || origin.below || origin.port === "*") return false;
		return exact.has(textOf(origin)) || patterns.some((pattern) => covers(pattern, origin));
	};
}

interface Origin {
	readonly scheme: string;
	/** Stands for all hosts below `host`. */
	readonly below: boolean;
	readonly host: string;
	/** `*` for any. */
	readonly port: string;
}

function parse(text: string): Origin | undefined {
	const [, scheme, below, host, port] = PATTERN.exec(text.toLowerCase()) ?? [];
	if (scheme === undefined || host === undefined) return undefined;
	return { scheme, below: below !== undefined, host, port: port ?? DEFAULT_PORTS[scheme] ?? "" };
}

function textOf({ scheme, host, port }: Origin): string {
	return `${scheme}://${host}:${port}`;
}

function covers(pattern: Origin, { scheme, host, port }: Origin): boolean {
	if (pattern.scheme !== scheme || (pattern.port !== "*" && pattern.port !== port)) return false;
	return pattern.below ? host.length > pattern.host.length + 1 && host.endsWith(`.${pattern.host}`) : host === pattern.host;
}
