/** What the program makes for its configuration: lines of a password file, and keys that sign tokens. */

import { passwordLines } from "../auth/password_file.ts";
import { generateSigningKey } from "../auth/token_issuer.ts";

/** Lines for `PASSWORD_FILE`. Rejects with an Error for a name or password that cannot be used. */
export async function makePasswordLines(username: string, password: string): Promise<string> {
	if (username === "") throw new Error("Cannot make a password line: name the user behind --password");
	if (password === "") throw new Error("Cannot make a password line: the password comes by standard input, and there is none");
	return (await passwordLines(username, password)).join("\n");
}

/** A private key for `TOKEN_KEY_FILE`, as JSON. It is a secret. */
export async function makeSigningKey(): Promise<string> {
	return JSON.stringify(await generateSigningKey());
}
