/**
 * The default while no authentication is configured: whoever is on this machine may do everything, everybody else only when
 * anonymous clients are allowed. User names and passwords are not looked at.
 */

import { ReasonCode } from "../mqtt/reason_code.ts";
import type { PeerInfo } from "../transport/socket.ts";
import type { Authenticator, AuthOutcome, Authorizer, Credentials, Principal } from "./auth.ts";

/** What proxies add to a request that they pass on. */
const PROXY_HEADERS = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

const ANONYMOUS: Principal = { name: "", method: "anonymous", expiresAtMs: Number.POSITIVE_INFINITY };

/** Lets clients in without credentials: those of the loopback interface, or all of them. */
export function anonymousAuthenticator(options: {
	readonly allowAll: boolean;
	readonly onRefused: (address: string) => void;
}): Authenticator {
	return {
		authenticate({ peer, authenticationMethod }: Credentials): AuthOutcome {
			if (authenticationMethod !== undefined) return { kind: "refused", reasonCode: ReasonCode.badAuthenticationMethod };
			if (options.allowAll || isLocal(peer)) return { kind: "granted", principal: ANONYMOUS };
			options.onRefused(peer.address);
			return { kind: "refused", reasonCode: ReasonCode.notAuthorized };
		},
	};
}

/** Everybody may do everything that the protocol allows. */
export const allowEverything: Authorizer = { permits: () => true, permitsAll: true };

/** A proxy on this machine speaks for others, and says so. */
function isLocal({ address, request }: PeerInfo): boolean {
	const loopback = address === "::1" || address.startsWith("127.");
	return loopback && !PROXY_HEADERS.some((name) => request?.headers.has(name));
}
