/** The client's side of SCRAM (RFC 5802), for tests: written from the RFC and apart from the server's. */

import { createHash, createHmac, pbkdf2Sync } from "node:crypto";

export class ScramClient {
	readonly #hash: "sha256" | "sha512";
	readonly #password: string;
	readonly #bare: string;
	readonly #header: string;
	/** What client-final says that the header was. */
	readonly #binding: string;
	#serverSignature = "";

	constructor(
		username: string,
		password: string,
		{
			hash = "sha256",
			nonce = "client-nonce",
			header = "n,,",
			binding = header,
		}: { readonly hash?: "sha256" | "sha512"; readonly nonce?: string; readonly header?: string; readonly binding?: string } = {},
	) {
		this.#hash = hash;
		this.#password = password;
		this.#header = header;
		this.#binding = binding;
		this.#bare = `n=${username.replaceAll("=", "=3D").replaceAll(",", "=2C")},r=${nonce}`;
	}

	first(): Buffer {
		return Buffer.from(this.#header + this.#bare);
	}

	/** Client-final for a server-first. */
	final(serverFirst: Uint8Array): Buffer {
		const text = Buffer.from(serverFirst).toString();
		const [, nonce = "", salt = "", rounds = ""] = /^r=([^,]+),s=([^,]+),i=(\d+)$/.exec(text) ?? [];
		const hash = this.#hash;
		const salted = pbkdf2Sync(this.#password, Buffer.from(salt, "base64"), Number(rounds), hash === "sha256" ? 32 : 64, hash);
		const hmac = (key: Uint8Array, data: string) => createHmac(hash, key).update(data).digest();
		const clientKey = hmac(salted, "Client Key");
		const withoutProof = `c=${Buffer.from(this.#binding).toString("base64")},r=${nonce}`;
		const message = `${this.#bare},${text},${withoutProof}`;
		const signature = hmac(createHash(hash).update(clientKey).digest(), message);
		this.#serverSignature = hmac(hmac(salted, "Server Key"), message).toString("base64");
		return Buffer.from(
			`${withoutProof},p=${Buffer.from(clientKey.map((byte, index) => byte ^ (signature[index] ?? 0))).toString("base64")}`,
		);
	}

	/** Whether server-final proves that the server knows the password. */
	accepts(serverFinal: Uint8Array | undefined): boolean {
		return serverFinal !== undefined && Buffer.from(serverFinal).toString() === `v=${this.#serverSignature}`;
	}
}
