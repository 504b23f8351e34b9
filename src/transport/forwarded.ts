/**
 * The address of a client behind proxies, from the headers that they write. Believes no more than it is told to: whatever a
 * client puts in front of them by itself is not looked at. Knows headers only.
 */

import { AddressList, parseAddressWithPort } from "./address.ts";

/** Which proxies stand in front, and how they tell the client's address. */
export type TrustedProxies = (
	| {
			/** Proxies between the client and here, each of which adds the address that it sees; from 1 up. */
			readonly hops: number;
			/** The list they write; `x-forwarded-for` by default, or `forwarded` of RFC 7239. */
			readonly list?: "x-forwarded-for" | "forwarded";
	  }
	/** A header with nothing but the address, which the last proxy sets anew: `fly-client-ip`, `cf-connecting-ip`. */
	| { readonly header: string }
) & {
	/** Networks in which the last proxy is. From anywhere else the headers are not believed. Default: from anywhere. */
	readonly from?: readonly string[];
};

/** Reads the address; `undefined` where the socket's own has to do. */
export type ForwardedAddress = (headers: Headers, socketAddress: string) => string | undefined;

const FORWARDED_FOR = /(?:^|;)\s*for=("(?:[^"\\]|\\.)*"|[^";,\s]+)\s*(?=;|$)/i;
/** Elements of a `Forwarded` list: a comma between quotes separates nothing. */
const ELEMENT = /(?:"(?:[^"\\]|\\.)*"|[^",])*(?:,|$)/y;

/** Makes the reader. @throws {TypeError} when the options cannot be meant */
export function forwardedAddress(proxies: TrustedProxies): ForwardedAddress {
	const believed = proxies.from && new AddressList(proxies.from);
	const read = "header" in proxies ? readSingle(proxies.header) : readList(proxies.hops, proxies.list ?? "x-forwarded-for");
	return (headers, socketAddress) => (believed && !believed.has(socketAddress) ? undefined : read(headers));
}

function readSingle(name: string): (headers: Headers) => string | undefined {
	if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name)) throw new TypeError(`"${name}" is no name of a header: write one such as "fly-client-ip"`);
	return (headers) => parseAddressWithPort(headers.get(name)?.trim() ?? "");
}

function readList(hops: number, name: "x-forwarded-for" | "forwarded"): (headers: Headers) => string | undefined {
	if (!Number.isSafeInteger(hops) || hops < 1) throw new TypeError(`${hops} proxies cannot be trusted: give a whole number from 1 up`);
	return (headers) => {
		const text = headers.get(name);
		if (text === null) return undefined;
		const element = (name === "forwarded" ? forwardedElements(text) : text.split(",")).at(-hops);
		if (element === undefined) return undefined;
		return parseAddressWithPort(name === "forwarded" ? forwardedFor(element) : element.trim());
	};
}

function forwardedElements(text: string): string[] {
	const elements: string[] = [];
	let at = 0;
	while (at < text.length) {
		ELEMENT.lastIndex = at;
		const [element] = ELEMENT.exec(text) ?? [];
		// A quote without its other half: nobody knows where the elements are.
		if (element === undefined || element === "") return [];
		at += element.length;
		elements.push(element.replace(/,$/, ""));
	}
	return elements;
}

function forwardedFor(element: string): string {
	const value = FORWARDED_FOR.exec(element.trim())?.[1] ?? "";
	return value.startsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, "$1") : value;
}
