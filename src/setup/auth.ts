/**
 * Who may come in and do what, by the configuration: the chain of authenticators, the authorizer, what is revoked. Nothing
 * configured means that this machine may do everything and others nothing.
 */

import { readFile } from "node:fs/promises";
import { allowEverything, anonymousAuthenticator } from "../auth/anonymous.ts";
import type { Authenticator, Authorizer } from "../auth/auth.ts";
import { createAuthorizer, type RuleSource } from "../auth/authorizer.ts";
import { certificateMember } from "../auth/certificate.ts";
import { createAuthenticationChain } from "../auth/chain.ts";
import { withHostTenant } from "../auth/host_tenant.ts";
import { httpHookMember } from "../auth/http_hook.ts";
import { HttpRules } from "../auth/http_rules.ts";
import { jwksSource, oidcSource } from "../auth/jwks.ts";
import { type JwtIssuer, jwtMember } from "../auth/jwt.ts";
import { jwkSource, type KeySource, pemSource, secretSource } from "../auth/key_source.ts";
import type { ChainMember } from "../auth/member.ts";
import { passwordMember } from "../auth/password.ts";
import { PasswordFile } from "../auth/password_file.ts";
import { PasswordVerifier } from "../auth/password_hash.ts";
import type { RevocationList } from "../auth/revocations.ts";
import { RuleFile } from "../auth/rule_file.ts";
import { scramMember } from "../auth/scram.ts";
import { LoginThrottle } from "../auth/throttle.ts";
import { OWN_CLAIMS, type SigningJwk, TokenIssuer } from "../auth/token_issuer.ts";
import type { UserSource } from "../auth/users.ts";
import { systemClock } from "../clock.ts";
import type { Config } from "../config.ts";
import { log } from "../log.ts";
import { ReasonCode } from "../mqtt/reason_code.ts";

/** What operators manage while the broker runs; see `admin.ts`. */
export interface ManagedAuth {
	readonly users: UserSource;
	readonly rules: RuleSource;
	readonly revocations: RevocationList;
}

/** The parts of the configuration that say who may. */
export interface ConfiguredAuth {
	readonly authenticator: Authenticator;
	readonly authorizer: Authorizer;
	/** Signs tokens for the admin API; `undefined` without a key. There after `start`. */
	readonly issuer: TokenIssuer | undefined;
	/** Judges tokens; `undefined` where none are taken. There after `start`. */
	readonly tokens: ChainMember | undefined;
	/** Reads keys and users. Rejects with an Error that names the setting. */
	start(): Promise<void>;
	/** Stops looking after files and keys. */
	stop(): void;
}

const logger = log("auth");
const clock = systemClock;

/** @throws Error when the rules cannot be read: with file and line. */
export function configuredAuth(config: Config, managed: ManagedAuth): ConfiguredAuth {
	const closing: (() => void)[] = [];
	let chain: Authenticator | undefined;
	let issuer: TokenIssuer | undefined;
	let tokens: ChainMember | undefined;
	if (!isConfigured(config)) {
		const nothing = () => {};
		const authenticator = inTenant(defaultAuthenticator(config), config);
		return { authenticator, authorizer: allowEverything, issuer, tokens, start: async () => {}, stop: nothing };
	}
	const authorizer = rulesOf(config, managed, closing);
	return {
		authenticator: {
			authenticate: (credentials, current) =>
				chain?.authenticate(credentials, current) ?? { kind: "refused", reasonCode: ReasonCode.serverUnavailable },
		},
		authorizer,
		get issuer() {
			return issuer;
		},
		get tokens() {
			return tokens;
		},
		async start() {
			issuer = await tokenIssuer(config);
			tokens = await jwtMembers(config, issuer, closing);
			const members: ChainMember[] = [
				...certificateMembers(config),
				...(tokens === undefined ? [] : [tokens]),
				...(await userMembers(config, managed, closing)),
				...hookMembers(config),
			];
			chain = createAuthenticationChain({
				members: members.map((member) => inTenant(member, config)),
				...(config.allowAnonymous && { anonymous: inTenant(defaultAuthenticator(config), config) }),
				throttle: new LoginThrottle({ clock }),
				revocations: managed.revocations,
				clock,
				log: logger,
			});
		},
		stop() {
			for (const close of closing) close();
		},
	};
}

