/**
 * The default while no authentication is configured: whoever is on this machine may do everything, everybody else only when
 * anonymous clients are allowed. User names and passwords are not looked at.
 */

import { ReasonCode } from "../mqtt/reason_code.ts";
import type { Authenticator, AuthOutcome, Authorizer, Credentials, Principal } from "./auth.ts";

const ANONYMOUS: Principal = { name: "", method: "anonymous", expiresAtMs: Number.POSITIVE_INFINITY };

/** Lets clients in without credentials: those of the loopback interface, or all of them. */
export function anonymousAuthenticator(options: {
	readonly allowAll: boolean;
	readonly onRefused: (address: string) => void;
}): Authenticator {
	return {
		authenticate({ peer, authenticationMethod }: Credentials): AuthOutcome {
			if (authenticationMethod !== undefined) return { kind: "refused", reasonCode: ReasonCode.badAuthenticationMethod };
			if (options.allowAll || isLoopback(peer.address)) return { kind: "granted", principal: ANONYMOUS };
			options.onRefused(peer.address);
			return { kind: "refused", reasonCode: ReasonCode.notAuthorized };
		},
	};
}

/** Everybody may do everything that the protocol allows. */
export const allowEverything: Authorizer = { permits: () => true };

function isLoopback(address: string): boolean {
	return address === "::1" || address.startsWith("127.");
}
