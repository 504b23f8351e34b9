/**
 * Clients that are known by their certificate, which this server's TLS or a trusted proxy has verified: what chain it has is
 * settled before. Takes a name from the certificate, and nothing that could be read in two ways.
 */

import { X509Certificate } from "node:crypto";
import { ReasonCode } from "../mqtt/reason_code.ts";
import type { VerifiedCertificate } from "./auth.ts";
import { usableName } from "./identity.ts";
import { type ChainMember, IGNORED, refused } from "./member.ts";

/** Which part of the certificate names the client: the subject's common name, a Subject Alternative Name, or the fingerprint. */
export type CertificateName = "commonName" | "dns" | "uri" | "email" | "fingerprint";

export interface CertificateOptions {
	/** Default `commonName`. */
	readonly name?: CertificateName;
	/** Whether the name is also the only client id; else it is assigned only where the client sent none. Default `false`. */
	readonly bindClientId?: boolean;
	/** Whether a client that sends a password is left to the members after this one. Default `false`. */
	readonly yieldToPassword?: boolean;
}

const MAX_HEADER = 16_384;
/** As OpenSSL and node:crypto write them. */
const NAME_PREFIXES = { dns: "DNS:", uri: "URI:", email: "email:" } as const;

/** Makes the member, which ignores clients without a certificate. */
export function certificateMember({
	name = "commonName",
	bindClientId = false,
	yieldToPassword = false,
}: CertificateOptions = {}): ChainMember {
	return {
		name: "certificate",
		ignoresUsername: true,
		authenticate({ certificate, clientId, password, authenticationMethod }) {
			if (certificate === undefined || authenticationMethod !== undefined) return IGNORED;
			if (yieldToPassword && password !== undefined) return IGNORED;
			const identity = usableName(nameIn(certificate, name));
			if (identity === undefined) return refused(ReasonCode.badUserNameOrPassword, `the certificate has no single usable ${name}`, false);
			if (bindClientId && clientId !== "" && clientId !== identity) {
				return refused(ReasonCode.clientIdentifierNotValid, "the certificate is for another client id", false);
			}
			const principal = {
				name: identity,
				method: "certificate",
				expiresAtMs: Number.POSITIVE_INFINITY,
				username: identity,
				clientId: identity,
			};
			return { kind: "granted", principal: bindClientId ? { ...principal, boundClientId: identity } : principal };
		},
	};
}

function nameIn(certificate: VerifiedCertificate, name: CertificateName): string | undefined {
	if (name === "commonName") return certificate.commonName;
	if (name === "fingerprint") return certificate.fingerprint256;
	const prefix = NAME_PREFIXES[name];
	const names = alternativeNames(certificate.subjectAltName ?? "").filter((entry) => entry.startsWith(prefix));
	return names.length === 1 ? names[0]?.slice(prefix.length) : undefined;
}

/** The entries of a Subject Alternative Name in one line. A value with special characters is quoted as JSON. */
function alternativeNames(text: string): string[] {
	const entries = text.match(/(?:"(?:\\.|[^"\\])*"|[^,"])+/g) ?? [];
	return entries.flatMap((entry) => {
		const [, kind, quoted] = /^\s*([\w ]+:)(".*")$/.exec(entry) ?? [];
		if (kind === undefined || quoted === undefined) return entry.includes('"') ? [] : [entry.trim()];
		try {
			return [kind + String(JSON.parse(quoted))];
		} catch {
			return [];
		}
	});
}

/**
 * The certificate in a header of a proxy that has verified it: RFC 9440 (`Client-Cert: :base64:`), or PEM with percent signs as
 * nginx, HAProxy and Envoy (in `Cert="…"`) send it. `undefined` for anything else. MUST be asked only about trusted proxies.
 */
export function certificateFromHeader(value: string): VerifiedCertificate | undefined {
	if (value.length > MAX_HEADER) return undefined;
	const der = /^:([A-Za-z0-9+/=]+):$/.exec(value.trim())?.[1];
	try {
		const pem = decodeURIComponent(/(?:^|;)Cert="([^"]*)"/i.exec(value)?.[1] ?? value);
		const certificate = new X509Certificate(der === undefined ? pem : Buffer.from(der, "base64"));
		const commonNames = certificate.subject.split("\n").filter((line) => line.startsWith("CN="));
		return {
			commonName: commonNames.length === 1 ? commonNames[0]?.slice(3) : undefined,
			subject: certificate.subject.replaceAll("\n", ","),
			fingerprint256: certificate.fingerprint256.replaceAll(":", "").toLowerCase(),
			subjectAltName: certificate.subjectAltName,
		};
	} catch {
		return undefined;
	}
}
