/** The Redis store against a real server: the store contract, and what only Redis can do wrong. */

import { after, before } from "node:test";
import { storeContract } from "../contracts/store_contract.ts";
import { RedisBench } from "./redis_support.ts";

let bench: RedisBench;

before(async () => {
	bench = await RedisBench.start();
});

after(() => bench.stop());

storeContract("Redis store", (limits) => bench.openHarness(limits), true);
