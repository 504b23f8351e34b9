/** The router of a broker that is one replica: there are no others, so nothing is wanted elsewhere and nothing comes from there. */

import type { ReplicaId, Router } from "./router.ts";

const NOBODY: readonly ReplicaId[] = Object.freeze([]);
const DONE = Promise.resolve();

/** The router without other replicas. It keeps nothing: all brokers of a process may share it. */
export const alone: Router = {
	start: () => DONE,
	close: () => DONE,
	advertise: () => undefined,
	withdraw: () => {},
	catchUp: () => DONE,
	exact: () => NOBODY,
	publish: () => {},
	forward: () => DONE,
	claim: () => true,
	ring: () => {},
	notifyTakeover: () => {},
	announce: () => DONE,
	forget: () => DONE,
};
