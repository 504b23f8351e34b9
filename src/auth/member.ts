/**
 * What one member of the authentication chain answers. Implementations stand beside this file and know nothing of each
 * other; `chain.ts` asks them in order.
 */

import type { ReasonCode } from "../mqtt/reason_code.ts";
import type { AuthOutcome, Credentials, Principal, Refusal } from "./auth.ts";

/** An answer, or `ignored`: these credentials are of another kind, ask the next. */
export type MemberOutcome = AuthOutcome | { readonly kind: "ignored" };

export interface ChainMember {
	/** For the log, such as `jwt`. */
	readonly name: string;
	/**
	 * True where the user name in CONNECT proves and changes nothing, as beside a token. Many clients then send the same one, so
	 * failures under it must not keep the others out.
	 */
	readonly ignoresUsername?: boolean;
	/**
	 * MUST answer `ignored` only for credentials of another kind: wrong ones are refused, and whoever cannot be asked throws
	 * {@link Unavailable}, so that no later member lets in what this one could not judge.
	 */
	authenticate(credentials: Credentials, current?: Principal): MemberOutcome | Promise<MemberOutcome>;
}

export const IGNORED: MemberOutcome = { kind: "ignored" };

export function refused(reasonCode: ReasonCode, why: string, guess = true): Refusal {
	return { kind: "refused", reasonCode, why, guess };
}

/** Something that authentication depends on cannot be asked: keys, a hook, a store. The client gets 0x88. */
export class Unavailable extends Error {
	override readonly name = "Unavailable";
}
