/**
 * What every store promises, as tests: the prose of `src/store/store.ts`, sentence by sentence. Knows no implementation. The
 * suites are in `store/`, one for each subject.
 */

import type { OpenHarness } from "./store/fixture.ts";
import { forwardContract } from "./store/forward_contract.ts";
import { inflightContract } from "./store/inflight_contract.ts";
import { logContract } from "./store/log_contract.ts";
import { retainedContract } from "./store/retained_contract.ts";
import { sessionContract } from "./store/session_contract.ts";
import { sharedContract } from "./store/shared_contract.ts";
import { subscriptionContract } from "./store/subscription_contract.ts";
import { trimContract } from "./store/trim_contract.ts";
import { willContract } from "./store/will_contract.ts";

export type { OpenHarness, StoreHarness } from "./store/fixture.ts";

/**
 * Defines the contract's tests for one implementation.
 * @param open Makes a store that is not started; called once for each test.
 * @param persistent Whether its harnesses have `reopen`.
 */
export function storeContract(name: string, open: OpenHarness, persistent: boolean): void {
	const suite = { name, open, persistent };
	sessionContract(suite);
	subscriptionContract(suite);
	logContract(suite);
	forwardContract(suite);
	trimContract(suite);
	inflightContract(suite);
	sharedContract(suite);
	willContract(suite);
	retainedContract(suite);
}
