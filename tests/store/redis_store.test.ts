/** The store contract against a real Redis server, alone and as one that has the rules of a cluster. */

import { after, before } from "node:test";
import { storeContract } from "../contracts/store_contract.ts";
import { RedisBench } from "./redis_support.ts";

let server: RedisBench;
let cluster: RedisBench;

before(async () => {
	server = await RedisBench.start();
	cluster = await RedisBench.startCluster();
});

after(async () => {
	await server.stop();
	await cluster.stop();
});

storeContract("Redis store", (limits) => server.openHarness(limits), true);
storeContract("Redis store in slots", (limits) => cluster.openHarness(limits), true);
