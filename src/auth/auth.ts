/**
 * Who a client is and what it may do: the two interfaces that the broker asks. It never decides itself.
 * Implementations stand beside this file; `anonymous.ts` is the default while nothing else is configured.
 */

import type { QoS } from "../mqtt/packet.ts";
import type { ReasonCode } from "../mqtt/reason_code.ts";
import type { ClientCertificate, PeerInfo } from "../transport/socket.ts";
import type { Grants } from "./grants.ts";

/** An authenticated identity. */
export interface Principal {
	/** Name for logs and for placeholders in rules: the user name, the token's subject; empty for an anonymous client. */
	readonly name: string;
	/** How it was authenticated, such as `anonymous`. */
	readonly method: string;
	/** When its rights end, in ms since 1970; `Infinity` for never. */
	readonly expiresAtMs: number;
	/** Client id to assign when the client sent none; absent lets the broker make one. */
	readonly clientId?: string;
	/** The only client id that it may use. The authenticator has refused any other with 0x85 already. */
	readonly boundClientId?: string;
	/** User name that was authenticated; absent where a name was sent but proves nothing, as beside a token. */
	readonly username?: string;
	/** Whose topics and client ids it shares; absent where there are no tenants. */
	readonly tenant?: string;
	/** Identifier of the token (`jti`), by which it can be revoked. */
	readonly tokenId?: string;
	/** When the token was issued, in ms since 1970: a revocation of a user or client id ends only what is older. */
	readonly issuedAtMs?: number;
	/** Claims of the token that configured rules may name as `${claims.…}`. */
	readonly claims?: Readonly<Record<string, string>>;
	/** Rules that came with the token or the user; absent means that only the configured rules count. */
	readonly grants?: Grants;
}

export interface Credentials {
	readonly clientId: string;
	readonly username: string | undefined;
	readonly password: Uint8Array | undefined;
	/** Authentication Method of MQTT 5 enhanced authentication, with the data of the packet at hand. */
	readonly authenticationMethod: string | undefined;
	readonly authenticationData: Uint8Array | undefined;
	readonly peer: PeerInfo;
	/** Token of the upgrade request: from its Authorization header, a cookie or a query parameter. */
	readonly token?: string;
	/** Client certificate that this server's TLS or a trusted proxy has verified. */
	readonly certificate?: VerifiedCertificate;
}

/** What is used of a client certificate; {@link ClientCertificate} has more. */
export type VerifiedCertificate = Pick<ClientCertificate, "commonName" | "subject" | "fingerprint256" | "subjectAltName">;

export type AuthOutcome =
	| { readonly kind: "granted"; readonly principal: Principal; readonly authenticationData?: Uint8Array }
	/** Enhanced authentication goes on: the broker sends AUTH 0x18 and calls `exchange.next` with the client's answer. */
	| {
			readonly kind: "continue";
			readonly authenticationData: Uint8Array;
			readonly exchange: AuthExchange;
			/** The name that the client goes by in the exchange, proven or not. */
			readonly username?: string;
	  }
	| Refusal;

export interface Refusal {
	readonly kind: "refused";
	readonly reasonCode: ReasonCode;
	/** A sentence for the log; the client never sees it. Contains no secret. */
	readonly why?: string;
	/** `false` where nobody can have been guessing, as with a well-signed token that has expired. */
	readonly guess?: boolean;
}

/** The state of one enhanced authentication between two AUTH packets. */
export interface AuthExchange {
	next(authenticationData: Uint8Array | undefined): AuthOutcome | Promise<AuthOutcome>;
}

export interface Authenticator {
	/** Judges a CONNECT, or a re-authentication (`current` is then the principal so far). A rejection means 0x88: fail closed. */
	authenticate(credentials: Credentials, current?: Principal): AuthOutcome | Promise<AuthOutcome>;
}

export type Access =
	| { readonly action: "publish"; readonly topic: string; readonly qos: QoS; readonly retain: boolean }
	| { readonly action: "subscribe"; readonly filter: string; readonly qos: QoS };

export interface Authorizer {
	/**
	 * Whether a principal may do this. `filter` comes without `$share/…/`. Answers at once wherever it can: the broker asks
	 * for every PUBLISH that its cache does not know. A rejection counts as no.
	 */
	permits(principal: Principal, clientId: string, access: Access): boolean | Promise<boolean>;
	/** True when everybody may do everything, for ever: then nobody needs to ask. */
	readonly permitsAll?: boolean;
	/** Differs from what it was when an earlier decision may have become wrong; absent when that never happens. */
	readonly generation?: number;
	/** True when a decision may become wrong without a new generation, so that only the authorizer itself may keep it. */
	readonly volatile?: boolean;
	/**
	 * Whether rules can speak of this identity. If not, a rule would put its client id, user name, tenant or claim into a
	 * topic where it meant something else (`+`, `#`, `/`): CONNECT is refused with 0x85. Absent: they always can.
	 */
	admits?(principal: Principal, clientId: string): boolean;
	/** Calls the listener when the rights of live sessions must be judged again, until the answered function is called. */
	onChange?(listener: () => void): () => void;
}

/** Whoever has not been authenticated yet. */
export const NOBODY: Principal = { name: "", method: "none", expiresAtMs: Number.POSITIVE_INFINITY };

/** Asks an authorizer; one that throws or rejects has not said yes. */
export function permitted(authorizer: Authorizer, principal: Principal, clientId: string, access: Access): boolean | Promise<boolean> {
	try {
		const decision = authorizer.permits(principal, clientId, access);
		return typeof decision === "boolean" ? decision : decision.catch(() => false);
	} catch {
		return false;
	}
}
