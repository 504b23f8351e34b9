/** What the tests of the admin API share: an app on a store in memory, and requests to it as an operator makes them. */

import assert from "node:assert/strict";
import type { Hono } from "hono";
import { operatorTokens } from "../../../src/auth/admin_token.ts";
import { IssuedTokens } from "../../../src/auth/issued_tokens.ts";
import { jwtMember } from "../../../src/auth/jwt.ts";
import { StoredRevocations } from "../../../src/auth/stored_revocations.ts";
import { StoredRules } from "../../../src/auth/stored_rules.ts";
import { StoredUsers } from "../../../src/auth/stored_users.ts";
import { LoginThrottle } from "../../../src/auth/throttle.ts";
import { generateSigningKey, OWN_CLAIMS, TokenIssuer } from "../../../src/auth/token_issuer.ts";
import type { Kick } from "../../../src/broker/cluster.ts";
import type { ConnectedClient } from "../../../src/broker/sessions.ts";
import { type AdminOptions, createAdminApi } from "../../../src/http/admin/api.ts";
import { createEmbeddedStore, type EmbeddedStore } from "../../../src/store/embedded_store.ts";
import { AddressList } from "../../../src/transport/address.ts";
import { recordingLog, TestClock } from "../../auth/auth_support.ts";

/** Cheap, as only tests may have it. */
const COST = { logN: 10, blockSize: 1, parallel: 1 };
export const ADMIN_TOKEN = "an-admin-token-of-some-length";
export const OPERATOR = { authorization: `Bearer ${ADMIN_TOKEN}` };

const signingKey = await generateSigningKey();

/** An answer as tests look at it. */
export interface Answer {
	readonly status: number;
	// biome-ignore lint/suspicious/noExplicitAny: tests look at any field.
	readonly body: any;
	readonly headers: Headers;
}

export class AdminBench {
	readonly clock = new TestClock();
	readonly store: EmbeddedStore;
	readonly users: StoredUsers;
	readonly rules: StoredRules;
	readonly revocations: StoredRevocations;
	readonly tokens: IssuedTokens;
	readonly issuer: TokenIssuer;
	readonly kicked: Kick[] = [];
	clients: ConnectedClient[] = [];
	address = "192.0.2.1";
	readonly lines: string[];
	readonly options: AdminOptions;
	readonly app: Hono;

	private constructor(issuer: TokenIssuer, change: (options: AdminOptions) => AdminOptions) {
		const { clock } = this;
		const { lines, log } = recordingLog();
		this.lines = lines;
		this.store = createEmbeddedStore({ path: ":memory:", sync: "normal", limits: { logMaxMessages: 10, maxRetained: 10 }, clock });
		const { records } = this.store;
		this.users = new StoredUsers({ records, clock, cost: COST, scramRounds: 4096 });
		this.rules = new StoredRules({ records, log });
		this.revocations = new StoredRevocations({ records, clock, log, networks: (entries) => new AddressList(entries), maxEntries: 50 });
		this.issuer = issuer;
		this.tokens = new IssuedTokens(records, issuer);
		const member = jwtMember({ clock, issuers: [{ keys: issuer.keys, clientIdClaim: OWN_CLAIMS.clientIdClaim }] });
		this.options = change({
			access: {
				token: ADMIN_TOKEN,
				judge: operatorTokens(member, this.revocations),
				throttle: new LoginThrottle({ clock, perAddress: { burst: 3, perMinute: 1 } }),
				addressOf: () => this.address,
				log,
			},
			users: this.users,
			rules: this.rules,
			revocations: this.revocations,
			tokens: this.tokens,
			clients: {
				list: (after, limit) => {
					const rest = this.clients.filter(({ clientId }) => after === undefined || clientId > after);
					return { items: rest.slice(0, limit), next: rest.length > limit ? rest[limit - 1]?.clientId : undefined };
				},
				kick: async (whom) => {
					this.kicked.push(whom);
				},
			},
			clock,
			version: "1.2.3",
		});
		this.app = createAdminApi(this.options);
	}

	static async open(change: (options: AdminOptions) => AdminOptions = (options) => options): Promise<AdminBench> {
		const issuer = await TokenIssuer.open({ issuer: "https://shoal.example", keys: [signingKey], clock: new TestClock() });
		const bench = new AdminBench(issuer, change);
		await bench.store.start(bench.clock.nowMs(), () => {});
		await bench.rules.start();
		await bench.revocations.start();
		return bench;
	}

	/** A request below `/api/v1`, as an operator unless the headers say otherwise. */
	async send(method: string, path: string, body?: unknown, headers: Readonly<Record<string, string>> = OPERATOR): Promise<Answer> {
		const response = await this.app.request(`/api/v1${path}`, {
			method,
			headers: { ...(body !== undefined && { "content-type": "application/json" }), ...headers },
			...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
		});
		const text = await response.text();
		return { status: response.status, body: text === "" ? undefined : JSON.parse(text), headers: response.headers };
	}

	/** Like `send`, where only that status is right. */
	async expect(status: number, method: string, path: string, body?: unknown): Promise<Answer["body"]> {
		const answer = await this.send(method, path, body);
		assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(answer.body)}`);
		return answer.body;
	}

	async close(): Promise<void> {
		this.rules.close();
		this.revocations.close();
		await this.store.close();
	}
}

/** A problem document of that status. */
export function assertProblem({ status, body, headers }: Answer, expected: number): void {
	assert.equal(status, expected, JSON.stringify(body));
	assert.equal(headers.get("content-type"), "application/problem+json");
	assert.deepEqual([body.type, body.status], ["about:blank", expected]);
	assert.ok(body.title.length > 0 && body.detail.length > 0);
}
