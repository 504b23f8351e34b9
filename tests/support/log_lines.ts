/** A process that logs what `log.test.ts` looks at. Arguments: level and format, or none to leave the log unconfigured. */

import process from "node:process";
import type { Config } from "../../src/config.ts";
import { configureLog, log } from "../../src/log.ts";

const [level, format] = process.argv.slice(2);
const logger = log("connection");
logger.error("before configuration");
if (level !== undefined) configureLog({ level: level as Config["logLevel"], format: format as Config["logFormat"] });
logger.debug("a debug line");
logger.info("Client {clientId} connected", { clientId: "a b\nlevel=error", port: 1883, absent: undefined, time: "forged" });
logger.warn("bytes", { payload: new TextEncoder().encode("secret"), nested: { buffer: Buffer.from("secret") }, big: 7n });
logger.error("Failed: {error}", { error: new Error("outer", { cause: new TypeError("inner") }) });
for (let index = 0; index < 1000; index++) log("flood").info("line", { index });
process.exit(3);
