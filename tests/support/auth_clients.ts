/** Clients that bring a token in each of the ways that there are, each from an address of its own, and what they are told. */

import assert from "node:assert/strict";
import { SignJWT } from "jose";
import { type AnyPacket, type ConnectOptions, freshId, RawClient } from "./raw_client.ts";
import { WebSocketStream } from "./websocket_stream.ts";

/** For `JWT_SECRET`. */
export const SECRET = "a secret of forty characters for tokens!";
/** For `TOKEN_COOKIE` and `TOKEN_QUERY`. */
export const TOKEN_NAME = "access";
/** Authentication Method by which tokens come in AUTH. */
export const METHOD = "OAUTH2-JWT";
/** Topic for the next token of clients without AUTH. */
export const RENEWAL_TOPIC = "$SYS/auth/renew";

/** Settings of a broker that takes a token from everywhere, and believes one proxy about addresses. */
export const EVERYWHERE = {
	tokenHeader: true,
	tokenCookie: TOKEN_NAME,
	tokenQuery: TOKEN_NAME,
	trustedProxies: "1",
} as const;

/** Where a client has its token: in the CONNECT, in the headers or the address of the upgrade request, or in enhanced authentication. */
export type Carrier = "password" | "header" | "cookie" | "query" | "auth";
export const CARRIERS: readonly Carrier[] = ["password", "header", "cookie", "query", "auth"];

/** In seconds since 1970, as claims have it, exact to the millisecond. */
export const inSeconds = (seconds: number): number => (Date.now() + seconds * 1000) / 1000;

/** A token signed with {@link SECRET}; it may do everything for ten minutes, unless the claims say otherwise. */
export function token(claims: Readonly<Record<string, unknown>> = {}): Promise<string> {
	return new SignJWT({ exp: inSeconds(600), acl: { all: ["#"] }, ...claims })
		.setProtectedHeader({ alg: "HS256" })
		.sign(new TextEncoder().encode(SECRET));
}

let addresses = 0;

/** An address that no other client of the tests has had. */
export function freshAddress(): string {
	addresses++;
	return `198.18.${addresses >> 8}.${addresses & 0xff}`;
}

export interface Login extends ConnectOptions {
	readonly token?: string;
	/** Where the token is; the password when absent. */
	readonly carrier?: Carrier;
	/** As a proxy tells it; a fresh one when absent. */
	readonly address?: string;
	/** Further headers of the upgrade request. */
	readonly headers?: Readonly<Record<string, string>>;
}

/** Opens a WebSocket and sends CONNECT. The answer is for the test. */
export async function knock(broker: { readonly wsPort: number }, login: Login = {}): Promise<RawClient> {
	const { token: shown, carrier = "password", address = freshAddress(), headers = {}, version = 5, ...options } = login;
	const path = carrier === "query" && shown !== undefined ? `/mqtt?${TOKEN_NAME}=${encodeURIComponent(shown)}` : "/mqtt";
	const stream = await WebSocketStream.connect(broker.wsPort, version === 3 ? "mqttv3.1" : "mqtt", {
		path,
		headers: {
			"x-forwarded-for": address,
			...(carrier === "header" && shown !== undefined && { authorization: `Bearer ${shown}` }),
			...(carrier === "cookie" && shown !== undefined && { cookie: `theme=dark; ${TOKEN_NAME}=${shown}` }),
			...headers,
		},
	});
	const client = RawClient.over(stream, version);
	client.sendConnect({
		...options,
		version,
		...(options.password !== undefined && { username: options.username ?? "anything" }),
		...(carrier === "password" && shown !== undefined && { username: "anything", password: shown }),
		...(carrier === "auth" && shown !== undefined && { properties: { ...options.properties, ...authProperties(shown) } }),
	});
	return client;
}

/** Connects over WebSocket; fails unless the CONNACK says success. */
export async function login(broker: { readonly wsPort: number }, options: Login = {}): Promise<RawClient> {
	const client = await knock(broker, options);
	client.connack = await client.expect("connack");
	assert.equal(client.connack.reasonCode ?? client.connack.returnCode, 0, "CONNACK says success");
	return client;
}

/** The code of the CONNACK that refuses, after which the server has closed. */
export async function refusal(client: RawClient): Promise<number> {
	const { reasonCode, returnCode, sessionPresent } = await client.expect("connack");
	assert.equal(sessionPresent, false);
	await client.expectClosed();
	return reasonCode ?? returnCode;
}

/** Connects and answers what {@link refusal} does. */
export async function refusedWith(broker: { readonly wsPort: number }, options: Login = {}): Promise<number> {
	return refusal(await knock(broker, options));
}

/** Properties of CONNECT and AUTH with a token. */
export function authProperties(shown: string): AnyPacket {
	return { authenticationMethod: METHOD, authenticationData: Buffer.from(shown) };
}

/** AUTH 0x19 with the next token; the answer is for the test. */
export function reauthenticate(client: RawClient, shown: string): void {
	client.send({ cmd: "auth", reasonCode: 0x19, properties: authProperties(shown) });
}

/** AUTH 0x19 with the next token, which must be taken. */
export async function renew(client: RawClient, shown: string): Promise<void> {
	reauthenticate(client, shown);
	const { properties } = await client.expect("auth", { reasonCode: 0 });
	assert.equal(properties.authenticationMethod, METHOD);
}

/** Codes of a SUBACK in any version. */
export const granted = (suback: AnyPacket): number[] => [...(suback.granted ?? suback.reasonCodes)];

/** A client id that is also good for a claim. */
export const freshSubject = (): string => freshId("subject");