/** The same one, with the tenant of the client's host name where that is configured. */
function inTenant<Member extends Authenticator | ChainMember>(member: Member, { tenantFromHost }: Config): Member {
	if (tenantFromHost === undefined) return member;
	return { ...member, authenticate: withHostTenant((credentials, current) => member.authenticate(credentials, current), tenantFromHost) };
}

/** Whether any way to authenticate, or any rule, is configured. */
function isConfigured(config: Config): boolean {
	const { jwtSecret, jwtKeyFile, jwtJwksUrl, jwtOidcIssuer, tokenKeyFile, passwordFile, storedUsers, authHttpUrl } = config;
	const { aclFile, storedRules, aclHttpUrl, clientCertificateName } = config;
	const given = [jwtSecret, jwtKeyFile, jwtJwksUrl, jwtOidcIssuer, tokenKeyFile, passwordFile, authHttpUrl, aclFile, aclHttpUrl];
	return storedUsers || storedRules || clientCertificateName !== "off" || given.some((setting) => setting !== undefined);
}

function rulesOf(config: Config, { rules }: ManagedAuth, closing: (() => void)[]): Authorizer {
	const sources: RuleSource[] = [];
	if (config.aclFile !== undefined) {
		const path = config.aclFile;
		const file = named("ACL_FILE", () => new RuleFile(path, { log: logger }));
		closing.push(() => file.close());
		sources.push(file);
	}
	if (config.storedRules) sources.push(rules);
	const authorizer = createAuthorizer({
		sources,
		...(config.aclHttpUrl !== undefined && { hook: new HttpRules({ url: config.aclHttpUrl, headers: hookHeaders(config), log: logger }) }),
		defaultDecision: config.aclDefault,
	});
	closing.push(() => authorizer.close());
	return authorizer;
}

function certificateMembers({ clientCertificateName }: Config): ChainMember[] {
	if (clientCertificateName === "off") return [];
	return [certificateMember({ name: clientCertificateName, yieldToPassword: true })];
}

async function jwtMembers(config: Config, own: TokenIssuer | undefined, closing: (() => void)[]): Promise<ChainMember | undefined> {
	const keys: KeySource[] = [];
	const remote = { clock, log: logger };
	if (config.jwtSecret !== undefined) keys.push(secretSource(new TextEncoder().encode(config.jwtSecret)));
	if (config.jwtKeyFile !== undefined) keys.push(await read("JWT_KEY_FILE", config.jwtKeyFile, publicKeys));
	if (config.jwtJwksUrl !== undefined) keys.push(jwksSource(config.jwtJwksUrl, remote));
	if (config.jwtOidcIssuer !== undefined) keys.push(oidcSource(config.jwtOidcIssuer, remote));
	closing.push(() => {
		for (const source of keys) source.close?.();
	});
	const issuers: JwtIssuer[] = [];
	if (own !== undefined) {
		issuers.push({ keys: own.keys, issuer: config.tokenIssuer, ...OWN_CLAIMS, bindClientId: true, namesOptional: true });
	}
	const expected = config.jwtIssuer ?? config.jwtOidcIssuer;
	if (keys.length > 0) {
		issuers.push({
			keys: allOf(keys),
			...(expected !== undefined && { issuer: expected }),
			...(config.jwtAudience.length > 0 && { audience: config.jwtAudience }),
			clientIdClaim: config.jwtClientIdClaim,
			bindClientId: config.jwtBindClientId,
			...(config.jwtUsernameClaim !== undefined && { usernameClaim: config.jwtUsernameClaim }),
			...(config.jwtTenantClaim !== undefined && { tenantClaim: config.jwtTenantClaim }),
			grants: { aclClaim: config.jwtAclClaim },
		});
	}
	return issuers.length === 0 ? undefined : jwtMember({ issuers, clock, clockSkewSeconds: config.jwtClockSkewSeconds });
}

