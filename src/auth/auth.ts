/**
 * Who a client is and what it may do: the two interfaces that the broker asks. It never decides itself.
 * Implementations stand beside this file; `anonymous.ts` is the default while nothing else is configured.
 */

import type { QoS } from "../mqtt/packet.ts";
import type { ReasonCode } from "../mqtt/reason_code.ts";
import type { PeerInfo } from "../transport/socket.ts";

/** An authenticated identity. */
export interface Principal {
	/** Name for logs and for placeholders in rules: the user name, the token's subject; empty for an anonymous client. */
	readonly name: string;
	/** How it was authenticated, such as `anonymous`. */
	readonly method: string;
	/** When its rights end, in ms since 1970; `Infinity` for never. */
	readonly expiresAtMs: number;
	/** Client id to assign when the client sent none; `undefined` lets the broker make one. */
	readonly clientId?: string;
}

export interface Credentials {
	readonly clientId: string;
	readonly username: string | undefined;
	readonly password: Uint8Array | undefined;
	/** Authentication Method of MQTT 5 enhanced authentication, with the data of the packet at hand. */
	readonly authenticationMethod: string | undefined;
	readonly authenticationData: Uint8Array | undefined;
	readonly peer: PeerInfo;
}

export type AuthOutcome =
	| { readonly kind: "granted"; readonly principal: Principal; readonly authenticationData?: Uint8Array }
	/** Enhanced authentication goes on: the broker sends AUTH 0x18 and calls `exchange.next` with the client's answer. */
	| { readonly kind: "continue"; readonly authenticationData: Uint8Array; readonly exchange: AuthExchange }
	| { readonly kind: "refused"; readonly reasonCode: ReasonCode };

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
