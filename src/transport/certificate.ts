/**
 * Who a client is by its certificate: from a TLS connection that checked it, or from a header of a proxy that did. Knows
 * certificates only, and nothing of what an identity may do.
 */

import { X509Certificate } from "node:crypto";
import type { PeerCertificate, TLSSocket, TlsOptions } from "node:tls";
import type { ClientCertificate } from "./socket.ts";

/** How a listener does TLS. Everything in PEM. */
export interface TlsSettings {
	readonly cert: string;
	readonly key: string;
	/** Authorities that client certificates are checked against. */
	readonly ca?: string;
	/** `request`: a client may do without a certificate, but a bad one is refused. */
	readonly clientCertificate: "none" | "request" | "require";
}

/** A certificate with its chain does not get much longer. */
const MAX_HEADER_LENGTH = 16_384;

/** The options of a `node:tls` server. @throws {TypeError} when certificates are wanted and nothing is there to check them */
export function tlsOptions({ cert, key, ca, clientCertificate }: TlsSettings, handshakeMs: number): TlsOptions {
	if (clientCertificate !== "none" && ca === undefined) {
		throw new TypeError(`Cannot check client certificates without authorities: set "ca", or "clientCertificate" to "none"`);
	}
	return {
		cert,
		key,
		...(ca === undefined ? {} : { ca }),
		requestCert: clientCertificate !== "none",
		rejectUnauthorized: clientCertificate === "require",
		handshakeTimeout: handshakeMs,
	};
}

/** Identity of the client of a finished handshake; `undefined` when it has none, `refused` when it is not what it says. */
export function verifiedIdentity(stream: TLSSocket, asked: TlsSettings["clientCertificate"]): ClientCertificate | undefined | "refused" {
	if (asked === "none") return undefined;
	const certificate = stream.getPeerCertificate();
	// A client that sent none has an empty object.
	if (!certificate?.raw) return asked === "require" ? "refused" : undefined;
	return stream.authorized ? identityOf(certificate) : "refused";
}

/**
 * Identity from the header of a proxy: a certificate as base64 of its DER form (with the colons of RFC 9440 or without), or
 * as PEM with percent signs. The proxy has checked it. `undefined` when it is none.
 */
export function certificateFromHeader(value: string): ClientCertificate | undefined {
	if (value === "" || value.length > MAX_HEADER_LENGTH) return undefined;
	try {
		const text = value.includes("%") ? decodeURIComponent(value) : value;
		const base64 = text
			.replace(/^:(.*):$/s, "$1")
			.replace(/-----(?:BEGIN|END) CERTIFICATE-----/g, "")
			.replace(/\s/g, "");
		if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return undefined;
		return identityOf(new X509Certificate(Buffer.from(base64, "base64")).toLegacyObject());
	} catch {
		// Whatever is wrong with it, it is no certificate.
		return undefined;
	}
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