/** Those of all sources; one that cannot be asked fails the question, since its key might be the one. */
function allOf(sources: readonly KeySource[]): KeySource {
	return { find: async (hint) => (await Promise.all(sources.map((source) => source.find(hint)))).flat() };
}

async function userMembers(config: Config, managed: ManagedAuth, closing: (() => void)[]): Promise<ChainMember[]> {
	const sources: UserSource[] = [];
	if (config.passwordFile !== undefined) {
		const path = config.passwordFile;
		const file = named("PASSWORD_FILE", () => new PasswordFile(path, { log: logger }));
		closing.push(() => file.close());
		sources.push(file);
	}
	if (config.storedUsers) sources.push(managed.users);
	if (sources.length === 0) return [];
	const users = firstOf(sources);
	const saltSecret = config.scramSecret === undefined ? {} : { saltSecret: new TextEncoder().encode(config.scramSecret) };
	return [scramMember({ users, ...saltSecret }), await passwordMember({ users, verifier: new PasswordVerifier({ clock }) })];
}

/** The first that knows a user has the word. */
function firstOf(sources: readonly UserSource[]): UserSource {
	return {
		async find(username) {
			for (const source of sources) {
				const user = await source.find(username);
				if (user !== undefined) return user;
			}
			return undefined;
		},
		get costliestHash() {
			return sources.map((source) => source.costliestHash).find((hash) => hash !== undefined);
		},
		get scramRounds() {
			return sources.map((source) => source.scramRounds).find((rounds) => rounds !== undefined);
		},
	};
}

function hookMembers(config: Config): ChainMember[] {
	if (config.authHttpUrl === undefined) return [];
	return [httpHookMember({ url: config.authHttpUrl, clock, headers: hookHeaders(config), grants: { aclClaim: "acl" } })];
}

function hookHeaders({ authHttpToken }: Config): Readonly<Record<string, string>> {
	return authHttpToken === undefined ? {} : { authorization: `Bearer ${authHttpToken}` };
}

async function tokenIssuer({ tokenKeyFile, tokenIssuer: issuer }: Config): Promise<TokenIssuer | undefined> {
	if (tokenKeyFile === undefined) return undefined;
	return read("TOKEN_KEY_FILE", tokenKeyFile, (text) => {
		const document = JSON.parse(text) as { readonly keys?: readonly SigningJwk[] } & SigningJwk;
		return TokenIssuer.open({ issuer, keys: document.keys ?? [document], clock });
	});
}

function publicKeys(text: string): KeySource {
	return text.trimStart().startsWith("{") ? jwkSource(JSON.parse(text)) : pemSource(text);
}

/** Says which setting a failure is about. */
function named<T>(variable: string, make: () => T): T {
	try {
		return make();
	} catch (error) {
		throw new Error(`Cannot use ${variable}: ${reasons(error)}`, { cause: error });
	}
}

function reasons(error: unknown): string {
	if (!(error instanceof Error)) return String(error);
	return error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message;
}

async function read<T>(variable: string, path: string, parse: (text: string) => T | Promise<T>): Promise<T> {
	try {
		return await parse(await readFile(path, "utf8"));
	} catch (error) {
		throw new Error(`Cannot use ${variable} "${path}": ${(error as Error).message}`, { cause: error });
	}
}

/** Nobody from elsewhere gets in unless that is configured; the log says so once for each kind of surprise. */
function defaultAuthenticator(config: Config): Authenticator {
	let told = false;
	return anonymousAuthenticator({
		allowAll: config.allowAnonymous,
		onRefused: (address) => {
			if (told) return;
			told = true;
			logger.warn(
				"A client from elsewhere was refused, since without authentication only this machine may connect; ALLOW_ANONYMOUS=true lets everybody in",
				{ address },
			);
		},
	});
}
