/** An issuer of tokens for tests: keys of every type, tokens as one likes, and an HTTP server for the key set that can misbehave. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { type CryptoKey, exportJWK, exportSPKI, generateKeyPair, type JWK, type JWTHeaderParameters, SignJWT } from "jose";

export interface IssuerKey {
	readonly kid: string;
	readonly algorithm: string;
	readonly privateKey: CryptoKey;
	readonly publicJwk: JWK;
	readonly publicPem: string;
}

/** A key pair for an algorithm such as `ES256`. */
export async function issuerKey(algorithm: string, kid = `key-${algorithm}`): Promise<IssuerKey> {
	const { publicKey, privateKey } = await generateKeyPair(algorithm, { extractable: true });
	const publicJwk = { ...(await exportJWK(publicKey)), kid };
	return { kid, algorithm, privateKey, publicJwk, publicPem: await exportSPKI(publicKey) };
}

/** Signs claims with a key; the header can be anything. */
export function signToken(
	key: IssuerKey,
	claims: Readonly<Record<string, unknown>>,
	header: Readonly<Record<string, unknown>> = {},
): Promise<string> {
	const full = { alg: key.algorithm, kid: key.kid, typ: "JWT", ...header };
	return new SignJWT(claims)
		.setProtectedHeader(withoutUndefined(full) as JWTHeaderParameters)
		.sign(key.privateKey, { crit: { b64: true } });
}

/** A token whose parts are what one says, the signature included. */
export function forgedToken(header: unknown, claims: unknown, signature: string | Uint8Array = "AAAA"): string {
	const part = (value: unknown) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
	return `${part(header)}.${part(claims)}.${typeof signature === "string" ? signature : Buffer.from(signature).toString("base64url")}`;
}

const withoutUndefined = (fields: Readonly<Record<string, unknown>>) =>
	Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));

export interface JsonServer {
	readonly url: string;
	/** Requests so far, by path and query. */
	readonly requests: string[];
	/** Bodies of the requests so far. */
	readonly bodies: string[];
	/** What it answers from now on. */
	answer: (request: IncomingMessage, response: ServerResponse) => void;
	stop(): Promise<void>;
}

/** Answers a document as JSON. */
export const json =
	(document: unknown) =>
	(_request: unknown, response: ServerResponse): void => {
		response.setHeader("content-type", "application/jwk-set+json");
		response.end(JSON.stringify(document));
	};

/** Answers a status without a body. */
export const status =
	(code: number, headers: Readonly<Record<string, string>> = {}) =>
	(_request: unknown, response: ServerResponse): void => {
		response.writeHead(code, headers).end();
	};

/** Starts an HTTP server on the loopback interface that ends with the test. */
export async function startJsonServer(
	t: TestContext | { after(fn: () => Promise<void>): void },
	document: unknown = {},
): Promise<JsonServer> {
	const requests: string[] = [];
	const bodies: string[] = [];
	const server = createServer((request, response) => {
		requests.push(request.url ?? "");
		let body = "";
		request.on("data", (chunk: Buffer) => {
			body += chunk.toString();
		});
		request.on("end", () => {
			bodies.push(body);
			started.answer(request, response);
		});
	});
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	let stopped = false;
	const started: JsonServer = {
		url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
		requests,
		bodies,
		answer: json(document),
		stop: async () => {
			if (stopped) return;
			stopped = true;
			server.closeAllConnections();
			await new Promise<void>((resolve) => server.close(() => resolve()));
		},
	};
	t.after(started.stop);
	return started;
}
