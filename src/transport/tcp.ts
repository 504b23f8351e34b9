/**
 * MQTT over TCP and TLS, on `node:net` and `node:tls` of either runtime. The only listener that can tell who a client is by
 * its certificate. Knows sockets only.
 */

import { createServer as createTcpServer, type Socket as NodeSocket } from "node:net";
import { createServer as createTlsServer, type PeerCertificate, type TLSSocket } from "node:tls";
import { log } from "../log.ts";
import { canonicalAddress } from "./address.ts";
import { ByteStream } from "./byte_stream.ts";
import { HANDSHAKE_MS, listen } from "./listen.ts";
import type { Accept, ClientCertificate, CloseKind, Listener, PeerInfo, Socket, SocketHandler } from "./socket.ts";

const logger = log("transport");

export interface TcpOptions {
	readonly hostname: string;
	/** 0 takes any free port. */
	readonly port: number;
	/** Present: TLS. Everything in PEM. */
	readonly tls?: {
		readonly cert: string;
		readonly key: string;
		/** Authorities that client certificates are checked against. */
		readonly ca?: string;
		/** `request`: a client may do without a certificate, but a bad one is refused. */
		readonly clientCertificate: "none" | "request" | "require";
	};
	/** Default `HANDSHAKE_MS`. */
	readonly handshakeMs?: number;
}

/** Accepts connections on a port. Rejects with an Error that names the remedy when it cannot listen. */
export function listenTcp(options: TcpOptions, accept: Accept): Promise<Listener> {
	const { tls } = options;
	if (!tls) {
		const server = createTcpServer((stream) => open(stream, "tcp", undefined, accept));
		return listen(server, options);
	}
	if (tls.clientCertificate !== "none" && tls.ca === undefined) {
		throw new TypeError(`Cannot check client certificates without authorities: set "ca", or "clientCertificate" to "none"`);
	}
	const server = createTlsServer(
		{
			cert: tls.cert,
			key: tls.key,
			...(tls.ca === undefined ? {} : { ca: tls.ca }),
			requestCert: tls.clientCertificate !== "none",
			rejectUnauthorized: tls.clientCertificate === "require",
			handshakeTimeout: options.handshakeMs ?? HANDSHAKE_MS,
		},
		(stream) => {
			const certificate = tls.clientCertificate === "none" ? undefined : presentedCertificate(stream);
			if (certificate && !stream.authorized) {
				stream.on("error", () => {});
				stream.destroy();
				return;
			}
			open(stream, "tls", certificate && identityOf(certificate), accept);
		},
	);
	// A handshake that failed or took too long leaves its socket to whoever listens here.
	server.on("tlsClientError", (error, stream) => {
		logger.debug("TLS handshake failed", { address: canonicalAddress(stream.remoteAddress ?? ""), error: error.message });
		stream.destroy();
	});
	return listen(server, options);
}

function open(stream: NodeSocket, transport: "tcp" | "tls", certificate: ClientCertificate | undefined, accept: Accept): void {
	const peer: PeerInfo = {
		transport,
		address: canonicalAddress(stream.remoteAddress ?? ""),
		port: stream.remotePort ?? 0,
		...(certificate ? { certificate } : {}),
	};
	new StreamSocket(stream, peer, accept);
}

class StreamSocket implements Socket {
	readonly peer: PeerInfo;
	readonly #stream: ByteStream;

	constructor(stream: NodeSocket, peer: PeerInfo, accept: Accept) {
		this.peer = peer;
		let handler: SocketHandler | undefined;
		this.#stream = new ByteStream(stream, {
			onData: (chunk) => handler?.onData(chunk),
			onDrain: () => handler?.onDrain(),
			onClose: () => handler?.onClose(),
		});
		handler = accept(this);
		if (!handler) this.close("busy");
	}

	send(bytes: Uint8Array): "sent" | "queued" | "dropped" {
		// The runtimes keep a reference to what the kernel did not take, and the caller may reuse its buffer.
		const copy = Buffer.allocUnsafe(bytes.length);
		copy.set(bytes);
		return this.#stream.write(copy);
	}

	get bufferedAmount(): number {
		return this.#stream.bufferedAmount;
	}

	pause(): void {
		this.#stream.pause();
	}

	resume(): void {
		this.#stream.resume();
	}

	forgetRequest(): void {
		// There is none.
	}

	ping(): void {
		// TCP has none.
	}

	close(_kind: CloseKind): void {
		this.#stream.end();
	}

	terminate(): void {
		this.#stream.terminate();
	}
}

/** Certificate of the client, verified or not; `undefined` when it sent none. */
function presentedCertificate(stream: TLSSocket): PeerCertificate | undefined {
	const certificate = stream.getPeerCertificate();
	return certificate?.raw ? certificate : undefined;
}

function identityOf(certificate: PeerCertificate): ClientCertificate {
	const commonName = certificate.subject.CN;
	return {
		// Several names are no name: whichever is taken, somebody could mean the other one.
		commonName: Array.isArray(commonName) ? undefined : commonName,
		subject: nameInOneLine(certificate.subject),
		issuer: nameInOneLine(certificate.issuer),
		serialNumber: certificate.serialNumber,
		fingerprint256: certificate.fingerprint256.replaceAll(":", "").toLowerCase(),
		subjectAltName: certificate.subjectaltname || undefined,
	};
}

/** A distinguished name as RFC 4514 writes it: the most specific part first, and nothing in a value can pose as a part. */
function nameInOneLine(name: object): string {
	return Object.entries(name as Record<string, string | string[]>)
		.flatMap(([type, value]) => [value].flat().map((text) => `${type}=${escapeValue(text)}`))
		.reverse()
		.join(",");
}

function escapeValue(text: string): string {
	return text
		.replace(/[\\,+"<>;=]/g, "\\$&")
		.replace(/^[ #]| $/g, "\\$&")
		.replaceAll("\0", "\\00");
}
