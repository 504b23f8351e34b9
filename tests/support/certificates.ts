/** Throw-away certificates for tests, made with the `openssl` command: nothing secret or short-lived lies in the repository. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** PEM texts. */
export interface KeyPair {
	readonly cert: string;
	readonly key: string;
}

export interface Authority extends KeyPair {
	/** For `localhost` and 127.0.0.1. */
	server(): KeyPair;
	/** @param subject As openssl writes it, such as `/O=Example/CN=device-1`. */
	client(subject: string, options?: { readonly subjectAltName?: string; readonly days?: number }): KeyPair;
}

/** Makes a certificate authority, gives it to `use` and removes its files afterwards. */
export function createAuthority(name = "Test CA"): Authority {
	const ca = inDirectory((directory) => {
		writeFileSync(join(directory, "ca.cnf"), "[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n");
		openssl(directory, [
			...["req", "-x509", "-nodes", "-days", "2", "-subj", `/CN=${name}`, "-config", "ca.cnf", "-extensions", "ca"],
			...["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", "key.pem", "-out", "cert.pem"],
		]);
		return readPair(directory);
	});
	const issue = (subject: string, extensions: string, days: number) =>
		inDirectory((directory) => {
			writeFileSync(join(directory, "ca.pem"), ca.cert);
			writeFileSync(join(directory, "ca.key"), ca.key);
			writeFileSync(join(directory, "extensions.cnf"), extensions);
			writeFileSync(join(directory, "empty.cnf"), "[req]\ndistinguished_name=dn\n[dn]\n");
			openssl(directory, [
				...["req", "-new", "-nodes", "-subj", subject, "-config", "empty.cnf"],
				...["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", "key.pem", "-out", "request.pem"],
			]);
			openssl(directory, [
				...["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"],
				...["-days", String(days), "-extfile", "extensions.cnf", "-out", "cert.pem"],
			]);
			return readPair(directory);
		});
	return {
		...ca,
		server: () => issue("/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n", 2),
		client: (subject, { subjectAltName, days = 2 } = {}) =>
			issue(subject, `${subjectAltName ? `subjectAltName=${subjectAltName}\n` : ""}extendedKeyUsage=clientAuth\n`, days),
	};
}

function openssl(directory: string, args: readonly string[]): void {
	execFileSync("openssl", args, { cwd: directory, stdio: ["ignore", "ignore", "pipe"] });
}

function readPair(directory: string): KeyPair {
	return { cert: readFileSync(join(directory, "cert.pem"), "utf8"), key: readFileSync(join(directory, "key.pem"), "utf8") };
}

function inDirectory<T>(use: (directory: string) => T): T {
	const directory = mkdtempSync(join(tmpdir(), "shoal-certificates-"));
	try {
		return use(directory);
	} finally {
		rmSync(directory, { recursive: true, force: true });
	}
}
