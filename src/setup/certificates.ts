/** The certificates of the configuration, read and checked before a port is opened with them. */

import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Config } from "../config.ts";

/** `undefined` without a certificate. Rejects with an Error that names the setting. */
export async function readCertificates(config: Config): Promise<{ cert: string; key: string; ca?: string } | undefined> {
	const { tlsCertFile, tlsKeyFile, tlsCaFile } = config;
	if (tlsCertFile === undefined || tlsKeyFile === undefined) return undefined;
	const certificate = await readPem("TLS_CERT_FILE", tlsCertFile, (pem) => new X509Certificate(pem));
	const key = await readPem("TLS_KEY_FILE", tlsKeyFile, createPrivateKey);
	const ca = tlsCaFile === undefined ? undefined : await readPem("TLS_CA_FILE", tlsCaFile, (pem) => new X509Certificate(pem));
	if (!certificate.parsed.checkPrivateKey(key.parsed)) {
		throw new Error(
			`The key in TLS_KEY_FILE "${tlsKeyFile}" is not that of the certificate in TLS_CERT_FILE "${tlsCertFile}". Name a pair`,
		);
	}
	return { cert: certificate.pem, key: key.pem, ...(ca !== undefined && { ca: ca.pem }) };
}

/** Looks into the file as well: Deno opens a port with anything for a certificate, and then every handshake fails. */
async function readPem<T>(variable: string, path: string, parse: (pem: string) => T): Promise<{ pem: string; parsed: T }> {
	try {
		const pem = await readFile(path, "utf8");
		return { pem, parsed: parse(pem) };
	} catch (error) {
		throw new Error(`Cannot read ${variable} "${path}": ${(error as Error).message}. Name a readable PEM file`, { cause: error });
	}
}
