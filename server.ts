/** The broker as a program: settings from the environment, a life that ends with a signal, exit code 1 for what cannot start. */

import process from "node:process";
import { configHelp, configureLog, createBroker, type ListeningPort, log, parseConfig, VERSION } from "./src/shoal.ts";

async function main(): Promise<void> {
	const config = parseConfig(process.env);
	configureLog({ level: config.logLevel, format: config.logFormat });
	const logger = log("server");
	const broker = createBroker(config);
	await broker.start();

	let ending = false;
	const end = async (signal: string) => {
		if (ending) return;
		ending = true;
		logger.info("Sending the clients away", { signal });
		await broker.drain(config.drainSeconds);
		await broker.stop();
		process.exit(0);
	};
	process.on("SIGTERM", () => void end("SIGTERM"));
	process.on("SIGINT", () => void end("SIGINT"));

	let ports: readonly ListeningPort[];
	try {
		ports = await broker.listen();
	} catch (error) {
		await broker.stop();
		throw error;
	}
	logger.info("Shoal is ready", {
		version: VERSION,
		address: `ws://localhost:${ports[0]?.port}${config.wsPath}`,
	});
}

if (process.argv.includes("--help")) console.log(configHelp());
else if (process.argv.includes("--version")) console.log(VERSION);
else {
	main().catch((error: unknown) => {
		console.error(`shoal: ${error instanceof Error ? error.message : error}`);
		process.exit(1);
	});
}
